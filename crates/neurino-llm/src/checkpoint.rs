//! Loads layers from a checkpoint by Hugging Face's names, whichever container holds them.

use std::cell::Cell;
use std::sync::Arc;

use burn::tensor::{DType as TensorType, Device, ExecutionError, Tensor, TensorData};
use neurino_core::job::WeightPrecision;
use neurino_nn::device::{is_cpu, upload};
use neurino_nn::quant::packed::Packing;
use neurino_nn::quant::{self, Holder, PackedMatrix};
use neurino_nn::{Embedding, Linear, NnError, RmsNorm};
use neurino_weights::convert::rows_from_f32;
use neurino_weights::dtype::BLOCK;
use neurino_weights::gptq::{GptqConfig, GptqParts};
use neurino_weights::prefetch::{Fetched, Prefetch, budget_bytes};
use neurino_weights::{DType, Gguf, Safetensors, StoredTensor, TensorView, WeightsError};

use crate::LlmError;

mod check;
pub mod memory;
mod names;
mod plan;

/// The weights of one model, opened and not yet read.
#[derive(Debug)]
pub enum Checkpoint {
    /// Hugging Face's container, with its names.
    Safetensors(Safetensors),
    /// The same, with projections that are quantised by GPTQ.
    Gptq(Safetensors, GptqConfig),
    /// llama.cpp's container, with its own names and row order.
    Gguf(Gguf),
}

/// How weights and the cache are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Everything as it is stored, quantised blocks packed, keys and values in 16 bits: what CPUs run
    /// fastest.
    Packed,
    /// All is f32, quantised blocks unpacked: the reference.
    Full,
    /// 16 bits as stored (f16 for weights stored wider), quantised blocks packed; keys and values in
    /// 16 bits too: half the memory of a GPU.
    Half,
    /// Projections are quantised to 4 bits while loading (the head to 8), unless they are stored with
    /// as few already: for cards whose memory does not hold 16 bits. All else is as in `Half`.
    FourBit,
}

impl Precision {
    /// What suits `device`.
    pub fn for_device(device: &Device) -> Self {
        if is_cpu(device) { Self::Packed } else { Self::Half }
    }

    /// From a result's words.
    pub fn of_choice(choice: WeightPrecision) -> Self {
        match choice {
            WeightPrecision::Packed => Self::Packed,
            WeightPrecision::Full => Self::Full,
            WeightPrecision::Half => Self::Half,
            WeightPrecision::FourBit => Self::FourBit,
        }
    }

    /// The same in a result's words.
    pub fn of_result(self) -> WeightPrecision {
        match self {
            Self::Packed => WeightPrecision::Packed,
            Self::Full => WeightPrecision::Full,
            Self::Half => WeightPrecision::Half,
            Self::FourBit => WeightPrecision::FourBit,
        }
    }

    /// Whether a matrix that is stored as `dtype` stays packed as it is.
    fn keeps_packed(self, dtype: DType) -> bool {
        match self {
            Self::Full => false,
            Self::Packed | Self::Half => Packing::of(dtype).is_some(),
            Self::FourBit => matches!(dtype, DType::Q4_0 | DType::Q4_1 | DType::Q4K),
        }
    }

