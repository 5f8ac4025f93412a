//! Any number of rows times a large matrix on tensor cores, `y = x Wᵀ`, each row with the same bits
//! however many there are.
//!
//! A tensor core multiplies 16 rows of the matrix with 8 rows of `x` over 16 columns (8 on Turing),
//! in f16 or bf16, and adds in f32. What it makes of one pair of rows depends on those alone, so the
//! bits of a product are those of the order in which its columns are taken. That order is:
//! a row of the matrix is cut into [`Plan::split`] parts; a part is walked in windows of 32 columns,
//! one after the other; the sums of the parts are added in their order. It depends on the matrix alone.
//!
//! Two kernels walk it. `few` serves up to 64 rows, as in decoding: bound by memory, a warp takes 16 or
//! 32 rows of the matrix and reads them straight into its registers; the warps of a cube take one
//! part each. `many` serves prompts: a cube takes a tile of the matrix and one of `x` through shared
//! memory, and every warp walks all parts.
//!
//! Which of an instruction's columns is which of the matrix does not matter, as long as `x` is taken
//! alike. So the four lanes that share a row take neighbouring units of eight weights, with one wide
//! load each, and integers are unpacked in the order in which they come out of a word fastest.
//!
//! Packed weights are multiplied as the whole numbers they are, exact in f16; the sum of a window is
//! then multiplied with the scale of its group, in f32.
//!
//! Without tensor cores (in tests on a CPU) the same walks are made with plain products.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "what clippy takes for four bytes are registers"
)]

use cubecl::cmma;
use cubecl::ir::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use half::{bf16, f16};

use crate::buffer::Buffer;
use crate::format::{Format, UNIT};
use crate::gpu::{Gpu, Unsupported};
use crate::matvec::{Matrix, Weights};

/// Columns that a warp multiplies together: a unit for each of the four lanes of a row.
pub const WINDOW: usize = 32;
/// Units of a window.
const QUAD: usize = WINDOW / UNIT;
/// Rows of the matrix in an instruction.
const TILE_OUTS: usize = 16;
/// Rows of `x` in an instruction.
const TILE_ROWS: usize = 8;
/// Sums that a lane has of an instruction.
const SUMS: usize = 4;
/// A part is a multiple of so many windows, so that loads can be in flight together.
const PART_WINDOWS: usize = 4;
/// Up to so many rows, `few` serves.
const FEW_ROWS: usize = 64;
/// Up to so many rows, `few` narrows its rows itself instead of in a launch of its own.
const WIDE_ROWS: usize = 16;
/// The largest number in f16.
const F16_MOST: f32 = 65_504.0;

/// How the matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stored {
    F16,
    Bf16,
    Packed(Format),
}

impl Stored {
    /// 32-bit words of a unit.
    const fn unit_words(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => UNIT / 2,
            Self::Packed(format) => format.unit_words(),
        }
    }

    /// Which columns of a unit lie in word `word` of its pairs.
    const fn pair(self, word: usize) -> [usize; 2] {
        match self {
            Self::F16 | Self::Bf16 => [2 * word, 2 * word + 1],
            Self::Packed(format) if format.bits() == 4 => [word, word + 4],
            Self::Packed(_) => {
                let first = word / 2 * 4 + word % 2;
                [first, first + 2]
            }
        }
    }

    const fn is_packed(self) -> bool {
        matches!(self, Self::Packed(_))
    }

    const fn adds_offsets(self) -> bool {
        matches!(self, Self::Packed(format) if format.adds_offsets())
    }

    const fn subtracts_zeros(self) -> bool {
        matches!(self, Self::Packed(format) if format.subtracts_zeros())
    }
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Tensor cores with instructions over so many columns: 16, or 8.
    TensorCores(usize),
    /// Plain products, for tests.
    Imitation,
}

impl Unit {
    /// What a device has for `matrix`. `None` if nothing multiplies its weights.
    fn of(gpu: &Gpu, stored: Stored) -> Option<Self> {
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
struct Plan {
    /// Rows of the matrix.
    out: usize,
    /// Columns of it.
    inner: usize,
    /// Weights with one scale; unused for dense matrices.
    group: usize,
    stored: Stored,
    unit: Unit,
    /// Parts of a row, whose sums are added in the end.
    split: usize,
    /// Instructions' tiles that a warp has of the matrix.
    out_tiles: usize,
    /// And of `x`.
    row_tiles: usize,
    /// `few`: windows whose loads are in flight together.
    ahead: usize,
    /// `few`: whether `x` is narrowed by the kernel.
    wide: bool,
    /// `many`: warps of a cube side by side over the matrix, and over `x`.
    warps: [usize; 2],
    /// Which rows are multiplied.
    taken: Taken,
}

/// Which rows of `x` are multiplied, and which of `y` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Taken {
    All,
    /// Those of a list of pairs of a row and an expert: see [`crate::experts`]. `x` has a row for each
    /// so many pairs.
    Listed(usize),
}

impl Plan {
    fn is_listed(&self) -> bool {
        self.taken != Taken::All
    }

    fn windows(&self) -> usize {
        self.inner / WINDOW
    }

    /// Windows of a part; of the last one, fewer.
    fn part_windows(&self) -> usize {
        self.windows().div_ceil(self.split).next_multiple_of(PART_WINDOWS)
    }

    fn units(&self) -> usize {
        self.inner / UNIT
    }

    fn groups(&self) -> usize {
        self.inner / self.group
    }

    /// `few`: rows of the matrix that a cube takes.
    fn few_outs(&self) -> usize {
        self.out_tiles * TILE_OUTS
    }

    /// `few`: rows of `x` that a cube takes.
    fn few_rows(&self) -> usize {
        self.row_tiles * TILE_ROWS
    }

    /// `many`: rows of the matrix that a cube takes.
    fn many_outs(&self) -> usize {
        self.warps[0] * self.few_outs()
    }

