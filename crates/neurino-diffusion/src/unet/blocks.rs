//! The levels of the way down, the middle, and the levels of the way up.

use burn::tensor::Tensor;
use neurino_nn::Conv2d;
use neurino_nn::conv::Padding;
use neurino_nn::resize::{Places, nearest_by};

use super::UnetConfig;
use super::resnet::{Resnet, ResnetDims};
use super::transformer::{SpatialTransformer, TransformerDims};
use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::checkpoint::streaming::Place;
use crate::lora::{Layer, LowRankPart};

/// A resnet, and a transformer behind it where its level has attention.
#[derive(Debug)]
struct Stage {
    resnet: Place<Resnet>,
    attention: Option<SpatialTransformer>,
}

impl Stage {
    fn load(
        part: &Component<'_>,
        config: &UnetConfig,
        level: usize,
        layer: usize,
        channels_in: usize,
    ) -> Result<Self, DiffusionError> {
        let dims = resnet_dims(config, channels_in, config.channels[level]);
        let resnet = resnet(&part.sub(format_args!("resnets.{layer}")), dims)?;
        let attention = (config.depths[level] > 0).then(|| {
            let part = part.sub(format_args!("attentions.{layer}"));
            SpatialTransformer::load(&part, transformer_dims(config, level, config.depths[level]))
        });
        Ok(Self { resnet, attention: attention.transpose()? })
    }

    fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let x = self.resnet.with(|resnet| resnet.forward(x, Some(time)));
        match &self.attention {
            Some(attention) => attention.forward(x, context),
            None => x,
        }
    }

    fn low_rank_layers(
        &mut self,
        block: &str,
        layer: usize,
        visit: &mut dyn FnMut(&str, Layer<'_>),
    ) {
        self.resnet.low_rank_layers(&format!("{block}.resnets.{layer}"), visit);
        if let Some(attention) = &mut self.attention {
            attention.low_rank_layers(&format!("{block}.attentions.{layer}"), visit);
        }
    }
}

fn resnet(part: &Component<'_>, dims: ResnetDims) -> Result<Place<Resnet>, DiffusionError> {
    Place::load(part, move |part| Resnet::load(part, dims))
}

fn resnet_dims(config: &UnetConfig, channels_in: usize, channels_out: usize) -> ResnetDims {
    ResnetDims {
        channels_in,
        channels_out,
        time_width: Some(config.time_width()),
        norm_groups: config.norm_groups,
        norm_epsilon: config.norm_epsilon,
    }
}

fn transformer_dims(config: &UnetConfig, level: usize, depth: usize) -> TransformerDims {
    TransformerDims {
        channels: config.channels[level],
        heads: config.heads[level],
        depth,
        context_width: config.context_width,
        norm_groups: config.norm_groups,
    }
}

/// A level on the way down: all but the last halve the picture at their end.
#[derive(Debug)]
pub(super) struct DownBlock {
    stages: Vec<Stage>,
    downsample: Option<Conv2d>,
}

impl DownBlock {
    pub(super) fn load(
        part: &Component<'_>,
        config: &UnetConfig,
        level: usize,
    ) -> Result<Self, DiffusionError> {
        let out = config.channels[level];
        let before = config.channels[level.saturating_sub(1)];
        let stage = |layer| {
            let channels_in = if layer == 0 { before } else { out };
            Stage::load(part, config, level, layer, channels_in)
        };
        let stages = (0..config.layers_per_block).map(stage).collect::<Result<_, _>>()?;
        let downsample = (level + 1 < config.channels.len())
            .then(|| part.conv("downsamplers.0.conv", [out, out, 3], 2, Padding::same(1)));
        Ok(Self { stages, downsample: downsample.transpose()? })
    }

    /// Leaves what each layer made in `skips`.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        context: &Tensor<3>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for stage in &self.stages {
            x = stage.forward(x, time, context);
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(x);
            skips.push(x.clone());
        }
        x
    }

    pub(super) fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        for (layer, stage) in self.stages.iter_mut().enumerate() {
            stage.low_rank_layers(path, layer, visit);
        }
        if let Some(conv) = &mut self.downsample {
            visit(&format!("{path}.downsamplers.0.conv"), Layer::Conv(conv));
        }
    }
}

