//! Language models against the reference implementation, and against damaged files.
//!
//! `NEURINO_TEST_DEVICE` chooses the device (`cpu`; `cuda` in a build with that feature;
//! `cubecl`, which is CubeCL's CPU runtime, in one with `kernels-on-cpu`);
//! `NEURINO_TEST_STARTER_MODEL` names the starter model's GGUF file, whose tests are skipped
//! without it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod batch;
mod claims;
mod damage;
#[cfg(feature = "kernels")]
mod device_choice;
mod foreign;
mod formats;
mod gguf;
mod parity;
mod placement;
mod serving;
mod starter;
mod text;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use neurino_llm::checkpoint::Precision;
use neurino_llm::{LanguageModel, ModelSource};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn device() -> Device {
    match std::env::var("NEURINO_TEST_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Device::flex(),
        #[cfg(feature = "kernels-on-cpu")]
        Ok("cubecl") => Device::cpu(),
        #[cfg(feature = "cuda")]
        Ok("cuda") => Device::cuda(0),
        Ok(other) => panic!("NEURINO_TEST_DEVICE={other} is not a device of this build"),
    }
}

/// Loads in f32, the reference's precision.
fn load(path: &Path) -> LanguageModel {
    load_as(path, Precision::Full)
}

fn load_as(path: &Path, precision: Precision) -> LanguageModel {
    let source = ModelSource::open(path).unwrap();
    LanguageModel::load_as(&source, &device(), precision, &|_, _| ()).unwrap()
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    u32::try_from(best.unwrap().0).unwrap()
}

/// Checks that rows of `width` values differ by at most `limit` of the row's largest value.
#[track_caller]
fn assert_rows_close(what: &str, found: &[f32], expect: &[f32], width: usize, limit: f32) {
    assert_eq!(found.len(), expect.len(), "{what}");
    for (row, (found, expect)) in found.chunks(width).zip(expect.chunks(width)).enumerate() {
        let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let apart = found.iter().zip(expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart <= limit * largest, "{what}, row {row}: {apart} of {largest}");
    }
}
