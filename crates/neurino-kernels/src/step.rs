//! A decode step of fixed shape: everything that changes from step to step lies in device memory that
//! stays where it is, and nothing is allocated between the first launch and the last. So the launches
//! can be recorded once for each shape and replayed as a graph.

use cubecl::bytes::Bytes;
use cubecl::client::Graph;

use crate::attention::{Attention, Rows, Scratch};
use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::matvec::Matrix;
use crate::norm::add_rms_norm;
use crate::rope::{BLOCK_TOKENS, LayerCache, NO_SLOT, NewRows, rope_kv_write};

/// Numbers of rows that steps come in.
pub const ROW_BUCKETS: [usize; 6] = [1, 2, 4, 8, 16, 32];
/// Blocks of the smallest block table.
const TABLE_MIN: usize = 16;

/// The shape of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepShape {
    /// Rows, padding included.
    pub rows: usize,
    /// Blocks in a line of the block tables.
    pub table: usize,
}

impl StepShape {
    /// The smallest shape that holds so many rows whose longest text has so many blocks. `None`
    /// beyond the largest number of rows.
    pub fn for_batch(rows: usize, blocks: usize) -> Option<Self> {
        let rows = ROW_BUCKETS.into_iter().find(|bucket| *bucket >= rows)?;
        Some(Self { rows, table: blocks.max(TABLE_MIN).next_power_of_two() })
    }

    /// All shapes up to the one for such a batch: running a step of each once compiles every kernel
    /// that decoding will ever need.
    pub fn all(most_rows: usize, most_blocks: usize) -> Vec<Self> {
        let largest = most_blocks.max(TABLE_MIN).next_power_of_two();
        let tables = std::iter::successors(Some(TABLE_MIN), |table| Some(table * 2));
        let tables: Vec<usize> = tables.take_while(|table| *table <= largest).collect();
        let rows = ROW_BUCKETS.into_iter().filter(|rows| *rows < most_rows.next_power_of_two() * 2);
        rows.flat_map(|rows| tables.iter().map(move |&table| Self { rows, table })).collect()
    }
}

/// One row of a step: the next token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    /// Tokens before it.
    pub position: u32,
    /// The text's blocks in order, that of this token included.
    pub blocks: Vec<u32>,
}

/// The memory that says what a step's rows are.
#[derive(Debug, Clone)]
pub struct StepInputs {
    shape: StepShape,
    positions: Buffer,
    slots: Buffer,
    sequences: Buffer,
    tables: Buffer,
    tiles: Buffer,
}

impl StepInputs {
    /// Memory for steps of a shape, all of it padding.
    pub fn new(gpu: &Gpu, shape: StepShape) -> Self {
        let empty = |len| Buffer::upload(&gpu.client, &vec![0_u32; len]);
        let lines: Vec<u32> = (0..shape.rows as u32).collect();
        Self {
            shape,
            positions: empty(shape.rows),
            slots: Buffer::upload(&gpu.client, &vec![NO_SLOT; shape.rows]),
            sequences: Buffer::upload(&gpu.client, &lines),
            tables: empty(shape.rows * shape.table),
            tiles: Buffer::upload(&gpu.client, &Attention::tiles(vec![1; shape.rows], 1)),
        }
    }

    /// Writes the rows of the next step into the same memory. Missing ones become padding: they are
    /// computed, kept nowhere and looked at by nobody.
    ///
    /// # Panics
    /// If there are more rows, or a row has more blocks, than the shape has, or fewer than its
    /// position needs.
    pub fn write(&self, gpu: &Gpu, rows: &[StepRow]) {
        let StepShape { rows: most, table } = self.shape;
        assert!(rows.len() <= most, "{} rows in a step of {most}", rows.len());
        let mut positions = vec![0; most];
        let mut slots = vec![NO_SLOT; most];
        let mut tables = vec![0; most * table];
        for (at, row) in rows.iter().enumerate() {
            assert!(row.blocks.len() <= table, "a text of more blocks than its table");
            let place = row.position as usize;
            let block = row.blocks[place / BLOCK_TOKENS];
            positions[at] = row.position;
            slots[at] = block * BLOCK_TOKENS as u32 + (place % BLOCK_TOKENS) as u32;
            tables[at * table..at * table + row.blocks.len()].copy_from_slice(&row.blocks);
        }
        for (buffer, values) in
            [(&self.positions, positions), (&self.slots, slots), (&self.tables, tables)]
        {
            gpu.client.write(buffer.handle(), Bytes::from_elems(values));
        }
    }

    fn rows(&self) -> Rows<'_> {
        Rows {
            tables: &self.tables,
            table: self.shape.table,
            sequences: &self.sequences,
            positions: &self.positions,
        }
    }
}

/// The weights of a layer.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// Before attention: `[width]`, f32.
    pub attention_norm: Buffer,
    /// `[heads.query * dim, width]`.
    pub query: Matrix,
    /// `[heads.kv * dim, width]`.
    pub key: Matrix,
    /// As `key`.
    pub value: Matrix,
    /// `[width, heads.query * dim]`.
    pub output: Matrix,
    /// Before the feed-forward part: `[width]`, f32.
    pub feed_norm: Buffer,
    /// Gates above ups: `[2 * inner, width]`.
    pub gate_up: Matrix,
    /// `[width, inner]`.
    pub down: Matrix,
}

