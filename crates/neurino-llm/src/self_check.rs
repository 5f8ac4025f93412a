//! A device's choices, held to the host's sampler while a model is being loaded: what has never run on
//! a kind of card must prove itself there before anybody is served with it.

use std::fmt;

use neurino_core::SamplingParams;
use neurino_nn::PagedKvCache;
use neurino_nn::choice::ChosenToken;
use neurino_nn::paged::{BatchLayout, SequenceSpan};

use crate::LlmError;
use crate::model::{LanguageModel, Wanted};
use crate::sampler::Sampler;

/// Blocks of the cache that [`choices`] writes into.
pub const BLOCKS: usize = 4;
/// How far, in probability, a random number may lie outside of its token: sums are rounded
/// differently here and there.
const SHARE_TOLERANCE: f64 = 1e-4;
/// How far log-probabilities may lie apart.
const LOGPROB_TOLERANCE: f64 = 1e-3;

/// A choice of the device that the host would not have made.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviation {
    /// How the token was to be chosen.
    pub params: SamplingParams,
    /// What the device said.
    pub found: Option<ChosenToken>,
    /// What is wrong with it.
    pub fault: &'static str,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device chose {:?}, {}, for {:?}", self.found, self.fault, self.params)
    }
}

/// Lets the device choose from scores of `model` by rules of every kind, and looks at each choice.
/// Overwrites the first [`BLOCKS`] blocks of `cache`. `Ok(None)` if all are right, or if the device
/// does not choose at all.
///
/// # Errors
/// Those of [`LanguageModel::step`].
pub fn choices(
    model: &LanguageModel,
    cache: &mut PagedKvCache,
) -> Result<Option<Deviation>, LlmError> {
    if !model.chooses() {
        return Ok(None);
    }
    let vocabulary = model.vocab_size();
    let tokens: Vec<u32> = (0..BLOCKS).map(|row| (row * vocabulary / BLOCKS) as u32).collect();
    let span = |row| SequenceSpan { rows: 1, start: 0, blocks: vec![row as u32] };
    let batch = BatchLayout { sequences: (0..BLOCKS).map(span).collect() };
    let rows: Vec<usize> = (0..BLOCKS).collect();
    for (number, params) in parameters().into_iter().enumerate() {
        // Of prompt and answer, some tokens twice.
        let (prompt, output) = (&tokens[..2], [tokens[1], tokens[2], tokens[1]]);
        let samplers: Vec<Sampler> = (0..BLOCKS)
            .map(|row| {
                let seed = (number * BLOCKS + row) as u64;
                Sampler::after(SamplingParams { seed, ..params }, prompt, &output[..row.min(3)])
            })
            .collect();
        let ruled = samplers.iter().enumerate();
        let mut asked: Vec<_> = ruled.filter_map(|(row, s)| Some((row, s.rule()?))).collect();
        // Answers that share a prompt choose from one row.
        let shared = number % 2 == 1;
        if shared {
            for (row, _) in &mut asked {
                *row /= 2;
            }
        }
        let wanted = Wanted { rows: &rows, scores: &rows, choices: &asked };
        let mut found = model.step_drawing(&tokens, &batch, &wanted, cache)?;
        let scores: Vec<Vec<f32>> = found.logits.rows_mut().map(|row| row.to_vec()).collect();
        for ((sampler, (row, rule)), token) in samplers.iter().zip(&asked).zip(found.tokens) {
            if let Some(fault) = fault(sampler, &scores[*row], token, rule.uniform) {
                return Ok(Some(Deviation { params, found: token, fault }));
            }
        }
    }
    Ok(None)
}

/// Parameters that reach every part of a sampler.
fn parameters() -> Vec<SamplingParams> {
    let plain = SamplingParams::default();
    let greedy = SamplingParams { temperature: 0.0, ..plain };
    let penalised = SamplingParams {
        repetition_penalty: 1.3,
        frequency_penalty: 0.7,
        presence_penalty: -0.4,
        ..plain
    };
    vec![
        greedy,
        SamplingParams { temperature: 0.0, ..penalised },
        plain,
        SamplingParams { temperature: 0.6, ..plain },
        SamplingParams { top_k: 1, ..plain },
        SamplingParams { top_k: 40, temperature: 1.7, ..plain },
        SamplingParams { top_p: 0.9, ..plain },
        SamplingParams { top_p: 0.05, ..penalised },
        SamplingParams { min_p: 0.1, ..plain },
        SamplingParams { top_k: 300, top_p: 0.8, min_p: 0.02, temperature: 0.8, ..penalised },
    ]
}

/// What is wrong with a choice, if anything is.
fn fault(
    sampler: &Sampler,
    scores: &[f32],
    found: Option<ChosenToken>,
    uniform: f64,
) -> Option<&'static str> {
    let Some(probabilities) = sampler.probabilities(&mut scores.to_vec()) else {
        return found.is_some().then_some("from scores that are no numbers");
    };
    let Some(ChosenToken { token, logprob }) = found else {
        return Some("nothing from scores that are numbers");
    };
    let token = token as usize;
    let Some(&own) = probabilities.get(token) else { return Some("which is no token") };
    let before: f64 = probabilities[..token].iter().sum();
    if uniform < before - SHARE_TOLERANCE || uniform > before + own + SHARE_TOLERANCE {
        return Some("which its random number does not fall on");
    }
    // A token that filters cut is wrong even where little is missing; one at a limit may be kept by
    // one sum and cut by the other.
    if own == 0.0 && sampler.rule().is_some_and(|rule| rule.temperature == 0.0) {
        return Some("which is not the likeliest");
    }
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|score| f64::from(score - highest).exp()).sum();
    let expected = f64::from(scores[token] - highest) - sum.ln();
    let apart = (f64::from(logprob) - expected).abs();
    (apart.is_nan() || apart > LOGPROB_TOLERANCE).then_some("with another log-probability")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Vec<f32> {
        (0..50).map(|token| (token * 7 % 50) as f32 * 0.1).collect()
    }

    fn logprob(token: u32) -> f32 {
        let sum: f32 = scores().iter().map(|score| score.exp()).sum();
        scores()[token as usize] - sum.ln()
    }

    fn check(params: SamplingParams, token: u32, logprob: f32) -> Option<&'static str> {
        let sampler = Sampler::new(params);
        let uniform = sampler.rule().map_or(0.0, |rule| rule.uniform);
        fault(&sampler, &scores(), Some(ChosenToken { token, logprob }), uniform)
    }

    #[test]
    fn only_what_the_host_would_choose_passes() {
        for params in parameters() {
            let drawn = Sampler::new(params).draw(
                &mut scores(),
                None,
                &mut crate::sampler::Scratch::default(),
            );
            let right = drawn.map_or(u32::MAX, |draw| draw.token);
            let passing: Vec<u32> =
                (0..50).filter(|&token| check(params, token, logprob(token)).is_none()).collect();
            assert_eq!(passing, [right], "{params:?}");
            assert!(check(params, right, logprob(right) + 0.01).is_some());
            assert!(check(params, 50, 0.0).is_some());
        }
        let sampler = Sampler::new(SamplingParams::default());
        assert!(fault(&sampler, &scores(), None, 0.5).is_some());
        assert!(fault(&sampler, &[f32::NAN, 0.0], None, 0.5).is_none());
    }
}
