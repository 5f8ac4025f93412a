//! The autoencoder between pictures and latents, of Stable Diffusion, SDXL and Flux.
//!
//! Reading order: this file; [`config`], its dimensions; `blocks`, what it is made of; [`tiles`],
//! large pictures in little memory.

use burn::tensor::Tensor;
use neurino_nn::conv::Padding;
use neurino_nn::{Affine, Conv2d, GroupNorm};

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::checkpoint::streaming::Place;
use crate::lora::{Layer, LowRankPart};
use crate::pulse::Pulse;
use std::fmt;
use std::sync::Arc;

use blocks::{EPSILON, Level, Middle};

mod blocks;
pub mod config;
pub mod tiles;

pub use config::{LatentScaling, VaeConfig};
pub use tiles::Tiling;

/// Channels of a picture.
const COLOURS: usize = 3;

/// An autoencoder. Pictures have values of about -1 to 1.
///
/// Source: Rombach et al. 2022; `huggingface/diffusers@v0.30.2` `models/autoencoders/vae.py`.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Option<Encoder>,
    decoder: Place<Decoder>,
    reserve: Option<Reserve>,
    pulse: Pulse,
}

/// Brings the same decoder in f32.
#[derive(Clone)]
pub struct Reserve(Arc<dyn Fn() -> Result<Vae, DiffusionError> + Send + Sync>);

impl Reserve {
    /// One that is read by `read` each time.
    pub fn new(read: impl Fn() -> Result<Vae, DiffusionError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reserve")
    }
}

/// What the encoder tells of a picture: a normal distribution of latents.
#[derive(Debug, Clone)]
pub struct LatentMoments {
    /// `[batch, height, width, latent channels]`
    pub mean: Tensor<4>,
    /// The logarithm of the variance, of the same shape.
    pub log_variance: Tensor<4>,
}

impl Vae {
    /// Loads both halves.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent, of another shape or unreadable; `Cancelled`.
    pub fn load(part: &Component<'_>, config: &VaeConfig) -> Result<Self, DiffusionError> {
        let encoder = Some(Encoder::load(part, config)?);
        Ok(Self { encoder, ..Self::load_decoder(part, config)? })
    }

    /// Loads what makes pictures from latents: where the loading has it visit, into host memory.
    ///
    /// # Errors
    /// As [`Vae::load`].
    pub fn load_decoder(part: &Component<'_>, config: &VaeConfig) -> Result<Self, DiffusionError> {
        let own = config.clone();
        let decoder = Place::load(part, move |part| Decoder::load(part, &own))?;
        let (config, pulse) = (config.clone(), part.pulse());
        Ok(Self { config, encoder: None, decoder, reserve: None, pulse })
    }

    /// The same, with what to take instead where its activations overflow 16 bits.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve: Some(reserve), ..self }
    }

    /// The same in f32, if it is not already and there is one.
    ///
    /// # Errors
    /// As [`Vae::load`].
    pub fn in_full(&self) -> Result<Option<Self>, DiffusionError> {
        self.reserve.as_ref().map(|reserve| reserve.0()).transpose()
    }

    /// The dimensions.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The autoencoder's latents from those of the denoiser.
    pub fn from_denoiser(&self, latents: Tensor<4>) -> Tensor<4> {
        let LatentScaling { scale, shift } = self.config.scaling;
        latents.div_scalar(scale).add_scalar(shift)
    }

    /// The picture of latents.
    ///
    /// # Shapes
    /// - `latents`: `[batch, height, width, latent channels]`, the autoencoder's own; returns `[batch,
    ///   factor * height, factor * width, 3]`
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        self.with_decoder(|decoder| decoder.forward(latents, &self.pulse))
    }

    /// Computes with the decoder, which comes and goes once if it visits.
    fn with_decoder<R>(&self, compute: impl FnOnce(&Decoder) -> R) -> R {
        self.decoder.with_alone(compute)
    }

    /// Whether the decoder is on the device only while it computes.
    pub fn decoder_visits(&self) -> bool {
        self.decoder.visits()
    }

    /// The latents of pictures; `None` if only the decoder was loaded.
    ///
    /// # Shapes
    /// - `pictures`: `[batch, height, width, 3]`, both lengths multiples of the factor
    pub fn encode(&self, pictures: Tensor<4>) -> Option<LatentMoments> {
        self.encoder.as_ref().map(|encoder| encoder.forward(pictures, &self.pulse))
    }
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant: Option<Affine>,
}

