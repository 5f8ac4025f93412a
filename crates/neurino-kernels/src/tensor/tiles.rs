//! Products in tiles as operations on burn's tensors, and those of experts; see [`crate::product`] and
//! [`crate::experts`].
#![expect(clippy::too_many_arguments, reason = "an operation takes every tensor on its own")]

use std::sync::mpsc::{SyncSender, sync_channel};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Device, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::{PackedTensors, buffer, empty_like, launched, product_shape};
use crate::buffer::Buffer;
use crate::experts::{self, Routes};
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

    #[fusion(dtype = like, shape = Shape::new([of.len()]))]
    fn route(scores: FloatTensor<Self>, like: IntTensor<Self>, of: Routes) -> IntTensor<Self>;

    #[fusion(dtype = y, shape = y)]
    fn packed_expert(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        routes: IntTensor<Self>,
        y: FloatTensor<Self>,
        format: Format,
        of: Routes,
        expert: usize,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = y, shape = y)]
    fn dense_expert(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: IntTensor<Self>,
        y: FloatTensor<Self>,
        of: Routes,
        expert: usize,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = parts, shape = Shape::new([of.rows, parts[1]]))]
    fn combine(parts: FloatTensor<Self>, routes: IntTensor<Self>, of: Routes) -> FloatTensor<Self>;

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

/// The dense matrix of a tensor `[out, inner]`, f16 or bf16.
fn dense(weights: CubeTensor) -> Result<Matrix, Unsupported> {
    let [out, inner] = [weights.meta.shape()[0], weights.meta.shape()[1]];
    let dtype = weights.dtype;
    let weights = buffer(weights);
    match dtype {
        DType::F16 => Matrix::f16(weights, out, inner),
        _ => Matrix::bf16(weights, out, inner),
    }
}

/// One expert's products with the rows of its list, written into `y`.
fn multiply_expert(
    matrix: Result<Matrix, Unsupported>,
    [x, y]: [&CubeTensor; 2],
    routes: CubeTensor,
    of: Routes,
    expert: usize,
) {
    let gpu = Gpu::new(x.client.clone());
    let pairs_of_row = of.pairs() / x.meta.shape()[0];
    let [x, y] = [x, y].map(|tensor| buffer(tensor.clone()));
    let routes = buffer(routes);
    let list = of.list_of(&routes, expert);
    let launch = |matrix: Matrix| {
        product::multiply_listed(&gpu, &matrix, [&x, &y], &list, pairs_of_row, of.rows)
    };
    launched(matrix.and_then(launch));
}

impl Tiling for CubeBackend {
    fn route(scores: CubeTensor, like: CubeTensor, of: Routes) -> CubeTensor {
        let gpu = Gpu::new(scores.client.clone());
        let (client, device) = (scores.client.clone(), scores.device.clone());
        let y = empty_device_dtype(client, device, Shape::new([of.len()]), like.dtype);
        launched(experts::route(&gpu, of, &buffer(scores), &buffer(y.clone())));
        y
    }

    fn packed_expert(
        x: CubeTensor,
        words: CubeTensor,
        scales: CubeTensor,
        offsets: CubeTensor,
        routes: CubeTensor,
        y: CubeTensor,
        format: Format,
        of: Routes,
        expert: usize,
    ) -> CubeTensor {
        let [out, groups] = [scales.meta.shape()[0], scales.meta.shape()[1]];
        let inner = x.meta.shape()[1];
        let parts = [words, scales, offsets].map(buffer);
        let matrix = Matrix::packed(format, [out, inner, inner / groups], parts);
        multiply_expert(matrix, [&x, &y], routes, of, expert);
        y
    }

    fn dense_expert(
        x: CubeTensor,
        weights: CubeTensor,
        routes: CubeTensor,
        y: CubeTensor,
        of: Routes,
        expert: usize,
    ) -> CubeTensor {
        multiply_expert(dense(weights), [&x, &y], routes, of, expert);
        y
    }

    fn combine(parts: CubeTensor, routes: CubeTensor, of: Routes) -> CubeTensor {
        let gpu = Gpu::new(parts.client.clone());
        let y = empty_like(&parts, Shape::new([of.rows, parts.meta.shape()[1]]));
        let out = buffer(y.clone());
        launched(experts::combine(&gpu, of, &buffer(parts), &buffer(routes), &out));
        y
    }

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
        let matrix = dense(weights);
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

/// Which experts compute which rows of a step, on the device.
#[derive(Debug, Clone)]
pub struct RouteTensor {
    of: Routes,
    /// `[of.len()]`, 32-bit integers.
    routes: Tensor<1, Int>,
}

impl RouteTensor {
    /// Lets the device choose `per_row` experts for each row.
    ///
    /// # Shapes
    /// - `scores`: `[rows, experts]`
    ///
    /// # Errors
    /// `Unsupported` for a choice without a kernel.
    pub fn choose(scores: Tensor<2>, per_row: usize) -> Result<Self, Unsupported> {
        let [rows, experts] = scores.dims();
        let of = Routes { rows, experts, per_row };
        of.check()?;
        let like: Tensor<1, Int> = Tensor::zeros([1], (&scores.device(), DType::I32));
        let scores = scores.cast(DType::F32).into_dispatch();
        let routes = <Dispatch as Tiling>::route(scores, like.into_dispatch(), of);
        Ok(Self { of, routes: Tensor::from_dispatch(routes) })
    }

