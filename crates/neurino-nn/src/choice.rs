//! Choosing tokens where their scores are: on a card, so that a few bytes a row come back instead of
//! half a megabyte.

use burn::tensor::{Device, Tensor};

use crate::NnError;
use crate::device::is_cpu;

/// How the next token of one row is chosen. The fields mean what they mean in a text job.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRule {
    /// Below 1e-5 the likeliest token is taken.
    pub temperature: f32,
    /// Keeps the likeliest tokens that together reach this share; 1 keeps all.
    pub top_p: f32,
    /// Keeps the likeliest so many tokens and their equals; 0 keeps all.
    pub top_k: u32,
    /// Keeps tokens at least this likely, relative to the likeliest.
    pub min_p: f32,
    /// Divides (below zero: multiplies) logits of tokens in prompt or answer.
    pub repetition_penalty: f32,
    /// Taken from a logit for each time its token is in the answer.
    pub frequency_penalty: f32,
    /// Taken from a logit if its token is in the answer.
    pub presence_penalty: f32,
    /// Tokens whose logits are changed; none twice.
    pub changes: Vec<TokenChange>,
    /// The random number, from 0 up to, not including, 1.
    pub uniform: f64,
}

/// A token whose logit is changed before the choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenChange {
    /// The token.
    pub token: u32,
    /// How often it is in the answer; `None` if it is in neither prompt nor answer.
    pub seen: Option<u32>,
    /// Added after the penalties.
    pub bias: f32,
}

/// A token that a device chose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChosenToken {
    /// The token.
    pub token: u32,
    /// Its log-probability as the model gave it, at most 0.
    pub logprob: f32,
}

impl TokenRule {
    /// The likeliest token.
    pub const LIKELIEST: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        changes: Vec::new(),
        uniform: 0.0,
    };
}

/// Whether tensors of `device` can be chosen from by [`choose`].
pub fn chooses(device: &Device) -> bool {
    cfg!(feature = "kernels") && !is_cpu(device)
}

/// Chooses a token for each row of `logits` by its rule, and waits for them. `None` for a row whose
/// logits are no numbers or have no finite maximum. A row's choice depends on that row alone.
///
/// # Shapes
/// - `logits`: `[rows, vocabulary]`, f32, of a device that [`chooses`]; one rule a row
///
/// # Errors
/// `Device`, also where there is no kernel.
#[cfg(feature = "kernels")]
pub fn choose(
    logits: &Tensor<2>,
    rules: &[TokenRule],
) -> Result<Vec<Option<ChosenToken>>, NnError> {
    use neurino_kernels::sample::{Entry, Params};
    use neurino_kernels::tensor::choice::{Rule, choose};

    let rule = |rule: &TokenRule| Rule {
        params: Params {
            temperature: rule.temperature,
            top_p: rule.top_p,
            top_k: rule.top_k,
            min_p: rule.min_p,
            repetition_penalty: rule.repetition_penalty,
            frequency_penalty: rule.frequency_penalty,
            presence_penalty: rule.presence_penalty,
        },
        entries: (rule.changes.iter())
            .map(|&TokenChange { token, seen, bias }| Entry { token, seen, bias })
            .collect(),
        uniform: rule.uniform,
    };
    let rules: Vec<Rule> = rules.iter().map(rule).collect();
    let failed = |reason| NnError::Device { reason };
    let choices = choose(logits, &rules).map_err(|error| failed(error.to_string()))?;
    let found = choices.read().map_err(failed)?;
    let token = |(token, logprob)| ChosenToken { token, logprob };
    Ok(found.into_iter().map(|choice| choice.map(token)).collect())
}

/// As with the kernels of cards, which this build has not.
///
/// # Errors
/// `Device`, always.
#[cfg(not(feature = "kernels"))]
pub fn choose(
    _logits: &Tensor<2>,
    _rules: &[TokenRule],
) -> Result<Vec<Option<ChosenToken>>, NnError> {
    Err(NnError::Device { reason: "this build has no kernels of cards".into() })
}
