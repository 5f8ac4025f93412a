//! What cheats hand in, made by the real engine, and the jobs that they are asked for.

use neurino_coordinator::compare;
use neurino_core::{
    ChatMessage, ImageDefaults, ImageJob, ImageOutput, JobOutput, JobSpec, ModelId, Png, Role,
    TextJob,
};
use serde::Serialize;

/// How a result came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Manner {
    /// As asked for.
    Honest,
    /// With the next seed.
    WrongSeed,
    /// Half of the text, or of the steps.
    Less,
    /// Made at half its size and enlarged.
    Upscaled,
    /// The answer to the job before.
    Cached,
    /// By another file: fewer bits, or another checkpoint.
    OtherFile,
    /// As asked for, with weights that are kept in 32 bits: what a device does that rounds otherwise.
    OtherRounding,
    /// With weights that were put into 4 bits.
    FourBit,
}

impl Manner {
    /// In words, for a job of a kind.
    pub(super) fn words(self, paints: bool) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::WrongSeed => "wrong seed",
            Self::Less if paints => "half the steps",
            Self::Less => "truncated",
            Self::Upscaled => "smaller, enlarged",
            Self::Cached => "cached",
            Self::OtherFile => "other file",
            Self::OtherRounding => "honest, in 32 bits",
            Self::FourBit => "4 bits for 16",
        }
    }
}

/// Things to ask for.
const SUBJECTS: [&str; 12] = [
    "a red ball beside a blue box",
    "a small house under a tall tree",
    "two boats on a quiet lake",
    "a green car on a winding road",
    "a yellow sun above a hill",
    "three stars in a dark sky",
    "a lighthouse in the rain",
    "a cat on a wooden chair",
    "a bridge over a river",
    "an orange fish in a bowl",
    "a snowman with a hat",
    "a garden with a fence",
];

/// The `n`-th job for a model: no two are alike. Half of the texts are drawn, half are greedy.
pub(super) fn job(model: &ModelId, image: Option<&ImageDefaults>, n: u32, tokens: u32) -> JobSpec {
    let subject = SUBJECTS[n as usize % SUBJECTS.len()];
    let seed = 1000 + 17 * u64::from(n);
    if let Some(usual) = image {
        return JobSpec::Image(ImageJob { seed, ..usual.job(model.clone(), subject) });
    }
    let words = format!("Tell me a story of {n} sentences about {subject}.");
    let messages = vec![ChatMessage::new(Role::User, words)];
    let mut job = TextJob::new(model.clone(), messages, tokens);
    job.name_tokens = true;
    job.sampling.seed = seed;
    job.sampling.temperature = if n.is_multiple_of(2) { 0.0 } else { 0.9 };
    JobSpec::Text(job)
}

/// What a cheat computes instead; none where the manner does not apply.
pub(super) fn instead(spec: &JobSpec, manner: Manner) -> Option<JobSpec> {
    let mut spec = spec.clone();
    match (&mut spec, manner) {
        (JobSpec::Text(job), Manner::WrongSeed) if job.sampling.temperature > 0.0 => {
            job.sampling.seed += 1;
        }
        (JobSpec::Text(job), Manner::Less) if job.max_tokens > 1 => job.max_tokens /= 2,
        (JobSpec::Image(job), Manner::WrongSeed) => job.seed += 1,
        (JobSpec::Image(job), Manner::Less) if job.steps > 1 => job.steps /= 2,
        (JobSpec::Image(job), Manner::Upscaled) => {
            (job.width, job.height) = (job.width / 2, job.height / 2);
            job.validate().ok()?;
        }
        (_, Manner::Honest | Manner::OtherFile | Manner::OtherRounding | Manner::FourBit) => {}
        _ => return None,
    }
    Some(spec)
}

/// The job as its auditor gets it: with log-probabilities, for where texts part.
pub(super) fn audited(spec: &JobSpec) -> JobSpec {
    let mut spec = spec.clone();
    if let JobSpec::Text(job) = &mut spec {
        job.logprobs = Some(5);
    }
    spec
}

/// Makes what was computed look like what was asked for.
pub(super) fn dressed(output: JobOutput, spec: &JobSpec) -> anyhow::Result<JobOutput> {
    match (output, spec) {
        (JobOutput::Image(small), JobSpec::Image(job)) if small.width < job.width => {
            Ok(JobOutput::Image(enlarged(&small, job.width, job.height)?))
        }
        (output, _) => Ok(output),
    }
}

/// Enlarges a picture smoothly (bilinear), as a program of a photographer would.
fn enlarged(small: &ImageOutput, width: u32, height: u32) -> anyhow::Result<ImageOutput> {
    let pixels = compare::pixels(small).map_err(anyhow::Error::msg)?;
    let (from_x, from_y) = (small.width as usize, small.height as usize);
    let place = |at: u32, from: usize, to: u32| {
        let at = ((f64::from(at) + 0.5) * from as f64 / f64::from(to) - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        (low, (low + 1).min(from - 1), at - low as f64)
    };
    let sample = |x: usize, y: usize, c: usize| f64::from(pixels[(y * from_x + x) * 3 + c]);
    let mut large = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        let (y0, y1, ty) = place(y, from_y, height);
        for x in 0..width {
            let (x0, x1, tx) = place(x, from_x, width);
            large.extend((0..3).map(|c| {
                let top = sample(x0, y0, c) * (1.0 - tx) + sample(x1, y0, c) * tx;
                let bottom = sample(x0, y1, c) * (1.0 - tx) + sample(x1, y1, c) * tx;
                (top * (1.0 - ty) + bottom * ty).round().clamp(0.0, 255.0) as u8
            }));
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&large)?;
    writer.finish()?;
    Ok(ImageOutput { png: Png(file), width, height })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn every_cheat_changes_the_job_or_does_not_apply() {
        let model: ModelId = "m".parse().unwrap();
        let usual = ImageDefaults {
            width: 64,
            height: 64,
            steps: 20,
            guidance: 3.0,
            side_multiple: 8,
            negative_prompt: String::new(),
            sampler: None,
        };
        for n in 0..4 {
            for image in [None, Some(&usual)] {
                let asked = job(&model, image, n, 64);
                asked.validate().unwrap();
                assert_eq!(instead(&asked, Manner::Honest), Some(asked.clone()));
                for manner in [Manner::WrongSeed, Manner::Less, Manner::Upscaled] {
                    assert_ne!(instead(&asked, manner), Some(asked.clone()), "{manner:?}");
                }
            }
        }
        let greedy = job(&model, None, 0, 64);
        assert_eq!(instead(&greedy, Manner::WrongSeed), None, "a greedy text has no seed");
        assert_ne!(job(&model, None, 1, 64), job(&model, None, 13, 64));
    }
}