    /// `many`: rows of `x` that a cube takes.
    fn many_rows(&self) -> usize {
        self.warps[1] * self.few_rows()
    }

    /// `many`: units of a cube.
    fn many_units(&self) -> usize {
        32 / self.played() * self.warps[0] * self.warps[1]
    }

    /// Lanes of a warp that one unit plays.
    fn played(&self) -> usize {
        if self.unrolls() { 1 } else { 32 }
    }

    /// Whether loops become straight code.
    fn unrolls(&self) -> bool {
        self.unit != Unit::Imitation
    }

    /// Units of a cube of so many warps.
    fn dim(&self, warps: usize) -> CubeDim {
        CubeDim::new_2d((32 / self.played()) as u32, warps as u32)
    }
}

/// Parts of a row of a matrix with so many rows: enough warps for a large card when few rows of `x`
/// are multiplied, and no more than there are windows for.
fn split_of(out: usize, inner: usize) -> usize {
    let wanted = (2048 / out.div_ceil(TILE_OUTS)).max(1).next_power_of_two();
    let parts = (inner / WINDOW).div_ceil(PART_WINDOWS).max(1);
    wanted.min(8).min(1 << parts.ilog2())
}

/// `x` as the tensor core takes it: f16 between its largest numbers, or bf16.
#[cube]
fn narrow<E: Float>(value: f32, #[comptime] stored: Stored) -> E {
    if comptime!(matches!(stored, Stored::Bf16)) {
        E::cast_from(value)
    } else {
        let most = f32::new(F16_MOST);
        let bounded = select(value > most, most, value);
        E::cast_from(select(bounded < -most, -most, bounded))
    }
}

/// A unit of `x` as four words of pairs.
#[cube]
fn narrowed<E: Float>(
    low: Vector<u32, Const<4>>,
    high: Vector<u32, Const<4>>,
    #[comptime] stored: Stored,
) -> Vector<u32, Const<4>> {
    let mut values = Array::<f32>::new(UNIT);
    #[unroll]
    for i in 0..4usize {
        values[i] = f32::reinterpret(low.extract(i));
        values[i + 4] = f32::reinterpret(high.extract(i));
    }
    let mut words = Vector::<u32, Const<4>>::empty();
    #[unroll]
    for i in 0..4usize {
        let mut pair = Vector::<E, Const<2>>::empty();
        pair.insert(0usize, narrow::<E>(values[comptime!(stored.pair(i)[0])], stored));
        pair.insert(1usize, narrow::<E>(values[comptime!(stored.pair(i)[1])], stored));
        words.insert(i, u32::reinterpret(pair));
    }
    words
}

/// A unit of the matrix as four words of pairs; of packed weights the whole numbers.
///
/// A number in f16 from 1024 on has its integer in its low bits: one `or` and one subtraction widen
/// two integers.
#[cube]
fn unpacked<W: Size>(
    words: Vector<u32, W>,
    zero: f32,
    #[comptime] stored: Stored,
) -> Vector<u32, Const<4>> {
    let mut pairs = Vector::<u32, Const<4>>::empty();
    if comptime!(!stored.is_packed()) {
        #[unroll]
        for i in 0..4usize {
            pairs.insert(i, words.extract(i));
        }
    } else {
        let four_bits = comptime!(stored.unit_words() == 1);
        let middle = comptime!(match stored {
            Stored::Packed(Format::Q4) => 1032.0f32,
            Stored::Packed(format) if format.bits() == 8 => 1152.0,
            _ => 1024.0,
        });
        // Whole numbers up to 2048 are exact.
        let bias = Vector::<f16, Const<2>>::new(f16::cast_from(f32::new(middle) + zero));
        #[unroll]
        for i in 0..4usize {
            let bits = if comptime!(four_bits) {
                (words.extract(0usize) >> (4u32 * i as u32)) & 0x000F_000Fu32
            } else {
                let word = words.extract(comptime!(i / 2)) ^ 0x8080_8080u32;
                (word >> (8u32 * comptime!(i as u32 % 2))) & 0x00FF_00FFu32
            };
            let pair = Vector::<f16, Const<2>>::reinterpret(bits | 0x6400_6400u32) - bias;
            pairs.insert(i, u32::reinterpret(pair));
        }
    }
    pairs
}

/// The sum of the products of two units, for the imitation.
#[cube]
fn unit_product<E: Float>(a: Vector<u32, Const<4>>, b: Vector<u32, Const<4>>) -> f32 {
    let mut sum = f32::new(0.0f32);
    #[unroll]
    for i in 0..4usize {
        let a = Vector::<E, Const<2>>::reinterpret(a.extract(i));
        let b = Vector::<E, Const<2>>::reinterpret(b.extract(i));
        sum = fma(f32::cast_from(a.extract(0usize)), f32::cast_from(b.extract(0usize)), sum);
        sum = fma(f32::cast_from(a.extract(1usize)), f32::cast_from(b.extract(1usize)), sum);
    }
    sum
}

/// Adds a window's products to four sums of a lane, on the tensor cores: `low` and `high` are this
/// lane's units of rows 8 apart, `b` that of `x`.
#[cube]
fn multiply_add<E: Float>(
    low: Vector<u32, Const<4>>,
    high: Vector<u32, Const<4>>,
    b: Vector<u32, Const<4>>,
    sums: &mut Array<f32>,
    at: usize,
    #[comptime] depth: usize,
) {
    let instruction = cmma::MmaDefinition::<E, E, f32>::new(TILE_OUTS, TILE_ROWS, depth);
    let mut c = Array::<Vector<f32, Const<2>>>::new(2usize);
    #[unroll]
    for i in 0..2usize {
        let mut pair = Vector::<f32, Const<2>>::empty();
        pair.insert(0usize, sums[at + 2 * i]);
        pair.insert(1usize, sums[at + 2 * i + 1]);
        c[i] = pair;
    }
    if comptime!(depth == 16) {
        #[unroll]
        for i in 0..2usize {
            let mut rows = Array::<Vector<E, Const<2>>>::new(4usize);
            rows[0] = Vector::<E, Const<2>>::reinterpret(low.extract(comptime!(2 * i)));
            rows[1] = Vector::<E, Const<2>>::reinterpret(high.extract(comptime!(2 * i)));
            rows[2] = Vector::<E, Const<2>>::reinterpret(low.extract(comptime!(2 * i + 1)));
            rows[3] = Vector::<E, Const<2>>::reinterpret(high.extract(comptime!(2 * i + 1)));
            let mut columns = Array::<Vector<E, Const<2>>>::new(2usize);
            columns[0] = Vector::<E, Const<2>>::reinterpret(b.extract(comptime!(2 * i)));
            columns[1] = Vector::<E, Const<2>>::reinterpret(b.extract(comptime!(2 * i + 1)));
            instruction.execute_inplace(&rows, &columns, &mut c);
        }
    } else {
        #[unroll]
        for i in 0..4usize {
            let mut rows = Array::<Vector<E, Const<2>>>::new(2usize);
            rows[0] = Vector::<E, Const<2>>::reinterpret(low.extract(i));
            rows[1] = Vector::<E, Const<2>>::reinterpret(high.extract(i));
            let mut columns = Array::<Vector<E, Const<2>>>::new(1usize);
            columns[0] = Vector::<E, Const<2>>::reinterpret(b.extract(i));
            instruction.execute_inplace(&rows, &columns, &mut c);
        }
    }
    #[unroll]
    for i in 0..2usize {
        sums[at + 2 * i] = c[i].extract(0usize);
        sums[at + 2 * i + 1] = c[i].extract(1usize);
    }
}

/// Two ones in f16.
const ONES: u32 = 0x3C00_3C00;

/// The window's products of all tiles of a warp, added to its sums.
///
/// - `a`: this lane's units of the matrix, two a tile; `b`: those of `x`, one a tile
/// - `scales`, `offsets`: of the rows of `a`
#[cube]
fn multiply_window<E: Float>(
    a: &Array<Vector<u32, Const<4>>>,
    b: &Array<Vector<u32, Const<4>>>,
    scales: &Array<f32>,
    offsets: &Array<f32>,
    sums: &mut Array<f32>,
    #[comptime] plan: Plan,
    #[comptime] depth: usize,
) {
    #[unroll]
    for n in 0..plan.row_tiles {
        if comptime!(plan.stored.is_packed()) {
            let mut totals = Array::<f32>::new(SUMS);
            if comptime!(plan.stored.adds_offsets()) {
                #[unroll]
                for i in 0..SUMS {
                    totals[i] = f32::new(0.0f32);
                }
                let ones = Vector::<u32, Const<4>>::new(ONES);
                multiply_add::<E>(ones, ones, b[n], &mut totals, 0usize, depth);
            }
            #[unroll]
            for m in 0..plan.out_tiles {
                let mut products = Array::<f32>::new(SUMS);
                #[unroll]
                for i in 0..SUMS {
                    products[i] = f32::new(0.0f32);
                }
                multiply_add::<E>(a[2 * m], a[2 * m + 1], b[n], &mut products, 0usize, depth);
                scale(&products, &totals, scales, offsets, sums, m, n, plan);
            }
        } else {
            #[unroll]
            for m in 0..plan.out_tiles {
                let at = (m * plan.row_tiles + n) * SUMS;
                multiply_add::<E>(a[2 * m], a[2 * m + 1], b[n], sums, at, depth);
            }
        }
    }
}

/// Adds the whole-number products of a window to the sums of tile `m`, `n`.
#[cube]
fn scale(
    products: &Array<f32>,
    totals: &Array<f32>,
    scales: &Array<f32>,
    offsets: &Array<f32>,
    sums: &mut Array<f32>,
    m: usize,
    n: usize,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..SUMS {
        let at = (m * plan.row_tiles + n) * SUMS + i;
        let row = m * 2 + i / 2;
        sums[at] = fma(scales[row], products[i], sums[at]);
        if comptime!(plan.stored.adds_offsets()) {
            sums[at] = fma(offsets[row], totals[i], sums[at]);
        }
    }
}

/// How many rows there are for this launch.
#[cube]
fn rows_of_launch(rows: u32, lists: &[u32], list: u32, #[comptime] plan: Plan) -> usize {
    if comptime!(plan.is_listed()) { lists[list as usize] as usize } else { rows as usize }
}

/// The pair at place `row`, or that row. Places beyond the last repeat it and are not written.
#[cube]
fn taken_row(lists: &[u32], first: u32, row: usize, rows: usize, #[comptime] plan: Plan) -> usize {
    let row = usize::min(row, rows - 1);
    if comptime!(plan.is_listed()) { lists[first as usize + row] as usize } else { row }
}

/// The row of `x` that a pair is about.
#[cube]
fn x_row(taken: usize, #[comptime] plan: Plan) -> usize {
    if let Taken::Listed(pairs) = comptime!(plan.taken) { taken / pairs } else { taken }
}

/// A unit of a row of `x`, narrowed.
#[cube]
fn x_unit<E: Float>(
    x: &[Vector<u32, Const<4>>],
    row: usize,
    unit: usize,
    #[comptime] plan: Plan,
) -> Vector<u32, Const<4>> {
    let at = row * comptime!(plan.units()) + unit;
    if comptime!(plan.wide) { narrowed::<E>(x[2 * at], x[2 * at + 1], plan.stored) } else { x[at] }
}

/// A number of the group of a window of a row of the matrix.
#[cube]
fn group_value(values: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    let group = window * WINDOW / plan.group;
    f32::cast_from(values[row * comptime!(plan.groups()) + group])
}

/// What the whole numbers of a window are multiplied with.
#[cube]
fn scale_at(scales: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.is_packed()) {
        group_value(scales, row, window, plan)
    } else {
        f32::new(1.0f32)
    }
}

