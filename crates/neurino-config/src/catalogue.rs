//! What is known of the catalogue beyond its own files. A damaged file is set aside and the defaults hold.

use std::io;
use std::path::PathBuf;

use neurino_protocol::catalogue::ListPlaces;
use serde::{Deserialize, Serialize};

use crate::dirs::Dirs;
use crate::error::ConfigError;
use crate::rules::{read, write};

/// What outlives the program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedCatalogue {
    /// The highest version of a signed catalogue that was accepted: an older one is not believed any more,
    /// wherever the library lies.
    pub version_seen: u64,
    /// When it was last looked for a newer one, in milliseconds since the Unix epoch.
    pub checked_at_ms: Option<i64>,
    /// Where the network's lists were read from last.
    pub lists: ListPlaces,
}

/// `catalogue.json` in the data folder.
#[derive(Debug, Clone)]
pub struct CatalogueFile {
    path: PathBuf,
}

impl CatalogueFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.data.join("catalogue.json") }
    }

    /// Reads the file; without a usable one the defaults hold.
    pub fn load(&self) -> SavedCatalogue {
        read(&self.path, |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, saved: &SavedCatalogue) -> Result<(), ConfigError> {
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
        let file = CatalogueFile::new(&dirs);
        assert_eq!(file.load(), SavedCatalogue::default());
        let lists = ListPlaces { models: "https://x.org/m".into(), ..ListPlaces::default() };
        let saved = SavedCatalogue { version_seen: 7, checked_at_ms: Some(1), lists };
        file.save(&saved).unwrap();
        assert_eq!(file.load(), saved);
        std::fs::write(dirs.data.join("catalogue.json"), "{").unwrap();
        assert_eq!(file.load(), SavedCatalogue::default());
        assert!(dirs.data.join("catalogue.json.damaged").exists());
    }
}
