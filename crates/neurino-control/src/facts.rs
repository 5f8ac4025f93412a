//! What the machine is told about its surroundings at one moment. What a system cannot tell is
//! `None`; the rule that needs it then does nothing, or says that it cannot be used.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::games;

/// The facts of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Minute of the local week; Monday 00:00 is 0.
    pub week_minute: u16,
    /// The next change of the local clock, as to summer time, if one is near.
    pub clock_change: Option<ClockChange>,
    /// What computes the jobs.
    pub device: JobDevice,
    /// Whether the miner is there: preparing, working, finishing or handing back.
    pub mining: bool,
    /// Seconds since mouse or keyboard was last used.
    pub idle_secs: Option<u32>,
    /// Whether another person's session is the one in front of this machine.
    pub other_user: Option<bool>,
    /// Whether the machine runs on its battery.
    pub on_battery: Option<bool>,
    /// Whether the network is metered.
    pub metered: Option<bool>,
    /// Temperature of the card that computes, in degrees Celsius.
    pub card_c: Option<i16>,
    /// The running programs.
    pub programs: Option<&'a [Program]>,
    /// Whether a newer version of this program waits for the running jobs to end.
    pub updating: bool,
    /// Whether the library of models is being moved: nothing may read from it meanwhile.
    pub moving: bool,
    /// The window in front; `None` also where there is none.
    pub foreground: Option<&'a Foreground>,
}

/// A change of the local clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockChange {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// By how many minutes it is put forward; below zero where it is put back.
    pub by_minutes: i16,
}

impl Facts<'_> {
    /// The beginning of this minute, in milliseconds since the Unix epoch: what is told from there does not
    /// change within a minute.
    pub(crate) fn this_minute_ms(&self) -> i64 {
        self.now_ms - self.now_ms.rem_euclid(60_000)
    }

    /// The change of the clock as the minutes that pass until then, and those that it is put forward by.
    pub(crate) fn change_ahead(&self) -> Option<(u16, i16)> {
        let change = self.clock_change?;
        let minutes = (change.at_ms - self.this_minute_ms()).max(0).div_euclid(60_000);
        Some((u16::try_from(minutes).ok()?, change.by_minutes))
    }
}

/// What computes the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobDevice {
    /// The processor.
    Cpu,
    /// A graphics card.
    Gpu,
}

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its name as [`games::program_name`] makes it.
    pub name: String,
    /// Whether it is a game in the folder of a store.
    pub in_library: bool,
}

impl Program {
    /// The program whose file lies here.
    pub fn at(path: &str) -> Self {
        Self { name: games::program_name(path), in_library: games::in_library(path) }
    }
}

/// The program whose window is in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreground {
    /// Its name as [`games::program_name`] makes it.
    pub program: String,
    /// Whether its window fills a screen.
    pub full_screen: bool,
    /// How busy it keeps the card, in per cent, where the driver tells.
    pub card_load_percent: Option<u8>,
}
