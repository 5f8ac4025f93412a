//! bitsandbytes' nf4: blocks of 4-bit places in a table of 16 values, each block with its largest
//! absolute weight.
//!
//! A matrix `W` is stored as `W` u8 (two weights a byte, **the first in the high nibble**, row-major
//! over the whole matrix), `W.quant_map` (16 f32), `W.quant_state.bitsandbytes__nf4` (JSON bytes) and
//! `W.absmax`: f32 for each block, or u8 if those are quantised again, with `W.nested_absmax`,
//! `W.nested_quant_map` and an offset. Decided tensor by tensor, from what is there.

use rayon::prelude::*;
use serde::Deserialize;

use crate::tensor::{StoredTensor, TensorData};
use crate::{DType, Safetensors, WeightsError};

/// Suffix of the tensor that tells that a weight is stored this way.
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// `quant_state.bitsandbytes__nf4`.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// A weight in nf4.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4Matrix {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Weights that share a scale; even.
    pub block_size: usize,
    /// Two weights a byte, the first in the high nibble.
    pub quants: Vec<u8>,
    /// What the 16 places stand for.
    pub table: [f32; 16],
    /// The scale of each block.
    pub scales: Vec<f32>,
}

/// Whether the weight called `name` (with `.weight`) is stored as nf4.
pub fn is_nf4(weights: &Safetensors, name: &str) -> bool {
    weights.stored(&format!("{name}.{STATE}")).is_ok()
}

/// Dimensions of the weight called `name` (with `.weight`), outermost first; its numbers are not read.
///
/// # Errors
/// As [`Nf4Matrix::read`].
pub fn shape(weights: &Safetensors, name: &str) -> Result<Vec<usize>, WeightsError> {
    Ok(state(weights, name)?.shape)
}

fn state(weights: &Safetensors, name: &str) -> Result<State, WeightsError> {
    let json = typed(weights.stored(&format!("{name}.{STATE}"))?, DType::U8)?;
    let packed = weights.stored(name)?;
    serde_json::from_slice(json.bytes()).map_err(|error| packed.damaged(error.to_string()))
}

impl Nf4Matrix {
    /// Reads the weight called `name` (with `.weight`).
    ///
    /// # Errors
    /// `TensorAbsent`, `BadTensor`, `Changed`, `Unreadable`.
    pub fn read(weights: &Safetensors, name: &str) -> Result<Self, WeightsError> {
        let part = |suffix: &str| weights.stored(&format!("{name}.{suffix}"));
        let packed = weights.stored(name)?;
        let bad = |reason: String| packed.damaged(reason);
        let state = state(weights, name)?;
        if state.quant_type != "nf4" {
            return Err(bad("its state is not nf4".to_owned()));
        }
        let count = state.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let count = count.filter(|n| n.div_ceil(2) == packed.size_bytes() && *n > 0);
        let count = count.ok_or_else(|| bad(format!("it does not fill {:?}", state.shape)))?;
        let block_size = state.blocksize;
        if block_size == 0 || !block_size.is_multiple_of(2) {
            return Err(bad(format!("blocks of {block_size} weights")));
        }
        let blocks = count.div_ceil(block_size);
        let table = floats(part("quant_map")?, 16)?;
        let table = table.try_into().map_err(|_| bad("its table has not 16 values".to_owned()))?;
        let absmax = part("absmax")?;
        let scales = match absmax.dtype() {
            DType::U8 => {
                let size = state.nested_blocksize.unwrap_or(256).max(1);
                let map = floats(part("nested_quant_map")?, 256)?;
                let largest = floats(part("nested_absmax")?, blocks.div_ceil(size))?;
                let offset = state.nested_offset.unwrap_or(0.0);
                let places = typed(absmax, DType::U8)?;
                let scale = |(block, &place): (usize, &u8)| {
                    map[usize::from(place)] * largest[block / size] + offset
                };
                if places.bytes().len() != blocks {
                    return Err(absmax.damaged(format!("it is not for {blocks} blocks")));
                }
                places.bytes().iter().enumerate().map(scale).collect()
            }
            _ => floats(absmax, blocks)?,
        };
        let quants = typed(packed, DType::U8)?.bytes().to_vec();
        Ok(Self { shape: state.shape, block_size, quants, table, scales })
    }

    /// The weights as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let count = self.shape.iter().product();
        let mut weights = vec![0.0; count];
        weights.par_chunks_mut(self.block_size).enumerate().for_each(|(block, out)| {
            let quants = &self.quants[block * self.block_size / 2..];
            for (pair, quant) in out.chunks_mut(2).zip(quants) {
                for (weight, place) in pair.iter_mut().zip([quant >> 4, quant & 15]) {
                    *weight = self.table[usize::from(place)] * self.scales[block];
                }
            }
        });
        weights
    }
}

fn typed(tensor: &StoredTensor, dtype: DType) -> Result<TensorData, WeightsError> {
    if tensor.dtype() != dtype {
        return Err(tensor.damaged(format!("it is stored as {}", tensor.dtype().name())));
    }
    tensor.read()
}

/// Exactly `count` numbers.
fn floats(tensor: &StoredTensor, count: usize) -> Result<Vec<f32>, WeightsError> {
    let values = typed(tensor, DType::F32)?.to_f32()?;
    if values.len() != count {
        return Err(tensor.damaged(format!("it holds {} values, not {count}", values.len())));
    }
    Ok(values)
}
