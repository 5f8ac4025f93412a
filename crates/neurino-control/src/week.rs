//! The hours of the week in which mining is allowed, and which of them have cheap electricity.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::saying::Clock;

/// Minutes of a week.
pub const WEEK_MINUTES: u16 = 7 * 24 * 60;
const DAY_MINUTES: u16 = 24 * 60;
const DAY_NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Seven days from Monday, 24 hours each. Written as seven rows of 24 letters: `.` no mining, `m`
/// mining, `c` mining with cheap electricity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[ts(type = "string[]")]
pub struct Week([[Hour; 24]; 7]);

/// One hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hour {
    /// No mining.
    Never,
    /// Mining.
    Mine,
    /// Mining, and electricity is cheap.
    Cheap,
}

impl Default for Week {
    /// Every hour; nights from 22 to 6 are cheap.
    fn default() -> Self {
        let hour = |hour: usize| if (6..22).contains(&hour) { Hour::Mine } else { Hour::Cheap };
        Self([std::array::from_fn(hour); 7])
    }
}

impl Week {
    /// A week of these hours, Monday first.
    pub fn new(hours: [[Hour; 24]; 7]) -> Self {
        Self(hours)
    }

    fn hour(&self, minute: u16) -> Hour {
        let minute = minute % WEEK_MINUTES;
        self.0[usize::from(minute / DAY_MINUTES)][usize::from(minute % DAY_MINUTES / 60)]
    }

    /// Whether electricity is cheap in a minute of the week (Monday 00:00 is 0).
    pub fn is_cheap(&self, minute: u16) -> bool {
        self.hour(minute) == Hour::Cheap
    }

    /// Whether a minute of the week is allowed.
    pub fn allows(&self, minute: u16, cheap_only: bool) -> bool {
        match self.hour(minute) {
            Hour::Never => false,
            Hour::Mine => !cheap_only,
            Hour::Cheap => true,
        }
    }

    /// Minutes that pass from this one to the beginning of the next allowed hour; 0 within one, `None`
    /// where there is none.
    ///
    /// - `change`: the next change of the clock: the minutes that pass until then, and by how many it is
    ///   put forward
    pub fn minutes_until_allowed(
        &self,
        minute: u16,
        cheap_only: bool,
        change: Option<(u16, i16)>,
    ) -> Option<u16> {
        let shift = |passed: u16| match change {
            Some((at, by)) if passed >= at => by,
            _ => 0,
        };
        // An hour that a change leaves out comes a week later.
        (0..2 * WEEK_MINUTES)
            .find(|passed| self.allows(later(minute, *passed, shift(*passed)), cheap_only))
    }
}

/// The minute of the week that the clock shows after so many have passed and it was put forward by `shift`.
pub(crate) fn later(minute: u16, passed: u16, shift: i16) -> u16 {
    let shown = i32::from(minute) + i32::from(passed) + i32::from(shift);
    shown.rem_euclid(i32::from(WEEK_MINUTES)) as u16
}

/// A minute of the week as a time; the day is named where it is not `today`'s.
pub(crate) fn time_of(minute: u16, today: u16) -> Clock {
    let (minute, today) = (minute % WEEK_MINUTES, today % WEEK_MINUTES);
    let day = minute / DAY_MINUTES;
    let other = (day != today / DAY_MINUTES).then_some(day as u8);
    Clock { day: other, minute: minute % DAY_MINUTES }
}

/// A time as a clock shows it: `22:40`, `Mon 22:40`.
pub(crate) fn clock(day: Option<u8>, minute: u16) -> String {
    let time = format!("{:02}:{:02}", minute / 60, minute % 60);
    match day.and_then(|day| DAY_NAMES.get(usize::from(day))) {
        Some(day) => format!("{day} {time}"),
        None => time,
    }
}

impl TryFrom<Vec<String>> for Week {
    type Error = String;

    fn try_from(rows: Vec<String>) -> Result<Self, Self::Error> {
        let mut week = [[Hour::Never; 24]; 7];
        let wrong = || "a week is 7 rows of 24 letters, each of them `.`, `m` or `c`".to_owned();
        if rows.len() != 7 {
            return Err(wrong());
        }
        for (row, day) in rows.iter().zip(&mut week) {
            if row.chars().count() != 24 {
                return Err(wrong());
            }
            for (letter, hour) in row.chars().zip(day) {
                *hour = match letter {
                    '.' => Hour::Never,
                    'm' => Hour::Mine,
                    'c' => Hour::Cheap,
                    _ => return Err(wrong()),
                };
            }
        }
        Ok(Self(week))
    }
}

