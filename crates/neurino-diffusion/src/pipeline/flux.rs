//! FLUX.1: T5 and CLIP-L, Euler's method on the straight paths of flow matching, a transformer, and a
//! decoder. Guidance is one of the transformer's inputs: there is no negative prompt.
//!
//! Source: `diffusers@0.30.2 pipelines/flux/pipeline_flux.py`, as the network runs it: latents are drawn
//! in bf16.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use neurino_core::ImageJob;
use neurino_llm::Tokenizer;
use neurino_nn::device::{download, run_near, upload};

use super::cache::RecentlyUsed;
use super::preview::LinearPreview;
use super::{
    Decoding, Denoising, Encoders, Family, LatentShape, LoraFile, LoraFiles, Pipeline,
    PipelineFacts, size, stage,
};
use crate::clip::{ClipTextEncoder, ClipTokenizer};
use crate::flux::{FluxCondition, FluxTransformer, pack, unpack};
use crate::lora::{Part, set_loras};
use crate::prompt::{FluxEmbeddings, FluxPrompt};
use crate::rng::{NoiseDtype, TorchRng};
use crate::scheduler::{FlowMatchEuler, NoiseScheduler, flow_mu};
use crate::t5::T5Encoder;
use crate::vae::Vae;
use crate::{DiffusionError, RgbImage};

/// The components.
pub struct Flux {
    /// Turns prompts into CLIP's tokens.
    pub tokenizer: ClipTokenizer,
    /// Turns prompts into T5's tokens.
    pub tokenizer_2: Tokenizer,
    /// CLIP-L and T5.
    pub text_encoders: Encoders<(ClipTextEncoder, T5Encoder)>,
    /// Finds the way from noise to picture.
    pub transformer: FluxTransformer,
    /// Makes pictures of latents.
    pub vae: Vae,
    /// Where they are.
    pub device: Device,
}

/// A FLUX.1 model in memory.
pub struct FluxPipeline {
    model: Arc<Flux>,
    preview: Arc<OnceLock<LinearPreview>>,
    prompts: RecentlyUsed<String, FluxEmbeddings>,
    facts: PipelineFacts,
}

impl FluxPipeline {
    /// A pipeline of components that take `weights_bytes`.
    pub fn new(model: Flux, weights_bytes: u64) -> Self {
        let vae_factor = size::factor(&model.vae);
        Self {
            model: Arc::new(model),
            preview: Arc::default(),
            prompts: RecentlyUsed::new(),
            facts: PipelineFacts { family: Family::Flux, vae_factor, weights_bytes },
        }
    }
}

impl Pipeline for FluxPipeline {
    fn facts(&self) -> &PipelineFacts {
        &self.facts
    }

    /// Two latent pixels each way are one token.
    fn picture_size(&self, job: &ImageJob) -> [u32; 2] {
        size::floored(job, 2 * self.facts.vae_factor)
    }

    fn begin(&mut self, job: &ImageJob) -> Result<Box<dyn Denoising>, DiffusionError> {
        let model = Arc::clone(&self.model);
        let [width, height] = size::latent(self.picture_size(job), self.facts.vae_factor)?;
        let channels = model.transformer.config().in_channels / 4;
        let shape = LatentShape { channels, height, width };
        let size_tokens = [height / 2, width / 2];
        let embeddings = self.prompts.get_or(job.prompt.clone(), |prompt| {
            let prompt = FluxPrompt::new(&model.tokenizer, &model.tokenizer_2, prompt)?;
            model.text_encoders.with(&model.device, |(clip, t5)| prompt.embed(clip, t5))
        })?;
        let condition = run_near(&model.device, || {
            let FluxEmbeddings { states, pooled } = embeddings.clone();
            model.transformer.condition(states, pooled, job.guidance, size_tokens)
        });
        let scheduler =
            FlowMatchEuler::new(job.steps as usize, flow_mu(size_tokens[0] * size_tokens[1]))?;
        let noise = TorchRng::new(job.seed).randn(shape.count(), NoiseDtype::BF16);
        let latents = download(pack(shape.upload(&noise, 1, &model.device)))?;
        Ok(Box::new(FluxRun {
            model,
            preview: Arc::clone(&self.preview),
            scheduler,
            embeddings,
            condition,
            shape,
            size_tokens,
            latents,
            output: Vec::new(),
            clean: job.preview.then(Vec::new),
            done: 0,
        }))
    }

    fn set_loras(&mut self, loras: &[LoraFile]) -> Result<(), DiffusionError> {
        let model = Arc::get_mut(&mut self.model).ok_or_else(super::under_way)?;
        self.prompts.clear();
        let files = LoraFiles::open(loras, self.facts.family.low_rank_parts())?;
        set_loras(&mut model.transformer, Part::Denoiser, &files.scaled())?;
        model.text_encoders.set_loras(&files)
    }
}

/// A picture of FLUX.1 that is being made.
struct FluxRun {
    model: Arc<Flux>,
    preview: Arc<OnceLock<LinearPreview>>,
    scheduler: FlowMatchEuler,
    embeddings: FluxEmbeddings,
    condition: FluxCondition,
    shape: LatentShape,
    /// Rows and columns.
    size_tokens: [usize; 2],
    /// In tokens: `[rows * columns, 4 * channels]`.
    latents: Vec<f32>,
    output: Vec<f32>,
    /// The latents without their noise, as the last step saw them; kept for previews alone.
    clean: Option<Vec<f32>>,
    done: usize,
}

impl FluxRun {
    fn tokens(&self, values: &[f32]) -> Tensor<3> {
        let [rows, columns] = self.size_tokens;
        let shape = [1, rows * columns, 4 * self.shape.channels];
        upload(values.to_vec(), shape, &self.model.device)
    }
}

impl Denoising for FluxRun {
    fn steps(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    fn done(&self) -> usize {
        self.done
    }

    fn step(&mut self) -> Result<(), DiffusionError> {
        let (i, model) = (self.done, &self.model);
        if i >= self.steps() {
            return Ok(());
        }
        let sigma = self.scheduler.sigmas()[i];

        let input = self.tokens(&self.latents);
        self.output = run_near(&model.device, || {
            download(model.transformer.forward(input, sigma, &self.condition))
        })?;

        if let Some(clean) = &mut self.clean {
            let pairs = self.latents.iter().zip(&self.output);
            *clean = pairs.map(|(x, velocity)| x - sigma * velocity).collect();
        }

        self.scheduler.step(&self.output, &mut self.latents, &[], i);
        self.done += 1;
        Ok(())
    }

    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        let (vae, device) = (&self.model.vae, &self.model.device);
        let map = stage::preview(&self.preview, vae, device)?;
        let clean = self.clean.as_ref().filter(|clean| !clean.is_empty());
        let latents = unpack(self.tokens(clean.unwrap_or(&self.latents)), self.size_tokens);
        map.draw(&self.shape.download(latents)?.concat(), self.shape)
    }

    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        let latents = unpack(self.tokens(&self.latents), self.size_tokens);
        stage::decode(&self.model.vae, latents, decoding)
    }

    fn decode_in_full(&self, decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
        let latents = unpack(self.tokens(&self.latents), self.size_tokens);
        stage::decode_in_full(&self.model.vae, latents, decoding)
    }

    fn latents(&self) -> &[f32] {
        &self.latents
    }

    fn output(&self) -> &[f32] {
        &self.output
    }

    fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError> {
        Ok(vec![
            ("t5_hidden", download(self.embeddings.states.clone())?),
            ("pooled", download(self.embeddings.pooled.clone())?),
        ])
    }
}