    /// How keys and values are kept.
    pub fn cache_dtype(self) -> TensorType {
        match self {
            Self::Full => TensorType::F32,
            Self::Packed | Self::Half | Self::FourBit => TensorType::F16,
        }
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
            Self::Safetensors(file) | Self::Gptq(file, _) => file.weights_bytes(),
            Self::Gguf(file) => file.weights_bytes(),
        }
    }

    /// All tensors, in no order.
    fn tensors(&self) -> Box<dyn Iterator<Item = &StoredTensor> + '_> {
        match self {
            Self::Safetensors(file) | Self::Gptq(file, _) => Box::new(file.tensors()),
            Self::Gguf(file) => Box::new(file.tensors()),
        }
    }

    /// How most weights are stored, by bytes.
    pub(crate) fn storage(&self) -> String {
        if let Self::Gptq(_, config) = self {
            return format!("gptq-{}bit", config.bits);
        }
        let mut bytes = std::collections::BTreeMap::new();
        for tensor in self.tensors() {
            *bytes.entry(tensor.dtype().name()).or_insert(0) += tensor.size_bytes();
        }
        let most = bytes.into_iter().max_by_key(|&(_, bytes)| bytes);
        most.map_or("unknown", |(name, _)| name).to_lowercase()
    }

    /// The largest file of those that hold the weights, in bytes.
    fn largest_file_bytes(&self) -> u64 {
        match self {
            Self::Safetensors(file) | Self::Gptq(file, _) => file.largest_shard_bytes(),
            Self::Gguf(file) => file.largest_file_bytes(),
        }
    }

    /// Memory for reading ahead: with the largest tensor it stays within half of the largest file.
    fn reading_budget_bytes(&self) -> u64 {
        let largest_file = self.largest_file_bytes();
        let largest_tensor = self.tensors().map(StoredTensor::size_bytes).max().unwrap_or(0);
        budget_bytes(largest_file, largest_tensor as u64)
    }

    /// Where the tensor of a Hugging Face name lies; nothing is read. An expert's matrix is found in
    /// a merged tensor of all experts too.
    ///
    /// # Errors
    /// `TensorAbsent`.
    pub fn stored(&self, name: &str) -> Result<StoredTensor, WeightsError> {
        let gguf = match self {
            Self::Safetensors(file) | Self::Gptq(file, _) => return file.stored(name).cloned(),
            Self::Gguf(file) => file,
        };
        let own = names::gguf(name);
        match own.merged.and_then(|(merged, expert)| gguf.stored(&merged).ok()?.part(expert)) {
            Some(part) => Ok(part),
            None => gguf.stored(&own.whole).cloned(),
        }
    }

    /// The parts of a matrix if it is quantised by GPTQ.
    fn gptq(
        &self,
        name: &str,
    ) -> Result<Option<(GptqParts<StoredTensor>, GptqConfig)>, WeightsError> {
        let Self::Gptq(file, config) = self else { return Ok(None) };
        let base = name.strip_suffix(".weight").unwrap_or(name);
        let parts = GptqParts::find(base, |part| file.stored(part).cloned())?;
        Ok(parts.map(|parts| (parts, *config)))
    }
}

/// Bytes that may be on their way to a device before it is waited for.
const PENDING_BYTES_MAX: u64 = 1 << 29;

/// The same for a checkpoint: they lie in this machine's memory beside what is read ahead, and both
/// together must stay within 1.2 times the largest file.
fn pending_bytes_max(largest_file_bytes: u64) -> u64 {
    (largest_file_bytes / 8).min(PENDING_BYTES_MAX)
}

/// Makes layers on a device and counts what has been read.
pub struct LayerLoader<'a> {
    checkpoint: &'a Checkpoint,
    device: Cell<&'a Device>,
    precision: Precision,
    progress: &'a dyn Fn(u64, u64),
    prefetch: Prefetch,
    cancelled: Option<&'a dyn Fn() -> bool>,
    total_bytes: u64,
    read_bytes: Cell<u64>,
    held_bytes: Cell<u64>,
    /// Handed to the device since it was last waited for.
    pending_bytes: Cell<u64>,
    pending_bytes_max: u64,
}

