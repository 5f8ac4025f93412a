//! What of the model library was read through in the background, and what was found damaged. A damaged
//! note is set aside, and everything counts as not read yet.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// What was read when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scrubbed {
    /// When each file was read last, in milliseconds since the Unix epoch, by `model/file`.
    pub read_ms: BTreeMap<String, i64>,
    /// Models with a file that was damaged and is not whole again, and the file's name.
    pub damaged: BTreeMap<String, String>,
    /// Models with a file that the drive does not give: the file's name, and what the system said.
    pub unreadable: BTreeMap<String, (String, String)>,
}

/// `scrubbed.json` in the data folder.
#[derive(Debug, Clone)]
pub struct ScrubbedFile {
    path: PathBuf,
}

impl ScrubbedFile {
    /// The file of these folders.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.data.join("scrubbed.json") }
    }

    /// What was noted; nothing if there is no file.
    pub fn load(&self) -> Scrubbed {
        read(&self.path, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, scrubbed: &Scrubbed) -> Result<(), ConfigError> {
        write(&self.path, serde_json::to_string(scrubbed).map_err(io::Error::other))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_damage_means_that_nothing_was_read() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = ScrubbedFile::new(&dirs);
        assert_eq!(file.load(), Scrubbed::default());
        let scrubbed = Scrubbed {
            read_ms: [("llama/weights.gguf".to_owned(), 7)].into(),
            damaged: [("flux".to_owned(), "vae.safetensors".to_owned())].into(),
            unreadable: [("org/other".to_owned(), ("b.gguf".to_owned(), "error".to_owned()))]
                .into(),
        };
        file.save(&scrubbed).unwrap();
        assert_eq!(file.load(), scrubbed);
        std::fs::write(dirs.data.join("scrubbed.json"), "{\"read_ms\":3}").unwrap();
        assert_eq!(file.load(), Scrubbed::default());
    }
}