    /// How many of what.
    pub fn of(&self) -> Routes {
        self.of
    }

    /// Waits for the chosen experts, pair by pair.
    ///
    /// # Errors
    /// The device's, as text.
    pub fn read(&self) -> Result<Vec<usize>, String> {
        let chosen = self.routes.clone().narrow(0, self.of.chosen(), self.of.pairs());
        let data = chosen.try_into_data().map_err(|error| error.to_string())?;
        let chosen = data.try_into_vec_as::<i32>().map_err(|error| error.to_string())?;
        Ok(chosen.into_iter().map(|expert| expert.cast_unsigned() as usize).collect())
    }

    fn check(&self, x: &Tensor<2>, y: &Tensor<2>, out: usize) -> Result<(), Unsupported> {
        let pairs = self.of.pairs();
        let rows = x.dims()[0];
        if y.dims() != [pairs, out] || !(rows == pairs || rows == self.of.rows) {
            return Err(Unsupported("rows of another number than the pairs"));
        }
        Ok(())
    }

    /// Products of an expert's dense weights with the rows that chose it, as [`dense_tiles`] makes them,
    /// written into their pairs' rows of `y`.
    ///
    /// # Shapes
    /// - `x`: `[rows, inner]` or `[pairs, inner]`, f32; `y`: `[pairs, out]`, f32, changed and returned
    ///
    /// # Errors
    /// `Unsupported` for shapes and types without a kernel.
    pub fn dense(
        &self,
        x: Tensor<2>,
        weights: &Tensor<2>,
        expert: usize,
        y: Tensor<2>,
    ) -> Result<Tensor<2>, Unsupported> {
        let [out, inner] = weights.dims();
        self.check(&x, &y, out)?;
        if !inner.is_multiple_of(WINDOW) || x.dims()[1] != inner {
            return Err(Unsupported("rows that are not a multiple of 32 weights"));
        }
        if !matches!(weights.dtype(), DType::F16 | DType::BF16) {
            return Err(Unsupported("weights that are neither f16 nor bf16"));
        }
        Ok(Tensor::from_dispatch(<Dispatch as Tiling>::dense_expert(
            x.cast(DType::F32).into_dispatch(),
            weights.clone().into_dispatch(),
            self.routes.clone().into_dispatch(),
            y.into_dispatch(),
            self.of,
            expert,
        )))
    }

    /// As [`RouteTensor::dense`] with packed weights, as [`packed_tiles`] multiplies them.
    ///
    /// # Errors
    /// `Unsupported` for shapes without a kernel.
    pub fn packed(
        &self,
        x: Tensor<2>,
        matrix: &PackedTensors,
        expert: usize,
        y: Tensor<2>,
    ) -> Result<Tensor<2>, Unsupported> {
        let [out, groups] = matrix.scales.dims();
        self.check(&x, &y, out)?;
        if groups == 0 || !x.dims()[1].is_multiple_of(groups * WINDOW) {
            return Err(Unsupported("groups that are not a multiple of 32 weights"));
        }
        Ok(Tensor::from_dispatch(<Dispatch as Tiling>::packed_expert(
            x.cast(DType::F32).into_dispatch(),
            matrix.words.clone().into_dispatch(),
            matrix.scales.clone().into_dispatch(),
            matrix.offsets.clone().into_dispatch(),
            self.routes.clone().into_dispatch(),
            y.into_dispatch(),
            matrix.format,
            self.of,
            expert,
        )))
    }

    /// Each row's pairs added up by their weights.
    ///
    /// # Shapes
    /// - `parts`: `[pairs, width]`, f32; returns `[rows, width]`, f32
    ///
    /// # Errors
    /// `Unsupported` if there are other pairs.
    pub fn combine(&self, parts: Tensor<2>) -> Result<Tensor<2>, Unsupported> {
        if parts.dims()[0] != self.of.pairs() {
            return Err(Unsupported("rows of another number than the pairs"));
        }
        let (parts, routes) = (parts.into_dispatch(), self.routes.clone().into_dispatch());
        Ok(Tensor::from_dispatch(<Dispatch as Tiling>::combine(parts, routes, self.of)))
    }
}
