//! [`super::full`] on the CPU: tiles of queries pass over groups of keys, and the softmax is carried
//! along (Milakov and Gimelshein 2018), so no matrix of queries times keys is ever in memory.
//!
//! A tile is 64 queries of one head. What a query becomes depends on itself and the keys alone.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use rayon::prelude::*;

use super::Dims;
use crate::dense::Single;
use crate::panels::accumulate;
use crate::simd::{Isa, Kernel, LANES, Simd};

/// Queries of a tile.
const TILE: usize = 64;
/// Keys between two adjustments of the softmax.
const GROUP: usize = 128;
/// Queries that are multiplied together, at most.
const ROWS: usize = 8;
/// Panels that pass over the queries together.
const PANELS: usize = 2;
/// Below every score, and still finite.
const LOWEST: f32 = -1e30;

/// What is seen of the keys, and how strongly.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    All,
    /// Those up to the query's own place.
    Before,
    /// `[heads, queries, keys]`, added to the scores.
    Biased(&'a [f32]),
}

/// One head of one element of the batch, in panels of 16.
struct Head {
    /// `[key panels, dim, 16 keys]`
    keys: Vec<[f32; LANES]>,
    /// `[feature panels, keys, 16 features]`
    values: Vec<[f32; LANES]>,
}

/// Softmax(scale q kᵀ + bias) v.
///
/// # Shapes
/// - `q`: `[batch, queries, heads, dim]`; returns the same; `k`, `v`: `[batch, keys, heads, dim]`
pub(super) fn attend(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: Dims,
    scale: f32,
    seen: Seen<'_>,
    isa: Isa,
) -> Vec<f32> {
    let Dims { batch, heads, queries, dim, .. } = shape;
    let mut out = vec![0.0; q.len()];
    if out.is_empty() || shape.keys == 0 {
        return out;
    }
    let packed: Vec<Head> = (0..batch * heads)
        .into_par_iter()
        .map(|index| Head::new(k, v, shape, index / heads, index % heads))
        .collect();
    let tiles = queries.div_ceil(TILE);
    let mut rows: Vec<Vec<&mut [f32]>> = (0..batch * heads * tiles).map(|_| Vec::new()).collect();
    for (index, row) in out.chunks_exact_mut(dim).enumerate() {
        let (token, head) = (index / heads, index % heads);
        let (element, query) = (token / queries, token % queries);
        rows[(element * heads + head) * tiles + query / TILE].push(row);
    }
    rows.into_par_iter().with_max_len(1).enumerate().for_each(|(index, out)| {
        let (head, first) = (index / tiles, index % tiles * TILE);
        let start = head / heads * queries + first;
        let tile = Tile {
            q: &q[(start * heads + head % heads) * dim..],
            packed: &packed[head],
            shape,
            scale,
            seen,
            head: head % heads,
            first,
            out,
        };
        isa.run(tile);
    });
    out
}

impl Head {
    fn new(k: &[f32], v: &[f32], shape: Dims, element: usize, head: usize) -> Self {
        let Dims { heads, keys: count, dim, .. } = shape;
        let mut keys = vec![[0.0; LANES]; count.div_ceil(LANES) * dim];
        let mut values = vec![[0.0; LANES]; dim.div_ceil(LANES) * count];
        for key in 0..count {
            let at = ((element * count + key) * heads + head) * dim;
            let panel = &mut keys[key / LANES * dim..][..dim];
            for (to, x) in panel.iter_mut().zip(&k[at..at + dim]) {
                to[key % LANES] = *x;
            }
            for (panel, x) in v[at..at + dim].chunks(LANES).enumerate() {
                values[panel * count + key][..x.len()].copy_from_slice(x);
            }
        }
        Self { keys, values }
    }
}

struct Tile<'a, 'o> {
    /// From the first query's head on; a token is `heads * dim` long.
    q: &'a [f32],
    packed: &'a Head,
    shape: Dims,
    scale: f32,
    seen: Seen<'a>,
    head: usize,
    /// The first query.
    first: usize,
    /// A row for each query.
    out: Vec<&'o mut [f32]>,
}

/// The softmax of a query as far as it has come.
#[derive(Clone, Copy)]
struct Running<S: Simd> {
    largest: f32,
    /// The sum of the exponentials, spread over lanes.
    total: S::F,
    /// What makes earlier sums fit the last group's.
    factor: f32,
}

/// The numbers of a tile while keys pass by. There are a multiple of [`ROWS`] queries, the last of
/// which may be nobody's.
struct State<S: Simd> {
    /// `[queries][dim]`, scaled
    q: Vec<f32>,
    /// `[queries][GROUP]`: scores, then weights
    scores: Vec<[[f32; LANES]; GROUP / LANES]>,
    /// `[feature panels][queries]`
    sums: Vec<[f32; LANES]>,
    running: Vec<Running<S>>,
}

