//! The dimensions of an autoencoder: from diffusers' `config.json`, from the shapes of its tensors, or
//! known.

use std::path::Path;

use serde::Deserialize;

use crate::DiffusionError;
use crate::checkpoint::Component;

/// The largest dimension that a file may ask for.
const DIM_MAX: usize = 1 << 16;
const LEVELS_MAX: usize = 16;

/// How latents of the denoiser become those of the autoencoder: `latents / scale + shift`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentScaling {
    /// The denoiser's latents are this many times wider.
    pub scale: f32,
    /// The autoencoder's latents are centred here.
    pub shift: f32,
}

impl LatentScaling {
    /// Stable Diffusion 1.x.
    pub const SD15: Self = Self { scale: 0.18215, shift: 0.0 };
    /// SDXL.
    pub const SDXL: Self = Self { scale: 0.13025, shift: 0.0 };
    /// Flux.
    pub const FLUX: Self = Self { scale: 0.3611, shift: 0.1159 };
}

/// The dimensions of an autoencoder. Levels are counted from the finest.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
pub struct VaeConfig {
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Resnets of each level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of channels that are normalised together.
    pub norm_groups: usize,
    /// Whether the coarsest level has attention.
    pub mid_attention: bool,
    /// Whether a convolution of 1x1 follows the encoder.
    pub quant_conv: bool,
    /// Whether a convolution of 1x1 precedes the decoder.
    pub post_quant_conv: bool,
    /// How the denoiser's latents are scaled.
    pub scaling: LatentScaling,
    /// Whether SDXL's pipelines decode in f32 whatever the rest is computed in: its activations overflow f16
    /// unless it was trained not to.
    pub force_upcast: bool,
}

impl VaeConfig {
    /// Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Self {
            channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_groups: 32,
            mid_attention: true,
            quant_conv: true,
            post_quant_conv: true,
            scaling: LatentScaling::SD15,
            force_upcast: true,
        }
    }

    /// SDXL.
    pub fn sdxl() -> Self {
        Self { scaling: LatentScaling::SDXL, ..Self::sd15() }
    }

    /// Flux.
    pub fn flux() -> Self {
        Self {
            latent_channels: 16,
            quant_conv: false,
            post_quant_conv: false,
            scaling: LatentScaling::FLUX,
            ..Self::sd15()
        }
    }

    /// Pixels of a picture for each latent, along one side.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Reads diffusers' `vae/config.json`.
    ///
    /// # Errors
    /// `Config` if it is not that, or describes a network of another kind.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let config = |problem| DiffusionError::Config { file: path.to_owned(), problem };
        let text = std::fs::read(path).map_err(|e| config(format!("cannot be read ({e})")))?;
        Self::from_json(&text).map_err(config)
    }

    /// The dimensions from the text of diffusers' `vae/config.json`.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let json: Json =
            serde_json::from_slice(text).map_err(|e| format!("is incomplete ({e})"))?;
        json.config()?.checked()
    }

    /// Reads the dimensions off the shapes of a checkpoint's tensors; norms are over 32 groups.
    ///
    /// - `scaling`: of the model family, which shapes do not tell
    ///
    /// # Errors
    /// `Config` if a tensor is absent or the shapes make no network.
    pub fn infer(part: &Component<'_>, scaling: LatentScaling) -> Result<Self, DiffusionError> {
        let file = || "the autoencoder".into();
        Self::inferred(part, scaling)
            .map_err(|problem| DiffusionError::Config { file: file(), problem })
    }

    fn inferred(part: &Component<'_>, scaling: LatentScaling) -> Result<Self, String> {
        let there = |name: &str| part.shape(name).is_some();
        let dim = |name: &str, axis: usize| {
            let shape = part.shape(name).ok_or_else(|| format!("has no tensor `{name}`"))?;
            let found = shape.get(axis).copied();
            found.ok_or_else(|| format!("has a tensor `{name}` with too few dimensions"))
        };
        // By the decoder, whose levels run the other way and have one layer more: whoever makes
        // pictures from words alone may leave the encoder out.
        let conv1 =
            |level, layer| format!("decoder.up_blocks.{level}.resnets.{layer}.conv1.weight");
        let levels = (0..LEVELS_MAX).take_while(|&level| there(&conv1(level, 0))).count();
        let channels = (0..levels).rev().map(|level| dim(&conv1(level, 0), 0));
        let layers = (0..DIM_MAX).take_while(|&layer| there(&conv1(0, layer))).count();
        Self {
            channels: channels.collect::<Result<_, _>>()?,
            layers_per_block: layers.saturating_sub(1),
            latent_channels: dim("decoder.conv_in.weight", 1)?,
            norm_groups: 32,
            mid_attention: there("decoder.mid_block.attentions.0.group_norm.weight"),
            quant_conv: there("quant_conv.weight"),
            post_quant_conv: there("post_quant_conv.weight"),
            scaling,
            // Shapes do not tell, and the safe way is always right.
            force_upcast: true,
        }
        .checked()
    }

    /// Refuses dimensions that no layer can have.
    fn checked(self) -> Result<Self, String> {
        let Self { channels, layers_per_block, latent_channels, norm_groups, .. } = &self;
        let levels = channels.len();
        if levels == 0 || levels > LEVELS_MAX {
            return Err(format!("describes {levels} levels"));
        }
        let single = [*layers_per_block, *latent_channels, *norm_groups];
        let all: Vec<usize> = [&single[..], channels].concat();
        if let Some(dim) = all.into_iter().find(|&dim| dim == 0 || dim > DIM_MAX) {
            return Err(format!("has a dimension of {dim}"));
        }
        if let Some(width) = channels.iter().find(|width| !width.is_multiple_of(*norm_groups)) {
            return Err(format!("has {width} channels, which are not {norm_groups} groups"));
        }
        let LatentScaling { scale, shift } = self.scaling;
        if !scale.is_finite() || scale == 0.0 || !shift.is_finite() {
            return Err(format!("has the scaling factor {scale} and the shift factor {shift}"));
        }
        Ok(self)
    }
}

