//! What the window is told about power: limits of cards, the search for the best one, and what
//! keeps the computer awake.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What the person chose. What is missing in a file has its default, what is unknown is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct PowerSettings {
    /// When the computer is kept from going to sleep.
    pub keep_awake: KeepAwake,
    /// The limits of cards while they mine, in watts, by the card's name for itself.
    pub limits_w: BTreeMap<String, u32>,
}

/// When the computer is kept from going to sleep by itself. The screen may always go dark.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum KeepAwake {
    /// Never.
    Never,
    /// While a job runs, and for two minutes in which the next may come.
    #[default]
    Jobs,
    /// As long as it mines.
    Mining,
}

/// What the window asks for; each is answered with a [`PowerView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum PowerCommand {
    /// Nothing but the answer.
    Look,
    /// Limits a card while it mines.
    Limit {
        /// The card.
        card: String,
        /// In watts; none takes the limit away.
        limit_w: Option<u32>,
    },
    /// When to keep the computer awake.
    KeepAwake {
        /// When.
        when: KeepAwake,
    },
    /// Begins to look for the limit that earns most with a kilowatt hour. The machine must mine.
    SweepStart {
        /// The card.
        card: String,
    },
    /// Breaks that off, or puts its table away.
    SweepStop,
}

/// Power, as the settings show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct PowerView {
    /// The cards that a driver shows.
    pub cards: Vec<PowerCardView>,
    /// Why there is none, in one sentence.
    pub no_cards: Option<String>,
    /// The search for the best limit: under way, or the last one.
    pub sweep: Option<SweepView>,
    /// When the computer is kept awake.
    pub keep_awake: KeepAwake,
    /// Whether it is kept awake now.
    pub awake: AwakeState,
}

/// A card and its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct PowerCardView {
    /// Its name for itself.
    pub card: String,
    /// Its name, as its maker spells it.
    pub name: String,
    /// What the limit may be.
    pub range: Option<WattRange>,
    /// The limit in force, in watts.
    pub now_w: Option<u32>,
    /// The one that the person chose for mining, in watts.
    pub limit_w: Option<u32>,
    /// How it stands.
    pub state: LimitState,
    /// What the administrator can type instead, where this program may not change limits.
    pub command: Option<String>,
}

/// What a limit may be, in watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct WattRange {
    /// The least.
    pub least_w: u32,
    /// The most.
    pub most_w: u32,
    /// What the card comes with.
    pub usual_w: u32,
}

/// How a card's limit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LimitState {
    /// The card has its own limit, and another can be set while it mines.
    Own,
    /// Ours is in force.
    Held,
    /// Somebody else set another one while ours was in force; it stays until mining ends.
    Theirs,
    /// The card does not let its limit be changed.
    NotSupported,
    /// Only the administrator may change it.
    NoPermission,
    /// It did not work; the next run tries again.
    Failed {
        /// Why, in one sentence.
        message: String,
    },
}

/// The search for the limit that earns most with a kilowatt hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct SweepView {
    /// The card.
    pub card: String,
    /// What it does.
    pub stage: SweepStage,
    /// How far it is, 0 to 1.
    pub progress: f32,
    /// The limit being tried, in watts; none when it is over.
    pub trying_w: Option<u32>,
    /// What was measured, in the order of trying.
    pub rows: Vec<SweepRow>,
    /// What limits are compared by.
    pub measure: SweepMeasure,
    /// The limit that does most with a kilowatt hour and keeps up, in watts.
    pub advice_w: Option<u32>,
}

/// What the search does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SweepStage {
    /// The new limit takes effect.
    Settling,
    /// Work is counted.
    Measuring,
    /// No job runs; nothing is counted.
    Waiting,
    /// It measured every limit and has an advice.
    Done,
    /// It measured, but the limits did different kinds of work.
    NotComparable,
    /// There was too little work.
    NoWork,
    /// It was broken off: by the person, or because mining ended.
    Stopped,
}

/// What limits are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum SweepMeasure {
    /// Points.
    Points,
    /// Tokens written.
    Tokens,
    /// Pictures.
    Pictures,
}

/// What happened at one limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
pub struct SweepRow {
    /// The limit in watts.
    pub limit_w: u32,
    /// What the card drew, in watts.
    pub drew_w: f32,
    /// Points, tokens or pictures in an hour.
    pub per_hour: f64,
    /// Points, tokens or pictures with a kilowatt hour.
    pub per_kwh: f64,
}

/// Whether the computer is kept awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AwakeState {
    /// It may go to sleep.
    Released,
    /// It is kept awake.
    Held,
    /// It should be, and the system does not let it.
    Failed {
        /// Why, in one sentence.
        message: String,
    },
}
