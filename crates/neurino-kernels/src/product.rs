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

mod few;
mod many;
mod plan;
mod tile;

#[cfg(feature = "cpu-runtime")]
pub(crate) mod cases;

use cubecl::prelude::*;
use half::{bf16, f16};

use crate::buffer::Buffer;
use crate::format::UNIT;
use crate::gpu::{Gpu, Unsupported};
use crate::matvec::{Matrix, Weights};
use few::few_kernel;
use many::many_kernel;
pub use plan::WINDOW;
use plan::{FEW_ROWS, Plan, Stored, Taken, Unit, plan};
use tile::narrow_kernel;

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
