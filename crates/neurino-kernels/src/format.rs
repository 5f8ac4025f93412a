//! How packed weights lie in device memory, and what they mean.
//!
//! A matrix has `out` rows of `inner` weights. Eight neighbouring weights of a row are a *unit*: what
//! one lane of a warp takes at a time. Lanes side by side take units side by side, so all loads are
//! coalesced and a unit's activations are two neighbouring vectors of four.
//!
//! Scales belong to groups of neighbouring weights: 32 or 16 in GGUF, 128 mostly in GPTQ. GPTQ with
//! activation order (`g_idx`) is stored with its columns sorted by group; the activations are put
//! into the same order before the kernel.

use half::f16;

/// Weights of a unit.
pub const UNIT: usize = 8;

/// What the stored integers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bits; w = scale (q - 8). GGUF's Q4_0, symmetric GPTQ.
    Q4,
    /// 4 bits; w = scale q + offset. GGUF's Q4_1.
    Q4Offset,
    /// 4 bits; w = scale (q - offset), the offset being a whole number. Asymmetric GPTQ.
    Q4Zero,
    /// 8 bits, signed; w = scale q. GGUF's Q8_0, Q5_0 and Q6_K.
    Q8,
    /// 8 bits, signed; w = scale q + offset. GGUF's Q5_1 and Q5_K.
    Q8Offset,
    /// 8 bits, signed; w = scale (q - offset), the offset being a whole number. 8-bit GPTQ.
    Q8Zero,
}

impl Format {
    /// 32-bit words of a unit.
    pub const fn unit_words(self) -> usize {
        self.bits() / 4
    }

    /// Bits of an integer.
    pub const fn bits(self) -> usize {
        match self {
            Self::Q8 | Self::Q8Offset | Self::Q8Zero => 8,
            Self::Q4 | Self::Q4Offset | Self::Q4Zero => 4,
        }
    }

    /// Whether every group has an offset beside its scale.
    pub const fn has_offsets(self) -> bool {
        self.adds_offsets() || self.subtracts_zeros()
    }

    /// Whether offsets are added to the scaled integers.
    pub const fn adds_offsets(self) -> bool {
        matches!(self, Self::Q4Offset | Self::Q8Offset)
    }

    /// Whether offsets are subtracted from the integers before they are scaled.
    pub const fn subtracts_zeros(self) -> bool {
        matches!(self, Self::Q4Zero | Self::Q8Zero)
    }

    /// Bytes of a matrix `[out, inner]` with scales of `group` weights each.
    pub const fn size_bytes(self, [out, inner, group]: [usize; 3]) -> usize {
        let halves = if self.has_offsets() { 2 } else { 1 };
        out * inner / 8 * self.bits() + out * (inner / group) * halves * size_of::<f16>()
    }
}

/// A packed matrix as it is uploaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// What the integers mean.
    pub format: Format,
    /// Rows.
    pub out: usize,
    /// Weights of a row, a multiple of `group`.
    pub inner: usize,
    /// Neighbouring weights with one scale, a multiple of [`UNIT`].
    pub group: usize,
    /// Unit after unit, row after row. In a unit of 4-bit weights the first is the lowest nibble of
    /// its word, in one of 8-bit weights the lowest byte of its first.
    pub words: Vec<u32>,
    /// One a group, row after row.
    pub scales: Vec<f16>,
    /// One a group, or empty.
    pub offsets: Vec<f16>,
}

impl Packed {
    /// Packs integers, row after row: 0 to 15, or -128 to 127 in the formats of 8 bits.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    pub fn new(
        format: Format,
        [out, inner, group]: [usize; 3],
        quants: &[i8],
        scales: Vec<f16>,
        offsets: Vec<f16>,
    ) -> Self {
        assert!(group.is_multiple_of(UNIT) && inner.is_multiple_of(group), "groups of {group}");
        let groups = out * (inner / group);
        assert_eq!(quants.len(), out * inner, "integers of a matrix");
        assert_eq!(scales.len(), groups, "scales of a matrix");
        assert_eq!(offsets.len(), if format.has_offsets() { groups } else { 0 }, "offsets");
        let bits = format.bits();
        let word = |quants: &[i8]| {
            let place = |(i, &q): (usize, &i8)| (u32::from(q.cast_unsigned())) << (bits * i);
            quants.iter().enumerate().map(place).fold(0, |word, quant| word | quant)
        };
        let words = quants.chunks_exact(32 / bits).map(word).collect();
        Self { format, out, inner, group, words, scales, offsets }
    }

    /// The oracle: all weights, row after row.
    pub fn to_f32(&self) -> Vec<f32> {
        let weight = |i: usize| {
            let group = i / self.group;
            let scale = self.scales[group].to_f32();
            let nibble = || (self.words[i / 8] >> (4 * (i % 8)) & 15) as f32;
            let byte = || {
                let byte = (self.words[i / 4] >> (8 * (i % 4)) & 255) as u8;
                f32::from(byte.cast_signed())
            };
            let offset = || self.offsets[group].to_f32();
            match self.format {
                Format::Q4 => scale * (nibble() - 8.0),
                Format::Q4Offset => scale * nibble() + offset(),
                Format::Q4Zero => scale * (nibble() - offset()),
                Format::Q8 => scale * byte(),
                Format::Q8Offset => scale * byte() + offset(),
                Format::Q8Zero => scale * (byte() - offset()),
            }
        };
        (0..self.out * self.inner).map(weight).collect()
    }

    /// Bytes on the device.
    pub fn size_bytes(&self) -> usize {
        4 * self.words.len() + 2 * (self.scales.len() + self.offsets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out() {
        let quants: Vec<i8> = (0..32).map(|i| i % 16).collect();
        let scales = vec![f16::from_f32(0.5), f16::from_f32(2.0)];
        let offsets = vec![f16::from_f32(3.0), f16::from_f32(-1.0)];
        let pack = |format: Format, quants: &[i8]| {
            let offsets = if format.has_offsets() { offsets.clone() } else { Vec::new() };
            Packed::new(format, [2, 16, 16], quants, scales.clone(), offsets).to_f32()
        };
        assert_eq!(pack(Format::Q4, &quants)[15..18], [3.5, -16.0, -14.0]);
        assert_eq!(pack(Format::Q4Offset, &quants)[15..18], [10.5, -1.0, 1.0]);
        assert_eq!(pack(Format::Q4Zero, &quants)[15..18], [6.0, 2.0, 4.0]);
        let signed: Vec<i8> = (0..32_i16).map(|i| (i * 8 - 128) as i8).collect();
        assert_eq!(pack(Format::Q8, &signed)[15..18], [-4.0, 0.0, 16.0]);
        assert_eq!(pack(Format::Q8Offset, &signed)[15..18], [-1.0, -1.0, 15.0]);
        assert_eq!(pack(Format::Q8Zero, &signed)[15..18], [-5.5, 2.0, 18.0]);
        for format in [Format::Q4, Format::Q4Zero, Format::Q8, Format::Q8Offset] {
            let offsets = if format.has_offsets() { offsets.clone() } else { Vec::new() };
            let packed = Packed::new(format, [2, 16, 16], &quants, scales.clone(), offsets);
            assert_eq!(packed.size_bytes(), format.size_bytes([2, 16, 16]), "{format:?}");
        }
    }
}
