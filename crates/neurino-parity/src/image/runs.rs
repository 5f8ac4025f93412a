//! `runs.json`, `run_NAME.safetensors`, `run_NAME.png`: whole pictures, from the prompt to the file.

use std::path::Path;

use neurino_core::job::Png;
use neurino_core::{ImageJob, ModelId};
use neurino_diffusion::checkpoint::{Loading, Precision};
use neurino_diffusion::pipeline::{Decoding, Denoising, LoraFile};
use neurino_diffusion::source::Changes;
use neurino_diffusion::{ImageSource, RgbImage};
use neurino_nn::device::{download, is_cpu};
use serde::Deserialize;

use super::{AnyError, NETWORK_LIMIT, whole, whole_picture};
use crate::Options;
use crate::case::{Comparison, Report};
use crate::reference::{Tensors, json, seed};

/// Largest difference of the first latents, which are exact numbers times one: relative to the largest.
const NOISE_LIMIT: f64 = 1e-6;
/// Largest difference of latents on the way, relative to the largest value.
const LATENTS_LIMIT: f64 = 1e-3;
/// Largest difference of a level of a pixel.
const LEVELS_LIMIT: f64 = 1.0;
/// Largest share of values that may differ at all.
const DIFFERING_LIMIT: f64 = 0.005;
/// In 16 bits on a card: the least likeness, as the error of a peak signal-to-noise ratio of 30 dB.
const NOISE_LIMIT_DB: f64 = -30.0;
/// The same in structure: what a structural similarity of 0.99 lacks of 1.
const STRUCTURE_LIMIT: f64 = 0.01;
/// Largest side that a reference picture may have.
const SIDE_LIMIT: u32 = 4096;

#[derive(Deserialize)]
struct Runs {
    lora: Option<LoraSettings>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct LoraSettings {
    scale: f32,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    prompt: String,
    negative: Option<String>,
    width: u32,
    height: u32,
    steps: u32,
    guidance: f32,
    #[serde(deserialize_with = "seed")]
    seed: u64,
    /// The form of a file of updates.
    lora: Option<String>,
    /// Whether the other autoencoder is used.
    #[serde(default)]
    vae: bool,
    /// Whether the weights in 4 bits are used.
    #[serde(default)]
    quantized: bool,
}

pub(super) fn run(folder: &Path, case: &str, options: &Options, report: &mut Report<'_>) {
    let path = folder.join("runs.json");
    if !path.is_file() {
        return;
    }
    let runs: Runs = match json(&path) {
        Ok(runs) => runs,
        Err(error) => return report.failed(&format!("{case} runs.json"), &error),
    };
    let scale = runs.lora.as_ref().map_or(1.0, |lora| lora.scale);
    for run in &runs.runs {
        let case = format!("{case} run {}", run.name);
        if let Err(error) = one(folder, &case, run, scale, options, report) {
            report.failed(&case, error.as_ref());
        }
    }
}

impl Run {
    /// The job of a picture of this size (width, height).
    fn job(&self, [width, height]: [u32; 2]) -> Result<ImageJob, AnyError> {
        Ok(ImageJob {
            negative_prompt: self.negative.clone().unwrap_or_default(),
            width,
            height,
            steps: self.steps,
            guidance: self.guidance,
            seed: self.seed,
            ..ImageJob::new(ModelId::new("case")?, &self.prompt, width)
        })
    }

