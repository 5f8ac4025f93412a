//! Newer versions of the program, as the window shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::error::ErrorBody;

/// What the window asks for; each is answered with an [`UpdateView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum UpdateCommand {
    /// Nothing but the answer.
    Look,
    /// Looks for a newer version now; the snapshot tells the rest.
    Check,
    /// Installs the version that is ready as soon as no job runs; one that was taken back is fetched
    /// again first.
    Install,
    /// Leaves it for a day; of one that was taken back nothing more is told.
    Later,
    /// Goes back to the version before this one as soon as no job runs.
    Back,
    /// Replaces the preferences.
    Set {
        /// All of them.
        preferences: UpdatePreferences,
    },
}

/// What the person wants. What is missing in a file has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
pub struct UpdatePreferences {
    /// Whether newer versions are looked for.
    pub check: bool,
    /// Whether they are installed between two jobs without a question.
    pub by_itself: bool,
}

impl Default for UpdatePreferences {
    fn default() -> Self {
        Self { check: true, by_itself: true }
    }
}

/// Who puts a newer version in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum UpdateKeeper {
    /// The program.
    Itself,
    /// The person, with a command.
    Person,
    /// Nobody: this build names no place to look at.
    Nobody,
}

/// Updates, as the settings show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct UpdateView {
    /// The version that runs.
    pub own: String,
    /// Who puts a newer one in place.
    pub keeper: UpdateKeeper,
    /// What the person wants.
    pub preferences: UpdatePreferences,
    /// When a list was last read, in milliseconds since the Unix epoch.
    #[ts(type = "number | null")]
    pub checked_at_ms: Option<i64>,
    /// Where it stands.
    pub status: UpdateStatus,
    /// Why the last look or the last update came to nothing.
    pub problem: Option<ErrorBody>,
    /// The version that can be gone back to.
    pub back_to: Option<String>,
}

/// Where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum UpdateStatus {
    /// Nothing newer is known.
    #[default]
    None,
    /// A newer version is being fetched.
    Fetching {
        /// Its version.
        version: String,
        /// Bytes done.
        #[ts(type = "number")]
        done_bytes: u64,
        /// Bytes in all.
        #[ts(type = "number")]
        total_bytes: u64,
    },
    /// It is here and checked.
    Ready {
        /// Its version.
        version: String,
        /// What is new, by language.
        notes: BTreeMap<String, String>,
        /// Put off by the person until then, in milliseconds since the Unix epoch.
        #[ts(type = "number | null")]
        later_until_ms: Option<i64>,
    },
    /// It is here and checked; the person installs it.
    ByHand {
        /// Its version.
        version: String,
        /// What is new, by language.
        notes: BTreeMap<String, String>,
        /// What to type.
        command: String,
    },
    /// It is put in place as soon as no job runs.
    Installing {
        /// Its version.
        version: String,
    },
    /// It did not come up, so the version before it is back.
    TakenBack {
        /// The version that did not come up.
        version: String,
        /// The person has read it.
        dismissed: bool,
    },
}
