//! Loads layers from a checkpoint by Hugging Face's names, whichever container holds them.

use std::cell::Cell;
use std::sync::Arc;

use burn::tensor::{DType as TensorType, Device, Tensor, TensorData};
use neurino_nn::device::{is_cpu, upload};
use neurino_nn::quant::{self, PackedMatrix};
use neurino_nn::{Embedding, Linear, RmsNorm};
use neurino_weights::{DType, Gguf, Safetensors, TensorView};

use crate::LlmError;

/// The mapped weights of one model.
#[derive(Debug)]
pub enum Checkpoint {
    /// Hugging Face's container, with its names.
    Safetensors(Safetensors),
    /// llama.cpp's container, with its own names and row order.
    Gguf(Gguf),
}

/// How weights and the cache are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Quantised blocks stay packed, all else is f32: what CPUs run fastest.
    Packed,
    /// All is f32, quantised blocks unpacked: the reference.
    Full,
    /// 16 bits as stored (f16 for weights stored otherwise): half the memory of a GPU.
    Half,
}

impl Precision {
    /// What suits `device`.
    pub fn for_device(device: &Device) -> Self {
        if is_cpu(device) { Self::Packed } else { Self::Half }
    }
}

/// In what order the rows of a query or key projection are wanted.
#[derive(Debug, Clone, Copy)]
enum Rows {
    AsStored,
    /// GGUF interleaves the two halves of a head; Hugging Face's rotary embedding wants them apart.
    HalvesApart {
        head_dim: usize,
    },
}

impl Rows {
    /// The stored row that becomes row `row`.
    fn source(self, row: usize) -> usize {
        match self {
            Self::AsStored => row,
            Self::HalvesApart { head_dim } => {
                let (head, feature) = (row / head_dim, row % head_dim);
                let (half, pair) = (feature / (head_dim / 2), feature % (head_dim / 2));
                head * head_dim + 2 * pair + half
            }
        }
    }
}

impl Checkpoint {
    /// Bytes of the stored weights.
    pub fn weights_bytes(&self) -> u64 {
        match self {
            Self::Safetensors(file) => file.weights_bytes(),
            Self::Gguf(file) => file.weights_bytes(),
        }
    }

    /// A tensor by its Hugging Face name.
    ///
    /// # Errors
    /// `Weights` if it is absent.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, LlmError> {
        Ok(match self {
            Self::Safetensors(file) => file.tensor(name)?,
            Self::Gguf(file) => file.tensor(&gguf_name(name))?,
        })
    }
}

/// llama.cpp's name of a Hugging Face tensor. Names it does not know are passed on unchanged.
fn gguf_name(name: &str) -> String {
    let outer = match name {
        "model.embed_tokens.weight" => Some("token_embd.weight"),
        "model.norm.weight" => Some("output_norm.weight"),
        "lm_head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(outer) = outer {
        return outer.to_owned();
    }
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    let Some((layer, part)) = layer else { return name.to_owned() };
    let part = match part {
        "self_attn.q_proj.weight" => "attn_q.weight",
        "self_attn.k_proj.weight" => "attn_k.weight",
        "self_attn.v_proj.weight" => "attn_v.weight",
        "self_attn.o_proj.weight" => "attn_output.weight",
        "mlp.gate_proj.weight" => "ffn_gate.weight",
        "mlp.up_proj.weight" => "ffn_up.weight",
        "mlp.down_proj.weight" => "ffn_down.weight",
        "input_layernorm.weight" => "attn_norm.weight",
        "post_attention_layernorm.weight" => "ffn_norm.weight",
        _ => return name.to_owned(),
    };
    format!("blk.{layer}.{part}")
}

/// Makes layers on a device and counts what has been read.
pub struct LayerLoader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    precision: Precision,
    progress: &'a dyn Fn(u64, u64),
    read_bytes: Cell<u64>,
    held_bytes: Cell<u64>,
}

