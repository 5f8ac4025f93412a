//! A note of what was hashed when, so that a large file is not read whole at every start.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub(crate) const NAME: &str = ".verified.json";

/// One file as it was when its digest was found. Any change of content changes size or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    sha256: Digest,
    size_bytes: u64,
    modified_ns: u128,
}

impl Stamp {
    pub(crate) fn new(sha256: Digest, metadata: &Metadata) -> io::Result<Self> {
        // A time before 1970 is no time; it still compares equal to itself.
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { sha256, size_bytes: metadata.len(), modified_ns: modified.as_nanos() })
    }
}

/// The stamps of a model's folder; none if the note is missing or damaged.
pub(crate) fn read(folder: &Path) -> BTreeMap<String, Stamp> {
    fs::read(folder.join(NAME))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Forgets what was noted of a file.
pub(crate) fn forget(folder: &Path, file: &str) -> io::Result<()> {
    let mut stamps = read(folder);
    if stamps.remove(file).is_none() {
        return Ok(());
    }
    write(folder, &stamps)
}

/// Notes one file, keeping the others.
pub(crate) fn note(folder: &Path, file: &str, stamp: Stamp) -> io::Result<()> {
    let mut stamps = read(folder);
    if stamps.get(file) == Some(&stamp) {
        return Ok(());
    }
    stamps.insert(file.to_owned(), stamp);
    write(folder, &stamps)
}

fn write(folder: &Path, stamps: &BTreeMap<String, Stamp>) -> io::Result<()> {
    let mut next = tempfile::Builder::new().prefix(".stamp-").tempfile_in(folder)?;
    next.write_all(&serde_json::to_vec(stamps)?)?;
    next.persist(folder.join(NAME)).map_err(|error| error.error)?;
    Ok(())
}
