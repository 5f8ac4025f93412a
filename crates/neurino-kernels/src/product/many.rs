//! Many rows: tiles of the matrix and of `x` go through shared memory, one window ahead.

use cubecl::prelude::*;
use half::f16;

use super::plan::{Plan, QUAD, SUMS, TILE_OUTS, TILE_ROWS, Unit};
use super::tile::{
    ONES, multiply_window, offset_at, rows_of_launch, scale_at, taken_row, unit_product, unpacked,
    x_row, zero_at,
};

#[cube(launch_unchecked)]
pub(super) fn many_kernel<E: Float, W: Size>(
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
pub(super) fn imitate_many<E: Float>(
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