    fn changes(&self, folder: &Path, scale: f32) -> Changes {
        let lora = |form: &String| LoraFile {
            path: folder.join(format!("lora_{form}.safetensors")),
            scale,
        };
        Changes {
            vae: self.vae.then(|| folder.join("vae_alt.safetensors")),
            transformer: self.quantized.then(|| folder.join("transformer_nf4")),
            text_encoder_2: self.quantized.then(|| folder.join("text_encoder_2_hqq")),
            loras: self.lora.iter().map(lora).collect(),
        }
    }
}

fn one(
    folder: &Path,
    case: &str,
    run: &Run,
    scale: f32,
    options: &Options,
    report: &mut Report<'_>,
) -> Result<(), AnyError> {
    let source = ImageSource::open_with(folder, &run.changes(folder, scale))?;
    let tensors = Tensors::open(&folder.join(format!("run_{}.safetensors", run.name)))?;
    // The reference draws latents for an autoencoder of 8 pixels a latent one, whichever the model has: its
    // picture tells how many they were. SDXL is told the size of the run.
    let asked = [run.width, run.height];
    let job = run.job(size_of(&tensors, asked)?)?;
    let mut pipeline = source.load(&Loading::quiet(&options.device, Precision::Full))?;
    let picture = steps(pipeline.begin_told(&job, asked)?, case, &tensors, report)?;
    drop(pipeline);
    let pixels = tensors.file().tensor("pixels")?.into_bytes();
    levels(case, picture.pixels(), &pixels, report);

    let file = folder.join(format!("run_{}.png", run.name));
    if file.is_file() {
        // What we write, read back, against what the reference wrote.
        let theirs = RgbImage::from_png(&Png(std::fs::read(&file)?), SIDE_LIMIT)?;
        let ours = RgbImage::from_png(&picture.to_png(), SIDE_LIMIT)?;
        let size = |picture: &RgbImage| (picture.width(), picture.height());
        if size(&ours) != size(&theirs) {
            return Err(format!("{:?} pixels instead of {:?}", size(&ours), size(&theirs)).into());
        }
        levels(&format!("{case} PNG"), ours.pixels(), theirs.pixels(), report);
    }
    if !is_cpu(&options.device) {
        let mut pipeline = source.load(&Loading::quiet(&options.device, Precision::Half))?;
        let mut made = pipeline.begin_told(&job, asked)?;
        while made.done() < made.steps() {
            made.step()?;
        }
        let picture = made.finish(Decoding::Whole)?;
        likeness(&format!("{case} in 16 bits"), &picture, &pixels, report);
    }
    Ok(())
}

/// Width and height of the reference's picture; `asked` if it kept none.
fn size_of(tensors: &Tensors, asked: [u32; 2]) -> Result<[u32; 2], AnyError> {
    let Ok(pixels) = tensors.file().stored("pixels") else { return Ok(asked) };
    let &[height, width, _] = pixels.shape() else {
        return Err(format!("`pixels` has {} dimensions instead of 3", pixels.shape().len()).into());
    };
    Ok([width.try_into()?, height.try_into()?])
}

/// Makes the picture and compares everything on the way to it.
fn steps(
    mut made: Box<dyn Denoising>,
    case: &str,
    tensors: &Tensors,
    report: &mut Report<'_>,
) -> Result<RgbImage, AnyError> {
    for (part, found) in made.conditions()? {
        if tensors.has(part) {
            report.close(&format!("{case} {part}"), &whole(&found, tensors, part, NETWORK_LIMIT)?);
        }
    }
    if tensors.has("latents0") {
        let found = whole(&made.latents()?, tensors, "latents0", NOISE_LIMIT)?;
        report.close(&format!("{case} latents0"), &found);
    }
    let mut outputs = Comparison::new(LATENTS_LIMIT);
    let mut latents = Comparison::new(LATENTS_LIMIT);
    for step in 0..made.steps() {
        made.step()?;
        let output = ["eps", "velocity"].map(|kind| format!("{kind}{step}"));
        for name in output.iter().filter(|name| tensors.has(name)) {
            let expect = tensors.floats(name)?;
            outputs.add_rows(&format!("step {step}, "), &made.output()?, &expect, expect.len());
        }
        let expect = tensors.floats(&format!("latents{}", step + 1))?;
        latents.add_rows(&format!("step {step}, "), &made.latents()?, &expect, expect.len());
    }
    report.close(&format!("{case} outputs"), &outputs);
    report.close(&format!("{case} latents"), &latents);
    let decoded = made.decode(Decoding::Whole)?;
    let [_, height, width, _] = decoded.dims();
    if tensors.has("decoded") {
        let found = whole_picture(decoded.clone(), tensors, "decoded", LATENTS_LIMIT)?;
        report.close(&format!("{case} decoded"), &found);
    }
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    Ok(RgbImage::from_decoded(&download(decoded)?, side(width), side(height))?)
}

/// Compares pixels level by level.
fn levels(case: &str, found: &[u8], expect: &[u8], report: &mut Report<'_>) {
    let widened = |levels: &[u8]| levels.iter().map(|&level| f32::from(level)).collect::<Vec<_>>();
    let comparison = Comparison::of_values(&widened(found), &widened(expect), LEVELS_LIMIT);
    report.close(&format!("{case} pixels"), &comparison);
    let differing = found.iter().zip(expect).filter(|(a, b)| a != b).count();
    let share = differing as f64 / expect.len().max(1) as f64;
    let place = format!("{differing} of {} values differ", expect.len());
    let comparison = Comparison { error: share, limit: DIFFERING_LIMIT, place };
    report.close(&format!("{case} share of pixels that differ"), &comparison);
}

/// Compares pictures as a person would, for numbers of few bits.
fn likeness(case: &str, picture: &RgbImage, expect: &[u8], report: &mut Report<'_>) {
    let found = picture.pixels();
    if found.len() != expect.len() {
        let words = format!("{} values instead of {}", found.len(), expect.len());
        return report.equal(case, Err(words));
    }
    let noise = Comparison {
        error: -signal_to_noise_db(found, expect),
        limit: NOISE_LIMIT_DB,
        place: "too far from the reference".into(),
    };
    report.close(&format!("{case}, noise in dB"), &noise);
    let structure = Comparison {
        error: 1.0 - similarity(found, expect, picture.width() as usize),
        limit: STRUCTURE_LIMIT,
        place: "another structure".into(),
    };
    report.close(&format!("{case}, lack of similarity"), &structure);
}

/// The peak signal-to-noise ratio in decibels.
fn signal_to_noise_db(found: &[u8], expect: &[u8]) -> f64 {
    let squares = found.iter().zip(expect).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    let mean = squares.sum::<f64>() / expect.len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-6)).log10()
}

