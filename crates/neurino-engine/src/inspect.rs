//! What a model's files say about it, before it is loaded.

use std::path::Path;

use neurino_core::ImageDefaults;
use neurino_llm::checkpoint::Precision;
use neurino_llm::source::ModelSource;
use neurino_llm::tokenizer::Tokenizer;
use neurino_nn::paged::BLOCK_TOKENS;

use crate::api::{EngineError, EngineErrorCode};
use crate::fault::chain;

/// A context that every conversation needs room for, in tokens.
const CONTEXT_MIN_TOKENS: usize = 2048;

/// Facts about a model's files.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// The architecture, as the files name it.
    pub arch: String,
    /// How most weights are stored, for example `bf16` or `gptq-4bit`.
    pub storage: String,
    /// Longest sequence, prompt and answer together, in tokens; 0 for an image model.
    pub context_tokens: u32,
    /// What suits it, if it makes pictures.
    pub image: Option<ImageDefaults>,
    /// Memory it takes with 4-bit weights and room for one conversation, in bytes: what a device
    /// needs at least.
    pub memory_bytes_min: u64,
}

/// Reads the metadata of `path`, a GGUF file or a model folder, and its tokenizer.
///
/// # Errors
/// `ModelUnreadable` if it is none that could be loaded, with what it is instead.
pub fn inspect(path: &Path) -> Result<ModelFacts, EngineError> {
    let unreadable = |error: &dyn std::error::Error| {
        EngineError::new(EngineErrorCode::ModelUnreadable, chain(error))
    };
    let source = ModelSource::open(path).map_err(|e| unreadable(&e))?;
    Tokenizer::open(&source.tokenizer, &source.eos).map_err(|e| unreadable(&e))?;
    let context_tokens = source.config.max_position_embeddings;
    let (packed, small) = (source.memory(Precision::Packed), source.memory(Precision::FourBit));
    let blocks = context_tokens.min(CONTEXT_MIN_TOKENS).div_ceil(BLOCK_TOKENS) as u64;
    let weights_bytes = packed.weights_bytes().min(small.weights_bytes());
    Ok(ModelFacts {
        arch: source.arch.name().to_owned(),
        storage: source.storage(),
        context_tokens: u32::try_from(context_tokens).unwrap_or(u32::MAX),
        image: None,
        memory_bytes_min: weights_bytes + blocks * small.block_bytes(),
    })
}
