//! The window's preferences file. It never keeps the program from starting: a damaged file is set
//! aside and the defaults hold.

use std::io;
use std::path::{Path, PathBuf};

use neurino_protocol::app::Preferences;
use tracing::warn;

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;

/// `preferences.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct PreferencesFile {
    path: PathBuf,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPreferences {
    /// The preferences.
    pub preferences: Preferences,
    /// Where a damaged file was put; the defaults hold then.
    pub set_aside: Option<PathBuf>,
}

impl PreferencesFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.config.join("preferences.toml") }
    }

    /// Reads the file; without one the defaults hold. A key that is missing keeps its default and
    /// an unknown one is ignored, so that versions can be changed in both directions.
    pub fn load(&self) -> LoadedPreferences {
        let problem = match std::fs::read(&self.path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(preferences) => {
                    return LoadedPreferences { preferences, set_aside: None };
                }
                Err(problem) => problem,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let preferences = Preferences::default();
                return LoadedPreferences { preferences, set_aside: None };
            }
            Err(error) => error.to_string(),
        };
        let set_aside = set_aside(&self.path);
        warn!(
            path = %self.path.display(),
            set_aside = set_aside.as_deref().map(|path| tracing::field::display(path.display())),
            problem,
            "the preferences file is damaged; the defaults hold"
        );
        LoadedPreferences { preferences: Preferences::default(), set_aside }
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, preferences: &Preferences) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Write { path: self.path.clone(), source };
        let text =
            toml::to_string_pretty(preferences).map_err(|error| failed(io::Error::other(error)))?;
        atomic::write(&self.path, text.as_bytes()).map_err(failed)
    }
}

fn parse(bytes: &[u8]) -> Result<Preferences, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut file: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let defaults = toml::Table::try_from(Preferences::default()).map_err(|e| e.to_string())?;
    let merged: toml::Table = defaults
        .into_iter()
        .map(|(key, default)| {
            let value = file.remove(&key).unwrap_or(default);
            (key, value)
        })
        .collect();
    merged.try_into().map_err(|error: toml::de::Error| error.to_string())
}

/// Renames a damaged file out of the way; one is kept, the latest.
pub(crate) fn set_aside(path: &Path) -> Option<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    std::fs::rename(path, &aside).ok().map(|()| aside)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_protocol::app::{Language, OnClose, Theme};

    use super::*;

    fn file() -> (tempfile::TempDir, PreferencesFile) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = PreferencesFile::new(&dirs);
        (home, file)
    }

    #[test]
    fn saved_preferences_read_back() {
        let (_home, file) = file();
        assert_eq!(file.load().preferences, Preferences::default());
        let preferences =
            Preferences { theme: Theme::Dark, on_close: OnClose::Tray, language: Language::German };
        file.save(&preferences).unwrap();
        assert_eq!(file.load(), LoadedPreferences { preferences, set_aside: None });
    }

    #[test]
    fn another_version_of_the_file_keeps_what_both_know() {
        let (_home, file) = file();
        std::fs::write(&file.path, "theme = \"dark\"\nsound = true\n").unwrap();
        let loaded = file.load();
        assert_eq!(loaded.set_aside, None);
        assert_eq!(loaded.preferences.theme, Theme::Dark);
        assert_eq!(loaded.preferences.on_close, Preferences::default().on_close);
        assert_eq!(loaded.preferences.language, Language::System);
    }

    #[test]
    fn damaged_files_are_set_aside() {
        for damage in [
            &b"theme = "[..],
            b"theme = \"pink\"",
            b"\xff\xfe\x00",
            b"theme = 3",
            b"language = \"klingon\"",
        ] {
            let (_home, file) = file();
            std::fs::write(&file.path, damage).unwrap();
            let loaded = file.load();
            assert_eq!(loaded.preferences, Preferences::default());
            assert_eq!(std::fs::read(loaded.set_aside.unwrap()).unwrap(), damage);
            assert_eq!(file.load().set_aside, None, "the next start finds no file");
        }
    }
}
