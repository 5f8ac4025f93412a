//! Another version of a model: when the catalogue says that its files are others now, the ones that are
//! here stay in use until the new ones are here and verified.
//!
//! ```text
//! smollm2-135m-instruct/
//!   .version.json     the files of the version that is whole here
//!   .former/          the version that the catalogue had before, whole, with its own two notes
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use neurino_core::ModelId;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::catalog::{Catalog, ModelFile, ModelManifest};
use crate::chunks;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::part;
use crate::stamp::{self, Stamp};
use crate::store::{ModelState, ModelStore};

/// The files of the version that is whole, in a model's folder.
pub(crate) const VERSION: &str = ".version.json";
/// The folder of the version before.
pub(crate) const FORMER: &str = ".former";

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) name: String,
    sha256: Digest,
    size_bytes: u64,
}

impl Noted {
    fn of(file: &ModelFile) -> Self {
        Self { name: file.name.clone(), sha256: file.sha256, size_bytes: file.size_bytes }
    }

    fn file(&self) -> ModelFile {
        let Self { name, sha256, size_bytes } = self.clone();
        ModelFile { name, sha256, size_bytes, sources: Vec::new(), pieces: None }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let metadata = fs::metadata(folder.join(&self.name));
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == self.size_bytes)
    }
}

fn version_of(manifest: &ModelManifest) -> Vec<Noted> {
    manifest.files.iter().map(Noted::of).collect()
}

/// The version noted in a folder.
pub(crate) fn noted(folder: &Path) -> Option<Vec<Noted>> {
    let bytes = fs::read(folder.join(VERSION)).ok()?;
    let version: Vec<Noted> = serde_json::from_slice(&bytes).ok()?;
    // What could lead out of the folder was not written here.
    let inside = |name: &str| Path::new(name).is_relative() && !name.split('/').any(|p| p == "..");
    (!version.is_empty() && version.iter().all(|file| inside(&file.name))).then_some(version)
}

fn note(folder: &Path, version: &[Noted]) -> std::io::Result<()> {
    use std::io::Write as _;
    // A name of its own, so that a kill leaves what the next one overwrites. Whoever writes holds the lock.
    let next = folder.join(format!("{VERSION}.part"));
    let mut file = fs::File::create(&next)?;
    file.write_all(&serde_json::to_vec(version)?)?;
    file.sync_all()?;
    fs::rename(&next, folder.join(VERSION))
}

impl ModelStore {
    /// Whether a model can be used: its files are all here, or those of the version before.
    pub fn is_usable(&self, model: &ModelId) -> bool {
        matches!(self.state(model), Ok(ModelState::Verified | ModelState::Unverified))
            || self.former_of(model).is_some()
    }

    /// What a newer version of a model that is in use would take to fetch, in bytes; `None` where the
    /// one in use is the catalogue's, or none is.
    pub fn newer_bytes(&self, model: &ModelId) -> Option<u64> {
        let manifest = self.manifest(model).ok()?;
        let former = self.former_of(model)?;
        let has = |file: &&ModelFile| former.iter().any(|noted| noted.sha256 == file.sha256);
        let missing = manifest.files.iter().filter(|file| !has(file));
        match self.state(model) {
            Ok(ModelState::Verified | ModelState::Unverified) | Err(_) => None,
            Ok(_) => Some(missing.map(|file| file.size_bytes).sum()),
        }
    }

    /// SHA-256 of the files that `path`, as [`ModelStore::verified`] gave it, stands for.
    pub fn digests(&self, model: &ModelId, path: &Path) -> BTreeMap<String, Digest> {
        let former = self.folder(model).join(FORMER);
        let version = match self.manifest(model) {
            _ if path.starts_with(&former) => noted(&former).unwrap_or_default(),
            Ok(manifest) => version_of(&manifest),
            Err(_) => Vec::new(),
        };
        version.into_iter().map(|file| (file.name, file.sha256)).collect()
    }

    /// Deletes the version before of a model whose new one is whole; call it when nobody has the old
    /// one in memory. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Busy`], [`StoreError::Io`].
    pub fn forget_former(&self, model: &ModelId) -> Result<bool, StoreError> {
        let former = self.folder(model).join(FORMER);
        if !former.is_dir() || !self.is_whole(model)? {
            return Ok(false);
        }
        let _lock = self.lock(model)?;
        fs::remove_dir_all(&former).map_err(|error| StoreError::io("delete", &former, error))?;
        info!(model.id = %model, "the version before of {model} is deleted");
        Ok(true)
    }

