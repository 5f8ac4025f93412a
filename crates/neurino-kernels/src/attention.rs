//! Attention over the paged cache, for decoding and for prompts.
//!
//! The keys of a text are cut into splits of [`SPLIT_TOKENS`] at absolute positions. A cube takes one
//! split of one key-value head and all queries that look at it: the heads of a group, and for prompts
//! the neighbouring rows of a tile. It scores its keys, takes their softmax, and weighs the values.
//! What the splits give is merged from the first to the last: for decoding by a second kernel (so that
//! a long text keeps the whole card busy), for prompts by the same cube, which walks the splits.
//! Both do the same arithmetic in the same order, so a row's result never depends on which it was.
//!
//! Positions, block tables and lengths are tensors; all shapes are fixed by the bucket of a batch.
//!
//! Source: Dao et al. 2023 (flash-decoding), Ainslie et al. 2023 (grouped queries), Kwon et al. 2023
//! (block tables), Jiang et al. 2023 (sliding window).
#![expect(
    clippy::too_many_arguments,
    clippy::manual_is_multiple_of,
    reason = "a kernel takes what it binds, and cube code has its own arithmetic"
)]

use cubecl::prelude::*;
use half::f16;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::lanes::{Cut, lane_max, lane_sum};
use crate::math::exp;
use crate::rope::{BLOCK_TOKENS, Heads, LayerCache};

/// Keys of a split.
pub const SPLIT_TOKENS: usize = 256;
/// Queries that a cube works on together, at most.
const QUERIES_MAX: usize = 8;
/// The score of a key that a query does not see: finite, so that no difference is undefined.
const UNSEEN: f32 = -1e30;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    heads: Heads,
    /// Heads of a group that one cube takes.
    group: usize,
    /// Rows of a tile.
    rows: usize,
    /// Blocks of a block table.
    table: usize,
    /// Keys that a query sees at most; 0 for all.
    window: usize,
    /// Whether one cube walks all splits.
    walk: bool,
    cut: Cut,
}

impl Plan {
    fn queries(&self) -> usize {
        self.group * self.rows
    }

    fn splits(&self) -> usize {
        (self.table * BLOCK_TOKENS).div_ceil(SPLIT_TOKENS)
    }

    /// Units that share a token's value vector.
    fn value_units(&self) -> usize {
        (self.heads.dim / 8).min(self.cut.units())
    }

    /// Tokens whose values are gathered at the same time.
    fn value_slots(&self) -> usize {
        self.cut.units() / self.value_units()
    }

    /// Vectors of eight features that one unit gathers.
    fn value_turns(&self) -> usize {
        (self.heads.dim / 8).div_ceil(self.value_units())
    }
}

/// The first split that a query at `position` looks at.
#[cube]
fn first_split(position: usize, #[comptime] window: usize) -> usize {
    if comptime!(window == 0) {
        0usize.runtime()
    } else {
        (usize::max(position + 1, window) - window) / SPLIT_TOKENS
    }
}

/// Scores of a split's keys into `scores`: `[queries, SPLIT_TOKENS]`.
#[cube]
fn score<C: Float>(
    queries: &Shared<[f32]>,
    positions: &Shared<[u32]>,
    keys: &[Vector<C, Const<8>>],
    tables: &[u32],
    table: usize,
    split: usize,
    kv_head: usize,
    end: usize,
    scores: &mut Shared<[f32]>,
    #[comptime] plan: Plan,
) {
    let units = comptime!(plan.cut.units());
    let vectors = comptime!(plan.heads.dim / 8);
    let count = comptime!(plan.queries());
    let mut sums = Array::<f32>::new(count);
    for turn in 0..comptime!(SPLIT_TOKENS / plan.cut.units()) {
        let place = turn * units + UNIT_POS as usize;
        let token = split * SPLIT_TOKENS + place;
        #[unroll]
        for q in 0..count {
            sums[q] = f32::new(0.0f32);
        }
        if token < end {
            let block = tables[table + token / BLOCK_TOKENS] as usize;
            let base = (block * plan.heads.kv + kv_head) * vectors * BLOCK_TOKENS;
            for v in 0..vectors {
                let key = Vector::<f32, Const<8>>::cast_from(
                    keys[base + v * BLOCK_TOKENS + token % BLOCK_TOKENS],
                );
                #[unroll]
                for q in 0..count {
                    #[unroll]
                    for i in 0..8usize {
                        sums[q] =
                            fma(queries[q * plan.heads.dim + v * 8 + i], key.extract(i), sums[q]);
                    }
                }
            }
        }
        #[unroll]
        for q in 0..count {
            let position = positions[q / plan.group] as usize;
            let mut seen = token < end && token <= position;
            if comptime!(plan.window > 0) {
                seen = seen && token + plan.window > position;
            }
            scores[q * SPLIT_TOKENS + place] = select(seen, sums[q], f32::new(UNSEEN));
        }
    }
}

