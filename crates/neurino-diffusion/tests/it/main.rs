//! Every part against the reference implementation.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod flux;
mod lora;
mod networks;
mod pipelines;
mod prompt;
mod real_size;
mod rng;
mod scheduler;
mod streaming;
mod text;

use std::path::PathBuf;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// A tensor's values, widened.
fn values(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap();
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).into()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).into()).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    values(file, name).into_iter().map(|x| x as f32).collect()
}

/// Values that are apart by at most `limit` of the largest.
#[track_caller]
fn assert_close(what: &str, found: &[f32], expect: &[f32], limit: f32) {
    assert_eq!(found.len(), expect.len(), "{what}");
    assert!(found.iter().all(|x| x.is_finite()), "{what}");
    let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let apart = found.iter().zip(expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart <= limit * largest, "{what}: {apart} of {largest}");
}
