//! Attention of some queries over the keys of one head of one text.
//!
//! Keys pass in groups of 64 tokens that begin at multiples of 64 of the text, and the softmax is
//! carried along (Milakov and Gimelshein 2018). What a query does with a group depends on the query
//! and the group alone; the queries of a tile merely share the loads.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use super::BLOCK_TOKENS;
use super::cpu_kv::Element;
use crate::simd::{Isa, Kernel, LANES, Simd};

/// Blocks between two adjustments of the softmax.
const GROUP_BLOCKS: usize = 4;
const GROUP_TOKENS: usize = GROUP_BLOCKS * BLOCK_TOKENS;
/// Below every score, and still finite.
const LOWEST: f32 = -1e30;
/// The most queries of a tile.
const TILE_MAX: usize = 8;

/// Queries that a tile should have.
pub(super) fn tile_queries(isa: Isa) -> usize {
    if isa.is_wide() { TILE_MAX } else { TILE_MAX / 2 }
}

/// One head of one row.
pub(super) struct Query<'a> {
    /// `[head_dim]`
    pub(super) features: &'a [f32],
    /// The positions it sees.
    pub(super) seen: Range<usize>,
    /// `[head_dim]`
    pub(super) out: &'a mut [f32],
}

/// The keys of a text.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a, E> {
    /// `[n_blocks, heads, dim, BLOCK_TOKENS]`
    pub(super) all: &'a [E],
    pub(super) heads: usize,
    pub(super) head: usize,
    pub(super) dim: usize,
    pub(super) blocks: &'a [u32],
}

/// The values of a text.
#[derive(Clone, Copy)]
pub(super) struct Values<'a, E> {
    /// `[n_blocks, heads, BLOCK_TOKENS, width]`
    pub(super) all: &'a [E],
    pub(super) heads: usize,
    pub(super) head: usize,
    /// Features with padding.
    pub(super) width: usize,
    pub(super) blocks: &'a [u32],
}

impl<'a, E> Keys<'a, E> {
    #[inline(always)]
    fn block(&self, index: usize) -> &'a [[E; BLOCK_TOKENS]] {
        let first = (self.blocks[index] as usize * self.heads + self.head) * self.dim;
        &self.all[first * BLOCK_TOKENS..][..self.dim * BLOCK_TOKENS].as_chunks().0[..self.dim]
    }
}

impl<'a, E> Values<'a, E> {
    #[inline(always)]
    fn block(&self, index: usize) -> &'a [E] {
        let first = (self.blocks[index] as usize * self.heads + self.head) * BLOCK_TOKENS;
        &self.all[first * self.width..][..BLOCK_TOKENS * self.width]
    }
}

/// Queries of one text and one key-value head, in the order of their positions.
pub(super) struct Tile<'a, E> {
    pub(super) keys: Keys<'a, E>,
    pub(super) values: Values<'a, E>,
    pub(super) queries: Vec<Query<'a>>,
}

impl<E: Element> Kernel for Tile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.queries.len() {
            0 => {}
            1 => attend::<S, E, 1>(s, self),
            2 => attend::<S, E, 2>(s, self),
            3 => attend::<S, E, 3>(s, self),
            4 => attend::<S, E, 4>(s, self),
            5 => attend::<S, E, 5>(s, self),
            6 => attend::<S, E, 6>(s, self),
            7 => attend::<S, E, 7>(s, self),
            _ => attend::<S, E, TILE_MAX>(s, self),
        }
    }
}

/// The softmax of a query as far as it has come.
#[derive(Clone, Copy)]
struct Running<S: Simd> {
    largest: f32,
    /// The sum of the exponentials, spread over lanes.
    total: S::F,
}

