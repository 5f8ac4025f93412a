//! The grammar of `neurino pause`.

use std::str::FromStr;

/// Longest pause, in minutes: a day.
const MINUTES_MAX: u32 = 24 * 60;

/// How long a pause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseTime {
    /// So many minutes.
    Minutes(u32),
    /// Until the person resumes.
    UntilResume,
}

impl FromStr for PauseTime {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "until-resume" {
            return Ok(Self::UntilResume);
        }
        match text.parse() {
            Ok(minutes @ 1..=MINUTES_MAX) => Ok(Self::Minutes(minutes)),
            _ => Err(format!("a pause takes 1 to {MINUTES_MAX} minutes, or `until-resume`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_an_end_within_a_day_or_none() {
        assert_eq!("15".parse(), Ok(PauseTime::Minutes(15)));
        assert_eq!("until-resume".parse(), Ok(PauseTime::UntilResume));
        for wrong in ["0", "1441", "-5", "an hour", ""] {
            assert!(wrong.parse::<PauseTime>().is_err(), "{wrong}");
        }
    }
}
