//! The inner loop over packed weights: a panel of 16 output features times a tile of rows.
//!
//! The sums of a block are integers, hence exact; blocks are added in the order of the inputs. So a
//! result depends on its row alone, however rows are tiled.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use neurino_weights::dtype::BLOCK;

use super::activations::{Activations, PAIRS, Tile};
use super::format::{
    Format, Grouped4, Grouped8, PANEL, Q4K, Q4Minimum, Q4Symmetric, Q5K, Q5Minimum, Q5Symmetric,
    Q6K, Q8,
};
use super::packed::{PackedMatrix, Packing};
use crate::simd::{Isa, Kernel, LANES, Simd};

/// Memory of activations that stays in a core's second cache level while panels pass by.
const TILE_BYTES_MAX: usize = 384 << 10;

/// How far ahead weights are asked for. (For one row of 8-bit weights, which is all reading, the CPU's own
/// guess is better.)
const AHEAD_BYTES: usize = 2048;

/// Multiplies some panels with all activations.
pub(super) struct Stripe<'a, 'o> {
    pub(super) matrix: &'a PackedMatrix,
    pub(super) activations: &'a Activations,
    pub(super) panels: Range<usize>,
    /// Of each row, the features of these panels.
    pub(super) out: &'a mut [&'o mut [f32]],
}

impl Stripe<'_, '_> {
    /// Multiplies with the instruction set `isa`.
    pub(super) fn run(self, isa: Isa) {
        match self.matrix.packing() {
            Packing::Q4Symmetric => isa.run(Panels(self, Q4Symmetric)),
            Packing::Q4Minimum => isa.run(Panels(self, Q4Minimum)),
            Packing::Q5Symmetric => isa.run(Panels(self, Q5Symmetric)),
            Packing::Q5Minimum => isa.run(Panels(self, Q5Minimum)),
            Packing::Q8 => isa.run(Panels(self, Q8)),
            Packing::Q4K => isa.run(Panels(self, Q4K)),
            Packing::Q5K => isa.run(Panels(self, Q5K)),
            Packing::Q6K => isa.run(Panels(self, Q6K)),
            Packing::Grouped4 => isa.run(Panels(self, Grouped4)),
            Packing::Grouped8 => isa.run(Panels(self, Grouped8)),
        }
    }
}

struct Panels<'a, 'o, F>(Stripe<'a, 'o>, F);