impl<'a> LayerLoader<'a> {
    /// A loader that reports `(read, total)` bytes to `progress` after each tensor.
    pub fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        precision: Precision,
        progress: &'a dyn Fn(u64, u64),
    ) -> Self {
        let (read_bytes, held_bytes) = (Cell::new(0), Cell::new(0));
        Self { checkpoint, device, precision, progress, read_bytes, held_bytes }
    }

    /// Memory of the layers made so far.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.get()
    }

    /// A norm over `features`.
    ///
    /// # Errors
    /// `Weights` if the tensor is absent or of another shape.
    pub fn rms_norm(&self, name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError> {
        let view = self.checkpoint.tensor(name)?.with_shape(&[features])?;
        let weight = upload(view.to_f32()?, [features], self.device);
        self.count(&view, features * size_of::<f32>());
        Ok(RmsNorm::new(weight, eps))
    }

    /// A projection of shape `[out, in]`.
    ///
    /// # Errors
    /// `Weights` if the tensor is absent, of another shape or stored in an unknown format.
    pub fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LlmError> {
        self.projection(name, shape, Rows::AsStored)
    }

    /// A query or key projection, whose output is rotated head by head.
    ///
    /// # Errors
    /// As [`LayerLoader::linear`].
    pub fn rotated_linear(
        &self,
        name: &str,
        shape: [usize; 2],
        head_dim: usize,
    ) -> Result<Linear, LlmError> {
        let rows = match self.checkpoint {
            Checkpoint::Safetensors(_) => Rows::AsStored,
            Checkpoint::Gguf(_) => Rows::HalvesApart { head_dim },
        };
        self.projection(name, shape, rows)
    }

    /// The token table, and the head that multiplies with it if the two are tied.
    ///
    /// # Errors
    /// As [`LayerLoader::linear`].
    pub fn embedding(
        &self,
        name: &str,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Embedding, Option<Linear>), LlmError> {
        let view = self.checkpoint.tensor(name)?.with_shape(&shape)?;
        if self.stays_packed(&view) {
            let matrix = self.packed(&view, Rows::AsStored)?;
            let head = tied.then(|| self.packed_linear(&matrix));
            return Ok((Embedding::packed(matrix), head));
        }
        let table = self.dense(&view, shape, Rows::AsStored)?;
        let head = tied.then(|| Linear::dense(table.clone()));
        Ok((Embedding::dense(table), head))
    }

    fn projection(&self, name: &str, shape: [usize; 2], rows: Rows) -> Result<Linear, LlmError> {
        let view = self.checkpoint.tensor(name)?.with_shape(&shape)?;
        if self.stays_packed(&view) {
            return Ok(self.packed_linear(&self.packed(&view, rows)?));
        }
        Ok(Linear::dense(self.dense(&view, shape, rows)?))
    }

    fn stays_packed(&self, view: &TensorView<'_>) -> bool {
        self.precision == Precision::Packed && view.dtype.is_quantized()
    }

    fn packed_linear(&self, matrix: &Arc<PackedMatrix>) -> Linear {
        Linear::packed(quant::matmul_on(matrix, self.device, TensorType::F32))
    }

    fn packed(&self, view: &TensorView<'_>, rows: Rows) -> Result<Arc<PackedMatrix>, LlmError> {
        let matrix = PackedMatrix::from_view(view, |row| rows.source(row))?;
        self.count(view, matrix.size_bytes());
        Ok(Arc::new(matrix))
    }

    fn dense(
        &self,
        view: &TensorView<'_>,
        shape: [usize; 2],
        rows: Rows,
    ) -> Result<Tensor<2>, LlmError> {
        let dtype = match (self.precision, view.dtype) {
            (Precision::Packed | Precision::Full, _) => TensorType::F32,
            (Precision::Half, DType::BF16) => TensorType::BF16,
            (Precision::Half, _) => TensorType::F16,
        };
        let as_stored = matches!(rows, Rows::AsStored)
            && matches!((dtype, view.dtype), (TensorType::F16, DType::F16) | (TensorType::BF16, _));
        let tensor = if as_stored {
            let data = TensorData::from_bytes_vec(view.bytes.to_vec(), shape, dtype);
            Tensor::from_data(data, (self.device, dtype))
        } else {
            let values = in_order(view.to_f32()?, shape, rows);
            upload(values, shape, self.device).cast(dtype)
        };
        self.count(view, shape[0] * shape[1] * dtype.size());
        Ok(tensor)
    }

    fn count(&self, view: &TensorView<'_>, held_bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() + held_bytes as u64);
        self.read_bytes.set(self.read_bytes.get() + view.bytes.len() as u64);
        (self.progress)(self.read_bytes.get(), self.checkpoint.weights_bytes());
    }
}

fn in_order(values: Vec<f32>, [out, features]: [usize; 2], rows: Rows) -> Vec<f32> {
    match rows {
        Rows::AsStored => values,
        Rows::HalvesApart { .. } => (0..out)
            .flat_map(|row| &values[rows.source(row) * features..][..features])
            .copied()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rows_of_gguf() {
        assert_eq!(gguf_name("model.layers.12.self_attn.q_proj.weight"), "blk.12.attn_q.weight");
        assert_eq!(gguf_name("lm_head.weight"), "output.weight");
        let rows = Rows::HalvesApart { head_dim: 6 };
        let found: Vec<usize> = (0..12).map(|row| rows.source(row)).collect();
        assert_eq!(found, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        let values = (0..24u8).map(f32::from).collect();
        let moved = in_order(values, [12, 2], rows);
        assert_eq!(moved[..8], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 2.0, 3.0]);
    }
}
