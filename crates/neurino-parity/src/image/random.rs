//! `rng/`: raw words of the reference's generator, and its normal numbers in every type.

use std::path::Path;

use neurino_diffusion::{NoiseDtype, TorchRng};
use serde::Deserialize;

use crate::case::{Comparison, Report};
use crate::reference::{ReferenceError, Tensors, json, seed};

/// Largest difference of f32 numbers; 16-bit ones are equal.
const LIMIT: f64 = 1e-6;

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    mt19937: Vec<Words>,
    #[serde(default)]
    mt19937_word_positions: Vec<usize>,
    #[serde(default)]
    single: Vec<Single>,
    #[serde(default)]
    sequences: Vec<Sequence>,
}

#[derive(Deserialize)]
struct Words {
    #[serde(deserialize_with = "seed")]
    seed: u64,
    words: Vec<u32>,
}

#[derive(Deserialize)]
struct Single {
    #[serde(deserialize_with = "seed")]
    seed: u64,
    #[serde(flatten)]
    draw: Draw,
}

#[derive(Deserialize)]
struct Draw {
    name: String,
    shape: Vec<usize>,
    dtype: String,
}

#[derive(Deserialize)]
struct Sequence {
    #[serde(deserialize_with = "seed")]
    seed: u64,
    draws: Vec<Draw>,
}

pub(super) fn run(folder: &Path, report: &mut Report<'_>) {
    let (cases, tensors) = (folder.join("randn.json"), folder.join("randn.safetensors"));
    if !cases.is_file() || !tensors.is_file() {
        return;
    }
    let (cases, tensors) = match (json::<Reference>(&cases), Tensors::open(&tensors)) {
        (Ok(cases), Ok(tensors)) => (cases, tensors),
        (Err(error), _) | (_, Err(error)) => return report.failed("rng/randn", &error),
    };
    for case in &cases.mt19937 {
        let name = format!("rng/mt19937 seed {}", case.seed);
        report.equal(&name, words(case, &cases.mt19937_word_positions));
    }
    for single in &cases.single {
        let mut rng = TorchRng::new(single.seed);
        draw(&mut rng, &single.draw, &tensors, report);
    }
    for sequence in &cases.sequences {
        let mut rng = TorchRng::new(sequence.seed);
        for one in &sequence.draws {
            draw(&mut rng, one, &tensors, report);
        }
    }
}

fn words(expect: &Words, positions: &[usize]) -> Result<usize, String> {
    let mut rng = TorchRng::new(expect.seed);
    let count = positions.iter().max().map_or(0, |last| last + 1);
    let drawn: Vec<u32> = (0..count).map(|_| rng.word()).collect();
    let found: Vec<u32> = positions.iter().map(|&at| drawn[at]).collect();
    match found.iter().zip(&expect.words).position(|(found, expect)| found != expect) {
        _ if found.len() != expect.words.len() => {
            Err(format!("{} words for {} positions", expect.words.len(), found.len()))
        }
        Some(at) => {
            Err(format!("word {}: {} instead of {}", positions[at], found[at], expect.words[at]))
        }
        None => Ok(found.len()),
    }
}

fn draw(rng: &mut TorchRng, draw: &Draw, tensors: &Tensors, report: &mut Report<'_>) {
    let name = format!("rng/{}", draw.name);
    let (dtype, limit) = match draw.dtype.as_str() {
        "f32" => (NoiseDtype::F32, LIMIT),
        "f16" => (NoiseDtype::F16, 0.0),
        "bf16" => (NoiseDtype::BF16, 0.0),
        other => return report.skipped(&name, &format!("this build does not draw {other}")),
    };
    let found = rng.randn(draw.shape.iter().product(), dtype);
    let expect: Result<Vec<f32>, ReferenceError> = tensors.floats(&draw.name);
    match expect {
        Ok(expect) => report.close(&name, &Comparison::of_values(&found, &expect, limit)),
        Err(error) => report.failed(&name, &error),
    }
}
