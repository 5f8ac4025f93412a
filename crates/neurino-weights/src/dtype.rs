//! How numbers are stored, and their conversion to f32.
//!
//! GGUF block formats keep 32 consecutive weights of a row together (little endian):
//! - `Q4_0`: f16 d, 16 bytes; w = d * (q - 8)
//! - `Q4_1`: f16 d, f16 m, 16 bytes; w = d * q + m
//! - `Q8_0`: f16 d, 32 i8; w = d * q
//!
//! In the 4-bit formats the low nibbles are the first 16 weights, the high nibbles the last 16.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Weights in one block of the quantised formats.
pub const BLOCK: usize = 32;

/// The number format of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float (5-bit exponent).
    F16,
    /// 16-bit float (8-bit exponent).
    BF16,
    /// 4-bit blocks with a scale.
    Q4_0,
    /// 4-bit blocks with a scale and a minimum.
    Q4_1,
    /// 8-bit blocks with a scale.
    Q8_0,
    /// A format that can be listed but not read; its name.
    Other(&'static str),
}

impl DType {
    /// `(weights, bytes)` of the smallest unit, `None` for [`DType::Other`].
    pub fn unit(self) -> Option<(usize, usize)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::BF16 => Some((1, 2)),
            Self::Q4_0 => Some((BLOCK, 18)),
            Self::Q4_1 => Some((BLOCK, 20)),
            Self::Q8_0 => Some((BLOCK, 34)),
            Self::Other(_) => None,
        }
    }

    /// The format's usual spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q8_0 => "Q8_0",
            Self::Other(name) => name,
        }
    }

    /// Whether the format stores blocks of integers with a scale.
    pub fn is_quantized(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q4_1 | Self::Q8_0)
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

    /// Converts `bytes` to f32, appending to `out`. Bytes that do not fill a unit are ignored.
    /// [`DType::Other`] appends nothing.
    pub fn append_f32(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => {
                out.extend(bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)));
            }
            Self::F16 => append_f16(bytes, out),
            Self::BF16 => out.extend(
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&chunk| f32::from_bits(u32::from(u16::from_le_bytes(chunk)) << 16)),
            ),
            Self::Q4_0 => {
                for block in bytes.as_chunks::<18>().0 {
                    let d = scale(block[0], block[1]);
                    append_nibbles(&block[2..], out, |q| d * (f32::from(q) - 8.0));
                }
            }
            Self::Q4_1 => {
                for block in bytes.as_chunks::<20>().0 {
                    let (d, m) = (scale(block[0], block[1]), scale(block[2], block[3]));
                    append_nibbles(&block[4..], out, |q| d * f32::from(q) + m);
                }
            }
            Self::Q8_0 => {
                for block in bytes.as_chunks::<34>().0 {
                    let d = scale(block[0], block[1]);
                    out.extend(block[2..].iter().map(|&q| d * f32::from(q.cast_signed())));
                }
            }
            Self::Other(_) => {}
        }
    }
}

fn scale(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

fn append_nibbles(bytes: &[u8], out: &mut Vec<f32>, weight: impl Fn(u8) -> f32) {
    out.extend(bytes.iter().map(|byte| weight(byte & 15)));
    out.extend(bytes.iter().map(|byte| weight(byte >> 4)));
}

/// In pieces that stay in the first cache level, so that the conversion can use the CPU's own
/// instruction on aligned halves.
fn append_f16(bytes: &[u8], out: &mut Vec<f32>) {
    const PIECE: usize = 2048;
    let mut halves = [f16::ZERO; PIECE];
    for piece in bytes.chunks(PIECE * 2) {
        let (pairs, _) = piece.as_chunks::<2>();
        for (half, &pair) in halves.iter_mut().zip(pairs) {
            *half = f16::from_le_bytes(pair);
        }
        let start = out.len();
        out.resize(start + pairs.len(), 0.0);
        halves[..pairs.len()].convert_to_f32_slice(&mut out[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dtype: DType, bytes: &[u8], expect: &[f32]) {
        let mut found = Vec::new();
        dtype.append_f32(bytes, &mut found);
        assert_eq!(found, expect, "{dtype:?}");
    }

    #[test]
    fn plain_formats() {
        check(DType::F32, &1.5f32.to_le_bytes(), &[1.5]);
        check(DType::BF16, &[0x80, 0x3f, 0x20, 0xc1], &[1.0, -10.0]);
        check(DType::F16, &[0x00, 0x3c, 0x01, 0x00], &[1.0, 5.960_464_5e-8]);
        let bytes: Vec<u8> =
            (0..5000u16).flat_map(|i| f16::from_f32(f32::from(i % 97)).to_le_bytes()).collect();
        let expect: Vec<f32> = (0..5000u16).map(|i| f32::from(i % 97)).collect();
        check(DType::F16, &bytes, &expect);
    }

    #[test]
    fn blocks() {
        let half = |x: f32| f16::from_f32(x).to_le_bytes();
        let nibbles: Vec<u8> = (0..16u8).map(|i| i | ((15 - i) << 4)).collect();

        let block = [&half(0.5)[..], &nibbles].concat();
        let expect: Vec<f32> =
            (0..16).chain((0..16).rev()).map(|q| 0.5 * (q as f32 - 8.0)).collect();
        check(DType::Q4_0, &block, &expect);

        let block = [&half(0.5)[..], &half(-3.0), &nibbles].concat();
        let expect: Vec<f32> = (0..16).chain((0..16).rev()).map(|q| 0.5 * q as f32 - 3.0).collect();
        check(DType::Q4_1, &block, &expect);

        let quants: Vec<u8> = (-16i8..16).map(|q| (q * 8).cast_unsigned()).collect();
        let block = [&half(0.25)[..], &quants].concat();
        let expect: Vec<f32> = (-16..16).map(|q| 2.0 * q as f32).collect();
        check(DType::Q8_0, &block, &expect);
    }

    #[test]
    fn sizes_refuse_overflow_and_partial_blocks() {
        assert_eq!(DType::Q4_1.size_bytes(&[3, 64]), Some(120));
        assert_eq!(DType::Q4_1.size_bytes(&[3, 33]), None);
        assert_eq!(DType::F32.size_bytes(&[usize::MAX, 2]), None);
        assert_eq!(DType::F32.size_bytes(&[]), Some(4));
        assert_eq!(DType::Other("Q6_K").size_bytes(&[1]), None);
    }
}
