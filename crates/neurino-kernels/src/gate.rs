//! `silu(gate) * up`, for models whose two projections were not multiplied together
//! ([`crate::matvec::Matrix::multiply`] does both in one launch).
//!
//! Source: Shazeer 2020 (SwiGLU).

use cubecl::prelude::*;

use crate::buffer::Buffer;
use crate::gpu::Gpu;
use crate::math::silu;

#[cube(launch_unchecked)]
fn gate_kernel(gate: &[f32], up: &[f32], y: &mut [f32], len: u32) {
    let i = ABSOLUTE_POS;
    if i < len as usize {
        y[i] = silu(gate[i]) * up[i];
    }
}

/// Launches `y = silu(gate) * up`, value by value, f32.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(gpu: &Gpu, gate: &Buffer, up: &Buffer, y: &Buffer) {
    assert!(gate.len() == up.len() && up.len() == y.len(), "one gate a value");
    let cubes = y.len().div_ceil(gpu.cut.units()) as u32;
    // SAFETY: the lengths are equal, and the kernel stays below them.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        gate_kernel::launch_unchecked(
            &gpu.client,
            CubeCount::Static(cubes, 1, 1),
            gpu.cut.dim(),
            gate.arg(1),
            up.arg(1),
            y.arg(1),
            y.len() as u32,
        );
    }
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER, Case, device, settings, target};
    let kernel = gate_kernel::GateKernel::new(
        settings(crate::lanes::Cut::CUDA),
        device(),
        target(),
        BUFFER,
        BUFFER,
        BUFFER,
        (),
    );
    vec![Case::new("swiglu", kernel)]
}
