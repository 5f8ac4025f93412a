//! The person's rules: when this machine may mine, and what makes it step aside.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::facts::Facts;
use crate::games;
use crate::week::Week;

/// Most entries in a list of programs.
pub const PROGRAMS_MAX: usize = 200;
/// Longest name of a program, in bytes.
const PROGRAM_BYTES_MAX: usize = 260;

/// All rules. What is missing in a file has its default, what is unknown is ignored, so that
/// versions can be changed in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings")]
pub struct Rules {
    /// When mining runs at all.
    pub when: When,
    /// Minutes without mouse and keyboard after which the person counts as away, 1 to 240.
    pub idle_minutes: u32,
    /// Whether mining that began while the person was away stops when they come back.
    pub stop_on_return: bool,
    /// The hours of the week.
    pub week: Week,
    /// Of the allowed hours, take the cheap ones only.
    pub cheap_only: bool,
    /// Step aside while the machine runs on its battery.
    pub pause_on_battery: bool,
    /// Step aside while the network is metered.
    pub pause_on_metered: bool,
    /// Take no jobs while the graphics card is hot.
    pub pause_when_hot: bool,
    /// At this temperature of the card jobs are no longer taken, in degrees Celsius, 50 to 105.
    pub hot_stop_c: i16,
    /// Down to this temperature it cools before jobs are taken again; below `hot_stop_c`.
    pub hot_resume_c: i16,
    /// Mine gently while somebody uses the machine.
    pub gentle: bool,
    /// Minutes without mouse and keyboard after which nobody uses it, 1 to 60.
    pub gentle_minutes: u32,
    /// Gently, a card may draw this share of its usual limit, in per cent, 30 to 100.
    pub gentle_power_percent: u32,
    /// Gently, one job at a time is taken.
    pub gentle_one_job: bool,
    /// Programs that have the processor for themselves. Counts while jobs run on the processor.
    pub exclusive_cpu: Vec<String>,
    /// Programs that have the graphics card for themselves. Counts while jobs run on the card.
    pub exclusive_gpu: Vec<String>,
    /// Whether games are watched for.
    pub game_guard: bool,
    /// A program that fills the screen counts as a game.
    pub guard_full_screen: bool,
    /// A program in front that keeps the card busy counts as a game.
    pub guard_card_load: bool,
    /// A program in a folder of Steam, Epic, GOG and their like counts as a game.
    pub guard_libraries: bool,
    /// Programs that are games.
    pub games: Vec<String>,
    /// Programs that are none, whatever they look like.
    pub not_games: Vec<String>,
    /// Seconds between the end of a game and going on, 0 to 3600.
    pub cool_down_secs: u32,
}

/// When mining runs at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Always.
    Always,
    /// While nobody uses mouse and keyboard.
    Away,
    /// In the hours of the week.
    Schedule,
    /// In the hours of the week, while nobody uses mouse and keyboard.
    AwayOnSchedule,
}

impl When {
    /// Whether the person must be away.
    pub fn wants_away(self) -> bool {
        matches!(self, Self::Away | Self::AwayOnSchedule)
    }

    /// Whether the hours of the week count.
    pub fn wants_schedule(self) -> bool {
        matches!(self, Self::Schedule | Self::AwayOnSchedule)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            when: When::Always,
            idle_minutes: 10,
            stop_on_return: true,
            week: Week::default(),
            cheap_only: false,
            pause_on_battery: true,
            pause_on_metered: true,
            pause_when_hot: true,
            hot_stop_c: 88,
            hot_resume_c: 75,
            gentle: false,
            gentle_minutes: 5,
            gentle_power_percent: 70,
            gentle_one_job: true,
            exclusive_cpu: Vec::new(),
            exclusive_gpu: Vec::new(),
            game_guard: true,
            guard_full_screen: true,
            guard_card_load: true,
            guard_libraries: true,
            games: Vec::new(),
            not_games: Vec::new(),
            cool_down_secs: 180,
        }
    }
}

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// A number is out of its range.
    #[error("{what} must be between {least} and {most}, not {found}")]
    Range {
        /// Which one, in words.
        what: &'static str,
        /// Least value.
        least: i64,
        /// Largest value.
        most: i64,
        /// What was given.
        found: i64,
    },
    /// The pair of temperatures is the wrong way round.
    #[error(
        "the temperature to go on at ({resume_c} °C) must be at least 3 °C below the one to stop \
         at ({stop_c} °C)"
    )]
    HeatPair {
        /// Stop at.
        stop_c: i16,
        /// Go on at.
        resume_c: i16,
    },
    /// A list of programs is too long.
    #[error("a list of programs may have {PROGRAMS_MAX} entries, not {0}; remove some")]
    TooMany(usize),
    /// A program's name is none.
    #[error("`{0}` is no program's name; give its file name, for example `game.exe`")]
    Name(String),
}

