//! The first steps' part of the window's contract: a guide that is resumed where it was left.

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What the window can ask of the guide; always answered with an [`OnboardingView`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum OnboardingCommand {
    /// Where it stands.
    Look,
    /// Goes to a step and remembers it.
    Go {
        /// The step.
        step: OnboardingStep,
    },
    /// Begins it again, from Settings.
    Again,
    /// It is over; it does not open again by itself.
    Finish,
    /// Whether Neurino starts with the computer, in the tray, and mines.
    AtLogin {
        /// Whether it does.
        on: bool,
    },
}

/// The steps in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum OnboardingStep {
    /// Where points go, or a try without a wallet, or an existing miner.
    Reward,
    /// The identity's words are written down.
    Key,
    /// What this machine can do.
    Machine,
    /// Where models lie, and the first ones.
    Models,
    /// When it may mine.
    When,
    /// The first job and its points.
    FirstJob,
}

/// Where the guide stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct OnboardingView {
    /// Whether it is to be shown.
    pub open: bool,
    /// The step.
    pub step: OnboardingStep,
    /// Where models lie.
    pub models_folder: String,
    /// Room there in bytes, if the system says.
    #[ts(type = "number | null")]
    pub free_bytes: Option<u64>,
    /// The models to begin with.
    pub models: Vec<FirstModel>,
    /// Whether Neurino starts with the computer; none where it cannot be arranged.
    pub at_login: Option<bool>,
}

/// A model to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct FirstModel {
    /// The model.
    pub model: ModelId,
    /// Whether its files come with the program or with a download.
    pub comes_along: bool,
}
