//! Which jobs the operator of this machine leaves to others.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What the window asks for; each is answered with [`FilterView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum FilterCommand {
    /// Nothing but the answer.
    Look,
    /// Replaces the filter; jobs that come from now on are held against it.
    Set {
        /// All of it.
        filter: FilterView,
    },
}

/// The content filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct FilterView {
    /// Whether the words are looked for.
    pub on: bool,
    /// Words and phrases that a prompt must not hold: at most [`FilterView::WORDS_MAX`], each of at
    /// most [`FilterView::WORD_CHARS_MAX`] characters.
    pub words: Vec<String>,
}

impl FilterView {
    /// Most words and phrases.
    pub const WORDS_MAX: usize = 500;
    /// Most characters of one.
    pub const WORD_CHARS_MAX: usize = 100;
}