/// What all layers of a model share.
#[derive(Debug, Clone)]
pub struct LayerConfig {
    /// Heads and window.
    pub attention: Attention,
    /// Of both norms.
    pub epsilon: f32,
    /// `[positions, dim / 2]`, f32.
    pub cos: Buffer,
    /// As `cos`.
    pub sin: Buffer,
}

/// Memory for what a layer computes on the way; one serves all layers.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// `[rows, width]`, f32: the input of the first layer and the output of the last.
    pub x: Buffer,
    normed: Buffer,
    delta: Buffer,
    queries: Buffer,
    rotated: Buffer,
    keys: Buffer,
    values: Buffer,
    attended: Buffer,
    inner: Buffer,
    scratch: Scratch,
}

impl Workspace {
    /// Memory for steps of a shape.
    pub fn new(
        gpu: &Gpu,
        shape: StepShape,
        config: &LayerConfig,
        width: usize,
        inner: usize,
    ) -> Self {
        let heads = config.attention.heads;
        let empty = |values| Buffer::empty::<f32>(&gpu.client, shape.rows * values);
        Self {
            x: empty(width),
            normed: empty(width),
            delta: empty(width),
            queries: empty(heads.query * heads.dim),
            rotated: empty(heads.query * heads.dim),
            keys: empty(heads.kv * heads.dim),
            values: empty(heads.kv * heads.dim),
            attended: empty(heads.query * heads.dim),
            inner: empty(inner),
            scratch: Scratch::new(gpu, heads, shape.rows, shape.table),
        }
    }
}

/// Launches one layer over the rows in `work.x`, in place: eleven launches.
///
/// # Errors
/// `Unsupported` for shapes without a kernel.
pub fn decode_layer(
    gpu: &Gpu,
    config: &LayerConfig,
    weights: &LayerWeights,
    cache: &LayerCache,
    inputs: &StepInputs,
    work: &Workspace,
) -> Result<(), Unsupported> {
    let rows = inputs.shape.rows;
    add_rms_norm(gpu, &work.x, None, &weights.attention_norm, &work.normed, config.epsilon)?;
    weights.query.multiply(gpu, &work.normed, &work.queries, rows, false);
    weights.key.multiply(gpu, &work.normed, &work.keys, rows, false);
    weights.value.multiply(gpu, &work.normed, &work.values, rows, false);
    let new = NewRows {
        queries: &work.queries,
        keys: &work.keys,
        values: &work.values,
        cos: &config.cos,
        sin: &config.sin,
        angles: &inputs.positions,
        slots: &inputs.slots,
    };
    rope_kv_write(gpu, config.attention.heads, &new, &work.rotated, cache)?;
    config.attention.decode(
        gpu,
        &work.rotated,
        cache,
        &inputs.rows(),
        &inputs.tiles,
        &work.scratch,
        &work.attended,
    )?;
    weights.output.multiply(gpu, &work.attended, &work.delta, rows, false);
    let sum = Some([&work.delta, &work.x]);
    add_rms_norm(gpu, &work.x, sum, &weights.feed_norm, &work.normed, config.epsilon)?;
    weights.gate_up.multiply(gpu, &work.normed, &work.inner, rows, true);
    weights.down.multiply(gpu, &work.inner, &work.delta, rows, false);
    // The sum alone; the norm it also gives is the next layer's with other weights, and unused.
    add_rms_norm(
        gpu,
        &work.x,
        Some([&work.delta, &work.x]),
        &weights.feed_norm,
        &work.normed,
        config.epsilon,
    )
}

/// Runs before a recording: the first compiles and allocates, later ones find the memory that the
/// recorded one will use.
const REHEARSALS: usize = 2;

/// Records the launches of `step` and gives the graph that repeats them. `step` is run a few times
/// before, because nothing can be compiled or allocated while launches are recorded.
///
/// # Errors
/// The runtime's, as text: only CUDA records.
pub fn record(gpu: &Gpu, mut step: impl FnMut()) -> Result<Graph, String> {
    let text = |error: cubecl::server::ServerError| error.to_string();
    gpu.client.graph_prepare().map_err(text)?;
    for _ in 0..REHEARSALS {
        step();
        if let Err(error) = cubecl::future::block_on(gpu.client.sync()) {
            // Ends what was prepared.
            let _ = gpu.client.stop_capture();
            return Err(text(error));
        }
    }
    if let Err(error) = gpu.client.start_capture() {
        let _ = gpu.client.stop_capture();
        return Err(text(error));
    }
    step();
    gpu.client.stop_capture().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_hold_their_batch() {
        assert_eq!(StepShape::for_batch(3, 20), Some(StepShape { rows: 4, table: 32 }));
        assert_eq!(StepShape::for_batch(32, 1), Some(StepShape { rows: 32, table: 16 }));
        assert_eq!(StepShape::for_batch(33, 1), None);
        let all = StepShape::all(5, 40);
        assert_eq!(all.len(), 4 * 3, "1, 2, 4, 8 rows; 16, 32, 64 blocks");
        for (rows, blocks) in [(1, 1), (5, 40), (2, 33)] {
            assert!(all.contains(&StepShape::for_batch(rows, blocks).expect("a shape")));
        }
    }
}