impl<F: Format> Kernel for Panels<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Stripe { matrix, activations, panels, out } = self.0;
        let (bytes, panel_bytes) = matrix.panels(panels);
        let tiles = activations.tiles();
        let group = GroupSize { blocks: matrix.group_blocks() };
        let mut first = 0;
        while first < tiles.len() {
            let mut held_bytes = 0;
            let fit = tiles[first..].iter().take_while(|tile| {
                held_bytes += tile.pairs.len() * size_of::<i32>();
                held_bytes <= TILE_BYTES_MAX
            });
            let last = first + fit.count().max(1);
            for (index, panel) in bytes.chunks_exact(panel_bytes).enumerate() {
                for tile in &tiles[first..last] {
                    let out = &mut out[tile.first_row..tile.first_row + tile.rows];
                    match tile.rows {
                        8 => write::<S, F, 8>(s, panel, group, tile, index, out),
                        4 => write::<S, F, 4>(s, panel, group, tile, index, out),
                        2 => write::<S, F, 2>(s, panel, group, tile, index, out),
                        _ => write::<S, F, 1>(s, panel, group, tile, index, out),
                    }
                }
            }
            first = last;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct GroupSize {
    blocks: usize,
}

#[inline(always)]
fn write<S: Simd, F: Format, const N: usize>(
    s: S,
    panel: &[u8],
    group: GroupSize,
    tile: &Tile,
    index: usize,
    out: &mut [&mut [f32]],
) {
    let sums = multiply::<S, F, N>(s, panel, group, tile);
    for (sum, out) in sums.into_iter().zip(out) {
        let out = &mut out[index * PANEL..];
        if let Some(out) = out.first_chunk_mut::<LANES>() {
            s.store(sum, out);
        } else {
            let mut all = [0.0; LANES];
            s.store(sum, &mut all);
            let count = out.len();
            out.copy_from_slice(&all[..count]);
        }
    }
}

/// 16 features of `N` rows.
#[inline(always)]
fn multiply<S: Simd, F: Format, const N: usize>(
    s: S,
    panel: &[u8],
    group: GroupSize,
    tile: &Tile,
) -> [S::F; N] {
    let group_bytes = F::HEAD_BYTES + group.blocks * F::QUANT_BYTES;
    let scales = tile.scales.as_chunks::<N>().0;
    let sums = tile.sums.as_chunks::<N>().0;
    let pairs = tile.pairs.as_chunks::<N>().0.as_chunks::<PAIRS>().0;
    let mut total = [s.splat(0.0); N];
    let x_groups = pairs.chunks(group.blocks).zip(scales.chunks(group.blocks));
    let x_groups = x_groups.zip(sums.chunks(group.blocks));
    for (weights, ((pairs, scales), sums)) in panel.chunks(group_bytes).zip(x_groups) {
        // The head is not cut off: of a head whose length is known the compiler infers how many blocks
        // there can be, and writes all of them out one after the other, more than the cache holds.
        let (head, quants) = (weights, &weights[F::HEAD_BYTES..]);
        let x = pairs.iter().zip(scales).zip(sums).enumerate();
        for (quants, (block, ((pairs, scales), sums))) in quants.chunks_exact(F::QUANT_BYTES).zip(x)
        {
            if N > 1 || F::QUANT_BYTES < BLOCK * PANEL {
                for line in quants.chunks(64) {
                    s.prefetch(&line[0], AHEAD_BYTES);
                }
            }
            let [d, second] = F::scales(s, head, block);
            let mut ints = [s.splat_i32(0); N];
            half_block::<S, F, N, 0>(s, quants, pairs, &mut ints);
            if F::SPLIT {
                add(s, &mut total, ints, d, scales);
                ints = [s.splat_i32(0); N];
            }
            half_block::<S, F, N, 4>(s, quants, pairs, &mut ints);
            add(s, &mut total, ints, if F::SPLIT { second } else { d }, scales);
            if F::MINIMA {
                for row in 0..N {
                    total[row] = s.fma(second, s.splat(sums[row]), total[row]);
                }
            }
        }
    }
    total
}

#[inline(always)]
fn add<S: Simd, const N: usize>(
    s: S,
    total: &mut [S::F; N],
    ints: [S::I; N],
    d: S::F,
    scales: &[f32; N],
) {
    for row in 0..N {
        let scale = s.mul(d, s.splat(scales[row]));
        total[row] = s.fma(s.to_f32(ints[row]), scale, total[row]);
    }
}

/// The chunks `FIRST .. FIRST + 4` of a block: 16 inputs.
#[inline(always)]
fn half_block<S: Simd, F: Format, const N: usize, const FIRST: usize>(
    s: S,
    quants: &[u8],
    pairs: &[[i32; N]; PAIRS],
    ints: &mut [S::I; N],
) {
    const { assert!(BLOCK == 32, "a block has eight chunks") };
    // Written out, so that every shift and offset is a constant.
    chunk::<S, F, N>(s, quants, pairs, ints, FIRST);
    chunk::<S, F, N>(s, quants, pairs, ints, FIRST + 1);
    chunk::<S, F, N>(s, quants, pairs, ints, FIRST + 2);
    chunk::<S, F, N>(s, quants, pairs, ints, FIRST + 3);
}

#[inline(always)]
fn chunk<S: Simd, F: Format, const N: usize>(
    s: S,
    quants: &[u8],
    pairs: &[[i32; N]; PAIRS],
    ints: &mut [S::I; N],
    chunk: usize,
) {
    let [low, high] = F::words(s, quants, chunk);
    for row in 0..N {
        ints[row] = s.dot(ints[row], low, pairs[2 * chunk][row]);
    }
    for row in 0..N {
        ints[row] = s.dot(ints[row], high, pairs[2 * chunk + 1][row]);
    }
}