#[inline(always)]
fn attend<S: Simd, E: Element, const N: usize>(s: S, tile: Tile<'_, E>) {
    let Tile { keys, values, queries } = tile;
    let scale = 1.0 / (keys.dim as f32).sqrt();
    // Feature by feature, so that a feature of all queries lies together.
    let mut q = vec![[0.0; N]; keys.dim];
    for (n, query) in queries.iter().enumerate() {
        for (q, x) in q.iter_mut().zip(query.features) {
            q[n] = x * scale;
        }
    }
    let first = queries.iter().map(|query| query.seen.start).min().unwrap_or(0);
    let end = queries.iter().map(|query| query.seen.end).max().unwrap_or(0);
    let (first_block, end_block) = (first / BLOCK_TOKENS, end.div_ceil(BLOCK_TOKENS));

    let mut running = [Running::<S> { largest: LOWEST, total: s.splat(0.0) }; N];
    // Vector by vector of features, the queries together.
    let mut sums = vec![[[0.0; LANES]; N]; values.width / LANES];
    for group in first_block / GROUP_BLOCKS..end_block.div_ceil(GROUP_BLOCKS) {
        let from = first_block.max(group * GROUP_BLOCKS);
        let blocks = from..end_block.min((group + 1) * GROUP_BLOCKS);
        let mut weights = [[[LOWEST; LANES]; GROUP_BLOCKS]; N];
        for (place, block) in blocks.clone().enumerate() {
            let scores = scores::<S, E, N>(s, &q, keys.block(block));
            for n in 0..N {
                s.store(scores[n], &mut weights[n][place]);
            }
        }
        let mut factors = [s.splat(1.0); N];
        for n in 0..N {
            let seen = &queries[n].seen;
            let weights = &mut weights[n][..blocks.len()];
            factors[n] = soften(s, weights, &mut running[n], seen, blocks.start);
        }
        for (vector, sums) in sums.iter_mut().enumerate() {
            let mut sum = [s.splat(0.0); N];
            for n in 0..N {
                sum[n] = s.mul(s.load(&sums[n]), factors[n]);
            }
            for (place, block) in blocks.clone().enumerate() {
                let rows = values.block(block).chunks_exact(values.width);
                for (token, row) in rows.enumerate().take(BLOCK_TOKENS) {
                    let row = row[vector * LANES..].first_chunk().expect("values are padded");
                    let value = E::load(s, row);
                    for n in 0..N {
                        sum[n] = s.fma(s.splat(weights[n][place][token]), value, sum[n]);
                    }
                }
            }
            for n in 0..N {
                s.store(sum[n], &mut sums[n]);
            }
        }
    }
    for (n, query) in queries.into_iter().enumerate() {
        let inverse = 1.0 / s.sum(running[n].total);
        for (out, sums) in query.out.chunks_mut(LANES).zip(&sums) {
            for (out, sum) in out.iter_mut().zip(&sums[n]) {
                *out = sum * inverse;
            }
        }
    }
}

/// q k of all tokens of a block.
#[inline(always)]
fn scores<S: Simd, E: Element, const N: usize>(
    s: S,
    q: &[[f32; N]],
    keys: &[[E; BLOCK_TOKENS]],
) -> [S::F; N] {
    let mut sums = [s.splat(0.0); N];
    for (q, key) in q.iter().zip(keys) {
        let key = E::load(s, key);
        for n in 0..N {
            sums[n] = s.fma(key, s.splat(q[n]), sums[n]);
        }
    }
    sums
}

/// Turns a group's scores into weights relative to the largest score so far, and returns the factor
/// that makes earlier sums fit.
#[inline(always)]
fn soften<S: Simd>(
    s: S,
    scores: &mut [[f32; LANES]],
    running: &mut Running<S>,
    seen: &Range<usize>,
    first_block: usize,
) -> S::F {
    let mut masks = [0u16; GROUP_BLOCKS];
    let mut largest = s.splat(LOWEST);
    for (place, (scores, mask)) in scores.iter().zip(&mut masks).enumerate() {
        *mask = seen_lanes(seen, (first_block + place) * BLOCK_TOKENS);
        let kept = s.select(*mask, s.load(scores), s.splat(LOWEST));
        largest = s.max(kept, largest);
    }
    let before = running.largest;
    running.largest = s.largest(s.max(largest, s.splat(before)));
    let factor = s.exp(s.splat(before - running.largest));
    running.total = s.mul(running.total, factor);
    for (scores, mask) in scores.iter_mut().zip(masks) {
        let weights = s.exp(s.sub(s.load(scores), s.splat(running.largest)));
        let weights = s.select(mask, weights, s.splat(0.0));
        running.total = s.add(running.total, weights);
        s.store(weights, scores);
    }
    factor
}

/// A bit for each token of the block at position `start` that is seen.
#[inline(always)]
fn seen_lanes(seen: &Range<usize>, start: usize) -> u16 {
    let below = |end: usize| (1u32 << end.saturating_sub(start).min(BLOCK_TOKENS)) - 1;
    (below(seen.end) & !below(seen.start)) as u16
}

const _: () =
    assert!(BLOCK_TOKENS == LANES && GROUP_TOKENS == 64, "a block's scores are one vector");
