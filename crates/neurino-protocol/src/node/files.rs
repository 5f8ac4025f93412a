//! Showing that a model's files are there: single pieces of a file, drawn by the coordinator, with what
//! leads from each to the root that it knows. It shows that a node has the file, not that it uses it.
//!
//! Asked only of nodes whose `Ready` says that they understand it, and answered when the node has a moment.

use neurino_core::ModelId;
use neurino_core::file_tree::ShownLeaf;
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;

/// Most leaves that are asked for at once: with their paths half a megabyte on the wire.
pub const LEAVES_MAX: usize = 20;

/// Asks for pieces of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChallenge {
    /// Names the question; used once.
    pub nonce: String,
    /// The model.
    pub model: ModelId,
    /// The file, by its name in the catalogue.
    pub file: String,
    /// Its length in bytes, as the coordinator knows it.
    pub size_bytes: u64,
    /// Which leaves, from zero; at most [`LEAVES_MAX`].
    pub leaves: Vec<u64>,
    /// How long the answer may take, in milliseconds.
    pub within_ms: u64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProof {
    /// Of the question.
    pub nonce: String,
    /// Just the leaves that were asked for, in that order; none with `refused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<ShownLeaf>,
    /// Why the node cannot show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ErrorCode>,
}
