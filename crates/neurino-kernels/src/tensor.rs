//! The kernels as operations on burn's tensors.
//!
//! The cache, which kernels change in place, is passed as a tensor like any other. Operations of one thread run in the order they were called, and each
//! one that reads the cache takes a tensor that the one before gave, so fusion cannot swap them.
#![expect(clippy::too_many_arguments, reason = "an operation takes every tensor on its own")]

pub mod choice;
pub mod fence;
pub mod tiles;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_dtype;
use burn_cubecl::tensor::CubeTensor;

use crate::attention::{Attention, Rows, Scratch};
use crate::buffer::Buffer;
use crate::format::Format;
use crate::gate;
use crate::gpu::{Gpu, Unsupported};
use crate::matvec::Matrix;
use crate::nf4;
use crate::norm;
use crate::rope::{self, BLOCK_TOKENS, Heads, LayerCache, NewRows};

/// `[rows, out]`, of a matrix whose scales (or weights) are `[out, ..]`.
fn product_shape(x: &Shape, matrix: &Shape, gated: bool) -> Shape {
    Shape::new([x[0], if gated { matrix[0] / 2 } else { matrix[0] }])
}

#[backend_extension(Cube, Fusion)]
trait Kernels: Backend {
    #[fusion(dtype = x, shape = product_shape(x, scales, *gated))]
    fn packed_product(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        format: Format,
        gated: bool,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = product_shape(x, weights, *gated))]
    fn dense_product(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        gated: bool,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    #[fusion(meta = |x, _delta, _weight, _epsilon| (x.clone(), x.clone()))]
    fn add_and_norm(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    #[fusion(dtype = like, shape = Shape::new(*size))]
    fn nf4_rows(
        like: FloatTensor<Self>,
        words: IntTensor<Self>,
        table: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        first: usize,
        size: [usize; 2],
        block: usize,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = x, shape = x)]
    fn group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        epsilon: f32,
        silu: bool,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = gate, shape = gate)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(dtype = queries, shape = queries)]
    fn rotate_and_write(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        angles: IntTensor<Self>,
        slots: IntTensor<Self>,
        key_cache: FloatTensor<Self>,
        value_cache: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(dtype = queries, shape = queries)]
    fn attend(
        queries: FloatTensor<Self>,
        key_cache: FloatTensor<Self>,
        value_cache: FloatTensor<Self>,
        tables: IntTensor<Self>,
        sequences: IntTensor<Self>,
        positions: IntTensor<Self>,
        tiles: IntTensor<Self>,
        walk: bool,
        window: usize,
    ) -> FloatTensor<Self>;
}

/// Contiguous memory of a tensor, as the kernels take it.
fn buffer(tensor: CubeTensor) -> Buffer {
    let tensor = into_contiguous(tensor);
    Buffer::new(tensor.handle.clone(), tensor.meta.num_elements(), tensor.dtype.size())
}

/// Memory for a result like `tensor`, f32.
fn empty_like(tensor: &CubeTensor, shape: Shape) -> CubeTensor {
    empty_device_dtype(tensor.client.clone(), tensor.device.clone(), shape, DType::F32)
}

/// The shapes were checked by the public functions, so a kernel exists.
fn launched(result: Result<(), Unsupported>) {
    if let Err(error) = result {
        unreachable!("{error}");
    }
}

fn heads_of(queries: &CubeTensor, key_cache: &CubeTensor) -> Heads {
    let q = queries.meta.shape();
    Heads { query: q[1], kv: key_cache.meta.shape()[1], dim: q[2] }
}

