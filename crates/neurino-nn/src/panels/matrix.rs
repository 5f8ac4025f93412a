//! Weights laid out in panels once, in the number format they are stored in.
use std::ops::Range;

use burn::tensor::{DType, Tensor, TensorData};
use half::{bf16, f16};
use rayon::prelude::*;

use super::{Geometry, Room, Source, multiply};
use crate::dense::{Brain, DenseMatrix, Half, Single, Stored};
use crate::simd::{Isa, LANES};

/// `[panels, inputs, 16]`; what is absent of the last panel is zero.
#[derive(Debug)]
pub(crate) struct PanelMatrix {
    out_features: usize,
    inputs: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    F32(Vec<[f32; LANES]>),
    F16(Vec<[u16; LANES]>),
    Bf16(Vec<[u16; LANES]>),
}

impl PanelMatrix {
    /// A convolution's weights, `[out, in, kernel height, kernel width]`, of the CPU. Inputs are in the
    /// order of a block's: place of the kernel by place, channel by channel.
    pub(crate) fn of_convolution(weight: Tensor<4>) -> Self {
        let [out_features, channels, height, width] = weight.dims();
        let weight = match weight.dtype() {
            DType::F16 | DType::BF16 | DType::F32 => weight,
            _ => weight.cast(DType::F32),
        };
        Self::of_data(&weight.into_data(), [out_features, channels, height * width])
    }

    /// A plain layer's weights.
    pub(crate) fn of_rows(matrix: &DenseMatrix) -> Self {
        Self::of_data(matrix.data(), [matrix.out_features(), matrix.in_features(), 1])
    }

    /// From `[out, channels, taps]`, f32, f16 or bf16.
    fn of_data(data: &TensorData, shape @ [out_features, channels, taps]: [usize; 3]) -> Self {
        const IS: &str = "a tensor's data has the number format that it says";
        let values = match data.dtype() {
            DType::F16 => Values::F16(arrange(data.as_slice().expect(IS), shape, f16::to_bits)),
            DType::BF16 => Values::Bf16(arrange(data.as_slice().expect(IS), shape, bf16::to_bits)),
            _ => Values::F32(arrange(data.as_slice::<f32>().expect(IS), shape, |x| x)),
        };
        Self { out_features, inputs: channels * taps, values }
    }

    /// `[out, inputs]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        [self.out_features, self.inputs]
    }

    /// `x Wᵀ + bias`, see [`multiply`].
    pub(crate) fn multiply(
        &self,
        x: &[f32],
        geometry: &Geometry,
        bias: Option<&[f32]>,
        isa: Isa,
    ) -> Vec<f32> {
        let Self { out_features, inputs, .. } = *self;
        match &self.values {
            Values::F32(values) => {
                let source = Panels::<Single> { values, out_features, inputs };
                multiply(x, geometry, &source, bias, isa)
            }
            Values::F16(values) => {
                let source = Panels::<Half> { values, out_features, inputs };
                multiply(x, geometry, &source, bias, isa)
            }
            Values::Bf16(values) => {
                let source = Panels::<Brain> { values, out_features, inputs };
                multiply(x, geometry, &source, bias, isa)
            }
        }
    }
}

/// From `[out, channels, taps]` to `[panels, taps, channels, 16]`.
fn arrange<T: Copy + Sync, B: Copy + Default + Send>(
    from: &[T],
    [out, channels, taps]: [usize; 3],
    bits: impl Fn(T) -> B + Sync,
) -> Vec<[B; LANES]> {
    let inputs = channels * taps;
    let mut panels = vec![[B::default(); LANES]; out.div_ceil(LANES) * inputs];
    panels.par_chunks_mut(inputs.max(1)).enumerate().for_each(|(panel, to)| {
        for lane in 0..LANES.min(out - panel * LANES) {
            let row = &from[(panel * LANES + lane) * inputs..][..inputs];
            for (channel, weights) in row.chunks_exact(taps).enumerate() {
                for (tap, weight) in weights.iter().enumerate() {
                    to[tap * channels + channel][lane] = bits(*weight);
                }
            }
        }
    });
    panels
}

struct Panels<'a, F: Stored> {
    values: &'a [[F::Bits; LANES]],
    out_features: usize,
    inputs: usize,
}

impl<F: Stored> Source<F> for Panels<'_, F> {
    fn out_features(&self) -> usize {
        self.out_features
    }

    /// Their inputs of a block stay in a core's second cache level.
    fn rows_at_once(&self) -> usize {
        128
    }

    fn panel<'s>(
        &'s self,
        panel: usize,
        inputs: Range<usize>,
        _room: &'s mut Room,
        _isa: Isa,
    ) -> &'s [[F::Bits; LANES]] {
        &self.values[panel * self.inputs..][inputs]
    }
}
