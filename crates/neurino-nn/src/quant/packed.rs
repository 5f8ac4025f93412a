//! A matrix in one of GGUF's block formats, its scales taken out of the blocks.

use neurino_weights::dtype::BLOCK;
use neurino_weights::{DType, TensorView, WeightsError};

use crate::NnError;

/// How the integers of a block are stored, and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// 4 bits; w = scale * (q - 8).
    Q4Symmetric,
    /// 4 bits; w = scale * q + minimum.
    Q4Minimum,
    /// 8 bits, signed; w = scale * q.
    Q8,
}

impl Packing {
    /// Bytes of the integers of one block.
    pub const fn quant_bytes(self) -> usize {
        match self {
            Self::Q4Symmetric | Self::Q4Minimum => BLOCK / 2,
            Self::Q8 => BLOCK,
        }
    }
}

/// Weights of shape `[out, in]` in blocks of 32 along `in`.
///
/// Scales are widened to f32 when the matrix is made, so that a dot product reads three plain
/// arrays and never an unaligned half.
#[derive(Debug)]
pub struct PackedMatrix {
    packing: Packing,
    out_features: usize,
    in_features: usize,
    /// One a block, row after row.
    scales: Vec<f32>,
    /// One a block; empty unless the packing has minima.
    minima: Vec<f32>,
    /// [`Packing::quant_bytes`] a block.
    quants: Vec<u8>,
}

/// The blocks of one output feature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) scales: &'a [f32],
    pub(super) minima: &'a [f32],
    pub(super) quants: &'a [u8],
}

impl PackedMatrix {
    /// Repacks a stored matrix; row `i` of the result is row `source_row(i)` of the file.
    ///
    /// # Errors
    /// `WeightsError::UnsupportedDType` if the tensor is not a matrix of blocks.
    pub fn from_view(
        view: &TensorView<'_>,
        source_row: impl Fn(usize) -> usize,
    ) -> Result<Self, WeightsError> {
        let packing = match view.dtype {
            DType::Q4_0 => Packing::Q4Symmetric,
            DType::Q4_1 => Packing::Q4Minimum,
            DType::Q8_0 => Packing::Q8,
            other => return Err(view.unsupported(other.name())),
        };
        let &[out, features] = view.shape else {
            return Err(view.unsupported("blocks that are not a matrix"));
        };
        Self::from_blocks(packing, out, features, view.bytes, source_row)
            .map_err(|_| view.unsupported("blocks that do not fill their shape"))
    }

    /// Repacks GGUF blocks, row after row; see [`PackedMatrix::from_view`].
    ///
    /// # Errors
    /// `BadPacking` if `blocks` has another length than the shape asks for, or rows do not hold
    /// whole blocks.
    pub fn from_blocks(
        packing: Packing,
        out_features: usize,
        in_features: usize,
        blocks: &[u8],
        source_row: impl Fn(usize) -> usize,
    ) -> Result<Self, NnError> {
        let has_minima = packing == Packing::Q4Minimum;
        let block_bytes = packing.quant_bytes() + if has_minima { 4 } else { 2 };
        let row_blocks = in_features / BLOCK;
        let row_bytes = row_blocks * block_bytes;
        let fills = row_bytes.checked_mul(out_features) == Some(blocks.len());
        if !in_features.is_multiple_of(BLOCK) || !fills || row_bytes == 0 {
            let found_bytes = blocks.len();
            return Err(NnError::BadPacking { found_bytes, out_features, in_features });
        }

        let count = row_blocks * out_features;
        let mut scales = Vec::with_capacity(count);
        let mut minima = Vec::with_capacity(if has_minima { count } else { 0 });
        let mut quants = Vec::with_capacity(count * packing.quant_bytes());
        let half = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for row in 0..out_features {
            let start = source_row(row) * row_bytes;
            for block in blocks[start..start + row_bytes].chunks_exact(block_bytes) {
                scales.push(half(block));
                if has_minima {
                    minima.push(half(&block[2..]));
                }
                quants.extend_from_slice(&block[block_bytes - packing.quant_bytes()..]);
            }
        }
        Ok(Self { packing, out_features, in_features, scales, minima, quants })
    }

    /// How the integers are stored.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Rows.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Columns.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Memory held.
    pub fn size_bytes(&self) -> usize {
        self.quants.len() + (self.scales.len() + self.minima.len()) * size_of::<f32>()
    }

    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let blocks = self.in_features / BLOCK;
        let range = row * blocks..(row + 1) * blocks;
        let bytes = self.packing.quant_bytes();
        Row {
            scales: &self.scales[range.clone()],
            minima: if self.minima.is_empty() { &[] } else { &self.minima[range.clone()] },
            quants: &self.quants[range.start * bytes..range.end * bytes],
        }
    }

    /// Unpacks row `row` and appends its weights to `out`.
    pub fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let row = self.row(row);
        for (block, quants) in row.quants.chunks_exact(self.packing.quant_bytes()).enumerate() {
            let d = row.scales[block];
            let low = quants.iter().map(|q| f32::from(q & 15));
            let high = quants.iter().map(|q| f32::from(q >> 4));
            match self.packing {
                Packing::Q4Symmetric => out.extend(low.chain(high).map(|q| d * (q - 8.0))),
                Packing::Q4Minimum => {
                    let m = row.minima[block];
                    out.extend(low.chain(high).map(|q| d * q + m));
                }
                Packing::Q8 => out.extend(quants.iter().map(|q| d * f32::from(q.cast_signed()))),
            }
        }
    }

    /// All weights, unpacked, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.out_features * self.in_features);
        for row in 0..self.out_features {
            self.append_row(row, &mut out);
        }
        out
    }
}
