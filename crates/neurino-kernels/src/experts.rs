//! Which experts compute which rows, decided where their scores are, so that no layer waits for the host.
//!
//! What is decided is a run of 32-bit integers, [`Routes`]: how many rows each expert computes, which pairs
//! of a row and a choice those are, the chosen experts, and their weights as bits. The experts' products
//! read their lists from there ([`crate::product::multiply_listed`]) and write a row for each pair; last,
//! each row adds up its own pairs, in the order of their experts' numbers.
//!
//! Source: Jiang et al. 2024 (Mixtral).

use cubecl::prelude::*;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::math::exp;
use crate::product::List;

/// Experts that there may be.
pub const EXPERTS_MAX: usize = 64;

/// How many of what, and so where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Routes {
    /// Rows.
    pub rows: usize,
    /// Experts to choose from.
    pub experts: usize,
    /// Experts that each row chooses.
    pub per_row: usize,
}

impl Routes {
    /// Pairs of a row and one of its experts; pair `i` is of row `i / per_row`.
    pub const fn pairs(&self) -> usize {
        self.rows * self.per_row
    }

    /// Integers in all.
    pub const fn len(&self) -> usize {
        self.weights() + self.pairs()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the list of an expert begins. It has room for all rows: a row chooses an expert once.
    const fn list(&self, expert: usize) -> usize {
        self.experts + expert * self.rows
    }

    /// Where the chosen experts begin, pair by pair; a row's ascend.
    pub const fn chosen(&self) -> usize {
        self.list(self.experts)
    }

    /// Where the pairs' weights begin, whose sum is one for each row.
    pub const fn weights(&self) -> usize {
        self.chosen() + self.pairs()
    }

    /// The list of an expert.
    pub const fn list_of<'a>(&self, routes: &'a Buffer, expert: usize) -> List<'a> {
        List { lists: routes, count_at: expert, first_at: self.list(expert) }
    }

    /// # Errors
    /// `Unsupported` if there is nothing to choose, or too much to choose from.
    pub fn check(&self) -> Result<(), Unsupported> {
        let chosen = self.per_row > 0 && self.per_row <= self.experts;
        if self.rows == 0 || !chosen || self.experts > EXPERTS_MAX {
            return Err(Unsupported("this many experts"));
        }
        Ok(())
    }
}

/// Softmax over all experts, the best of them (of equals, the lower number), renormalised. A row whose scores
/// are no numbers gets experts that there are; it has no numbers itself, and they make none of it.
#[cube(launch_unchecked)]
fn choose_kernel(scores: &[f32], routes: &mut [u32], #[comptime] of: Routes) {
    let row = ABSOLUTE_POS;
    if row < of.rows {
        let base = row * of.experts;
        let mut largest = scores[base];
        for expert in 1..of.experts {
            largest = f32::max(largest, scores[base + expert]);
        }
        let mut shares = Array::<f32>::new(of.experts);
        let mut total = f32::new(0.0f32);
        for expert in 0..of.experts {
            let share = exp(scores[base + expert] - largest);
            shares[expert] = share;
            total += share;
        }
        let mut place = row * of.per_row;
        let end = place + of.per_row;
        let mut kept = f32::new(0.0f32);
        for expert in 0..of.experts {
            let share = shares[expert];
            let mut better = 0u32;
            for other in 0..of.experts {
                let is_better = shares[other] > share || (other < expert && shares[other] >= share);
                better += u32::cast_from(is_better);
            }
            if better < comptime!(of.per_row as u32) && place < end {
                routes[comptime!(of.chosen()) + place] = expert as u32;
                routes[comptime!(of.weights()) + place] = u32::reinterpret(share / total);
                kept += share / total;
                place += 1;
            }
        }
        for pair in row * of.per_row..end {
            let at = comptime!(of.weights()) + pair;
            routes[at] = u32::reinterpret(f32::reinterpret(routes[at]) / kept);
        }
    }
}