/// What is added to each weight of a window.
#[cube]
fn offset_at(offsets: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.adds_offsets()) {
        group_value(offsets, row, window, plan)
    } else {
        f32::new(0.0f32)
    }
}

/// What is subtracted from each whole number of a window.
#[cube]
fn zero_at(offsets: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.subtracts_zeros()) {
        group_value(offsets, row, window, plan)
    } else {
        f32::new(0.0f32)
    }
}

#[cube(launch_unchecked)]
fn few_kernel<E: Float, W: Size>(
    x: &[Vector<u32, Const<4>>],
    weights: &[Vector<u32, W>],
    scales: &[f16],
    offsets: &[f16],
    lists: &[u32],
    y: &mut [f32],
    rows: u32,
    windows: u32,
    list: u32,
    first: u32,
    #[comptime] plan: Plan,
) {
    let rows = rows_of_launch(rows, lists, list, plan);
    let part = UNIT_POS_Y as usize;
    let first_row = CUBE_POS_X as usize * comptime!(plan.few_rows());
    if first_row >= rows {
        terminate!();
    }
    let first_out = CUBE_POS_Y as usize * comptime!(plan.few_outs());
    let last_out = comptime!(plan.out - 1);
    let units = comptime!(plan.units());
    // Not known to the compiler, which would write all of them out.
    let windows = windows as usize;
    let begin = part * comptime!(plan.part_windows());
    let end = usize::min(begin + comptime!(plan.part_windows()), windows);
    let halves = comptime!(2 * plan.out_tiles);

    let count = comptime!(plan.out_tiles * plan.row_tiles * SUMS);
    let mut sums = Array::<f32>::new(comptime!(plan.played() * count));
    #[unroll(plan.unrolls())]
    for i in 0..comptime!(plan.played() * count) {
        sums[i] = f32::new(0.0f32);
    }
    if let Unit::TensorCores(depth) = comptime!(plan.unit) {
        let lane = UNIT_POS_X as usize;
        let (row, quad) = (lane / QUAD, lane % QUAD);
        let mut ahead = Array::<Vector<u32, W>>::new(comptime!(plan.ahead * 2 * plan.out_tiles));
        let mut a = Array::<Vector<u32, Const<4>>>::new(halves);
        let mut b = Array::<Vector<u32, Const<4>>>::new(plan.row_tiles);
        let mut scale_of = Array::<f32>::new(halves);
        let mut offset_of = Array::<f32>::new(halves);
        let mut x_rows = Array::<usize>::new(plan.row_tiles);
        #[unroll]
        for n in 0..plan.row_tiles {
            let at = first_row + n * TILE_ROWS + row;
            x_rows[n] = x_row(taken_row(lists, first, at, rows, plan), plan);
        }
        let mut next = begin;
        while next < end {
            #[unroll]
            for step in 0..plan.ahead {
                let window = usize::min(next + step, windows - 1);
                #[unroll]
                for h in 0..halves {
                    let out = usize::min(first_out + h * 8 + row, last_out);
                    ahead[step * halves + h] = weights[out * units + window * QUAD + quad];
                }
            }
            #[unroll]
            for step in 0..plan.ahead {
                let inside = next + step < end;
                let window = usize::min(next + step, windows - 1);
                #[unroll]
                for h in 0..halves {
                    let out = usize::min(first_out + h * 8 + row, last_out);
                    scale_of[h] = scale_at(scales, out, window, plan);
                    offset_of[h] = offset_at(offsets, out, window, plan);
                    let zero = zero_at(offsets, out, window, plan);
                    a[h] = unpacked::<W>(ahead[step * halves + h], zero, plan.stored);
                }
                #[unroll]
                for n in 0..plan.row_tiles {
                    let unit = x_unit::<E>(x, x_rows[n], window * QUAD + quad, plan);
                    // What is multiplied with zero changes no sum.
                    b[n] = if comptime!(plan.windows().is_multiple_of(plan.ahead)) {
                        unit
                    } else {
                        select(inside, unit, Vector::<u32, Const<4>>::new(0u32))
                    };
                }
                multiply_window::<E>(&a, &b, &scale_of, &offset_of, &mut sums, plan, depth);
            }
            next += plan.ahead;
        }
    } else {
        for window in begin..end {
            for lane in 0..32usize {
                imitate_few::<E, W>(
                    x, weights, scales, offsets, lists, &mut sums, first_row, first_out, rows,
                    first, window, lane, plan,
                );
            }
        }
    }

    // One tile of the matrix after the other, so that little memory does.
    let values = comptime!(plan.row_tiles * SUMS);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(plan.split * plan.row_tiles * SUMS * 32));
    let everyone = comptime!(plan.split * 32 / plan.played());
    let me = part * comptime!(32 / plan.played()) + UNIT_POS_X as usize;
    let turns = comptime!((plan.row_tiles * SUMS * 32).div_ceil(plan.split * 32 / plan.played()));
    #[unroll]
    for m in 0..plan.out_tiles {
        #[unroll(plan.unrolls())]
        for player in 0..comptime!(plan.played()) {
            let lane = UNIT_POS_X as usize + player;
            #[unroll]
            for i in 0..values {
                parts[(part * values + i) * 32 + lane] = sums[player * count + m * values + i];
            }
        }
        sync_cube();
        #[unroll(plan.unrolls())]
        for turn in 0..turns {
            let at = turn * everyone + me;
            if at < values * 32 {
                let mut total = f32::new(0.0f32);
                #[unroll]
                for k in 0..plan.split {
                    total += parts[k * values * 32 + at];
                }
                let (i, lane) = (at / 32, at % 32);
                let (n, i) = (i / SUMS, i % SUMS);
                let out = first_out + m * TILE_OUTS + i / 2 * 8 + lane / QUAD;
                let row = first_row + n * TILE_ROWS + lane % QUAD * 2 + i % 2;
                if out < comptime!(plan.out) && row < rows {
                    let row = taken_row(lists, first, row, rows, plan);
                    y[row * comptime!(plan.out) + out] = total;
                }
            }
        }
        // The memory is written again for the next tile.
        sync_cube();
    }
}

