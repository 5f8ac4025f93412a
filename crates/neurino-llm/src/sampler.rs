//! Chooses the next token from its logits, in vLLM's order: temperature, top-k, top-p.
//!
//! A choice is a function of the logits, the parameters and the position alone, so that the same
//! job gives the same answer wherever its steps are computed.

use neurino_core::SamplingParams;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Temperatures below this mean the likeliest token.
const GREEDY_BELOW: f32 = 1e-5;

/// Chooses tokens by one job's parameters.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
}

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability.
    pub probability: f64,
}

impl Sampler {
    /// A sampler for these parameters.
    pub fn new(params: SamplingParams) -> Self {
        Self { params }
    }

    /// The token at a position of the answer, counted from 0. `None` when no logit is a number, or
    /// one is not: a broken model must not look like an answer.
    pub fn pick(&self, logits: &[f32], position: u64) -> Option<u32> {
        let candidates = self.candidates(logits)?;
        let mut random = ChaCha8Rng::seed_from_u64(self.params.seed);
        random.set_stream(position);
        let mut left = random.random::<f64>();
        for candidate in &candidates {
            left -= candidate.probability;
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        // Rounding left the probabilities a hair below one.
        candidates.last().map(|c| c.id)
    }

    /// The tokens that may be chosen, by rising id, with probabilities that sum to one.
    pub fn candidates(&self, logits: &[f32]) -> Option<Vec<Candidate>> {
        let highest = highest(logits)?;
        if self.params.temperature < GREEDY_BELOW {
            return Some(vec![Candidate { id: highest.0, probability: 1.0 }]);
        }
        let temperature = f64::from(self.params.temperature);
        let least = self.least_of_top_k(logits);
        let mut kept: Vec<Candidate> = (0..)
            .zip(logits)
            .filter(|(_, logit)| **logit >= least && **logit > f32::NEG_INFINITY)
            .map(|(id, &logit)| {
                let distance = f64::from(logit) - f64::from(highest.1);
                Candidate { id, probability: (distance / temperature).exp() }
            })
            .collect();
        normalise(&mut kept);
        if self.params.top_p < 1.0 {
            top_p(&mut kept, f64::from(self.params.top_p));
            normalise(&mut kept);
        }
        Some(kept)
    }

    /// The lowest logit that top-k keeps; equal ones stay together.
    fn least_of_top_k(&self, logits: &[f32]) -> f32 {
        let k = self.params.top_k as usize;
        if k == 0 || k >= logits.len() {
            return f32::NEG_INFINITY;
        }
        let mut sorted = logits.to_vec();
        *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
    }
}

/// The first of the highest logits.
fn highest(logits: &[f32]) -> Option<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, value)| logit > value) {
            best = Some((id, logit));
        }
    }
    best.filter(|(_, value)| value.is_finite())
}

fn normalise(candidates: &mut [Candidate]) {
    let sum: f64 = candidates.iter().map(|c| c.probability).sum();
    for candidate in candidates {
        candidate.probability /= sum;
    }
}

