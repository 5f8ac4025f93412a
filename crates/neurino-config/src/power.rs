//! What the person chose about power. A damaged file is set aside and the defaults hold.

use std::io;
use std::path::PathBuf;

use neurino_protocol::power::PowerSettings;

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// `power.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct PowerFile {
    path: PathBuf,
}

impl PowerFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.config.join("power.toml") }
    }

    /// Reads the file; without a usable one the defaults hold.
    pub fn load(&self) -> PowerSettings {
        read(&self.path, |text| toml::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, settings: &PowerSettings) -> Result<(), ConfigError> {
        write(&self.path, toml::to_string_pretty(settings).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_protocol::power::KeepAwake;

    use super::*;

    #[test]
    fn choices_read_back_and_what_is_missing_has_its_default() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = PowerFile::new(&dirs);
        assert_eq!(file.load(), PowerSettings::default());
        let limits_w = [("GPU-1".to_owned(), 220)].into();
        let chosen = PowerSettings { keep_awake: KeepAwake::Mining, limits_w };
        file.save(&chosen).unwrap();
        assert_eq!(file.load(), chosen);
        std::fs::write(dirs.config.join("power.toml"), "keep_awake = \"never\"\nnews = 1").unwrap();
        assert_eq!(file.load().keep_awake, KeepAwake::Never);
        std::fs::write(dirs.config.join("power.toml"), "keep_awake = 7").unwrap();
        assert_eq!(file.load(), PowerSettings::default());
        assert!(dirs.config.join("power.toml.damaged").exists());
    }
}