/// [`multiply_window`] of one lane with plain products, of what all lanes would load.
#[cube]
#[expect(clippy::too_many_arguments, reason = "the state of a kernel")]
fn imitate_few<E: Float, W: Size>(
    x: &[Vector<u32, Const<4>>],
    weights: &[Vector<u32, W>],
    scales: &[f16],
    offsets: &[f16],
    lists: &[u32],
    sums: &mut Array<f32>,
    first_row: usize,
    first_out: usize,
    rows: usize,
    first: u32,
    window: usize,
    lane: usize,
    #[comptime] plan: Plan,
) {
    let units = comptime!(plan.units());
    let base = lane * comptime!(plan.out_tiles * plan.row_tiles * SUMS);
    for n in 0..plan.row_tiles {
        for m in 0..plan.out_tiles {
            for i in 0..SUMS {
                let out = first_out + m * TILE_OUTS + i / 2 * 8 + lane / QUAD;
                let out = usize::min(out, comptime!(plan.out - 1));
                let row = first_row + n * TILE_ROWS + lane % QUAD * 2 + i % 2;
                let row = x_row(taken_row(lists, first, row, rows, plan), plan);
                let zero = zero_at(offsets, out, window, plan);
                let mut product = f32::new(0.0f32);
                let mut total = f32::new(0.0f32);
                for quad in 0..QUAD {
                    let unit = window * QUAD + quad;
                    let a = unpacked::<W>(weights[out * units + unit], zero, plan.stored);
                    let b = x_unit::<E>(x, row, unit, plan);
                    product += unit_product::<E>(a, b);
                    total += unit_product::<E>(Vector::<u32, Const<4>>::new(ONES), b);
                }
                let at = base + (m * plan.row_tiles + n) * SUMS + i;
                sums[at] = fma(scale_at(scales, out, window, plan), product, sums[at]);
                sums[at] = fma(offset_at(offsets, out, window, plan), total, sums[at]);
            }
        }
    }
}

