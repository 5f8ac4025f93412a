//! The price of energy that the person set, in a small file, and what energy cost by it.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use neurino_control::Week;
use neurino_protocol::earnings::Tariff;

use crate::error::{RecordError, replace};

/// Dearest price taken seriously, in millionths of the currency's unit: a million units, since some
/// currencies count a kilowatt hour in thousands.
const KWH_MICRO_MAX: u64 = 1_000_000_000_000;

/// Reads the price; none where there is no file or it is damaged.
pub fn load(path: &Path) -> Option<Tariff> {
    let bytes = std::fs::read(path).ok()?;
    let tariff = serde_json::from_slice(&bytes).ok()?;
    check(&tariff).is_ok().then_some(tariff)
}

/// Keeps a price, or forgets it.
///
/// # Errors
/// [`RecordError::Tariff`] for a price or currency that means nothing; [`RecordError::Io`].
pub fn save(path: &Path, tariff: Option<&Tariff>) -> Result<(), RecordError> {
    let Some(tariff) = tariff else {
        return match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RecordError::io("remove", path)(error))
            }
            _ => Ok(()),
        };
    };
    check(tariff)?;
    replace(path, &serde_json::to_vec(tariff).expect("strings and integers always serialise"))
}

fn check(tariff: &Tariff) -> Result<(), RecordError> {
    let currency = tariff.currency.trim();
    if currency.is_empty() || currency.chars().count() > 8 || currency.contains(char::is_control) {
        return Err(RecordError::Tariff("the currency is one to eight characters, such as EUR"));
    }
    let prices = [Some(tariff.kwh_micro), tariff.cheap_kwh_micro];
    if prices.into_iter().flatten().any(|price| price > KWH_MICRO_MAX) {
        return Err(RecordError::Tariff("the price of a kilowatt hour is 0 to 1000000"));
    }
    Ok(())
}

/// What a kilowatt hour costs in each hour: two prices, and the week that says which one holds when.
pub struct Prices<'a> {
    /// The prices.
    pub tariff: &'a Tariff,
    /// Which hours are cheap, by the local clock.
    pub week: &'a Week,
    /// The local clock.
    pub zone: &'a TimeZone,
}

