//! Packed weights: multiply without unpacking them into memory first.
//!
//! [`packed`] holds the weights of language models, [`crate::cpu`] multiplies with them on the CPU,
//! `unpacking` does so with the forms of image models; [`Dequantized`] is the plain form that every
//! device has and that the kernels are tested against.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::cpu::CpuMatrix;
use crate::device::{is_cpu, upload};
use crate::simd::Isa;

mod activations;
pub(crate) mod card;
mod format;
mod kernel;
mod on_device;
pub mod packed;
mod source;
#[cfg(test)]
mod tests;
mod unpacking;

pub use on_device::UNPACKING_BYTES;
pub use packed::{PackedMatrix, PackedRow, Packing};
pub use unpacking::{hqq_on, nf4_on};

pub(crate) use activations::Activations;
use kernel::Stripe;

/// Multiplies activations with a packed matrix.
pub trait QuantMatmul: Debug + Send + Sync {
    /// `x Wᵀ`.
    ///
    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32
    fn matmul(&self, x: Tensor<2>) -> Tensor<2>;

    /// `[out, in]`.
    fn shape(&self) -> [usize; 2];

    /// The products of an expert's rows, written into their pairs' rows of `y`; `None` if they are not
    /// multiplied in tiles.
    #[cfg(feature = "kernels")]
    fn multiply_pairs(
        &self,
        _x: Tensor<2>,
        _routes: &neurino_kernels::tensor::tiles::RouteTensor,
        _expert: usize,
        _y: Tensor<2>,
    ) -> Option<Tensor<2>> {
        None
    }

    /// The weights themselves if they lie in this machine's memory for its CPU.
    fn on_cpu(&self) -> Option<&Arc<PackedMatrix>> {
        None
    }
}

/// The best way to multiply with `matrix` on `device`. Where the weights have to be unpacked, they
/// are kept as `dtype`.
pub fn matmul_on(
    matrix: &Arc<PackedMatrix>,
    device: &Device,
    dtype: DType,
) -> Arc<dyn QuantMatmul> {
    if is_cpu(device) {
        Arc::new(CpuKernel::new(Arc::clone(matrix)))
    } else {
        #[cfg(feature = "kernels")]
        {
            let _ = dtype;
            Arc::new(crate::cuda::CudaMatrix::new(matrix, device))
        }
        #[cfg(not(feature = "kernels"))]
        Arc::new(Dequantized::new(matrix, device, dtype))
    }
}

/// What holds a packed matrix, in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The kernels for this machine's CPU.
    Cpu,
    /// The kernels for cards.
    Card,
}

impl Holder {
    /// What holds matrices on `device`.
    pub fn of(device: &Device) -> Self {
        if is_cpu(device) { Self::Cpu } else { Self::Card }
    }

    /// Memory that a matrix `[out, in]` takes, known before it is read; without the permutation of a
    /// matrix of GPTQ. `group` inputs share a scale where the packing does not say.
    pub fn planned_bytes(self, packing: Packing, shape: [usize; 2], group: usize) -> usize {
        match self {
            Self::Cpu => PackedMatrix::planned_bytes(packing, shape[0], shape[1], group),
            Self::Card => card::size_bytes(packing, shape, group),
        }
    }

    /// Memory that `matrix` takes.
    pub fn held_bytes(self, matrix: &PackedMatrix) -> usize {
        if self == Self::Cpu {
            return matrix.size_bytes();
        }
        let shape = [matrix.out_features(), matrix.in_features()];
        let order = matrix.permutation().map_or(0, size_of_val);
        card::size_bytes(matrix.packing(), shape, matrix.group()) + order
    }
}

/// The matrix unpacked once into an ordinary tensor.
#[derive(Debug)]
pub struct Dequantized {
    /// `[out, in]`
    weight: Tensor<2>,
}

impl Dequantized {
    /// Unpacks `matrix` on `device` as `dtype`.
    pub fn new(matrix: &PackedMatrix, device: &Device, dtype: DType) -> Self {
        let shape = [matrix.out_features(), matrix.in_features()];
        Self::of_values(matrix.to_f32(), shape, device, dtype)
    }

    /// Keeps the unpacked weights `[out, in]` on `device` as `dtype`.
    fn of_values(values: Vec<f32>, shape: [usize; 2], device: &Device, dtype: DType) -> Self {
        Self { weight: upload(values, shape, device).cast(dtype) }
    }
}

impl QuantMatmul for Dequantized {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.clone();
        x.cast(weight.dtype()).matmul(weight.transpose()).cast(DType::F32)
    }

    fn shape(&self) -> [usize; 2] {
        self.weight.dims()
    }
}

/// Multiplies on the CPU without unpacking the weights into memory.
#[derive(Debug)]
pub struct CpuKernel {
    matrix: Arc<PackedMatrix>,
}

impl CpuKernel {
    /// A kernel over `matrix`.
    pub fn new(matrix: Arc<PackedMatrix>) -> Self {
        Self { matrix }
    }
}

impl QuantMatmul for CpuKernel {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let [y] = crate::cpu::matmul([&CpuMatrix::Packed(Arc::clone(&self.matrix))], x);
        y
    }

    fn shape(&self) -> [usize; 2] {
        [self.matrix.out_features(), self.matrix.in_features()]
    }

    fn on_cpu(&self) -> Option<&Arc<PackedMatrix>> {
        Some(&self.matrix)
    }
}

impl PackedMatrix {
    /// Multiplies the features of `panels` with all activations into `out`, one slice a row.
    pub(crate) fn multiply(
        &self,
        activations: &Activations,
        panels: Range<usize>,
        out: &mut [&mut [f32]],
        isa: Isa,
    ) {
        Stripe { matrix: self, activations, panels, out }.run(isa);
    }
}
