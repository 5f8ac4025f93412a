//! What a lane has of a window: unpacked, narrowed, multiplied.

use cubecl::cmma;
use cubecl::prelude::*;
use half::f16;

use super::plan::{F16_MOST, Plan, SUMS, Stored, TILE_OUTS, TILE_ROWS, Taken, WINDOW};
use crate::format::{Format, UNIT};

/// `x` as the tensor core takes it: f16 between its largest numbers, or bf16.
#[cube]
pub(super) fn narrow<E: Float>(value: f32, #[comptime] stored: Stored) -> E {
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
pub(super) fn narrowed<E: Float>(
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
pub(super) fn unpacked<W: Size>(
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
pub(super) fn unit_product<E: Float>(a: Vector<u32, Const<4>>, b: Vector<u32, Const<4>>) -> f32 {
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
pub(super) fn multiply_add<E: Float>(
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
pub(super) const ONES: u32 = 0x3C00_3C00;

/// The window's products of all tiles of a warp, added to its sums.
///
/// - `a`: this lane's units of the matrix, two a tile; `b`: those of `x`, one a tile
/// - `scales`, `offsets`: of the rows of `a`
#[cube]
pub(super) fn multiply_window<E: Float>(
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
pub(super) fn scale(
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
pub(super) fn rows_of_launch(rows: u32, lists: &[u32], list: u32, #[comptime] plan: Plan) -> usize {
    if comptime!(plan.is_listed()) { lists[list as usize] as usize } else { rows as usize }
}

/// The pair at place `row`, or that row. Places beyond the last repeat it and are not written.
#[cube]
pub(super) fn taken_row(
    lists: &[u32],
    first: u32,
    row: usize,
    rows: usize,
    #[comptime] plan: Plan,
) -> usize {
    let row = usize::min(row, rows - 1);
    if comptime!(plan.is_listed()) { lists[first as usize + row] as usize } else { row }
}

/// The row of `x` that a pair is about.
#[cube]
pub(super) fn x_row(taken: usize, #[comptime] plan: Plan) -> usize {
    if let Taken::Listed(pairs) = comptime!(plan.taken) { taken / pairs } else { taken }
}

/// A unit of a row of `x`, narrowed.
#[cube]
pub(super) fn x_unit<E: Float>(
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
pub(super) fn group_value(
    values: &[f16],
    row: usize,
    window: usize,
    #[comptime] plan: Plan,
) -> f32 {
    let group = window * WINDOW / plan.group;
    f32::cast_from(values[row * comptime!(plan.groups()) + group])
}

/// What the whole numbers of a window are multiplied with.
#[cube]
pub(super) fn scale_at(scales: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.is_packed()) {
        group_value(scales, row, window, plan)
    } else {
        f32::new(1.0f32)
    }
}

/// What is added to each weight of a window.
#[cube]
pub(super) fn offset_at(offsets: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.adds_offsets()) {
        group_value(offsets, row, window, plan)
    } else {
        f32::new(0.0f32)
    }
}

/// What is subtracted from each whole number of a window.
#[cube]
pub(super) fn zero_at(offsets: &[f16], row: usize, window: usize, #[comptime] plan: Plan) -> f32 {
    if comptime!(plan.stored.subtracts_zeros()) {
        group_value(offsets, row, window, plan)
    } else {
        f32::new(0.0f32)
    }
}

#[cube(launch_unchecked)]
pub(super) fn narrow_kernel<E: Float>(
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
