//! The UNet of Stable Diffusion 1.x and SDXL: predicts the noise in latents.
//!
//! Reading order: this file, the network from above; [`config`], its dimensions; `blocks`, a level;
//! `resnet` and `transformer`, what a level is made of.

use burn::tensor::{Tensor, activation};
use neurino_nn::conv::Padding;
use neurino_nn::resize::timestep_embedding;
use neurino_nn::{Affine, Conv2d, GroupNorm};

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankLayers, Placement};
use blocks::{DownBlock, MidBlock, UpBlock};

mod blocks;
pub mod config;
pub(crate) mod resnet;
mod transformer;

pub use config::{AddedConfig, UnetConfig};

/// What SDXL is told besides the prompt's states.
#[derive(Debug, Clone)]
pub struct AddedCondition {
    /// `[batch, width]`: the prompt's pooled state.
    pub pooled: Tensor<2>,
    /// `[batch, 6 * time width]`: sizes as waves (see [`Unet::sizes`]).
    pub sizes: Tensor<2>,
}

/// Called with a block's name as diffusers has it, and what it made.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor<4>);

/// A UNet that sees the time and the prompt.
///
/// Source: Rombach et al. 2022 and Podell et al. 2023; `huggingface/diffusers@v0.30.2`
/// `models/unets/unet_2d_condition.py`.
#[derive(Debug)]
pub struct Unet {
    config: UnetConfig,
    placement: Placement,
    conv_in: Conv2d,
    time: [Affine; 2],
    added: Option<[Affine; 2]>,
    down: Vec<DownBlock>,
    mid: MidBlock,
    /// From the coarsest level to the finest.
    up: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Unet {
    /// Loads the network.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent, of another shape or unreadable; `Cancelled`.
    pub fn load(part: &Component<'_>, config: &UnetConfig) -> Result<Self, DiffusionError> {
        let (first, time_width) = (config.channels[0], config.time_width());
        let two_layers = |name: &str, width| -> Result<[Affine; 2], DiffusionError> {
            let part = part.sub(name);
            let second = part.linear("linear_2", [time_width, time_width])?;
            Ok([part.linear("linear_1", [time_width, width])?, second])
        };
        let added = config.added.map(|added| two_layers("add_embedding", added.input_width));
        let levels = config.channels.len();
        let down = |i| DownBlock::load(&part.sub(format_args!("down_blocks.{i}")), config, i);
        let up = |i| {
            let part = part.sub(format_args!("up_blocks.{i}"));
            UpBlock::load(&part, config, levels - 1 - i)
        };
        let same = Padding::same(1);
        Ok(Self {
            conv_in: part.conv("conv_in", [first, config.in_channels, 3], 1, same)?,
            time: two_layers("time_embedding", first)?,
            added: added.transpose()?,
            down: (0..levels).map(down).collect::<Result<_, _>>()?,
            mid: MidBlock::load(&part.sub("mid_block"), config)?,
            up: (0..levels).map(up).collect::<Result<_, _>>()?,
            norm_out: part.group_norm(
                "conv_norm_out",
                first,
                config.norm_groups,
                config.norm_epsilon,
            )?,
            conv_out: part.conv("conv_out", [config.out_channels, first, 3], 1, same)?,
            placement: part.placement(),
            config: config.clone(),
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// A time as the network takes it: `[1, width]`.
    ///
    /// - `timestep`: of the schedule that the network was trained with, 0 .. 1000
    pub fn timestep(&self, timestep: f32) -> Tensor<2> {
        timestep_embedding(&[timestep], self.config.channels[0], &self.placement.device)
    }

    /// Sizes as a network with an added condition takes them: `[batch, width]`.
    ///
    /// - `time_ids`: of each element of the batch: height and width of the picture that it should look
    ///   like a part of, top and left of that part, height and width of the part
    pub fn sizes(&self, time_ids: &[[f32; 6]]) -> Tensor<2> {
        let width = self.config.added.map_or(0, |added| added.time_width);
        let waves = timestep_embedding(time_ids.as_flattened(), width, &self.placement.device);
        waves.reshape([time_ids.len(), 6 * width])
    }

    /// The noise in `sample`. All it takes is on the device: nothing goes there or comes back on the way,
    /// unless layers stream.
    ///
    /// # Shapes
    /// - `sample`: `[batch, height, width, in channels]`, of any size; returns the same with the out
    ///   channels
    /// - `timestep`: [`Unet::timestep`]'s, `[1, width]`
    /// - `context`: `[batch, tokens, context width]`
    /// - `added`: for a network that has an added condition, and only for such
    pub fn forward(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<2>,
        context: &Tensor<3>,
        added: Option<&AddedCondition>,
    ) -> Tensor<4> {
        self.forward_tapped(sample, timestep, context, added, &mut |_, _| ())
    }

    /// [`Unet::forward`] that shows `tap` what each block makes: `time_embedding` (as `[rows, 1, 1,
    /// width]`), `conv_in`, `down_blocks.I`, `mid_block`, `up_blocks.I`.
    pub fn forward_tapped(
        &self,
        sample: Tensor<4>,
        timestep: Tensor<2>,
        context: &Tensor<3>,
        added: Option<&AddedCondition>,
        tap: Tap<'_>,
    ) -> Tensor<4> {
        let time = self.time(timestep, added, tap);
        let mut x = self.conv_in.forward(sample);
        tap("conv_in", &x);
        let mut skips = vec![x.clone()];
        for (i, block) in self.down.iter().enumerate() {
            x = block.forward(x, &time, context, &mut skips);
            tap(&format!("down_blocks.{i}"), &x);
        }
        x = self.mid.forward(x, &time, context);
        tap("mid_block", &x);
        for (i, block) in self.up.iter().enumerate() {
            x = block.forward(x, &time, context, &mut skips);
            tap(&format!("up_blocks.{i}"), &x);
        }
        self.conv_out.forward(self.norm_out.forward_silu(x))
    }

    /// The time, and the added condition with it, as the resnets project it: after its activation.
    fn time(&self, timestep: Tensor<2>, added: Option<&AddedCondition>, tap: Tap<'_>) -> Tensor<2> {
        let mut time = two_layers(&self.time, timestep);
        let [rows, width] = time.dims();
        tap("time_embedding", &time.clone().reshape([rows, 1, 1, width]));
        if let (Some(layers), Some(added)) = (&self.added, added) {
            let input = Tensor::cat(vec![added.pooled.clone(), added.sizes.clone()], 1);
            time = time + two_layers(layers, input);
        }
        activation::silu(time)
    }
}

fn two_layers([first, second]: &[Affine; 2], x: Tensor<2>) -> Tensor<2> {
    second.forward(activation::silu(first.forward(x)))
}

impl LowRankLayers for Unet {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        visit("conv_in", Layer::Conv(&mut self.conv_in));
        let two =
            [("time_embedding", Some(&mut self.time)), ("add_embedding", self.added.as_mut())];
        for (path, layers) in two {
            for (i, layer) in layers.into_iter().flatten().enumerate() {
                visit(&format!("{path}.linear_{}", i + 1), Layer::Affine(layer));
            }
        }
        for (i, block) in self.down.iter_mut().enumerate() {
            block.low_rank_layers(&format!("down_blocks.{i}"), visit);
        }
        self.mid.low_rank_layers("mid_block", visit);
        for (i, block) in self.up.iter_mut().enumerate() {
            block.low_rank_layers(&format!("up_blocks.{i}"), visit);
        }
        visit("conv_out", Layer::Conv(&mut self.conv_out));
    }
}
