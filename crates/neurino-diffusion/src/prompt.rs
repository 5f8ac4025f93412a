//! Prompts as the reference's pipelines read them: weights in brackets, texts longer than the encoder, and
//! what the networks get of it.
//!
//! A prompt is read ([`parse`]), every fragment is turned into tokens on its own, the tokens are put
//! into chunks that fit the encoder ([`Sd15Prompt`], [`SdxlPrompt`]), and the states of the chunks are
//! weighted. Flux has neither weights nor chunks ([`FluxPrompt`]).

use crate::DiffusionError;
use crate::clip::ClipTokenizer;

mod flux;
mod sd15;
mod sdxl;
mod syntax;

pub use flux::{FluxEmbeddings, FluxPrompt};
pub use sd15::Sd15Prompt;
pub use sdxl::{SdxlEmbeddings, SdxlPrompt};
pub use syntax::{Fragment, Syntax, parse};

/// Tokens of a chunk between its begin and end tokens.
const CHUNK_TOKENS: usize = 75;

/// A sequence for the encoder, with the weight of each token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    /// Begin token, text, end token.
    pub ids: Vec<u32>,
    /// As many; 1 for what is no text.
    pub weights: Vec<f64>,
}

impl Chunk {
    /// Adds a token.
    fn push(&mut self, id: u32, weight: f64) {
        self.ids.push(id);
        self.weights.push(weight);
    }

    /// Tokens of several, with those at their ends.
    pub(crate) fn tokens(chunks: &[Self]) -> usize {
        chunks.iter().map(|chunk| chunk.ids.len()).sum()
    }

    /// Cuts tokens into chunks with begin and end; without tokens there is none.
    fn cut(&self, tokenizer: &ClipTokenizer) -> Vec<Self> {
        let ids = self.ids.chunks(CHUNK_TOKENS);
        ids.zip(self.weights.chunks(CHUNK_TOKENS))
            .map(|(ids, weights)| {
                let mut chunk = Self::default();
                chunk.push(tokenizer.bos(), 1.0);
                chunk.ids.extend_from_slice(ids);
                chunk.weights.extend_from_slice(weights);
                chunk.push(tokenizer.eos(), 1.0);
                chunk
            })
            .collect()
    }

    /// Fills up to `length` tokens of weight 1.
    fn fill(&mut self, id: u32, length: usize) {
        self.ids.resize(length, id);
        self.weights.resize(length, 1.0);
    }
}

/// The tokens of a prompt with their weights, at most `limit`.
fn weighted_tokens(
    tokenizer: &ClipTokenizer,
    prompt: &str,
    syntax: Syntax,
    limit: usize,
) -> Result<Chunk, DiffusionError> {
    let mut all = Chunk::default();
    for Fragment { text, weight } in parse(prompt, syntax) {
        for id in tokenizer.tokens(&text)? {
            all.push(id, weight);
        }
        if all.ids.len() > limit {
            break;
        }
    }
    all.ids.truncate(limit);
    all.weights.truncate(limit);
    Ok(all)
}

/// A weight of at most `most` either way: what is beyond would be no number later on.
fn bounded(weight: f64, most: f64) -> f64 {
    if weight.is_nan() { 1.0 } else { weight.clamp(-most, most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference puts them into numbers of few bits when it uses them, not when it reads them.
    #[test]
    fn weights_are_kept_as_they_are_written() {
        let tokenizer = ClipTokenizer::standard();
        let prompt = "(cat:100000) (dog:-3)";
        let of_sd15 = Sd15Prompt::new(&tokenizer, prompt, None).expect("tokens").prompt;
        let of_sdxl = SdxlPrompt::new([&tokenizer; 2], prompt, "").expect("tokens").first;
        for chunk in [&of_sd15[0], &of_sdxl[0][0]] {
            assert_eq!(chunk.weights[1..3], [100_000.0, -3.0]);
        }
    }

    #[test]
    fn weights_are_bounded_where_they_are_used() {
        let most = 65_504.0;
        let found = [1e5, -1e300, f64::NAN, 1.5, f64::INFINITY].map(|weight| bounded(weight, most));
        assert_eq!(found[..], [most, -most, 1.0, 1.5, most]);
    }
}
