//! The graphics cards of a machine: which may be used, what for, and what they are called.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Stands for the processor where a card's id is asked for.
pub const PROCESSOR: &str = "processor";

/// What a card is used for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, TS,
)]
#[serde(rename_all = "snake_case")]
pub enum CardRole {
    /// For text and pictures.
    #[default]
    Both,
    /// For text alone.
    Text,
    /// For pictures alone.
    Pictures,
}

/// What the person chose for a card, or for the processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default, deny_unknown_fields)]
pub struct CardChoice {
    /// Whether it may be used at all.
    #[serde(rename = "use")]
    pub on: bool,
    /// What for.
    pub role: CardRole,
    /// What the person calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub name: Option<String>,
}

impl Default for CardChoice {
    fn default() -> Self {
        Self { on: true, role: CardRole::Both, name: None }
    }
}

/// Why no card computes though mining is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum NoCard {
    /// The person switched all of them off.
    Off,
    /// The processor is all there is, and it is switched off.
    ProcessorOff,
    /// Those that may be used do not answer any more; they are looked for.
    Gone {
        /// The first one's name.
        card: String,
        /// Whether there are more.
        several: bool,
        /// What the driver's state says of it, in one sentence.
        driver: Option<String>,
    },
}
