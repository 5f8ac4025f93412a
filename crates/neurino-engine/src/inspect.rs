//! What a model's files say about it, before it is loaded.

use std::path::Path;

use neurino_core::{ImageDefaults, ImageJob};
use neurino_diffusion::ImageSource;
use neurino_diffusion::checkpoint::Precision as ImagePrecision;
use neurino_diffusion::pipeline::{Family, Plan, Residence};
use neurino_llm::checkpoint::Precision;
use neurino_llm::source::ModelSource;
use neurino_llm::tokenizer::Tokenizer;
use neurino_nn::paged::BLOCK_TOKENS;
use neurino_nn::quant::Holder;

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
    /// Memory it takes with 4-bit weights and room for one conversation, or (if it makes pictures) with
    /// 16-bit weights and one picture of its usual size, in bytes: what a device needs at least.
    pub memory_bytes_min: u64,
}

/// Reads the metadata of `path`, a GGUF file, a model folder or a checkpoint, and its tokenizer.
///
/// # Errors
/// `ModelUnreadable` if it is none that could be loaded, with what it is instead.
pub fn inspect(path: &Path) -> Result<ModelFacts, EngineError> {
    let unreadable = |error: &dyn std::error::Error| {
        EngineError::new(EngineErrorCode::ModelUnreadable, chain(error))
    };
    if ImageSource::is_image_model(path) {
        return ImageSource::open(path)
            .map(|source| image_facts(&source))
            .map_err(|e| unreadable(&e));
    }
    let source = ModelSource::open(path).map_err(|e| unreadable(&e))?;
    Tokenizer::of_model(&source).map_err(|e| unreadable(&e))?;
    let context_tokens = source.config.max_position_embeddings;
    let (packed, small) = (
        source.memory(Precision::Packed, Holder::Cpu),
        source.memory(Precision::FourBit, Holder::Card),
    );
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

fn image_facts(source: &ImageSource) -> ModelFacts {
    let (family, side) = (source.family(), source.family().native_side());
    let (steps, guidance) = match family {
        Family::Sd15 => (25, 7.0),
        Family::Sdxl => (25, 5.0),
        Family::Flux => (22, 3.5),
    };
    let memory = source.memory(ImagePrecision::Half);
    let picture = memory.picture(Residence::Stream, [side; 2], family != Family::Flux);
    ModelFacts {
        arch: family.name().to_owned(),
        storage: source.storage().to_owned(),
        context_tokens: 0,
        image: Some(ImageDefaults {
            width: side,
            height: side,
            steps,
            guidance,
            negative_prompt: String::new(),
            side_multiple: if family == Family::Flux { 16 } else { ImageJob::SIDE_MULTIPLE },
            sampler: Some(source.sampler().to_owned()),
        }),
        memory_bytes_min: memory.peak_bytes(Residence::Stream, picture, Plan::LEAST),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn image_models_tell_what_suits_them() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        for (name, arch, storage) in
            [("sd/sd15", "sd15", "f16"), ("sd/sdxl", "sdxl", "f16"), ("flux", "flux", "bf16")]
        {
            let facts = inspect(&fixtures.join(name)).unwrap();
            assert_eq!((facts.arch.as_str(), facts.storage.as_str()), (arch, storage));
            let image = facts.image.unwrap();
            let id = neurino_core::ModelId::new("m").unwrap();
            image.validate(&id).unwrap();
            // A folder without wishes of its own takes the network's, under the network's name.
            assert_eq!(image.sampler.as_deref(), ImageDefaults::sampler_of(arch));
            image.job(id, "a cat").validate().unwrap();
            assert!(facts.context_tokens == 0 && facts.memory_bytes_min > 1 << 20);
        }
        let error = inspect(&fixtures.join("sd/sd15/lora_peft.safetensors")).unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelUnreadable);
        assert!(error.message.contains("a LoRA"), "{error}");
    }
}
