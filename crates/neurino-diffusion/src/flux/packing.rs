//! Latents as tokens: 2 x 2 latents of all channels are one.

use burn::tensor::Tensor;

/// The latents of a picture as tokens, row after row.
///
/// # Shapes
/// - `latents`: `[1, height, width, channels]`, both sides even; returns
///   `[1, height / 2 * width / 2, channels * 4]`
pub fn pack(latents: Tensor<4>) -> Tensor<3> {
    let [batch, height, width, channels] = latents.dims();
    let (rows, columns) = (height / 2, width / 2);
    latents.reshape([batch, rows, 2, columns, 2, channels]).permute([0, 1, 3, 5, 2, 4]).reshape([
        batch,
        rows * columns,
        channels * 4,
    ])
}

/// The reverse of [`pack`] for a picture of `[rows, columns]` tokens.
///
/// # Shapes
/// - `tokens`: `[1, rows * columns, channels * 4]`; returns `[1, 2 rows, 2 columns, channels]`
pub fn unpack(tokens: Tensor<3>, [rows, columns]: [usize; 2]) -> Tensor<4> {
    let [batch, _, features] = tokens.dims();
    tokens
        .reshape([batch, rows, columns, features / 4, 2, 2])
        .permute([0, 1, 4, 2, 5, 3])
        .reshape([batch, 2 * rows, 2 * columns, features / 4])
}
