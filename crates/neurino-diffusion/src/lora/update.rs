//! The factors of an update, cut to one layer.

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use neurino_nn::affine::LowRank;
use neurino_nn::conv::ConvLowRank;
use neurino_nn::device::upload;

use super::aliases::Rows;
use super::layer::{Layer, Placement};
use super::{LoraError, Update};

/// What an update must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LayerShape {
    out: usize,
    inp: usize,
    /// Of a convolution.
    kernel: Option<[usize; 2]>,
}

impl LayerShape {
    pub(super) fn of(layer: &Layer<'_>) -> Self {
        match layer {
            Layer::Affine(affine) => {
                Self { out: affine.out_features(), inp: affine.in_features(), kernel: None }
            }
            Layer::Conv(conv) => Self {
                out: conv.out_channels(),
                inp: conv.in_channels(),
                kernel: Some(conv.kernel_size()),
            },
        }
    }
}

impl fmt::Display for LayerShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { out, inp, kernel } = self;
        match kernel {
            Some([height, width]) => write!(f, "[{out}, {inp}, {height}, {width}]"),
            None => write!(f, "[{out}, {inp}]"),
        }
    }
}

/// An update for one layer.
#[derive(Debug)]
pub(super) enum LayerUpdate {
    Affine(LowRank),
    Conv(ConvLowRank),
}

/// Both factors of an update, as f32.
pub(super) struct Factors {
    /// `[rank, in, kernel height, kernel width]`
    down: Vec<f32>,
    down_shape: [usize; 4],
    /// `[out, rank]`
    up: Vec<f32>,
    out: usize,
}

/// Reads both factors.
pub(super) fn read(update: &Update) -> Result<Factors, LoraError> {
    let down_shape = match *update.down.shape() {
        [rank, inp, height, width] => [rank, inp, height, width],
        [rank, inp] => [rank, inp, 1, 1],
        ref other => {
            return Err(update.down.damaged(format!("a factor has shape {other:?}")).into());
        }
    };
    Ok(Factors {
        down: update.down.read()?.to_f32()?,
        down_shape,
        up: update.up.read()?.to_f32()?,
        out: update.up.shape().first().copied().unwrap_or(0),
    })
}

impl Factors {
    /// The update for a layer that owns `rows`; or, if it does not fit, what the factors are.
    pub(super) fn for_layer(
        &self,
        layer: &LayerShape,
        rows: Rows,
        scale: f32,
        placement: &Placement,
    ) -> Result<LayerUpdate, String> {
        let [rank, inp, height, width] = self.down_shape;
        let found = || format!("[{}, {rank}] by {:?}", self.out, self.down_shape);
        let kernel = layer.kernel.unwrap_or([1, 1]);
        if inp != layer.inp || kernel != [height, width] {
            return Err(found());
        }
        let up = self.up_rows(layer, rows).ok_or_else(found)?;
        let Placement { device, dtype } = placement;
        let down: Tensor<4> = upload(self.down.clone(), self.down_shape, device).cast(*dtype);
        let up = Tensor::<2>::from_data(TensorData::new(up, [layer.out, rank]), device);
        let up = up.cast(*dtype);
        if layer.kernel.is_none() {
            return Ok(LayerUpdate::Affine(LowRank { down: down.reshape([rank, inp]), up, scale }));
        }
        let up = up.reshape([layer.out, rank, 1, 1]);
        Ok(LayerUpdate::Conv(ConvLowRank { down, up, scale }))
    }

    /// The layer's rows of `up`; `None` if there are more or fewer than that layer and its companions
    /// have.
    fn up_rows(&self, layer: &LayerShape, rows: Rows) -> Option<Vec<f32>> {
        let rank = self.down_shape[0];
        let part = |first: usize, count: usize| {
            let start = first.checked_mul(rank)?;
            Some(self.up.get(start..start.checked_add(count.checked_mul(rank)?)?)?.to_vec())
        };
        match rows {
            Rows::All => (self.out == layer.out).then(|| self.up.clone()),
            Rows::Third(third) if self.out == 3 * layer.out => part(third * layer.out, layer.out),
            // The last of the companions knows how many rows all have together.
            Rows::Behind(3) if self.out == 3 * layer.inp + layer.out => {
                part(3 * layer.inp, layer.out)
            }
            Rows::Behind(times @ 0..3) if layer.out == layer.inp => {
                part(times * layer.inp, layer.out)
            }
            Rows::Swapped if self.out == layer.out && self.out.is_multiple_of(2) => {
                let half = layer.out / 2;
                Some([part(half, half)?, part(0, half)?].concat())
            }
            Rows::Third(_) | Rows::Behind(_) | Rows::Swapped => None,
        }
    }
}

/// Makes `updates` the layer's, in place of those it had.
pub(super) fn set(layer: Layer<'_>, updates: Vec<LayerUpdate>) {
    match layer {
        Layer::Affine(affine) => affine.set_low_rank(
            updates
                .into_iter()
                .filter_map(|update| match update {
                    LayerUpdate::Affine(update) => Some(update),
                    LayerUpdate::Conv(_) => None,
                })
                .collect(),
        ),
        Layer::Conv(conv) => conv.set_low_rank(
            updates
                .into_iter()
                .filter_map(|update| match update {
                    LayerUpdate::Conv(update) => Some(update),
                    LayerUpdate::Affine(_) => None,
                })
                .collect(),
        ),
    }
}
