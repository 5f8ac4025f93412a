//! Packed weights on a card: unpacked in registers for a few rows, in memory for many.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::f16;
use neurino_kernels::format::{Format, Packed};
use neurino_kernels::tensor::{PackedTensors, packed_product};

use crate::device::upload;
use crate::quant::{PackedMatrix, PackedRow, Packing, QuantMatmul};

/// Weights with one scale in the sources that have fixed blocks.
const BLOCK: usize = 32;
/// Weights under one scale of a [`PackedRow`].
const PIECE: usize = 16;

/// A packed matrix on a card.
#[derive(Debug)]
pub struct CudaMatrix {
    /// `[out, in]`
    shape: [usize; 2],
    tensors: PackedTensors,
    /// The input that is multiplied with column `i`, if that is not input `i`.
    permutation: Option<Tensor<1, Int>>,
}

impl CudaMatrix {
    /// Uploads `matrix`. `None` if its packing has no kernel; unpack it instead.
    pub fn new(matrix: &PackedMatrix, device: &Device) -> Option<Self> {
        let packed = repack(matrix)?;
        let groups = packed.inner / packed.group;
        let words: Vec<i32> = packed.words.iter().map(|word| word.cast_signed()).collect();
        let row_words = words.len() / packed.out;
        let halves = |values: Vec<f16>| {
            let shape = [packed.out, groups];
            Tensor::<2>::from_data(TensorData::new(values, shape), (device, DType::F16))
        };
        let offsets = if packed.format.has_offsets() {
            halves(packed.offsets)
        } else {
            upload(vec![0.0], [1, 1], device)
        };
        let order = matrix.permutation().map(|order| {
            let order: Vec<i32> = order.iter().map(|at| at.cast_signed()).collect();
            let len = order.len();
            Tensor::from_data(TensorData::new(order, [len]), (device, DType::I32))
        });
        Some(Self {
            shape: [packed.out, packed.inner],
            tensors: PackedTensors {
                format: packed.format,
                words: Tensor::from_data(
                    TensorData::new(words, [packed.out, row_words]),
                    (device, DType::I32),
                ),
                scales: halves(packed.scales),
                offsets,
            },
            permutation: order,
        })
    }
}

impl QuantMatmul for CudaMatrix {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.permutation {
            Some(order) => x.select(1, order.clone()),
            None => x,
        };
        match packed_product(x, &self.tensors, false) {
            Ok(y) => y,
            Err(error) => unreachable!("the shape was checked when the matrix was made: {error}"),
        }
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }
}

/// What a row's integers and numbers become on the card.
fn format_of(packing: Packing) -> Option<Format> {
    match packing {
        Packing::Q4Symmetric => Some(Format::Q4),
        // The products of Q4_K's two scales are rounded to f16, as its unpacked weights would be.
        Packing::Q4Minimum | Packing::Q4K => Some(Format::Q4Offset),
        Packing::Grouped4 => Some(Format::Q4Zero),
        Packing::Q8 => Some(Format::Q8),
        Packing::Q5Symmetric
        | Packing::Q5Minimum
        | Packing::Q5K
        | Packing::Q6K
        | Packing::Grouped8 => None,
    }
}

fn repack(matrix: &PackedMatrix) -> Option<Packed> {
    let format = format_of(matrix.packing())?;
    let (out, inner) = (matrix.out_features(), matrix.in_features());
    let mut quants = Vec::with_capacity(out * inner);
    let mut scales = Vec::with_capacity(out * inner / BLOCK);
    let mut offsets = Vec::new();
    for row in 0..out {
        let PackedRow { quants: integers, scales: row_scales, minima } = matrix.row(row);
        // Signed integers come lifted by 128.
        let signed =
            |q: u8| if format == Format::Q8 { (q ^ 0x80).cast_signed() } else { q.cast_signed() };
        quants.extend(integers.iter().map(|&q| signed(q)));
        for (scale, minimum) in row_scales.iter().zip(&minima).step_by(BLOCK / PIECE) {
            scales.push(f16::from_f32(*scale));
            match format {
                Format::Q4Offset => offsets.push(f16::from_f32(*minimum)),
                Format::Q4Zero => {
                    let zero = if *scale == 0.0 { 0.0 } else { (-minimum / scale).round() };
                    offsets.push(f16::from_f32(zero));
                }
                Format::Q4 | Format::Q8 => {}
            }
        }
    }
    Some(Packed::new(format, [out, inner, BLOCK], &quants, scales, offsets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repacked_means_the_same() {
        let (out, inner) = (3, 64);
        for (packing, head) in
            [(Packing::Q4Symmetric, 2), (Packing::Q4Minimum, 4), (Packing::Q8, 2)]
        {
            let bytes = head + packing.quant_bytes();
            let mut blocks: Vec<u8> =
                (0..out * inner / BLOCK * bytes).map(|i| (i * 37 % 251) as u8).collect();
            for block in blocks.chunks_exact_mut(bytes) {
                for half in block[..head].chunks_exact_mut(2) {
                    half.copy_from_slice(&f16::from_f32(0.125).to_le_bytes());
                }
            }
            let matrix =
                PackedMatrix::from_blocks(packing, out, inner, &blocks, |row| row).expect("packs");
            let ours = repack(&matrix).expect("has a format").to_f32();
            assert_eq!(ours, matrix.to_f32(), "{packing:?}");
        }
    }
}
