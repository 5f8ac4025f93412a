//! AVX2 with FMA and half conversion: every x86 CPU a gamer has since 2013.
#![expect(clippy::inline_always, reason = "see the parent module")]
#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "intrinsics ask for an instruction set: a value of `Avx2` comes from `detect` alone, which checked it. Loads and stores are of the halves of arrays as long as two vectors"
)]
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "intrinsics, told by their names")
)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// The CPU has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn compiled<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// The two halves of an array.
#[inline(always)]
fn halves<T, const N: usize>(x: &[T]) -> [&[T; N]; 2] {
    match x.as_chunks().0 {
        [first, second, ..] => [first, second],
        _ => unreachable!("the arrays are twice as long"),
    }
}

#[inline(always)]
fn halves_mut<T, const N: usize>(x: &mut [T]) -> [&mut [T; N]; 2] {
    match x.as_chunks_mut().0 {
        [first, second, ..] => [first, second],
        _ => unreachable!("the arrays are twice as long"),
    }
}

/// Both halves of one vector, or of two.
macro_rules! pairwise {
    ($op:path, $a:expr) => {
        unsafe { [$op($a[0]), $op($a[1])] }
    };
    ($op:path, $a:expr, $b:expr) => {
        unsafe { [$op($a[0], $b[0]), $op($a[1], $b[1])] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type W = [__m256i; 2];

    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        let [a, b]: [&[f32; 8]; 2] = halves(x);
        unsafe { [_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())] }
    }
    #[inline(always)]
    fn store(self, x: Self::F, out: &mut [f32; LANES]) {
        let [a, b]: [&mut [f32; 8]; 2] = halves_mut(out);
        unsafe {
            _mm256_storeu_ps(a.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(b.as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, bits: &[u16; LANES]) -> Self::F {
        let [a, b]: [&[u16; 8]; 2] = halves(bits);
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(a.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(b.as_ptr().cast())),
            ]
        }
    }
    #[inline(always)]
    fn load_bf16(self, bits: &[u16; LANES]) -> Self::F {
        let widen = |x: &[u16; 8]| unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        };
        let [a, b]: [&[u16; 8]; 2] = halves(bits);
        [widen(a), widen(b)]
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::F {
        let widen = |x: &[u8; 8]| unsafe {
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())))
        };
        let [a, b]: [&[u8; 8]; 2] = halves(x);
        [widen(a), widen(b)]
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::F {
        let widen = |x: &[u8; 8]| unsafe {
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast())))
        };
        let [a, b]: [&[u8; 8]; 2] = halves(x);
        [widen(a), widen(b)]
    }
    #[inline(always)]
    fn lookup(self, table: Self::F, places: &[u8; LANES]) -> Self::F {
        let pick = |places: &[u8; 8]| unsafe {
            let places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(places.as_ptr().cast()));
            let low = _mm256_permutevar8x32_ps(table[0], places);
            let high = _mm256_permutevar8x32_ps(table[1], places);
            // The bit worth 8 becomes the sign, by which the blend chooses.
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(places)))
        };
        let [a, b]: [&[u8; 8]; 2] = halves(places);
        [pick(a), pick(b)]
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &T, ahead_bytes: usize) {
        let line = std::ptr::from_ref(x).cast::<i8>().wrapping_add(ahead_bytes);
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        pairwise!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        pairwise!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>, x)
    }
    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        let power = |n: __m256| unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        };
        self.mul(x, [power(n[0]), power(n[1])])
    }
    #[inline(always)]
    fn select(self, bits: u16, x: Self::F, other: Self::F) -> Self::F {
        let pick = |bits: u16, x: __m256, other: __m256| unsafe {
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_and_si256(_mm256_set1_epi32(i32::from(bits)), lanes);
            let mask = _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lanes));
            _mm256_blendv_ps(other, x, mask)
        };
        [pick(bits, x[0], other[0]), pick(bits >> 8, x[1], other[1])]
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        unsafe {
            let half = _mm256_add_ps(x[0], x[1]);
            let quarter =
                _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            let pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        unsafe {
            let half = _mm256_max_ps(x[0], x[1]);
            let quarter =
                _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            let pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> Self::F {
        pairwise!(_mm256_cvtepi32_ps, x)
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, weights: Self::W, pair: i32) -> Self::I {
        unsafe {
            let pair = _mm256_set1_epi32(pair);
            [
                _mm256_add_epi32(sum[0], _mm256_madd_epi16(weights[0], pair)),
                _mm256_add_epi32(sum[1], _mm256_madd_epi16(weights[1], pair)),
            ]
        }
    }
    #[inline(always)]
    fn widen_u8(self, x: &[u8; 2 * LANES]) -> Self::W {
        let widen =
            |x: &[u8; 16]| unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(x.as_ptr().cast())) };
        let [a, b]: [&[u8; 16]; 2] = halves(x);
        [widen(a), widen(b)]
    }
    #[inline(always)]
    fn widen_i8(self, x: &[u8; 2 * LANES]) -> Self::W {
        let widen =
            |x: &[u8; 16]| unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(x.as_ptr().cast())) };
        let [a, b]: [&[u8; 16]; 2] = halves(x);
        [widen(a), widen(b)]
    }
    #[inline(always)]
    fn and(self, a: Self::W, mask: i16) -> Self::W {
        unsafe {
            let mask = _mm256_set1_epi16(mask);
            [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
        }
    }
    #[inline(always)]
    fn or(self, a: Self::W, b: Self::W) -> Self::W {
        pairwise!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn sub_words(self, a: Self::W, b: i16) -> Self::W {
        unsafe {
            let b = _mm256_set1_epi16(b);
            [_mm256_sub_epi16(a[0], b), _mm256_sub_epi16(a[1], b)]
        }
    }
    #[inline(always)]
    fn shl(self, a: Self::W, count: u32) -> Self::W {
        unsafe {
            let count = _mm_cvtsi32_si128(count as i32);
            [_mm256_sll_epi16(a[0], count), _mm256_sll_epi16(a[1], count)]
        }
    }
    #[inline(always)]
    fn shr(self, a: Self::W, count: u32) -> Self::W {
        unsafe {
            let count = _mm_cvtsi32_si128(count as i32);
            [_mm256_srl_epi16(a[0], count), _mm256_srl_epi16(a[1], count)]
        }
    }
    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { compiled(kernel) }
    }
}
