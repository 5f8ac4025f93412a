//! A file that grows by whole records: what a full drive cut off does not stay in the way of the next.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

/// The file, and where its last whole record ends.
#[derive(Debug)]
pub(crate) struct Appended {
    file: File,
    end: u64,
    /// Part of a record may lie behind the end.
    torn: bool,
}

impl Appended {
    /// What the file holds now is whole.
    ///
    /// # Errors
    /// The file tells no length.
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        let end = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, end, torn: false })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// It could not be written; the file is then as before, or becomes so at the next attempt.
    pub(crate) fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.end)?;
            self.torn = false;
        }
        let written = self.file.seek(SeekFrom::Start(self.end));
        if let Err(error) = written.and_then(|_| self.file.write_all(record)) {
            self.torn = self.file.set_len(self.end).is_err();
            return Err(error);
        }
        self.end += record.len() as u64;
        Ok(())
    }

    /// Leaves the file as a failed attempt would that wrote so much.
    #[cfg(test)]
    pub(crate) fn tear(&mut self, fragment: &[u8]) {
        self.file.write_all(fragment).expect("written");
        self.torn = true;
    }

    /// The same file through another handle, and the former one.
    #[cfg(test)]
    pub(crate) fn exchange(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}
