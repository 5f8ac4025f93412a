//! Stable Diffusion XL: CLIP-L and OpenCLIP-G, Euler's method on "leading" noise levels, a UNet that also
//! sees the picture's size, and a decoder.
//!
//! Source: `diffusers@0.30.2 pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py`, with the
//! community's long-prompt pipeline as the network runs it: latents are drawn in f16.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use neurino_core::ImageJob;
use neurino_nn::device::{download, run_near};

use super::cache::RecentlyUsed;
use super::latents::{by_side, fresh_noise, guided};
use super::preview::LinearPreview;
use super::{
    Decoding, Denoising, Encoders, Family, Guidance, LatentShape, LoraFile, LoraFiles, Pipeline,
    PipelineFacts, size, stage,
};
use crate::clip::{ClipTextEncoder, ClipTokenizer};
use crate::lora::{Part, set_loras};
use crate::prompt::{SdxlEmbeddings, SdxlPrompt};
use crate::rng::{NoiseDtype, TorchRng};
use crate::scheduler::{DiscreteSchedule, Method, NoiseScheduler};
use crate::unet::{AddedCondition, Unet};
use crate::vae::Vae;
use crate::{DiffusionError, RgbImage};

/// The components.
pub struct Sdxl {
    /// Turn prompts into tokens, one for each text encoder.
    pub tokenizers: [ClipTokenizer; 2],
    /// CLIP-L and OpenCLIP-G.
    pub text_encoders: Encoders<[ClipTextEncoder; 2]>,
    /// Finds the noise.
    pub unet: Unet,
    /// Makes pictures of latents.
    pub vae: Vae,
    /// Where they are.
    pub device: Device,
}

/// A Stable Diffusion XL model in memory.
pub struct SdxlPipeline {
    model: Arc<Sdxl>,
    preview: Arc<OnceLock<LinearPreview>>,
    /// By prompt, negative prompt, and whether the picture is guided.
    prompts: RecentlyUsed<(String, String, bool), SdxlEmbeddings>,
    facts: PipelineFacts,
    method: Method,
}

impl SdxlPipeline {
    /// A pipeline of components that take `weights_bytes`.
    pub fn new(model: Sdxl, weights_bytes: u64) -> Self {
        let vae_factor = size::factor(&model.vae);
        Self {
            model: Arc::new(model),
            preview: Arc::default(),
            prompts: RecentlyUsed::new(),
            facts: PipelineFacts { family: Family::Sdxl, vae_factor, weights_bytes },
            method: Method::SDXL,
        }
    }

    /// The same with another schedule than the network's.
    #[must_use]
    pub fn scheduled(self, method: Method) -> Self {
        Self { method, ..self }
    }
}

impl Pipeline for SdxlPipeline {
    fn facts(&self) -> &PipelineFacts {
        &self.facts
    }

    fn picture_size(&self, job: &ImageJob) -> [u32; 2] {
        size::floored(job, self.facts.vae_factor)
    }

