//! What the window is told about when this machine mines. Rules, decisions and orders are
//! `neurino-control`'s own types.

use neurino_control::{Decision, Rules};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The control's part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ControlStatus {
    /// The decision in force.
    pub decision: Decision,
    /// What was given back when mining last stepped aside, while it still does.
    pub gave_back: Option<GaveBack>,
}

/// Memory that a program got back, measured before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct GaveBack {
    /// Bytes in use before, less those in use after: of the card, else of the engine's processes.
    #[ts(type = "number")]
    pub bytes: u64,
    /// From the decision until the model was unloaded, in milliseconds.
    #[ts(type = "number")]
    pub duration_ms: u64,
    /// Jobs that were handed back.
    pub jobs: u32,
}

/// The rules as the settings show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct RulesView {
    /// Those in force.
    pub rules: Rules,
    /// Those of a fresh installation.
    pub defaults: Rules,
    /// What this system tells.
    pub abilities: Abilities,
    /// The program that fills the screen or was taken for a game last, for the lists of programs.
    pub seen: Option<String>,
}

/// What this system tells; a rule that needs more cannot be used here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that a system tells or not")]
pub struct Abilities {
    /// How long nobody has used mouse and keyboard.
    pub idle: bool,
    /// Whether the machine runs on its battery.
    pub battery: bool,
    /// Whether the network is metered.
    pub metered: bool,
    /// Which programs run.
    pub programs: bool,
    /// Which window is in front, and whether it fills the screen.
    pub front: bool,
    /// How busy a program keeps the card.
    pub card_load: bool,
    /// How hot the card that computes is.
    pub heat: bool,
}
