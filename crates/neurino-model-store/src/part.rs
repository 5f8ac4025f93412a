//! An unfinished file: written and hashed in one pass, kept when interrupted, gone when wrong.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::catalog::ModelFile;
use crate::digest::{Digest, hash_into};
use crate::error::SourceError;

/// Where a file's unfinished content lies.
pub(crate) fn path(folder: &Path, file: &ModelFile) -> PathBuf {
    folder.join(format!("{}.part", file.name))
}

fn origin_path(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// Removes the part and what is noted about it.
pub(crate) fn forget(folder: &Path, file: &ModelFile) {
    let part = path(folder, file);
    let _ = fs::remove_file(origin_path(&part));
    let _ = fs::remove_file(part);
}

/// Which server and which version of its file the part came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The URL asked.
    pub(crate) url: String,
    /// The server's validator for this content: a strong `ETag`.
    pub(crate) etag: Option<String>,
}

impl Origin {
    pub(crate) fn read(part: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(origin_path(part)).ok()?).ok()
    }

    /// Notes the origin; without the note the next fetch resumes all the same, and the digest
    /// tells whether that was right.
    pub(crate) fn note(&self, part: &Path) {
        if let Ok(bytes) = serde_json::to_vec(self) {
            let _ = fs::write(origin_path(part), bytes);
        }
    }
}

/// A part that is being written. Dropping it keeps what was written.
pub(crate) struct PartFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    done_bytes: u64,
}

impl PartFile {
    /// Goes on with what is there, hashing it; begins anew if that is more than the file may have.
    pub(crate) fn resume(path: &Path, file: &ModelFile) -> Result<Self, SourceError> {
        let open = || -> io::Result<Self> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut opened = options.open(path)?;
            let mut hasher = Sha256::new();
            let done_bytes = if opened.metadata()?.len() <= file.size_bytes {
                // Reading to the end also leaves the cursor there.
                hash_into(&mut hasher, &mut opened)?
            } else {
                opened.set_len(0)?;
                0
            };
            Ok(Self { path: path.to_owned(), file: opened, hasher, done_bytes })
        };
        open().map_err(|error| SourceError::io("write", path, error))
    }

    /// Begins with nothing, whatever is there.
    pub(crate) fn create(path: PathBuf) -> Result<Self, SourceError> {
        let _ = fs::remove_file(origin_path(&path));
        let file = File::create(&path).map_err(|error| SourceError::io("write", &path, error))?;
        Ok(Self { path, file, hasher: Sha256::new(), done_bytes: 0 })
    }

    /// Begins anew.
    pub(crate) fn restart(&mut self) -> Result<(), SourceError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|error| SourceError::io("write", &self.path, error))?;
        self.hasher = Sha256::new();
        self.done_bytes = 0;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Appends; more than the file may have is refused before it is written.
    pub(crate) fn write(&mut self, bytes: &[u8], file: &ModelFile) -> Result<(), SourceError> {
        let found_bytes = self.done_bytes + bytes.len() as u64;
        if found_bytes > file.size_bytes {
            return Err(SourceError::WrongSize { expected_bytes: file.size_bytes, found_bytes });
        }
        self.file.write_all(bytes).map_err(|error| SourceError::io("write", &self.path, error))?;
        self.hasher.update(bytes);
        self.done_bytes = found_bytes;
        Ok(())
    }

    /// Ends a complete part: on the disk, and what the catalogue pins. A wrong one is deleted.
    pub(crate) fn finish(self, file: &ModelFile) -> Result<(), SourceError> {
        let found = Digest::of_hasher(self.hasher);
        let outcome = if self.done_bytes != file.size_bytes {
            Err(SourceError::WrongSize {
                expected_bytes: file.size_bytes,
                found_bytes: self.done_bytes,
            })
        } else if found != file.sha256 {
            Err(SourceError::WrongDigest { expected: file.sha256, found })
        } else {
            self.file.sync_all().map_err(|error| SourceError::io("write", &self.path, error))
        };
        if outcome.is_err() {
            drop(self.file);
            let _ = fs::remove_file(origin_path(&self.path));
            let _ = fs::remove_file(&self.path);
        }
        outcome
    }
}
