//! The shapes that steps come in on a card, where the first step of a shape compiles and tunes
//! kernels: few enough that all of them are run once while a model is being loaded.
//!
//! What a kernel is compiled for depends on one of four numbers at a time: the rows of a step, the
//! length of its block tables, whether it reads prompts, and the rows that are scored. So a step is
//! filled up to the next size of each, and a warm-up that has seen every size has seen every kernel.
//! What fills a step are one-token texts in blocks that nobody else has.

use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, SequenceSpan};

use super::plan::ServingLimits;

/// Scored rows come in multiples of this many, from this many on.
const SCORED_STEP: usize = 8;

/// What a step's kernels depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepShape {
    /// Rows.
    pub rows: usize,
    /// Blocks in a line of the block tables.
    pub table: usize,
    /// Whether a sequence has several rows.
    pub reads: bool,
    /// Rows whose scores are wanted.
    pub scored: usize,
}

/// All shapes within some limits.
#[derive(Debug, Clone, Copy)]
pub struct StepShapes {
    /// Most rows.
    rows: usize,
    /// Most sequences, and so most rows that decode.
    sequences: usize,
    /// Most rows that are scored.
    scored: usize,
    /// The longest block table.
    table: usize,
}

impl StepShapes {
    /// The shapes of steps within `limits`, of texts of up to `context_tokens`.
    pub fn new(limits: &ServingLimits, context_tokens: usize) -> Self {
        let rows = limits.rows_per_step.max(BLOCK_TOKENS);
        Self {
            rows,
            sequences: limits.sequences_max.clamp(1, rows),
            scored: limits.scored_max(),
            table: table(context_tokens.div_ceil(BLOCK_TOKENS)),
        }
    }

    /// Blocks that what fills a step needs; nobody else may write into them.
    pub fn filling_blocks(&self) -> usize {
        let sizes = sizes(self.rows, rows_size);
        let most = sizes.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap_or(0);
        most.div_ceil(BLOCK_TOKENS)
    }

    /// Fills a step up to the next sizes: adds one-token texts, which lie in the
    /// [`StepShapes::filling_blocks`] blocks from `first_block` on, and scores the last scored row
    /// several times.
    pub fn fill(
        &self,
        tokens: &mut Vec<u32>,
        batch: &mut BatchLayout,
        scored: &mut Vec<usize>,
        first_block: u32,
    ) {
        let missing = rows_size(tokens.len()) - tokens.len();
        tokens.resize(tokens.len() + missing, 0);
        batch.sequences.extend((0..missing).map(|row| SequenceSpan {
            rows: 1,
            start: row % BLOCK_TOKENS,
            blocks: vec![first_block + (row / BLOCK_TOKENS) as u32],
        }));
        if let Some(&last) = scored.last() {
            scored.resize(scored_size(scored.len()), last);
        }
    }

    /// Steps that have, together, every size: each a shape that a filled step can have.
    pub fn warm_up(&self) -> Vec<StepShape> {
        let shortest = table(0);
        let rows = sizes(self.rows, rows_size).into_iter();
        let scored = sizes(self.scored, scored_size);
        let tables = std::iter::successors(Some(shortest), |table| Some(table * 2));
        let tables: Vec<usize> = tables.take_while(|table| *table <= self.table).collect();

        // One row alone decodes, more decode together or read a prompt.
        let of_rows = rows.flat_map(|rows| {
            let decodes = rows <= rows_size(self.sequences);
            let decode = StepShape { rows, table: shortest, reads: false, scored: 1 };
            let read = StepShape { reads: true, ..decode };
            decodes.then_some(decode).into_iter().chain((rows > 1).then_some(read))
        });
        let of_tables = tables.into_iter().flat_map(|table| {
            let read = StepShape { rows: BLOCK_TOKENS, table, reads: true, scored: 0 };
            [read, StepShape { rows: 1, table, reads: false, scored: 1 }]
        });
        let of_scores = scored.into_iter().map(|scored| {
            let rows = rows_size(scored);
            StepShape { rows, table: shortest, reads: false, scored }
        });
        of_rows.chain(of_tables).chain(of_scores).collect()
    }
}

impl StepShape {
    /// The shape of a step.
    pub fn of(batch: &BatchLayout, scored: usize) -> Self {
        let reads = batch.sequences.iter().any(|sequence| sequence.rows > 1);
        Self { rows: batch.rows(), table: batch.table_blocks(), reads, scored }
    }

    /// A step of this shape over blocks of which there are [`StepShape::blocks`], and the rows that
    /// are scored.
    pub fn step(&self) -> (BatchLayout, Vec<usize>) {
        let longest = self.table * BLOCK_TOKENS;
        // What it reads does not matter, so that a long text may be few blocks many times.
        let sequence = |rows: usize, len: usize, first: usize| {
            let own = rows.div_ceil(BLOCK_TOKENS);
            let blocks = (0..len.div_ceil(BLOCK_TOKENS)).map(|at| (first + at % own) as u32);
            SequenceSpan { rows, start: len - rows, blocks: blocks.collect() }
        };
        let sequences = if self.reads {
            let texts = (0..self.rows).step_by(longest);
            let text =
                |row: usize| sequence(longest.min(self.rows - row), longest, row / BLOCK_TOKENS);
            texts.map(text).collect()
        } else {
            let single = |row: usize| sequence(1, if row == 0 { longest } else { 1 }, row);
            (0..self.rows).map(single).collect()
        };
        let scored = (0..self.scored).map(|row| row.min(self.rows - 1)).collect();
        (BatchLayout { sequences }, scored)
    }

