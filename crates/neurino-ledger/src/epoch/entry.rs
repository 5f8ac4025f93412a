//! One line for each movement of points of an epoch: what the sums of a file are sums of.

use neurino_core::{JobId, LeaseId, ModelId, NodeId, PointsKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{EpochError, Hash, Source, canonical_json};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// How points moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Movement {
    /// A result was paid.
    Reward,
    /// Its pay was called back.
    Clawback,
    /// It was given back after an appeal.
    Return,
}

/// One movement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The paid lease, as on the receipt.
    pub lease: LeaseId,
    /// How.
    pub movement: Movement,
    /// The job.
    pub job: JobId,
    /// Whose points.
    pub node: NodeId,
    /// The model that worked.
    pub model: ModelId,
    /// Which points.
    pub points: PointsKind,
    /// How many, in millionths; never negative, also where they were called back.
    pub points_micro: i64,
    /// How many of them count for the dynamic pool.
    pub organic_micro: i64,
    /// Whoever asked, by a name that is made anew for each epoch.
    pub payer: String,
    /// Where the work comes from.
    pub source: Source,
    /// What it cost and did not come back, in micro-credits.
    pub fee_micro: i64,
}

/// All entries of an epoch in two figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    /// How many.
    pub count: u64,
    /// SHA-256 of their canonical lines, each with its line end, by time, lease and movement.
    pub sha256: Hash,
}

impl Entries {
    /// Of entries in their order.
    ///
    /// # Errors
    /// `Number`.
    pub fn of(entries: &[Entry]) -> Result<Self, EpochError> {
        let mut lines = EntryLines::default();
        for entry in entries {
            lines.add(&canonical_json(entry)?);
        }
        Ok(lines.entries())
    }
}

/// Adds [`Entries`] up line by line.
#[derive(Debug, Clone, Default)]
pub struct EntryLines {
    count: u64,
    digest: Sha256,
}

impl EntryLines {
    /// Adds the canonical line of the next entry, without its line end.
    pub fn add(&mut self, line: &str) {
        self.digest.update(line);
        self.digest.update("\n");
        self.count += 1;
    }

    /// The two figures.
    pub fn entries(self) -> Entries {
        Entries { count: self.count, sha256: Hash(self.digest.finalize().into()) }
    }
}

impl Entry {
    /// What entries are sorted by.
    pub fn place(&self) -> (i64, LeaseId, Movement) {
        (self.at_ms, self.lease, self.movement)
    }
}

/// A line is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no entry: {fault}")]
pub struct EntryFault {
    /// Counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub fault: String,
}

/// Reads entries, one on each line.
///
/// # Errors
/// [`EntryFault`] for the first line that is none.
pub fn read_entries(text: &str) -> Result<Vec<Entry>, EntryFault> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let fault = |fault: String| EntryFault { line: at + 1, fault };
            if line.len() > LINE_BYTES_MAX {
                return Err(fault("it is too long".into()));
            }
            serde_json::from_str(line).map_err(|error| fault(error.to_string()))
        })
        .collect()
}