/// Turns the scores into weights relative to the greatest, and notes it and their sum for each query.
#[cube]
fn weigh(
    scores: &mut Shared<[f32]>,
    most: &mut Shared<[f32]>,
    total: &mut Shared<[f32]>,
    #[comptime] plan: Plan,
) {
    let count = comptime!(plan.queries());
    let lanes = plan.cut.lanes;
    for round in 0..comptime!(plan.queries().div_ceil(plan.cut.planes)) {
        let query = round * plan.cut.planes + UNIT_POS_Y as usize;
        // Warps without a query of their own still take part in sums over lanes.
        let at = usize::min(query, count - 1) * SPLIT_TOKENS + UNIT_POS_X as usize;
        let mut greatest = f32::new(UNSEEN);
        for i in 0..comptime!(SPLIT_TOKENS / plan.cut.lanes) {
            greatest = f32::max(greatest, scores[at + i * lanes]);
        }
        let greatest = lane_max(greatest, plan.cut);
        let mut sum = f32::new(0.0f32);
        if query < count {
            for i in 0..comptime!(SPLIT_TOKENS / plan.cut.lanes) {
                let score = scores[at + i * lanes];
                let weight = exp(score - greatest);
                let weight = select(score > f32::new(UNSEEN), weight, f32::new(0.0f32));
                scores[at + i * lanes] = weight;
                sum += weight;
            }
        }
        let sum = lane_sum(sum, plan.cut);
        if query < count && UNIT_POS_X == 0 {
            most[query] = greatest;
            total[query] = sum;
        }
    }
}

/// Adds up the values by their weights into `parts`: `[slots, queries, dim]`.
#[cube]
fn gather<C: Float>(
    weights: &Shared<[f32]>,
    values: &[Vector<C, Const<8>>],
    tables: &[u32],
    table: usize,
    split: usize,
    kv_head: usize,
    end: usize,
    parts: &mut Shared<[f32]>,
    #[comptime] plan: Plan,
) {
    let vectors = comptime!(plan.heads.dim / 8);
    let count = comptime!(plan.queries());
    let slots = comptime!(plan.value_slots());
    let value_units = comptime!(plan.value_units());
    let slot = UNIT_POS as usize / value_units;
    let lane = UNIT_POS as usize % value_units;
    if slot < slots {
        let first = split * SPLIT_TOKENS;
        let tokens = usize::min(end - first, SPLIT_TOKENS.runtime());
        for turn in 0..comptime!(plan.value_turns()) {
            let vector = turn * value_units + lane;
            let mut sums = Array::<f32>::new(comptime!(plan.queries() * 8));
            let mut place = slot;
            while place < tokens && vector < vectors {
                let token = first + place;
                let block = tables[table + token / BLOCK_TOKENS] as usize;
                let row = (block * plan.heads.kv + kv_head) * BLOCK_TOKENS + token % BLOCK_TOKENS;
                let value = Vector::<f32, Const<8>>::cast_from(values[row * vectors + vector]);
                #[unroll]
                for q in 0..count {
                    let weight = weights[q * SPLIT_TOKENS + place];
                    #[unroll]
                    for i in 0..8usize {
                        sums[q * 8 + i] = fma(weight, value.extract(i), sums[q * 8 + i]);
                    }
                }
                place += slots;
            }
            if vector < vectors {
                #[unroll]
                for q in 0..count {
                    #[unroll]
                    for i in 0..8usize {
                        parts[(slot * count + q) * plan.heads.dim + vector * 8 + i] =
                            sums[q * 8 + i];
                    }
                }
            }
        }
    }
}

/// A running value after one more split: `sum e^(most - new) + part e^(part_most - new)`, where
/// `new` is the greater of the two. The same for values and for the sum of weights.
#[cube]
fn merge(sum: f32, most: f32, part: f32, part_most: f32) -> f32 {
    let new = f32::max(most, part_most);
    fma(part, exp(part_most - new), sum * exp(most - new))
}

