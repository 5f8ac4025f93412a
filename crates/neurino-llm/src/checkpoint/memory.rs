//! What a model will need on its devices, known from metadata before anything is read.

use std::ops::Range;

use neurino_nn::paged::KvShape;
use neurino_nn::quant::{Holder, Packing};
use neurino_weights::dtype::BLOCK;
use neurino_weights::gptq::GptqConfig;
use neurino_weights::{DType, StoredTensor};

use super::{Checkpoint, Precision, plan};
use crate::config::ModelConfig;
use crate::source::ModelSource;

/// The memory of a model by its parts, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMemory {
    /// The token table, which lies on the first device.
    pub token_table_bytes: u64,
    /// The layers.
    pub layer_bytes: Vec<u64>,
    /// The final norm and the head, which lie on the last device. A head that is tied to the token
    /// table counts nothing here.
    pub head_bytes: u64,
    /// The copy of the token table that a tied head needs on another device than the table's.
    pub tied_head_bytes: u64,
    /// One layer's share of one block of the cache.
    pub layer_block_bytes: u64,
}

impl ModelMemory {
    /// All weights, on one device.
    pub fn weights_bytes(&self) -> u64 {
        self.token_table_bytes + self.layer_bytes.iter().sum::<u64>() + self.head_bytes
    }

    /// One block of the cache in all layers.
    pub fn block_bytes(&self) -> u64 {
        self.layer_block_bytes * self.layer_bytes.len() as u64
    }

    /// Gives each device the run of layers that fits into its budget beside `cache_blocks` blocks,
    /// as many as possible to the first. Devices that are not needed get none. `None` if all
    /// together are too small.
    pub fn split(&self, budgets_bytes: &[u64], cache_blocks: u64) -> Option<Vec<Range<usize>>> {
        let n_layers = self.layer_bytes.len();
        let cache = self.layer_block_bytes.checked_mul(cache_blocks)?;
        let mut runs = Vec::new();
        let mut next = 0;
        for budget in budgets_bytes {
            let mut left =
                if next == 0 { budget.checked_sub(self.token_table_bytes)? } else { *budget };
            let start = next;
            while next < n_layers {
                // The last layer brings the head along.
                let head = match next + 1 == n_layers {
                    true if start == 0 => self.head_bytes,
                    true => self.head_bytes + self.tied_head_bytes,
                    false => 0,
                };
                let needed = self.layer_bytes[next].checked_add(cache)?.checked_add(head)?;
                let Some(rest) = left.checked_sub(needed) else { break };
                left = rest;
                next += 1;
            }
            if next == start {
                return None;
            }
            runs.push(start..next);
            if next == n_layers {
                return Some(runs);
            }
        }
        None
    }
}

impl ModelSource {
    /// What the model will need if it is loaded in `precision` by such devices: exactly what
    /// [`crate::LanguageModel::weights_bytes`] will be.
    pub fn memory(&self, precision: Precision, holder: Holder) -> ModelMemory {
        memory(&self.checkpoint, &self.config, Form { precision, holder })
    }
}

/// How weights are kept.
#[derive(Clone, Copy)]
struct Form {
    precision: Precision,
    holder: Holder,
}

fn memory(checkpoint: &Checkpoint, config: &ModelConfig, form: Form) -> ModelMemory {
    let mut memory = ModelMemory {
        token_table_bytes: 0,
        layer_bytes: vec![bias_bytes(config); config.num_hidden_layers],
        head_bytes: 0,
        tied_head_bytes: 0,
        layer_block_bytes: KvShape {
            n_layers: 1,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            n_blocks: 1,
            dtype: form.precision.cache_dtype(),
        }
        .block_bytes(),
    };
    let gptq = match checkpoint {
        Checkpoint::Gptq(_, config) => Some(*config),
        Checkpoint::Safetensors(_) | Checkpoint::Gguf(_) => None,
    };
    let held_bytes = |tensor: &StoredTensor, usage| match gptq {
        Some(config) if GPTQ_PARTS.iter().any(|part| tensor.name().ends_with(part)) => {
            let scales = tensor.name().strip_suffix(".qweight");
            let scales = scales.and_then(|base| checkpoint.stored(&format!("{base}.scales")).ok());
            gptq_bytes(tensor, scales.as_ref(), config, form)
        }
        _ => held_bytes(tensor, form, usage),
    };
    for tensor in plan::reading_order(checkpoint) {
        match plan::part_of(tensor.name()) {
            Some(plan::Part::TokenTable) => {
                memory.token_table_bytes = held_bytes(&tensor, Use::TokenTable);
                if config.tie_word_embeddings {
                    memory.tied_head_bytes = memory.token_table_bytes;
                }
            }
            Some(plan::Part::Layer(layer)) => {
                let router = plan::is_router(tensor.name());
                let usage = if router { Use::Router } else { Use::Projection };
                if let Some(bytes) = memory.layer_bytes.get_mut(layer) {
                    *bytes += held_bytes(&tensor, usage);
                }
            }
            Some(plan::Part::Norm) => {
                memory.head_bytes += held_bytes(&tensor, Use::Projection);
            }
            Some(plan::Part::Head) if !config.tie_word_embeddings => {
                memory.head_bytes += held_bytes(&tensor, Use::Head);
            }
            Some(plan::Part::Head) | None => {}
        }
    }
    memory
}