    /// Blocks of a cache for [`StepShape::step`].
    pub fn blocks(&self) -> usize {
        if self.reads { self.rows.div_ceil(BLOCK_TOKENS) } else { self.rows }
    }
}

/// The size of steps with so many rows.
fn rows_size(rows: usize) -> usize {
    match rows {
        0..=64 => rows.max(1).next_power_of_two(),
        65..=256 => rows.next_multiple_of(64),
        _ => rows.next_multiple_of(128),
    }
}

/// The number of scored rows of steps that need so many.
fn scored_size(scored: usize) -> usize {
    if scored <= SCORED_STEP {
        scored.max(1).next_power_of_two()
    } else {
        scored.next_multiple_of(SCORED_STEP)
    }
}

/// The length of block tables for texts of so many blocks.
fn table(blocks: usize) -> usize {
    let longest = SequenceSpan { rows: 1, start: 0, blocks: vec![0; blocks] };
    BatchLayout { sequences: vec![longest] }.table_blocks()
}

/// All sizes of numbers from 1 to `most`, in order.
fn sizes(most: usize, size: fn(usize) -> usize) -> Vec<usize> {
    let all = std::iter::successors(Some(size(1)), |&last| Some(size(last + 1)));
    all.take_while(|&next| next <= size(most)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn seen(shapes: impl IntoIterator<Item = StepShape>) -> HashSet<(&'static str, usize, bool)> {
        let parts = |s: StepShape| {
            [("rows", s.rows, false), ("table", s.table, s.reads), ("scored", s.scored, false)]
        };
        shapes.into_iter().flat_map(parts).collect()
    }

    #[test]
    fn every_step_within_the_limits_has_sizes_that_the_warm_up_has() {
        for (rows_per_step, sequences_max, context) in
            [(1024, 64, 8192), (512, 64, 100), (256, 8, 131_072), (32, 8, 4096), (16, 1, 64)]
        {
            let limits = ServingLimits { n_blocks: 0, rows_per_step, sequences_max };
            let shapes = StepShapes::new(&limits, context);
            let warm = seen(shapes.warm_up());
            let context_blocks = context.div_ceil(BLOCK_TOKENS);
            for decoding in 0..=sequences_max.min(rows_per_step) {
                for prompt in [0, 1, 2, 15, 16, 17, 33, 100, 300, rows_per_step - decoding] {
                    let rows = decoding + prompt;
                    if rows == 0 || rows > rows_per_step || prompt > context {
                        continue;
                    }
                    let blocks = vec![0; if rows % 3 == 0 { context_blocks } else { 1 }];
                    let single = SequenceSpan { rows: 1, start: 0, blocks };
                    let mut batch = BatchLayout { sequences: vec![single; decoding] };
                    let blocks = vec![0; prompt.div_ceil(BLOCK_TOKENS)];
                    let read = SequenceSpan { rows: prompt, start: 0, blocks };
                    batch.sequences.extend((prompt > 0).then_some(read));
                    let mut tokens = vec![7; rows];
                    let mut scored: Vec<usize> = (0..decoding).collect();
                    let before = batch.clone();
                    shapes.fill(&mut tokens, &mut batch, &mut scored, 5);
                    assert_eq!(batch.sequences[..before.sequences.len()], before.sequences);
                    assert_eq!(batch.rows(), tokens.len());
                    assert!(batch.check(5 + shapes.filling_blocks().max(context_blocks)).is_ok());
                    let slots: HashSet<_> = batch.slots()[rows..].iter().copied().collect();
                    assert_eq!(slots.len(), tokens.len() - rows, "each has a slot of its own");
                    assert!(
                        slots.iter().all(|slot| slot / BLOCK_TOKENS < 5 + shapes.filling_blocks())
                    );
                    let mut found = seen([StepShape::of(&batch, scored.len())]);
                    if scored.is_empty() {
                        found.remove(&("scored", 0, false));
                    }
                    assert!(found.is_subset(&warm), "{found:?} {warm:?}");
                }
            }
        }
    }

    #[test]
    fn a_step_of_a_shape_has_it() {
        let limits = ServingLimits { n_blocks: 0, rows_per_step: 1024, sequences_max: 64 };
        let shapes = StepShapes::new(&limits, 8192);
        for shape in shapes.warm_up() {
            let (batch, scored) = shape.step();
            assert!(batch.check(shape.blocks()).is_ok(), "{shape:?}");
            assert_eq!(StepShape::of(&batch, scored.len()), shape);
        }
        assert!(shapes.warm_up().len() < 64, "loading must not take forever");
        assert_eq!(shapes.filling_blocks(), 8);
    }
}
