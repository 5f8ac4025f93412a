//! Keys and values on a card, in the kernels' layout.

use std::collections::HashMap;

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};
use neurino_kernels::attention::Attention;
use neurino_kernels::gpu::Unsupported;
use neurino_kernels::rope::Heads;
use neurino_kernels::tensor::{CacheTensors, RowTensors, attend, rotate_and_write};

use crate::NnError;
use crate::device::upload;
use crate::paged::{BLOCK_TOKENS, BatchLayout, KvShape, KvStore};
use crate::rotary::RotaryTables;

/// Rows of one sequence in a step from which on they share their keys' loads.
const PROMPT_ROWS_MIN: usize = 2;

/// Keys and values of some layers, f16.
#[derive(Debug)]
pub struct CudaKv {
    layers: Vec<CacheTensors>,
    shape: KvShape,
    device: Device,
    step: Option<Step>,
}

/// What all layers of a step share.
#[derive(Debug)]
struct Step {
    /// `[rows]`, 0 to rows - 1.
    lines: Tensor<1, Int>,
    slots: Tensor<1, Int>,
    tables: Tensor<2, Int>,
    sequences: Tensor<1, Int>,
    positions: Tensor<1, Int>,
    /// Rows of each sequence, for the tiles, whose size depends on the number of query heads.
    runs: Vec<usize>,
    /// Tiles by their most rows.
    tiles: std::sync::Mutex<HashMap<usize, Tensor<2, Int>>>,
}

impl CudaKv {
    /// An empty store. `None` if these heads or this type have no kernel.
    pub fn new(shape: &KvShape, device: &Device) -> Option<Self> {
        let (kv, dim) = (shape.n_kv_heads, shape.head_dim);
        if shape.dtype != DType::F16 || kv == 0 || !dim.is_multiple_of(16) || dim > 256 {
            return None;
        }
        let keys = [shape.n_blocks, kv, dim / 8, BLOCK_TOKENS, 8];
        let values = [shape.n_blocks, kv, BLOCK_TOKENS, dim];
        let layer = || CacheTensors {
            keys: Tensor::zeros(keys, (device, DType::F16)),
            values: Tensor::zeros(values, (device, DType::F16)),
        };
        let layers = std::iter::repeat_with(layer).take(shape.n_layers).collect();
        Some(Self { layers, shape: shape.clone(), device: device.clone(), step: None })
    }

    fn integers(&self, values: impl IntoIterator<Item = usize>) -> Tensor<1, Int> {
        integers(&self.device, values)
    }

    fn step(&self, layer: usize) -> Result<(&CacheTensors, &Step), NnError> {
        let cache = self.layers.get(layer).ok_or(NnError::CacheLost)?;
        Ok((cache, self.step.as_ref().ok_or(NnError::CacheLost)?))
    }

    fn rotate(
        &self,
        layer: usize,
        rows: [Tensor<3>; 3],
        tables: [&Tensor<3>; 2],
        lines: &Tensor<1, Int>,
    ) -> Result<Tensor<3>, NnError> {
        let (cache, step) = self.step(layer)?;
        let rows = rows.map(|rows| rows.cast(DType::F32));
        rotate_and_write(rows, tables, lines, &step.slots, cache).map_err(refused)
    }
}

fn integers(device: &Device, values: impl IntoIterator<Item = usize>) -> Tensor<1, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::I32))
}

fn refused(error: Unsupported) -> NnError {
    NnError::Device { reason: error.to_string() }
}

impl KvStore for CudaKv {
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        let table = batch.table_blocks();
        let line = |blocks: &[u32]| {
            let padded = blocks.iter().map(|&block| block as usize);
            padded.chain(std::iter::repeat(0)).take(table).collect::<Vec<_>>()
        };
        let lines = batch.sequences.iter().flat_map(|s| line(&s.blocks));
        let of = |(at, rows): (usize, usize)| std::iter::repeat_n(at, rows);
        let runs: Vec<usize> = batch.sequences.iter().map(|s| s.rows).collect();
        self.step = Some(Step {
            lines: self.integers(0..batch.rows()),
            slots: self.integers(batch.slots()),
            tables: self.integers(lines).reshape([batch.sequences.len(), table]),
            sequences: self.integers(runs.iter().copied().enumerate().flat_map(of)),
            positions: self.integers(batch.positions()),
            runs,
            tiles: std::sync::Mutex::default(),
        });
        Ok(())
    }

    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError> {
        let [rows, _, dim] = keys.dims();
        // By no angle.
        let cos = upload(vec![1.0; dim / 2], [1, 1, dim / 2], &self.device);
        let sin = upload(vec![0.0; dim / 2], [1, 1, dim / 2], &self.device);
        let lines = self.integers(std::iter::repeat_n(0, rows));
        let rotated = self.rotate(layer, [keys.clone(), keys, values], [&cos, &sin], &lines)?;
        // Takes part in the order of operations, though its result is not needed.
        drop(rotated);
        Ok(())
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        let lines = self.step(layer)?.1.lines.clone();
        let tables = [rotations.cos(), rotations.sin()];
        self.rotate(layer, [queries, keys, values], tables, &lines)
    }

    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        let (cache, step) = self.step(layer)?;
        let [_, query, dim] = queries.dims();
        let heads = Heads { query, kv: self.shape.n_kv_heads, dim };
        let walk = step.runs.iter().any(|rows| *rows >= PROMPT_ROWS_MIN);
        let most = if walk { Attention { heads, window }.tile_rows() } else { 1 };
        let tiles = {
            let mut known = step.tiles.lock().map_err(|_| NnError::CacheLost)?;
            let made = known.entry(most).or_insert_with(|| {
                let tiles = Attention::tiles(step.runs.iter().copied(), most);
                let count = tiles.len() / 2;
                integers(&self.device, tiles.into_iter().map(|v| v as usize)).reshape([count, 2])
            });
            made.clone()
        };
        let rows = RowTensors {
            tables: step.tables.clone(),
            sequences: step.sequences.clone(),
            positions: step.positions.clone(),
            tiles,
            walk,
        };
        attend(queries.cast(DType::F32), cache, &rows, window).map_err(refused)
    }

    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        let from = self.integers(pairs.iter().map(|(from, _)| *from as usize));
        let to = self.integers(pairs.iter().map(|(_, to)| *to as usize));
        let assign = IndexingUpdateOp::Assign;
        for CacheTensors { keys, values } in &mut self.layers {
            // Taken out, so that the only owner is changed in place.
            let copied = keys.clone().select(0, from.clone());
            let all = std::mem::replace(keys, copied.clone());
            *keys = all.select_assign(0, to.clone(), copied, assign);
            let copied = values.clone().select(0, from.clone());
            let all = std::mem::replace(values, copied.clone());
            *values = all.select_assign(0, to.clone(), copied, assign);
        }
        Ok(())
    }
}
