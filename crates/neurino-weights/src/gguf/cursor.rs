//! A bounds-checked reader over the mapped file.

use std::path::Path;

use crate::WeightsError;

/// Reads little-endian values in order and never past the end.
pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, position: 0 }
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn corrupt(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::CorruptHeader { file: self.path.to_owned(), reason: reason.into() }
    }

    fn truncated(&self, expected_bytes: u64) -> WeightsError {
        WeightsError::Truncated {
            file: self.path.to_owned(),
            size_bytes: self.bytes.len() as u64,
            expected_bytes,
        }
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WeightsError> {
        let end = self.position.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.position..end)) {
            Some(bytes) => {
                self.position += count;
                Ok(bytes)
            }
            None => Err(self.truncated((self.position as u64).saturating_add(count as u64))),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.truncated(N as u64))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WeightsError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `least_bytes` each: more than fit in the rest of the
    /// file is an error, so a caller may loop or allocate by it.
    pub(super) fn count(&mut self, what: &str, least_bytes: usize) -> Result<usize, WeightsError> {
        let count = self.u64()?;
        let fit = (self.bytes.len() - self.position) / least_bytes;
        usize::try_from(count).ok().filter(|&count| count <= fit).ok_or_else(|| {
            self.corrupt(format!("it announces {count} {what}, more than fit in it"))
        })
    }

    pub(super) fn string(&mut self) -> Result<String, WeightsError> {
        let count = self.count("letters in a text", 1)?;
        let bytes = self.take(count)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.corrupt("a text in it is not UTF-8")),
        }
    }

    /// The range `start + offset .. + size` of the file.
    pub(super) fn range(
        &self,
        start: u64,
        offset: u64,
        size: usize,
    ) -> Result<(usize, usize), WeightsError> {
        let end = start.checked_add(offset).and_then(|start| start.checked_add(size as u64));
        let end = end.ok_or_else(|| self.corrupt("a tensor lies outside the file"))?;
        if end > self.bytes.len() as u64 {
            return Err(self.truncated(end));
        }
        // Both are at most the file's length, which is a usize.
        let end = end as usize;
        Ok((end - size, end))
    }
}