impl Kernels for CubeBackend {
    fn packed_product(
        x: CubeTensor,
        words: CubeTensor,
        scales: CubeTensor,
        offsets: CubeTensor,
        format: Format,
        gated: bool,
    ) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let y = empty_like(&x, product_shape(x.meta.shape(), scales.meta.shape(), gated));
        let [rows, inner] = [x.meta.shape()[0], x.meta.shape()[1]];
        let [out, groups] = [scales.meta.shape()[0], scales.meta.shape()[1]];
        let parts = [words, scales, offsets].map(buffer);
        let matrix = Matrix::packed(format, [out, inner, inner / groups], parts);
        launched(matrix.map(|m| m.multiply(&gpu, &buffer(x), &buffer(y.clone()), rows, gated)));
        y
    }

    fn dense_product(x: CubeTensor, weights: CubeTensor, gated: bool) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let y = empty_like(&x, product_shape(x.meta.shape(), weights.meta.shape(), gated));
        let rows = x.meta.shape()[0];
        let [out, inner] = [weights.meta.shape()[0], weights.meta.shape()[1]];
        let dtype = weights.dtype;
        let weights = buffer(weights);
        let matrix = match dtype {
            DType::F16 => Matrix::f16(weights, out, inner),
            DType::BF16 => Matrix::bf16(weights, out, inner),
            _ => Matrix::f32(weights, out, inner),
        };
        launched(matrix.map(|m| m.multiply(&gpu, &buffer(x), &buffer(y.clone()), rows, gated)));
        y
    }

    fn norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let y = empty_like(&x, x.meta.shape().clone());
        let [x, weight, out] = [x, weight, y.clone()].map(buffer);
        launched(norm::add_rms_norm(&gpu, &x, None, &weight, &out, epsilon));
        y
    }

    fn add_and_norm(
        x: CubeTensor,
        delta: CubeTensor,
        weight: CubeTensor,
        epsilon: f32,
    ) -> (CubeTensor, CubeTensor) {
        let gpu = Gpu::new(x.client.clone());
        let [sum, y] = [(); 2].map(|()| empty_like(&x, x.meta.shape().clone()));
        let [x, delta, weight] = [x, delta, weight].map(buffer);
        let [to, out] = [&sum, &y].map(|tensor| buffer(tensor.clone()));
        launched(norm::add_rms_norm(&gpu, &x, Some([&delta, &to]), &weight, &out, epsilon));
        (sum, y)
    }

    fn nf4_rows(
        like: CubeTensor,
        words: CubeTensor,
        table: CubeTensor,
        scales: CubeTensor,
        first: usize,
        size: [usize; 2],
        block: usize,
    ) -> CubeTensor {
        let gpu = Gpu::new(like.client.clone());
        let dtype = like.dtype;
        let format = match dtype {
            DType::F16 => nf4::Unpacked::F16,
            DType::BF16 => nf4::Unpacked::Bf16,
            _ => nf4::Unpacked::F32,
        };
        let (client, device) = (like.client.clone(), like.device.clone());
        let y = empty_device_dtype(client, device, Shape::new(size), dtype);
        let [words, table, scales, out] = [words, table, scales, y.clone()].map(buffer);
        let parts = [&words, &table, &scales];
        launched(nf4::unpack(&gpu, parts, &out, format, first * size[1], block));
        y
    }

    fn group_norm(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        groups: usize,
        epsilon: f32,
        silu: bool,
    ) -> CubeTensor {
        let gpu = Gpu::new(x.client.clone());
        let shape = x.meta.shape().clone();
        let size = [shape[0], shape[1] * shape[2]];
        let y = empty_like(&x, shape);
        let [x, gamma, beta, out] = [x, gamma, beta, y.clone()].map(buffer);
        let factors = [&gamma, &beta];
        launched(crate::group_norm::group_norm(
            &gpu,
            [&x, &out],
            factors,
            size,
            groups,
            epsilon,
            silu,
        ));
        y
    }

    fn swiglu(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
        let gpu = Gpu::new(gate.client.clone());
        let y = empty_like(&gate, gate.meta.shape().clone());
        gate::swiglu(&gpu, &buffer(gate), &buffer(up), &buffer(y.clone()));
        y
    }

    fn rotate_and_write(
        queries: CubeTensor,
        keys: CubeTensor,
        values: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        angles: CubeTensor,
        slots: CubeTensor,
        key_cache: CubeTensor,
        value_cache: CubeTensor,
    ) -> CubeTensor {
        let gpu = Gpu::new(queries.client.clone());
        let heads = heads_of(&queries, &key_cache);
        let y = empty_like(&queries, queries.meta.shape().clone());
        let new = NewRows {
            queries: &buffer(queries),
            keys: &buffer(keys),
            values: &buffer(values),
            cos: &buffer(cos),
            sin: &buffer(sin),
            angles: &buffer(angles),
            slots: &buffer(slots),
        };
        let cache = LayerCache { keys: buffer(key_cache), values: buffer(value_cache) };
        launched(rope::rope_kv_write(&gpu, heads, &new, &buffer(y.clone()), &cache));
        y
    }

    fn attend(
        queries: CubeTensor,
        key_cache: CubeTensor,
        value_cache: CubeTensor,
        tables: CubeTensor,
        sequences: CubeTensor,
        positions: CubeTensor,
        tiles: CubeTensor,
        walk: bool,
        window: usize,
    ) -> CubeTensor {
        let gpu = Gpu::new(queries.client.clone());
        let heads = heads_of(&queries, &key_cache);
        let count = queries.meta.shape()[0];
        let table = tables.meta.shape()[1];
        let y = empty_like(&queries, queries.meta.shape().clone());
        let cache = LayerCache { keys: buffer(key_cache), values: buffer(value_cache) };
        let [queries, tables, sequences, positions, tiles] =
            [queries, tables, sequences, positions, tiles].map(buffer);
        let rows = Rows { tables: &tables, table, sequences: &sequences, positions: &positions };
        let attention = Attention { heads, window: (window > 0).then_some(window) };
        let out = buffer(y.clone());
        launched(if walk {
            attention.prefill(&gpu, &queries, &cache, &rows, &tiles, &out)
        } else {
            let scratch = Scratch::new(&gpu, heads, count, table);
            attention.decode(&gpu, &queries, &cache, &rows, &tiles, &scratch, &out)
        });
        y
    }
}

