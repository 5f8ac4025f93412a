//! The exponential, in additions and multiplications alone.
//!
//! CUDA's own lies in a file beside the driver (`libdevice.10.bc`) that not every machine has, and
//! it differs in the last bits from a CPU's. This one gives the same bits everywhere.
#![expect(missing_docs, reason = "`#[cube]` makes a module of each function")]

use cubecl::prelude::*;

/// 2^23 + 2^22: adding it leaves the nearest integer in the low bits of a float.
const ROUNDER: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// e^x for x up to 88, within two units in the last place; 0 below -87.
///
/// Source: Cody and Waite's reduction to ±ln(2)/2, then the Taylor polynomial of degree 7.
#[cube]
pub fn exp(x: f32) -> f32 {
    let bounded = f32::max(x, f32::new(-87.0f32));
    let rounded = fma(bounded, f32::new(std::f32::consts::LOG2_E), f32::new(ROUNDER));
    let n = rounded - f32::new(ROUNDER);
    let r = fma(n, f32::new(-LN2_HIGH), bounded);
    let r = fma(n, f32::new(-LN2_LOW), r);
    let mut p = f32::new(1.0f32 / 5040.0f32);
    p = fma(p, r, f32::new(1.0f32 / 720.0f32));
    p = fma(p, r, f32::new(1.0f32 / 120.0f32));
    p = fma(p, r, f32::new(1.0f32 / 24.0f32));
    p = fma(p, r, f32::new(1.0f32 / 6.0f32));
    p = fma(p, r, f32::new(0.5f32));
    p = fma(p, r, f32::new(1.0f32));
    p = fma(p, r, f32::new(1.0f32));
    // The low bits of `rounded` are n; shifted, they are added to the exponent.
    let bits = u32::reinterpret(p) + (u32::reinterpret(rounded) << 23u32);
    select(x < f32::new(-87.0f32), f32::new(0.0f32), f32::reinterpret(bits))
}

/// x / (1 + e^-x).
#[cube]
pub fn silu(x: f32) -> f32 {
    // Beyond -87 the quotient is below the smallest number times 1e-36.
    x / (f32::new(1.0f32) + exp(f32::min(-x, f32::new(87.0f32))))
}
