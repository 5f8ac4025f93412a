//! What Neurino keeps on this machine, and where.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// Model files.
    Models,
    /// Identity key, wallet, receipts and other records.
    Records,
    /// Finished results that wait for their receipt.
    Outbox,
    /// Settings.
    Settings,
    /// Log files.
    Logs,
    /// Pictures that the person kept.
    Pictures,
    /// Exports and bundles that the person asked for.
    Exports,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct DataPlace {
    /// What it is for.
    pub kind: DataKind,
    /// Where it is, or would be.
    pub folder: String,
    /// What it holds, in bytes, without the other folders of this list that lie in it.
    #[ts(type = "number")]
    pub size_bytes: u64,
}