#[cube(launch_unchecked)]
fn many_kernel<E: Float, W: Size>(
    x: &[Vector<u32, Const<4>>],
    weights: &[Vector<u32, W>],
    scales: &[f16],
    offsets: &[f16],
    lists: &[u32],
    y: &mut [f32],
    rows: u32,
    windows: u32,
    list: u32,
    first: u32,
    #[comptime] plan: Plan,
) {
    let rows = rows_of_launch(rows, lists, list, plan);
    let warp = UNIT_POS_Y as usize;
    let me = warp * comptime!(32 / plan.played()) + UNIT_POS_X as usize;
    let first_row = CUBE_POS_X as usize * comptime!(plan.many_rows());
    if first_row >= rows {
        terminate!();
    }
    let first_out = CUBE_POS_Y as usize * comptime!(plan.many_outs());
    let last_out = comptime!(plan.out - 1);
    let units = comptime!(plan.units());
    // Not known to the compiler, which would write all of them out.
    let windows = windows as usize;
    let everyone = comptime!(plan.many_units());
    let halves = comptime!(2 * plan.out_tiles);
    // Where this warp's tiles begin within the cube's.
    let own_out = warp % comptime!(plan.warps[0]) * comptime!(plan.few_outs());
    let own_row = warp / comptime!(plan.warps[0]) * comptime!(plan.few_rows());

    // Two windows each: one is multiplied while the other arrives.
    let outs_stage = comptime!(plan.many_outs() * QUAD);
    let rows_stage = comptime!(plan.many_rows() * QUAD);
    let mut outs_of =
        Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(2 * plan.many_outs() * QUAD));
    let mut rows_of =
        Shared::<[Vector<u32, Const<4>>]>::new_slice(comptime!(2 * plan.many_rows() * QUAD));
    let scaled = comptime!(if plan.stored.is_packed() { plan.many_outs() } else { 1 });
    let mut scales_of = Shared::<[f32]>::new_slice(comptime!(2 * scaled));
    let mut offsets_of = Shared::<[f32]>::new_slice(comptime!(2 * scaled));

    let count = comptime!(plan.out_tiles * plan.row_tiles * SUMS);
    let mut sums = Array::<f32>::new(comptime!(plan.played() * count));
    let mut totals = Array::<f32>::new(comptime!(plan.played() * count));
    #[unroll(plan.unrolls())]
    for i in 0..comptime!(plan.played() * count) {
        sums[i] = f32::new(0.0f32);
        totals[i] = f32::new(0.0f32);
    }
    let out_turns = comptime!((plan.many_outs() * QUAD).div_ceil(plan.many_units()));
    let row_turns = comptime!((plan.many_rows() * QUAD).div_ceil(plan.many_units()));
    let mut out_units = Array::<Vector<u32, W>>::new(out_turns);
    let mut row_units = Array::<Vector<u32, Const<4>>>::new(row_turns);
    let mut zeros = Array::<f32>::new(out_turns);

    let mut row_places = Array::<usize>::new(row_turns);
    #[unroll(plan.unrolls())]
    for i in 0..row_turns {
        let at = first_row + (i * everyone + me) / QUAD;
        row_places[i] = x_row(taken_row(lists, first, at, rows, plan), plan);
    }

    // In the first turn nothing has arrived that could be multiplied, in the last nothing comes.
    let turns = windows + 1;
    for turn in 0..turns {
        let coming = usize::min(turn, windows - 1);
        #[unroll(plan.unrolls())]
        for i in 0..out_turns {
            let at = i * everyone + me;
            let out = usize::min(first_out + at / QUAD, last_out);
            out_units[i] = weights[out * units + coming * QUAD + at % QUAD];
            zeros[i] = zero_at(offsets, out, coming, plan);
        }
        #[unroll(plan.unrolls())]
        for i in 0..row_turns {
            let at = i * everyone + me;
            let row = row_places[i];
            row_units[i] = x[row * units + coming * QUAD + at % QUAD];
        }

        if turn > 0 {
            let stage = (turn - 1) % 2;
            if let Unit::TensorCores(depth) = comptime!(plan.unit) {
                let lane = UNIT_POS_X as usize;
                let (row, quad) = (lane / QUAD, lane % QUAD);
                let mut a = Array::<Vector<u32, Const<4>>>::new(halves);
                let mut b = Array::<Vector<u32, Const<4>>>::new(plan.row_tiles);
                let mut scale_of = Array::<f32>::new(halves);
                let mut offset_of = Array::<f32>::new(halves);
                #[unroll]
                for h in 0..halves {
                    let at = own_out + h * 8 + row;
                    a[h] = outs_of[stage * outs_stage + at * QUAD + quad];
                    if comptime!(plan.stored.is_packed()) {
                        scale_of[h] = scales_of[stage * scaled + at];
                    }
                    if comptime!(plan.stored.adds_offsets()) {
                        offset_of[h] = offsets_of[stage * scaled + at];
                    }
                }
                #[unroll]
                for n in 0..plan.row_tiles {
                    let at = own_row + n * TILE_ROWS + row;
                    b[n] = rows_of[stage * rows_stage + at * QUAD + quad];
                }
                multiply_window::<E>(&a, &b, &scale_of, &offset_of, &mut sums, plan, depth);
            } else {
                for lane in 0..32usize {
                    imitate_many::<E>(
                        &outs_of,
                        &rows_of,
                        &scales_of,
                        &offsets_of,
                        &mut sums,
                        own_out,
                        own_row,
                        stage,
                        lane,
                        plan,
                    );
                }
            }
            if turn % comptime!(plan.part_windows()) == 0 || turn == windows {
                #[unroll(plan.unrolls())]
                for i in 0..comptime!(plan.played() * count) {
                    totals[i] += sums[i];
                    sums[i] = f32::new(0.0f32);
                }
            }
        }

        let stage = turn % 2;
        #[unroll(plan.unrolls())]
        for i in 0..out_turns {
            let at = i * everyone + me;
            if at < outs_stage {
                outs_of[stage * outs_stage + at] =
                    unpacked::<W>(out_units[i], zeros[i], plan.stored);
            }
        }
        #[unroll(plan.unrolls())]
        for i in 0..row_turns {
            let at = i * everyone + me;
            if at < rows_stage {
                rows_of[stage * rows_stage + at] = row_units[i];
            }
        }
        if comptime!(plan.stored.is_packed()) {
            #[unroll(plan.unrolls())]
            for i in 0..comptime!(plan.many_outs().div_ceil(plan.many_units())) {
                let at = i * everyone + me;
                if at < scaled {
                    let out = usize::min(first_out + at, last_out);
                    scales_of[stage * scaled + at] = scale_at(scales, out, coming, plan);
                    offsets_of[stage * scaled + at] = offset_at(offsets, out, coming, plan);
                }
            }
        }
        sync_cube();
    }

    #[unroll(plan.unrolls())]
    for player in 0..comptime!(plan.played()) {
        let lane = UNIT_POS_X as usize + player;
        #[unroll]
        for m in 0..plan.out_tiles {
            #[unroll]
            for n in 0..plan.row_tiles {
                #[unroll]
                for i in 0..SUMS {
                    let out = first_out + own_out + m * TILE_OUTS + i / 2 * 8 + lane / QUAD;
                    let row = first_row + own_row + n * TILE_ROWS + lane % QUAD * 2 + i % 2;
                    if out < comptime!(plan.out) && row < rows {
                        let row = taken_row(lists, first, row, rows, plan);
                        y[row * comptime!(plan.out) + out] =
                            totals[player * count + (m * plan.row_tiles + n) * SUMS + i];
                    }
                }
            }
        }
    }
}

