//! Packed weights: multiply without unpacking them into memory first.
//!
//! [`packed`] holds the weights, [`kernel`] multiplies on the CPU, [`Dequantized`] is the plain
//! form that every device has and that the kernel is tested against.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::device::{is_cpu, upload};

mod activations;
mod blocks;
pub mod kernel;
pub mod packed;

pub use kernel::CpuKernel;
pub use packed::PackedMatrix;

/// Multiplies activations with a packed matrix.
pub trait QuantMatmul: Debug + Send + Sync {
    /// `x Wᵀ`.
    ///
    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32
    fn matmul(&self, x: Tensor<2>) -> Tensor<2>;
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
        Arc::new(Dequantized::new(matrix, device, dtype))
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
        Self { weight: upload(matrix.to_f32(), shape, device).cast(dtype) }
    }
}

impl QuantMatmul for Dequantized {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.clone();
        x.cast(weight.dtype()).matmul(weight.transpose()).cast(DType::F32)
    }
}
