//! Our own quantiser: 16- or 32-bit weights to blocks of 32 with 4 or 8 bits, while loading.
//!
//! Rounding between a block's smallest and largest weight wastes levels on outliers. For 4 bits the
//! scale and minimum are therefore searched: the range is shrunk in steps from either end, and for each
//! try the line through the rounded levels is fitted by least squares, which is the best scale and
//! minimum that those levels can have.

use half::f16;

use crate::dtype::BLOCK;

/// Levels of 4 bits, above zero.
const LEVELS: f32 = 15.0;
/// Parts of the range by which either end is moved inwards.
const SHRINKS: [f32; 5] = [0.0, 0.03, 0.06, 0.1, 0.15];
/// Times that levels and line are fitted to each other.
const FITS: usize = 3;

/// A line through levels: weight = scale * level + minimum, with both as they are stored.
#[derive(Clone, Copy)]
struct Line {
    scale: f16,
    minimum: f16,
}

impl Line {
    fn new(scale: f32, minimum: f32) -> Self {
        let limit = f16::MAX.to_f32();
        let half = |x: f32| f16::from_f32(x.clamp(-limit, limit));
        Self { scale: half(scale), minimum: half(minimum) }
    }

    /// The nearest level of each weight, and the sum of squared errors.
    fn fit(self, block: &[f32; BLOCK]) -> ([f32; BLOCK], f32) {
        let (scale, minimum) = (self.scale.to_f32(), self.minimum.to_f32());
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let mut error = 0.0;
        let levels = block.map(|weight| {
            let level = ((weight - minimum) * inverse).round_ties_even().clamp(0.0, LEVELS);
            let off = scale * level + minimum - weight;
            error += off * off;
            level
        });
        (levels, error)
    }

    /// The line that is nearest to `block` for these levels. `None` if they are all the same.
    fn through(levels: &[f32; BLOCK], block: &[f32; BLOCK]) -> Option<Self> {
        let n = BLOCK as f32;
        let (mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0);
        for (level, weight) in levels.iter().zip(block) {
            x += level;
            y += weight;
            xx += level * level;
            xy += level * weight;
        }
        let spread = n * xx - x * x;
        let scale = (n * xy - x * y) / spread;
        (spread > 0.0 && scale.is_finite()).then(|| Self::new(scale, (y - scale * x) / n))
    }
}

/// A block of 32 weights as GGUF's `Q4_1`, with near the least squared error that the format allows.
/// Weights that are not finite count as zero.
pub fn q4_1(block: &[f32; BLOCK]) -> [u8; 20] {
    let block = &block.map(|weight| if weight.is_finite() { weight } else { 0.0 });
    let smallest = block.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = largest - smallest;
    let mut best = Line::new(range / LEVELS, smallest);
    let (mut levels, mut least) = best.fit(block);
    for low in SHRINKS {
        for high in SHRINKS {
            let mut line = Line::new(range * (1.0 - low - high) / LEVELS, smallest + range * low);
            for _ in 0..FITS {
                let (found, error) = line.fit(block);
                if error < least {
                    (best, levels, least) = (line, found, error);
                }
                let Some(better) = Line::through(&found, block) else { break };
                line = better;
            }
        }
    }
    let mut out = [0; 20];
    out[..2].copy_from_slice(&best.scale.to_le_bytes());
    out[2..4].copy_from_slice(&best.minimum.to_le_bytes());
    let (first, last) = levels.split_at(BLOCK / 2);
    for (out, (low, high)) in out[4..].iter_mut().zip(first.iter().zip(last)) {
        *out = *low as u8 | (*high as u8) << 4;
    }
    out
}

