//! How numbers are stored, and their conversion to f32.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::blocks;

/// Weights in one block of the simple quantised formats.
pub const BLOCK: usize = 32;
/// Weights in one block of the K formats.
pub const SUPER_BLOCK: usize = 256;

/// The number format of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float (5-bit exponent).
    F16,
    /// 16-bit float (8-bit exponent).
    BF16,
    /// GGUF: 4-bit blocks with a scale.
    Q4_0,
    /// GGUF: 4-bit blocks with a scale and a minimum.
    Q4_1,
    /// GGUF: 5-bit blocks with a scale.
    Q5_0,
    /// GGUF: 5-bit blocks with a scale and a minimum.
    Q5_1,
    /// GGUF: 8-bit blocks with a scale.
    Q8_0,
    /// GGUF: 4 bits, blocks of 256 with eight 6-bit scales and minima.
    Q4K,
    /// GGUF: 5 bits, blocks of 256 with eight 6-bit scales and minima.
    Q5K,
    /// GGUF: 6 bits, blocks of 256 with sixteen 8-bit scales.
    Q6K,
    /// 64-bit float: scales beside weights.
    F64,
    /// 64-bit integer: dimensions beside quantised weights.
    I64,
    /// 32-bit integer: packed integers of quantised weights.
    I32,
    /// 8-bit integer: packed integers of quantised weights.
    U8,
    /// A format that can be listed but not read; its name.
    Other(&'static str),
}

impl DType {
    /// The formats that hold weights by themselves, for messages.
    pub const READABLE: &'static str =
        "F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1 or Q4_0";

    /// `(weights, bytes)` of the smallest unit, `None` for [`DType::Other`].
    pub fn unit(self) -> Option<(usize, usize)> {
        match self {
            Self::F32 | Self::I32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::I64 | Self::F64 => Some((1, 8)),
            Self::U8 => Some((1, 1)),
            Self::Q4_0 => Some((BLOCK, 18)),
            Self::Q4_1 => Some((BLOCK, 20)),
            Self::Q5_0 => Some((BLOCK, 22)),
            Self::Q5_1 => Some((BLOCK, 24)),
            Self::Q8_0 => Some((BLOCK, 34)),
            Self::Q4K => Some((SUPER_BLOCK, 144)),
            Self::Q5K => Some((SUPER_BLOCK, 176)),
            Self::Q6K => Some((SUPER_BLOCK, 210)),
            Self::Other(_) => None,
        }
    }

    /// The format's usual spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::U8 => "U8",
            Self::Other(name) => name,
        }
    }

    /// Whether the format stores blocks of integers with a scale.
    pub fn is_quantized(self) -> bool {
        self.unit().is_some_and(|(weights, _)| weights > 1)
    }

    /// Whether the format stands for real numbers by itself, so that it converts to f32.
    pub fn is_float(self) -> bool {
        !matches!(self, Self::I64 | Self::I32 | Self::U8 | Self::Other(_))
    }

    /// Bytes of a tensor of `shape`; `None` if the format is not readable, the last dimension does
    /// not hold whole blocks, or the size overflows.
    pub fn size_bytes(self, shape: &[usize]) -> Option<usize> {
        let (weights, bytes) = self.unit()?;
        if !shape.last().copied().unwrap_or(1).is_multiple_of(weights) {
            return None;
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (count / weights).checked_mul(bytes)
    }

    /// Converts whole units in `bytes` to f32. Weights of `out` for which there are no bytes stay
    /// as they are; integers and [`DType::Other`] write nothing.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => {
                for (out, &chunk) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *out = f32::from_le_bytes(chunk);
                }
            }
            Self::F64 => {
                for (out, &chunk) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *out = f64::from_le_bytes(chunk) as f32;
                }
            }
            Self::F16 => widen_f16(bytes, out),
            Self::BF16 => {
                for (out, &chunk) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(chunk)) << 16);
                }
            }
            Self::Q4_0 => blocks::each(bytes, out, blocks::q4_0),
            Self::Q4_1 => blocks::each(bytes, out, blocks::q4_1),
            Self::Q5_0 => blocks::each(bytes, out, blocks::q5_0),
            Self::Q5_1 => blocks::each(bytes, out, blocks::q5_1),
            Self::Q8_0 => blocks::each(bytes, out, blocks::q8_0),
            Self::Q4K => blocks::each(bytes, out, blocks::q4_k),
            Self::Q5K => blocks::each(bytes, out, blocks::q5_k),
            Self::Q6K => blocks::each(bytes, out, blocks::q6_k),
            Self::I64 | Self::I32 | Self::U8 | Self::Other(_) => {}
        }
    }
}

/// In pieces that stay in the first cache level, so that the conversion can use the CPU's own
/// instruction on aligned halves.
fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    const PIECE: usize = 2048;
    let mut halves = [f16::ZERO; PIECE];
    for (bytes, out) in bytes.as_chunks::<2>().0.chunks(PIECE).zip(out.chunks_mut(PIECE)) {
        let count = bytes.len().min(out.len());
        for (half, &pair) in halves.iter_mut().zip(&bytes[..count]) {
            *half = f16::from_le_bytes(pair);
        }
        halves[..count].convert_to_f32_slice(&mut out[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dtype: DType, bytes: &[u8], expect: &[f32]) {
        let mut found = vec![f32::NAN; expect.len()];
        dtype.dequantize(bytes, &mut found);
        assert_eq!(found, expect, "{dtype:?}");
    }

    #[test]
    fn plain_formats() {
        check(DType::F32, &1.5f32.to_le_bytes(), &[1.5]);
        check(DType::F64, &(-2.25f64).to_le_bytes(), &[-2.25]);
        check(DType::BF16, &[0x80, 0x3f, 0x20, 0xc1], &[1.0, -10.0]);
        check(DType::F16, &[0x00, 0x3c, 0x01, 0x00], &[1.0, 5.960_464_5e-8]);
        let bytes: Vec<u8> =
            (0..5000u16).flat_map(|i| f16::from_f32(f32::from(i % 97)).to_le_bytes()).collect();
        let expect: Vec<f32> = (0..5000u16).map(|i| f32::from(i % 97)).collect();
        check(DType::F16, &bytes, &expect);
    }

    #[test]
    fn sizes_refuse_overflow_and_partial_blocks() {
        assert_eq!(DType::Q4_1.size_bytes(&[3, 64]), Some(120));
        assert_eq!(DType::Q4_1.size_bytes(&[3, 33]), None);
        assert_eq!(DType::Q6K.size_bytes(&[2, 512]), Some(840));
        assert_eq!(DType::Q6K.size_bytes(&[2, 32]), None);
        assert_eq!(DType::F32.size_bytes(&[usize::MAX, 2]), None);
        assert_eq!(DType::F32.size_bytes(&[]), Some(4));
        assert_eq!(DType::Other("Q3_K").size_bytes(&[1]), None);
    }
}
