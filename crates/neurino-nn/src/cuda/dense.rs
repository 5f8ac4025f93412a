//! Dense weights on a card.

use burn::tensor::{DType, Tensor};
use neurino_kernels::tensor::dense_product;
use neurino_kernels::tensor::tiles::dense_tiles;

use super::tiles::{self, Kind};
use crate::groups::in_groups;

/// Without tiles, our kernel multiplies up to so many rows where a row's bits may depend on how many there
/// are: it reads the weights once for every eight; beyond, burn's product is faster by far.
const FEW_ROWS: usize = 32;
/// Rows that our kernel is given at once.
const GROUP_ROWS: usize = 32;

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
/// - `in_tiles`: whether it is multiplied in tiles
/// - `keeps_rows`: whether a row's bits have to be the same whatever other rows there are, as slow as
///   that is without tiles
pub fn multiply(x: Tensor<2>, weight: &Tensor<2>, in_tiles: bool, keeps_rows: bool) -> Tensor<2> {
    if in_tiles && let Ok(y) = dense_tiles(x.clone(), weight) {
        return y;
    }
    if (keeps_rows || x.dims()[0] <= FEW_ROWS)
        && let Some(y) = in_groups(&x, GROUP_ROWS, |x| dense_product(x, weight, false).ok())
    {
        return y;
    }
    x.cast(weight.dtype()).matmul(weight.clone().transpose()).cast(DType::F32)
}

#[cfg(test)]
#[cfg(feature = "kernels-on-cpu")]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::device::{download, upload};

    #[test]
    fn a_row_is_the_same_among_few_and_among_many() {
        let device = Device::cpu();
        let noise = |seed: usize, len: usize| -> Vec<f32> {
            (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
        };
        // No card has tiles for rows of 40 weights.
        let (rows, inner, out) = (75, 40, 9);
        let x = noise(1, rows * inner);
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let weight = upload(noise(2, out * inner), [out, inner], &device).cast(dtype);
            assert!(!in_tiles(&weight));
            let product = |rows: &[f32]| {
                let rows = upload(rows.to_vec(), [rows.len() / inner, inner], &device);
                download(multiply(rows, &weight, false, true)).unwrap()
            };
            let together = product(&x);
            assert_eq!(together.len(), rows * out);
            for first in [0, 31, 32, 64, 74] {
                let alone = product(&x[first * inner..(first + 1) * inner]);
                assert_eq!(alone, together[first * out..(first + 1) * out], "{dtype:?} {first}");
            }
        }
    }
}
