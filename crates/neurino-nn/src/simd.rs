//! Vectors of 16 numbers for kernels of the CPU, in whichever instructions it has.
//!
//! A [`Kernel`] is written once over [`Simd`] and compiled for each instruction set; [`run`] picks the
//! best at run time. Every set has the same 16 lanes and does the same operations in the same order, so
//! a layout fits all. All that a kernel calls must be `#[inline(always)]`: a function that is not
//! inlined loses its caller's instruction set.
use std::fmt::Debug;
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub(crate) use portable::Portable;

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// One instruction set. The value is the proof that this CPU has it.
pub(crate) trait Simd: Copy + Debug + Send + Sync + 'static {
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// 32 i16: two for each of 16 lanes.
    type W: Copy;

    /// Whether 32 vectors fit the registers, not about 8.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn store(self, x: Self::F, out: &mut [f32; LANES]);
    /// Widens IEEE halves.
    fn load_f16(self, bits: &[u16; LANES]) -> Self::F;
    /// Widens bf16.
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::F;
    /// Converts signed bytes.
    fn load_i8(self, x: &[u8; LANES]) -> Self::F;
    /// Converts bytes.
    fn load_u8(self, x: &[u8; LANES]) -> Self::F;

    /// The values of a table at 16 places, each below 16.
    fn lookup(self, table: Self::F, places: &[u8; LANES]) -> Self::F;

    /// Asks for the cache line that lies `ahead_bytes` after `x`, which may be anything.
    fn prefetch<T>(self, x: &T, ahead_bytes: usize);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; if one is not a number, `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller one; if one is not a number, `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The nearest whole number.
    fn round(self, x: Self::F) -> Self::F;
    /// `x * 2^n` for whole `n` in -126..=127.
    fn scale(self, x: Self::F, n: Self::F) -> Self::F;
    /// The lanes whose bit is set from `x`, the others from `other`.
    fn select(self, bits: u16, x: Self::F, other: Self::F) -> Self::F;
    /// The sum of all lanes, in one fixed order.
    fn sum(self, x: Self::F) -> f32;
    /// The largest lane.
    fn largest(self, x: Self::F) -> f32;

    fn splat_i32(self, x: i32) -> Self::I;
    fn to_f32(self, x: Self::I) -> Self::F;
    /// Adds the product of each lane's two weights with `pair`, two i16 of which the first is in the
    /// low half.
    fn dot(self, sum: Self::I, weights: Self::W, pair: i32) -> Self::I;

    fn widen_u8(self, x: &[u8; 2 * LANES]) -> Self::W;
    fn widen_i8(self, x: &[u8; 2 * LANES]) -> Self::W;
    fn and(self, a: Self::W, mask: i16) -> Self::W;
    fn or(self, a: Self::W, b: Self::W) -> Self::W;
    fn sub_words(self, a: Self::W, b: i16) -> Self::W;
    /// Shifts by a number that should be known when compiling.
    fn shl(self, a: Self::W, count: u32) -> Self::W;
    fn shr(self, a: Self::W, count: u32) -> Self::W;

    /// Compiles `kernel` for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// `exp(x)` for `x <= 88`, to 2 units in the last place; below -87 as at -87.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        /// Taylor's, from the fifth power down, bent to be best on +-ln(2)/2.
        const TERMS: [f32; 6] =
            [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5];
        let floor = self.splat(-87.0);
        let kept = self.max(x, floor);
        let n = self.round(self.mul(kept, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-LN2_HIGH), kept);
        let r = self.fma(n, self.splat(-LN2_LOW), r);
        let mut sum = self.splat(TERMS[0]);
        for term in &TERMS[1..] {
            sum = self.fma(sum, r, self.splat(*term));
        }
        let one = self.splat(1.0);
        let result = self.fma(self.mul(r, r), sum, self.add(r, one));
        self.scale(result, n)
    }
}

/// Work that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// What comes out.
    type Output;
    /// Does the work. Must be `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction sets that kernels know.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Isa {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Isa {
    /// What this CPU has, the best last.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = vec![Self::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            found.extend(avx2::Avx2::detect().map(Self::Avx2));
            found.extend(avx512::Avx512::detect().map(Self::Avx512));
        }
        found
    }

    /// The best that this CPU has.
    pub(crate) fn best() -> Self {
        static BEST: LazyLock<Isa> =
            LazyLock::new(|| Isa::available().pop().unwrap_or(Isa::Portable(Portable)));
        *BEST
    }

    /// See [`Simd::WIDE`].
    pub(crate) fn is_wide(self) -> bool {
        match self {
            Self::Portable(_) => Portable::WIDE,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => avx2::Avx2::WIDE,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => avx512::Avx512::WIDE,
        }
    }

    /// Runs `kernel` with this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(kernel),
        }
    }
}

/// Runs `kernel` with the best instruction set of this CPU.
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    Isa::best().run(kernel)
}

#[cfg(test)]
mod tests;
