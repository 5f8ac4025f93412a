//! Nodes of the schedules that cheat, each in its way, and what an honest one answers. Nothing of it
//! is a model: an answer is a function of its job, so that two honest nodes agree to the last bit.

use neurino_core::{
    FinishReason, ImageDefaults, ImageJob, ImageOutput, JobOutput, JobSpec, Png, RatedToken,
    TextJob, TextOutput, TokenLogprob, Usage,
};
use sha2::{Digest as _, Sha256};

/// How a node cheats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cheat {
    /// It computes with another model's weights.
    OtherCheckpoint,
    /// It ignores the seed.
    WrongSeed,
    /// It stops half-way.
    Truncated,
    /// It gives its first answer again and again.
    Cached,
    /// It answers at once, in words of nobody.
    Instant,
    /// It takes fewer steps.
    FewerSteps,
    /// It makes a small picture and enlarges it.
    Upscaled,
    /// It ignores the seed of a picture.
    OtherPicture,
    /// It hands its first picture in again and again.
    CachedPicture,
    /// Two keys of one person compute with another model's weights, and claim a numeric class that nobody
    /// else is of.
    Accomplices,
}

impl Cheat {
    pub(super) const ALL: [Self; 10] = [
        Self::OtherCheckpoint,
        Self::WrongSeed,
        Self::Truncated,
        Self::Cached,
        Self::Instant,
        Self::FewerSteps,
        Self::Upscaled,
        Self::OtherPicture,
        Self::CachedPicture,
        Self::Accomplices,
    ];

    /// Whether it is about pictures.
    pub(super) fn paints(self) -> bool {
        use Cheat::{CachedPicture, FewerSteps, OtherPicture, Upscaled};
        matches!(self, FewerSteps | Upscaled | OtherPicture | CachedPicture)
    }
}

/// Side of the pictures, in pixels.
pub(super) const SIDE: u32 = 64;

pub(super) fn usual() -> ImageDefaults {
    ImageDefaults {
        width: SIDE,
        height: SIDE,
        steps: 12,
        guidance: 5.0,
        side_multiple: 8,
        negative_prompt: String::new(),
        sampler: None,
    }
}

/// What a node hands in; `first` is what a node that keeps its answers keeps.
pub(super) fn answer(
    spec: &JobSpec,
    cheat: Option<Cheat>,
    first: &mut Option<JobOutput>,
) -> JobOutput {
    let made = match spec {
        JobSpec::Text(job) => JobOutput::Text(text(job, cheat)),
        JobSpec::Image(job) => JobOutput::Image(picture(job, cheat)),
    };
    if matches!(cheat, Some(Cheat::Cached | Cheat::CachedPicture)) {
        return first.get_or_insert(made).clone();
    }
    made
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize().into()
}

fn text(job: &TextJob, cheat: Option<Cheat>) -> TextOutput {
    let seed = job.sampling.seed + u64::from(cheat == Some(Cheat::WrongSeed));
    let weights: &[u8] = match cheat {
        Some(Cheat::OtherCheckpoint | Cheat::Accomplices) => b"other",
        Some(Cheat::Instant) => b"none",
        _ => b"right",
    };
    let said = job.messages[0].content.as_bytes();
    let hash = digest(&[weights, said, &seed.to_le_bytes(), job.model.as_str().as_bytes()]);
    let count = if cheat == Some(Cheat::Truncated) { 8 } else { 16 };
    let words: Vec<String> = hash
        .chunks_exact(2)
        .take(count)
        .map(|pair| format!("w{:02x}{:02x} ", pair[0], pair[1]))
        .collect();
    let tokens = u32::try_from(count).expect("few");
    let usage = Usage { prompt_tokens: 5, completion_tokens: tokens };
    let mut output = TextOutput::single(words.concat(), FinishReason::Stop, usage);
    // As asked for; the words' likelihoods are made up.
    output.choices[0].logprobs = job.logprobs.map(|_| {
        let rated = words.iter().map(|word| {
            let chosen = RatedToken { bytes: word.clone().into_bytes(), logprob: -0.5 };
            TokenLogprob { chosen, top: Vec::new() }
        });
        rated.collect()
    });
    output
}

fn picture(job: &ImageJob, cheat: Option<Cheat>) -> ImageOutput {
    let seed = if cheat == Some(Cheat::OtherPicture) { job.seed ^ 0xfeed } else { job.seed };
    let steps = if cheat == Some(Cheat::FewerSteps) { job.steps / 2 } else { job.steps };
    let by = if cheat == Some(Cheat::Upscaled) { 2 } else { 1 };
    let hash = digest(&[job.prompt.as_bytes(), &seed.to_le_bytes()]);
    let shade = |x: u32, y: u32, channel: usize| {
        let (x, y) = (x / by * by, y / by * by);
        let soft = (0..4).map(|n| {
            let [u, v] = [hash[8 * channel + 2 * n], hash[8 * channel + 2 * n + 1]]
                .map(|byte| (f32::from(byte) - 128.0) / 600.0);
            30.0 * (u * x as f32 + v * y as f32 + f32::from(hash[n])).sin()
        });
        // Each step takes some noise away.
        let noise = (x * 7 + y * 131 + u32::from(hash[30])).wrapping_mul(2_654_435_761) >> 24;
        let left = (noise as f32 - 128.0) / (2.0 + steps as f32);
        (128.0 + soft.sum::<f32>() + left).clamp(0.0, 255.0) as u8
    };
    let (width, height) = (job.width, job.height);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.extend((0..3).map(|channel| shade(x, y, channel)));
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("memory takes everything");
    writer.write_image_data(&pixels).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    ImageOutput { png: Png(file), width, height }
}
