//! A loaded language model: tokens in, scores of the next token out.

use burn::tensor::{Device, Tensor};
use neurino_nn::KvCache;
use neurino_nn::device::{download, run_near};

use crate::LlmError;
use crate::checkpoint::Precision;
use crate::models::llama::{Llama, last_row};
use crate::source::{ModelArch, ModelSource};

/// The most tokens that one pass through the layers takes. A longer prompt goes through in pieces,
/// so that memory is bounded and a caller that feeds the pieces itself can stop between them.
pub const PREFILL_CHUNK_TOKENS: usize = 256;

/// A model of any supported architecture, with its weights on a device.
#[derive(Debug)]
pub enum LanguageModel {
    /// Llama and models built like it.
    Llama(Box<Llama>),
}

/// All that a pass computed, for parity tests.
#[derive(Debug)]
pub struct Trace {
    /// The embeddings, then the output of each layer (the last after the final norm), each
    /// `[seq, hidden_size]`.
    pub hidden: Vec<Vec<f32>>,
    /// `[seq, vocab_size]`
    pub logits: Vec<f32>,
}

impl LanguageModel {
    /// Loads the weights onto `device` in the precision that suits it. `progress` gets
    /// `(done, total)` bytes after each tensor.
    ///
    /// # Errors
    /// `Weights` for a tensor that is absent, of another shape or in an unknown format.
    pub fn load(
        source: &ModelSource,
        device: &Device,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, LlmError> {
        Self::load_as(source, device, Precision::for_device(device), progress)
    }

    /// As [`LanguageModel::load`], with a chosen precision.
    ///
    /// # Errors
    /// As [`LanguageModel::load`].
    pub fn load_as(
        source: &ModelSource,
        device: &Device,
        precision: Precision,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, LlmError> {
        match source.arch {
            ModelArch::Llama => {
                let (config, checkpoint) = (&source.config, &source.checkpoint);
                let model = Llama::load(config, checkpoint, device, precision, progress)?;
                Ok(Self::Llama(Box::new(model)))
            }
        }
    }

    /// Tokens of context the model was made for.
    pub fn context_tokens(&self) -> usize {
        match self {
            Self::Llama(model) => model.config().max_position_embeddings,
        }
    }

    /// Tokens the model knows.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(model) => model.config().vocab_size,
        }
    }

    /// Memory of the weights.
    pub fn weights_bytes(&self) -> u64 {
        match self {
            Self::Llama(model) => model.weights_bytes(),
        }
    }

    /// Bytes of weights that one generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        match self {
            Self::Llama(model) => model.bytes_per_token(),
        }
    }

    /// An empty cache for a sequence of at most `capacity_tokens`, or of the model's context if
    /// that is less.
    pub fn new_cache(&self, capacity_tokens: usize) -> KvCache {
        let capacity = capacity_tokens.min(self.context_tokens());
        match self {
            Self::Llama(model) => model.new_cache(capacity),
        }
    }

    /// Adds `tokens` to the sequence in `cache` and returns the scores of the token after the last,
    /// one for each of [`LanguageModel::vocab_size`]. Prompt and single tokens alike; more than
    /// [`PREFILL_CHUNK_TOKENS`] go through in pieces.
    ///
    /// # Errors
    /// `NoTokens`, `TokenOutOfRange`; `Nn` if the cache is full or the device fails.
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>, LlmError> {
        cache.check_room(tokens.len())?;
        run_near(self.device(), || {
            let hidden = self.pass(tokens, cache)?;
            Ok(download(self.head(last_row(hidden)))?)
        })
    }

    /// Adds `tokens` to the sequence without computing scores: for all pieces of a prompt but the
    /// last.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    pub fn prefill(&self, tokens: &[u32], cache: &mut KvCache) -> Result<(), LlmError> {
        cache.check_room(tokens.len())?;
        run_near(self.device(), || self.pass(tokens, cache).map(drop))
    }

    /// One pass that keeps everything.
    ///
    /// # Errors
    /// As [`LanguageModel::forward`].
    pub fn trace(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Trace, LlmError> {
        let Self::Llama(model) = self;
        let mut states = Vec::new();
        let last = model.hidden_states(tokens, cache, |x| states.push(x.clone()))?;
        let hidden = states.into_iter().map(download).collect::<Result<_, _>>()?;
        Ok(Trace { hidden, logits: download(self.head(last))? })
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        match self {
            Self::Llama(model) => model.device(),
        }
    }

    /// The last piece's hidden states.
    fn pass(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Tensor<2>, LlmError> {
        let Self::Llama(model) = self;
        let mut hidden = None;
        for piece in tokens.chunks(PREFILL_CHUNK_TOKENS) {
            hidden = Some(model.hidden_states(piece, cache, |_| ())?);
        }
        hidden.ok_or(LlmError::NoTokens)
    }

    fn head(&self, hidden: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Llama(model) => model.logits(hidden),
        }
    }
}
