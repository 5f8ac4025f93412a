//! What the desktop's own notifications tell, kind by kind.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What the window asks for; each is answered with [`NoticeSettings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum NoticesCommand {
    /// Nothing but the answer.
    Look,
    /// Replaces the settings.
    Set {
        /// All of them.
        settings: NoticeSettings,
    },
    /// Shows one now, whatever the settings say.
    Test,
}

/// What is told. What is missing in a file has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings")]
pub struct NoticeSettings {
    /// Mining cannot go on without the person.
    pub needs_you: bool,
    /// A rule has stopped mining.
    pub paused: bool,
    /// The first points of the day.
    pub first_points: bool,
    /// What last week brought.
    pub weekly: bool,
    /// A newer version is ready.
    pub update: bool,
    /// A model has been fetched.
    pub model: bool,
    /// Several jobs in a row brought nothing.
    pub jobs_fail: bool,
    /// What Home tells as an alert.
    pub alerts: bool,
    /// What the hotkey did; where no window is open nothing else shows it.
    pub hotkey: bool,
}

impl Default for NoticeSettings {
    fn default() -> Self {
        Self {
            needs_you: true,
            paused: false,
            first_points: false,
            weekly: false,
            update: false,
            model: false,
            jobs_fail: false,
            alerts: false,
            hotkey: true,
        }
    }
}

/// Something that is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Mining cannot go on without the person: why.
    NeedsYou(String),
    /// A rule has stopped mining.
    Paused(neurino_control::Saying),
    /// The first points of the day.
    FirstPoints,
    /// Last week's points: Llama, Waifu.
    Weekly(neurino_core::MicroPoints, neurino_core::MicroPoints),
    /// This version is ready.
    Update(String),
    /// This version is here, and the person installs it.
    UpdateByHand(String),
    /// This model, by its name, has been fetched.
    Model(String),
    /// So many jobs in a row brought nothing.
    JobsFail(u32),
    /// An alert, and its sentence.
    Alert(neurino_control::AlertKind, String),
    /// The hotkey was pressed: whether mining goes on.
    Hotkey(bool),
    /// The person wanted to see one.
    Test,
}
