//! The library from outside: sources that work and fail, files that are damaged.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod disk;
mod former;
mod hostile;
mod http;
mod kill;
mod library;
mod lists;
#[cfg(unix)]
mod python;
mod server;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use neurino_core::ModelId;
use neurino_model_store::{
    Catalog, Digest, FetchOptions, ModelFile, ModelManifest, ModelStore, Progress, Source,
    SourceFailure, StoreError,
};
use tokio_util::sync::CancellationToken;

const FILE: &str = "weights.gguf";

/// Bytes that differ at every place, so that a shifted resume cannot go unseen.
fn content() -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..300_000).map(next).collect()
}

fn model() -> ModelId {
    ModelId::new("test/model").unwrap()
}

fn file(name: &str, bytes: &[u8], sources: Vec<Source>) -> ModelFile {
    let (sha256, size_bytes) = (Digest::of(bytes), bytes.len() as u64);
    ModelFile { name: name.to_owned(), sha256, size_bytes, sources, pieces: None }
}

fn manifest(files: Vec<ModelFile>) -> ModelManifest {
    ModelManifest {
        id: model(),
        name: "Test".to_owned(),
        summary: "A test.".to_owned(),
        family: "test".to_owned(),
        arch: "llama".to_owned(),
        dtype: "f32".to_owned(),
        kind: neurino_core::JobKind::Text,
        context_tokens: 16,
        image: None,
        memory_bytes_min: 1,
        licence: "CC0-1.0".to_owned(),
        attribution: "nobody".to_owned(),
        files,
    }
}

fn store_of(folder: &Path, files: Vec<ModelFile>) -> ModelStore {
    let catalog = Catalog::of(vec![manifest(files)]);
    ModelStore::open_with(folder, catalog, Box::new(|_| Ok(u64::MAX))).unwrap()
}

/// A store whose one file holds [`content`] and comes from `sources`.
fn store(folder: &Path, sources: Vec<Source>) -> ModelStore {
    store_of(folder, vec![file(FILE, &content(), sources)])
}

fn options() -> FetchOptions {
    FetchOptions {
        retry_wait: Duration::from_millis(5),
        connections: 1,
        chunk_bytes: 16 << 10,
        ..FetchOptions::default()
    }
}

async fn fetch(store: &ModelStore) -> Result<std::path::PathBuf, StoreError> {
    fetch_with(store, &options()).await
}

/// Fetches and holds what progress promises: it rises within a source and stays within the total.
async fn fetch_with(
    store: &ModelStore,
    options: &FetchOptions,
) -> Result<std::path::PathBuf, StoreError> {
    let last: Mutex<Option<Progress>> = Mutex::default();
    let check = |now: Progress| {
        let mut last = last.lock().unwrap();
        assert!(now.done_bytes <= now.total_bytes, "{now:?}");
        if let Some(last) = *last {
            assert!(now.done_bytes >= last.done_bytes, "{last:?} {now:?}");
        }
        *last = Some(now);
    };
    let path = store.fetch(&model(), options, check, CancellationToken::new()).await?;
    if let Some(last) = *last.lock().unwrap() {
        assert_eq!(last.done_bytes, last.total_bytes);
    }
    assert_eq!(path, store.verified(&model()).await.unwrap());
    Ok(path)
}

/// What each source said.
fn failures(error: StoreError) -> Vec<SourceFailure> {
    match error {
        StoreError::Unobtainable { failures, .. } => failures,
        other => panic!("{other:?}"),
    }
}

/// The files of the model's folder, the store's own notes left out.
fn left(store: &ModelStore) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(store.folder(&model()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            name != ".lock"
                && name != ".verified.json"
                && name != ".used"
                && name != ".version.json"
                && !name.ends_with(".chunks")
        })
        .collect();
    names.sort();
    names
}
