//! A matrix in one of the block formats, laid out for the CPU's kernels.

use std::ops::Range;

use half::f16;
use neurino_weights::dtype::BLOCK;
use neurino_weights::gptq::GptqMatrix;
use neurino_weights::{DType, TensorView, WeightsError};
use rayon::prelude::*;

use super::format::PANEL;
use super::source::{self, Stored};
use crate::NnError;

/// Panels start at a multiple of this, so that no vector straddles a cache line.
const ALIGNMENT: usize = 32;

/// How the integers of a block are stored, and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// 4 bits; w = scale * (q - 8).
    Q4Symmetric,
    /// 4 bits; w = scale * q + minimum.
    Q4Minimum,
    /// 5 bits; w = scale * (q - 16).
    Q5Symmetric,
    /// 5 bits; w = scale * q + minimum.
    Q5Minimum,
    /// 8 bits, signed; w = scale * q.
    Q8,
    /// 4 bits, 6-bit scales and minima in blocks of 256.
    Q4K,
    /// 5 bits, 6-bit scales and minima in blocks of 256.
    Q5K,
    /// 6 bits, 8-bit scales of each 16 weights in blocks of 256.
    Q6K,
    /// 4 bits in groups; w = scale * (q - zero).
    Grouped4,
    /// 8 bits in groups; w = scale * (q - zero).
    Grouped8,
}

impl Packing {
    /// The packing of a stored format; `None` if it is not one of blocks.
    pub const fn of(dtype: DType) -> Option<Self> {
        Some(match dtype {
            DType::Q4_0 => Self::Q4Symmetric,
            DType::Q4_1 => Self::Q4Minimum,
            DType::Q5_0 => Self::Q5Symmetric,
            DType::Q5_1 => Self::Q5Minimum,
            DType::Q8_0 => Self::Q8,
            DType::Q4K => Self::Q4K,
            DType::Q5K => Self::Q5K,
            DType::Q6K => Self::Q6K,
            _ => return None,
        })
    }

    /// Bytes of the integers of one block of 32.
    pub const fn quant_bytes(self) -> usize {
        match self {
            Self::Q4Symmetric | Self::Q4Minimum | Self::Q4K | Self::Grouped4 => BLOCK / 2,
            Self::Q5Symmetric | Self::Q5Minimum | Self::Q5K => BLOCK / 2 + BLOCK / 8,
            Self::Q6K => BLOCK / 2 + BLOCK / 4,
            Self::Q8 | Self::Grouped8 => BLOCK,
        }
    }

    /// Bytes of a panel's head before the integers of each group.
    pub(super) const fn head_bytes(self) -> usize {
        match self {
            Self::Q4Symmetric | Self::Q5Symmetric | Self::Q8 => 2 * PANEL,
            Self::Q4Minimum | Self::Q5Minimum => 4 * PANEL,
            Self::Q4K | Self::Q5K => (4 + 16) * PANEL,
            Self::Q6K => (2 + 16) * PANEL,
            Self::Grouped4 | Self::Grouped8 => 6 * PANEL,
        }
    }
}

/// Weights of shape `[out, in]` in blocks of 32 along `in`; see [`super::format`] for the layout.
#[derive(Debug)]
pub struct PackedMatrix {
    packing: Packing,
    out_features: usize,
    in_features: usize,
    /// Blocks that share a head.
    group_blocks: usize,
    panel_bytes: usize,
    /// The first panel is at `start`; rows beyond the last are zero.
    bytes: Vec<u8>,
    start: usize,
    /// The input that is multiplied with column `i`; `None` if that is input `i`.
    permutation: Option<Vec<u32>>,
}

/// One row, its blocks in order: w = scale * q + minimum.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedRow {
    /// One byte an integer; signed ones are lifted to be so, their minima lowered.
    pub quants: Vec<u8>,
    /// One for each 16 integers.
    pub scales: Vec<f32>,
    /// One for each 16 integers.
    pub minima: Vec<f32>,
}

