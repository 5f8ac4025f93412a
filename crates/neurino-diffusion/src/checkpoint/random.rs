//! Weights of random numbers by shape: what measurements at real size need where no model file is.
//!
//! A tile of random weights is made once and repeated, so that billions of weights take seconds, and
//! a packed matrix never exists unpacked. The spread suits the width, so that activations stay in
//! range through all layers.

use std::cell::Cell;
use std::sync::Arc;

use neurino_weights::DType;
use neurino_weights::convert::rows_from_f32;
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;

use super::{Tensors, Weight};
use crate::DiffusionError;

/// Weights of a tile.
const TILE_WEIGHTS: usize = 1 << 16;
/// How much further into the tile each tensor starts than the one before, in weights.
const TILE_STRIDE: usize = 12_448;
/// Weights that share a scale in packed matrices.
const GROUP: usize = 64;
/// The 16 values of nf4: quantiles of a normal distribution over -1 ..= 1.
///
/// Source: Dettmers et al. 2023 (QLoRA), appendix E.
const NF4_TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_4,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
/// Deviation of a place in that table that is drawn uniformly.
const NF4_DEVIATION: f32 = 0.517;
/// Deviation of an integer of 4 bits that is drawn uniformly.
const NIBBLE_DEVIATION: f32 = 4.61;

/// How random weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomFormat {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// 16 bits with the exponents of 32.
    Bf16,
    /// Matrices of linear layers in nf4, the rest in bf16.
    Nf4,
    /// Matrices of linear layers in HQQ's 4 bits, the rest in bf16.
    Hqq,
}

/// Random tensors of any name and shape.
#[derive(Debug)]
pub struct RandomTensors {
    format: RandomFormat,
    /// Uniform, with deviation 1.
    tile: Vec<f32>,
    /// Random bytes: pairs of 4-bit integers.
    nibbles: Vec<u8>,
    made: Cell<usize>,
    read_bytes: Cell<u64>,
}

impl RandomTensors {
    /// Tensors in `format`; the same seed and order of reading give the same tensors.
    pub fn new(format: RandomFormat, seed: u64) -> Self {
        let mut state = seed;
        let mut word = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed(state)
        };
        // A uniform distribution's deviation is its half width by the root of three.
        let unit = |word: u64| ((word >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * 3f32.sqrt();
        let tile = (0..TILE_WEIGHTS).map(|_| unit(word())).collect();
        let nibbles = (0..TILE_WEIGHTS / 8).flat_map(|_| word().to_le_bytes()).collect();
        Self { format, tile, nibbles, made: Cell::new(0), read_bytes: Cell::new(0) }
    }

    /// Bytes of all tensors that were read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    fn start(&self) -> usize {
        self.made.replace(self.made.get() + 1).wrapping_mul(TILE_STRIDE) % TILE_WEIGHTS
    }

    fn plain(&self, count: usize, deviation: f32) -> Weight {
        let dtype = match self.format {
            RandomFormat::F32 => DType::F32,
            RandomFormat::F16 => DType::F16,
            _ => DType::BF16,
        };
        let values: Vec<f32> = self.tile.iter().map(|value| value * deviation).collect();
        let tile = rows_from_f32(&values, TILE_WEIGHTS, dtype).unwrap_or_default();
        let size = tile.len() / TILE_WEIGHTS;
        Weight::plain(dtype, repeated(&tile, self.start() * size, count * size))
    }

    fn nf4(&self, shape: &[usize], deviation: f32) -> Weight {
        let count = shape.iter().product::<usize>();
        Weight::Nf4(Arc::new(Nf4Matrix {
            shape: shape.to_vec(),
            block_size: GROUP,
            quants: repeated(&self.nibbles, self.start(), count.div_ceil(2)),
            table: NF4_TABLE,
            scales: vec![deviation / NF4_DEVIATION; count.div_ceil(GROUP)],
        }))
    }

    /// Groups in columns, as that quantiser's default was.
    fn hqq(&self, [out, inp]: [usize; 2], deviation: f32) -> Weight {
        let groups = out * inp / GROUP;
        Weight::Hqq(Arc::new(HqqMatrix {
            shape: [out, inp],
            bits: 4,
            groups_are_rows: false,
            dims: [GROUP, groups],
            quants: repeated(&self.nibbles, self.start(), out * inp / 2),
            scales: vec![deviation / NIBBLE_DEVIATION; groups],
            zeros: vec![7.5; groups],
        }))
    }
}

/// `tile`, from `start` on and again from its beginning, to a length of `len`.
fn repeated(tile: &[u8], start: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut rest = &tile[start..];
    while bytes.len() < len && !tile.is_empty() {
        bytes.extend_from_slice(&rest[..rest.len().min(len - bytes.len())]);
        rest = tile;
    }
    bytes
}

/// The finaliser of SplitMix64.
///
/// Source: Steele et al. 2014.
fn mixed(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Tensors for RandomTensors {
    /// `None`: any shape can be read.
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let count = shape.iter().product::<usize>();
        let packed = |len: usize| len > 0 && len.is_multiple_of(2 * GROUP) && !is_table(name);
        let weight = match *shape {
            // The scales of norms; biases.
            [len] => {
                let one = if name.ends_with("weight") { 1f32 } else { 0.0 };
                let bytes = one.to_le_bytes().repeat(len);
                Weight::plain(DType::F32, bytes)
            }
            [out, inp] if packed(out * inp) => {
                let deviation = (inp as f32).sqrt().recip();
                match self.format {
                    RandomFormat::Nf4 => self.nf4(shape, deviation),
                    RandomFormat::Hqq => self.hqq([out, inp], deviation),
                    _ => self.plain(count, deviation),
                }
            }
            [_, ref inputs @ ..] => {
                let width = inputs.iter().product::<usize>().max(1);
                let deviation = if is_table(name) { 1.0 } else { (width as f32).sqrt().recip() };
                self.plain(count, deviation)
            }
            [] => self.plain(count, 1.0),
        };
        self.read_bytes.set(self.read_bytes.get() + weight.size_bytes() as u64);
        Ok(weight)
    }
}

/// Whether the rows are looked up and not multiplied with.
fn is_table(name: &str) -> bool {
    ["embedding.weight", "shared.weight", "embed_tokens.weight", "relative_attention_bias.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(values: &[f32]) -> f32 {
        let square = values.iter().map(|x| x * x).sum::<f32>();
        (square / values.len() as f32).sqrt()
    }

    #[test]
    fn each_format_spreads_as_the_width_asks() {
        for format in [RandomFormat::F32, RandomFormat::F16, RandomFormat::Nf4, RandomFormat::Hqq] {
            let tensors = RandomTensors::new(format, 3);
            let weight = tensors.read("a.weight", &[384, 256]).expect("any shape");
            let bytes = weight.size_bytes();
            let values = match weight {
                Weight::Plain { dtype, bytes } => {
                    let mut values = vec![0.0; 384 * 256];
                    dtype.dequantize(&bytes, &mut values);
                    values
                }
                Weight::Nf4(matrix) => matrix.to_f32(),
                Weight::Hqq(matrix) => matrix.to_f32(),
            };
            let found = deviation(&values) * 16.0;
            assert!((0.97..1.03).contains(&found), "{format:?}: {found}");
            assert_eq!(tensors.read_bytes(), bytes as u64);
        }
    }
}