/// [`multiply_window`] of one lane with plain products, of what lies in shared memory.
#[cube]
#[expect(clippy::too_many_arguments, reason = "the state of a kernel")]
fn imitate_many<E: Float>(
    outs_of: &Shared<[Vector<u32, Const<4>>]>,
    rows_of: &Shared<[Vector<u32, Const<4>>]>,
    scales_of: &Shared<[f32]>,
    offsets_of: &Shared<[f32]>,
    sums: &mut Array<f32>,
    own_out: usize,
    own_row: usize,
    stage: usize,
    lane: usize,
    #[comptime] plan: Plan,
) {
    let outs = stage * comptime!(plan.many_outs() * QUAD);
    let rows = stage * comptime!(plan.many_rows() * QUAD);
    let base = lane * comptime!(plan.out_tiles * plan.row_tiles * SUMS);
    for n in 0..plan.row_tiles {
        for m in 0..plan.out_tiles {
            for i in 0..SUMS {
                let out = own_out + m * TILE_OUTS + i / 2 * 8 + lane / QUAD;
                let row = own_row + n * TILE_ROWS + lane % QUAD * 2 + i % 2;
                let mut product = f32::new(0.0f32);
                let mut total = f32::new(0.0f32);
                for quad in 0..QUAD {
                    let b = rows_of[rows + row * QUAD + quad];
                    product += unit_product::<E>(outs_of[outs + out * QUAD + quad], b);
                    total += unit_product::<E>(Vector::<u32, Const<4>>::new(ONES), b);
                }
                let at = base + (m * plan.row_tiles + n) * SUMS + i;
                let mut scale = f32::new(1.0f32);
                let mut offset = f32::new(0.0f32);
                if comptime!(plan.stored.is_packed()) {
                    scale = scales_of[stage * comptime!(plan.many_outs()) + out];
                    offset = offsets_of[stage * comptime!(plan.many_outs()) + out];
                }
                sums[at] = fma(scale, product, sums[at]);
                sums[at] = fma(offset, total, sums[at]);
            }
        }
    }
}