/// A packed matrix as tensors.
#[derive(Debug, Clone)]
pub struct PackedTensors {
    /// What the integers mean.
    pub format: Format,
    /// `[out, inner / 8 * words of a unit]`, 32-bit integers.
    pub words: Tensor<2, Int>,
    /// `[out, groups]`, f16.
    pub scales: Tensor<2>,
    /// As `scales`; any tensor where the format has no offsets.
    pub offsets: Tensor<2>,
}

/// `x Wᵀ` with packed weights; with `gated`, `silu(x Gᵀ) * (x Uᵀ)` where W holds G above U.
///
/// # Shapes
/// - `x`: `[rows, inner]`, f32; returns `[rows, out]` (`[rows, out / 2]` if gated), f32
///
/// # Errors
/// `Unsupported` for shapes without a kernel.
pub fn packed_product(
    x: Tensor<2>,
    matrix: &PackedTensors,
    gated: bool,
) -> Result<Tensor<2>, Unsupported> {
    let [rows, inner] = x.dims();
    let [out, groups] = matrix.scales.dims();
    let words = inner / 8 * matrix.format.unit_words();
    if rows == 0
        || groups == 0
        || !inner.is_multiple_of(groups)
        || !(inner / groups).is_multiple_of(8)
    {
        return Err(Unsupported("groups that are not a multiple of eight weights"));
    }
    if matrix.words.dims() != [out, words] || matrix.scales.dtype() != DType::F16 {
        return Err(Unsupported("packed weights of another shape"));
    }
    if matrix.format.has_offsets() && matrix.offsets.dims() != [out, groups] {
        return Err(Unsupported("offsets of another shape"));
    }
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::packed_product(
        x.cast(DType::F32).into_dispatch(),
        matrix.words.clone().into_dispatch(),
        matrix.scales.clone().into_dispatch(),
        matrix.offsets.clone().into_dispatch(),
        matrix.format,
        gated,
    )))
}

/// As [`packed_product`] with dense weights `[out, inner]`, f16, bf16 or f32.
///
/// # Errors
/// `Unsupported` for shapes and types without a kernel.
pub fn dense_product(
    x: Tensor<2>,
    weights: &Tensor<2>,
    gated: bool,
) -> Result<Tensor<2>, Unsupported> {
    let [rows, inner] = x.dims();
    if rows == 0 || !inner.is_multiple_of(8) || weights.dims()[1] != inner {
        return Err(Unsupported("rows that are not a multiple of eight weights"));
    }
    if !matches!(weights.dtype(), DType::F16 | DType::BF16 | DType::F32) {
        return Err(Unsupported("weights that are neither f16, bf16 nor f32"));
    }
    let x = x.cast(DType::F32).into_dispatch();
    let weights = weights.clone().into_dispatch();
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::dense_product(x, weights, gated)))
}

