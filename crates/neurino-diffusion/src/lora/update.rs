//! The factors of an update, cut to one layer.

use std::fmt;
use std::ops::Range;

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

/// Whether an update fits a layer that owns `rows` of it, by shapes alone.
pub(super) fn fits(update: &Update, layer: &LayerShape, rows: Rows) -> bool {
    let down = match *update.down.shape() {
        [_, inp, height, width] => [inp, height, width],
        [_, inp] => [inp, 1, 1],
        _ => return false,
    };
    let out = update.up.shape().first().copied().unwrap_or(0);
    let [height, width] = layer.kernel.unwrap_or([1, 1]);
    down == [layer.inp, height, width] && rows_of(layer, rows, out).is_some()
}

/// The layer's rows of an update with `out` of them, in their order; `None` if there are more or fewer
/// than that layer and its companions have.
fn rows_of(layer: &LayerShape, rows: Rows, out: usize) -> Option<[Range<usize>; 2]> {
    let all = |rows: Range<usize>| Some([rows, 0..0]);
    let from = |start: Option<usize>| {
        let start = start?;
        let end = start.checked_add(layer.out)?;
        (end <= out).then_some([start..end, 0..0])
    };
    let (own, inp) = (layer.out, layer.inp);
    match rows {
        Rows::All => (out == own).then_some(0..out).and_then(all),
        Rows::Third(third) if Some(out) == own.checked_mul(3) => from(own.checked_mul(third)),
        // The last of the companions knows how many rows all have together.
        Rows::Behind(3) if Some(out) == inp.checked_mul(3).and_then(|n| n.checked_add(own)) => {
            from(inp.checked_mul(3))
        }
        Rows::Behind(times @ 0..3) if own == inp => from(inp.checked_mul(times)),
        Rows::Swapped if out == own && out.is_multiple_of(2) => Some([out / 2..out, 0..out / 2]),
        Rows::Third(_) | Rows::Behind(_) | Rows::Swapped => None,
    }
}

impl Factors {
    /// The update for a layer that owns `rows`, which it must fit (see [`fits`]).
    pub(super) fn for_layer(
        &self,
        layer: &LayerShape,
        rows: Rows,
        scale: f32,
        placement: &Placement,
    ) -> Option<LayerUpdate> {
        let [rank, inp, _, _] = self.down_shape;
        let up = self.up_rows(layer, rows)?;
        let Placement { device, dtype } = placement;
        let down: Tensor<4> = upload(self.down.clone(), self.down_shape, device).cast(*dtype);
        let up = Tensor::<2>::from_data(TensorData::new(up, [layer.out, rank]), device);
        let up = up.cast(*dtype);
        if layer.kernel.is_none() {
            return Some(LayerUpdate::Affine(LowRank {
                down: down.reshape([rank, inp]),
                up,
                scale,
            }));
        }
        let up = up.reshape([layer.out, rank, 1, 1]);
        Some(LayerUpdate::Conv(ConvLowRank { down, up, scale }))
    }

    fn up_rows(&self, layer: &LayerShape, rows: Rows) -> Option<Vec<f32>> {
        let rank = self.down_shape[0];
        let parts = rows_of(layer, rows, self.out)?;
        let part = |rows: Range<usize>| self.up.get(rows.start * rank..rows.end * rank);
        let [first, second] = parts.map(part);
        Some([first?, second?].concat())
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
