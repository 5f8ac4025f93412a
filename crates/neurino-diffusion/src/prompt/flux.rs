//! Flux reads a prompt twice: T5 gives the states of its words, CLIP one vector of the whole.

use burn::tensor::Tensor;
use neurino_llm::Tokenizer;

use crate::DiffusionError;
use crate::clip::{ClipTextEncoder, ClipTokenizer};
use crate::t5::{self, T5Encoder};

/// Tokens that CLIP reads.
const CLIP_TOKENS: usize = 77;
/// Tokens that T5 reads.
const T5_TOKENS: usize = 512;

/// A prompt in tokens. Brackets have no meaning here, and what is longer is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluxPrompt {
    /// 77 tokens.
    pub clip_ids: Vec<u32>,
    /// 512 tokens.
    pub t5_ids: Vec<u32>,
}

/// What Flux's transformer is told about a picture.
#[derive(Debug, Clone)]
pub struct FluxEmbeddings {
    /// T5's states: `[1, 512, width]`.
    pub states: Tensor<3>,
    /// CLIP's pooled vector: `[1, width]`.
    pub pooled: Tensor<2>,
}

impl FluxPrompt {
    /// Reads a prompt.
    ///
    /// # Errors
    /// `Tokenizer` if the text cannot be split into tokens.
    pub fn new(clip: &ClipTokenizer, t5: &Tokenizer, prompt: &str) -> Result<Self, DiffusionError> {
        let clip_ids = clip.sequence(prompt, CLIP_TOKENS)?;
        Ok(Self { clip_ids, t5_ids: t5::sequence(t5, prompt, T5_TOKENS)? })
    }

    /// Encodes the prompt.
    ///
    /// # Errors
    /// `Tokenizer` if tokenizers and encoders do not fit together.
    pub fn embed(
        &self,
        clip: &ClipTextEncoder,
        t5: &T5Encoder,
    ) -> Result<FluxEmbeddings, DiffusionError> {
        let pooled = clip.encode(std::slice::from_ref(&self.clip_ids))?.pooled;
        Ok(FluxEmbeddings { states: t5.encode(&self.t5_ids)?, pooled })
    }
}
