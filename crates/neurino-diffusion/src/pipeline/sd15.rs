//! Stable Diffusion 1.x: CLIP-L, DPM-Solver++ 2M SDE on Karras' noise levels, a UNet, and a decoder.
//!
//! Source: `diffusers@0.30.2 pipelines/stable_diffusion/pipeline_stable_diffusion.py`, with the
//! community's long-prompt pipeline as the network runs it: latents are drawn in f16, the noise of
//! each step in f32 from the same generator.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use neurino_core::ImageJob;
use neurino_nn::device::{download, run_near, upload};

use super::cache::RecentlyUsed;
use super::latents::{by_side, guided};
use super::preview::LinearPreview;
use super::trajectory::Trajectory;
use super::{
    Decoding, Denoising, Encoders, Family, Guidance, LatentShape, LoraFile, LoraFiles, Pipeline,
    PipelineFacts, size, stage,
};
use crate::clip::{ClipTextEncoder, ClipTokenizer};
use crate::prompt::{Chunk, Sd15Prompt};
use crate::rng::{NoiseDtype, TorchRng};
use crate::scheduler::{DiscreteSchedule, Method};
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

    fn prompt_tokens(&self, job: &ImageJob) -> Result<usize, DiffusionError> {
        let negative = (job.guidance > 1.0).then_some(job.negative_prompt.as_str());
        let prompt = Sd15Prompt::new(&self.model.tokenizer, &job.prompt, negative)?;
        Ok(Chunk::tokens(&prompt.prompt))
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
        let latents = shape.upload(&latents, &model.device).flatten(0, 3);
        let guidance = upload(vec![job.guidance], [1], &model.device);
        let trajectory = Trajectory::new(scheduler, shape, latents, rng, job.preview);
        Ok(Box::new(Sd15Run {
            model,
            preview: Arc::clone(&self.preview),
            context,
            guidance,
            sides: Guidance::default(),
            shape,
            trajectory,
        }))
    }

    fn set_loras(&mut self, loras: &[LoraFile]) -> Result<(), DiffusionError> {
        let model = Arc::get_mut(&mut self.model).ok_or_else(super::under_way)?;
        self.prompts.clear();
        let files = LoraFiles::open(loras, self.facts.family.low_rank_parts())?;
        model.text_encoder.set_loras(&mut model.unet, &files)
    }
}

/// A picture of Stable Diffusion 1.x that is being made.
struct Sd15Run {
    model: Arc<Sd15>,
    preview: Arc<OnceLock<LinearPreview>>,
    /// `[1 or 2, tokens, width]`, that of the negative prompt first.
    context: Tensor<3>,
    /// `[1]`
    guidance: Tensor<1>,
    sides: Guidance,
    shape: LatentShape,
    trajectory: Trajectory,
}

impl Sd15Run {
    fn picture(&self) -> Tensor<4> {
        self.shape.picture(self.trajectory.latents())
    }
}

impl Denoising for Sd15Run {
    fn steps(&self) -> usize {
        self.trajectory.steps()
    }

    fn done(&self) -> usize {
        self.trajectory.done()
    }

    fn computed(&self) -> usize {
        self.trajectory.computed()
    }

    fn set_guidance(&mut self, guidance: Guidance) {
        self.sides = guidance;
    }

    fn step(&mut self) -> Result<(), DiffusionError> {
        let (model, trajectory) = (&self.model, &self.trajectory);
        let Some((time, _)) = trajectory.upcoming() else { return Ok(()) };
        let [sides, _, _] = self.context.dims();
        let (inputs, timestep) = (trajectory.inputs(), model.unet.timestep(time as f32));
        let input = self.shape.picture(trajectory.input(&inputs));

        // Two pictures at once where the picture is guided: without and with the prompt.
        let noise = run_near(&model.device, || {
            by_side(sides, self.sides, &input, |sides, input| {
                let context = self.context.clone().slice([sides]);
                model.unet.forward(input, timestep.clone(), &context, None)
            })
        });
        self.trajectory.go(guided(noise, &self.guidance), inputs)
    }

    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        let (vae, device) = (&self.model.vae, &self.model.device);
        let map = stage::preview(&self.preview, vae, device)?;
        map.draw(&self.shape.download(self.shape.picture(self.trajectory.clean()))?, self.shape)
    }

    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        stage::decode(&self.model.vae, self.picture(), decoding)
    }

    fn decode_in_full(&self, decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
        stage::decode_in_full(&self.model.vae, self.picture(), decoding)
    }

    fn latents(&self) -> Result<Vec<f32>, DiffusionError> {
        self.shape.download(self.picture())
    }

    fn output(&self) -> Result<Vec<f32>, DiffusionError> {
        let read = |output| self.shape.download(self.shape.picture(output));
        self.trajectory.output().map_or(Ok(Vec::new()), read)
    }

    fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError> {
        Ok(vec![("embeddings", download(self.context.clone())?)])
    }
}
