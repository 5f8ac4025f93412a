//! Normalisation on a card: by rows, and by groups of a picture's channels.

use burn::tensor::Tensor;
use neurino_kernels::gpu::Unsupported;
use neurino_kernels::tensor::{add_rms_norm, group_norm, rms_norm};

/// Each row of `x` normalised and weighted.
///
/// # Shapes
/// - `x`: `[rows, width]`, f32; `weight`: `[1, width]`, f32; returns `x`'s
///
/// # Errors
/// `Unsupported` if `width` is no multiple of four.
pub fn normalise(
    x: &Tensor<2>,
    weight: &Tensor<2>,
    epsilon: f64,
) -> Result<Tensor<2>, Unsupported> {
    rms_norm(x.clone(), &weight.clone().squeeze_dim(0), epsilon as f32)
}

/// The sum of `x` and `delta`, and that sum normalised and weighted.
///
/// # Shapes
/// - `delta`: as `x`; the rest as for [`normalise`]
///
/// # Errors
/// As [`normalise`].
pub fn add_and_normalise(
    x: &Tensor<2>,
    delta: &Tensor<2>,
    weight: &Tensor<2>,
    epsilon: f64,
) -> Result<(Tensor<2>, Tensor<2>), Unsupported> {
    let weight = weight.clone().squeeze_dim(0);
    add_rms_norm(x.clone(), delta.clone(), &weight, epsilon as f32)
}

/// A picture normalised by groups of its channels, with SiLU behind it if asked for.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`, f32; `factors`: gamma and beta, `[channels]`; returns `x`'s
///
/// # Errors
/// `Unsupported` if there are channels that the kernel does not take.
pub fn by_groups(
    x: &Tensor<4>,
    factors: [&Tensor<1>; 2],
    groups: usize,
    epsilon: f64,
    silu: bool,
) -> Result<Tensor<4>, Unsupported> {
    group_norm(x.clone(), factors, groups, epsilon as f32, silu)
}
