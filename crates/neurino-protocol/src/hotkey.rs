//! The key that pauses and resumes mining, whichever window is in front.

use neurino_control::Hotkey;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::error::ErrorBody;

/// What the window asks for; each is answered with [`HotkeyView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum HotkeyCommand {
    /// Nothing but the answer.
    Look,
    /// Takes these keys, or gives them back.
    Set {
        /// The keys; `None` for no hotkey.
        keys: Option<Hotkey>,
    },
}

/// Whether the system gives keys to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum HotkeyWay {
    /// It does.
    Here,
    /// Under Wayland only the desktop's own settings put a command on a key.
    Wayland,
    /// It does not, or not in a way that is known here.
    NotHere,
}

/// The hotkey as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct HotkeyView {
    /// Whether there can be one.
    pub way: HotkeyWay,
    /// The keys that the person chose.
    pub keys: Option<Hotkey>,
    /// Why they do nothing at the moment.
    pub problem: Option<ErrorBody>,
}
