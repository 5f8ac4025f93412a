//! Two-dimensional convolution over channels-last pictures.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, module, ops::ConvOptions};

use crate::device::{in_memory, is_cpu, upload};
use crate::panels::{Geometry, PanelMatrix};
use crate::simd::Isa;

/// Pixels of zeros around a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns before.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns behind.
    pub right: usize,
}

impl Padding {
    /// As many on each side.
    pub fn same(pixels: usize) -> Self {
        Self { top: pixels, left: pixels, bottom: pixels, right: pixels }
    }
}

/// A convolution with an optional bias and any number of low-rank updates.
#[derive(Debug, Clone)]
pub struct Conv2d {
    kernel: Kernel,
    bias: Option<Tensor<1>>,
    updates: Vec<Update>,
}

/// An update of low rank: `scale * up(down(x))` is added to a convolution's result, where `down` has
/// the stride and the padding of the convolution.
#[derive(Debug, Clone)]
pub struct ConvLowRank {
    /// `[rank, in, kernel height, kernel width]`
    pub down: Tensor<4>,
    /// `[out, rank, 1, 1]`
    pub up: Tensor<4>,
    /// Alpha over rank, times the weight that the user gave.
    pub scale: f32,
}

#[derive(Debug, Clone)]
struct Update {
    down: Kernel,
    up: Kernel,
    scale: f32,
}

/// A convolution's low-rank updates in the form that it computes with, to be kept while the convolution
/// is not there. Copies share their memory.
#[derive(Debug, Clone, Default)]
pub struct HeldUpdates(Vec<Update>);

/// A convolution's weights and how they pass over the picture.
#[derive(Debug, Clone)]
struct Kernel {
    weight: Weight,
    /// `[out, in, kernel height, kernel width]`
    shape: [usize; 4],
    stride: usize,
    padding: Padding,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "bytes beside megabytes of weights")]
enum Weight {
    /// On a device that is not the CPU.
    Tensor(Tensor<4>),
    Cpu(Arc<PanelMatrix>),
}

impl Conv2d {
    /// A convolution.
    ///
    /// # Shapes
    /// - `weight`: `[out, in, kernel height, kernel width]`, f32, f16 or bf16; `bias`: `[out]`
    pub fn new(
        weight: Tensor<4>,
        bias: Option<Tensor<1>>,
        stride: usize,
        padding: Padding,
    ) -> Self {
        let bias = bias.map(|bias| bias.cast(DType::F32));
        Self { kernel: Kernel::new(weight, stride, padding), bias, updates: Vec::new() }
    }

    /// Channels of the result.
    pub fn out_channels(&self) -> usize {
        self.kernel.shape[0]
    }

    /// Channels of the input.
    pub fn in_channels(&self) -> usize {
        self.kernel.shape[1]
    }

    /// Rows and columns of the kernel.
    pub fn kernel_size(&self) -> [usize; 2] {
        let [_, _, height, width] = self.kernel.shape;
        [height, width]
    }

    /// Replaces all low-rank updates; none restores the layer as it was made.
    pub fn set_low_rank(&mut self, updates: Vec<ConvLowRank>) {
        let Kernel { stride, padding, .. } = self.kernel;
        let update = |ConvLowRank { down, up, scale }| Update {
            down: Kernel::new(down, stride, padding),
            up: Kernel::new(up, 1, Padding::default()),
            scale,
        };
        self.updates = updates.into_iter().map(update).collect();
    }

    /// Its low-rank updates.
    pub fn held_updates(&self) -> HeldUpdates {
        HeldUpdates(self.updates.clone())
    }

    /// Makes `held`, which a convolution of the same shape had, its low-rank updates.
    pub fn hold_updates(&mut self, held: HeldUpdates) {
        self.updates = held.0;
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, in]`, f32; returns `[batch, out height, out width, out]`, f32,
    ///   where `out height = (top + height + bottom - kernel height) / stride + 1`, rounded down
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner: Vec<Tensor<4>> = self
            .updates
            .iter()
            .map(|update| {
                let inner = update.down.forward(x.clone(), None).mul_scalar(update.scale);
                update.up.forward(inner, None)
            })
            .collect();
        let y = self.kernel.forward(x, self.bias.as_ref());
        inner.into_iter().fold(y, |y, update| y + update)
    }
}

impl Kernel {
    fn new(weight: Tensor<4>, stride: usize, padding: Padding) -> Self {
        let shape = weight.dims();
        let weight = if is_cpu(&weight.device()) {
            Weight::Cpu(Arc::new(PanelMatrix::of_convolution(weight)))
        } else {
            Weight::Tensor(weight)
        };
        Self { weight, shape, stride, padding }
    }

    fn forward(&self, x: Tensor<4>, bias: Option<&Tensor<1>>) -> Tensor<4> {
        match &self.weight {
            Weight::Cpu(matrix) => {
                let [out, _, height, width] = self.shape;
                let device = x.device();
                let geometry = Geometry::new(x.dims(), [height, width], self.stride, self.padding);
                let bias = bias.map(|bias| in_memory(bias.clone()));
                let y = matrix.multiply(&in_memory(x), &geometry, bias.as_deref(), Isa::best());
                let shape = [geometry.batch, geometry.out_height, geometry.out_width, out];
                upload(y, shape, &device)
            }
            Weight::Tensor(weight) => {
                let Padding { top, left, bottom, right } = self.padding;
                let padding = [(top, bottom), (left, right)];
                let options = ConvOptions::new_with_padding([self.stride; 2], padding, [1, 1], 1);
                let x = x.permute([0, 3, 1, 2]).cast(weight.dtype());
                let y = module::conv2d(x, weight.clone(), None, options);
                let y = y.permute([0, 2, 3, 1]).cast(DType::F32);
                match bias {
                    Some(bias) => y + bias.clone().unsqueeze(),
                    None => y,
                }
            }
        }
    }
}
