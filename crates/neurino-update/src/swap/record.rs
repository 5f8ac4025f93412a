//! What is written down of an exchange: `state.json`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use neurino_model_store::Digest;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::files::sync_folder;
use crate::error::UpdateError;
use crate::place::Place;
use crate::version::Version;

/// How an exchange stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Files are being exchanged.
    Swapping,
    /// The new program has yet to come up.
    Trial {
        /// How often it was started.
        starts: u32,
    },
    /// It came up.
    Settled,
    /// The old program is being put back.
    GoingBack,
    /// The old program is back.
    RolledBack,
}

/// The last exchange of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// How it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// The version before.
    pub from: Version,
    /// The version after.
    pub to: Version,
    /// The person wanted the way back.
    #[serde(default)]
    pub by_person: bool,
    /// Files that were there before; the program itself is the last.
    pub(super) replaced: Vec<Kept>,
    /// What the new program hashes to.
    pub(super) program: Digest,
    /// Files that are new.
    pub(super) added: Vec<PathBuf>,
}

/// A file of the version before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where it belongs, below the program's folder.
    pub(super) file: PathBuf,
    /// What it hashes to.
    pub(super) sha256: Digest,
}

impl Kept {
    /// Whether it, and not something else, lies at this path.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        Digest::of_file(path).is_ok_and(|sha256| sha256 == self.sha256)
    }
}

pub(super) fn staged(place: &Place) -> PathBuf {
    place.updates().join("staged")
}

pub(super) fn previous(place: &Place) -> PathBuf {
    place.updates().join("previous")
}

pub(super) fn state_path(place: &Place) -> PathBuf {
    place.updates().join("state.json")
}

/// The last exchange; `None` where there was none, or its record is damaged.
pub fn state(place: &Place) -> Option<Trial> {
    let text = fs::read_to_string(state_path(place)).ok()?;
    serde_json::from_str(&text)
        .inspect_err(|error| warn!(%error, "the record of the last update is damaged"))
        .ok()
}

pub(super) fn save(place: &Place, trial: &Trial) -> Result<(), UpdateError> {
    let (folder, path) = (place.updates(), state_path(place));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(&serde_json::to_vec(trial).map_err(io::Error::other)?)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        sync_folder(&folder)
    };
    write().map_err(UpdateError::io("writing", &path))
}

/// There is nothing to tell any more.
pub(super) fn forget(place: &Place) -> Result<(), UpdateError> {
    let path = state_path(place);
    fs::remove_file(&path).map_err(UpdateError::io("removing", &path))
}
