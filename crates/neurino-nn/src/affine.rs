//! `y = x Wᵀ + b`, with updates of low rank that come and go while the weights stay.

use burn::tensor::{DType, Tensor};

use crate::Linear;
use crate::device::{in_memory, in_place};
use crate::rows;

/// A linear layer with an optional bias and any number of low-rank updates.
#[derive(Debug, Clone)]
pub struct Affine {
    linear: Linear,
    bias: Option<Tensor<1>>,
    updates: Vec<Update>,
}

/// An update of low rank: `scale * up down` is added to a layer's weights.
///
/// Source: Hu et al. 2021 (LoRA).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`
    pub down: Tensor<2>,
    /// `[out, rank]`
    pub up: Tensor<2>,
    /// Alpha over rank, times the weight that the user gave.
    pub scale: f32,
}

#[derive(Debug, Clone)]
struct Update {
    down: Linear,
    up: Linear,
    scale: f32,
}

impl Affine {
    /// A layer of `linear` and a `bias` of shape `[out]`.
    pub fn new(linear: Linear, bias: Option<Tensor<1>>) -> Self {
        let bias = bias.map(|bias| bias.cast(DType::F32));
        Self { linear, bias, updates: Vec::new() }
    }

    /// Width of the result.
    pub fn out_features(&self) -> usize {
        self.linear.shape()[0]
    }

    /// Width of the input.
    pub fn in_features(&self) -> usize {
        self.linear.shape()[1]
    }

    /// Replaces all low-rank updates; none restores the layer as it was made.
    pub fn set_low_rank(&mut self, updates: Vec<LowRank>) {
        let update = |LowRank { down, up, scale }| Update {
            down: Linear::dense(down),
            up: Linear::dense(up),
            scale,
        };
        self.updates = updates.into_iter().map(update).collect();
    }

    /// # Shapes
    /// - `x`: `[.., in]`, f32; returns `[.., out]`, f32
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [y] = Self::forward_each([self], x);
        y
    }

    /// Several layers over the same input, which costs less than one after the other.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`, f32; returns `[.., out]`, f32, of each layer
    pub fn forward_each<const N: usize, const D: usize>(
        layers: [&Self; N],
        x: Tensor<D>,
    ) -> [Tensor<D>; N] {
        let shape = x.dims();
        let features = shape[D - 1];
        let rows = shape[..D - 1].iter().product::<usize>();
        let x: Tensor<2> = x.reshape([rows, features]);
        let updated = layers.iter().any(|layer| !layer.updates.is_empty());
        let kept = updated.then(|| x.clone());
        let mut products = Linear::forward_each(layers.map(|layer| &layer.linear), x).into_iter();
        layers.map(|layer| {
            let mut y = products.next().expect("a product for each layer");
            if let Some(bias) = &layer.bias {
                y = add_bias(y, bias);
            }
            for update in &layer.updates {
                let x = kept.clone().expect("the input is kept if there is an update");
                let inner = update.down.forward(x).mul_scalar(update.scale);
                y = y + update.up.forward(inner);
            }
            let mut shape = shape;
            shape[D - 1] = layer.out_features();
            y.reshape(shape)
        })
    }
}

/// Adds `bias`, `[features]`, to each row of `y`, `[rows, features]`.
fn add_bias(y: Tensor<2>, bias: &Tensor<1>) -> Tensor<2> {
    in_place(y, |y| rows::add_to_each(y, &in_memory(bias.clone())))
        .unwrap_or_else(|y| y + bias.clone().unsqueeze())
}