impl Kernel for Tile<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Dims { heads, keys, dim, .. } = self.shape;
        let queries = self.out.len();
        let padded = queries.next_multiple_of(ROWS);
        let panels = dim.div_ceil(LANES);
        let mut q = Vec::with_capacity(padded * dim);
        for row in self.q.chunks(heads * dim).take(queries) {
            q.extend(row[..dim].iter().map(|x| x * self.scale));
        }
        q.resize(padded * dim, 0.0);
        let start = Running::<S> { largest: LOWEST, total: s.splat(0.0), factor: 1.0 };
        let mut state = State {
            q,
            scores: vec![[[0.0; LANES]; GROUP / LANES]; padded],
            sums: vec![[0.0; LANES]; panels * padded],
            running: vec![start; padded],
        };
        let end = match self.seen {
            Seen::Before => keys.min(self.first + queries),
            Seen::All | Seen::Biased(_) => keys,
        };
        for first in (0..end).step_by(GROUP) {
            let keys = first..end.min(first + GROUP);
            let (mut panel, key_panels) = (0, keys.len().div_ceil(LANES));
            while S::WIDE && panel + PANELS <= key_panels {
                self.score::<S, PANELS>(s, &mut state, first / LANES, panel);
                panel += PANELS;
            }
            for panel in panel..key_panels {
                self.score::<S, 1>(s, &mut state, first / LANES, panel);
            }
            for query in 0..queries {
                self.soften(s, &mut state, query, keys.clone());
            }
            let mut panel = 0;
            if S::WIDE && panels % PANELS == 1 && panels > PANELS {
                self.gather::<S, { PANELS + 1 }>(s, &mut state, 0, keys.clone());
                panel = PANELS + 1;
            }
            while S::WIDE && panel + PANELS <= panels {
                self.gather::<S, PANELS>(s, &mut state, panel, keys.clone());
                panel += PANELS;
            }
            for panel in panel..panels {
                self.gather::<S, 1>(s, &mut state, panel, keys.clone());
            }
        }
        for (query, out) in self.out.into_iter().enumerate() {
            let inverse = 1.0 / s.sum(state.running[query].total);
            for (panel, out) in out.chunks_mut(LANES).enumerate() {
                for (out, sum) in out.iter_mut().zip(&state.sums[panel * padded + query]) {
                    *out = sum * inverse;
                }
            }
        }
    }
}

impl Tile<'_, '_> {
    /// The scores of all queries with `P` panels of keys.
    #[inline(always)]
    fn score<S: Simd, const P: usize>(
        &self,
        s: S,
        state: &mut State<S>,
        group: usize,
        first: usize,
    ) {
        let queries = state.running.len();
        if S::WIDE {
            for query in (0..queries).step_by(ROWS) {
                self.score_some::<S, ROWS, P>(s, state, group, first, query);
            }
        } else {
            for query in (0..queries).step_by(ROWS / 2) {
                self.score_some::<S, { ROWS / 2 }, P>(s, state, group, first, query);
            }
        }
    }

