//! Days, hours and weeks as instants: local midnights right across changes of the clock, weeks from
//! snapshot to snapshot.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use neurino_protocol::earnings::SeriesStep;

/// A week in milliseconds.
pub const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const HOUR_MS: i64 = 60 * 60 * 1000;

fn zoned(at_ms: i64, zone: &TimeZone) -> Zoned {
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// The first instant of a local day. A day whose midnight the clock leaps over begins later.
fn begin_of(date: Date, zone: &TimeZone) -> i64 {
    // Noon exists everywhere; its day's first instant is found from there.
    date.at(12, 0, 0, 0)
        .to_zoned(zone.clone())
        .and_then(|noon| noon.start_of_day())
        .map_or(0, |begin| begin.timestamp().as_millisecond())
}

/// The local midnight before a time, or so many days earlier.
pub fn midnight(at_ms: i64, days_back: u32, zone: &TimeZone) -> i64 {
    let today = zoned(at_ms, zone).date();
    begin_of(today.saturating_sub(i64::from(days_back).days()), zone)
}

/// The number of the week of a time, counted from 1 January 1970, a Thursday: snapshots are on
/// Thursdays at 00:00 UTC.
pub fn week_of(at_ms: i64) -> u32 {
    u32::try_from(at_ms.div_euclid(WEEK_MS)).unwrap_or(0)
}

/// First instant of a week, and the first after it.
pub fn week(number: u32) -> (i64, i64) {
    let from = i64::from(number) * WEEK_MS;
    (from, from + WEEK_MS)
}

/// So many steps up to a time, the one that runs included, oldest first: where each begins and ends.
pub fn steps(at_ms: i64, by: SeriesStep, count: u32, zone: &TimeZone) -> Vec<(i64, i64)> {
    match by {
        SeriesStep::Week => {
            let last = week_of(at_ms);
            (last.saturating_sub(count.saturating_sub(1))..=last).map(week).collect()
        }
        SeriesStep::Hour => {
            // Zones differ from UTC by whole quarters, and hours follow the local clock.
            let offset_ms = i64::from(zoned(at_ms, zone).offset().seconds()) * 1000;
            let last = (at_ms + offset_ms).div_euclid(HOUR_MS) * HOUR_MS - offset_ms;
            (0..i64::from(count))
                .rev()
                .map(|n| (last - n * HOUR_MS, last - (n - 1) * HOUR_MS))
                .collect()
        }
        SeriesStep::Day => {
            let today = zoned(at_ms, zone).date();
            let begin = |back: i64| begin_of(today.saturating_sub(back.days()), zone);
            (0..i64::from(count)).rev().map(|n| (begin(n), begin(n - 1))).collect()
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn hours(zone: &str, now: &str, count: u32) -> Vec<i64> {
        let zone = TimeZone::get(zone).unwrap();
        let days = steps(at(now), SeriesStep::Day, count, &zone);
        assert!(days.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gap: {days:?}");
        days.iter().map(|(from, until)| (until - from) / HOUR_MS).collect()
    }

    #[test]
    fn days_have_23_and_25_hours_where_the_clock_changes() {
        // Forward on 29 March, back on 25 October 2026.
        assert_eq!(hours("Europe/Berlin", "2026-03-30T10:00:00Z", 3), [24, 23, 24]);
        assert_eq!(hours("Europe/Berlin", "2026-10-26T10:00:00Z", 3), [24, 25, 24]);
        // In Beirut midnight itself does not exist on 29 March.
        assert_eq!(hours("Asia/Beirut", "2026-03-30T10:00:00Z", 3), [24, 23, 24]);
        assert_eq!(hours("UTC", "2026-03-30T10:00:00Z", 2), [24, 24]);
    }

    #[test]
    fn midnight_is_the_local_one() {
        let zone = TimeZone::get("America/New_York").unwrap();
        let now = at("2026-11-02T03:00:00Z");
        assert_eq!(midnight(now, 0, &zone), at("2026-11-01T04:00:00Z"), "still summer time");
        assert_eq!(midnight(now, 1, &zone), at("2026-10-31T04:00:00Z"));
        let kathmandu = TimeZone::get("Asia/Kathmandu").unwrap();
        assert_eq!(midnight(now, 0, &kathmandu), at("2026-11-01T18:15:00Z"));
    }

    #[test]
    fn hours_follow_the_local_clock() {
        let zone = TimeZone::get("Asia/Kathmandu").unwrap();
        let last = *steps(at("2026-11-02T03:20:00Z"), SeriesStep::Hour, 2, &zone).last().unwrap();
        assert_eq!(last, (at("2026-11-02T03:15:00Z"), at("2026-11-02T04:15:00Z")));
    }

    #[test]
    fn weeks_end_on_thursdays() {
        let (from, until) = week(week_of(at("2026-11-22T14:05:00Z")));
        assert_eq!((from, until), (at("2026-11-19T00:00:00Z"), at("2026-11-26T00:00:00Z")));
        assert_eq!(week_of(until - 1) + 1, week_of(until));
        let zone = TimeZone::UTC;
        assert_eq!(steps(until, SeriesStep::Week, 3, &zone).len(), 3);
    }
}