#[cube(launch_unchecked)]
fn split_kernel<C: Float>(
    queries: &[f32],
    keys: &[Vector<C, Const<8>>],
    values: &[Vector<C, Const<8>>],
    tables: &[u32],
    sequences: &[u32],
    positions: &[u32],
    tiles: &[u32],
    y: &mut [f32],
    stats: &mut [f32],
    scale: f32,
    #[comptime] plan: Plan,
) {
    let dim = comptime!(plan.heads.dim);
    let count = comptime!(plan.queries());
    let units = comptime!(plan.cut.units());
    let parts_of_group = comptime!(plan.heads.group() / plan.group);
    let kv_head = CUBE_POS_X as usize / parts_of_group;
    let head =
        kv_head * comptime!(plan.heads.group()) + CUBE_POS_X as usize % parts_of_group * plan.group;
    let first_row = tiles[CUBE_POS_Z as usize * 2] as usize;
    let rows = tiles[CUBE_POS_Z as usize * 2 + 1] as usize;
    let last_row = first_row + rows - 1;
    let table = sequences[first_row] as usize * plan.table;
    let end = positions[last_row] as usize + 1;
    let from = first_split(positions[first_row] as usize, plan.window);
    let to = end.div_ceil(SPLIT_TOKENS);
    let (begin, stop) = if comptime!(plan.walk) {
        (from, to)
    } else {
        let split = CUBE_POS_Y as usize;
        let mine = split >= from && split < to;
        (split, select(mine, split + 1, split))
    };

    let mut q = Shared::<[f32]>::new_slice(comptime!(plan.queries() * plan.heads.dim));
    let mut at = Shared::<[u32]>::new_slice(plan.rows);
    let mut scores = Shared::<[f32]>::new_slice(comptime!(plan.queries() * SPLIT_TOKENS));
    let mut most = Shared::<[f32]>::new_slice(count);
    let mut total = Shared::<[f32]>::new_slice(count);
    let mut parts =
        Shared::<[f32]>::new_slice(comptime!(plan.value_slots() * plan.queries() * plan.heads.dim));
    let elements = comptime!(plan.queries() * plan.heads.dim);
    let turns = comptime!((plan.queries() * plan.heads.dim).div_ceil(plan.cut.units()));
    for turn in 0..turns {
        let e = turn * units + UNIT_POS as usize;
        if e < elements {
            // Rows beyond the tile repeat its last one and are not written.
            let row = usize::min(first_row + e / dim / plan.group, last_row);
            let h = head + e / dim % plan.group;
            q[e] = queries[(row * plan.heads.query + h) * dim + e % dim] * scale;
        }
    }
    for turn in 0..comptime!(plan.rows.div_ceil(plan.cut.units())) {
        let r = turn * units + UNIT_POS as usize;
        if r < plan.rows {
            at[r] = positions[usize::min(first_row + r, last_row)];
        }
    }
    sync_cube();

    let mut run = Array::<f32>::new(turns);
    let mut run_most = Array::<f32>::new(turns);
    let mut run_total = Array::<f32>::new(turns);
    #[unroll(turns <= 16)]
    for turn in 0..turns {
        run_most[turn] = f32::new(UNSEEN);
    }
    let mut split = begin;
    while split < stop {
        score::<C>(&q, &at, keys, tables, table, split, kv_head, end, &mut scores, plan);
        sync_cube();
        weigh(&mut scores, &mut most, &mut total, plan);
        sync_cube();
        gather::<C>(&scores, values, tables, table, split, kv_head, end, &mut parts, plan);
        sync_cube();
        #[unroll(turns <= 16)]
        for turn in 0..turns {
            let e = turn * units + UNIT_POS as usize;
            if e < elements {
                let query = e / dim;
                let mut value = f32::new(0.0f32);
                #[unroll]
                for slot in 0..comptime!(plan.value_slots()) {
                    value += parts[slot * elements + e];
                }
                if comptime!(plan.walk) {
                    let part_most = most[query];
                    run[turn] = merge(run[turn], run_most[turn], value, part_most);
                    run_total[turn] =
                        merge(run_total[turn], run_most[turn], total[query], part_most);
                    run_most[turn] = f32::max(run_most[turn], part_most);
                } else {
                    let row = first_row + query / plan.group;
                    let h = head + query % plan.group;
                    let place = (row * plan.heads.query + h) * comptime!(plan.splits()) + split;
                    if row <= last_row {
                        y[place * dim + e % dim] = value;
                        if e % dim == 0 {
                            stats[place * 2] = most[query];
                            stats[place * 2 + 1] = total[query];
                        }
                    }
                }
            }
        }
        // What is shared is written again.
        sync_cube();
        split += 1;
    }
    if comptime!(plan.walk) {
        #[unroll(turns <= 16)]
        for turn in 0..turns {
            let e = turn * units + UNIT_POS as usize;
            let row = first_row + e / dim / plan.group;
            if e < elements && row <= last_row {
                let h = head + e / dim % plan.group;
                y[(row * plan.heads.query + h) * dim + e % dim] = run[turn] / run_total[turn];
            }
        }
    }
}

