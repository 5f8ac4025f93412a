//! An unfinished file that comes in one piece: written and hashed in one pass, gone when wrong. What comes
//! from a web server is in `source::transfer`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::catalog::ModelFile;
use crate::chunks;
use crate::digest::Digest;
use crate::error::{SourceError, StoreError};

/// Where a file's unfinished content lies.
pub(crate) fn path(folder: &Path, file: &ModelFile) -> PathBuf {
    folder.join(format!("{}.part", file.name))
}

/// Makes the folder that a file goes to.
pub(crate) fn make_room(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| StoreError::io("create", folder, error))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes the part and what is noted about it.
pub(crate) fn forget(folder: &Path, file: &ModelFile) {
    let part = path(folder, file);
    let _ = fs::remove_file(chunks::map_path(&part));
    // Earlier versions noted here where a part came from.
    let _ = fs::remove_file(part.with_file_name(format!("{}.json", file_name(&part))));
    let _ = fs::remove_file(part);
}

/// A part that is being written. Dropping it keeps what was written.
pub(crate) struct PartFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    done_bytes: u64,
}

impl PartFile {
    /// Begins with nothing, whatever is there.
    pub(crate) fn create(path: PathBuf) -> Result<Self, SourceError> {
        let _ = fs::remove_file(chunks::map_path(&path));
        let file = File::create(&path).map_err(|error| SourceError::io("write", &path, error))?;
        Ok(Self { path, file, hasher: Sha256::new(), done_bytes: 0 })
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
            let _ = fs::remove_file(&self.path);
        }
        outcome
    }
}
