//! A bounds-checked reader of a file's head.

use std::path::Path;

use crate::WeightsError;
use crate::file::WeightFile;

/// Bytes read at once; a longer value is read whole.
const WINDOW_BYTES: usize = 1 << 20;

/// Reads little-endian values in order and never past the end.
pub(super) struct Cursor<'a> {
    file: &'a WeightFile,
    /// Bytes of the file from `start` on.
    window: Vec<u8>,
    start: u64,
    /// Bytes of the window that were taken.
    taken: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a WeightFile) -> Self {
        Self { file, window: Vec::new(), start: 0, taken: 0 }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.file.path()
    }

    pub(super) fn position(&self) -> u64 {
        self.start + self.taken as u64
    }

    fn left_bytes(&self) -> u64 {
        self.file.size_bytes() - self.position()
    }

    pub(super) fn corrupt(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::CorruptHeader { file: self.path().to_owned(), reason: reason.into() }
    }

    fn truncated(&self, expected_bytes: u64) -> WeightsError {
        let (file, size_bytes) = (self.path().to_owned(), self.file.size_bytes());
        WeightsError::Truncated { file, size_bytes, expected_bytes }
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], WeightsError> {
        if count as u64 > self.left_bytes() {
            return Err(self.truncated(self.position().saturating_add(count as u64)));
        }
        if count > self.window.len() - self.taken {
            let left = usize::try_from(self.left_bytes()).unwrap_or(usize::MAX);
            self.start = self.position();
            self.taken = 0;
            self.window.resize(count.max(WINDOW_BYTES).min(left), 0);
            self.window.shrink_to(WINDOW_BYTES);
            self.file.read_at(self.start, &mut self.window)?;
        }
        self.taken += count;
        Ok(&self.window[self.taken - count..self.taken])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WeightsError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `least_bytes` each: more than fit in the rest of the
    /// file is an error, so a caller may loop or allocate by it.
    pub(super) fn count(&mut self, what: &str, least_bytes: u64) -> Result<usize, WeightsError> {
        let count = self.u64()?;
        let fit = self.left_bytes() / least_bytes;
        usize::try_from(count).ok().filter(|_| count <= fit).ok_or_else(|| {
            self.corrupt(format!("it announces {count} {what}, more than fit in it"))
        })
    }

    pub(super) fn string(&mut self) -> Result<String, WeightsError> {
        let count = self.count("letters in a text", 1)?;
        let text = std::str::from_utf8(self.take(count)?).map(str::to_owned);
        text.map_err(|_| self.corrupt("a text in it is not UTF-8"))
    }

    /// The place `start + offset` in the file, from which `size` bytes can be read.
    pub(super) fn place(&self, start: u64, offset: u64, size: usize) -> Result<u64, WeightsError> {
        let end = start.checked_add(offset).and_then(|start| start.checked_add(size as u64));
        let end = end.ok_or_else(|| self.corrupt("a tensor lies outside the file"))?;
        if end > self.file.size_bytes() {
            return Err(self.truncated(end));
        }
        Ok(end - size as u64)
    }
}
