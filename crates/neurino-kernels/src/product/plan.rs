//! How a product is cut into tiles, and what multiplies them.

use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use crate::format::{Format, UNIT};
use crate::gpu::Gpu;

/// Columns that a warp multiplies together: a unit for each of the four lanes of a row.
pub const WINDOW: usize = 32;
/// Units of a window.
pub(super) const QUAD: usize = WINDOW / UNIT;
/// Rows of the matrix in an instruction.
pub(super) const TILE_OUTS: usize = 16;
/// Rows of `x` in an instruction.
pub(super) const TILE_ROWS: usize = 8;
/// Sums that a lane has of an instruction.
pub(super) const SUMS: usize = 4;
/// A part is a multiple of so many windows, so that loads can be in flight together.
pub(super) const PART_WINDOWS: usize = 4;
/// Up to so many rows, `few` serves.
pub(super) const FEW_ROWS: usize = 64;
/// Up to so many rows, `few` narrows its rows itself instead of in a launch of its own.
pub(super) const WIDE_ROWS: usize = 16;
/// The largest number in f16.
pub(super) const F16_MOST: f32 = 65_504.0;

/// How the matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    F16,
    Bf16,
    Packed(Format),
}

impl Stored {
    /// 32-bit words of a unit.
    pub(super) const fn unit_words(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => UNIT / 2,
            Self::Packed(format) => format.unit_words(),
        }
    }

    /// Which columns of a unit lie in word `word` of its pairs.
    pub(super) const fn pair(self, word: usize) -> [usize; 2] {
        match self {
            Self::F16 | Self::Bf16 => [2 * word, 2 * word + 1],
            Self::Packed(format) if format.bits() == 4 => [word, word + 4],
            Self::Packed(_) => {
                let first = word / 2 * 4 + word % 2;
                [first, first + 2]
            }
        }
    }

    pub(super) const fn is_packed(self) -> bool {
        matches!(self, Self::Packed(_))
    }

    pub(super) const fn adds_offsets(self) -> bool {
        matches!(self, Self::Packed(format) if format.adds_offsets())
    }

    pub(super) const fn subtracts_zeros(self) -> bool {
        matches!(self, Self::Packed(format) if format.subtracts_zeros())
    }
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// Tensor cores with instructions over so many columns: 16, or 8.
    TensorCores(usize),
    /// Plain products, for tests.
    Imitation,
}

impl Unit {
    /// What a device has for `matrix`. `None` if nothing multiplies its weights.
    pub(super) fn of(gpu: &Gpu, stored: Stored) -> Option<Self> {
        if gpu.cut.lanes != 32 {
            return Some(Self::Imitation);
        }
        let kind = match stored {
            Stored::Bf16 => FloatKind::BF16,
            Stored::F16 | Stored::Packed(_) => FloatKind::F16,
        };
        let known = &gpu.client.properties().features.matmul.mma;
        let has = |depth: usize| {
            known.contains(&MmaConfig {
                a_type: ElemType::Float(kind),
                b_type: ElemType::Float(kind),
                cd_type: ElemType::Float(FloatKind::F32),
                m: TILE_OUTS as u32,
                n: TILE_ROWS as u32,
                k: depth as u32,
            })
        };
        [16, 8].into_iter().find(|depth| has(*depth)).map(Self::TensorCores)
    }
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// Rows of the matrix.
    pub(super) out: usize,
    /// Columns of it.
    pub(super) inner: usize,
    /// Weights with one scale; unused for dense matrices.
    pub(super) group: usize,
    pub(super) stored: Stored,
    pub(super) unit: Unit,
    /// Parts of a row, whose sums are added in the end.
    pub(super) split: usize,
    /// Instructions' tiles that a warp has of the matrix.
    pub(super) out_tiles: usize,
    /// And of `x`.
    pub(super) row_tiles: usize,
    /// `few`: windows whose loads are in flight together.
    pub(super) ahead: usize,
    /// `few`: whether `x` is narrowed by the kernel.
    pub(super) wide: bool,
    /// `many`: warps of a cube side by side over the matrix, and over `x`.
    pub(super) warps: [usize; 2],
    /// Which rows are multiplied.
    pub(super) taken: Taken,
}