/// Merges the splits of each row and head. One unit a feature.
#[cube(launch_unchecked)]
fn merge_kernel(
    parts: &[f32],
    stats: &[f32],
    positions: &[u32],
    y: &mut [f32],
    rows: u32,
    #[comptime] plan: Plan,
) {
    let dim = comptime!(plan.heads.dim);
    let at = ABSOLUTE_POS;
    if at < rows as usize * comptime!(plan.heads.query * plan.heads.dim) {
        let position = positions[at / comptime!(plan.heads.query * plan.heads.dim)] as usize;
        let base = at / dim * comptime!(plan.splits());
        let mut split = first_split(position, plan.window);
        let stop = (position + 1).div_ceil(SPLIT_TOKENS);
        let mut value = f32::new(0.0f32);
        let mut total = f32::new(0.0f32);
        let mut most = f32::new(UNSEEN);
        while split < stop {
            let place = base + split;
            let part_most = stats[place * 2];
            value = merge(value, most, parts[place * dim + at % dim], part_most);
            total = merge(total, most, stats[place * 2 + 1], part_most);
            most = f32::max(most, part_most);
            split += 1;
        }
        y[at] = value / total;
    }
}

/// Which rows look where.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// `[sequences, table]`, u32: the blocks of each sequence, in order, then anything valid.
    pub tables: &'a Buffer,
    /// Blocks in a line of `tables`.
    pub table: usize,
    /// `[rows]`, u32: the line of `tables` of each row.
    pub sequences: &'a Buffer,
    /// `[rows]`, u32: a row sees the keys of positions 0 to its own.
    pub positions: &'a Buffer,
}

/// Memory for what the splits give; one serves all layers.
#[derive(Debug, Clone)]
pub struct Scratch {
    parts: Buffer,
    stats: Buffer,
}

impl Scratch {
    /// Memory for up to `rows` decoded rows with block tables of up to `table` blocks.
    pub fn new(gpu: &Gpu, heads: Heads, rows: usize, table: usize) -> Self {
        let places = rows * heads.query * (table * BLOCK_TOKENS).div_ceil(SPLIT_TOKENS);
        Self {
            parts: Buffer::empty::<f32>(&gpu.client, places * heads.dim),
            stats: Buffer::empty::<f32>(&gpu.client, places * 2),
        }
    }
}

/// Softmax(q kᵀ / sqrt(dim)) v of rows over the keys each sees.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// The heads.
    pub heads: Heads,
    /// Keys that a row sees at most, its own included.
    pub window: Option<usize>,
}

impl Attention {
    /// Launches attention for rows that belong to sequences of their own, or to any: each row is
    /// worked on alone, and long texts are shared among many cubes.
    ///
    /// # Shapes
    /// - `queries`, `y`: `[rows, heads.query, dim]`, f32
    ///
    /// # Errors
    /// `Unsupported` for heads without a kernel.
    ///
    /// # Panics
    /// If the lengths of the buffers do not fit together.
    pub fn decode(
        self,
        gpu: &Gpu,
        queries: &Buffer,
        cache: &LayerCache,
        rows: &Rows<'_>,
        singles: &Buffer,
        scratch: &Scratch,
        y: &Buffer,
    ) -> Result<(), Unsupported> {
        let plan = self.plan(gpu, rows, 1, false)?;
        let count = rows.positions.len();
        assert!(singles.len() >= 2 * count, "a tile for each of {count} rows");
        let places = count * self.heads.query * plan.splits();
        assert!(scratch.stats.len() >= 2 * places, "scratch memory for {count} rows");
        let out = [&scratch.parts, &scratch.stats];
        self.launch(gpu, plan, queries, cache, rows, (singles, count), out);
        assert_eq!(y.len(), count * self.heads.query * self.heads.dim, "results of {count} rows");
        // SAFETY: the lengths were checked; tables and positions are the caller's contract.
        #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
        unsafe {
            merge_kernel::launch_unchecked(
                &gpu.client,
                CubeCount::Static(y.len().div_ceil(gpu.cut.units()) as u32, 1, 1),
                gpu.cut.dim(),
                scratch.parts.arg(1),
                scratch.stats.arg(1),
                rows.positions.arg(1),
                y.arg(1),
                count as u32,
                plan,
            );
        }
        Ok(())
    }

