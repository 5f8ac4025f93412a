//! Normalisation over groups of channels of a picture, with SiLU behind it, in three launches:
//! moments of runs of pixels, moments of groups, and the values. Plain tensors take nine and move the
//! picture through memory as often.
//!
//! Variances come from differences to a value of the run, merged pairwise, so that a large mean does not
//! eat them up.
//!
//! Source: Wu and He 2018; Chan, Golub and LeVeque 1983 for the merging of moments.

use cubecl::prelude::*;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::lanes::{Cut, cube_sum};
use crate::math::silu;

/// Fewest pixels of a run.
const RUN_MIN: usize = 32;
/// Most runs of a picture.
const RUNS_MAX: usize = 1024;

/// What the kernels are compiled for. Sizes are not: pictures have too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    channels: usize,
    groups: usize,
    silu: bool,
    cut: Cut,
}

impl Plan {
    const fn vectors(self) -> usize {
        self.channels / 4
    }

    const fn width(self) -> usize {
        self.channels / self.groups
    }
}

/// Mean and summed squares of differences to it, of each channel in each run. One unit four channels of a
/// run; X: channels, Y: runs, Z: pictures.
#[cube(launch_unchecked)]
fn moments_kernel(
    x: &[Vector<f32, Const<4>>],
    means: &mut [Vector<f32, Const<4>>],
    squares: &mut [Vector<f32, Const<4>>],
    pixels: u32,
    run: u32,
    #[comptime] plan: Plan,
) {
    let vectors = comptime!(plan.vectors());
    let units = comptime!(plan.cut.units());
    let vector = CUBE_POS_X as usize * units + UNIT_POS as usize;
    if vector < vectors {
        let first = CUBE_POS_Y as usize * run as usize;
        let last = usize::min(first + run as usize, pixels as usize);
        let base = CUBE_POS_Z as usize * pixels as usize * vectors + vector;
        let origin = x[base + first * vectors];
        let mut sum = Vector::new(f32::new(0.0f32));
        let mut square = Vector::new(f32::new(0.0f32));
        for pixel in first..last {
            let difference = x[base + pixel * vectors] - origin;
            sum += difference;
            square += difference * difference;
        }
        let count = Vector::new(f32::cast_from(last - first));
        let mean = sum / count;
        let runs = (pixels as usize).div_ceil(run as usize);
        let place = (CUBE_POS_Z as usize * runs + CUBE_POS_Y as usize) * vectors + vector;
        means[place] = origin + mean;
        squares[place] = square - sum * mean;
    }
}

/// Mean and reciprocal deviation of each group. One cube a group; X: groups, Y: pictures.
#[cube(launch_unchecked)]
fn groups_kernel(
    means: &[f32],
    squares: &[f32],
    found: &mut [f32],
    pixels: u32,
    run: u32,
    epsilon: f32,
    #[comptime] plan: Plan,
) {
    let units = comptime!(plan.cut.units());
    let width = comptime!(plan.width());
    let channels = comptime!(plan.channels);
    let pixels = pixels as usize;
    let run = run as usize;
    let runs = pixels.div_ceil(run);
    let base = CUBE_POS_Y as usize * runs * channels + CUBE_POS_X as usize * width;
    let all = f32::cast_from(pixels * width);
    let parts = runs * width;
    let turns = parts.div_ceil(units);
    // Around the first mean, for the reason above.
    let origin = means[base];
    let mut sum = f32::new(0.0f32);
    for turn in 0..turns {
        let part = turn * units + UNIT_POS as usize;
        if part < parts {
            let (at, channel) = (part / width, part % width);
            let count = f32::cast_from(usize::min((at + 1) * run, pixels) - at * run);
            sum = fma(count, means[base + at * channels + channel] - origin, sum);
        }
    }
    let mean = origin + cube_sum(sum, plan.cut) / all;
    let mut square = f32::new(0.0f32);
    for turn in 0..turns {
        let part = turn * units + UNIT_POS as usize;
        if part < parts {
            let (at, channel) = (part / width, part % width);
            let count = f32::cast_from(usize::min((at + 1) * run, pixels) - at * run);
            let place = base + at * channels + channel;
            let difference = means[place] - mean;
            square += fma(count * difference, difference, squares[place]);
        }
    }
    let variance = cube_sum(square, plan.cut) / all;
    if UNIT_POS == 0 {
        let place = (CUBE_POS_Y as usize * comptime!(plan.groups) + CUBE_POS_X as usize) * 2;
        found[place] = mean;
        found[place + 1] = f32::new(1.0f32) / (variance + epsilon).sqrt();
    }
}