impl PackedMatrix {
    /// Repacks a stored matrix; row `i` of the result is row `source_row(i)` of the file.
    ///
    /// # Errors
    /// `WeightsError::UnsupportedDType` if the tensor is not a matrix of blocks.
    pub fn from_view(
        view: &TensorView<'_>,
        source_row: impl Fn(usize) -> usize + Sync,
    ) -> Result<Self, WeightsError> {
        let Some(packing) = Packing::of(view.dtype) else {
            return Err(view.unsupported(view.dtype.name()));
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
    /// `BadPacking` if `blocks` has another length than the shape asks for, rows do not hold whole
    /// blocks, or GGUF has no such packing.
    pub fn from_blocks(
        packing: Packing,
        out_features: usize,
        in_features: usize,
        blocks: &[u8],
        source_row: impl Fn(usize) -> usize + Sync,
    ) -> Result<Self, NnError> {
        let found_bytes = blocks.len();
        let bad = NnError::BadPacking { found_bytes, out_features, in_features };
        let Some(stored) = Stored::of(packing) else { return Err(bad) };
        let row_bytes = in_features / stored.weights * stored.bytes;
        let fills = row_bytes.checked_mul(out_features) == Some(blocks.len());
        if !in_features.is_multiple_of(stored.weights) || !fills || row_bytes == 0 {
            return Err(bad);
        }
        let mut matrix = Self::empty(packing, out_features, in_features, stored.weights / BLOCK);
        matrix.fill(|row, lane, panel, layout| {
            let from = &blocks[source_row(row) * row_bytes..][..row_bytes];
            for (group, from) in from.chunks_exact(stored.bytes).enumerate() {
                let (head, quants) = layout.group(panel, group);
                source::write_group(packing, from, lane, head, quants);
            }
        });
        Ok(matrix)
    }

    /// Repacks a GPTQ matrix. `None` if its groups are not whole blocks of 32: then it can only be
    /// unpacked.
    pub fn from_gptq(gptq: &GptqMatrix) -> Option<Self> {
        let (out, features) = (gptq.out_features, gptq.in_features);
        if !gptq.group_size.is_multiple_of(BLOCK) || !features.is_multiple_of(BLOCK) || out == 0 {
            return None;
        }
        let packing = if gptq.bits == 8 { Packing::Grouped8 } else { Packing::Grouped4 };
        let mut matrix = Self::empty(packing, out, features, gptq.group_size / BLOCK);
        matrix.permutation.clone_from(&gptq.permutation);
        let per_byte = 8 / gptq.bits as usize;
        let row_bytes = features / per_byte;
        matrix.fill(|row, lane, panel, layout| {
            let from = &gptq.quants[row * row_bytes..][..row_bytes];
            let group_bytes = gptq.group_size / per_byte;
            for (group, from) in from.chunks(group_bytes).enumerate() {
                let (head, quants) = layout.group(panel, group);
                let at = row * gptq.groups() + group;
                head[4 * lane..][..4].copy_from_slice(&gptq.scales[at].to_le_bytes());
                head[4 * PANEL + lane] = gptq.zeros[at];
                source::write_plain(gptq.bits, from, lane, quants);
            }
        });
        Some(matrix)
    }

    /// Memory that a matrix of these dimensions takes, known before it is read; without the
    /// permutation of a matrix of GPTQ. `group` inputs share a scale where the packing does not say.
    pub fn planned_bytes(packing: Packing, out: usize, features: usize, group: usize) -> usize {
        let group = Stored::of(packing).map_or(group, |stored| stored.weights);
        let panel_bytes = panel_bytes(packing, features, (group / BLOCK).max(1));
        out.div_ceil(PANEL) * panel_bytes + ALIGNMENT
    }

    fn empty(packing: Packing, out: usize, features: usize, group_blocks: usize) -> Self {
        let panel_bytes = panel_bytes(packing, features, group_blocks);
        let bytes = vec![0; out.div_ceil(PANEL) * panel_bytes + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self {
            packing,
            out_features: out,
            in_features: features,
            group_blocks,
            panel_bytes,
            bytes,
            start,
            permutation: None,
        }
    }

    /// Calls `write(row, lane, panel, layout)` for each row of each panel.
    fn fill(&mut self, write: impl Fn(usize, usize, &mut [u8], Layout) + Sync) {
        let (out, layout, start) = (self.out_features, self.layout(), self.start);
        let panels = self.bytes[start..].par_chunks_exact_mut(self.panel_bytes).enumerate();
        panels.for_each(|(index, panel)| {
            for row in index * PANEL..out.min((index + 1) * PANEL) {
                write(row, row % PANEL, panel, layout);
            }
        });
    }

    fn layout(&self) -> Layout {
        Layout {
            head_bytes: self.packing.head_bytes(),
            quant_bytes: self.packing.quant_bytes() * PANEL,
            group_blocks: self.group_blocks,
        }
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
        self.bytes.len() + self.permutation.as_ref().map_or(0, |p| p.len() * size_of::<u32>())
    }

    /// Columns that share a head: all numbers that say what their integers mean.
    pub fn group(&self) -> usize {
        self.group_blocks * BLOCK
    }

    /// Blocks of 32 that share a head.
    pub(super) fn group_blocks(&self) -> usize {
        self.group_blocks
    }

    /// The input of each column; `None` if they are in order.
    pub fn permutation(&self) -> Option<&[u32]> {
        self.permutation.as_deref()
    }

    /// A run of panels, and the bytes of one.
    pub(super) fn panels(&self, panels: Range<usize>) -> (&[u8], usize) {
        let range = panels.start * self.panel_bytes..panels.end * self.panel_bytes;
        (&self.bytes[self.start..][range], self.panel_bytes)
    }

    /// Row `row` with one integer a byte, columns as they are stored (see
    /// [`PackedMatrix::permutation`]): for other devices to repack.
    pub fn row(&self, row: usize) -> PackedRow {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let (panel, _) = self.panels(panel..panel + 1);
        let layout = self.layout();
        let parts = self.in_features / 16;
        let mut out = PackedRow {
            quants: Vec::with_capacity(self.in_features),
            scales: Vec::with_capacity(parts),
            minima: Vec::with_capacity(parts),
        };
        for block in 0..self.in_features / BLOCK {
            let start = layout.group_start(block / self.group_blocks);
            let (head, quants) = panel[start..].split_at(layout.head_bytes);
            let index = block % self.group_blocks;
            let quants = &quants[index * layout.quant_bytes..][..layout.quant_bytes];
            source::read_block(self.packing, quants, lane, &mut out.quants);
            for half in 0..2 {
                let (scale, minimum) = source::read_scale(self.packing, head, lane, index, half);
                out.scales.push(scale);
                out.minima.push(minimum);
            }
        }
        out
    }

    /// Unpacks row `row` and appends its weights to `out`, in the order of the inputs.
    pub fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let row = self.row(row);
        let weights =
            row.quants.iter().enumerate().map(|(column, &q)| {
                row.scales[column / 16] * f32::from(q) + row.minima[column / 16]
            });
        match &self.permutation {
            None => out.extend(weights),
            Some(permutation) => {
                let start = out.len();
                out.resize(start + self.in_features, 0.0);
                for (weight, &input) in weights.zip(permutation) {
                    out[start + input as usize] = weight;
                }
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

/// Bytes of 16 rows whose blocks share a head in groups of so many.
fn panel_bytes(packing: Packing, features: usize, group_blocks: usize) -> usize {
    let blocks = features / BLOCK;
    blocks.div_ceil(group_blocks) * packing.head_bytes() + blocks * packing.quant_bytes() * PANEL
}

/// Where the groups of a panel lie.
#[derive(Debug, Clone, Copy)]
struct Layout {
    head_bytes: usize,
    /// Of one block of the panel.
    quant_bytes: usize,
    group_blocks: usize,
}

impl Layout {
    fn group_start(self, group: usize) -> usize {
        group * (self.head_bytes + self.group_blocks * self.quant_bytes)
    }

    /// Head and integers of a group; the last one of a panel may have fewer blocks.
    fn group(self, panel: &mut [u8], group: usize) -> (&mut [u8], &mut [u8]) {
        let (head, rest) = panel[self.group_start(group)..].split_at_mut(self.head_bytes);
        let end = rest.len().min(self.group_blocks * self.quant_bytes);
        (head, &mut rest[..end])
    }
}

/// An IEEE half at `bytes[at]`.
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