    #[inline(always)]
    fn score_some<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        state: &mut State<S>,
        group: usize,
        first: usize,
        query: usize,
    ) {
        let dim = self.shape.dim;
        let mut rows: [&[f32]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &state.q[(query + r) * dim..][..dim];
        }
        let mut panels: [&[[f32; LANES]]; P] = [&[]; P];
        for (p, panel) in panels.iter_mut().enumerate() {
            *panel = &self.packed.keys[(group + first + p) * dim..][..dim];
        }
        let sums = [[s.splat(0.0); P]; R];
        let sums = accumulate::<S, Single, R, P>(s, rows, panels, sums, dim);
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                s.store(sum, &mut state.scores[query + r][first + p]);
            }
        }
    }

    /// Turns a group's scores into weights relative to the largest score so far.
    #[inline(always)]
    fn soften<S: Simd>(&self, s: S, state: &mut State<S>, query: usize, keys: Range<usize>) {
        let place = self.first + query;
        let scores = &mut state.scores[query][..keys.len().div_ceil(LANES)];
        let running = &mut state.running[query];
        let end = match self.seen {
            Seen::Before => keys.end.min(place + 1),
            Seen::All | Seen::Biased(_) => keys.end,
        };
        if let Seen::Biased(bias) = self.seen {
            let Dims { queries, keys: all, .. } = self.shape;
            let row = &bias[(self.head * queries + place) * all..][keys.clone()];
            for (scores, bias) in scores.iter_mut().zip(row.chunks(LANES)) {
                for (score, bias) in scores.iter_mut().zip(bias) {
                    *score += bias;
                }
            }
        }
        let mut largest = s.splat(running.largest);
        for (panel, scores) in scores.iter().enumerate() {
            let mask = below(end, keys.start + panel * LANES);
            largest = s.max(s.select(mask, s.load(scores), s.splat(LOWEST)), largest);
        }
        let before = running.largest;
        running.largest = s.largest(largest);
        let factor = s.exp(s.splat(before - running.largest));
        running.total = s.mul(running.total, factor);
        running.factor = s.largest(factor);
        let largest = s.splat(running.largest);
        for (panel, scores) in scores.iter_mut().enumerate() {
            let mask = below(end, keys.start + panel * LANES);
            let weights = s.exp(s.sub(s.load(scores), largest));
            let weights = s.select(mask, weights, s.splat(0.0));
            running.total = s.add(running.total, weights);
            s.store(weights, scores);
        }
    }

    /// Adds a group's values, as the weights say, to `P` panels of features.
    #[inline(always)]
    fn gather<S: Simd, const P: usize>(
        &self,
        s: S,
        state: &mut State<S>,
        first: usize,
        keys: Range<usize>,
    ) {
        let queries = state.running.len();
        if S::WIDE {
            for query in (0..queries).step_by(ROWS) {
                self.gather_some::<S, ROWS, P>(s, state, first, keys.clone(), query);
            }
        } else {
            for query in (0..queries).step_by(ROWS / 2) {
                self.gather_some::<S, { ROWS / 2 }, P>(s, state, first, keys.clone(), query);
            }
        }
    }

    #[inline(always)]
    fn gather_some<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        state: &mut State<S>,
        first: usize,
        keys: Range<usize>,
        query: usize,
    ) {
        let (queries, all) = (state.running.len(), self.shape.keys);
        let count = keys.len();
        let mut rows: [&[f32]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &state.scores[query + r].as_flattened()[..count];
        }
        let mut panels: [&[[f32; LANES]]; P] = [&[]; P];
        let mut sums = [[s.splat(0.0); P]; R];
        for p in 0..P {
            panels[p] = &self.packed.values[(first + p) * all..][keys.clone()];
            for (r, sums) in sums.iter_mut().enumerate() {
                let sum = s.load(&state.sums[(first + p) * queries + query + r]);
                sums[p] = s.mul(sum, s.splat(state.running[query + r].factor));
            }
        }
        let sums = accumulate::<S, Single, R, P>(s, rows, panels, sums, count);
        for (r, sums) in sums.into_iter().enumerate() {
            for (p, sum) in sums.into_iter().enumerate() {
                s.store(sum, &mut state.sums[(first + p) * queries + query + r]);
            }
        }
    }
}

/// A bit for each of the 16 places from `start` on that is below `end`.
#[inline(always)]
fn below(end: usize, start: usize) -> u16 {
    ((1u32 << end.saturating_sub(start).min(LANES)) - 1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * seed).sin() * 2.0).collect()
    }

    #[test]
    fn every_instruction_set_attends_alike() {
        let shape = Dims { batch: 2, heads: 3, queries: 75, keys: 333, dim: 21 };
        let q = values(2 * 75 * 3 * 21, 0.37);
        let (k, v) = (values(2 * 333 * 3 * 21, 0.71), values(2 * 333 * 3 * 21, 0.93));
        let bias = values(3 * 75 * 333, 0.11);
        for seen in [Seen::All, Seen::Before, Seen::Biased(&bias)] {
            let run = |isa| attend(&q, &k, &v, shape, 0.4, seen, isa);
            let [portable, others @ ..] = &*Isa::available() else { unreachable!() };
            let expect = run(*portable);
            for isa in others {
                for (found, expect) in run(*isa).iter().zip(&expect) {
                    assert!((found - expect).abs() < 1e-4, "{isa:?} {found} {expect}");
                }
            }
        }
    }

    #[test]
    fn long_pictures_fit_and_equal_keys_give_the_mean() {
        let (tokens, dim) = (4096, 8);
        let shape = Dims { batch: 1, heads: 1, queries: tokens, keys: tokens, dim };
        let (q, v) = (values(tokens * dim, 0.37), values(tokens * dim, 0.71));
        let k = vec![0.5; tokens * dim];
        let found = attend(&q, &k, &v, shape, 1.0, Seen::All, Isa::best());
        for feature in 0..dim {
            let column = v.iter().skip(feature).step_by(dim);
            let mean = column.map(|x| f64::from(*x)).sum::<f64>() / tokens as f64;
            for row in found.chunks(dim) {
                assert!((f64::from(row[feature]) - mean).abs() < 1e-5);
            }
        }
    }
}
