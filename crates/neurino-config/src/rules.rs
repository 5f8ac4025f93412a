//! The rules of mining, and what the control of mining remembers. Neither file keeps the program
//! from starting: a damaged one is set aside and the defaults hold.

use std::io;
use std::path::{Path, PathBuf};

use neurino_control::{Rules, Saved};
use tracing::warn;

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::preferences::set_aside;

/// `rules.toml` in the configuration folder.
#[derive(Debug, Clone)]
pub struct RulesFile {
    path: PathBuf,
}

impl RulesFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.config.join("rules.toml") }
    }

    /// Reads the file; without one, or with one that makes no sense, the defaults hold.
    pub fn load(&self) -> Rules {
        read(&self.path, |text| {
            let rules: Rules = toml::from_str(text).map_err(|error| error.to_string())?;
            rules.checked().map_err(|error| error.to_string())
        })
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, rules: &Rules) -> Result<(), ConfigError> {
        write(&self.path, toml::to_string_pretty(rules).map_err(io::Error::other))
    }
}

/// `control.json` in the data folder.
#[derive(Debug, Clone)]
pub struct ControlFile {
    path: PathBuf,
}

impl ControlFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.data.join("control.json") }
    }

    /// Reads the file; without a usable one nothing is remembered.
    pub fn load(&self) -> Saved {
        read(&self.path, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, saved: &Saved) -> Result<(), ConfigError> {
        write(&self.path, serde_json::to_string(saved).map_err(io::Error::other))
    }
}

pub(crate) fn read<T: Default>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> T {
    let problem = match std::fs::read_to_string(path) {
        Ok(text) => match parse(&text) {
            Ok(value) => return value,
            Err(problem) => problem,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(error) => error.to_string(),
    };
    let aside = set_aside(path);
    warn!(
        path = %path.display(),
        set_aside = aside.as_deref().map(|path| tracing::field::display(path.display())),
        problem,
        "a file of the settings is damaged; the defaults hold"
    );
    T::default()
}

pub(crate) fn write(path: &Path, text: io::Result<String>) -> Result<(), ConfigError> {
    let written = text.and_then(|text| atomic::write(path, text.as_bytes()));
    written.map_err(|source| ConfigError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_control::{When, Wish};

    use super::*;

    fn dirs() -> (tempfile::TempDir, Dirs) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        (home, dirs)
    }

    #[test]
    fn what_was_saved_reads_back() {
        let (_home, dirs) = dirs();
        let (file, control) = (RulesFile::new(&dirs), ControlFile::new(&dirs));
        assert_eq!((file.load(), control.load()), (Rules::default(), Saved::default()));
        let rules = Rules {
            when: When::AwayOnSchedule,
            games: vec!["doom".into()],
            cool_down_secs: 5,
            ..Rules::default()
        };
        file.save(&rules).unwrap();
        assert_eq!(file.load(), rules);
        let saved = Saved { wish: Wish::Snoozed { until_ms: Some(7) }, ..Saved::default() };
        control.save(&saved).unwrap();
        assert_eq!(control.load(), saved);
    }

    #[test]
    fn another_version_of_the_file_keeps_what_both_know() {
        let (_home, dirs) = dirs();
        let file = RulesFile::new(&dirs);
        std::fs::write(&file.path, "idle_minutes = 3\nmoon_phase = \"full\"\n").unwrap();
        assert_eq!(file.load(), Rules { idle_minutes: 3, ..Rules::default() });
    }

    #[test]
    fn damage_is_set_aside() {
        let damages =
            [&b"when = "[..], b"when = 3", b"\xff\xfe", b"idle_minutes = 0", b"week = [\"m\"]"];
        for damage in damages {
            let (_home, dirs) = dirs();
            let file = RulesFile::new(&dirs);
            std::fs::write(&file.path, damage).unwrap();
            assert_eq!(file.load(), Rules::default());
            assert!(!file.path.exists(), "the next start finds no file");
            let aside = dirs.config.join("rules.toml.damaged");
            assert_eq!(std::fs::read(aside).unwrap(), damage);
        }
        let (_home, dirs) = dirs();
        std::fs::write(dirs.data.join("control.json"), "{\"wish\":").unwrap();
        assert_eq!(ControlFile::new(&dirs).load(), Saved::default());
    }
}
