//! The parts of a folder that belong to the image engine: `rng/`, `sched/`, `clip/`, `sd/`, `flux/`.
//!
//! Reading order: `random` and `schedule` (plain numbers), `encoders` (text encoders and prompts),
//! `networks` (what denoises, and the autoencoder, block by block), `runs` (prompt to PNG).

mod encoders;
mod networks;
mod random;
mod runs;
mod schedule;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use neurino_nn::device::{download, upload};

use crate::Options;
use crate::case::{Comparison, Report};
use crate::reference::{ReferenceError, Tensors, folders};

type AnyError = Box<dyn std::error::Error>;

/// Largest difference of a network's or block's output, relative to the largest value.
const NETWORK_LIMIT: f64 = 1e-4;

/// Runs what there is of the image engine below `folder`.
pub(crate) fn run(folder: &Path, options: &Options, report: &mut Report<'_>) {
    random::run(&folder.join("rng"), report);
    schedule::run(&folder.join("sched"), &options.device, report);
    encoders::run(&folder.join("clip"), options, report);
    let sd = folder.join("sd");
    for name in folders(&sd) {
        model(&sd.join(&name), &format!("sd/{name}"), options, report);
    }
    let flux = folder.join("flux");
    if flux.join("model_index.json").is_file() {
        model(&flux, "flux", options, report);
    } else {
        for name in folders(&flux) {
            model(&flux.join(&name), &format!("flux/{name}"), options, report);
        }
    }
}

/// Runs a model's networks and pictures.
fn model(folder: &Path, case: &str, options: &Options, report: &mut Report<'_>) {
    if !folder.join("model_index.json").is_file() {
        return report.skipped(case, "holds no model");
    }
    networks::run(folder, case, options, report);
    runs::run(folder, case, options, report);
}

/// A tensor of the reference on the device, in its own shape.
fn tensor<const D: usize>(
    tensors: &Tensors,
    name: &str,
    device: &Device,
) -> Result<Tensor<D>, AnyError> {
    let stored = tensors.file().stored(name).map_err(ReferenceError::from)?;
    let shape: [usize; D] = stored
        .shape()
        .try_into()
        .map_err(|_| format!("`{name}` has {} dimensions instead of {D}", stored.shape().len()))?;
    Ok(upload(tensors.floats(name)?, shape, device))
}

/// A picture of the reference, whose channels come first there and last here.
fn picture(tensors: &Tensors, name: &str, device: &Device) -> Result<Tensor<4>, AnyError> {
    Ok(tensor::<4>(tensors, name, device)?.permute([0, 2, 3, 1]))
}

/// Compares with a tensor of the reference as a whole.
fn whole(found: &[f32], tensors: &Tensors, name: &str, limit: f64) -> Result<Comparison, AnyError> {
    let expect = tensors.floats(name)?;
    Ok(Comparison::of_rows(found, &expect, expect.len(), limit))
}

/// The same for a picture with its channels last.
fn whole_picture(
    found: Tensor<4>,
    tensors: &Tensors,
    name: &str,
    limit: f64,
) -> Result<Comparison, AnyError> {
    whole(&download(found.permute([0, 3, 1, 2]))?, tensors, name, limit)
}
