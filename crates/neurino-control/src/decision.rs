//! What the machine decides.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::facts::JobDevice;
use crate::games::Sign;
use crate::saying::{Lifted, Saying, Seen};

/// The one decision that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Decision {
    /// The state it means.
    pub state: State,
    /// What the miner has to do.
    pub action: Action,
    /// Why.
    pub why: Why,
    /// All of that in one sentence or two, for people.
    pub sentence: String,
    /// The same as data, to be said in another language.
    pub said: Saying,
    /// When it ends by itself, in milliseconds since the Unix epoch, where that is known.
    #[ts(type = "number | null")]
    pub until_ms: Option<i64>,
    /// What starting now would do, where something keeps mining from running.
    pub resume: Option<String>,
    /// What that would set aside.
    pub resume_lifts: Vec<Lifted>,
    /// Where the rule that holds can be changed.
    pub change: Option<Section>,
    /// Which rules the person's own choice sets aside, as a sentence.
    pub aside: Option<String>,
    /// Whether it mines gently: somebody uses the machine, and the person wants it so.
    pub gentle: bool,
    /// The same as data.
    pub aside_lifts: Vec<Lifted>,
}

/// What state the control is in. The miner has states of its own while this says `Running`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The person has not started mining, or has stopped it.
    Stopped,
    /// Mining.
    Running,
    /// The running job may end, no other is taken, the model stays loaded.
    Cooling,
    /// The running job may end, then mining stops.
    Finishing,
    /// A rule keeps mining from running.
    Paused,
    /// The person paused it for a while.
    Snoozed,
}

/// What the miner has to do, from the mildest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Take jobs.
    Run,
    /// Finish the running jobs, take no others, keep the model loaded.
    TakeNoJobs,
    /// Finish the running jobs, then stop and unload.
    FinishThenStop,
    /// Hand running jobs back now, stop and unload; also: stay away.
    HandBack,
}

/// Why the decision is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Why {
    /// Nothing speaks against mining.
    Free,
    /// The person stopped mining, or has not started it.
    Person,
    /// The person wants the running job finished first.
    PersonFinishes,
    /// The person paused it.
    Snooze,
    /// A rule holds.
    Rule {
        /// What it saw.
        cause: Cause,
    },
}

/// What a rule saw.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// The program ended without a word while it was mining.
    Crash,
    /// A game runs.
    Game {
        /// The program.
        program: String,
        /// How it was recognised.
        sign: Sign,
    },
    /// A game ended a moment ago.
    CoolDown {
        /// The program.
        program: String,
    },
    /// A program runs that has the device for itself.
    Exclusive {
        /// The program.
        program: String,
        /// The device.
        device: JobDevice,
    },
    /// Another person's session is in front, and what they run cannot be seen.
    OtherUser,
    /// The machine runs on its battery.
    Battery,
    /// The card is hot.
    Hot {
        /// What it reached, in degrees Celsius.
        reached_c: i16,
        /// Down to which it has to cool.
        resume_c: i16,
    },
    /// The person uses the machine.
    InUse {
        /// Minutes without input that are needed.
        minutes: u32,
    },
    /// The system does not tell whether the person is away.
    AwayUnknown,
    /// The hour is not one of the week's.
    Schedule {
        /// Whether cheap hours alone count.
        cheap_only: bool,
    },
    /// The network is metered.
    Metered,
    /// A newer version of this program is about to be installed.
    Update,
    /// The library of models is being moved to another folder.
    Moving,
}

impl Cause {
    /// What was seen, as the end of a sentence: `doom is running`.
    pub fn seen(&self) -> impl Display + '_ {
        Seen(self)
    }

    /// Where its rule is found in the settings; `None` where no rule is behind it.
    pub fn section(&self) -> Option<Section> {
        match self {
            Self::Crash | Self::Update | Self::Moving => None,
            Self::Game { .. } | Self::CoolDown { .. } | Self::OtherUser => Some(Section::Games),
            Self::Exclusive { .. } => Some(Section::Programs),
            Self::Battery => Some(Section::Battery),
            Self::Hot { .. } => Some(Section::Heat),
            Self::InUse { .. } | Self::AwayUnknown | Self::Schedule { .. } => Some(Section::When),
            Self::Metered => Some(Section::Metered),
        }
    }
}

/// A part of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// When mining runs at all.
    When,
    /// Battery.
    Battery,
    /// Metered network.
    Metered,
    /// Temperatures.
    Heat,
    /// Programs that have a device for themselves.
    Programs,
    /// Games.
    Games,
}
