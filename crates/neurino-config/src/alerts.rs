//! When the person is alerted, and what they were told. A damaged file is set aside and the defaults
//! hold.

use std::io;
use std::path::PathBuf;

use neurino_control::{Alert, AlertRules};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// `alerts.toml` in the configuration folder, and `alerts.json` in the data folder.
#[derive(Debug, Clone)]
pub struct AlertFiles {
    rules: PathBuf,
    past: PathBuf,
}

impl AlertFiles {
    /// The files of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { rules: dirs.config.join("alerts.toml"), past: dirs.data.join("alerts.json") }
    }

    /// Reads the rules; without a usable file the defaults hold.
    pub fn load_rules(&self) -> AlertRules {
        read(&self.rules, |text| {
            let rules: AlertRules = toml::from_str(text).map_err(|error| error.to_string())?;
            rules.checked().map_err(|error| error.to_string())
        })
    }

    /// Writes the rules whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save_rules(&self, rules: &AlertRules) -> Result<(), ConfigError> {
        write(&self.rules, toml::to_string_pretty(rules).map_err(io::Error::other))
    }

    /// Reads what was told, oldest first.
    pub fn load_past(&self) -> Vec<Alert> {
        read(&self.past, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes what was told whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save_past(&self, past: &[Alert]) -> Result<(), ConfigError> {
        write(&self.past, serde_json::to_string(past).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_control::AlertKind;

    use super::*;

    #[test]
    fn both_files_read_back_and_nonsense_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let files = AlertFiles::new(&dirs);
        assert_eq!((files.load_rules(), files.load_past()), (AlertRules::default(), vec![]));
        let rules = AlertRules { hot_c: 80, stuck: false, ..AlertRules::default() };
        files.save_rules(&rules).unwrap();
        let alert = Alert {
            kind: AlertKind::LowDisk,
            sentence: "full".into(),
            since_ms: 1,
            until_ms: Some(2),
        };
        files.save_past(std::slice::from_ref(&alert)).unwrap();
        assert_eq!((files.load_rules(), files.load_past()), (rules, vec![alert]));
        std::fs::write(dirs.config.join("alerts.toml"), "hot_c = 2000").unwrap();
        assert_eq!(files.load_rules(), AlertRules::default());
        assert!(dirs.config.join("alerts.toml.damaged").exists());
    }
}