#[cube(launch_unchecked)]
fn narrow_kernel<E: Float>(
    x: &[Vector<u32, Const<4>>],
    y: &mut [Vector<u32, Const<4>>],
    units: u32,
    #[comptime] stored: Stored,
) {
    let at = ABSOLUTE_POS;
    if at < units as usize {
        y[at] = narrowed::<E>(x[2 * at], x[2 * at + 1], stored);
    }
}

/// A matrix's buffers as the kernels take them, and how its weights lie there.
struct Parts<'a> {
    stored: Stored,
    group: usize,
    weights: &'a Buffer,
    scales: &'a Buffer,
    offsets: &'a Buffer,
}

/// # Errors
/// `Unsupported` for weights that no tensor core multiplies, or not in windows.
fn parts_of(matrix: &Matrix) -> Result<Parts<'_>, Unsupported> {
    if !matrix.inner().is_multiple_of(WINDOW) {
        return Err(Unsupported("rows that are not a multiple of 32 weights"));
    }
    let dense = |stored, weights| Parts {
        stored,
        group: WINDOW,
        weights,
        // Bound, never read.
        scales: weights,
        offsets: weights,
    };
    match matrix.weights() {
        Weights::F16(weights) => Ok(dense(Stored::F16, weights)),
        Weights::Bf16(weights) => Ok(dense(Stored::Bf16, weights)),
        Weights::F32(_) => Err(Unsupported("weights of 32 bits on tensor cores")),
        Weights::Packed { format, group, words, scales, offsets } => {
            if !group.is_multiple_of(WINDOW) {
                return Err(Unsupported("groups that are not a multiple of 32 weights"));
            }
            Ok(Parts {
                stored: Stored::Packed(*format),
                group: *group,
                weights: words,
                scales,
                offsets,
            })
        }
    }
}

/// Whether a device has tensor cores that multiply f16, or bf16, as [`multiply`] needs it.
pub fn has_tensor_cores(gpu: &Gpu, bf16: bool) -> bool {
    let stored = if bf16 { Stored::Bf16 } else { Stored::F16 };
    matches!(Unit::of(gpu, stored), Some(Unit::TensorCores(_)))
}

/// Whether [`multiply`] takes a matrix on this device.
///
/// # Errors
/// `Unsupported` with what stands in the way.
pub fn check(gpu: &Gpu, matrix: &Matrix) -> Result<(), Unsupported> {
    let parts = parts_of(matrix)?;
    match Unit::of(gpu, parts.stored) {
        Some(_) => Ok(()),
        None => Err(Unsupported("cards without such tensor cores")),
    }
}

/// Launches `y = x Wᵀ`, in one launch or, from 17 rows on, two.
///
/// # Shapes
/// - `x`: `[rows, inner]`, f32; `y`: `[rows, out]`, f32
///
/// # Errors
/// `Unsupported` as [`check`].
///
/// # Panics
/// If a buffer has another length than that.
pub fn multiply(
    gpu: &Gpu,
    matrix: &Matrix,
    x: &Buffer,
    y: &Buffer,
    rows: usize,
) -> Result<(), Unsupported> {
    assert_eq!(x.len(), rows * matrix.inner(), "activations of {rows} rows");
    assert_eq!(y.len(), rows * matrix.out(), "results of {rows} rows");
    let parts = parts_of(matrix)?;
    let unit = Unit::of(gpu, parts.stored).ok_or(Unsupported("cards without such tensor cores"))?;
    let shape = [matrix.out(), matrix.inner(), parts.group];
    let plan = plan(shape, parts.stored, unit, rows);
    // Bound, never read.
    let list = List { lists: y, count_at: 0, first_at: 0 };
    match parts.stored {
        Stored::Bf16 => launch::<bf16>(gpu, plan, &parts, [x, y], rows, &list),
        Stored::F16 | Stored::Packed(_) => launch::<f16>(gpu, plan, &parts, [x, y], rows, &list),
    }
    Ok(())
}

/// Pairs of a row and an expert, on the device.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// 32-bit integers, among which it lies.
    pub lists: &'a Buffer,
    /// Where its length is.
    pub count_at: usize,
    /// Where its first pair is.
    pub first_at: usize,
}

/// As [`multiply`] for the pairs of a list, of which only the device knows how many there are: those rows of
/// `y` are written and no others, with the bits that [`multiply`] gives them.
///
/// # Shapes
/// - `x`: a row for each `pairs_of_row` pairs, f32; `y`: a row for each pair, f32
/// - `most`: the most pairs that the list may hold
///
/// # Errors
/// `Unsupported` as [`check`].
///
/// # Panics
/// If a buffer has another length than that.
pub fn multiply_listed(
    gpu: &Gpu,
    matrix: &Matrix,
    [x, y]: [&Buffer; 2],
    list: &List<'_>,
    pairs_of_row: usize,
    most: usize,
) -> Result<(), Unsupported> {
    let pairs = y.len() / matrix.out();
    assert_eq!(y.len(), pairs * matrix.out(), "results of {pairs} pairs");
    assert_eq!(x.len() * pairs_of_row, pairs * matrix.inner(), "activations of {pairs} pairs");
    assert!(list.first_at + most <= list.lists.len() && list.count_at < list.lists.len());
    let parts = parts_of(matrix)?;
    let unit = Unit::of(gpu, parts.stored).ok_or(Unsupported("cards without such tensor cores"))?;
    let shape = [matrix.out(), matrix.inner(), parts.group];
    let plan = plan(shape, parts.stored, unit, most);
    let plan = Plan { taken: Taken::Listed(pairs_of_row), ..plan };
    match parts.stored {
        Stored::Bf16 => launch::<bf16>(gpu, plan, &parts, [x, y], most, list),
        Stored::F16 | Stored::Packed(_) => launch::<f16>(gpu, plan, &parts, [x, y], most, list),
    }
    Ok(())
}

