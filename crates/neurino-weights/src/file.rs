//! A file mapped read-only: the one home of mmap.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::WeightsError;

/// A whole file, mapped into memory. Pages are read when they are touched.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps `path`.
    ///
    /// # Errors
    /// `Unreadable` if it cannot be opened or mapped, `Truncated` if it is empty.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let unreadable = |source| WeightsError::Unreadable { file: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(std::io::Error::other("not a regular file")));
        }
        if metadata.len() == 0 {
            let file = path.to_owned();
            return Err(WeightsError::Truncated { file, size_bytes: 0, expected_bytes: 8 });
        }
        let map = map(&file).map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

#[expect(unsafe_code, reason = "mapping a file is the one operation here without a safe form")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private to this process and read-only, and every value read from it is
    // validated as plain bytes. Model files are written under a temporary name and renamed when
    // complete, so nothing in the program shortens or rewrites a file that is mapped.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_and_refuses_an_empty_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("weights");
        std::fs::write(&path, b"neurino").expect("write");
        assert_eq!(MappedFile::open(&path).expect("open").bytes(), b"neurino");

        std::fs::write(&path, b"").expect("write");
        assert!(matches!(MappedFile::open(&path), Err(WeightsError::Truncated { .. })));
        assert!(matches!(MappedFile::open(folder.path()), Err(WeightsError::Unreadable { .. })));
    }
}