/// Each row of `x` normalised and weighted.
///
/// # Shapes
/// - `x`: `[rows, width]`, f32; `weight`: `[width]`, f32; returns `x`'s
///
/// # Errors
/// `Unsupported` if `width` is no multiple of four.
pub fn rms_norm(x: Tensor<2>, weight: &Tensor<1>, epsilon: f32) -> Result<Tensor<2>, Unsupported> {
    let [rows, width] = x.dims();
    if rows == 0 || !width.is_multiple_of(4) || weight.dims()[0] != width {
        return Err(Unsupported("rows that are not a multiple of four values"));
    }
    let (x, weight) = (x.into_dispatch(), weight.clone().into_dispatch());
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::norm(x, weight, epsilon)))
}

/// The sum of `x` and `delta`, and that sum normalised and weighted.
///
/// # Shapes
/// - `x`, `delta`: `[rows, width]`, f32; `weight`: `[width]`, f32; returns two of `x`'s
///
/// # Errors
/// `Unsupported` if `width` is no multiple of four.
pub fn add_rms_norm(
    x: Tensor<2>,
    delta: Tensor<2>,
    weight: &Tensor<1>,
    epsilon: f32,
) -> Result<(Tensor<2>, Tensor<2>), Unsupported> {
    if !x.dims()[1].is_multiple_of(4) || x.dims() != delta.dims() || weight.dims()[0] != x.dims()[1]
    {
        return Err(Unsupported("rows that are not a multiple of four values"));
    }
    let (sum, y) = <Dispatch as Kernels>::add_and_norm(
        x.into_dispatch(),
        delta.into_dispatch(),
        weight.clone().into_dispatch(),
        epsilon,
    );
    Ok((Tensor::from_dispatch(sum), Tensor::from_dispatch(y)))
}

/// The rows `rows` of a matrix in nf4, as numbers of `like`'s type; see [`crate::nf4`].
///
/// # Shapes
/// - `words`: one for eight weights, 32-bit integers; `table`: `[16]`, `scales`: one a block, f32;
///   returns `[rows, inner]`
///
/// # Errors
/// `Unsupported` for rows, blocks and types without a kernel.
pub fn nf4_rows(
    like: &Tensor<2>,
    words: &Tensor<1, Int>,
    [table, scales]: [&Tensor<1>; 2],
    rows: std::ops::Range<usize>,
    inner: usize,
    block: usize,
) -> Result<Tensor<2>, Unsupported> {
    let size = [rows.len(), inner];
    let end = rows.end * inner;
    nf4::check(rows.start * inner, size[0] * size[1], block)?;
    if size[0] * size[1] == 0
        || words.dims()[0] * nf4::WORD < end
        || scales.dims()[0] * block < end
        || table.dims() != [16]
    {
        return Err(Unsupported("packed weights of another shape"));
    }
    let is_number = matches!(like.dtype(), DType::F16 | DType::BF16 | DType::F32);
    if !is_number || [table.dtype(), scales.dtype()] != [DType::F32; 2] {
        return Err(Unsupported("numbers of another type"));
    }
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::nf4_rows(
        like.clone().into_dispatch(),
        words.clone().into_dispatch(),
        table.clone().into_dispatch(),
        scales.clone().into_dispatch(),
        rows.start,
        size,
        block,
    )))
}

/// A picture normalised by groups of its channels, with SiLU behind it if asked for.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`, f32; `gamma`, `beta`: `[channels]`, f32; returns `x`'s
///
/// # Errors
/// `Unsupported` for channels and types without a kernel.
pub fn group_norm(
    x: Tensor<4>,
    [gamma, beta]: [&Tensor<1>; 2],
    groups: usize,
    epsilon: f32,
    silu: bool,
) -> Result<Tensor<4>, Unsupported> {
    let [batch, height, width, channels] = x.dims();
    crate::group_norm::check(channels, groups)?;
    if batch * height * width == 0 || [gamma.dims()[0], beta.dims()[0]] != [channels; 2] {
        return Err(Unsupported("factors of another number than the channels"));
    }
    if [x.dtype(), gamma.dtype(), beta.dtype()] != [DType::F32; 3] {
        return Err(Unsupported("values that are not f32"));
    }
    let [gamma, beta] = [gamma, beta].map(|factors| factors.clone().into_dispatch());
    let x = x.into_dispatch();
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::group_norm(
        x, gamma, beta, groups, epsilon, silu,
    )))
}