/// The coarsest level, between the ways.
#[derive(Debug)]
pub(super) struct MidBlock {
    before: Place<Resnet>,
    attention: Option<SpatialTransformer>,
    behind: Place<Resnet>,
}

impl MidBlock {
    pub(super) fn load(part: &Component<'_>, config: &UnetConfig) -> Result<Self, DiffusionError> {
        let level = config.channels.len() - 1;
        let channels = config.channels[level];
        let dims = resnet_dims(config, channels, channels);
        // In the order in which they are computed.
        let before = resnet(&part.sub("resnets.0"), dims)?;
        let attention = (config.mid_depth > 0).then(|| {
            let dims = transformer_dims(config, level, config.mid_depth);
            SpatialTransformer::load(&part.sub("attentions.0"), dims)
        });
        Ok(Self {
            before,
            attention: attention.transpose()?,
            behind: resnet(&part.sub("resnets.1"), dims)?,
        })
    }

    pub(super) fn forward(&self, x: Tensor<4>, time: &Tensor<2>, context: &Tensor<3>) -> Tensor<4> {
        let mut x = self.before.with(|resnet| resnet.forward(x, Some(time)));
        if let Some(attention) = &self.attention {
            x = attention.forward(x, context);
        }
        self.behind.with(|resnet| resnet.forward(x, Some(time)))
    }

    pub(super) fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        self.before.low_rank_layers(&format!("{path}.resnets.0"), visit);
        if let Some(attention) = &mut self.attention {
            attention.low_rank_layers(&format!("{path}.attentions.0"), visit);
        }
        self.behind.low_rank_layers(&format!("{path}.resnets.1"), visit);
    }
}

/// A level on the way up: each layer sees what the way down left, and all but the finest enlarge the
/// picture at their end.
#[derive(Debug)]
pub(super) struct UpBlock {
    stages: Vec<Stage>,
    upsample: Option<Conv2d>,
    /// Of sizes that are not doubled evenly.
    places: Places,
}

impl UpBlock {
    /// - `level`: counted from the finest, as on the way down
    pub(super) fn load(
        part: &Component<'_>,
        config: &UnetConfig,
        level: usize,
    ) -> Result<Self, DiffusionError> {
        let channels = &config.channels;
        let out = channels[level];
        // What comes up from the coarser level, and the skip of the finer one at the end.
        let below = channels[(level + 1).min(channels.len() - 1)];
        let above = channels[level.saturating_sub(1)];
        let stage = |layer| {
            let x = if layer == 0 { below } else { out };
            let skip = if layer == config.layers_per_block { above } else { out };
            Stage::load(part, config, level, layer, x + skip)
        };
        let stages = (0..=config.layers_per_block).map(stage).collect::<Result<_, _>>()?;
        let upsample =
            (level > 0).then(|| part.conv("upsamplers.0.conv", [out, out, 3], 1, Padding::same(1)));
        Ok(Self { stages, upsample: upsample.transpose()?, places: Places::default() })
    }

    /// Takes what it needs from the end of `skips`. The picture is enlarged to the size of the next
    /// skip, which need not be twice its own.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        context: &Tensor<3>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for stage in &self.stages {
            let skip =
                skips.pop().expect("the way down leaves a skip for each layer of the way up");
            x = stage.forward(Tensor::cat(vec![x, skip], 3), time, context);
        }
        match (&self.upsample, skips.last()) {
            (Some(conv), Some(next)) => {
                let [_, height, width, _] = next.dims();
                conv.forward(nearest_by(x, height, width, &self.places))
            }
            _ => x,
        }
    }

    pub(super) fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        for (layer, stage) in self.stages.iter_mut().enumerate() {
            stage.low_rank_layers(path, layer, visit);
        }
        if let Some(conv) = &mut self.upsample {
            visit(&format!("{path}.upsamplers.0.conv"), Layer::Conv(conv));
        }
    }
}
