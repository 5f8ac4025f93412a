//! The weight readers against well-formed, damaged and hostile files.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod gguf;
mod gptq;
mod prefetch;
mod quant;
mod safetensors;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

/// A reference file of `tests/fixtures/quant`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quant").join(name)
}

/// A file with `bytes` in a folder that lasts as long as the first value.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// `bytes` with some of them overwritten, and cut at a place that is often the end.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = bytes.len();
    let edits = prop::collection::vec((0..length, any::<u8>()), 0..6);
    let cut = prop_oneof![4 => Just(length), 1 => 0..length];
    (edits, cut).prop_map(move |(edits, cut)| {
        let mut bytes = bytes.clone();
        for (position, byte) in edits {
            bytes[position] = byte;
        }
        bytes.truncate(cut);
        bytes
    })
}
