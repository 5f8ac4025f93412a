//! What the person wants of updates, and what was seen of them. A damaged file is set aside and the
//! defaults hold.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use neurino_protocol::update::UpdatePreferences;
use serde::{Deserialize, Serialize};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// What outlives the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedUpdates {
    /// What the person wants.
    pub preferences: UpdatePreferences,
    /// The highest version that a list has offered: an older list is not believed any more.
    pub seen: Option<String>,
    /// When a list was last read, in milliseconds since the Unix epoch.
    pub checked_at_ms: Option<i64>,
    /// Versions that the person went back from, or does not want to hear of any more: they are installed
    /// only when asked for.
    pub rejected: BTreeSet<String>,
    /// Until then the person wants to be left alone, in milliseconds since the Unix epoch.
    pub later_until_ms: Option<i64>,
}

impl SavedUpdates {
    /// The person went back from this version: neither it nor, before they say so, another one is
    /// installed by itself.
    pub fn went_back_from(&mut self, version: &str) {
        self.preferences.by_itself = false;
        self.rejected.insert(version.to_owned());
    }
}

/// `updates.json` in the data folder.
#[derive(Debug, Clone)]
pub struct UpdatesFile {
    path: PathBuf,
}

impl UpdatesFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.data.join("updates.json") }
    }

    /// Reads the file; without a usable one the defaults hold.
    pub fn load(&self) -> SavedUpdates {
        read(&self.path, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, saved: &SavedUpdates) -> Result<(), ConfigError> {
        write(&self.path, serde_json::to_string(saved).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_nonsense_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = UpdatesFile::new(&dirs);
        assert!(file.load().preferences.check);
        let preferences = UpdatePreferences { check: true, by_itself: false };
        let saved = SavedUpdates { preferences, seen: Some("0.2.0".into()), ..file.load() };
        file.save(&saved).unwrap();
        assert_eq!(file.load(), saved);
        std::fs::write(dirs.data.join("updates.json"), "{").unwrap();
        assert_eq!(file.load(), SavedUpdates::default());
    }
}
