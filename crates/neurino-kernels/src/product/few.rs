//! Few rows: the matrix goes straight into registers, and a cube's warps share its rows.

use cubecl::prelude::*;
use half::f16;

use super::plan::{Plan, QUAD, SUMS, TILE_OUTS, TILE_ROWS, Unit};
use super::tile::{
    ONES, multiply_window, offset_at, rows_of_launch, scale_at, taken_row, unit_product, unpacked,
    x_row, x_unit, zero_at,
};

#[cube(launch_unchecked)]
pub(super) fn few_kernel<E: Float, W: Size>(
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
pub(super) fn imitate_few<E: Float, W: Size>(
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