    /// Launches attention for rows that follow one another in few sequences. Gives the same bits as
    /// [`Attention::decode`].
    ///
    /// `tiles` holds pairs of a first row and a number of rows, up to [`Attention::tile_rows`], that
    /// belong to one sequence and follow one another in it; together they are all rows.
    ///
    /// # Errors
    /// As [`Attention::decode`].
    ///
    /// # Panics
    /// If the lengths of the buffers do not fit together.
    pub fn prefill(
        self,
        gpu: &Gpu,
        queries: &Buffer,
        cache: &LayerCache,
        rows: &Rows<'_>,
        tiles: &Buffer,
        y: &Buffer,
    ) -> Result<(), Unsupported> {
        let plan = self.plan(gpu, rows, self.tile_rows(), true)?;
        let count = rows.positions.len();
        assert_eq!(y.len(), count * self.heads.query * self.heads.dim, "results of {count} rows");
        // The statistics are not written.
        let out = [y, y];
        self.launch(gpu, plan, queries, cache, rows, (tiles, tiles.len() / 2), out);
        Ok(())
    }

    /// Most rows of a tile.
    pub fn tile_rows(self) -> usize {
        (QUERIES_MAX / self.heads.group()).max(1)
    }

    /// Cuts runs of rows (each of one sequence) into tiles of at most `most` rows.
    pub fn tiles(runs: impl IntoIterator<Item = usize>, most: usize) -> Vec<u32> {
        let mut tiles = Vec::new();
        let mut first = 0;
        for run in runs {
            for start in (0..run).step_by(most.max(1)) {
                tiles.extend([(first + start) as u32, most.min(run - start) as u32]);
            }
            first += run;
        }
        tiles
    }

    fn plan(
        self,
        gpu: &Gpu,
        rows: &Rows<'_>,
        tile_rows: usize,
        walk: bool,
    ) -> Result<Plan, Unsupported> {
        self.heads.check()?;
        let group = self.heads.group();
        // Groups too large for one cube are shared by several.
        let group = (1..=group.min(QUERIES_MAX)).rev().find(|g| group.is_multiple_of(*g));
        if self.heads.dim > 256 {
            return Err(Unsupported("heads of more than 256 features"));
        }
        if !rows.tables.len().is_multiple_of(rows.table) {
            return Err(Unsupported("block tables of unequal length"));
        }
        Ok(Plan {
            heads: self.heads,
            group: group.unwrap_or(1),
            rows: tile_rows,
            table: rows.table,
            window: self.window.unwrap_or(0),
            walk,
            cut: gpu.cut,
        })
    }

    fn launch(
        self,
        gpu: &Gpu,
        plan: Plan,
        queries: &Buffer,
        cache: &LayerCache,
        rows: &Rows<'_>,
        (tiles, n_tiles): (&Buffer, usize),
        [y, stats]: [&Buffer; 2],
    ) {
        let count = rows.positions.len();
        assert_eq!(rows.sequences.len(), count, "a sequence for each row");
        assert_eq!(queries.len(), count * self.heads.query * self.heads.dim, "queries");
        let splits = if plan.walk { 1 } else { plan.splits() };
        let heads = plan.heads.query / plan.group;
        let scale = 1.0 / (self.heads.dim as f32).sqrt();
        // SAFETY: the lengths were checked; tables and positions are the caller's contract.
        #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
        unsafe {
            split_kernel::launch_unchecked::<f16>(
                &gpu.client,
                CubeCount::Static(heads as u32, splits as u32, n_tiles as u32),
                gpu.cut.dim(),
                queries.arg(1),
                cache.keys.arg(8),
                cache.values.arg(8),
                rows.tables.arg(1),
                rows.sequences.arg(1),
                rows.positions.arg(1),
                tiles.arg(1),
                y.arg(1),
                stats.arg(1),
                scale,
                plan,
            );
        }
    }
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER as B, Case, device, settings, target};
    let heads = Heads { query: 32, kv: 8, dim: 128 };
    let cut = Cut::CUDA;
    let plan = Plan { heads, group: 4, rows: 1, table: 512, window: 0, walk: false, cut };
    let mut cases = Vec::new();
    for (name, plan) in [
        ("attention, decode", plan),
        ("attention, decode, window", Plan { window: 4096, ..plan }),
        ("attention, prefill", Plan { rows: 2, walk: true, ..plan }),
    ] {
        let kernel = split_kernel::SplitKernel::<f16>::new(
            settings(cut),
            device(),
            target(),
            B,
            B,
            B,
            B,
            B,
            B,
            B,
            B,
            B,
            (),
            plan,
        );
        cases.push(Case::new(name, kernel));
    }
    let kernel =
        merge_kernel::MergeKernel::new(settings(cut), device(), target(), B, B, B, B, (), plan);
    cases.push(Case::new("attention, merge", kernel));
    cases
}
