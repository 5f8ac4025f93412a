//! Layers of random weights by shape: what measurements need where no model file is.
//!
//! A tile of random weights is made once for each width and repeated, so that 8 billion weights take
//! seconds. Their spread suits the width, so that activations stay in range through all layers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{DType as TensorType, Device, Tensor, TensorData};
use neurino_nn::device::{is_cpu, upload};
use neurino_nn::quant::packed::Packing;
use neurino_nn::quant::{self, PackedMatrix};
use neurino_nn::{Embedding, Linear, RmsNorm};
use neurino_weights::DType;
use neurino_weights::convert::rows_from_f32;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::layers::LayerSource;
use crate::LlmError;

/// Weights of a tile, a multiple of every block.
const TILE_WEIGHTS: usize = 1 << 16;
/// How much further into the tile each matrix starts than the one before, in blocks.
const TILE_STRIDE_BLOCKS: usize = 389;

/// How random weights are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// Projections in blocks of 8 bits, the token table in 16.
    Q8,
    /// Projections in blocks of 4 bits with minima, the head in blocks of 8, the token table in 16:
    /// as a model that is quantised while loading.
    Q4,
}

impl WeightFormat {
    /// The formats by name.
    pub const ALL: [(&'static str, Self); 4] =
        [("f32", Self::F32), ("f16", Self::F16), ("q8", Self::Q8), ("q4", Self::Q4)];

    /// How keys and values are kept beside such weights.
    pub fn cache_dtype(self, device: &Device) -> TensorType {
        if is_cpu(device) && self != Self::F16 { TensorType::F32 } else { TensorType::F16 }
    }
}

/// Bytes to repeat, by format and width.
type Tiles = HashMap<(&'static str, usize), Arc<[u8]>>;

/// Makes layers of random weights.
#[derive(Debug)]
pub struct RandomLayers<'a> {
    format: WeightFormat,
    device: Cell<&'a Device>,
    random: RefCell<ChaCha8Rng>,
    tiles: RefCell<Tiles>,
    made: Cell<usize>,
    held_bytes: Cell<u64>,
}

impl<'a> RandomLayers<'a> {
    /// Layers in `format` on `device`.
    pub fn new(format: WeightFormat, device: &'a Device, seed: u64) -> Self {
        Self {
            format,
            device: Cell::new(device),
            random: RefCell::new(ChaCha8Rng::seed_from_u64(seed)),
            tiles: RefCell::default(),
            made: Cell::new(0),
            held_bytes: Cell::new(0),
        }
    }

    fn count(&self, bytes: usize) {
        self.held_bytes.set(self.held_bytes.get() + bytes as u64);
    }

    /// A matrix stored as `dtype`, uniform with a deviation of `1 / sqrt(width)`.
    fn bytes(&self, dtype: DType, [out, features]: [usize; 2], width: usize) -> Vec<u8> {
        let tile = self.tile(dtype, width);
        let (per_unit, unit_bytes) = dtype.unit().unwrap_or((1, 1));
        let needed = (out * features).div_ceil(per_unit) * unit_bytes;
        let nth = self.made.replace(self.made.get() + 1);
        let start = nth * TILE_STRIDE_BLOCKS * unit_bytes % tile.len().max(1);
        let mut bytes = Vec::with_capacity(needed);
        bytes.extend_from_slice(&tile[start..][..needed.min(tile.len() - start)]);
        while bytes.len() < needed && !tile.is_empty() {
            let rest = needed - bytes.len();
            bytes.extend_from_slice(&tile[..rest.min(tile.len())]);
        }
        bytes
    }

    fn tile(&self, dtype: DType, width: usize) -> Arc<[u8]> {
        let make = || {
            // A uniform distribution's deviation is its half width by the root of three.
            let spread = (3.0 / width as f32).sqrt();
            let mut random = self.random.borrow_mut();
            let values: Vec<f32> =
                (0..TILE_WEIGHTS).map(|_| random.random_range(-spread..spread)).collect();
            rows_from_f32(&values, TILE_WEIGHTS, dtype).unwrap_or_default().into()
        };
        Arc::clone(self.tiles.borrow_mut().entry((dtype.name(), width)).or_insert_with(make))
    }

    fn dense(&self, shape: [usize; 2], width: usize) -> Tensor<2> {
        let (stored, dtype) = match self.format {
            WeightFormat::F32 => (DType::F32, TensorType::F32),
            _ => (DType::F16, TensorType::F16),
        };
        let bytes = self.bytes(stored, shape, width);
        self.count(bytes.len());
        let data = TensorData::from_bytes_vec(bytes, shape, dtype);
        Tensor::from_data(data, (self.device.get(), dtype))
    }

    fn packed(&self, packing: Packing, shape: [usize; 2]) -> Result<Linear, LlmError> {
        let dtype = if packing == Packing::Q8 { DType::Q8_0 } else { DType::Q4_1 };
        let blocks = self.bytes(dtype, shape, shape[1]);
        let matrix = PackedMatrix::from_blocks(packing, shape[0], shape[1], &blocks, |row| row)?;
        self.count(matrix.size_bytes());
        let matmul = quant::matmul_on(&Arc::new(matrix), self.device.get(), TensorType::F16);
        Ok(Linear::packed(matmul))
    }
}

impl<'a> LayerSource<'a> for RandomLayers<'a> {
    fn place_on(&self, device: &'a Device) {
        self.device.set(device);
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes.get()
    }

    fn rms_norm(&self, _name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError> {
        self.count(features * size_of::<f32>());
        Ok(RmsNorm::new(upload(vec![1.0; features], [features], self.device.get()), eps))
    }

    fn bias(&self, _name: &str, features: usize) -> Result<Tensor<2>, LlmError> {
        self.count(features * size_of::<f32>());
        Ok(upload(vec![0.0; features], [1, features], self.device.get()))
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LlmError> {
        match self.format {
            WeightFormat::F32 | WeightFormat::F16 => Ok(Linear::dense(self.dense(shape, shape[1]))),
            WeightFormat::Q4 if name != "lm_head.weight" => self.packed(Packing::Q4Minimum, shape),
            WeightFormat::Q8 | WeightFormat::Q4 => self.packed(Packing::Q8, shape),
        }
    }

    fn rotated_linear(
        &self,
        name: &str,
        shape: [usize; 2],
        _head_dim: usize,
    ) -> Result<Linear, LlmError> {
        self.linear(name, shape)
    }

    fn embedding(
        &self,
        _name: &str,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Embedding, Option<Linear>), LlmError> {
        // Rows of length one as they enter the first layer; as a head, scores of about that size.
        let table = self.dense(shape, 1);
        let embedding = Embedding::dense(table);
        let head = if tied { Linear::tied(&embedding) } else { None };
        Ok((embedding, head))
    }
}