/// A block of 32 weights as GGUF's `Q8_0`. Weights that are not finite count as zero.
pub fn q8_0(block: &[f32; BLOCK]) -> [u8; 34] {
    let block = block.map(|weight| if weight.is_finite() { weight } else { 0.0 });
    let largest = block.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
    let scale = f16::from_f32((largest / 127.0).min(f16::MAX.to_f32()));
    let width = scale.to_f32();
    let inverse = if width == 0.0 { 0.0 } else { 1.0 / width };
    let mut out = [0; 34];
    out[..2].copy_from_slice(&scale.to_le_bytes());
    for (out, weight) in out[2..].iter_mut().zip(block) {
        *out = (((weight * inverse).round_ties_even().clamp(-127.0, 127.0)) as i8).cast_unsigned();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    /// Bell-shaped weights: sums of twelve uniform numbers, some blocks with outliers.
    fn weights() -> Vec<[f32; BLOCK]> {
        let mut state = 7u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        let mut bell = || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let mut blocks: Vec<[f32; BLOCK]> =
            (0..512).map(|_| std::array::from_fn(|_| 0.02 * bell())).collect();
        for block in blocks.iter_mut().step_by(8) {
            block[5] *= 4.0;
        }
        blocks
    }

    /// The sum of squared errors.
    fn error<const BYTES: usize>(
        dtype: DType,
        quantize: impl Fn(&[f32; BLOCK]) -> [u8; BYTES],
    ) -> f32 {
        let one = |block: &[f32; BLOCK]| {
            let mut found = [f32::NAN; BLOCK];
            dtype.dequantize(&quantize(block), &mut found);
            found.iter().zip(block).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
        };
        weights().iter().map(one).sum()
    }

    fn pack(scale: f32, rest: &[u8], levels: [u8; BLOCK]) -> Vec<u8> {
        let nibbles = (0..BLOCK / 2).map(|i| levels[i] | levels[i + BLOCK / 2] << 4);
        f16::from_f32(scale)
            .to_le_bytes()
            .into_iter()
            .chain(rest.iter().copied())
            .chain(nibbles)
            .collect()
    }

    /// What ggml's quick quantiser does.
    fn plain_q4_0(block: &[f32; BLOCK]) -> [u8; 18] {
        let peak = block.iter().fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        let d = peak / -8.0;
        let levels = block.map(|x| ((x / d + 8.5) as u8).min(15));
        pack(d, &[], levels).try_into().expect("18 bytes")
    }

    /// What ggml's quick quantiser does.
    fn plain_q4_1(block: &[f32; BLOCK]) -> [u8; 20] {
        let low = block.iter().copied().fold(f32::INFINITY, f32::min);
        let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let d = (high - low) / 15.0;
        let levels = block.map(|x| (((x - low) / d + 0.5) as u8).min(15));
        pack(d, &f16::from_f32(low).to_le_bytes(), levels).try_into().expect("20 bytes")
    }

    #[test]
    fn the_search_beats_plain_rounding() {
        let simple = error(DType::Q4_0, plain_q4_0);
        let rounded = error(DType::Q4_1, plain_q4_1);
        let searched = error(DType::Q4_1, q4_1);
        assert!(searched < 0.80 * rounded, "{searched} of {rounded} with Q4_1");
        assert!(searched < 0.60 * simple, "{searched} of {simple} with Q4_0");
        let eight = error(DType::Q8_0, q8_0);
        assert!(eight < 0.01 * searched, "{eight} with 8 bits, {searched} with 4");
    }

    #[test]
    fn blocks_that_fit_the_format_are_kept_exactly() {
        for (scale, minimum) in [(0.25, -2.0), (1.0, 0.0), (0.0, 0.5), (0.0, 0.0)] {
            let block: [f32; BLOCK] =
                std::array::from_fn(|i| scale * ((i * 7) % 16) as f32 + minimum);
            let mut found = [f32::NAN; BLOCK];
            DType::Q4_1.dequantize(&q4_1(&block), &mut found);
            assert_eq!(found.as_slice(), block.as_slice(), "{scale} {minimum}");
        }
    }

    #[test]
    fn absurd_weights_do_not_spread() {
        let mut block = [0.5; BLOCK];
        (block[3], block[4], block[5]) = (f32::NAN, f32::INFINITY, 3e38);
        let mut found = [f32::NAN; BLOCK];
        DType::Q4_1.dequantize(&q4_1(&block), &mut found);
        assert!(found.iter().all(|x| x.is_finite()), "{found:?}");
        DType::Q8_0.dequantize(&q8_0(&block), &mut found);
        assert!(found.iter().all(|x| x.is_finite()), "{found:?}");
    }
}