    /// Deletes what has arrived of a newer version; the version before stays.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Busy`].
    pub fn forget_newer(&self, model: &ModelId) -> Result<(), StoreError> {
        let manifest = self.manifest(model)?;
        let (folder, _lock) = (self.folder(model), self.lock(model)?);
        for file in &manifest.files {
            part::forget(&folder, file);
            let _ = fs::remove_file(folder.join(&file.name));
        }
        Ok(())
    }

    /// Whether a version before is kept though the new one is whole.
    pub fn keeps_needless_former(&self, model: &ModelId) -> bool {
        self.folder(model).join(FORMER).is_dir() && self.is_whole(model).unwrap_or(false)
    }

    fn is_whole(&self, model: &ModelId) -> Result<bool, StoreError> {
        Ok(matches!(self.state(model)?, ModelState::Verified | ModelState::Unverified))
    }

    /// The files of the version before, if they are all here.
    fn former_of(&self, model: &ModelId) -> Option<Vec<Noted>> {
        let former = self.folder(model).join(FORMER);
        noted(&former).filter(|version| version.iter().all(|file| file.is_in(&former)))
    }

    /// Checks the version before against its own digests; what it is loaded from. `None` if there is
    /// none, or it is damaged too.
    pub(crate) fn former_verified(&self, model: &ModelId) -> Option<PathBuf> {
        let version = self.former_of(model)?;
        let folder = self.folder(model).join(FORMER);
        for file in &version {
            if let Err(error) = self.check_in(&folder, model, &file.file()) {
                warn!(model.id = %model, "the version before cannot be used: {error}");
                return None;
            }
        }
        Some(match version.as_slice() {
            [only] if !only.name.contains('/') => folder.join(&only.name),
            _ => folder,
        })
    }

    /// Notes that a model's files are whole and verified as the catalogue has them.
    pub(crate) fn note_version(&self, manifest: &ModelManifest) {
        let folder = self.folder(&manifest.id);
        let version = version_of(manifest);
        // Nothing newer ever comes of a person's own.
        let own = manifest.files.iter().all(|file| file.sources.is_empty());
        if own || noted(&folder).as_deref() == Some(&version) {
            return;
        }
        if let Err(error) = note(&folder, &version) {
            warn!(%error, "the version of {} cannot be noted: {error}", manifest.id);
        }
    }

    /// Puts the version that is here aside, as one that can still be used, where the catalogue says now
    /// that the model has other files. `before` is the catalogue until now, if that is known.
    pub(crate) fn keep_formers(&self, before: Option<&Catalog>) {
        for manifest in self.catalog().models() {
            let former = before.and_then(|before| before.get(&manifest.id));
            self.keep_former(manifest, former);
        }
    }

    pub(crate) fn keep_former(&self, manifest: &ModelManifest, before: Option<&ModelManifest>) {
        let (model, folder) = (&manifest.id, self.folder(&manifest.id));
        let version = version_of(manifest);
        let had = noted(&folder).or_else(|| Some(version_of(before?)));
        let Some(had) = had.filter(|had| *had != version) else { return };
        let former = folder.join(FORMER);
        let is_whole = || had.iter().all(|file| file.is_in(&folder) || file.is_in(&former));
        if !folder.is_dir() || !is_whole() {
            return;
        }
        // Who fetches it meanwhile comes back to this at the end.
        let Ok(_lock) = self.lock(model) else { return };
        match put_aside(&folder, &former, &had, &version) {
            Ok(()) => info!(model.id = %model, "a newer version of {model} is in the catalogue"),
            Err(error) => {
                warn!(%error, "the version of {model} that is here cannot be kept: {error}");
            }
        }
    }
}

/// Moves what the new version does not have, and links or copies what it shares. Killed in between, the
/// next call goes on.
fn put_aside(
    folder: &Path,
    former: &Path,
    had: &[Noted],
    version: &[Noted],
) -> std::io::Result<()> {
    fs::create_dir_all(former)?;
    note(former, had)?;
    let stamps = stamp::read(folder);
    for file in had {
        let (from, to) = (folder.join(&file.name), former.join(&file.name));
        if file.is_in(former) {
            continue;
        }
        if let Some(around) = to.parent() {
            fs::create_dir_all(around)?;
        }
        if version.contains(file) {
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ()))?;
        } else {
            fs::rename(&from, &to)?;
            // The map of the file that is wanted now is another one.
            let _ = fs::remove_file(chunks::kept_path(&from));
        }
        let stamp = fs::metadata(&to).and_then(|metadata| Stamp::new(file.sha256, &metadata))?;
        if stamps.get(&file.name) == Some(&stamp) {
            stamp::note(former, &file.name, stamp)?;
        }
    }
    match fs::remove_file(folder.join(VERSION)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
