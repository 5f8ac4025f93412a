//! Stable Diffusion 1.x: CLIP-L, DPM-Solver++ 2M SDE on Karras' noise levels, a UNet, and a decoder.
//!
//! Source: `diffusers@0.30.2 pipelines/stable_diffusion/pipeline_stable_diffusion.py`, with the
//! community's long-prompt pipeline as the network runs it: latents are drawn in f16, the noise of
//! each step in f32 from the same generator.

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
use crate::prompt::Sd15Prompt;
use crate::rng::{NoiseDtype, TorchRng};
use crate::scheduler::{DiscreteSchedule, Method, NoiseScheduler};
use crate::unet::Unet;
use crate::vae::Vae;
use crate::{DiffusionError, RgbImage};

/// The components.
pub struct Sd15 {
    /// Turns prompts into tokens.
    pub tokenizer: ClipTokenizer,
    /// CLIP-L.
    pub text_encoder: Encoders<ClipTextEncoder>,
    /// Finds the noise.
    pub unet: Unet,
    /// Makes pictures of latents.
    pub vae: Vae,
    /// Where they are.
    pub device: Device,
}

/// A Stable Diffusion 1.x model in memory.
pub struct Sd15Pipeline {
    model: Arc<Sd15>,
    preview: Arc<OnceLock<LinearPreview>>,
    /// By prompt and, for guided pictures, negative prompt.
    prompts: RecentlyUsed<(String, Option<String>), Tensor<3>>,
    facts: PipelineFacts,
    method: Method,
}

impl Sd15Pipeline {
    /// A pipeline of components that take `weights_bytes`.
    pub fn new(model: Sd15, weights_bytes: u64) -> Self {
        let vae_factor = size::factor(&model.vae);
        Self {
            model: Arc::new(model),
            preview: Arc::default(),
            prompts: RecentlyUsed::new(),
            facts: PipelineFacts { family: Family::Sd15, vae_factor, weights_bytes },
            method: Method::SD15,
        }
    }

    /// The same with another schedule than the network's.
    #[must_use]
    pub fn scheduled(self, method: Method) -> Self {
        Self { method, ..self }
    }
}

impl Pipeline for Sd15Pipeline {
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
        let negative = (job.guidance > 1.0).then(|| job.negative_prompt.clone());
        let context =
            self.prompts.get_or((job.prompt.clone(), negative), |(prompt, negative)| {
                let prompt = Sd15Prompt::new(&model.tokenizer, prompt, negative.as_deref())?;
                model.text_encoder.with(&model.device, |encoder| prompt.embed(encoder))
            })?;
        let schedule = DiscreteSchedule::stable_diffusion();
        let scheduler = self.method.scheduler(&schedule, job.steps as usize)?;
        let mut rng = TorchRng::new(job.seed);
        let mut latents = rng.randn(shape.count(), NoiseDtype::F16);
        for x in &mut latents {
            *x *= scheduler.init_noise_sigma();
        }
        Ok(Box::new(Sd15Run {
            model,
            preview: Arc::clone(&self.preview),
            scheduler,
            context,
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
        model.text_encoder.set_loras(&files)
    }
}

/// A picture of Stable Diffusion 1.x that is being made.
struct Sd15Run {
    model: Arc<Sd15>,
    preview: Arc<OnceLock<LinearPreview>>,
    scheduler: Box<dyn NoiseScheduler + Send>,
    /// `[1 or 2, tokens, width]`, that of the negative prompt first.
    context: Tensor<3>,
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

impl Denoising for Sd15Run {
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
            let context = self.context.clone().slice([sides]);
            run_near(&model.device, || {
                self.shape.download(model.unet.forward(input, timestep as f32, &context, None))
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
        Ok(vec![("embeddings", download(self.context.clone())?)])
    }
}
