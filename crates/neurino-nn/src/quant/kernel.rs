//! The CPU's matrix multiplication with packed weights: threads over output features, integer dot
//! products over blocks, several rows of activations for each unpacked block.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use neurino_weights::dtype::BLOCK;
use pulp::Arch;
use rayon::prelude::*;

use super::QuantMatmul;
use super::activations::{ActivationRow, Activations};
use super::blocks::{Blocks, Portable};
use super::packed::{PackedMatrix, Packing, Row};
use crate::device::upload;

/// Rows of activations that share one unpacked block.
const TILE: usize = 4;
/// Pieces of work a thread gets, so that a slow core does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

/// Multiplies on the CPU without unpacking the weights into memory.
#[derive(Debug)]
pub struct CpuKernel {
    matrix: Arc<PackedMatrix>,
}

impl CpuKernel {
    /// A kernel over `matrix`.
    pub fn new(matrix: Arc<PackedMatrix>) -> Self {
        Self { matrix }
    }

    /// `x Wᵀ` for `x` of `rows * in` values; returns it transposed, `[out, rows]`, since a thread
    /// owns whole output features.
    fn multiply(&self, x: &[f32], arch: Arch) -> Vec<f32> {
        let matrix = &*self.matrix;
        let activations = Activations::new(x, matrix.in_features());
        let rows = activations.rows();
        let mut out = vec![0.0; rows * matrix.out_features()];
        let pieces = rayon::current_num_threads() * PIECES_PER_THREAD;
        let features = matrix.out_features().div_ceil(pieces);
        out.par_chunks_mut((features * rows).max(1)).enumerate().for_each(|(piece, out)| {
            let stripe = Stripe { matrix, activations: &activations, first: piece * features, out };
            match arch {
                #[cfg(target_arch = "x86_64")]
                Arch::V3(simd) => simd.vectorize(
                    #[inline(always)]
                    || stripe.run(simd),
                ),
                _ => stripe.run(Portable),
            }
        });
        out
    }
}

impl QuantMatmul for CpuKernel {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, _] = x.dims();
        let device = x.device();
        let data = x.cast(DType::F32).into_data();
        let values = data.as_slice::<f32>().expect("the tensor was cast to f32 just above");
        let out = self.multiply(values, Arch::new());
        let features = self.matrix.out_features();
        if rows == 1 {
            return upload(out, [1, features], &device);
        }
        upload(out, [features, rows], &device).transpose()
    }
}

/// A run of output features, to be multiplied with all activations.
struct Stripe<'a> {
    matrix: &'a PackedMatrix,
    activations: &'a Activations,
    /// The stripe's first output feature.
    first: usize,
    /// `[features, rows]`
    out: &'a mut [f32],
}

impl Stripe<'_> {
    #[inline(always)]
    fn run<B: Blocks>(self, isa: B) {
        let rows = self.activations.rows();
        for (feature, out) in self.out.chunks_exact_mut(rows).enumerate() {
            let weights = self.matrix.row(self.first + feature);
            let packing = self.matrix.packing();
            let (tiles, rest) = out.as_chunks_mut::<TILE>();
            let rest_start = tiles.len() * TILE;
            for (tile, out) in tiles.iter_mut().enumerate() {
                let x = std::array::from_fn(|i| self.activations.row(tile * TILE + i));
                *out = dots::<B, TILE>(isa, packing, weights, x);
            }
            for (row, out) in rest.iter_mut().enumerate() {
                let x = [self.activations.row(rest_start + row)];
                [*out] = dots::<B, 1>(isa, packing, weights, x);
            }
        }
    }
}