    fn begin(&mut self, job: &ImageJob) -> Result<Box<dyn Denoising>, DiffusionError> {
        let model = Arc::clone(&self.model);
        let [width, height] = size::latent(self.picture_size(job), self.facts.vae_factor)?;
        let shape = LatentShape { channels: model.unet.config().in_channels, height, width };
        let key = (job.prompt.clone(), job.negative_prompt.clone(), job.guidance > 1.0);
        let embeddings = self.prompts.get_or(key, |(prompt, negative, guided)| {
            let prompt = SdxlPrompt::new(model.tokenizers.each_ref(), prompt, negative)?;
            let encode =
                |encoders: &[ClipTextEncoder; 2]| prompt.embed(encoders.each_ref(), *guided);
            model.text_encoders.with(&model.device, encode)
        })?;
        let [sides, _, _] = embeddings.states.dims();
        // The picture is whole: it looks like one of its own size, with nothing cut off.
        let (h, w) = (job.height as f32, job.width as f32);
        let added = AddedCondition {
            pooled: embeddings.pooled,
            time_ids: vec![[h, w, 0.0, 0.0, h, w]; sides],
        };
        let schedule = DiscreteSchedule::stable_diffusion();
        let scheduler = self.method.scheduler(&schedule, job.steps as usize)?;
        let mut rng = TorchRng::new(job.seed);
        let mut latents = rng.randn(shape.count(), NoiseDtype::F16);
        for x in &mut latents {
            *x *= scheduler.init_noise_sigma();
        }
        Ok(Box::new(SdxlRun {
            model,
            preview: Arc::clone(&self.preview),
            scheduler,
            context: embeddings.states,
            added,
            guidance: job.guidance,
            sides: Guidance::default(),
            shape,
            rng,
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
        set_loras(&mut model.unet, Part::Denoiser, &files.scaled())?;
        model.text_encoders.set_loras(&files)
    }
}

/// A picture of Stable Diffusion XL that is being made.
struct SdxlRun {
    model: Arc<Sdxl>,
    preview: Arc<OnceLock<LinearPreview>>,
    scheduler: Box<dyn NoiseScheduler + Send>,
    /// `[1 or 2, tokens, width]`, that of the negative prompt first.
    context: Tensor<3>,
    added: AddedCondition,
    guidance: f32,
    sides: Guidance,
    shape: LatentShape,
    rng: TorchRng,
    latents: Vec<f32>,
    output: Vec<f32>,
    /// The latents without their noise, as the last step saw them; kept for previews alone.
    clean: Option<Vec<f32>>,
    done: usize,
}

impl Denoising for SdxlRun {
    fn steps(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    fn done(&self) -> usize {
        self.done
    }

    fn set_guidance(&mut self, guidance: Guidance) {
        self.sides = guidance;
    }

    fn step(&mut self) -> Result<(), DiffusionError> {
        let (i, model) = (self.done, &self.model);
        let Some(&timestep) = self.scheduler.timesteps().get(i) else { return Ok(()) };
        let [sides, _, _] = self.context.dims();

        // Two pictures at once where the picture is guided: without and with the prompt.
        let mut input = self.latents.clone();
        self.scheduler.scale_model_input(&mut input, i);
        let noise = by_side(sides, self.sides, |sides| {
            let input = self.shape.upload(&input, sides.len(), &model.device);
            let context = self.context.clone().slice([sides.clone()]);
            let added = AddedCondition {
                pooled: self.added.pooled.clone().slice([sides.clone()]),
                time_ids: self.added.time_ids[sides].to_vec(),
            };
            run_near(&model.device, || {
                let noise = model.unet.forward(input, timestep as f32, &context, Some(&added));
                self.shape.download(noise)
            })
        })?;
        self.output = guided(noise, self.guidance);

        if let Some(clean) = &mut self.clean {
            *clean = self.scheduler.clean(&self.output, &self.latents, i);
        }

        let fresh = fresh_noise(self.scheduler.as_ref(), &mut self.rng, self.shape);
        self.scheduler.step(&self.output, &mut self.latents, &fresh, i);
        self.done += 1;
        Ok(())
    }

    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        let (vae, device) = (&self.model.vae, &self.model.device);
        let map = stage::preview(&self.preview, vae, device)?;
        let clean = self.clean.as_ref().filter(|clean| !clean.is_empty());
        map.draw(clean.unwrap_or(&self.latents), self.shape)
    }

    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        let latents = self.shape.upload(&self.latents, 1, &self.model.device);
        stage::decode(&self.model.vae, latents, decoding)
    }

    fn decode_in_full(&self, decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
        let latents = self.shape.upload(&self.latents, 1, &self.model.device);
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
            ("embeddings", download(self.context.clone())?),
            ("text_embeds", download(self.added.pooled.clone())?),
        ])
    }
}