/// Cuts the least likely tokens as long as all that is cut sums to at most `1 - p`.
fn top_p(candidates: &mut Vec<Candidate>, p: f64) {
    let cut = 1.0 - p;
    // What is this unlikely is cut whatever the order, which spares sorting the long tail.
    let negligible = cut / candidates.len() as f64;
    let mut sum = 0.0;
    candidates.retain(|c| {
        let keep = c.probability > negligible;
        sum += if keep { 0.0 } else { c.probability };
        keep
    });
    candidates
        .sort_unstable_by(|a, b| a.probability.total_cmp(&b.probability).then(b.id.cmp(&a.id)));
    let last = candidates.len().saturating_sub(1);
    let first_kept = candidates[..last]
        .iter()
        .position(|c| {
            sum += c.probability;
            sum > cut
        })
        .unwrap_or(last);
    candidates.drain(..first_kept);
    candidates.sort_unstable_by_key(|c| c.id);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use safetensors::SafeTensors;
    use serde_json::Value;

    use super::*;

    const CASES: &str = include_str!("../../../tests/fixtures/llm/sampling.json");
    const TENSORS: &[u8] = include_bytes!("../../../tests/fixtures/llm/sampling.safetensors");

    fn params(temperature: f32, top_k: u32, top_p: f32) -> SamplingParams {
        SamplingParams { temperature, top_p, top_k, seed: 7 }
    }

    fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let bytes = tensors.tensor(name).unwrap().data();
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn distributions_agree_with_the_reference() {
        let tensors = SafeTensors::deserialize(TENSORS).unwrap();
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        let ours = ["case", "prompt", "output", "temperature", "top_k", "top_p"];
        let mut compared = 0;
        for case in &cases {
            // Penalties and min-p are not part of a text job.
            if !case.as_object().unwrap().keys().all(|k| ours.contains(&k.as_str())) {
                continue;
            }
            let number = |key: &str, default: f64| case[key].as_f64().unwrap_or(default);
            let sampler = Sampler::new(params(
                number("temperature", 1.0) as f32,
                number("top_k", 0.0) as u32,
                number("top_p", 1.0) as f32,
            ));
            let index = case["case"].as_u64().unwrap();
            let logits = floats(&tensors, &format!("case{index}.logits"));
            let expected = floats(&tensors, &format!("case{index}.probabilities"));
            let mut found = vec![0.0; expected.len()];
            for candidate in sampler.candidates(&logits).unwrap() {
                found[candidate.id as usize] = candidate.probability as f32;
            }
            for (id, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() < 1e-6, "case {index}, token {id}: {a} instead of {b}");
                assert_eq!(*a == 0.0, *b == 0.0, "case {index}, token {id}");
            }
            compared += 1;
        }
        assert_eq!(compared, 6);
    }

    #[test]
    fn choices_follow_the_distribution_and_repeat() {
        let logits = [0.0, 1.0, f32::NEG_INFINITY, 2.0];
        let sampler = Sampler::new(params(1.0, 0, 1.0));
        let mut counts = [0_u32; 4];
        for position in 0..20_000 {
            let id = sampler.pick(&logits, position).unwrap();
            assert_eq!(sampler.pick(&logits, position), Some(id));
            counts[id as usize] += 1;
        }
        for candidate in sampler.candidates(&logits).unwrap() {
            let share = f64::from(counts[candidate.id as usize]) / 20_000.0;
            assert!((share - candidate.probability).abs() < 0.015, "{candidate:?}: {share}");
        }
        assert_eq!(counts[2], 0);
        let other = Sampler::new(SamplingParams { seed: 8, ..params(1.0, 0, 1.0) });
        assert!((0..64).any(|n| other.pick(&logits, n) != sampler.pick(&logits, n)));
    }

    #[test]
    fn a_long_flat_tail_is_cut_as_by_a_full_sort() {
        let logits: Vec<f32> = (0_u16..5000).map(|n| f32::from(n % 97) * 0.05).collect();
        let kept = Sampler::new(params(0.8, 0, 0.4)).candidates(&logits).unwrap();
        let all = Sampler::new(params(0.8, 0, 1.0)).candidates(&logits).unwrap();
        let least = kept.iter().map(|c| c.id).map(|id| logits[id as usize]).reduce(f32::min);
        let mass: f64 = kept.iter().map(|c| all[c.id as usize].probability).sum();
        let smallest = all[0].probability * f64::from(least.unwrap() / 0.8).exp();
        assert!(mass >= 0.4 && mass - smallest < 0.4, "{mass}");
    }

    #[test]
    fn broken_logits_are_no_answer() {
        let sampler = Sampler::new(params(0.0, 0, 1.0));
        assert_eq!(sampler.pick(&[], 0), None);
        assert_eq!(sampler.pick(&[0.0, f32::NAN], 0), None);
        assert_eq!(sampler.pick(&[f32::NEG_INFINITY], 0), None);
        assert_eq!(sampler.pick(&[f32::INFINITY, 0.0], 0), None);
        assert_eq!(sampler.pick(&[1.0, 3.0, 3.0], 0), Some(1));
    }
}
