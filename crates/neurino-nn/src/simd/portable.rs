//! Plain Rust, which the compiler turns into the vectors that every CPU of the target has.
#![expect(clippy::inline_always, reason = "see the parent module")]

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// No instruction set in particular.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each<T: Copy, U: Copy + Default>(x: &[T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    let mut out = [U::default(); LANES];
    for (out, x) in out.iter_mut().zip(x) {
        *out = f(*x);
    }
    out
}

#[inline(always)]
fn both(a: &[f32; LANES], b: &[f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = *a;
    for (a, b) in out.iter_mut().zip(b) {
        *a = f(*a, *b);
    }
    out
}

#[inline(always)]
fn words(mut x: [i16; 2 * LANES], f: impl Fn(i16) -> i16) -> [i16; 2 * LANES] {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type W = [i16; 2 * LANES];

    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut [f32; LANES]) {
        *out = x;
    }
    #[inline(always)]
    fn load_f16(self, bits: &[u16; LANES]) -> Self::F {
        each(bits, |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::F {
        each(bits, |bits| bf16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::F {
        each(x, |x| f32::from(x.cast_signed()))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::F {
        each(x, f32::from)
    }
    #[inline(always)]
    fn lookup(self, table: Self::F, places: &[u8; LANES]) -> Self::F {
        each(places, |place| table[usize::from(place & 15)])
    }
    #[inline(always)]
    fn prefetch<T>(self, _x: &T, _ahead_bytes: usize) {}
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both(&a, &b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both(&both(&a, &b, |a, b| a * b), &c, |ab, c| ab + c)
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        /// Adding 1.5 * 2^23 leaves no room for a fraction.
        const ROUNDER: f32 = 12_582_912.0;
        each(&x, |x| x + ROUNDER - ROUNDER)
    }
    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        let power = each(&n, |n| f32::from_bits(((n as i32 + 127) as u32) << 23));
        self.mul(x, power)
    }
    #[inline(always)]
    fn select(self, bits: u16, x: Self::F, other: Self::F) -> Self::F {
        let mut out = other;
        for (lane, out) in out.iter_mut().enumerate() {
            if bits >> lane & 1 == 1 {
                *out = x[lane];
            }
        }
        out
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let mut half = [0.0; LANES / 2];
        for (lane, half) in half.iter_mut().enumerate() {
            *half = x[lane] + x[lane + LANES / 2];
        }
        let quarter = [half[0] + half[4], half[1] + half[5], half[2] + half[6], half[3] + half[7]];
        (quarter[0] + quarter[2]) + (quarter[1] + quarter[3])
    }
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        let mut largest = x[0];
        for x in x {
            largest = if x > largest { x } else { largest };
        }
        largest
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> Self::F {
        each(&x, |x| x as f32)
    }
    #[inline(always)]
    fn dot(self, mut sum: Self::I, weights: Self::W, pair: i32) -> Self::I {
        let (first, second) = (i32::from(pair as i16), pair >> 16);
        for (lane, sum) in sum.iter_mut().enumerate() {
            *sum +=
                i32::from(weights[2 * lane]) * first + i32::from(weights[2 * lane + 1]) * second;
        }
        sum
    }
    #[inline(always)]
    fn widen_u8(self, x: &[u8; 2 * LANES]) -> Self::W {
        let mut out = [0; 2 * LANES];
        for (out, x) in out.iter_mut().zip(x) {
            *out = i16::from(*x);
        }
        out
    }
    #[inline(always)]
    fn widen_i8(self, x: &[u8; 2 * LANES]) -> Self::W {
        let mut out = [0; 2 * LANES];
        for (out, x) in out.iter_mut().zip(x) {
            *out = i16::from(x.cast_signed());
        }
        out
    }
    #[inline(always)]
    fn and(self, a: Self::W, mask: i16) -> Self::W {
        words(a, |a| a & mask)
    }
    #[inline(always)]
    fn or(self, mut a: Self::W, b: Self::W) -> Self::W {
        for (a, b) in a.iter_mut().zip(b) {
            *a |= b;
        }
        a
    }
    #[inline(always)]
    fn sub_words(self, a: Self::W, b: i16) -> Self::W {
        words(a, |a| a.wrapping_sub(b))
    }
    #[inline(always)]
    fn shl(self, a: Self::W, count: u32) -> Self::W {
        words(a, |a| a << count)
    }
    #[inline(always)]
    fn shr(self, a: Self::W, count: u32) -> Self::W {
        words(a, |a| (a.cast_unsigned() >> count).cast_signed())
    }
    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}
