//! `y = x Wᵀ + b`, with updates of low rank that come and go while the weights stay.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::Linear;
use crate::device::{in_memory, in_place, is_cpu, upload};
use crate::panels::{Geometry, PanelMatrix};
use crate::rows;
use crate::simd::Isa;

/// A linear layer with an optional bias and any number of low-rank updates.
///
/// Its kernel on the CPU is made for many rows at once, where [`Linear`]'s is made for few.
#[derive(Debug, Clone)]
pub struct Affine {
    weights: Weights,
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
    down: Weights,
    up: Weights,
    scale: f32,
}

/// A layer's low-rank updates in the form that it computes with, to be kept while the layer is not
/// there. Copies share their memory.
#[derive(Debug, Clone, Default)]
pub struct HeldUpdates(Vec<Update>);

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "bytes beside megabytes of weights")]
enum Weights {
    Linear(Linear),
    /// Dense weights of the CPU.
    Panels(Arc<PanelMatrix>),
}

/// Rows that several products read: on the CPU as memory, which a tensor would copy for each.
struct Input {
    rows: usize,
    device: Device,
    values: Values,
}

#[expect(clippy::large_enum_variant, reason = "lives as long as a call")]
enum Values {
    Memory(Vec<f32>),
    Tensor(Tensor<2>),
}

impl Input {
    /// `[rows, in]`
    fn new(x: Tensor<2>) -> Self {
        let (rows, device) = (x.dims()[0], x.device());
        let values = if is_cpu(&device) { Values::Memory(in_memory(x)) } else { Values::Tensor(x) };
        Self { rows, device, values }
    }

    fn tensor(&self) -> Tensor<2> {
        match &self.values {
            Values::Memory(values) => {
                let shape = [self.rows, values.len() / self.rows.max(1)];
                upload(values.clone(), shape, &self.device)
            }
            Values::Tensor(tensor) => tensor.clone(),
        }
    }

    fn read<R>(&self, use_it: impl FnOnce(&[f32]) -> R) -> R {
        match &self.values {
            Values::Memory(values) => use_it(values),
            Values::Tensor(tensor) => use_it(&in_memory(tensor.clone())),
        }
    }
}

impl Weights {
    fn new(linear: Linear) -> Self {
        match linear.on_cpu() {
            Some(matrix) => Self::Panels(Arc::new(PanelMatrix::of_rows(matrix))),
            None => Self::Linear(linear.of_one_job()),
        }
    }

    fn dense(weight: Tensor<2>) -> Self {
        Self::new(Linear::dense(weight))
    }

    /// `[out, in]`.
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Linear(linear) => linear.shape(),
            Self::Panels(matrix) => matrix.shape(),
        }
    }

    /// `[rows, in]` to `[rows, out]`.
    fn forward(&self, x: &Input, bias: Option<&Tensor<1>>) -> Tensor<2> {
        match self {
            Self::Linear(linear) => {
                let y = linear.forward(x.tensor());
                match bias {
                    Some(bias) => in_place(
                        y,
                        |y| rows::add_to_each(y, &in_memory(bias.clone())),
                        |y| y + bias.clone().unsqueeze(),
                    ),
                    None => y,
                }
            }
            Self::Panels(matrix) => {
                let geometry = Geometry::rows(x.rows, matrix.shape()[1]);
                let bias = bias.map(|bias| in_memory(bias.clone()));
                let y = x.read(|x| matrix.multiply(x, &geometry, bias.as_deref(), Isa::best()));
                upload(y, [x.rows, matrix.shape()[0]], &x.device)
            }
        }
    }
}

impl Affine {
    /// A layer of `linear` and a `bias` of shape `[out]`.
    pub fn new(linear: Linear, bias: Option<Tensor<1>>) -> Self {
        let bias = bias.map(|bias| bias.cast(DType::F32));
        Self { weights: Weights::new(linear), bias, updates: Vec::new() }
    }

    /// Width of the result.
    pub fn out_features(&self) -> usize {
        self.weights.shape()[0]
    }

    /// Width of the input.
    pub fn in_features(&self) -> usize {
        self.weights.shape()[1]
    }

    /// Replaces all low-rank updates; none restores the layer as it was made.
    pub fn set_low_rank(&mut self, updates: Vec<LowRank>) {
        let update = |LowRank { down, up, scale }| Update {
            down: Weights::dense(down),
            up: Weights::dense(up),
            scale,
        };
        self.updates = updates.into_iter().map(update).collect();
    }

    /// Its low-rank updates.
    pub fn held_updates(&self) -> HeldUpdates {
        HeldUpdates(self.updates.clone())
    }

    /// Makes `held`, which a layer of the same shape had, its low-rank updates.
    pub fn hold_updates(&mut self, held: HeldUpdates) {
        self.updates = held.0;
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
        let x = Input::new(x.reshape([rows, features]));
        layers.map(|layer| {
            let mut y = layer.weights.forward(&x, layer.bias.as_ref());
            for update in &layer.updates {
                let inner = update.down.forward(&x, None).mul_scalar(update.scale);
                y = y + update.up.forward(&Input::new(inner), None);
            }
            let mut shape = shape;
            shape[D - 1] = layer.out_features();
            y.reshape(shape)
        })
    }
}