impl Encoder {
    fn load(part: &Component<'_>, config: &VaeConfig) -> Result<Self, DiffusionError> {
        let encoder = part.sub("encoder");
        let levels = config.channels.len();
        let (first, last) = (config.channels[0], config.channels[levels - 1]);
        let moments = 2 * config.latent_channels;
        let level = |i| Level::down(&encoder.sub(format_args!("down_blocks.{i}")), config, i);
        let quant = config.quant_conv.then(|| part.linear("quant_conv", [moments, moments]));
        let same = Padding::same(1);
        Ok(Self {
            conv_in: encoder.conv("conv_in", [first, COLOURS, 3], 1, same)?,
            levels: (0..levels).map(level).collect::<Result<_, _>>()?,
            middle: Middle::load(&encoder.sub("mid_block"), config)?,
            norm_out: encoder.group_norm("conv_norm_out", last, config.norm_groups, EPSILON)?,
            conv_out: encoder.conv("conv_out", [moments, last, 3], 1, same)?,
            quant: quant.transpose()?,
        })
    }

    fn forward(&self, pictures: Tensor<4>, pulse: &Pulse) -> LatentMoments {
        let mut x = self.conv_in.forward(pictures);
        for level in &self.levels {
            x = level.forward(x, pulse);
        }
        x = self.conv_out.forward(self.norm_out.forward_silu(self.middle.forward(x, pulse)));
        if let Some(quant) = &self.quant {
            x = quant.forward(x);
        }
        let channels = x.dims()[3] / 2;
        let mean = x.clone().narrow(3, 0, channels);
        let log_variance = x.narrow(3, channels, channels).clamp(-30.0, 20.0);
        LatentMoments { mean, log_variance }
    }
}

#[derive(Debug)]
struct Decoder {
    post_quant: Option<Affine>,
    conv_in: Conv2d,
    middle: Middle,
    /// From the coarsest to the finest.
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Low-rank updates change no autoencoder.
impl LowRankPart for Decoder {
    fn low_rank_layers(&mut self, _: &str, _: &mut dyn FnMut(&str, Layer<'_>)) {}
}

impl Decoder {
    fn load(part: &Component<'_>, config: &VaeConfig) -> Result<Self, DiffusionError> {
        let decoder = part.sub("decoder");
        let levels = config.channels.len();
        let (first, last) = (config.channels[0], config.channels[levels - 1]);
        let latent = config.latent_channels;
        let level = |i| {
            let part = decoder.sub(format_args!("up_blocks.{i}"));
            Level::up(&part, config, levels - 1 - i)
        };
        let post_quant =
            config.post_quant_conv.then(|| part.linear("post_quant_conv", [latent, latent]));
        let same = Padding::same(1);
        Ok(Self {
            post_quant: post_quant.transpose()?,
            conv_in: decoder.conv("conv_in", [last, latent, 3], 1, same)?,
            middle: Middle::load(&decoder.sub("mid_block"), config)?,
            levels: (0..levels).map(level).collect::<Result<_, _>>()?,
            norm_out: decoder.group_norm("conv_norm_out", first, config.norm_groups, EPSILON)?,
            conv_out: decoder.conv("conv_out", [COLOURS, first, 3], 1, same)?,
        })
    }

    fn forward(&self, latents: Tensor<4>, pulse: &Pulse) -> Tensor<4> {
        let mut x = latents;
        if let Some(post_quant) = &self.post_quant {
            x = post_quant.forward(x);
        }
        x = self.middle.forward(self.conv_in.forward(x), pulse);
        for level in &self.levels {
            x = level.forward(x, pulse);
        }
        self.conv_out.forward(self.norm_out.forward_silu(x))
    }
}