impl From<Week> for Vec<String> {
    fn from(week: Week) -> Self {
        let letter = |hour: &Hour| match hour {
            Hour::Never => '.',
            Hour::Mine => 'm',
            Hour::Cheap => 'c',
        };
        week.0.iter().map(|day| day.iter().map(letter).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nights() -> Week {
        let hour = |hour: usize| match hour {
            22.. => Hour::Cheap,
            0..6 => Hour::Mine,
            _ => Hour::Never,
        };
        Week::new([std::array::from_fn(hour); 7])
    }

    #[test]
    fn hours_begin_and_end_on_the_minute() {
        let week = nights();
        assert!(!week.allows(21 * 60 + 59, false) && week.allows(22 * 60, false));
        assert!(week.allows(WEEK_MINUTES - 1, true) && week.allows(WEEK_MINUTES, false));
        assert!(!week.allows(3 * 60, true), "not a cheap hour");
        assert_eq!(week.minutes_until_allowed(6 * 60, false, None), Some(16 * 60));
        assert_eq!(week.minutes_until_allowed(21 * 60 + 59, false, None), Some(1));
        assert_eq!(week.minutes_until_allowed(23 * 60, false, None), Some(0));
        assert_eq!(week.minutes_until_allowed(30, true, None), Some(21 * 60 + 30));
        let never = Week::new([[Hour::Never; 24]; 7]);
        assert_eq!(never.minutes_until_allowed(5, false, None), None);
    }

    #[test]
    fn a_change_of_the_clock_moves_the_next_hour() {
        let week = nights();
        let until = |minute: u16, change| week.minutes_until_allowed(minute, false, change);
        // From 12:00 it is ten hours to 22:00, one less where the clock is put forward meanwhile.
        assert_eq!(until(12 * 60, Some((60, 60))), Some(9 * 60));
        assert_eq!(until(12 * 60, Some((60, -60))), Some(11 * 60));
        assert_eq!(until(12 * 60, Some((11 * 60, 60))), Some(10 * 60), "afterwards");
        assert_eq!(until(6 * 60 + 10, Some((20, -60))), Some(20), "back into the night");
        // The one hour of the week is left out: it comes a week later, an hour sooner by then.
        let mut hours = [[Hour::Never; 24]; 7];
        hours[6][2] = Hour::Mine;
        let one = Week::new(hours);
        let sunday_1 = 6 * DAY_MINUTES + 60;
        let skipped = one.minutes_until_allowed(sunday_1, false, Some((60, 60)));
        assert_eq!(skipped, Some(WEEK_MINUTES));
    }

    #[test]
    fn one_hour_a_week_is_found_from_everywhere() {
        let mut hours = [[Hour::Never; 24]; 7];
        hours[2][5] = Hour::Mine;
        let week = Week::new(hours);
        for minute in 0..WEEK_MINUTES {
            let ahead = week.minutes_until_allowed(minute, false, None).expect("there is one");
            assert!(week.allows((minute + ahead) % WEEK_MINUTES, false));
            assert!(ahead == 0 || !week.allows((minute + ahead - 1) % WEEK_MINUTES, false));
        }
    }

    #[test]
    fn it_is_written_as_rows_and_anything_else_is_refused() {
        let text = serde_json::to_string(&nights()).expect("it can be written");
        assert!(text.starts_with(r#"["mmmmmm................cc","#), "{text}");
        assert_eq!(serde_json::from_str::<Week>(&text).expect("it reads back"), nights());
        for bad in ["[]", r#"["m","m","m","m","m","m","m"]"#, &text.replace('c', "x")] {
            assert!(serde_json::from_str::<Week>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_clock_names_the_day_where_it_is_another() {
        let said = |minute, today| time_of(minute, today).to_string();
        assert_eq!(said(22 * 60 + 5, 60), "22:05");
        assert_eq!(said(DAY_MINUTES + 7 * 60, 60), "Tue 07:00");
        assert_eq!(said(WEEK_MINUTES, WEEK_MINUTES - 1), "Mon 00:00");
    }
}
