//! What a feed-forward network does between its matrices.

use burn::tensor::{Tensor, activation};

use crate::device::{download, is_cpu, upload};
use crate::rows;

/// `silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
///
/// # Shapes
/// - `gate`, `up`: `[rows, features]`, f32; returns the same
///
/// Source: Shazeer 2020 (SwiGLU).
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let device = gate.device();
    if is_cpu(&device) {
        const IS: &str = "a tensor of the CPU is in memory, and f32 is asked for";
        let shape = gate.dims();
        let (mut gate, mut up) = (download(gate).expect(IS), download(up).expect(IS));
        rows::swiglu(&mut gate, &mut up);
        return upload(gate, shape, &device);
    }
    activation::silu(gate) * up
}
