//! FLUX.1: T5 and CLIP-L, Euler's method on the straight paths of flow matching, a transformer, and a
//! decoder. Guidance is one of the transformer's inputs: there is no negative prompt.
//!
//! Source: `diffusers@0.30.2 pipelines/flux/pipeline_flux.py`, as the network runs it: latents are drawn
//! in bf16.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};
use neurino_core::ImageJob;
use neurino_llm::Tokenizer;
use neurino_nn::device::{download, run_near};

use super::cache::RecentlyUsed;
use super::preview::LinearPreview;
use super::trajectory::Trajectory;
use super::{
    Decoding, Denoising, Encoders, Family, LatentShape, LoraFile, LoraFiles, Pipeline,
    PipelineFacts, size, stage,
};
use crate::clip::{ClipTextEncoder, ClipTokenizer};
use crate::flux::{FluxCondition, FluxTransformer, pack, unpack};
use crate::prompt::{FluxEmbeddings, FluxPrompt};
use crate::rng::{NoiseDtype, TorchRng};
use crate::scheduler::{FlowMatchEuler, FlowShift};
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
    shift: FlowShift,
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
            shift: FlowShift::DEV,
        }
    }

    /// The same with noise levels that are shifted otherwise than FLUX.1-dev's.
    #[must_use]
    pub fn shifted(self, shift: FlowShift) -> Self {
        Self { shift, ..self }
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
        let image_tokens = size_tokens[0] * size_tokens[1];
        let scheduler = FlowMatchEuler::new(job.steps as usize, self.shift, image_tokens)?;
        let mut rng = TorchRng::new(job.seed);
        let noise = rng.randn(shape.count(), NoiseDtype::BF16);
        let latents = pack(shape.upload(&noise, &model.device)).flatten(0, 2);
        let trajectory = Trajectory::new(Box::new(scheduler), shape, latents, rng, job.preview);
        Ok(Box::new(FluxRun {
            model,
            preview: Arc::clone(&self.preview),
            embeddings,
            condition,
            shape,
            size_tokens,
            trajectory,
        }))
    }

    fn set_loras(&mut self, loras: &[LoraFile]) -> Result<(), DiffusionError> {
        let model = Arc::get_mut(&mut self.model).ok_or_else(super::under_way)?;
        self.prompts.clear();
        let files = LoraFiles::open(loras, self.facts.family.low_rank_parts())?;
        model.text_encoders.set_loras(&mut model.transformer, &files)
    }
}

/// A picture of FLUX.1 that is being made.
struct FluxRun {
    model: Arc<Flux>,
    preview: Arc<OnceLock<LinearPreview>>,
    embeddings: FluxEmbeddings,
    condition: FluxCondition,
    shape: LatentShape,
    /// Rows and columns.
    size_tokens: [usize; 2],
    /// In tokens: rows, columns, 4 times the channels.
    trajectory: Trajectory,
}

impl FluxRun {
    fn tokens(&self, values: Tensor<1>) -> Tensor<3> {
        let [rows, columns] = self.size_tokens;
        values.reshape([1, rows * columns, 4 * self.shape.channels])
    }

    fn picture(&self, values: Tensor<1>) -> Tensor<4> {
        unpack(self.tokens(values), self.size_tokens)
    }
}

impl Denoising for FluxRun {
    fn steps(&self) -> usize {
        self.trajectory.steps()
    }

    fn done(&self) -> usize {
        self.trajectory.done()
    }

    fn computed(&self) -> usize {
        self.trajectory.computed()
    }

    fn step(&mut self) -> Result<(), DiffusionError> {
        let (model, trajectory) = (&self.model, &self.trajectory);
        let Some((_, sigma)) = trajectory.upcoming() else { return Ok(()) };
        let (inputs, time) = (trajectory.inputs(), model.transformer.sinusoids(sigma));
        let input = self.tokens(trajectory.input(&inputs));
        let velocity =
            run_near(&model.device, || model.transformer.forward(input, time, &self.condition));
        self.trajectory.go(velocity.flatten(0, 2), inputs)
    }

    fn preview(&self) -> Result<RgbImage, DiffusionError> {
        let (vae, device) = (&self.model.vae, &self.model.device);
        let map = stage::preview(&self.preview, vae, device)?;
        map.draw(&self.shape.download(self.picture(self.trajectory.clean()))?, self.shape)
    }

    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
        stage::decode(&self.model.vae, self.picture(self.trajectory.latents()), decoding)
    }

    fn decode_in_full(&self, decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
        stage::decode_in_full(&self.model.vae, self.picture(self.trajectory.latents()), decoding)
    }

    fn latents(&self) -> Result<Vec<f32>, DiffusionError> {
        Ok(download(self.trajectory.latents())?)
    }

    fn output(&self) -> Result<Vec<f32>, DiffusionError> {
        Ok(self.trajectory.output().map_or(Ok(Vec::new()), download)?)
    }

    fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError> {
        Ok(vec![
            ("t5_hidden", download(self.embeddings.states.clone())?),
            ("pooled", download(self.embeddings.pooled.clone())?),
        ])
    }
}
