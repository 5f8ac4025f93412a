//! The exponential and the logarithm, in additions, multiplications and a division alone.
//!
//! CUDA's own lie in a file beside the driver (`libdevice.10.bc`) that not every machine has, and
//! they differ in the last bits from a CPU's. These give the same bits everywhere.
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

/// ln x for normal x above 0, within 3e-7 of it or of 1, whichever is larger.
///
/// Source: ln m = 2 artanh((m - 1) / (m + 1)) for the mantissa, from 1/sqrt(2) to sqrt(2).
#[cube]
pub fn ln(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    // The bits of 1/sqrt(2): above it, a mantissa belongs to the next power of two.
    let shifted = bits - 0x3F35_04F3u32 + 0x3F80_0000u32;
    let n = f32::cast_from(shifted >> 23u32) - f32::new(127.0f32);
    let m = f32::reinterpret((shifted & 0x007F_FFFFu32) + 0x3F35_04F3u32);
    let s = (m - f32::new(1.0f32)) / (m + f32::new(1.0f32));
    let square = s * s;
    let mut p = f32::new(1.0f32 / 9.0f32);
    p = fma(p, square, f32::new(1.0f32 / 7.0f32));
    p = fma(p, square, f32::new(1.0f32 / 5.0f32));
    p = fma(p, square, f32::new(1.0f32 / 3.0f32));
    p = fma(p, square, f32::new(1.0f32));
    fma(n, f32::new(std::f32::consts::LN_2), f32::new(2.0f32) * s * p)
}

/// x / (1 + e^-x).
#[cube]
pub fn silu(x: f32) -> f32 {
    // Beyond -87 the quotient is below the smallest number times 1e-36.
    x / (f32::new(1.0f32) + exp(f32::min(-x, f32::new(87.0f32))))
}
