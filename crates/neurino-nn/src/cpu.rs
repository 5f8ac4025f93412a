//! Matrix multiplication on the CPU: one input, one or several matrices, all threads.
//!
//! Threads share the output features, never the inputs of one feature, and each feature of each row is
//! summed in one order that depends on nothing else. So results are the same bits for any number of
//! rows and threads.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::dense::DenseMatrix;
use crate::device::{in_memory, upload};
use crate::quant::{Activations, PackedMatrix};
use crate::simd::{Isa, LANES};

/// Output features that belong together.
pub(crate) const PANEL: usize = LANES;
/// Below this many multiplications, waking another thread takes longer than it saves.
const PARALLEL_MIN: usize = 1 << 17;
/// Pieces of work a thread gets, so that a slow core does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

/// Weights in this machine's memory.
#[derive(Debug, Clone)]
pub(crate) enum CpuMatrix {
    Dense(Arc<DenseMatrix>),
    Packed(Arc<PackedMatrix>),
}

impl CpuMatrix {
    pub(crate) fn out_features(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.out_features(),
            Self::Packed(matrix) => matrix.out_features(),
        }
    }

    pub(crate) fn in_features(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.in_features(),
            Self::Packed(matrix) => matrix.in_features(),
        }
    }
}

/// Some features of all rows: one thread's work.
struct Piece<'a> {
    matrix: usize,
    panels: Range<usize>,
    out: Vec<&'a mut [f32]>,
}

/// `x Wᵀ` with each of `matrices`, which have the same number of inputs.
///
/// # Shapes
/// - `x`: `[rows, in]`; returns `[rows, out]` of each, f32
pub(crate) fn matmul<const N: usize>(matrices: [&CpuMatrix; N], x: Tensor<2>) -> [Tensor<2>; N] {
    let [rows, _] = x.dims();
    let device = x.device();
    let out = multiply(matrices, &in_memory(x), rows, Isa::best());
    let mut out = out.into_iter().zip(matrices);
    std::array::from_fn(|_| {
        let (out, matrix) = out.next().expect("an output for each matrix");
        upload(out, [rows, matrix.out_features()], &device)
    })
}

/// As [`matmul`], on plain memory and with a chosen instruction set.
pub(crate) fn multiply<const N: usize>(
    matrices: [&CpuMatrix; N],
    x: &[f32],
    rows: usize,
    isa: Isa,
) -> [Vec<f32>; N] {
    let mut outs = matrices.map(|matrix| vec![0.0; rows * matrix.out_features()]);
    let features: usize = matrices.iter().map(|matrix| matrix.out_features()).sum();
    let in_features = matrices.first().map_or(0, |matrix| matrix.in_features());
    if rows == 0 || in_features == 0 {
        return outs;
    }
    let shared = OnceActivations::new(&matrices, x, isa);
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && features * in_features * rows >= PARALLEL_MIN;
    let pieces = if parallel { threads * PIECES_PER_THREAD } else { 1 };
    let piece_panels = features.div_ceil(PANEL).div_ceil(pieces).max(1);

    let work = |piece: Piece<'_>| shared.multiply(piece, x, isa);
    let cut = outs.iter_mut().zip(&matrices).enumerate().flat_map(|(index, (out, matrix))| {
        cut(index, out, matrix.out_features(), if parallel { piece_panels } else { usize::MAX })
    });
    if parallel {
        let pieces: Vec<Piece<'_>> = cut.collect();
        pieces.into_par_iter().with_max_len(1).for_each(work);
    } else {
        cut.for_each(work);
    }
    outs
}

/// Cuts an output of `[rows, features]` into runs of panels.
fn cut(matrix: usize, out: &mut [f32], features: usize, piece_panels: usize) -> Vec<Piece<'_>> {
    let n_panels = features.div_ceil(PANEL);
    let step = piece_panels.min(n_panels.max(1));
    let mut pieces: Vec<Piece<'_>> = (0..n_panels)
        .step_by(step)
        .map(|first| Piece { matrix, panels: first..n_panels.min(first + step), out: Vec::new() })
        .collect();
    for row in out.chunks_exact_mut(features) {
        for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(step * PANEL)) {
            piece.out.push(part);
        }
    }
    pieces
}

/// The matrices, and the input quantised for those that are packed.
struct OnceActivations<'a, const N: usize> {
    matrices: &'a [&'a CpuMatrix; N],
    /// In the inputs' own order, for all that do not permute them.
    plain: Option<Activations>,
    permuted: [Option<Activations>; N],
}

impl<'a, const N: usize> OnceActivations<'a, N> {
    fn new(matrices: &'a [&'a CpuMatrix; N], x: &[f32], isa: Isa) -> Self {
        let packed = |matrix: &CpuMatrix| match matrix {
            CpuMatrix::Packed(matrix) => Some(Arc::clone(matrix)),
            CpuMatrix::Dense(_) => None,
        };
        let in_order = |m: &&CpuMatrix| packed(m).is_some_and(|m| m.permutation().is_none());
        let first = matrices.iter().find(|matrix| in_order(matrix));
        let plain = first.map(|matrix| Activations::new(x, matrix.in_features(), None, isa));
        let permuted = matrices.map(|matrix| {
            let matrix = packed(matrix)?;
            let order = matrix.permutation()?;
            Some(Activations::new(x, matrix.in_features(), Some(order), isa))
        });
        Self { matrices, plain, permuted }
    }

    fn multiply(&self, mut piece: Piece<'_>, x: &[f32], isa: Isa) {
        match self.matrices[piece.matrix] {
            CpuMatrix::Dense(matrix) => matrix.multiply(x, piece.panels, &mut piece.out, isa),
            CpuMatrix::Packed(matrix) => {
                let permuted = self.permuted[piece.matrix].as_ref();
                if let Some(activations) = permuted.or(self.plain.as_ref()) {
                    matrix.multiply(activations, piece.panels, &mut piece.out, isa);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
