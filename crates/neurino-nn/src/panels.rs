//! Products of many rows with weights in panels of 16 features. A row may be a pixel's surroundings,
//! read where they lie: so a convolution is one product for each place of its kernel, and nothing is
//! laid out anew.
//!
//! Inputs pass in blocks of at most [`BLOCK_INPUTS`]. Within a block, a feature adds its products in
//! order; blocks are then added in order. That holds for each row alone, however rows and features are
//! shared among threads.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use rayon::prelude::*;

use crate::dense::Stored;
use crate::simd::{Isa, Kernel, LANES, Simd};

mod geometry;
mod matrix;

pub(crate) use geometry::Geometry;
use geometry::{Block, Place};
pub(crate) use matrix::PanelMatrix;

/// Inputs of a block: three panels of it, in 16 bits, stay in a core's first cache level.
const BLOCK_INPUTS: usize = 320;
/// Panels that pass over the rows together.
const GROUP: usize = 3;
/// Below this many multiplications, waking another thread takes longer than it saves.
const PARALLEL_MIN: usize = 1 << 17;
/// Pieces of work a thread gets, so that a slow core does not hold up the others.
const PIECES_PER_THREAD: usize = 4;

/// Weights that come in panels: for each input, 16 features together.
pub(crate) trait Source<F: Stored>: Sync {
    fn out_features(&self) -> usize;

    /// For how many rows a panel is asked for at once.
    fn rows_at_once(&self) -> usize;

    /// The weights of the features `16 panel ..` for some inputs; absent features' are zero. May use
    /// `room` to make them.
    fn panel<'s>(
        &'s self,
        panel: usize,
        inputs: Range<usize>,
        room: &'s mut Room,
        isa: Isa,
    ) -> &'s [[F::Bits; LANES]];
}

/// Memory in which weights are unpacked.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) panel: Vec<[f32; LANES]>,
    pub(crate) rows: Vec<f32>,
}

/// Some rows and some panels: one thread's work.
struct Piece<'a, 'o, F> {
    x: &'a [f32],
    zeros: &'a [f32],
    geometry: &'a Geometry,
    blocks: &'a [Block],
    places: Vec<Place>,
    source: &'a dyn Source<F>,
    isa: Isa,
    bias: Option<&'a [f32]>,
    panels: Range<usize>,
    /// Of each row, the features of these panels.
    out: Vec<&'o mut [f32]>,
}

/// `x Wᵀ + bias` where the rows of `x` are what each pixel of the result sees.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; `bias`: `[features]`
/// - returns `[batch, out height, out width, features]`
pub(crate) fn multiply<F: Stored>(
    x: &[f32],
    geometry: &Geometry,
    source: &dyn Source<F>,
    bias: Option<&[f32]>,
    isa: Isa,
) -> Vec<f32> {
    let (rows, features) = (geometry.out_pixels(), source.out_features());
    let mut out = vec![0.0; rows * features];
    if out.is_empty() {
        return out;
    }
    let blocks = geometry.blocks(BLOCK_INPUTS);
    let run = source.rows_at_once();
    let zeros = vec![0.0; geometry.channels];
    let panels = features.div_ceil(LANES);
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && rows * features * geometry.inputs() >= PARALLEL_MIN;
    let pieces = if parallel { threads * PIECES_PER_THREAD } else { 1 };
    let splits = pieces.div_ceil(rows.div_ceil(run)).min(panels.div_ceil(GROUP));
    // Whole groups of panels, so that no piece but the last has a smaller one.
    let piece_panels = panels.div_ceil(splits).next_multiple_of(GROUP);

    let piece = |(first, out): (usize, &mut [f32])| {
        let count = out.len() / features;
        let places: Vec<Place> = (first..first + count).map(|row| geometry.place(row)).collect();
        cut(out, features, piece_panels * LANES).into_par_iter().enumerate().for_each(
            |(split, out)| {
                let panels = split * piece_panels..panels.min((split + 1) * piece_panels);
                let bias = bias.map(|bias| &bias[panels.start * LANES..]);
                let (zeros, blocks, places) = (&*zeros, &*blocks, places.clone());
                isa.run(Piece {
                    x,
                    zeros,
                    geometry,
                    blocks,
                    places,
                    source,
                    isa,
                    bias,
                    panels,
                    out,
                });
            },
        );
    };
    let chunk = run * features;
    if parallel {
        let chunks = out.par_chunks_mut(chunk).enumerate();
        chunks.with_max_len(1).for_each(|(i, out)| piece((i * run, out)));
    } else {
        out.chunks_mut(chunk).enumerate().for_each(|(i, out)| piece((i * run, out)));
    }
    out
}

