//! A packed matrix as the kernels for cards take it.

#[cfg(any(feature = "kernels", test))]
use half::f16;
use neurino_kernels::format::Format;
#[cfg(any(feature = "kernels", test))]
use neurino_kernels::format::Packed;
use neurino_weights::dtype::BLOCK;

use super::Packing;
#[cfg(any(feature = "kernels", test))]
use super::{PackedMatrix, PackedRow};

/// Weights under one scale of a [`PackedRow`].
#[cfg(any(feature = "kernels", test))]
const PIECE: usize = 16;

/// What a row's integers and numbers become on the card.
fn format_of(packing: Packing) -> Format {
    match packing {
        Packing::Q4Symmetric => Format::Q4,
        // The products of a K-quant's two scales are rounded to f16, as its unpacked weights would be.
        Packing::Q4Minimum | Packing::Q4K => Format::Q4Offset,
        Packing::Grouped4 => Format::Q4Zero,
        Packing::Q5Symmetric | Packing::Q6K | Packing::Q8 => Format::Q8,
        Packing::Q5Minimum | Packing::Q5K => Format::Q8Offset,
        Packing::Grouped8 => Format::Q8Zero,
    }
}

/// Weights that share a scale in a card's form of a matrix with `features` inputs, of which `group`
/// share one where the packing does not say.
fn group_of(packing: Packing, features: usize, group: usize) -> usize {
    match packing {
        Packing::Q6K => BLOCK / 2,
        // The last group of a row is not whole if they do not divide it.
        Packing::Grouped4 | Packing::Grouped8 if features.is_multiple_of(group) => group,
        _ => BLOCK,
    }
}

/// Memory that a matrix `[out, in]` takes on a card, without the permutation of a matrix of GPTQ.
pub(crate) fn size_bytes(packing: Packing, [out, features]: [usize; 2], group: usize) -> usize {
    let format = format_of(packing);
    // A format without offsets has one number in their place.
    let no_offsets = if format.has_offsets() { 0 } else { size_of::<f32>() };
    format.size_bytes([out, features, group_of(packing, features, group)]) + no_offsets
}

/// The integer of a row that is zero on the card; the kernels' bytes are signed, and a row's are not.
#[cfg(any(feature = "kernels", test))]
fn zero_of(packing: Packing) -> u8 {
    match packing {
        Packing::Q8 | Packing::Grouped8 => 128,
        Packing::Q6K => 32,
        Packing::Q5Symmetric => 16,
        Packing::Q5Minimum
        | Packing::Q5K
        | Packing::Q4Symmetric
        | Packing::Q4Minimum
        | Packing::Q4K
        | Packing::Grouped4 => 0,
    }
}

/// The same weights, scales and offsets in 16 bits.
#[cfg(any(feature = "kernels", test))]
pub(crate) fn repack(matrix: &PackedMatrix) -> Packed {
    let packing = matrix.packing();
    let (format, zero) = (format_of(packing), zero_of(packing));
    let (out, inner) = (matrix.out_features(), matrix.in_features());
    let group = group_of(packing, inner, matrix.group());
    let mut quants = Vec::with_capacity(out * inner);
    let mut scales = Vec::with_capacity(out * inner / group);
    let mut offsets = Vec::new();
    for row in 0..out {
        let PackedRow { quants: integers, scales: row_scales, minima } = matrix.row(row);
        quants.extend(integers.iter().map(|&q| q.wrapping_sub(zero).cast_signed()));
        for (scale, minimum) in row_scales.iter().zip(&minima).step_by(group / PIECE) {
            scales.push(f16::from_f32(*scale));
            if format.adds_offsets() {
                offsets.push(f16::from_f32(*minimum));
            } else if format.subtracts_zeros() {
                let lifted = if *scale == 0.0 { 0.0 } else { (-minimum / scale).round() };
                offsets.push(f16::from_f32(lifted - f32::from(zero)));
            }
        }
    }
    Packed::new(format, [out, inner, group], &quants, scales, offsets)
}

#[cfg(test)]
mod tests {
    use neurino_weights::gptq::GptqMatrix;

    use super::*;

    /// All packings of GGUF with the bytes of their blocks, in which halves lie where `halves` says.
    const BLOCKS: [(Packing, usize, usize, &[usize]); 8] = [
        (Packing::Q4Symmetric, 32, 18, &[0]),
        (Packing::Q4Minimum, 32, 20, &[0, 2]),
        (Packing::Q5Symmetric, 32, 22, &[0]),
        (Packing::Q5Minimum, 32, 24, &[0, 2]),
        (Packing::Q8, 32, 34, &[0]),
        (Packing::Q4K, 256, 144, &[0, 2]),
        (Packing::Q5K, 256, 176, &[0, 2]),
        (Packing::Q6K, 256, 210, &[208]),
    ];

    #[test]
    fn what_is_repacked_means_the_same() {
        let (out, inner) = (3, 512);
        for (packing, weights, bytes, halves) in BLOCKS {
            let mut blocks: Vec<u8> =
                (0..out * inner / weights * bytes).map(|i| (i * 37 % 251) as u8).collect();
            for block in blocks.chunks_exact_mut(bytes) {
                for at in halves {
                    block[*at..at + 2].copy_from_slice(&f16::from_f32(0.125).to_le_bytes());
                }
            }
            let matrix =
                PackedMatrix::from_blocks(packing, out, inner, &blocks, |row| row).expect("packs");
            assert_same(&matrix, 32);
        }
    }

    #[test]
    fn groups_keep_one_scale_each() {
        for (bits, group_size, features) in [(4, 128, 256), (8, 64, 256), (4, 96, 256)] {
            let groups = features / group_size + usize::from(features % group_size > 0);
            let (out, per_byte) = (2, 8 / bits as usize);
            let gptq = GptqMatrix {
                bits,
                out_features: out,
                in_features: features,
                group_size,
                quants: (0..out * features / per_byte).map(|i| (i * 37 % 251) as u8).collect(),
                scales: (0..out * groups).map(|i| 0.25 + i as f32).collect(),
                zeros: (0..out * groups).map(|i| (i * 5 % 16) as u8).collect(),
                permutation: None,
            };
            assert_same(&PackedMatrix::from_gptq(&gptq).expect("packs"), group_size);
        }
    }

    /// The same weights in as many bytes as are planned.
    fn assert_same(matrix: &PackedMatrix, group: usize) {
        let (out, inner) = (matrix.out_features(), matrix.in_features());
        let (packed, packing) = (repack(matrix), matrix.packing());
        assert_eq!(packed.to_f32(), matrix.to_f32(), "{packing:?}");
        let offsets = if packed.format.has_offsets() { 0 } else { 4 };
        let planned = size_bytes(packing, [out, inner], group);
        assert_eq!(packed.size_bytes() + offsets, planned, "{packing:?}");
    }
}
