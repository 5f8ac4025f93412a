//! What a sampler draws from, spelled out: for comparison with a reference.

use neurino_core::SamplingParams;

use super::{Field, Sampler, Scratch, scores};

impl Sampler {
    /// A sampler for plain parameters that has seen a prompt and chosen these tokens.
    pub fn after(params: SamplingParams, prompt: &[u32], output: &[u32]) -> Self {
        let mut sampler = Self::new(params);
        sampler.see(prompt);
        if let Some(seen) = &mut sampler.seen {
            for &token in output {
                *seen.entry(token).or_default() += 1;
            }
        }
        sampler.position = output.len() as u32;
        sampler
    }

    /// The probability with which [`Sampler::draw`] would choose each token. The logits are changed
    /// in place. `None` where `draw` gives none.
    pub fn probabilities(&self, logits: &mut [f32]) -> Option<Vec<f64>> {
        scores::highest(logits)?;
        self.adjust(logits);
        let highest = scores::highest(logits)?;
        let mut scratch = Scratch::default();
        let mut weights = vec![0.0; logits.len()];
        match self.filter(logits, highest, &mut scratch) {
            Field::One(token) => weights[token as usize] = 1.0,
            Field::All => {
                for (weight, value) in weights.iter_mut().zip(&scratch.values) {
                    *weight = f64::from(*value);
                }
            }
            Field::Some => {
                for candidate in &scratch.kept {
                    weights[candidate.id as usize] = f64::from(candidate.weight);
                }
            }
        }
        let sum: f64 = weights.iter().sum();
        Some(weights.into_iter().map(|weight| weight / sum).collect())
    }
}