/// The structural similarity over windows of 8 x 8 pixels, of all colours.
///
/// Source: Wang et al. 2004.
fn similarity(found: &[u8], expect: &[u8], width: usize) -> f64 {
    const SIDE: usize = 8;
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let height = expect.len() / 3 / width.max(1);
    let (mut total, mut windows) = (0.0, 0.0);
    for top in (0..height.saturating_sub(SIDE - 1)).step_by(SIDE / 2) {
        for left in (0..width.saturating_sub(SIDE - 1)).step_by(SIDE / 2) {
            for colour in 0..3 {
                let places = (0..SIDE * SIDE)
                    .map(|i| ((top + i / SIDE) * width + left + i % SIDE) * 3 + colour);
                let pairs: Vec<(f64, f64)> =
                    places.map(|at| (f64::from(found[at]), f64::from(expect[at]))).collect();
                let count = pairs.len() as f64;
                let mean =
                    |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / count;
                let (a, b) = (mean(&|p| p.0), mean(&|p| p.1));
                let (aa, bb) = (mean(&|p| (p.0 - a).powi(2)), mean(&|p| (p.1 - b).powi(2)));
                let ab = mean(&|p| (p.0 - a) * (p.1 - b));
                total +=
                    (2.0 * a * b + c1) * (2.0 * ab + c2) / ((a * a + b * b + c1) * (aa + bb + c2));
                windows += 1.0;
            }
        }
    }
    if windows > 0.0 { total / windows } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeness_tells_noise_from_equality() {
        let picture: Vec<u8> = (0..32 * 32 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let noisy: Vec<u8> =
            picture.iter().enumerate().map(|(i, &x)| x.saturating_add((i % 3) as u8)).collect();
        let other: Vec<u8> = picture.iter().rev().copied().collect();
        assert!(signal_to_noise_db(&picture, &picture) > 90.0);
        assert!((40.0..50.0).contains(&signal_to_noise_db(&noisy, &picture)));
        assert!(signal_to_noise_db(&other, &picture) < 15.0);
        assert!((similarity(&picture, &picture, 32) - 1.0).abs() < 1e-9);
        assert!(similarity(&noisy, &picture, 32) > 0.99);
        assert!(similarity(&other, &picture, 32) < 0.5);
    }
}
