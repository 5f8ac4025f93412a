//! What has to be restored: written whole, and on the disk before anything is changed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// One card whose limit was changed, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names the card.
    pub card: String,
    /// Its limit before the first change, in milliwatts: what it gets back.
    pub found_mw: u32,
    /// What we set or may have set, in milliwatts. Two while a change is under way: whoever reads
    /// this after a crash cannot know which of them is in force.
    pub ours_mw: Vec<u32>,
    /// The start of the machine that this belongs to, where the system tells.
    pub boot: Option<String>,
}

/// Where entries are kept.
pub trait Journal: Send {
    /// All entries.
    ///
    /// # Errors
    /// [`JournalError`].
    fn load(&mut self) -> Result<Vec<Entry>, JournalError>;

    /// Replaces all entries; when it returns, they survive a power cut.
    ///
    /// # Errors
    /// [`JournalError`]; then the old entries stand.
    fn save(&mut self, entries: &[Entry]) -> Result<(), JournalError>;
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the record of changed power limits {} cannot be {doing}; check the free space and the folder",
    path.display()
)]
pub struct JournalError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Entries in a JSON file.
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
}

impl FileJournal {
    /// The journal in this file, which need not exist; its folder must.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> JournalError {
        JournalError { doing, path: self.path.clone(), source }
    }
}

impl Journal for FileJournal {
    /// A file that is none of ours is set aside: there is nothing in it that could be restored.
    fn load(&mut self) -> Result<Vec<Entry>, JournalError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(entries) => Ok(entries),
            Err(error) => {
                warn!(%error, "the record of changed power limits is damaged and was set aside");
                let aside = self.path.with_extension("damaged");
                std::fs::rename(&self.path, aside).map_err(|e| self.failed("set aside", e))?;
                Ok(Vec::new())
            }
        }
    }

    fn save(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let written = if entries.is_empty() {
            remove(&self.path)
        } else {
            serde_json::to_vec(entries)
                .map_err(io::Error::other)
                .and_then(|bytes| write_whole(&self.path, &bytes))
        };
        written.map_err(|error| self.failed("written", error))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".neurino-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// The rename itself lives in the folder; Windows neither needs nor allows this.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { card: "GPU-1".into(), found_mw: 450_000, ours_mw: vec![300_000], boot: None }
    }

    #[test]
    fn entries_read_back_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = FileJournal::new(folder.path().join("limits.json"));
        assert_eq!(journal.load().unwrap(), []);
        journal.save(&[entry()]).unwrap();
        assert_eq!(journal.load().unwrap(), [entry()]);
        journal.save(&[]).unwrap();
        journal.save(&[]).unwrap();
        assert_eq!(journal.load().unwrap(), []);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_set_aside_and_a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limits.json");
        let mut journal = FileJournal::new(path.clone());
        for damage in ["", "{", "[1]", r#"[{"card":"x"}]"#] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(journal.load().unwrap(), [], "{damage}");
            assert!(!path.exists() && folder.path().join("limits.damaged").exists());
        }
        let mut nowhere = FileJournal::new(folder.path().join("no/limits.json"));
        let error = nowhere.save(&[entry()]).unwrap_err().to_string();
        assert!(error.contains("free space"), "{error}");
    }
}