/// Cuts `[rows, features]` into runs of features.
fn cut(out: &mut [f32], features: usize, run: usize) -> Vec<Vec<&mut [f32]>> {
    let rows = out.len() / features;
    let runs = features.div_ceil(run);
    let mut pieces: Vec<_> = (0..runs).map(|_| Vec::with_capacity(rows)).collect();
    for row in out.chunks_exact_mut(features) {
        for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(run)) {
            piece.push(part);
        }
    }
    pieces
}

impl<F: Stored> Kernel for Piece<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut rooms: [Room; GROUP] = Default::default();
        for block in 0..self.blocks.len() {
            let Range { start: mut panel, end } = self.panels;
            while panel < end {
                // Four are two and two, because one alone keeps the CPU waiting for loads.
                match end - panel {
                    3 | 5.. if S::WIDE => {
                        self.group::<S, GROUP>(s, block, panel, &mut rooms);
                        panel += GROUP;
                    }
                    2 | 4 if S::WIDE => {
                        self.group::<S, 2>(s, block, panel, &mut rooms);
                        panel += 2;
                    }
                    _ => {
                        self.group::<S, 1>(s, block, panel, &mut rooms);
                        panel += 1;
                    }
                }
            }
        }
    }
}

impl<F: Stored> Piece<'_, '_, F> {
    /// `P` panels of one block, times all rows.
    #[inline(always)]
    fn group<S: Simd, const P: usize>(
        &mut self,
        s: S,
        block: usize,
        first: usize,
        rooms: &mut [Room; GROUP],
    ) {
        let source = self.source;
        let inputs = self.blocks[block].inputs.clone();
        let mut weights: [&[_]; P] = [&[]; P];
        for (p, (weights, room)) in weights.iter_mut().zip(rooms).enumerate() {
            *weights = source.panel(first + p, inputs.clone(), room, self.isa);
        }
        let at = (first - self.panels.start) * LANES;
        if S::WIDE {
            for row in (0..self.out.len()).step_by(8) {
                self.tile::<S, 8, P>(s, block, weights, row, at);
            }
        } else {
            for row in (0..self.out.len()).step_by(4) {
                self.tile::<S, 4, P>(s, block, weights, row, at);
            }
        }
    }

    /// `P` panels of one block, times `R` rows; behind the last row, the last one again.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize>(
        &mut self,
        s: S,
        block: usize,
        weights: [&[[F::Bits; LANES]]; P],
        first: usize,
        at: usize,
    ) {
        let rows = &self.places[first..];
        let mut places = [Place::default(); R];
        for (r, place) in places.iter_mut().enumerate() {
            *place = rows[r.min(rows.len() - 1)];
        }
        let mut sums = [[s.splat(0.0); P]; R];
        let mut done = 0;
        for segment in &self.blocks[block].segments {
            let count = segment.channels.len();
            let mut rows: [&[f32]; R] = [&[]; R];
            for (row, place) in rows.iter_mut().zip(places) {
                *row = self.geometry.seen(self.x, self.zeros, place, segment);
            }
            let mut part: [&[_]; P] = [&[]; P];
            for (part, weights) in part.iter_mut().zip(weights) {
                *part = &weights[done..][..count];
            }
            sums = accumulate::<S, F, R, P>(s, rows, part, sums, count);
            done += count;
        }
        for (out, sums) in self.out[first..].iter_mut().zip(sums) {
            let out = &mut out[at..];
            for (p, sum) in sums.into_iter().enumerate() {
                let out = &mut out[p * LANES..];
                let count = out.len().min(LANES);
                let mut before = [0.0; LANES];
                if block > 0 {
                    before[..count].copy_from_slice(&out[..count]);
                } else if let Some(bias) = self.bias {
                    before[..count].copy_from_slice(&bias[at + p * LANES..][..count]);
                }
                let sum = s.add(s.load(&before), sum);
                if let Some(out) = out.first_chunk_mut() {
                    s.store(sum, out);
                } else {
                    s.store(sum, &mut before);
                    out.copy_from_slice(&before[..count]);
                }
            }
        }
    }
}

/// Adds the products of `count` inputs of `R` rows with those of `P` panels.
#[inline(always)]
pub(crate) fn accumulate<S: Simd, F: Stored, const R: usize, const P: usize>(
    s: S,
    rows: [&[f32]; R],
    panels: [&[[F::Bits; LANES]]; P],
    mut sums: [[S::F; P]; R],
    count: usize,
) -> [[S::F; P]; R] {
    let rows = rows.map(|row| &row[..count]);
    let panels = panels.map(|panel| &panel[..count]);
    for i in 0..count {
        let mut weights = [s.splat(0.0); P];
        for p in 0..P {
            weights[p] = F::load(s, &panels[p][i]);
        }
        for r in 0..R {
            let x = s.splat(rows[r][i]);
            for p in 0..P {
                sums[r][p] = s.fma(weights[p], x, sums[r][p]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
