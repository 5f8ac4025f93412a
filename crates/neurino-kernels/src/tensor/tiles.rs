//! Products in tiles as operations on burn's tensors; see [`crate::product`].

use std::sync::mpsc::{SyncSender, sync_channel};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{PackedTensors, buffer, empty_like, launched, product_shape};
use crate::buffer::Buffer;
use crate::format::Format;
use crate::gpu::{Gpu, Unsupported};
use crate::matvec::Matrix;
use crate::product::{self, WINDOW};

#[backend_extension(Cube, Fusion)]
trait Tiling: Backend {
    #[fusion(dtype = x, shape = product_shape(x, scales, false))]
    fn packed_tiles(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        format: Format,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = product_shape(x, weights, false))]
    fn dense_tiles(x: FloatTensor<Self>, weights: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn ask(x: FloatTensor<Self>, bf16: bool, answer: SyncSender<bool>) -> FloatTensor<Self>;
}

/// In tiles, or in lanes where the device has no tensor cores for these weights: which of the two is
/// the same for any number of rows.
fn multiply(gpu: &Gpu, matrix: &Matrix, [x, y]: [&Buffer; 2], rows: usize) {
    if product::multiply(gpu, matrix, x, y, rows).is_err() {
        matrix.multiply(gpu, x, y, rows, false);
    }
}

impl Tiling for CubeBackend {
    fn packed_tiles(
        x: CubeTensor,
        words: CubeTensor,
        scales: CubeTensor,
        offsets: CubeTensor,
        format: Format,
    ) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let y = empty_like(&x, product_shape(x.meta.shape(), scales.meta.shape(), false));
        let [rows, inner] = [x.meta.shape()[0], x.meta.shape()[1]];
        let [out, groups] = [scales.meta.shape()[0], scales.meta.shape()[1]];
        let parts = [words, scales, offsets].map(buffer);
        let matrix = Matrix::packed(format, [out, inner, inner / groups], parts);
        launched(matrix.map(|m| multiply(&gpu, &m, [&buffer(x), &buffer(y.clone())], rows)));
        y
    }

    fn dense_tiles(x: CubeTensor, weights: CubeTensor) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let y = empty_like(&x, product_shape(x.meta.shape(), weights.meta.shape(), false));
        let rows = x.meta.shape()[0];
        let [out, inner] = [weights.meta.shape()[0], weights.meta.shape()[1]];
        let dtype = weights.dtype;
        let weights = buffer(weights);
        let matrix = match dtype {
            DType::F16 => Matrix::f16(weights, out, inner),
            _ => Matrix::bf16(weights, out, inner),
        };
        launched(matrix.map(|m| multiply(&gpu, &m, [&buffer(x), &buffer(y.clone())], rows)));
        y
    }

    fn ask(x: CubeTensor, bf16: bool, answer: SyncSender<bool>) -> CubeTensor {
        // There is room for one, and who does not want it any more is not waiting.
        let _ = answer.try_send(product::has_tensor_cores(&Gpu::new(x.client.clone()), bf16));
        x
    }
}

/// Whether `device` has tensor cores that multiply f16, or bf16, in tiles.
///
/// # Errors
/// The device's, as text.
pub fn has_tensor_cores(device: &Device, bf16: bool) -> Result<bool, String> {
    let (answer, answers) = sync_channel(1);
    let x: Tensor<1> = Tensor::zeros([1], (device, DType::F32));
    let asked = <Dispatch as Tiling>::ask(x.into_dispatch(), bf16, answer);
    let asked: Tensor<1> = Tensor::from_dispatch(asked);
    asked.try_into_data().map_err(|error| error.to_string())?;
    Ok(answers.try_recv().unwrap_or(false))
}

/// `x Wᵀ` with packed weights, each row with the same bits however many there are.
///
/// # Shapes
/// - `x`: `[rows, inner]`, f32; returns `[rows, out]`, f32
///
/// # Errors
/// `Unsupported` for shapes without a kernel.
pub fn packed_tiles(x: Tensor<2>, matrix: &PackedTensors) -> Result<Tensor<2>, Unsupported> {
    let [rows, inner] = x.dims();
    let [out, groups] = matrix.scales.dims();
    let words = inner / 8 * matrix.format.unit_words();
    if rows == 0 || groups == 0 || !inner.is_multiple_of(groups * WINDOW) {
        return Err(Unsupported("groups that are not a multiple of 32 weights"));
    }
    if matrix.words.dims() != [out, words] || matrix.scales.dtype() != DType::F16 {
        return Err(Unsupported("packed weights of another shape"));
    }
    if matrix.format.has_offsets() && matrix.offsets.dims() != [out, groups] {
        return Err(Unsupported("offsets of another shape"));
    }
    Ok(Tensor::from_dispatch(<Dispatch as Tiling>::packed_tiles(
        x.cast(DType::F32).into_dispatch(),
        matrix.words.clone().into_dispatch(),
        matrix.scales.clone().into_dispatch(),
        matrix.offsets.clone().into_dispatch(),
        matrix.format,
    )))
}

/// As [`packed_tiles`] with dense weights `[out, inner]`, f16 or bf16.
///
/// # Errors
/// `Unsupported` for shapes and types without a kernel.
pub fn dense_tiles(x: Tensor<2>, weights: &Tensor<2>) -> Result<Tensor<2>, Unsupported> {
    let [rows, inner] = x.dims();
    if rows == 0 || !inner.is_multiple_of(WINDOW) || weights.dims()[1] != inner {
        return Err(Unsupported("rows that are not a multiple of 32 weights"));
    }
    if !matches!(weights.dtype(), DType::F16 | DType::BF16) {
        return Err(Unsupported("weights that are neither f16 nor bf16"));
    }
    let x = x.cast(DType::F32).into_dispatch();
    let weights = weights.clone().into_dispatch();
    Ok(Tensor::from_dispatch(<Dispatch as Tiling>::dense_tiles(x, weights)))
}
