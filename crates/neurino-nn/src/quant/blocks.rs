//! Integer dot products over one block of 32 weights, for each instruction set.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use neurino_weights::dtype::BLOCK;

/// One instruction set's way of working on blocks.
pub(super) trait Blocks: Copy + Send + Sync {
    /// A block of weights, widened to 16 bits.
    type Weights: Copy;
    /// A running f32 sum, possibly spread over lanes.
    type Sum: Copy;

    /// The empty sum.
    fn zero(self) -> Self::Sum;
    /// Widens 4-bit weights, 0 to 15: the low nibbles are the first half of the block.
    fn unpack4(self, quants: &[u8; BLOCK / 2]) -> Self::Weights;
    /// Widens signed 8-bit weights.
    fn unpack8(self, quants: &[u8; BLOCK]) -> Self::Weights;
    /// `sum + scale * (weights · activations)`.
    fn accumulate(
        self,
        sum: Self::Sum,
        weights: Self::Weights,
        activations: &[i16; BLOCK],
        scale: f32,
    ) -> Self::Sum;
    /// The sum over all lanes.
    fn total(self, sum: Self::Sum) -> f32;
}

/// Plain Rust, for every CPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Blocks for Portable {
    type Weights = [i16; BLOCK];
    type Sum = f32;

    #[inline(always)]
    fn zero(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn unpack4(self, quants: &[u8; BLOCK / 2]) -> [i16; BLOCK] {
        let mut weights = [0; BLOCK];
        let (low, high) = weights.split_at_mut(BLOCK / 2);
        for ((low, high), quant) in low.iter_mut().zip(high).zip(quants) {
            *low = i16::from(quant & 15);
            *high = i16::from(quant >> 4);
        }
        weights
    }

    #[inline(always)]
    fn unpack8(self, quants: &[u8; BLOCK]) -> [i16; BLOCK] {
        quants.map(|quant| i16::from(quant.cast_signed()))
    }

    #[inline(always)]
    fn accumulate(
        self,
        sum: f32,
        weights: [i16; BLOCK],
        activations: &[i16; BLOCK],
        scale: f32,
    ) -> f32 {
        // At most 32 * 128 * 32767, so the sum fits.
        let products = weights.iter().zip(activations).map(|(w, a)| i32::from(*w) * i32::from(*a));
        sum + products.sum::<i32>() as f32 * scale
    }

    #[inline(always)]
    fn total(self, sum: f32) -> f32 {
        sum
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m128i, __m256, __m256i};

    use pulp::cast;
    use pulp::x86::V3;

    use super::{BLOCK, Blocks};

    /// AVX2 with FMA: 16 products an instruction.
    impl Blocks for V3 {
        /// The first and the second 16 weights.
        type Weights = [__m256i; 2];
        type Sum = __m256;

        #[inline(always)]
        fn zero(self) -> __m256 {
            self.avx._mm256_setzero_ps()
        }

        #[inline(always)]
        fn unpack4(self, quants: &[u8; BLOCK / 2]) -> [__m256i; 2] {
            let quants: __m128i = cast(*quants);
            let nibble = self.sse2._mm_set1_epi8(15);
            let low = self.sse2._mm_and_si128(quants, nibble);
            let high = self.sse2._mm_and_si128(self.sse2._mm_srli_epi16::<4>(quants), nibble);
            [self.avx2._mm256_cvtepu8_epi16(low), self.avx2._mm256_cvtepu8_epi16(high)]
        }

        #[inline(always)]
        fn unpack8(self, quants: &[u8; BLOCK]) -> [__m256i; 2] {
            let [first, second]: [__m128i; 2] = cast(*quants);
            [self.avx2._mm256_cvtepi8_epi16(first), self.avx2._mm256_cvtepi8_epi16(second)]
        }

        #[inline(always)]
        fn accumulate(
            self,
            sum: __m256,
            weights: [__m256i; 2],
            activations: &[i16; BLOCK],
            scale: f32,
        ) -> __m256 {
            let [first, second]: [__m256i; 2] = cast(*activations);
            let products = self.avx2._mm256_add_epi32(
                self.avx2._mm256_madd_epi16(weights[0], first),
                self.avx2._mm256_madd_epi16(weights[1], second),
            );
            let products = self.avx._mm256_cvtepi32_ps(products);
            self.fma._mm256_fmadd_ps(products, self.avx._mm256_set1_ps(scale), sum)
        }

        #[inline(always)]
        fn total(self, sum: __m256) -> f32 {
            let lanes: [f32; 8] = cast(sum);
            lanes.iter().sum()
        }
    }
}
