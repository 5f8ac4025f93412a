//! An opened weight file and positioned reads from it.
//!
//! Nothing is mapped: a file that shrinks or changes while it is read ends in an error and never in
//! a signal, and several threads can read different places at once.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use same_file::Handle;

use crate::WeightsError;
use crate::prefetch::Prefetch;

/// A file that stays open, with the size it had when it was opened.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    modified: Option<SystemTime>,
    /// Who reads its tensors ahead, if anybody does.
    ahead: Mutex<Weak<Prefetch>>,
}

impl WeightFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// `Unreadable` if it cannot be opened or is no regular file, `Truncated` if it is empty.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let unreadable = |source| WeightsError::Unreadable { file: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(std::io::Error::other("not a regular file")));
        }
        let (size_bytes, modified) = identity(&metadata);
        if size_bytes == 0 {
            let file = path.to_owned();
            return Err(WeightsError::Truncated { file, size_bytes, expected_bytes: 8 });
        }
        let ahead = Mutex::default();
        Ok(Self { path: path.to_owned(), file, size_bytes, modified, ahead })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who reads its tensors ahead.
    pub(crate) fn ahead(&self) -> Option<Arc<Prefetch>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Lets `ahead` read its tensors as long as that lives.
    pub(crate) fn set_ahead(&self, ahead: &Arc<Prefetch>) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(ahead);
    }

    /// The size it had when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether `other` is this very file, perhaps under another name, and neither was written to between
    /// their openings.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let handle = |file: &Self| file.file.try_clone().and_then(Handle::from_file);
        let is_one = || match (handle(self), handle(other)) {
            (Ok(one), Ok(other)) => one == other,
            // What cannot be told is taken for another file.
            _ => false,
        };
        self.size_bytes == other.size_bytes && self.modified == other.modified && is_one()
    }

    /// Fills `out` with the bytes that start at `offset`.
    ///
    /// # Errors
    /// `Changed` if the file ends before `out` is full or was written to since it was opened,
    /// `Unreadable` if the system refuses.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        let unreadable = |source| WeightsError::Unreadable { file: self.path.clone(), source };
        let mut done = 0;
        while done < out.len() {
            match read_some(&self.file, offset + done as u64, &mut out[done..]) {
                Ok(0) => return Err(WeightsError::Changed { file: self.path.clone() }),
                Ok(count) => done += count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(e)),
            }
        }
        let now = self.file.metadata().map_err(unreadable)?;
        if identity(&now) != (self.size_bytes, self.modified) {
            return Err(WeightsError::Changed { file: self.path.clone() });
        }
        Ok(())
    }

    /// The first bytes, at most `count` of them.
    ///
    /// # Errors
    /// As [`WeightFile::read_at`].
    pub fn first(&self, count: usize) -> Result<Vec<u8>, WeightsError> {
        let count = usize::try_from(self.size_bytes).map_or(count, |size| size.min(count));
        let mut bytes = vec![0; count];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// What changes when somebody writes to a file.
fn identity(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    (metadata.len(), metadata.modified().ok())
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(windows)]
fn read_some(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_places_and_refuses_an_empty_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("weights");
        std::fs::write(&path, b"neurino").expect("write");
        let file = WeightFile::open(&path).expect("open");
        let mut bytes = [0; 3];
        file.read_at(2, &mut bytes).expect("read");
        assert_eq!(&bytes, b"uri");
        assert_eq!(file.first(100).expect("read"), b"neurino");

        std::fs::write(&path, b"").expect("write");
        assert!(matches!(WeightFile::open(&path), Err(WeightsError::Truncated { .. })));
        assert!(matches!(WeightFile::open(folder.path()), Err(WeightsError::Unreadable { .. })));
    }

    #[test]
    fn a_file_is_known_under_another_name_and_a_copy_is_another_one() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let [path, link, copy] = ["weights", "link", "copy"].map(|name| folder.path().join(name));
        std::fs::write(&path, b"neurino").expect("write");
        std::fs::hard_link(&path, &link).expect("link");
        std::fs::copy(&path, &copy).expect("copy");
        let open = |path: &Path| WeightFile::open(path).expect("open");
        let file = open(&path);
        let as_old = File::options().write(true).open(&copy).expect("open");
        as_old.set_modified(file.modified.expect("a time")).expect("time stamp");
        assert!(file.is_same_as(&open(&path)) && file.is_same_as(&open(&link)));
        assert!(!file.is_same_as(&open(&copy)));
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        let handle = File::options().write(true).open(&link).expect("open");
        handle.set_modified(later).expect("time stamp");
        assert!(!file.is_same_as(&open(&path)), "it was written to");
    }

    #[test]
    fn a_file_that_changes_while_open_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("weights");
        let writer = |bytes: &[u8]| std::fs::write(&path, bytes).expect("write");
        for after in [&[1u8; 10][..], &[1; 4096], &[1; 8000]] {
            writer(&[0; 4096]);
            let file = WeightFile::open(&path).expect("open");
            let mut bytes = [0; 4000];
            file.read_at(0, &mut bytes).expect("nothing changed yet");
            writer(after);
            let later = SystemTime::now() + std::time::Duration::from_secs(5);
            let handle = File::options().write(true).open(&path).expect("open");
            handle.set_modified(later).expect("time stamp");
            let found = file.read_at(0, &mut bytes);
            assert!(matches!(found, Err(WeightsError::Changed { .. })), "{found:?}");
        }
    }
}