/// `silu(gate) * up`, f32.
///
/// # Errors
/// `Unsupported` if the shapes differ.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Result<Tensor<2>, Unsupported> {
    if gate.dims() != up.dims() {
        return Err(Unsupported("a gate for each value"));
    }
    let y = <Dispatch as Kernels>::swiglu(gate.into_dispatch(), up.into_dispatch());
    Ok(Tensor::from_dispatch(y))
}

/// The keys and values of one layer, as [`crate::rope`] lays them out.
#[derive(Debug, Clone)]
pub struct CacheTensors {
    /// `[blocks, kv heads, dim / 8, BLOCK_TOKENS, 8]`, f16.
    pub keys: Tensor<5>,
    /// `[blocks, kv heads, BLOCK_TOKENS, dim]`, f16.
    pub values: Tensor<4>,
}

impl CacheTensors {
    fn fits(&self, heads: usize, dim: usize) -> Result<(), Unsupported> {
        let [_, kv, vectors, tokens, width] = self.keys.dims();
        if kv == 0 || !heads.is_multiple_of(kv) || !dim.is_multiple_of(16) || dim > 256 {
            return Err(Unsupported("heads of this number or size"));
        }
        if [vectors * width, tokens] != [dim, BLOCK_TOKENS] || self.keys.dtype() != DType::F16 {
            return Err(Unsupported("a cache of another shape or type"));
        }
        Ok(())
    }
}

/// Which rows of a step look where; see [`crate::attention::Rows`].
#[derive(Debug, Clone)]
pub struct RowTensors {
    /// `[sequences, table]`
    pub tables: Tensor<2, Int>,
    /// `[rows]`
    pub sequences: Tensor<1, Int>,
    /// `[rows]`
    pub positions: Tensor<1, Int>,
    /// `[tiles, 2]`: one for each row, or for runs of rows if `walk`.
    pub tiles: Tensor<2, Int>,
    /// Whether tiles hold several rows, as for prompts.
    pub walk: bool,
}

/// Rotates queries and keys, writes keys and values, and returns the queries.
///
/// # Shapes
/// - `queries`: `[rows, heads, dim]`, `keys`, `values`: `[rows, kv heads, dim]`, f32
/// - `cos`, `sin`: `[angles, 1, dim / 2]`; `angles`, `slots`: `[rows]`, -1 for no slot
///
/// # Errors
/// `Unsupported` for heads without a kernel.
pub fn rotate_and_write(
    [queries, keys, values]: [Tensor<3>; 3],
    [cos, sin]: [&Tensor<3>; 2],
    angles: &Tensor<1, Int>,
    slots: &Tensor<1, Int>,
    cache: &CacheTensors,
) -> Result<Tensor<3>, Unsupported> {
    let [_, heads, dim] = queries.dims();
    cache.fits(heads, dim)?;
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::rotate_and_write(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        cos.clone().into_dispatch(),
        sin.clone().into_dispatch(),
        angles.clone().into_dispatch(),
        slots.clone().into_dispatch(),
        cache.keys.clone().into_dispatch(),
        cache.values.clone().into_dispatch(),
    )))
}

/// Attention of rows over the cache.
///
/// # Shapes
/// - `queries`: `[rows, heads, dim]`, f32; returns the same
///
/// # Errors
/// `Unsupported` for heads without a kernel.
pub fn attend(
    queries: Tensor<3>,
    cache: &CacheTensors,
    rows: &RowTensors,
    window: Option<usize>,
) -> Result<Tensor<3>, Unsupported> {
    let [_, heads, dim] = queries.dims();
    cache.fits(heads, dim)?;
    Ok(Tensor::from_dispatch(<Dispatch as Kernels>::attend(
        queries.into_dispatch(),
        cache.keys.clone().into_dispatch(),
        cache.values.clone().into_dispatch(),
        rows.tables.clone().into_dispatch(),
        rows.sequences.clone().into_dispatch(),
        rows.positions.clone().into_dispatch(),
        rows.tiles.clone().into_dispatch(),
        rows.walk,
        window.unwrap_or(0),
    )))
}