/// Of a layer's biases, which are f32 in every precision.
fn bias_bytes(config: &ModelConfig) -> u64 {
    let (features, inner) = (config.hidden_size, config.intermediate_size);
    let attention = config.q_size() + 2 * config.kv_size() + features;
    let of_attention = if config.attention_bias { attention } else { 0 };
    let of_mlp = if config.mlp_bias { 2 * inner + features } else { 0 };
    ((of_attention + of_mlp) * size_of::<f32>()) as u64
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    TokenTable,
    Projection,
    Router,
    Head,
}

/// The ends of the names of a GPTQ matrix's tensors.
const GPTQ_PARTS: [&str; 4] = [".qweight", ".qzeros", ".scales", ".g_idx"];

/// What [`super::LayerLoader`] makes of a part of a GPTQ matrix, which has `scales`. The order of the
/// inputs is counted wherever the file has one, although one that changes nothing is dropped.
fn gptq_bytes(
    tensor: &StoredTensor,
    scales: Option<&StoredTensor>,
    config: GptqConfig,
    form: Form,
) -> u64 {
    let precision = form.precision;
    let &[rows, out] = tensor.shape() else {
        let is_order = tensor.name().ends_with(".g_idx") && precision != Precision::Full;
        return if is_order { tensor.size_bytes() as u64 } else { 0 };
    };
    if !tensor.name().ends_with(".qweight") {
        return 0;
    }
    let features = rows * 32 / config.bits as usize;
    // The file says how many groups there are; with an order of its own, the description may lie.
    let stated = config.group_size.unwrap_or(features);
    let group = match scales.map(StoredTensor::shape) {
        Some(&[groups, _]) if groups > 0 && features.div_ceil(stated) != groups => {
            features.div_ceil(groups)
        }
        _ => stated,
    };
    let whole = group.is_multiple_of(BLOCK) && features.is_multiple_of(BLOCK);
    if precision == Precision::Full || !whole {
        return (features * out) as u64 * dense_bytes(DType::F16, precision);
    }
    let packing = if config.bits == 8 { Packing::Grouped8 } else { Packing::Grouped4 };
    form.holder.planned_bytes(packing, [out, features], group) as u64
}

/// Bytes of an unpacked weight.
fn dense_bytes(stored: DType, precision: Precision) -> u64 {
    match (precision, stored) {
        (Precision::Full, _) | (Precision::Packed, DType::F32) => 4,
        _ => 2,
    }
}

/// What [`super::LayerLoader`] makes of a tensor.
fn held_bytes(tensor: &StoredTensor, form: Form, usage: Use) -> u64 {
    let precision = form.precision;
    let (dtype, shape) = (tensor.dtype(), tensor.shape());
    let count = shape.iter().product::<usize>() as u64;
    let dense = dense_bytes(dtype, precision);
    let packed = |dtype| match (Packing::of(dtype), shape) {
        (Some(packing), &[out, features]) => {
            form.holder.planned_bytes(packing, [out, features], BLOCK) as u64
        }
        _ => count * dense,
    };
    let [.., _, features] = shape else { return count * 4 };
    match precision {
        Precision::Packed if usage == Use::TokenTable => packed(dtype),
        _ if usage != Use::TokenTable && precision.keeps_packed(dtype) => packed(dtype),
        Precision::FourBit if usage == Use::Projection && features.is_multiple_of(BLOCK) => {
            packed(DType::Q4_1)
        }
        Precision::FourBit if usage == Use::Head && features.is_multiple_of(BLOCK) => {
            packed(DType::Q8_0)
        }
        _ => count * dense,
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "runs of layers are ranges")]
mod tests {
    use super::*;

    fn model() -> ModelMemory {
        ModelMemory {
            token_table_bytes: 50,
            layer_bytes: vec![100; 4],
            head_bytes: 60,
            tied_head_bytes: 0,
            layer_block_bytes: 1,
        }
    }

    #[test]
    fn layers_fill_one_device_after_the_other() {
        let memory = model();
        assert_eq!((memory.weights_bytes(), memory.block_bytes()), (510, 4));
        assert_eq!(memory.split(&[510], 0), Some(vec![0..4]));
        assert_eq!(memory.split(&[509], 0), None);
        assert_eq!(memory.split(&[550], 10), Some(vec![0..4]), "ten blocks of four layers");
        assert_eq!(memory.split(&[549], 10), None);
        assert_eq!(memory.split(&[250, 260, 900], 0), Some(vec![0..2, 2..4]));
        assert_eq!(memory.split(&[250, 259, 160], 0), Some(vec![0..2, 2..3, 3..4]));
        assert_eq!(memory.split(&[250, 260], 1), None);
        assert_eq!(memory.split(&[40, 900], 0), None, "the table does not fit the first");
        assert_eq!(memory.split(&[], 0), None);
    }

    #[test]
    fn a_tied_head_is_counted_where_it_is_a_copy() {
        let memory = ModelMemory { tied_head_bytes: 50, head_bytes: 10, ..model() };
        assert_eq!(memory.split(&[460], 0), Some(vec![0..4]));
        assert_eq!(memory.split(&[350, 160], 0), Some(vec![0..3, 3..4]));
        assert_eq!(memory.split(&[350, 159], 0), None);
    }
}