impl<'a> LayerLoader<'a> {
    /// A loader that reports `(read, total)` bytes to `progress` after each tensor.
    pub fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        precision: Precision,
        progress: &'a dyn Fn(u64, u64),
    ) -> Self {
        let plan = plan::reading_order(checkpoint);
        let prefetch = Prefetch::start(plan, checkpoint.reading_budget_bytes());
        let (read_bytes, held_bytes, pending_bytes) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let total_bytes = checkpoint.weights_bytes();
        let pending_bytes_max = pending_bytes_max(checkpoint.largest_file_bytes());
        Self {
            checkpoint,
            device: Cell::new(device),
            precision,
            progress,
            prefetch,
            cancelled: None,
            total_bytes,
            read_bytes,
            held_bytes,
            pending_bytes,
            pending_bytes_max,
        }
    }

    /// Memory of the layers made so far.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.get()
    }

    /// Makes the layers that follow on `device`.
    pub fn place_on(&self, device: &'a Device) {
        self.device.set(device);
    }

    /// Gives up with an error at the next tensor once `cancelled` says so.
    #[must_use]
    pub fn cancelled_by(self, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { cancelled: Some(cancelled), ..self }
    }

    /// A norm over `features`.
    ///
    /// # Errors
    /// `Weights` if the tensor is absent or of another shape, the file changed, or loading was
    /// cancelled: as for all that follow.
    pub fn rms_norm(&self, name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError> {
        let weight = self.fetch(&self.checkpoint.stored(name)?.with_shape(&[features])?)?;
        let values = weight.view().to_f32()?;
        self.count(weight.len(), features * size_of::<f32>())?;
        Ok(RmsNorm::new(upload(values, [features], self.device.get()), eps))
    }

    /// A projection's bias, `[1, features]`, f32.
    ///
    /// # Errors
    /// As [`LayerLoader::rms_norm`].
    pub fn bias(&self, name: &str, features: usize) -> Result<Tensor<2>, LlmError> {
        let bias = self.fetch(&self.checkpoint.stored(name)?.with_shape(&[features])?)?;
        let values = bias.view().to_f32()?;
        self.count(bias.len(), features * size_of::<f32>())?;
        Ok(upload(values, [1, features], self.device.get()))
    }

    /// A projection of shape `[out, in]`; an expert's too, by its Hugging Face name, even if the file
    /// keeps all experts in one tensor.
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
            Checkpoint::Safetensors(_) | Checkpoint::Gptq(..) => Rows::AsStored,
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
        let table = self.fetch(&self.checkpoint.stored(name)?.with_shape(&shape)?)?;
        let packable = Packing::of(table.tensor().dtype()).is_some();
        if self.precision == Precision::Packed && packable {
            let matrix = self.packed(&table.view(), Rows::AsStored)?;
            let head = tied.then(|| self.packed_linear(&matrix));
            return Ok((Embedding::packed(matrix), head));
        }
        let table = self.dense(table, shape, Rows::AsStored)?;
        let embedding = Embedding::dense(table);
        let head = if tied { Linear::tied(&embedding) } else { None };
        Ok((embedding, head))
    }

    /// The one place that decides in which form a matrix is kept.
    fn projection(&self, name: &str, shape: [usize; 2], rows: Rows) -> Result<Linear, LlmError> {
        if let Some(parts) = self.checkpoint.gptq(name)? {
            return self.gptq_projection(&parts, shape);
        }
        let matrix = self.fetch(&self.checkpoint.stored(name)?.with_shape(&shape)?)?;
        let dtype = matrix.tensor().dtype();
        match self.precision {
            precision if precision.keeps_packed(dtype) => {
                Ok(self.packed_linear(&self.packed(&matrix.view(), rows)?))
            }
            Precision::FourBit
                if shape[1].is_multiple_of(BLOCK) && !name.ends_with(names::ROUTER) =>
            {
                let target = if name == "lm_head.weight" { DType::Q8_0 } else { DType::Q4_1 };
                let blocks = matrix.view().rows_as(target, |row| rows.source(row))?;
                self.repacked(matrix.len(), target, &blocks, shape)
            }
            _ => Ok(Linear::dense(self.dense(matrix, shape, rows)?)),
        }
    }

    fn gptq_projection(
        &self,
        (parts, config): &(GptqParts<StoredTensor>, GptqConfig),
        shape: [usize; 2],
    ) -> Result<Linear, LlmError> {
        let found = parts.shape(*config)?;
        if [found.out_features, found.in_features] != shape {
            return Err(WeightsError::WrongShape {
                file: parts.qweight.file().to_owned(),
                tensor: parts.qweight.name().to_owned(),
                expected: shape.to_vec(),
                found: vec![found.out_features, found.in_features],
            }
            .into());
        }
        let read = parts.try_map(|tensor| self.fetch(tensor))?;
        let read_bytes = [&read.qweight, &read.qzeros, &read.scales].map(|part| part.len());
        let read_bytes =
            read_bytes.iter().sum::<usize>() + read.g_idx.as_ref().map_or(0, |part| part.len());
        let views = read.try_map(|part| Ok::<_, LlmError>(part.view()))?;
        let weights = parts.weights(*config, &views)?;
        let whole = if self.precision == Precision::Full { None } else { weights.repack() };
        if let Some(matrix) = whole.as_ref().and_then(PackedMatrix::from_gptq) {
            self.count(read_bytes, self.packed_bytes(&matrix))?;
            return Ok(self.packed_linear(&Arc::new(matrix)));
        }
        let values = weights.to_f32();
        let dtype = self.dense_type(DType::F16);
        let tensor = if dtype == TensorType::F32 {
            upload(values, shape, self.device.get())
        } else {
            let halves = rows_from_f32(&values, shape[1], DType::F16).unwrap_or_default();
            drop(values);
            self.upload_bytes(halves, shape, TensorType::F16)
        };
        self.count(read_bytes, shape[0] * shape[1] * dtype.size())?;
        Ok(Linear::dense(tensor))
    }

    fn packed_linear(&self, matrix: &Arc<PackedMatrix>) -> Linear {
        Linear::packed(quant::matmul_on(matrix, self.device.get(), self.unpacked_type()))
    }

    /// What packed weights become on a device that cannot multiply with them.
    fn unpacked_type(&self) -> TensorType {
        match self.precision {
            Precision::Half | Precision::FourBit => TensorType::F16,
            Precision::Packed | Precision::Full => TensorType::F32,
        }
    }

    /// Memory that a packed matrix takes on the device.
    fn packed_bytes(&self, matrix: &PackedMatrix) -> usize {
        Holder::of(self.device.get()).held_bytes(matrix)
    }

    fn packed(&self, view: &TensorView<'_>, rows: Rows) -> Result<Arc<PackedMatrix>, LlmError> {
        let matrix = PackedMatrix::from_view(view, |row| rows.source(row))?;
        self.count(view.bytes.len(), self.packed_bytes(&matrix))?;
        Ok(Arc::new(matrix))
    }

    /// A projection of blocks that were quantised just now.
    fn repacked(
        &self,
        read_bytes: usize,
        dtype: DType,
        blocks: &[u8],
        [out, features]: [usize; 2],
    ) -> Result<Linear, LlmError> {
        let packing = if dtype == DType::Q8_0 { Packing::Q8 } else { Packing::Q4Minimum };
        let matrix = PackedMatrix::from_blocks(packing, out, features, blocks, |row| row)?;
        self.count(read_bytes, self.packed_bytes(&matrix))?;
        Ok(self.packed_linear(&Arc::new(matrix)))
    }

    fn dense(&self, matrix: Fetched, shape: [usize; 2], rows: Rows) -> Result<Tensor<2>, LlmError> {
        let (stored, read_bytes) = (matrix.tensor().dtype(), matrix.len());
        let dtype = self.dense_type(stored);
        let tensor = match (dtype, stored, rows) {
            (TensorType::F16, DType::F16, Rows::AsStored)
            | (TensorType::BF16, DType::BF16, Rows::AsStored) => {
                self.upload_bytes(matrix.into_vec(), shape, dtype)
            }
            (TensorType::F32, _, Rows::AsStored) => {
                upload(matrix.view().to_f32()?, shape, self.device.get())
            }
            (TensorType::F32, ..) => {
                upload(in_order(&matrix.view().to_f32()?, shape, rows), shape, self.device.get())
            }
            _ => {
                let target = if dtype == TensorType::BF16 { DType::BF16 } else { DType::F16 };
                let bytes = matrix.view().rows_as(target, |row| rows.source(row))?;
                self.upload_bytes(bytes, shape, dtype)
            }
        };
        self.count(read_bytes, shape[0] * shape[1] * dtype.size())?;
        Ok(tensor)
    }

    /// The number format in which unpacked weights that are stored as `stored` are kept.
    fn dense_type(&self, stored: DType) -> TensorType {
        match (self.precision, stored) {
            (Precision::Full, _) | (Precision::Packed, DType::F32) => TensorType::F32,
            (_, DType::BF16) => TensorType::BF16,
            (_, _) => TensorType::F16,
        }
    }

    fn upload_bytes(&self, bytes: Vec<u8>, shape: [usize; 2], dtype: TensorType) -> Tensor<2> {
        Tensor::from_data(
            TensorData::from_bytes_vec(bytes, shape, dtype),
            (self.device.get(), dtype),
        )
    }

    fn fetch(&self, tensor: &StoredTensor) -> Result<Fetched, LlmError> {
        if self.cancelled.is_some_and(|cancelled| cancelled()) {
            self.prefetch.stop();
        }
        Ok(self.prefetch.fetch(tensor)?)
    }

    /// Notes that a tensor of `read_bytes` became a layer of `held_bytes`.
    fn count(&self, read_bytes: usize, held_bytes: usize) -> Result<(), LlmError> {
        self.held_bytes.set(self.held_bytes.get() + held_bytes as u64);
        self.read_bytes.set(self.read_bytes.get() + read_bytes as u64);
        (self.progress)(self.read_bytes.get(), self.total_bytes);
        // What a GPU has not copied yet still lies in this machine's memory.
        let pending = self.pending_bytes.get() + held_bytes as u64;
        let full = pending > self.pending_bytes_max && !is_cpu(self.device.get());
        self.pending_bytes.set(if full { 0 } else { pending });
        if full {
            let failed = |e: ExecutionError| NnError::Device { reason: e.to_string() };
            self.device.get().sync().map_err(failed)?;
        }
        Ok(())
    }
}

fn in_order(values: &[f32], [out, features]: [usize; 2], rows: Rows) -> Vec<f32> {
    (0..out).flat_map(|row| &values[rows.source(row) * features..][..features]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_card_and_what_is_read_ahead_stay_near_a_shard() {
        for (file, tensor) in [(5 << 30, 1 << 30), (600 << 20, 100 << 20), (40 << 20, 4 << 20)] {
            // One tensor may be handed over beyond the limit before it is noticed.
            let beside = budget_bytes(file, tensor) + pending_bytes_max(file) + tensor;
            assert!(beside * 5 <= file * 6, "{beside} of {file}");
        }
    }

    #[test]
    fn rows_of_gguf() {
        let rows = Rows::HalvesApart { head_dim: 6 };
        let found: Vec<usize> = (0..12).map(|row| rows.source(row)).collect();
        assert_eq!(found, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        let values: Vec<f32> = (0..24u8).map(f32::from).collect();
        let moved = in_order(&values, [12, 2], rows);
        assert_eq!(moved[..8], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 2.0, 3.0]);
    }
}
