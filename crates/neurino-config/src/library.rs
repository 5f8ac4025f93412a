//! Where the model library lies and how it is used: `library.toml` in the configuration folder, which
//! the window writes. Like the preferences it never keeps the program from starting.

use std::io;
use std::path::{Path, PathBuf};

use neurino_protocol::library::LibrarySettings;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    /// The folder of the library, if it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
    settings: LibrarySettings,
}

/// `library.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct LibraryFile {
    path: PathBuf,
}

impl LibraryFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self::in_folder(&dirs.config)
    }

    fn in_folder(config: &Path) -> Self {
        Self { path: config.join("library.toml") }
    }

    /// Where the library was moved to. A folder that is not there (a drive that is not plugged in) counts
    /// all the same: elsewhere everything would be fetched again.
    pub(crate) fn moved_to(config: &Path) -> Option<PathBuf> {
        Self::in_folder(config).read().folder.filter(|folder| folder.is_absolute())
    }

    /// How the library is used; the defaults if the file is missing or damaged.
    pub fn settings(&self) -> LibrarySettings {
        self.read().settings
    }

    /// Writes how the library is used, and leaves the rest.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn set_settings(&self, settings: &LibrarySettings) -> Result<(), ConfigError> {
        self.write(&Content { settings: settings.clone(), ..self.read() })
    }

    /// Notes where the library lies from now on.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn set_folder(&self, folder: &Path) -> Result<(), ConfigError> {
        self.write(&Content { folder: Some(folder.to_owned()), ..self.read() })
    }

    fn read(&self) -> Content {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(%error, "library.toml cannot be read; the defaults hold");
                }
                return Content::default();
            }
        };
        toml::from_str(&text).unwrap_or_else(|error| {
            warn!(%error, "library.toml is damaged; the defaults hold");
            Content::default()
        })
    }

    fn write(&self, content: &Content) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Write { path: self.path.clone(), source };
        let text =
            toml::to_string_pretty(content).map_err(|error| failed(io::Error::other(error)))?;
        atomic::write(&self.path, text.as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_protocol::library::DayWindow;

    use super::*;

    #[test]
    fn folder_and_settings_are_kept_apart_and_damage_means_the_defaults() {
        let home = tempfile::tempdir().unwrap();
        let file = LibraryFile::in_folder(home.path());
        assert_eq!(file.settings(), LibrarySettings::default());
        let window = Some(DayWindow { from_minute: 1320, until_minute: 420 });
        let settings = LibrarySettings { window, cap_bytes: Some(7), ..LibrarySettings::default() };
        file.set_settings(&settings).unwrap();
        assert_eq!(LibraryFile::moved_to(home.path()), None);
        let elsewhere = home.path().join("elsewhere");
        file.set_folder(&elsewhere).unwrap();
        assert_eq!(file.settings(), settings);
        assert_eq!(LibraryFile::moved_to(home.path()), Some(elsewhere));
        for damage in ["folder = 3", "=", "[settings]\nconnections = -1"] {
            std::fs::write(&file.path, damage).unwrap();
            assert_eq!(file.settings(), LibrarySettings::default(), "{damage}");
        }
        file.set_folder(Path::new("relative")).unwrap();
        assert_eq!(LibraryFile::moved_to(home.path()), None);
    }
}
