//! Flux's transformer: from noisy latents, a prompt and a time to the direction in which the picture lies.
//!
//! The reading order is [`FluxTransformer::condition`] (once a picture), [`FluxTransformer::forward`] (once a
//! step), then the two kinds of blocks.
//!
//! Source: `diffusers@0.30.2 transformer_flux.py`.

use std::path::Path;

use burn::tensor::{Tensor, activation};
use neurino_nn::device::upload;
use neurino_nn::{Affine, LayerNorm};
use serde::Deserialize;

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::checkpoint::streaming::Place;
use crate::lora::{Layer, LowRankLayers, LowRankPart, Placement};

mod double;
mod packing;
mod rope;
mod single;

use double::DoubleBlock;
pub use packing::{pack, unpack};
use rope::Rope;
use single::SingleBlock;

/// Sinusoids that a time is told by.
const TIME_FEATURES: usize = 256;
/// What times between 0 and 1 are multiplied by before.
const TIME_SCALE: f32 = 1000.0;
/// Added to variances and mean squares.
const NORM_EPSILON: f64 = 1e-6;
/// Base of the rotation frequencies.
const ROPE_BASE: f64 = 10_000.0;

/// The dimensions of a transformer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FluxConfig {
    /// Features of a latent token: the channels of 2 x 2 latents.
    pub in_channels: usize,
    /// Blocks that treat text and picture separately.
    pub num_layers: usize,
    /// Blocks that treat them as one sequence.
    pub num_single_layers: usize,
    /// Features of a head.
    pub attention_head_dim: usize,
    /// Heads of each block.
    pub num_attention_heads: usize,
    /// Features of T5's states.
    pub joint_attention_dim: usize,
    /// Features of CLIP's pooled vector.
    pub pooled_projection_dim: usize,
    /// Whether it is told how strongly the prompt guides.
    pub guidance_embeds: bool,
    /// Features of a head that turn with the three positions: a constant, the row, the column.
    pub axes_dims_rope: [usize; 3],
}

impl Default for FluxConfig {
    fn default() -> Self {
        let mut config = Self::dev();
        config.guidance_embeds = false;
        config
    }
}

impl FluxConfig {
    /// FLUX.1-dev.
    pub fn dev() -> Self {
        Self {
            in_channels: 64,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: true,
            axes_dims_rope: [16, 56, 56],
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// `Config` if it is unreadable or describes no such transformer.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let bad = |problem: String| DiffusionError::Config { file: path.to_owned(), problem };
        let bytes = std::fs::read(path).map_err(|e| bad(format!("cannot be read ({e})")))?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("is not understood ({e})")))?;
        let rope = config.axes_dims_rope;
        let head = config.attention_head_dim;
        if rope.iter().any(|dim| dim % 2 != 0) || rope.iter().sum::<usize>() != head {
            return Err(bad(format!("turns {rope:?} of {head} features of a head")));
        }
        if config.num_attention_heads == 0 || head == 0 || config.in_channels == 0 {
            return Err(bad("has dimensions that make no transformer".into()));
        }
        Ok(config)
    }

    /// Features of a token inside.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}

/// What stays the same over the steps of a picture.
#[derive(Debug, Clone)]
pub struct FluxCondition {
    /// The prompt as the blocks take it: `[1, text tokens, width]`.
    text: Tensor<3>,
    /// Guidance and pooled prompt: `[1, width]`.
    vector: Tensor<2>,
    rope: Rope,
}

/// A transformer.
#[derive(Debug)]
pub struct FluxTransformer {
    config: FluxConfig,
    latents_in: Affine,
    text_in: Affine,
    time: Mlp,
    guidance: Option<Mlp>,
    pooled: Mlp,
    double: Vec<Place<DoubleBlock>>,
    single: Vec<Place<SingleBlock>>,
    norm_out: Modulation,
    latents_out: Affine,
    placement: Placement,
}

