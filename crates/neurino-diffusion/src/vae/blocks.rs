//! What the encoder and the decoder are made of.

use burn::tensor::Tensor;
use neurino_nn::attention::{Mask, full};
use neurino_nn::conv::Padding;
use neurino_nn::resize::nearest;
use neurino_nn::{Affine, Conv2d, GroupNorm};

use super::VaeConfig;
use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::pulse::Pulse;
use crate::unet::resnet::{Resnet, ResnetDims};

/// What is added to the variance in all norms.
pub(super) const EPSILON: f64 = 1e-6;

fn resnet(
    part: &Component<'_>,
    config: &VaeConfig,
    channels_in: usize,
    channels_out: usize,
) -> Result<Resnet, DiffusionError> {
    let (norm_groups, norm_epsilon) = (config.norm_groups, EPSILON);
    let dims =
        ResnetDims { channels_in, channels_out, time_width: None, norm_groups, norm_epsilon };
    Resnet::load(part, dims)
}

/// How a level changes the picture's size at its end.
#[derive(Debug)]
enum Sampler {
    None,
    Halve(Conv2d),
    Double(Conv2d),
}

/// A level of the encoder or the decoder.
#[derive(Debug)]
pub(super) struct Level {
    resnets: Vec<Resnet>,
    sampler: Sampler,
}

impl Level {
    /// A level of the encoder: all but the coarsest halve the picture.
    pub(super) fn down(
        part: &Component<'_>,
        config: &VaeConfig,
        level: usize,
    ) -> Result<Self, DiffusionError> {
        let (out, before) = (config.channels[level], config.channels[level.saturating_sub(1)]);
        let count = config.layers_per_block;
        let resnets = Self::resnets(part, config, [before, out], count)?;
        if level + 1 == config.channels.len() {
            return Ok(Self { resnets, sampler: Sampler::None });
        }
        let behind = Padding { top: 0, left: 0, bottom: 1, right: 1 };
        let conv = part.conv("downsamplers.0.conv", [out, out, 3], 2, behind)?;
        Ok(Self { resnets, sampler: Sampler::Halve(conv) })
    }

    /// A level of the decoder: all but the finest double the picture.
    pub(super) fn up(
        part: &Component<'_>,
        config: &VaeConfig,
        level: usize,
    ) -> Result<Self, DiffusionError> {
        let channels = &config.channels;
        let (out, before) = (channels[level], channels[(level + 1).min(channels.len() - 1)]);
        let count = config.layers_per_block + 1;
        let resnets = Self::resnets(part, config, [before, out], count)?;
        if level == 0 {
            return Ok(Self { resnets, sampler: Sampler::None });
        }
        let conv = part.conv("upsamplers.0.conv", [out, out, 3], 1, Padding::same(1))?;
        Ok(Self { resnets, sampler: Sampler::Double(conv) })
    }

    fn resnets(
        part: &Component<'_>,
        config: &VaeConfig,
        [before, out]: [usize; 2],
        count: usize,
    ) -> Result<Vec<Resnet>, DiffusionError> {
        let one = |i| {
            let inp = if i == 0 { before } else { out };
            resnet(&part.sub(format_args!("resnets.{i}")), config, inp, out)
        };
        (0..count).map(one).collect()
    }

    /// Beats before each part.
    pub(super) fn forward(&self, mut x: Tensor<4>, pulse: &Pulse) -> Tensor<4> {
        for resnet in &self.resnets {
            pulse.beat();
            x = resnet.forward(x, None);
        }
        pulse.beat();
        match &self.sampler {
            Sampler::None => x,
            Sampler::Halve(conv) => conv.forward(x),
            Sampler::Double(conv) => {
                let [_, height, width, _] = x.dims();
                conv.forward(nearest(x, 2 * height, 2 * width))
            }
        }
    }
}

/// The coarsest level: attention between two resnets.
#[derive(Debug)]
pub(super) struct Middle {
    before: Resnet,
    attention: Option<PixelAttention>,
    behind: Resnet,
}

impl Middle {
    pub(super) fn load(part: &Component<'_>, config: &VaeConfig) -> Result<Self, DiffusionError> {
        let channels = config.channels[config.channels.len() - 1];
        let attention = config
            .mid_attention
            .then(|| PixelAttention::load(&part.sub("attentions.0"), config, channels));
        Ok(Self {
            before: resnet(&part.sub("resnets.0"), config, channels, channels)?,
            attention: attention.transpose()?,
            behind: resnet(&part.sub("resnets.1"), config, channels, channels)?,
        })
    }

    /// Beats before each part.
    pub(super) fn forward(&self, x: Tensor<4>, pulse: &Pulse) -> Tensor<4> {
        pulse.beat();
        let mut x = self.before.forward(x, None);
        if let Some(attention) = &self.attention {
            pulse.beat();
            x = attention.forward(x);
        }
        pulse.beat();
        self.behind.forward(x, None)
    }
}

/// Attention of one head between all pixels, around which the picture goes.
#[derive(Debug)]
struct PixelAttention {
    norm: GroupNorm,
    query: Affine,
    key: Affine,
    value: Affine,
    out: Affine,
}

impl PixelAttention {
    fn load(
        part: &Component<'_>,
        config: &VaeConfig,
        channels: usize,
    ) -> Result<Self, DiffusionError> {
        // The names that diffusers' first files have.
        let old = part.shape("query.weight").is_some();
        let names = if old {
            ["query", "key", "value", "proj_attn"]
        } else {
            ["to_q", "to_k", "to_v", "to_out.0"]
        };
        let [query, key, value, out] = names.map(|name| part.linear(name, [channels, channels]));
        Ok(Self {
            norm: part.group_norm("group_norm", channels, config.norm_groups, EPSILON)?,
            query: query?,
            key: key?,
            value: value?,
            out: out?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shape @ [batch, height, width, channels] = x.dims();
        let pixels: Tensor<3> =
            self.norm.forward(x.clone()).reshape([batch, height * width, channels]);
        let [q, k, v] = Affine::forward_each([&self.query, &self.key, &self.value], pixels);
        let seen = full(q, k, v, 1, (channels as f32).sqrt().recip(), Mask::None);
        x + self.out.forward(seen).reshape(shape)
    }
}
