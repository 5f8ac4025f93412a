//! What a feed-forward network does between its matrices.

use burn::tensor::{Tensor, activation};

use crate::device::{in_memory, in_place, is_cpu, upload};
use crate::elementwise::{self, Gelu, GeluTanh, Swish};
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
        let shape = gate.dims();
        let (mut gate, mut up) = (in_memory(gate), in_memory(up));
        rows::swiglu(&mut gate, &mut up);
        return upload(gate, shape, &device);
    }
    // One launch, and the same bits on every card.
    #[cfg(feature = "kernels")]
    if let Ok(y) = neurino_kernels::tensor::swiglu(gate.clone(), up.clone()) {
        return y;
    }
    activation::silu(gate) * up
}

/// `x / (1 + exp(-x))`.
///
/// Source: Elfwing et al. 2017.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_place(x, |x| elementwise::map(x, Swish { factor: 1.0 }), activation::silu)
}

/// `x * (1 + erf(x / sqrt(2))) / 2`.
///
/// Source: Hendrycks and Gimpel 2016.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_place(x, |x| elementwise::map(x, Gelu), activation::gelu)
}

/// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
///
/// Source: Hendrycks and Gimpel 2016.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    in_place(x, |x| elementwise::map(x, GeluTanh), activation::gelu_approximate)
}

/// `x / (1 + exp(-1.702 x))`.
///
/// Source: Hendrycks and Gimpel 2016; CLIP's activation.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const FACTOR: f32 = 1.702;
    in_place(
        x,
        |x| elementwise::map(x, Swish { factor: FACTOR }),
        |x| x.clone() * activation::sigmoid(x.mul_scalar(FACTOR)),
    )
}

/// `value * gelu(gate)`, where the value is the first half of the features, the gate the second.
///
/// # Shapes
/// - `x`: `[.., 2 features]`, f32; returns `[.., features]`
///
/// Source: Shazeer 2020 (GEGLU).
pub fn geglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let mut shape = x.dims();
    let features = shape[D - 1] / 2;
    let device = x.device();
    if is_cpu(&device) {
        shape[D - 1] = features;
        return upload(elementwise::gate(&in_memory(x), features, Gelu), shape, &device);
    }
    let gate = x.clone().narrow(D - 1, features, features);
    x.narrow(D - 1, 0, features) * activation::gelu(gate)
}
