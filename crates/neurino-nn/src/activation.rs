//! What a feed-forward network does between its matrices.

use burn::tensor::{Tensor, activation};

/// `silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))`.
///
/// # Shapes
/// - `gate`, `up`: `[rows, features]`, f32; returns the same
///
/// Source: Shazeer 2020 (SwiGLU).
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}
