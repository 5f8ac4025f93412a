//! Where commands find the program that runs, and the secret that they show it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::rules::write;

/// `door.json` in the data folder, readable by its owner alone. It is there while a program runs, and
/// after one that was killed.
#[derive(Debug, Clone)]
pub struct DoorFile {
    path: PathBuf,
}

/// How the running program is reached. No `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorKey {
    /// The port on this machine.
    pub port: u16,
    /// What a caller has to say.
    pub secret: String,
}

impl DoorFile {
    /// The file of a data folder; touches nothing.
    pub fn new(data: &Path) -> Self {
        Self { path: data.join("door.json") }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` if it is not there or cannot be used.
    pub fn load(&self) -> Option<DoorKey> {
        serde_json::from_str(&fs::read_to_string(&self.path).ok()?).ok()
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, key: &DoorKey) -> Result<(), ConfigError> {
        write(&self.path, serde_json::to_string(key).map_err(io::Error::other))
    }

    /// Takes it away, unless another program has written its own by now.
    pub fn remove(&self, secret: &str) {
        if self.load().is_some_and(|key| key.secret == secret) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_file_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = DoorFile::new(folder.path());
        assert!(file.load().is_none());
        file.save(&DoorKey { port: 7, secret: "new".into() }).unwrap();
        file.remove("old");
        assert_eq!(file.load().unwrap().port, 7);
        file.remove("new");
        assert!(file.load().is_none());
        fs::write(file.path(), "{").unwrap();
        assert!(file.load().is_none(), "half a file is none");
    }
}
