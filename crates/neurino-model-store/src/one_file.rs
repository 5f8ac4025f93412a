//! One file that is no model, fetched exactly as a model's files are: resumed, hashed on the way, and
//! never there under its name before its digest matched.

use std::path::{Path, PathBuf};

use neurino_core::{JobKind, ModelId};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, ModelFile, ModelManifest, Source};
use crate::digest::Digest;
use crate::error::StoreError;
use crate::fetch::{FetchOptions, Progress};
use crate::store::ModelStore;

/// A file and where it comes from.
#[derive(Debug, Clone)]
pub struct OneFile {
    /// What errors and the log call it: small letters, digits, `-` and `.`.
    pub label: String,
    /// Its name.
    pub name: String,
    /// What it must hash to.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where it comes from.
    pub source: Source,
}

/// Fetches a file into a folder of its own below `folder`; returns where it lies. One that is there and
/// right is kept, an unfinished one continued.
///
/// # Errors
/// As [`ModelStore::fetch`].
pub async fn fetch_one(
    folder: &Path,
    file: OneFile,
    options: &FetchOptions,
    progress: impl Fn(Progress) + Send + Sync,
    cancel: CancellationToken,
) -> Result<PathBuf, StoreError> {
    let bad = |problem: String| StoreError::BadManifest { name: file.label.clone(), problem };
    let id = ModelId::new(file.label.clone()).map_err(|error| bad(error.to_string()))?;
    let manifest = ModelManifest {
        id: id.clone(),
        name: file.label.clone(),
        summary: String::new(),
        family: String::new(),
        kind: JobKind::Text,
        arch: String::new(),
        dtype: String::new(),
        context_tokens: 1,
        image: None,
        memory_bytes_min: 0,
        licence: String::new(),
        attribution: String::new(),
        files: vec![ModelFile {
            name: file.name,
            sha256: file.sha256,
            size_bytes: file.size_bytes,
            sources: vec![file.source],
            pieces: None,
        }],
    }
    .checked()?;
    let free_space = Box::new(|path: &Path| fs4::available_space(path));
    let store = ModelStore::open_with(folder, Catalog::of(vec![manifest]), free_space)?;
    store.fetch(&id, options, progress, cancel).await?;
    store.verified(&id).await
}