impl FluxTransformer {
    /// Loads a transformer whose tensors have diffusers' names.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent or of another shape, `Cancelled`.
    pub fn load(component: &Component<'_>, config: &FluxConfig) -> Result<Self, DiffusionError> {
        // Trained in bf16: its residual stream leaves the range of f16.
        let component = &component.clone().with_range();
        let width = config.width();
        let embed = component.sub("time_text_embed");
        let mlp = |name: &str, features: usize| Mlp::load(&embed.sub(name), features, width);
        let guidance = config.guidance_embeds.then(|| mlp("guidance_embedder", TIME_FEATURES));
        let double = |index| {
            let config = config.clone();
            let load = move |part: &Component<'_>| DoubleBlock::load(part, &config);
            Place::load(&component.sub("transformer_blocks").sub(index), load)
        };
        let single = |index| {
            let config = config.clone();
            let load = move |part: &Component<'_>| SingleBlock::load(part, &config);
            Place::load(&component.sub("single_transformer_blocks").sub(index), load)
        };
        Ok(Self {
            latents_in: component.linear("x_embedder", [width, config.in_channels])?,
            text_in: component.linear("context_embedder", [width, config.joint_attention_dim])?,
            time: mlp("timestep_embedder", TIME_FEATURES)?,
            guidance: guidance.transpose()?,
            pooled: mlp("text_embedder", config.pooled_projection_dim)?,
            double: (0..config.num_layers).map(double).collect::<Result<_, _>>()?,
            single: (0..config.num_single_layers).map(single).collect::<Result<_, _>>()?,
            norm_out: Modulation::load(component, "norm_out.linear", width, 2)?,
            latents_out: component.linear("proj_out", [config.in_channels, width])?,
            placement: component.placement(),
            config: config.clone(),
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// Prepares what is the same in all steps of a picture. Updates of low rank must be set before.
    ///
    /// # Shapes
    /// - `states`: `[1, text tokens, joint_attention_dim]`, T5's
    /// - `pooled`: `[1, pooled_projection_dim]`, CLIP's
    /// - `size_tokens`: rows and columns of the latent tokens
    pub fn condition(
        &self,
        states: Tensor<3>,
        pooled: Tensor<2>,
        guidance: f32,
        size_tokens: [usize; 2],
    ) -> FluxCondition {
        let text_tokens = states.dims()[1];
        let mut vector = self.pooled.forward(pooled);
        if let Some(mlp) = &self.guidance {
            vector = vector + mlp.forward(self.sinusoids(guidance));
        }
        let device = &self.placement.device;
        let rope = Rope::new(self.config.axes_dims_rope, text_tokens, size_tokens, device);
        FluxCondition { text: self.text_in.forward(states), vector, rope }
    }

    /// The direction from the picture to the noise. All it takes is on the device: nothing goes there or
    /// comes back on the way, unless layers stream.
    ///
    /// # Shapes
    /// - `latents`: `[1, rows * columns, in_channels]` (see [`pack`]); returns the same
    /// - `time`: [`FluxTransformer::sinusoids`]'s, `[1, 256]`
    pub fn forward(
        &self,
        latents: Tensor<3>,
        time: Tensor<2>,
        condition: &FluxCondition,
    ) -> Tensor<3> {
        self.forward_tapped(latents, time, condition, &mut |_, _| {})
    }

    /// As [`FluxTransformer::forward`]; calls `tap` with what the parts put out: "time_text_embed",
    /// "transformer_blocks.0.text", "transformer_blocks.0.image", "single_transformer_blocks.0".
    pub fn forward_tapped(
        &self,
        latents: Tensor<3>,
        time: Tensor<2>,
        condition: &FluxCondition,
        tap: &mut dyn FnMut(&str, Tensor<3>),
    ) -> Tensor<3> {
        let FluxCondition { text, vector, rope } = condition;
        let vector = vector.clone() + self.time.forward(time);
        tap("time_text_embed", vector.clone().unsqueeze());
        let signal = activation::silu(vector);

        let mut image = self.latents_in.forward(latents);
        let mut text = text.clone();
        for (index, block) in self.double.iter().enumerate() {
            (text, image) = block.with(|block| block.forward(text, image, &signal, rope));
            tap(&format!("transformer_blocks.{index}.text"), text.clone());
            tap(&format!("transformer_blocks.{index}.image"), image.clone());
        }
        let (text_tokens, image_tokens) = (text.dims()[1], image.dims()[1]);
        let mut both = Tensor::cat(vec![text, image], 1);
        for (index, block) in self.single.iter().enumerate() {
            both = block.with(|block| block.forward(both, &signal, rope));
            tap(&format!("single_transformer_blocks.{index}"), both.clone());
        }
        let image = both.narrow(1, text_tokens, image_tokens);
        let [scale, shift] = self.norm_out.of(&signal);
        self.latents_out.forward(modulated(image, scale, shift))
    }

    /// A time, from 1, all noise, to 0, or a guidance as the network takes it: `[1, 256]`, the cosines, then
    /// the sines.
    pub fn sinusoids(&self, time: f32) -> Tensor<2> {
        let half = TIME_FEATURES / 2;
        let angle = |i: usize| {
            let exponent = -(10_000_f32.ln()) * i as f32 / half as f32;
            time * TIME_SCALE * exponent.exp()
        };
        let values = (0..half).map(|i| angle(i).cos()).chain((0..half).map(|i| angle(i).sin()));
        upload(values.collect(), [1, TIME_FEATURES], &self.placement.device)
    }
}

impl LowRankLayers for FluxTransformer {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        let mut mlps =
            vec![("timestep_embedder", &mut self.time), ("text_embedder", &mut self.pooled)];
        mlps.extend(self.guidance.as_mut().map(|mlp| ("guidance_embedder", mlp)));
        for (name, mlp) in mlps {
            visit(&format!("time_text_embed.{name}.linear_1"), Layer::Affine(&mut mlp.linear_1));
            visit(&format!("time_text_embed.{name}.linear_2"), Layer::Affine(&mut mlp.linear_2));
        }
        visit("x_embedder", Layer::Affine(&mut self.latents_in));
        visit("context_embedder", Layer::Affine(&mut self.text_in));
        for (index, block) in self.double.iter_mut().enumerate() {
            block.low_rank_layers(&format!("transformer_blocks.{index}"), visit);
        }
        for (index, block) in self.single.iter_mut().enumerate() {
            block.low_rank_layers(&format!("single_transformer_blocks.{index}"), visit);
        }
        visit("norm_out.linear", Layer::Affine(&mut self.norm_out.linear));
        visit("proj_out", Layer::Affine(&mut self.latents_out));
    }
}

/// Two layers that put a time, a strength or a pooled prompt into the width of the blocks.
#[derive(Debug, Clone)]
struct Mlp {
    linear_1: Affine,
    linear_2: Affine,
}

impl Mlp {
    fn load(part: &Component<'_>, features: usize, width: usize) -> Result<Self, DiffusionError> {
        Ok(Self {
            linear_1: part.linear("linear_1", [width, features])?,
            linear_2: part.linear("linear_2", [width, width])?,
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(activation::silu(self.linear_1.forward(x)))
    }
}

/// A layer that makes shifts, scales and gates of a block from time, guidance and pooled prompt.
#[derive(Debug, Clone)]
struct Modulation {
    linear: Affine,
}

impl Modulation {
    /// A layer that makes `parts` vectors.
    fn load(
        part: &Component<'_>,
        name: &str,
        width: usize,
        parts: usize,
    ) -> Result<Self, DiffusionError> {
        Ok(Self { linear: part.linear(name, [parts * width, width])? })
    }

    /// The vectors for a `signal` of `[1, width]`; each is `[1, 1, width]`.
    fn of<const N: usize>(&self, signal: &Tensor<2>) -> [Tensor<3>; N] {
        let all: Tensor<3> = self.linear.forward(signal.clone()).unsqueeze();
        let width = all.dims()[2] / N;
        std::array::from_fn(|part| all.clone().narrow(2, part * width, width))
    }
}

/// `norm(x) * (1 + scale) + shift`.
fn modulated(x: Tensor<3>, scale: Tensor<3>, shift: Tensor<3>) -> Tensor<3> {
    LayerNorm::new(None, None, NORM_EPSILON).forward(x) * scale.add_scalar(1.0) + shift
}
