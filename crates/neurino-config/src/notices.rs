//! What the desktop's notifications tell, and what was told. A damaged file is set aside and the
//! defaults hold.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use neurino_protocol::notices::NoticeSettings;

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// `notices.toml` in the configuration folder, and `notices.json` in the data folder.
#[derive(Debug, Clone)]
pub struct NoticeFiles {
    settings: PathBuf,
    told: PathBuf,
}

impl NoticeFiles {
    /// The files of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { settings: dirs.config.join("notices.toml"), told: dirs.data.join("notices.json") }
    }

    /// Reads the settings; without a usable file the defaults hold.
    pub fn load_settings(&self) -> NoticeSettings {
        read(&self.settings, |text| toml::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes the settings whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save_settings(&self, settings: &NoticeSettings) -> Result<(), ConfigError> {
        write(&self.settings, toml::to_string_pretty(settings).map_err(io::Error::other))
    }

    /// Reads what was told last, by kind.
    pub fn load_told(&self) -> BTreeMap<String, String> {
        read(&self.told, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes what was told last, whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save_told(&self, told: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        write(&self.told, serde_json::to_string(told).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_the_person_is_told_by_default() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let files = NoticeFiles::new(&dirs);
        let settings = files.load_settings();
        assert_eq!(settings, NoticeSettings::default());
        assert!(settings.needs_you && !settings.weekly && !settings.alerts);
        files.save_settings(&NoticeSettings { model: true, ..settings }).unwrap();
        assert!(files.load_settings().model);
        let told = BTreeMap::from([("update".to_owned(), "0.2.0".to_owned())]);
        files.save_told(&told).unwrap();
        assert_eq!(files.load_told(), told);
    }
}
