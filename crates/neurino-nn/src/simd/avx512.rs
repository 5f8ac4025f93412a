//! AVX-512 with its 16-bit dot product (VNNI): Intel servers, AMD from Zen 4 on.
#![expect(clippy::inline_always, reason = "see the parent module")]
#![expect(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "intrinsics ask for an instruction set: a value of `Avx512` comes from `detect` alone, which checked it. Loads and stores are of arrays as long as the vector"
)]
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "intrinsics, told by their names")
)]

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// The CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn compiled<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type W = __m512i;

    const WIDE: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, out: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn load_f16(self, bits: &[u16; LANES]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, bits: &[u16; LANES]) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn lookup(self, table: __m512, places: &[u8; LANES]) -> __m512 {
        unsafe {
            let places = _mm512_cvtepu8_epi32(_mm_loadu_si128(places.as_ptr().cast()));
            _mm512_permutexvar_ps(places, table)
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, x: &T, ahead_bytes: usize) {
        let line = std::ptr::from_ref(x).cast::<i8>().wrapping_add(ahead_bytes);
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0>(x) }
    }
    #[inline(always)]
    fn scale(self, x: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(x, n) }
    }
    #[inline(always)]
    fn select(self, bits: u16, x: __m512, other: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(bits, other, x) }
    }
    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        unsafe {
            let half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let quarter =
                _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            let pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        unsafe {
            let half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
            let quarter =
                _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            let pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn to_f32(self, x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, pair: i32) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sum, weights, _mm512_set1_epi32(pair)) }
    }
    #[inline(always)]
    fn widen_u8(self, x: &[u8; 2 * LANES]) -> __m512i {
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn widen_i8(self, x: &[u8; 2 * LANES]) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, mask: i16) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi16(mask)) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn sub_words(self, a: __m512i, b: i16) -> __m512i {
        unsafe { _mm512_sub_epi16(a, _mm512_set1_epi16(b)) }
    }
    #[inline(always)]
    fn shl(self, a: __m512i, count: u32) -> __m512i {
        unsafe { _mm512_sll_epi16(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: __m512i, count: u32) -> __m512i {
        unsafe { _mm512_srl_epi16(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { compiled(kernel) }
    }
}
