//! Dense weights on a card.

use burn::tensor::{DType, Tensor};
use neurino_kernels::tensor::dense_product;
use neurino_kernels::tensor::tiles::dense_tiles;

use super::tiles::{self, Kind};

/// Without tiles, our kernel multiplies up to so many rows: it reads the weights once for every eight and
/// keeps the bits of a row; beyond, burn's tensor cores are faster by far.
const FEW_ROWS: usize = 32;

/// Whether `weight` is multiplied in tiles for any number of rows, so that no row's bits depend on how many
/// there are.
pub fn in_tiles(weight: &Tensor<2>) -> bool {
    let kind = match weight.dtype() {
        DType::F16 => Kind::F16,
        DType::BF16 => Kind::Bf16,
        _ => return false,
    };
    weight.dims()[1].is_multiple_of(neurino_kernels::product::WINDOW)
        && tiles::are_right(&weight.device(), kind)
}

/// `x Wᵀ` on a card.
///
/// # Shapes
/// - `x`: `[rows, in]`, f32; `weight`: `[out, in]`; returns `[rows, out]`, f32
pub fn multiply(x: Tensor<2>, weight: &Tensor<2>, in_tiles: bool) -> Tensor<2> {
    if in_tiles && let Ok(y) = dense_tiles(x.clone(), weight) {
        return y;
    }
    if x.dims()[0] <= FEW_ROWS
        && let Ok(y) = dense_product(x.clone(), weight, false)
    {
        return y;
    }
    x.cast(weight.dtype()).matmul(weight.clone().transpose()).cast(DType::F32)
}
