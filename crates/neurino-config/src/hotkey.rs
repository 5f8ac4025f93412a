//! The keys that pause and resume mining. A damaged file is set aside, and there is no hotkey then.

use std::io;
use std::path::PathBuf;

use neurino_control::Hotkey;
use serde::{Deserialize, Serialize};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// `hotkey.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct HotkeyFile {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    keys: Option<Hotkey>,
}

impl HotkeyFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.config.join("hotkey.toml") }
    }

    /// Reads the file; none without a usable one.
    pub fn load(&self) -> Option<Hotkey> {
        let kept: Kept =
            read(&self.path, |text| toml::from_str(text).map_err(|error| error.to_string()));
        kept.keys
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, keys: Option<Hotkey>) -> Result<(), ConfigError> {
        write(&self.path, toml::to_string_pretty(&Kept { keys }).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_and_nonsense_is_none() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = HotkeyFile::new(&dirs);
        assert_eq!(file.load(), None);
        let keys: Hotkey = "Ctrl+Alt+M".parse().unwrap();
        file.save(Some(keys)).unwrap();
        assert_eq!(file.load(), Some(keys));
        file.save(None).unwrap();
        assert_eq!(file.load(), None);
        std::fs::write(&file.path, "keys = \"M\"\n").unwrap();
        assert_eq!(file.load(), None);
        assert!(file.path.with_extension("toml.damaged").exists());
    }
}