/// Each unit writes the list of one expert, in the order of the pairs.
#[cube(launch_unchecked)]
fn list_kernel(routes: &mut [u32], #[comptime] of: Routes) {
    let expert = ABSOLUTE_POS;
    if expert < of.experts {
        let first = of.experts + expert * of.rows;
        let mut count = 0;
        for pair in 0..comptime!(of.pairs()) {
            if routes[comptime!(of.chosen()) + pair] == expert as u32 {
                routes[first + count] = pair as u32;
                count += 1;
            }
        }
        routes[expert] = count as u32;
    }
}

#[cube(launch_unchecked)]
fn combine_kernel(
    parts: &[f32],
    routes: &[u32],
    y: &mut [f32],
    width: u32,
    #[comptime] of: Routes,
) {
    let width = width as usize;
    let at = ABSOLUTE_POS;
    if at < of.rows * width {
        let (row, column) = (at / width, at % width);
        let mut sum = f32::new(0.0f32);
        #[unroll]
        for choice in 0..of.per_row {
            let pair = row * of.per_row + choice;
            let weight = f32::reinterpret(routes[comptime!(of.weights()) + pair]);
            sum = fma(weight, parts[pair * width + column], sum);
        }
        y[at] = sum;
    }
}

fn cubes(gpu: &Gpu, units: usize) -> CubeCount {
    CubeCount::Static(units.div_ceil(gpu.cut.units()) as u32, 1, 1)
}

/// Launches the choice of experts.
///
/// # Shapes
/// - `scores`: `[rows, experts]`, f32; `routes`: [`Routes::len`] integers of 32 bits
///
/// # Errors
/// `Unsupported` as [`Routes::check`].
///
/// # Panics
/// If a buffer has another length than that.
pub fn route(gpu: &Gpu, of: Routes, scores: &Buffer, routes: &Buffer) -> Result<(), Unsupported> {
    of.check()?;
    assert_eq!(scores.len(), of.rows * of.experts, "scores of {} rows", of.rows);
    assert_eq!(routes.len(), of.len(), "room for what is chosen");
    let (client, dim) = (&gpu.client, gpu.cut.dim());
    // SAFETY: the lengths were checked; the kernels stay below them.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        let rows = cubes(gpu, of.rows);
        choose_kernel::launch_unchecked(client, rows, dim, scores.arg(1), routes.arg(1), of);
        let experts = cubes(gpu, of.experts);
        list_kernel::launch_unchecked(client, experts, dim, routes.arg(1), of);
    }
    Ok(())
}

/// Launches the sum of each row's pairs by their weights.
///
/// # Shapes
/// - `parts`: `[pairs, width]`, f32; `routes` as [`route`] wrote them; `y`: `[rows, width]`, f32
///
/// # Errors
/// `Unsupported` as [`Routes::check`].
///
/// # Panics
/// If a buffer has another length than that.
pub fn combine(
    gpu: &Gpu,
    of: Routes,
    parts: &Buffer,
    routes: &Buffer,
    y: &Buffer,
) -> Result<(), Unsupported> {
    of.check()?;
    let width = y.len() / of.rows;
    assert_eq!(y.len(), width * of.rows, "results of {} rows", of.rows);
    assert_eq!(parts.len(), width * of.pairs(), "results of {} pairs", of.pairs());
    assert_eq!(routes.len(), of.len(), "what was chosen");
    // SAFETY: as for the choice.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        combine_kernel::launch_unchecked(
            &gpu.client,
            cubes(gpu, y.len()),
            gpu.cut.dim(),
            parts.arg(1),
            routes.arg(1),
            y.arg(1),
            width as u32,
            of,
        );
    }
    Ok(())
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::lanes::Cut;
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let of = Routes { rows: 1024, experts: 8, per_row: 2 };
    let cut = || settings(Cut::CUDA);
    let choose = choose_kernel::ChooseKernel::new(cut(), device(), target(), BUFFER, BUFFER, of);
    let list = list_kernel::ListKernel::new(cut(), device(), target(), BUFFER, of);
    let combine = combine_kernel::CombineKernel::new(
        cut(),
        device(),
        target(),
        BUFFER,
        BUFFER,
        BUFFER,
        (),
        of,
    );
    vec![
        Case::new("choice of experts", choose),
        Case::new("lists of experts", list),
        Case::new("sum of experts", combine),
    ]
}
