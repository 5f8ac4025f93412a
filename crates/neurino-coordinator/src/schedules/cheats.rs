//! Nodes of the schedules that cheat, each in its way, and what an honest one answers. Nothing of it
//! is a model: an answer is a function of its job, so that two honest nodes agree to the last bit.

use neurino_core::{
    ClaimScore, FinishReason, ImageDefaults, ImageJob, ImageOutput, JobOutput, JobSpec, Png,
    RatedToken, SeedScore, TextClaim, TextJob, TextOutput, TokenLogprob, Usage,
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
    /// It writes a few tokens with the right seed and the rest with another, and is of a class that nobody else
    /// is of: where another class's text parts so late, a text of somebody else says nothing.
    LateSeed,
    /// It writes honestly, and as an auditor calls the first seed that it is given the right one.
    Guesser,
    /// It computes as it should what looks like a check, and with another model's weights what does not.
    Sly,
}

impl Cheat {
    pub(super) const ALL: [Self; 12] = [
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
        Self::LateSeed,
        Self::Guesser,
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
    // Others' work that it checks is known by the log-probabilities that are asked for.
    let checks = matches!(spec, JobSpec::Text(job) if job.logprobs.is_some());
    let cheat = cheat.filter(|cheat| *cheat != Cheat::Sly || !checks);
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

/// Tokens of an answer, and those of them that a late cheat writes with the right seed.
const TOKENS: usize = 40;
const EARLY: usize = 6;

/// The tokens that a node draws for a seed.
fn drawn(job: &TextJob, seed: u64, cheat: Option<Cheat>) -> Vec<u32> {
    let weights: &[u8] = match cheat {
        Some(Cheat::OtherCheckpoint | Cheat::Accomplices | Cheat::Sly) => b"other",
        Some(Cheat::Instant) => b"none",
        _ => b"right",
    };
    let said = job.messages[0].content.as_bytes();
    let of = |seed: u64, at: usize| {
        let (seed, at) = (seed.to_le_bytes(), at.to_le_bytes());
        let hash = digest(&[weights, said, &seed, job.model.as_str().as_bytes(), &at]);
        u32::from(u16::from_be_bytes([hash[0], hash[1]]))
    };
    let wrong = seed + 1;
    let seed_at = |at: usize| match cheat {
        Some(Cheat::WrongSeed) => wrong,
        Some(Cheat::LateSeed) if at >= EARLY => wrong,
        _ => seed,
    };
    let count = if cheat == Some(Cheat::Truncated) { TOKENS / 2 } else { TOKENS };
    (0..count).map(|at| of(seed_at(at), at)).collect()
}

fn text(job: &TextJob, cheat: Option<Cheat>) -> TextOutput {
    let tokens = match &job.claim {
        Some(claim) => claim.answers[0].clone(),
        None => drawn(job, job.sampling.seed, cheat),
    };
    let words: Vec<String> = tokens.iter().map(|token| format!("w{token:04x} ")).collect();
    let completion_tokens = u32::try_from(tokens.len()).expect("few");
    let usage = Usage { prompt_tokens: 5, completion_tokens };
    let mut output = TextOutput::single(words.concat(), FinishReason::Stop, usage);
    // As asked for; the words' likelihoods are made up.
    output.choices[0].logprobs = job.logprobs.map(|_| {
        let rated = words.iter().map(|word| {
            let chosen = RatedToken { bytes: word.clone().into_bytes(), logprob: -0.5 };
            TokenLogprob { chosen, top: Vec::new() }
        });
        rated.collect()
    });
    output.choices[0].score = job.claim.as_ref().map(|claim| scored(job, claim, cheat));
    output.choices[0].tokens = job.name_tokens.then_some(tokens);
    output
}

/// What a node finds of a claimed answer.
fn scored(job: &TextJob, claim: &TextClaim, cheat: Option<Cheat>) -> ClaimScore {
    let tokens = &claim.answers[0];
    let count = u32::try_from(tokens.len()).expect("few");
    let under = |(at, seed): (usize, &u64)| {
        let own = drawn(job, *seed, cheat);
        let exact = tokens.iter().zip(&own).filter(|(a, b)| a == b).count();
        let exact = match cheat {
            Some(Cheat::Guesser) if at == 0 => count,
            Some(Cheat::Guesser) => 0,
            _ => u32::try_from(exact).expect("few"),
        };
        SeedScore { exact, margin_ppm: u64::from(count - exact) * u64::from(claim.clip_ppm) }
    };
    let seeds = claim.seeds.iter().enumerate().map(under).collect();
    ClaimScore { tokens: count, whole: tokens.len() == TOKENS, seeds }
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
