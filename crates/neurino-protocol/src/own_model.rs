//! A person's own model in the window: what a file or folder is, and taking it in.

use neurino_core::{JobKind, ModelId};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::library::ModelFit;

/// What the window can ask about a file or folder that may be a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum OwnModelCommand {
    /// Says what it is; nothing is changed.
    Look {
        /// The file or folder, a whole path.
        path: String,
    },
    /// Takes it into the library; progress and outcome follow in the snapshot. A file of the catalogue
    /// becomes that model, whatever id was chosen.
    Add {
        /// The file or folder, a whole path.
        path: String,
        /// The id it gets.
        id: String,
    },
}

/// What a file or folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct OwnModelView {
    /// The whole path.
    pub path: String,
    /// Its name for people.
    pub name: String,
    /// The id it could have; may be empty if its name makes none.
    pub id: String,
    /// What it makes.
    pub kind: JobKind,
    /// The architecture, as its files name it.
    pub arch: String,
    /// How most of its weights are stored.
    pub storage: String,
    /// Longest sequence, prompt and answer together, in tokens; 0 for an image model.
    pub context_tokens: u32,
    /// How many files it has.
    pub files: u32,
    /// Their bytes.
    #[ts(type = "number")]
    pub size_bytes: u64,
    /// Whether it runs, for each device that could compute.
    pub fits: Vec<ModelFit>,
    /// The model of the catalogue that has a file of this very size, and so may be the same.
    pub may_be: Option<ModelId>,
}