/// One output feature of `N` rows.
#[inline(always)]
fn dots<B: Blocks, const N: usize>(
    isa: B,
    packing: Packing,
    weights: Row<'_>,
    x: [ActivationRow<'_>; N],
) -> [f32; N] {
    match packing {
        Packing::Q8 => {
            let blocks = weights.quants.as_chunks::<BLOCK>().0;
            sums(isa, weights.scales, x, blocks, |block| isa.unpack8(block))
        }
        Packing::Q4Symmetric | Packing::Q4Minimum => {
            let blocks = weights.quants.as_chunks::<{ BLOCK / 2 }>().0;
            let scaled = sums(isa, weights.scales, x, blocks, |block| isa.unpack4(block));
            // sum((d q + m) a) = d sum(q a) + m sum(a), and a symmetric block has m = -8 d.
            let (minima, factor) = match packing {
                Packing::Q4Minimum => (weights.minima, 1.0),
                _ => (weights.scales, -8.0),
            };
            std::array::from_fn(|i| scaled[i] + factor * dot(minima, x[i].sums))
        }
    }
}

#[inline(always)]
fn sums<B: Blocks, Q, const N: usize>(
    isa: B,
    scales: &[f32],
    x: [ActivationRow<'_>; N],
    blocks: &[Q],
    unpack: impl Fn(&Q) -> B::Weights,
) -> [f32; N] {
    let count = blocks.len();
    // Equal lengths that the compiler can see: no bounds check is left in the loop.
    let scales = &scales[..count];
    let quants = x.map(|row| &row.quants[..count]);
    let x_scales = x.map(|row| &row.scales[..count]);
    let mut sums = [isa.zero(); N];
    for block in 0..count {
        let weights = unpack(&blocks[block]);
        for row in 0..N {
            let scale = scales[block] * x_scales[row][block];
            sums[row] = isa.accumulate(sums[row], weights, &quants[row][block], scale);
        }
    }
    sums.map(|sum| isa.total(sum))
}

/// In eight lanes, which the compiler keeps in one register.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use half::f16;

    use super::*;
    use crate::device::download;
    use crate::quant::Dequantized;

    /// Largest difference, relative to the largest value: what rounding to 15 bits costs.
    const LIMIT: f32 = 1e-4;

    /// Blocks with scattered integers and scales.
    fn matrix(packing: Packing, out: usize, features: usize) -> Arc<PackedMatrix> {
        let mut state = 0x9E37_79B9u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut bytes = Vec::new();
        for _ in 0..out * features / BLOCK {
            let halves = if packing == Packing::Q4Minimum { 2 } else { 1 };
            for _ in 0..halves {
                let scale = (f32::from(random()) - 100.0) / 1000.0;
                bytes.extend(f16::from_f32(scale).to_le_bytes());
            }
            bytes.extend((0..packing.quant_bytes()).map(|_| random()));
        }
        let packed = PackedMatrix::from_blocks(packing, out, features, &bytes, |row| row);
        Arc::new(packed.expect("whole blocks"))
    }

    fn check(packing: Packing, rows: usize, arch: Arch) {
        let (out, features) = (77, 320);
        let matrix = matrix(packing, out, features);
        let x: Vec<f32> = (0..rows * features).map(|i| (i as f32 * 0.61).sin() * 4.0).collect();
        let device = Device::flex();
        let oracle = Dequantized::new(&matrix, &device, DType::F32);
        let expect = oracle.matmul(upload(x.clone(), [rows, features], &device));
        let expect = download(expect).expect("download");
        let found = CpuKernel::new(matrix).multiply(&x, arch);
        let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for row in 0..rows {
            for feature in 0..out {
                let (found, expect) = (found[feature * rows + row], expect[row * out + feature]);
                assert!(
                    (found - expect).abs() <= LIMIT * largest,
                    "{packing:?} {arch:?} row {row} feature {feature}: {found} {expect}"
                );
            }
        }
    }

    #[test]
    fn agrees_with_the_unpacked_matrix() {
        for packing in [Packing::Q4Symmetric, Packing::Q4Minimum, Packing::Q8] {
            for rows in [1, 4, 7] {
                check(packing, rows, Arch::new());
                check(packing, rows, Arch::Scalar);
            }
        }
    }

    #[test]
    fn tensor_form_has_the_oracles_shape_and_values() {
        let device = Device::flex();
        let matrix = matrix(Packing::Q4Minimum, 65, 64);
        for rows in [1, 5] {
            let values = (0..rows * 64).map(|i| (i as f32).cos()).collect();
            let x: Tensor<2> = upload(values, [rows, 64], &device);
            let oracle = Dequantized::new(&matrix, &device, DType::F32).matmul(x.clone());
            let found = CpuKernel::new(Arc::clone(&matrix)).matmul(x);
            assert_eq!(found.dims(), oracle.dims());
            let expect = download(oracle).expect("download");
            for (found, expect) in download(found).expect("download").iter().zip(expect) {
                assert!((found - expect).abs() < 1e-3, "{found} {expect}");
            }
        }
    }
}