impl Prices<'_> {
    /// What energy cost, in millionths of the currency's unit, rounded down once.
    ///
    /// `spent` are stretches that lie within an hour of the local clock, as the meter's quarters do:
    /// when each began, in milliseconds since the Unix epoch, and its energy in millijoules.
    pub fn cost_micro(&self, spent: impl Iterator<Item = (i64, u64)>) -> u64 {
        const KWH_MJ: u128 = 3_600_000_000;
        let (mut usual_mj, mut cheap_mj) = (0_u128, 0_u128);
        for (at_ms, used_mj) in spent {
            let sum = if self.is_cheap(at_ms) { &mut cheap_mj } else { &mut usual_mj };
            *sum += u128::from(used_mj);
        }
        let Tariff { kwh_micro, cheap_kwh_micro, .. } = *self.tariff;
        let cheap_micro = cheap_kwh_micro.unwrap_or(kwh_micro);
        let cost = (usual_mj * u128::from(kwh_micro) + cheap_mj * u128::from(cheap_micro)) / KWH_MJ;
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn is_cheap(&self, at_ms: i64) -> bool {
        if self.tariff.cheap_kwh_micro.is_none() {
            return false;
        }
        let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let local = self.zone.to_datetime(at);
        let day = local.weekday().to_monday_zero_offset();
        let minute =
            (i32::from(day) * 24 + i32::from(local.hour())) * 60 + i32::from(local.minute());
        self.week.is_cheap(u16::try_from(minute).unwrap_or(0))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const KWH_MJ: u64 = 3_600_000_000;

    fn tariff_of(kwh_micro: u64, cheap_kwh_micro: Option<u64>) -> Tariff {
        Tariff { kwh_micro, cheap_kwh_micro, currency: "EUR".into() }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// A kilowatt hour at each of these times, at 32 and 21 cents, nights from 22 to 6 being cheap.
    fn cost(zone: &str, times: &[&str]) -> u64 {
        let (tariff, week) = (tariff_of(320_000, Some(210_000)), Week::default());
        let zone = TimeZone::get(zone).unwrap();
        let prices = Prices { tariff: &tariff, week: &week, zone: &zone };
        prices.cost_micro(times.iter().map(|time| (at(time), KWH_MJ)))
    }

    #[test]
    fn energy_costs_what_its_hour_costs_to_the_quarter() {
        // In Berlin 22:00 is 21:00 in winter by UTC, and 20:00 in summer.
        assert_eq!(cost("Europe/Berlin", &["2026-11-23T20:45:00Z"]), 320_000);
        assert_eq!(cost("Europe/Berlin", &["2026-11-23T21:00:00Z"]), 210_000);
        assert_eq!(cost("Europe/Berlin", &["2026-07-20T19:45:00Z"]), 320_000);
        assert_eq!(cost("Europe/Berlin", &["2026-07-20T20:00:00Z"]), 210_000);
        assert_eq!(cost("Europe/Berlin", &["2026-11-23T04:45:00Z"]), 210_000);
        assert_eq!(cost("Europe/Berlin", &["2026-11-23T05:00:00Z"]), 320_000);
        // 22:00 in Kathmandu is 16:15 by UTC.
        assert_eq!(cost("Asia/Kathmandu", &["2026-11-23T16:00:00Z"]), 320_000);
        assert_eq!(cost("Asia/Kathmandu", &["2026-11-23T16:15:00Z"]), 210_000);
    }

    #[test]
    fn both_of_an_hour_that_comes_twice_are_cheap_and_one_that_is_left_out_costs_nothing() {
        // 25 October 2026: 02:30 in summer time, then 02:30 in winter time; cheap until 06:00.
        let twice = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"];
        assert_eq!(cost("Europe/Berlin", &twice), 2 * 210_000);
        let end = ["2026-10-25T04:45:00Z", "2026-10-25T05:00:00Z"];
        assert_eq!(cost("Europe/Berlin", &end), 210_000 + 320_000);
        // 29 March 2026: 01:45 is followed by 03:00, and 06:00 comes an hour earlier.
        let spring = ["2026-03-29T00:45:00Z", "2026-03-29T01:00:00Z", "2026-03-29T04:00:00Z"];
        assert_eq!(cost("Europe/Berlin", &spring), 210_000 + 210_000 + 320_000);
    }

    #[test]
    fn the_week_says_which_hours_are_cheap_and_the_sum_is_rounded_once() {
        let mut hours = [[neurino_control::Hour::Mine; 24]; 7];
        hours[6][23] = neurino_control::Hour::Cheap;
        let (week, zone, two) = (Week::new(hours), TimeZone::UTC, tariff_of(3, Some(1)));
        let cost = |tariff: &Tariff, spent: &[(&str, u64)]| {
            let prices = Prices { tariff, week: &week, zone: &zone };
            prices.cost_micro(spent.iter().map(|(time, mj)| (at(time), *mj)))
        };
        // Sunday 23:00, and the Monday after.
        assert_eq!(cost(&two, &[("2026-11-22T23:45:00Z", KWH_MJ)]), 1);
        assert_eq!(cost(&two, &[("2026-11-23T00:00:00Z", KWH_MJ)]), 3);
        let halves = [("2026-11-22T23:00:00Z", KWH_MJ / 2), ("2026-11-23T00:00:00Z", KWH_MJ / 2)];
        assert_eq!(cost(&two, &halves), 2, "half of one and half of three");
        // With one price every hour has it.
        assert_eq!(cost(&tariff_of(3, None), &[("2026-11-22T23:45:00Z", KWH_MJ)]), 3);
        assert_eq!(
            cost(&tariff_of(u64::MAX, None), &[("2026-11-22T23:45:00Z", u64::MAX)]),
            u64::MAX
        );
    }

    #[test]
    fn a_price_is_kept_forgotten_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tariff.json");
        assert_eq!(load(&path), None);
        save(&path, None).unwrap();
        let tariff = tariff_of(320_000, Some(210_000));
        save(&path, Some(&tariff)).unwrap();
        assert_eq!(load(&path), Some(tariff.clone()));
        save(&path, None).unwrap();
        assert_eq!(load(&path), None);
        let mut dong = tariff.clone();
        (dong.kwh_micro, dong.currency) = (2_500_000_000, "VND".into());
        save(&path, Some(&dong)).unwrap();
        assert_eq!(load(&path), Some(dong));
        for (kwh_micro, currency) in [(1, ""), (1, "a currency"), (2_000_000_000_000, "EUR")] {
            let wrong = Tariff { kwh_micro, cheap_kwh_micro: None, currency: currency.into() };
            assert!(save(&path, Some(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(save(&path, Some(&tariff_of(1, Some(2_000_000_000_000)))).is_err());
        // A file of an earlier version has one price.
        std::fs::write(&path, r#"{"kwh_micro":320000,"currency":"EUR"}"#).unwrap();
        assert_eq!(load(&path), Some(tariff_of(320_000, None)));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(load(&path), None);
    }
}