impl Rules {
    /// No rule at all: for a program that is told what to do by its caller alone.
    pub fn none() -> Self {
        Self {
            pause_on_battery: false,
            pause_on_metered: false,
            pause_when_hot: false,
            game_guard: false,
            ..Self::default()
        }
    }

    /// Whether to mine gently: the person wants it while somebody uses the machine, and somebody
    /// does.
    pub(crate) fn gently(&self, facts: &Facts<'_>) -> bool {
        self.gentle && facts.idle_secs.is_some_and(|idle| idle < self.gentle_minutes * 60)
    }

    /// The rules with their lists in order, if they make sense.
    ///
    /// # Errors
    /// [`RulesError`] names the first thing that does not.
    pub fn checked(mut self) -> Result<Self, RulesError> {
        let range = |what, found: i64, least, most| match found {
            found if (least..=most).contains(&found) => Ok(()),
            found => Err(RulesError::Range { what, least, most, found }),
        };
        range("the minutes without input", i64::from(self.idle_minutes), 1, 240)?;
        range("the temperature to stop at", i64::from(self.hot_stop_c), 50, 105)?;
        range("the temperature to go on at", i64::from(self.hot_resume_c), 30, 102)?;
        range("the seconds after a game", i64::from(self.cool_down_secs), 0, 3600)?;
        range("the minutes without input", i64::from(self.gentle_minutes), 1, 60)?;
        range("the share of the power", i64::from(self.gentle_power_percent), 30, 100)?;
        if self.hot_resume_c + 3 > self.hot_stop_c {
            let (stop_c, resume_c) = (self.hot_stop_c, self.hot_resume_c);
            return Err(RulesError::HeatPair { stop_c, resume_c });
        }
        for list in
            [&mut self.exclusive_cpu, &mut self.exclusive_gpu, &mut self.games, &mut self.not_games]
        {
            check_programs(list)?;
        }
        Ok(self)
    }
}

/// Brings the names of a list into the form that is compared, each once, sorted.
fn check_programs(list: &mut Vec<String>) -> Result<(), RulesError> {
    if list.len() > PROGRAMS_MAX {
        return Err(RulesError::TooMany(list.len()));
    }
    for entry in list.iter_mut() {
        let name = games::program_name(entry);
        if name.is_empty() || name.len() > PROGRAM_BYTES_MAX || name.contains(char::is_control) {
            let shown = entry.chars().filter(|c| !c.is_control()).take(60).collect();
            return Err(RulesError::Name(shown));
        }
        *entry = name;
    }
    list.sort();
    list.dedup();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Rules::default().checked(), Ok(Rules::default()));
        assert_eq!(Rules::none().checked(), Ok(Rules::none()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let refused = |rules: Rules| rules.checked().expect_err("refused").to_string();
        let text = refused(Rules { idle_minutes: 0, ..Rules::default() });
        assert_eq!(text, "the minutes without input must be between 1 and 240, not 0");
        let text = refused(Rules { hot_stop_c: 70, hot_resume_c: 70, ..Rules::default() });
        assert!(text.contains("3 °C below"), "{text}");
        let text = refused(Rules { gentle_power_percent: 20, ..Rules::default() });
        assert_eq!(text, "the share of the power must be between 30 and 100, not 20");
        let text = refused(Rules { games: vec!["  ".into()], ..Rules::default() });
        assert!(text.contains("no program's name"), "{text}");
        let many = (0..201).map(|n| format!("game{n}")).collect();
        assert!(refused(Rules { games: many, ..Rules::default() }).contains("200"));
    }

    #[test]
    fn names_are_brought_into_one_form() {
        let games = vec![r"C:\Games\Doom.EXE".into(), "doom".into(), "/usr/games/Quake".into()];
        let rules = Rules { games, ..Rules::default() }.checked().expect("they make sense");
        assert_eq!(rules.games, ["doom", "quake"]);
    }
}