/// The plan for a matrix `[out, inner, group]` and so many rows. Of it, only tiles depend on the rows.
fn plan([out, inner, group]: [usize; 3], stored: Stored, unit: Unit, rows: usize) -> Plan {
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

fn launch<E: Float>(
    gpu: &Gpu,
    plan: Plan,
    parts: &Parts<'_>,
    [x, y]: [&Buffer; 2],
    rows: usize,
    list: &List<'_>,
) {
    let narrowed = (!plan.wide).then(|| narrow_rows::<E>(gpu, plan, x));
    // As words: four of a unit's eight values in 32 bits each, or all of them as pairs.
    let x = narrowed.unwrap_or_else(|| x.clone());
    let words = plan.stored.unit_words();
    let weight_values = match plan.stored {
        Stored::Packed(_) => words,
        // A word is two values.
        Stored::F16 | Stored::Bf16 => UNIT,
    };
    let tiles = |rows_of_cube: usize, outs_of_cube: usize| {
        let outs = plan.out.div_ceil(outs_of_cube) as u32;
        CubeCount::Static(rows.div_ceil(rows_of_cube) as u32, outs, 1)
    };
    // SAFETY: the lengths were checked by `multiply` and when the matrix was made; the kernels read and
    // write inside them.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        if rows <= FEW_ROWS {
            few_kernel::launch_unchecked::<E>(
                &gpu.client,
                tiles(plan.few_rows(), plan.few_outs()),
                plan.dim(plan.split),
                words,
                x.arg(4),
                parts.weights.arg(weight_values),
                parts.scales.arg(1),
                parts.offsets.arg(1),
                list.lists.arg(1),
                y.arg(1),
                rows as u32,
                plan.windows() as u32,
                list.count_at as u32,
                list.first_at as u32,
                plan,
            );
        } else {
            many_kernel::launch_unchecked::<E>(
                &gpu.client,
                tiles(plan.many_rows(), plan.many_outs()),
                plan.dim(plan.warps[0] * plan.warps[1]),
                words,
                x.arg(4),
                parts.weights.arg(weight_values),
                parts.scales.arg(1),
                parts.offsets.arg(1),
                list.lists.arg(1),
                y.arg(1),
                rows as u32,
                plan.windows() as u32,
                list.count_at as u32,
                list.first_at as u32,
                plan,
            );
        }
    }
}

/// `x` in pairs: as many words as half its values.
fn narrow_rows<E: Float>(gpu: &Gpu, plan: Plan, x: &Buffer) -> Buffer {
    let y = Buffer::empty::<u32>(&gpu.client, x.len() / 2);
    let units = x.len() / UNIT;
    // SAFETY: as for the products.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        narrow_kernel::launch_unchecked::<E>(
            &gpu.client,
            CubeCount::Static(units.div_ceil(gpu.cut.units()) as u32, 1, 1),
            gpu.cut.dim(),
            x.arg(4),
            y.arg(4),
            units as u32,
            plan.stored,
        );
    }
    y
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER, Case, device, settings_of, target};
    let packed = Stored::Packed;
    let mut cases = Vec::new();
    // Turing has the shorter instruction, and no bf16.
    let (wide, odd) = ([4096, 4096, 32], [216, 2080, 32]);
    for (shape, stored, depth, rows) in [
        (wide, Stored::F16, 16, &[1, 16, 32, 64, 200, 300, 1024][..]),
        (wide, Stored::Bf16, 16, &[1, 1024]),
        (wide, packed(Format::Q4), 16, &[1, 32, 1024]),
        (wide, packed(Format::Q4Offset), 16, &[1, 1024]),
        (wide, packed(Format::Q4Zero), 16, &[1, 1024]),
        (wide, packed(Format::Q8), 16, &[1, 1024]),
        // Parts that are no multiple of what is loaded together.
        (odd, Stored::F16, 16, &[1, 64, 200]),
        (wide, Stored::F16, 8, &[1, 1024]),
        (wide, packed(Format::Q4), 8, &[1, 1024]),
    ] {
        for &rows in rows {
            let plan = plan(shape, stored, Unit::TensorCores(depth), rows);
            // Lists of experts on the way.
            let taken = if rows == 200 { Taken::Listed(2) } else { Taken::All };
            let plan = Plan { taken, ..plan };
            let few = rows <= FEW_ROWS;
            let warps = if few { plan.split } else { plan.warps[0] * plan.warps[1] };
            let settings = settings_of(plan.dim(warps));
            let name = format!("tiles of {stored:?} {shape:?} by {depth}, rows {rows}");
            macro_rules! case {
                ($kernel:ident :: $name:ident, $float:ty) => {
                    Case::new(
                        name,
                        $kernel::$name::<$float>::new(
                            settings,
                            device(),
                            target(),
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            BUFFER,
                            (),
                            (),
                            (),
                            (),
                            stored.unit_words(),
                            plan,
                        ),
                    )
                };
            }
            let case = match (few, stored) {
                (true, Stored::Bf16) => case!(few_kernel::FewKernel, bf16),
                (true, _) => case!(few_kernel::FewKernel, f16),
                (false, Stored::Bf16) => case!(many_kernel::ManyKernel, bf16),
                (false, _) => case!(many_kernel::ManyKernel, f16),
            };
            cases.push(if depth == 16 { case.since(80) } else { case.until(75) });
        }
    }
    cases
}
