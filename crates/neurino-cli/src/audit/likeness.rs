//! Whether texts come from one distribution, for engines whose random numbers nobody can repeat: how often
//! that test is wrong on this machine.

use neurino_core::audit::distribution::{self, DistributionTest, PromptSamples};
use neurino_core::{JobOutput, JobSpec};
use neurino_engine::LocalEngine;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use super::calibrate::compute;

/// How often chance is asked.
const EXCHANGES: u32 = 999;

/// What the test says of one engine's texts against another's.
#[derive(Debug, Serialize)]
pub(super) struct Likeness {
    pub(super) words: &'static str,
    #[serde(flatten)]
    pub(super) test: DistributionTest,
}

/// So many texts for each job, with seeds that begin at `first`; drawn whatever the job says.
pub(super) async fn texts(
    engine: &LocalEngine,
    jobs: &[JobSpec],
    count: u32,
    first: u64,
) -> anyhow::Result<Vec<Vec<Vec<u32>>>> {
    let mut all = Vec::with_capacity(jobs.len());
    for spec in jobs {
        let JobSpec::Text(job) = spec else { anyhow::bail!("only texts have a distribution") };
        let mut job = job.clone();
        job.sampling.temperature = 0.9;
        let mut of_job = Vec::new();
        for n in 0..u64::from(count) {
            job.sampling.seed = first + n;
            let JobOutput::Text(text) = compute(engine, &JobSpec::Text(job.clone())).await? else {
                anyhow::bail!("the model makes no texts")
            };
            of_job.push(text.text().chars().map(u32::from).collect());
        }
        all.push(of_job);
    }
    Ok(all)
}

/// Tests two engines' texts for the same jobs.
pub(super) fn compared(
    words: &'static str,
    first: &[Vec<Vec<u32>>],
    second: &[Vec<Vec<u32>>],
) -> Option<Likeness> {
    let pairs = first.iter().zip(second);
    let of = |(first, second): (&Vec<_>, &Vec<_>)| PromptSamples {
        first: first.clone(),
        second: second.clone(),
    };
    let samples: Vec<PromptSamples> = pairs.map(of).collect();
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let test = distribution::test(&samples, EXCHANGES, |n| random.random_range(0..n))?;
    Some(Likeness { words, test })
}

pub(super) fn lines(all: &[Likeness]) -> Vec<String> {
    let mut lines = vec![format!("{:<20}{:>8}  {:<12}p", "distribution", "prompts", "MMD^2")];
    lines.extend(all.iter().map(|row| {
        let DistributionTest { prompts, mmd2, p_value } = row.test;
        format!("{:<20}{prompts:>8}  {:<12}{p_value:.3}", row.words, format!("{mmd2:.4}"))
    }));
    lines.push(
        "A small p says that the texts are not of one distribution. It convicts nobody: another build or \
         system prompt differs, too."
            .into(),
    );
    lines
}
