//! The store in plain tensors: for any device, and the oracle of the others.

use burn::tensor::{DType, s};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{BLOCK_TOKENS, BatchLayout, KvShape, KvStore};
use crate::NnError;
use crate::attention::{CausalMask, grouped_query_attention};

/// Keys and values as one tensor each for a layer.
#[derive(Debug)]
pub struct TensorKv {
    layers: Vec<LayerKv>,
    dtype: DType,
    device: Device,
    step: Step,
}

/// `[n_blocks * BLOCK_TOKENS, n_kv_heads, head_dim]` each; `None` while a write is under way, and
/// for good if it failed. Being the only owner is what makes the write happen in place.
#[derive(Debug)]
struct LayerKv {
    keys: Option<Tensor<3>>,
    values: Option<Tensor<3>>,
}

/// What all layers of a step share.
#[derive(Debug, Default)]
struct Step {
    batch: BatchLayout,
    /// `[rows]`
    slots: Option<Tensor<1, Int>>,
    /// Of each sequence: the slots of all its tokens.
    seen: Vec<Tensor<1, Int>>,
}

impl TensorKv {
    /// An empty store.
    pub fn new(shape: &KvShape, device: &Device) -> Self {
        let dims = [shape.n_blocks * BLOCK_TOKENS, shape.n_kv_heads, shape.head_dim];
        let empty = || Some(Tensor::zeros(dims, (device, shape.dtype)));
        let layer = || LayerKv { keys: empty(), values: empty() };
        let layers = std::iter::repeat_with(layer).take(shape.n_layers).collect();
        Self { layers, dtype: shape.dtype, device: device.clone(), step: Step::default() }
    }

    fn indices(&self, slots: impl Iterator<Item = usize>) -> Tensor<1, Int> {
        let slots: Vec<i32> = slots.map(|slot| slot as i32).collect();
        let count = slots.len();
        Tensor::from_data(TensorData::new(slots, [count]), (&self.device, DType::I32))
    }
}

impl KvStore for TensorKv {
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        self.step = Step {
            slots: Some(self.indices(batch.slots().into_iter())),
            seen: batch
                .sequences
                .iter()
                .map(|sequence| self.indices((0..sequence.len()).map(|at| sequence.slot(at))))
                .collect(),
            batch: batch.clone(),
        };
        Ok(())
    }

    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError> {
        let slots = self.step.slots.clone().ok_or(NnError::CacheLost)?;
        let kv = self.layers.get_mut(layer).ok_or(NnError::CacheLost)?;
        for (slot, new) in [(&mut kv.keys, keys), (&mut kv.values, values)] {
            let all = slot.take().ok_or(NnError::CacheLost)?;
            let new = new.cast(self.dtype);
            *slot = Some(all.select_assign(0, slots.clone(), new, IndexingUpdateOp::Assign));
        }
        Ok(())
    }

    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        let kv = self.layers.get(layer).ok_or(NnError::CacheLost)?;
        let all = |side: &Option<Tensor<3>>| side.clone().ok_or(NnError::CacheLost);
        let (keys, values) = (all(&kv.keys)?, all(&kv.values)?);
        let mut row = 0;
        let mut outputs = Vec::new();
        for (sequence, seen) in self.step.batch.sequences.iter().zip(&self.step.seen) {
            let heads_first = |x: Tensor<3>| x.swap_dims(0, 1);
            let q = queries.clone().slice(s![row..row + sequence.rows, .., ..]);
            let mask = CausalMask::new(sequence.start, sequence.rows, window, &self.device);
            let out = grouped_query_attention(
                heads_first(q),
                heads_first(keys.clone().select(0, seen.clone())),
                heads_first(values.clone().select(0, seen.clone())),
                &mask,
            );
            outputs.push(heads_first(out));
            row += sequence.rows;
        }
        Ok(Tensor::cat(outputs, 0))
    }

    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        let range = |block: u32| block as usize * BLOCK_TOKENS..(block as usize + 1) * BLOCK_TOKENS;
        for kv in &mut self.layers {
            for side in [&mut kv.keys, &mut kv.values] {
                let mut all = side.take().ok_or(NnError::CacheLost)?;
                for &(from, to) in pairs {
                    let block = all.clone().slice(s![range(from), .., ..]);
                    all = all.slice_assign(s![range(to), .., ..], block);
                }
                *side = Some(all);
            }
        }
        Ok(())
    }
}