/// `vae/config.json`.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
struct Json {
    #[serde(default = "three")]
    in_channels: usize,
    #[serde(default = "three")]
    out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    latent_channels: usize,
    #[serde(default = "groups")]
    norm_num_groups: usize,
    #[serde(default = "sd15_scale")]
    scaling_factor: f32,
    shift_factor: Option<f32>,
    latents_mean: Option<Vec<f32>>,
    #[serde(default = "yes")]
    use_quant_conv: bool,
    #[serde(default = "yes")]
    use_post_quant_conv: bool,
    #[serde(default = "yes")]
    mid_block_add_attention: bool,
    #[serde(default = "silu")]
    act_fn: String,
    #[serde(default = "yes")]
    force_upcast: bool,
}

fn three() -> usize {
    3
}

fn groups() -> usize {
    32
}

/// Configurations of the first days do not say it.
fn sd15_scale() -> f32 {
    LatentScaling::SD15.scale
}

fn yes() -> bool {
    true
}

fn silu() -> String {
    "silu".to_owned()
}

impl Json {
    fn config(self) -> Result<VaeConfig, String> {
        let known = |types: &[String], kind: &str| {
            types.len() == self.block_out_channels.len() && types.iter().all(|found| found == kind)
        };
        if !known(&self.down_block_types, "DownEncoderBlock2D")
            || !known(&self.up_block_types, "UpDecoderBlock2D")
        {
            return Err("has blocks that this build does not know".to_owned());
        }
        if self.in_channels != 3 || self.out_channels != 3 || self.act_fn != "silu" {
            return Err("describes no autoencoder of colour pictures that is known here".to_owned());
        }
        if self.latents_mean.is_some() {
            return Err("has `latents_mean`, which this build does not know".to_owned());
        }
        let shift = self.shift_factor.unwrap_or(0.0);
        Ok(VaeConfig {
            channels: self.block_out_channels,
            layers_per_block: self.layers_per_block,
            latent_channels: self.latent_channels,
            norm_groups: self.norm_num_groups,
            mid_attention: self.mid_block_add_attention,
            quant_conv: self.use_quant_conv,
            post_quant_conv: self.use_post_quant_conv,
            scaling: LatentScaling { scale: self.scaling_factor, shift },
            force_upcast: self.force_upcast,
        })
    }
}
