//! Two convolutions around which a picture goes.

use burn::tensor::Tensor;
use neurino_nn::conv::Padding;
use neurino_nn::{Affine, Conv2d, GroupNorm};

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankPart};

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`.
///
/// Source: He et al. 2016 and Ho et al. 2020.
#[derive(Debug)]
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    /// `[time width, out]`; autoencoders have none.
    time: Option<Affine>,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// Where the numbers of channels differ.
    shortcut: Option<Affine>,
}

/// The dimensions of a resnet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetDims {
    pub(crate) channels_in: usize,
    pub(crate) channels_out: usize,
    pub(crate) time_width: Option<usize>,
    pub(crate) norm_groups: usize,
    pub(crate) norm_epsilon: f64,
}

impl Resnet {
    pub(crate) fn load(part: &Component<'_>, dims: ResnetDims) -> Result<Self, DiffusionError> {
        let ResnetDims { channels_in: inp, channels_out: out, norm_groups, norm_epsilon, .. } =
            dims;
        let same = Padding::same(1);
        let time = dims.time_width.map(|width| part.linear("time_emb_proj", [out, width]));
        let shortcut = (inp != out).then(|| part.linear("conv_shortcut", [out, inp]));
        Ok(Self {
            norm1: part.group_norm("norm1", inp, norm_groups, norm_epsilon)?,
            conv1: part.conv("conv1", [out, inp, 3], 1, same)?,
            time: time.transpose()?,
            norm2: part.group_norm("norm2", out, norm_groups, norm_epsilon)?,
            conv2: part.conv("conv2", [out, out, 3], 1, same)?,
            shortcut: shortcut.transpose()?,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, in]`; returns `[batch, height, width, out]`
    /// - `time`: `[1 or batch, time width]`, after the activation
    pub(crate) fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut h = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(layer), Some(time)) = (&self.time, time) {
            let [rows, _] = time.dims();
            let shift = layer.forward(time.clone());
            h = h + shift.reshape([rows, 1, 1, layer.out_features()]);
        }
        let h = self.conv2.forward(self.norm2.forward_silu(h));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        x + h
    }
}

impl LowRankPart for Resnet {
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        visit(&format!("{path}.conv1"), Layer::Conv(&mut self.conv1));
        if let Some(time) = &mut self.time {
            visit(&format!("{path}.time_emb_proj"), Layer::Affine(time));
        }
        visit(&format!("{path}.conv2"), Layer::Conv(&mut self.conv2));
        if let Some(shortcut) = &mut self.shortcut {
            visit(&format!("{path}.conv_shortcut"), Layer::Affine(shortcut));
        }
    }
}
