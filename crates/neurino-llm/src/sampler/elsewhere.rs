//! Choices that a device makes by a sampler's rules, where the scores already are.

use std::collections::HashMap;

use neurino_nn::choice::{ChosenToken, TokenChange, TokenRule};

use super::{Draw, Rating, Sampler};

impl Sampler {
    /// How a device has to choose the next token; [`Sampler::accept`] takes what it chose. `None`
    /// if that needs a whole row of scores here, for the log-probabilities of rivals. Whether it does
    /// is the job's alone, so that no answer changes its ways in company.
    pub fn rule(&self) -> Option<TokenRule> {
        if self.rivals.is_some_and(|rivals| rivals > 0) {
            return None;
        }
        let params = &self.params;
        Some(TokenRule {
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            changes: self.changes(),
            uniform: self.share(),
        })
    }

    /// Takes in the token that a device chose by [`Sampler::rule`].
    pub fn accept(&mut self, chosen: ChosenToken) -> Draw {
        let ChosenToken { token, logprob } = chosen;
        self.note(token);
        let rating = self.rivals.map(|_| Rating { logprob, top: Vec::new() });
        Draw { token, rating }
    }

    /// Each token that penalties or bias concern, once.
    fn changes(&self) -> Vec<TokenChange> {
        let mut biases: HashMap<u32, f32> = HashMap::new();
        for &(token, bias) in &self.bias {
            *biases.entry(token).or_default() += bias;
        }
        let seen = self.seen.iter().flatten().map(|(&token, &count)| (token, count));
        let mut changes: Vec<TokenChange> = seen
            .map(|(token, count)| {
                let bias = biases.remove(&token).unwrap_or_default();
                TokenChange { token, seen: Some(count), bias }
            })
            .collect();
        let rest = biases.into_iter();
        changes.extend(rest.map(|(token, bias)| TokenChange { token, seen: None, bias }));
        changes
    }
}
