//! Residual sum and RMS normalisation in one launch: `sum = x + delta; y = sum / rms(sum) * weight`.
//!
//! Source: Zhang and Sennrich 2019; the order of operations is that of
//! `transformers@4.44.2 LlamaRMSNorm`.

use cubecl::prelude::*;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};
use crate::lanes::{Cut, cube_sum};

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    /// Vectors of four in a row.
    vectors: usize,
    add: bool,
    cut: Cut,
}

/// One cube a row.
#[cube(launch_unchecked)]
fn norm_kernel(
    x: &[Vector<f32, Const<4>>],
    delta: &[Vector<f32, Const<4>>],
    weight: &[Vector<f32, Const<4>>],
    sum: &mut [Vector<f32, Const<4>>],
    y: &mut [Vector<f32, Const<4>>],
    epsilon: f32,
    #[comptime] plan: Plan,
) {
    let base = CUBE_POS_X as usize * plan.vectors;
    let units = comptime!(plan.cut.units());
    let turns = comptime!(plan.vectors.div_ceil(plan.cut.units()));
    let mut squares = f32::new(0.0f32);
    for turn in 0..turns {
        let i = turn * units + UNIT_POS as usize;
        if i < plan.vectors {
            let mut value = x[base + i];
            if plan.add {
                value += delta[base + i];
                sum[base + i] = value;
            }
            #[unroll]
            for k in 0..4usize {
                squares = fma(value.extract(k), value.extract(k), squares);
            }
        }
    }
    let mean = cube_sum(squares, plan.cut) / f32::cast_from(plan.vectors * 4);
    let scale = f32::new(1.0f32) / (mean + epsilon).sqrt();
    for turn in 0..turns {
        let i = turn * units + UNIT_POS as usize;
        if i < plan.vectors {
            let value = if plan.add { sum[base + i] } else { x[base + i] };
            y[base + i] = value * Vector::new(scale) * weight[i];
        }
    }
}

/// Launches `sum = x + delta` (where there is a pair of delta and sum) and
/// `y = norm(sum or x) * weight`. `sum` may be the memory of `x`.
///
/// # Shapes
/// - `x`, `delta`, `sum`, `y`: `[rows, width]`, `weight`: `[width]`, f32
///
/// # Errors
/// `Unsupported` if `width` is no multiple of four.
///
/// # Panics
/// If the lengths of the buffers do not fit together.
pub fn add_rms_norm(
    gpu: &Gpu,
    x: &Buffer,
    delta: Option<[&Buffer; 2]>,
    weight: &Buffer,
    y: &Buffer,
    epsilon: f32,
) -> Result<(), Unsupported> {
    let width = weight.len();
    if !width.is_multiple_of(4) || width == 0 {
        return Err(Unsupported("rows that are not a multiple of four values"));
    }
    assert!(x.len().is_multiple_of(width) && y.len() == x.len(), "rows of {width} values");
    let fits = |[delta, sum]: [&Buffer; 2]| delta.len() == x.len() && sum.len() == x.len();
    assert!(delta.is_none_or(fits), "one delta a value");
    let [added, sum] = delta.unwrap_or([weight, y]);
    let plan = Plan { vectors: width / 4, add: delta.is_some(), cut: gpu.cut };
    // SAFETY: the lengths were checked, and the kernel reads and writes inside them. Without a
    // delta, others stand in for it and the sum and are not used as such.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        norm_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static((x.len() / width) as u32, 1, 1),
            gpu.cut.dim(),
            x.arg(4),
            added.arg(4),
            weight.arg(4),
            sum.arg(4),
            y.arg(4),
            epsilon,
            plan,
        );
    }
    Ok(())
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let plan = Plan { vectors: 1024, add: true, cut: Cut::CUDA };
    let kernel = norm_kernel::NormKernel::new(
        settings(plan.cut),
        device(),
        target(),
        BUFFER,
        BUFFER,
        BUFFER,
        BUFFER,
        BUFFER,
        (),
        plan,
    );
    vec![Case::new("add_rms_norm", kernel)]
}