/// Which rows of `x` are multiplied, and which of `y` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Taken {
    All,
    /// Those of a list of pairs of a row and an expert: see [`crate::experts`]. `x` has a row for each
    /// so many pairs.
    Listed(usize),
}

impl Plan {
    pub(super) fn is_listed(&self) -> bool {
        self.taken != Taken::All
    }

    pub(super) fn windows(&self) -> usize {
        self.inner / WINDOW
    }

    /// Windows of a part; of the last one, fewer.
    pub(super) fn part_windows(&self) -> usize {
        self.windows().div_ceil(self.split).next_multiple_of(PART_WINDOWS)
    }

    pub(super) fn units(&self) -> usize {
        self.inner / UNIT
    }

    pub(super) fn groups(&self) -> usize {
        self.inner / self.group
    }

    /// `few`: rows of the matrix that a cube takes.
    pub(super) fn few_outs(&self) -> usize {
        self.out_tiles * TILE_OUTS
    }

    /// `few`: rows of `x` that a cube takes.
    pub(super) fn few_rows(&self) -> usize {
        self.row_tiles * TILE_ROWS
    }

    /// `many`: rows of the matrix that a cube takes.
    pub(super) fn many_outs(&self) -> usize {
        self.warps[0] * self.few_outs()
    }

    /// `many`: rows of `x` that a cube takes.
    pub(super) fn many_rows(&self) -> usize {
        self.warps[1] * self.few_rows()
    }

    /// `many`: units of a cube.
    pub(super) fn many_units(&self) -> usize {
        32 / self.played() * self.warps[0] * self.warps[1]
    }

    /// Lanes of a warp that one unit plays.
    pub(super) fn played(&self) -> usize {
        if self.unrolls() { 1 } else { 32 }
    }

    /// Whether loops become straight code.
    pub(super) fn unrolls(&self) -> bool {
        self.unit != Unit::Imitation
    }

    /// Units of a cube of so many warps.
    pub(super) fn dim(&self, warps: usize) -> CubeDim {
        CubeDim::new_2d((32 / self.played()) as u32, warps as u32)
    }
}

/// Parts of a row of a matrix with so many rows: enough warps for a large card when few rows of `x`
/// are multiplied, and no more than there are windows for.
pub(super) fn split_of(out: usize, inner: usize) -> usize {
    let wanted = (2048 / out.div_ceil(TILE_OUTS)).max(1).next_power_of_two();
    let parts = (inner / WINDOW).div_ceil(PART_WINDOWS).max(1);
    wanted.min(8).min(1 << parts.ilog2())
}

/// The plan for a matrix `[out, inner, group]` and so many rows. Of it, only tiles depend on the rows.
pub(super) fn plan(
    [out, inner, group]: [usize; 3],
    stored: Stored,
    unit: Unit,
    rows: usize,
) -> Plan {
    let (out_tiles, row_tiles, warps) = match rows {
        0..=8 => (1, 1, [1, 1]),
        9..=WIDE_ROWS => (1, 2, [1, 1]),
        17..=32 => (2, 4, [1, 1]),
        33..=FEW_ROWS => (2, 8, [1, 1]),
        65..=256 => (2, 2, [2, 4]),
        257..=512 => (2, 4, [4, 2]),
        _ => (4, 4, [2, 4]),
    };
    // Barriers of the imitation are busy threads.
    let warps = if unit == Unit::Imitation { warps.map(|warps| warps.min(2)) } else { warps };
    Plan {
        out,
        inner,
        group,
        stored,
        unit,
        split: split_of(out, inner),
        out_tiles,
        row_tiles,
        ahead: if out_tiles > 1 { 2 } else { 4 },
        wide: rows <= WIDE_ROWS,
        warps,
        taken: Taken::All,
    }
}
