//! An answer that somebody gave, to be looked at token by token: what an auditor is asked, and what it
//! finds.
//!
//! Scoring reads prompt and answer in one go, as a prompt is read, and asks the sampler at every place
//! which token it would have chosen there with the same random number. An honest answer is chosen nearly
//! everywhere, on whatever device; another model's or another seed's is not.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{InvalidJob, TextJob};

/// Answers that are not to be written but scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TextClaim {
    /// The tokens of each answer, its end token included; as many answers as the job has.
    pub answers: Vec<Vec<u32>>,
    /// Seeds to score with, 1 to [`TextClaim::SEEDS_LIMIT`]. The one that the answers are said to be drawn
    /// with is among them, and the auditor is not told which.
    #[ts(type = "Array<number>")]
    pub seeds: Vec<u64>,
    /// What a single token's margin counts at most, in millionths.
    pub clip_ppm: u32,
}

impl TextClaim {
    /// Most seeds of one claim.
    pub const SEEDS_LIMIT: usize = 8;

    /// Tokens of all answers.
    pub fn tokens(&self) -> usize {
        self.answers.iter().map(Vec::len).sum()
    }

    /// Checks the limits that do not need the model.
    ///
    /// # Errors
    /// [`InvalidJob`] of the field `claim`.
    pub(super) fn validate(&self, job: &TextJob) -> Result<(), InvalidJob> {
        let bad = |rule: &str| Err(InvalidJob { field: "claim", rule: rule.into() });
        if self.answers.len() != job.choices as usize {
            return bad("needs the tokens of as many answers as the job has");
        }
        let most = job.max_tokens as usize;
        if self.answers.iter().any(|tokens| tokens.is_empty() || tokens.len() > most) {
            return bad("takes answers of 1 token to `max_tokens`");
        }
        if self.seeds.is_empty() || self.seeds.len() > Self::SEEDS_LIMIT {
            return bad("takes 1 to 8 seeds");
        }
        if self.clip_ppm == 0 || self.clip_ppm > 1_000_000 {
            return bad("takes a `clip_ppm` of 1 to 1000000");
        }
        Ok(())
    }
}

/// What scoring found in one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ClaimScore {
    /// Tokens that were looked at. Fewer than were claimed if the answer was at its end before, or a token
    /// is none of the model's or was forbidden at its place.
    pub tokens: u32,
    /// Whether the answer is at its end with the last claimed token, and not before.
    pub whole: bool,
    /// For each of the claim's seeds.
    pub seeds: Vec<SeedScore>,
}

/// How well an answer fits a seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct SeedScore {
    /// Tokens that the sampler would have chosen.
    pub exact: u32,
    /// By how much the others lose, in millionths: for a drawn token the share of probability between it and
    /// the drawn one, for a greedy one nats; one that a filter excludes loses by the nats it lacks. Each at
    /// most the claim's `clip_ppm`.
    #[ts(type = "number")]
    pub margin_ppm: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelId;
    use crate::job::{ChatMessage, Role};

    fn check(change: impl FnOnce(&mut TextClaim), good: bool) {
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        let mut job = TextJob::new(ModelId::new("m").expect("valid"), messages, 3);
        let mut claim =
            TextClaim { answers: vec![vec![1, 2, 3]], seeds: vec![7], clip_ppm: 250_000 };
        change(&mut claim);
        job.claim = Some(claim);
        let found = job.validate().err().map(|error| error.field);
        assert_eq!(found, (!good).then_some("claim"));
    }

    #[test]
    fn a_claim_is_bounded_by_its_job() {
        check(|_| {}, true);
        check(|claim| claim.answers[0].push(4), false);
        check(|claim| claim.answers.push(vec![1]), false);
        check(|claim| claim.answers[0].clear(), false);
        check(|claim| claim.seeds.clear(), false);
        check(|claim| claim.seeds = vec![0; 9], false);
        check(|claim| claim.clip_ppm = 0, false);
        check(|claim| claim.clip_ppm = 1_000_001, false);
    }
}
