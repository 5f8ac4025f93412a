//! Dense weights on a card.

use burn::tensor::{DType, Tensor};
use neurino_kernels::tensor::dense_product;

/// Up to so many rows our kernel reads the weights once for every eight and keeps the bits of a row;
/// beyond, burn's tensor cores are faster by far.
const FEW_ROWS: usize = 32;

/// `x Wᵀ` on a card.
///
/// # Shapes
/// - `x`: `[rows, in]`, f32; `weight`: `[out, in]`; returns `[rows, out]`, f32
pub fn multiply(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    if x.dims()[0] <= FEW_ROWS
        && let Ok(y) = dense_product(x.clone(), weight, false)
    {
        return y;
    }
    x.cast(weight.dtype()).matmul(weight.clone().transpose()).cast(DType::F32)
}
