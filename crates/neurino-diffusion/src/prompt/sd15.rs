//! The long-prompt rules of Stable Diffusion 1.5's pipeline.

use burn::tensor::Tensor;
use neurino_nn::device::{download, upload};

use super::{CHUNK_TOKENS, Chunk, Syntax, bounded, weighted_tokens};
use crate::DiffusionError;
use crate::clip::{ClipTextEncoder, ClipTokenizer};

/// The most that a weight counts: states times it are far from the end of f32.
const WEIGHT_MAX: f64 = 1e30;
/// Chunks of a prompt; what is longer is dropped.
const CHUNKS_MAX: usize = 3;

/// A prompt, with a negative one if the picture is guided, in as many chunks of 77 tokens each.
#[derive(Debug, Clone, PartialEq)]
pub struct Sd15Prompt {
    /// What is to be seen.
    pub prompt: Vec<Chunk>,
    /// What is not to be seen.
    pub negative: Option<Vec<Chunk>>,
}

impl Sd15Prompt {
    /// Reads a prompt and, for a guided picture, a negative prompt.
    ///
    /// # Errors
    /// `Tokenizer` if a text cannot be split into tokens.
    pub fn new(
        tokenizer: &ClipTokenizer,
        prompt: &str,
        negative: Option<&str>,
    ) -> Result<Self, DiffusionError> {
        let read =
            |text: &str| weighted_tokens(tokenizer, text, Syntax::Sd15, CHUNKS_MAX * CHUNK_TOKENS);
        let mut prompt = read(prompt)?;
        let mut negative = negative.map(read).transpose()?;
        let longest = prompt.ids.len().max(negative.as_ref().map_or(0, |side| side.ids.len()));
        let length = longest.div_ceil(CHUNK_TOKENS).max(1) * CHUNK_TOKENS;
        for side in [Some(&mut prompt), negative.as_mut()].into_iter().flatten() {
            side.fill(tokenizer.pad(), length);
        }
        let negative = negative.map(|side| side.cut(tokenizer));
        Ok(Self { prompt: prompt.cut(tokenizer), negative })
    }

    /// The last states of all chunks one after the other, times their weights, rescaled so that the
    /// mean over a prompt stays: `[1, tokens, width]`, or `[2, ..]` with the negative prompt first.
    ///
    /// # Errors
    /// `Tokenizer` if tokenizer and encoder do not fit together; `Nn` if the device failed.
    pub fn embed(&self, encoder: &ClipTextEncoder) -> Result<Tensor<3>, DiffusionError> {
        let sides: Vec<&[Chunk]> =
            self.negative.iter().chain([&self.prompt]).map(|c| &**c).collect();
        let chunks = || sides.iter().copied().flatten();
        let ids: Vec<Vec<u32>> = chunks().map(|chunk| chunk.ids.clone()).collect();
        let weights = chunks().flat_map(|chunk| &chunk.weights);
        let weights: Vec<f32> = weights.map(|weight| bounded(*weight, WEIGHT_MAX) as f32).collect();
        let hidden = encoder.encode(&ids)?.last_hidden;
        let width = encoder.config().width;
        let (device, tokens) = (hidden.device(), weights.len() / sides.len());
        let mut hidden = download(hidden)?;
        let by_side = hidden.chunks_exact_mut(tokens * width).zip(weights.chunks_exact(tokens));
        by_side.for_each(|(hidden, weights)| weigh(hidden, weights, width));
        Ok(upload(hidden, [sides.len(), tokens, width], &device))
    }
}

/// Multiplies each token's states and restores the mean.
fn weigh(hidden: &mut [f32], weights: &[f32], width: usize) {
    let sum = |values: &[f32]| values.iter().map(|x| f64::from(*x)).sum::<f64>();
    let before = sum(hidden);
    for (state, weight) in hidden.chunks_exact_mut(width).zip(weights) {
        for x in state {
            *x *= weight;
        }
    }
    let ratio = (before / sum(hidden)) as f32;
    // Weights may cancel out, and then there is no mean to restore.
    if ratio.is_finite() {
        for x in hidden {
            *x *= ratio;
        }
    }
}
