//! How a language model's next token is chosen.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::InvalidJob;

/// How the next token is chosen. Applied in vLLM's order: repetition, frequency and presence
/// penalties, the job's logit bias, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
pub struct SamplingParams {
    /// 0 to 2; below 1e-5 the likeliest token is taken.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps the likeliest so many tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens at least this likely, relative to the likeliest; 0 keeps all.
    #[serde(default)]
    pub min_p: f32,
    /// Divides (or multiplies, below zero) the logits of tokens already in prompt or answer;
    /// 1 changes nothing.
    #[serde(default = "unchanged")]
    pub repetition_penalty: f32,
    /// Taken from a logit for each time its token is in the answer, -2 to 2.
    #[serde(default)]
    pub frequency_penalty: f32,
    /// Taken from a logit if its token is in the answer, -2 to 2.
    #[serde(default)]
    pub presence_penalty: f32,
    /// Makes the answer repeatable. The network sets one when the payer did not.
    #[ts(type = "number")]
    pub seed: u64,
}

fn unchanged() -> f32 {
    1.0
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks the limits of each parameter.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: &str| Err(InvalidJob { field, rule: rule.into() });
        if !(0.0..=2.0).contains(&self.temperature) {
            return bad("temperature", "must be 0 to 2");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("top_p", "must be above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad("min_p", "must be 0 to 1");
        }
        if !(0.01..=2.0).contains(&self.repetition_penalty) {
            return bad("repetition_penalty", "must be 0.01 to 2");
        }
        if !(-2.0..=2.0).contains(&self.frequency_penalty) {
            return bad("frequency_penalty", "must be -2 to 2");
        }
        if !(-2.0..=2.0).contains(&self.presence_penalty) {
            return bad("presence_penalty", "must be -2 to 2");
        }
        Ok(())
    }
}