/// The values. One unit four of them; X: values, Y: pictures.
#[cube(launch_unchecked)]
fn values_kernel(
    x: &[Vector<f32, Const<4>>],
    found: &[f32],
    gamma: &[Vector<f32, Const<4>>],
    beta: &[Vector<f32, Const<4>>],
    y: &mut [Vector<f32, Const<4>>],
    pixels: u32,
    #[comptime] plan: Plan,
) {
    let vectors = comptime!(plan.vectors());
    let units = comptime!(plan.cut.units());
    let each = pixels as usize * vectors;
    let i = CUBE_POS_X as usize * units + UNIT_POS as usize;
    if i < each {
        let vector = i % vectors;
        let place = CUBE_POS_Y as usize * each + i;
        let (value, gamma, beta) = (x[place], gamma[vector], beta[vector]);
        let groups = CUBE_POS_Y as usize * comptime!(plan.groups);
        let mut result = value;
        #[unroll]
        for k in 0..4usize {
            let at = (groups + (vector * 4 + k) / comptime!(plan.width())) * 2;
            let scaled = (value.extract(k) - found[at]) * found[at + 1];
            let moved = fma(scaled, gamma.extract(k), beta.extract(k));
            if comptime!(plan.silu) {
                result.insert(k, silu(moved));
            } else {
                result.insert(k, moved);
            }
        }
        y[place] = result;
    }
}

/// Pixels of a run, of a picture's size alone.
fn run_of(pixels: usize) -> usize {
    pixels.div_ceil(RUNS_MAX).max(RUN_MIN)
}

/// Whether there is a kernel for so many channels in so many groups.
///
/// # Errors
/// `Unsupported` if the channels are no multiple of four and of the groups.
pub fn check(channels: usize, groups: usize) -> Result<(), Unsupported> {
    if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) {
        return Err(Unsupported("channels that are no multiple of their groups"));
    }
    if !channels.is_multiple_of(4) {
        return Err(Unsupported("channels that are no multiple of four"));
    }
    Ok(())
}

/// Launches `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`, by groups of channels, with
/// SiLU behind it if asked for.
///
/// # Shapes
/// - `x`, `y`: `[pictures, pixels, channels]`, `gamma`, `beta`: `[channels]`, f32
///
/// # Errors
/// As [`check`].
///
/// # Panics
/// If the lengths of the buffers do not fit together.
pub fn group_norm(
    gpu: &Gpu,
    [x, y]: [&Buffer; 2],
    [gamma, beta]: [&Buffer; 2],
    [pictures, pixels]: [usize; 2],
    groups: usize,
    epsilon: f32,
    silu: bool,
) -> Result<(), Unsupported> {
    let channels = gamma.len();
    check(channels, groups)?;
    let all = pictures * pixels * channels;
    assert!(x.len() == all && y.len() == all && beta.len() == channels, "a value for each place");
    if all == 0 {
        return Ok(());
    }
    let plan = Plan { channels, groups, silu, cut: gpu.cut };
    let (run, units) = (run_of(pixels), gpu.cut.units());
    let runs = pixels.div_ceil(run);
    let [means, squares] =
        [(); 2].map(|()| Buffer::empty::<f32>(&gpu.client, pictures * runs * channels));
    let found = Buffer::empty::<f32>(&gpu.client, pictures * groups * 2);
    let [pictures, pixels, run] = [pictures, pixels, run].map(|count| count as u32);
    // SAFETY: the lengths were checked or made here, and the kernels read and write inside them.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernels fast")]
    unsafe {
        moments_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static(plan.vectors().div_ceil(units) as u32, runs as u32, pictures),
            gpu.cut.dim(),
            x.arg(4),
            means.arg(4),
            squares.arg(4),
            pixels,
            run,
            plan,
        );
        groups_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static(groups as u32, pictures, 1),
            gpu.cut.dim(),
            means.arg(1),
            squares.arg(1),
            found.arg(1),
            pixels,
            run,
            epsilon,
            plan,
        );
        let vectors = pixels as usize * plan.vectors();
        values_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static(vectors.div_ceil(units) as u32, pictures, 1),
            gpu.cut.dim(),
            x.arg(4),
            found.arg(1),
            gamma.arg(4),
            beta.arg(4),
            y.arg(4),
            pixels,
            plan,
        );
    }
    Ok(())
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let mut cases = Vec::new();
    // Stable Diffusion's first level, whose groups are no multiple of four, and its decoder's last.
    for (channels, silu) in [(320, true), (128, false)] {
        let plan = Plan { channels, groups: 32, silu, cut: Cut::CUDA };
        let of = || (settings(plan.cut), device(), target());
        let (settings, device, target) = of();
        let moments = moments_kernel::MomentsKernel::new(
            settings,
            device,
            target,
            BUFFER,
            BUFFER,
            BUFFER,
            (),
            (),
            plan,
        );
        cases.push(Case::new(format!("group_norm moments {channels}"), moments));
        let (settings, device, target) = of();
        let groups = groups_kernel::GroupsKernel::new(
            settings,
            device,
            target,
            BUFFER,
            BUFFER,
            BUFFER,
            (),
            (),
            (),
            plan,
        );
        cases.push(Case::new(format!("group_norm groups {channels}"), groups));
        let (settings, device, target) = of();
        let values = values_kernel::ValuesKernel::new(
            settings,
            device,
            target,
            BUFFER,
            BUFFER,
            BUFFER,
            BUFFER,
            BUFFER,
            (),
            plan,
        );
        cases.push(Case::new(format!("group_norm values {channels}"), values));
    }
    cases
}
