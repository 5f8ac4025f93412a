//! The 4-bit forms of image models in the memory of a device that is not the CPU: they stay packed, and
//! some rows of the matrix at a time are unpacked by plain tensor operations and multiplied.

use std::fmt::Debug;
use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;

use super::QuantMatmul;
use crate::device::upload;

/// Weights that are unpacked at once.
const WEIGHTS_AT_ONCE: usize = 16 << 20;
/// Memory that unpacking takes on a device: each weight up to 16 bytes on the way.
pub const UNPACKING_BYTES: u64 = 16 * WEIGHTS_AT_ONCE as u64;
/// 4-bit weights of a word.
const WORD: usize = 8;
/// Where the weights of a word lie: of each byte the first one is in the upper half.
const SHIFTS: [i32; WORD] = [4, 0, 12, 8, 20, 16, 28, 24];

/// A matrix that can unpack some of its rows.
trait Slabs: Debug + Send + Sync {
    /// `[out, in]`.
    fn shape(&self) -> [usize; 2];

    /// Rows that can be unpacked at once; all but the last such range begin and end at multiples.
    fn rows_at_once(&self) -> usize;

    /// `[rows, in]`, f32.
    fn rows(&self, rows: Range<usize>) -> Tensor<2>;

    /// The same as numbers of the type of `like`, which they are multiplied with.
    fn rows_for(&self, like: &Tensor<2>, rows: Range<usize>) -> Tensor<2> {
        self.rows(rows).cast(like.dtype())
    }
}

/// Multiplies with what a matrix unpacks.
#[derive(Debug)]
pub(super) struct OnDevice<M> {
    matrix: M,
    /// The numbers that are multiplied.
    dtype: DType,
}

impl OnDevice<Nf4> {
    pub(super) fn nf4(matrix: &Nf4Matrix, device: &Device, dtype: DType) -> Self {
        Self { matrix: Nf4::new(matrix, device, WEIGHTS_AT_ONCE), dtype }
    }
}

impl OnDevice<Hqq> {
    pub(super) fn hqq(matrix: &HqqMatrix, device: &Device, dtype: DType) -> Self {
        Self { matrix: Hqq::new(matrix, device, WEIGHTS_AT_ONCE), dtype }
    }
}

impl<M: Slabs> QuantMatmul for OnDevice<M> {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let ([out, _], step) = (self.matrix.shape(), self.matrix.rows_at_once().max(1));
        let x = x.cast(self.dtype);
        let slab = |first: usize| {
            let weight = self.matrix.rows_for(&x, first..out.min(first + step));
            x.clone().matmul(weight.transpose()).cast(DType::F32)
        };
        let mut slabs: Vec<_> = (0..out).step_by(step).map(slab).collect();
        if slabs.len() == 1 { slabs.remove(0) } else { Tensor::cat(slabs, 1) }
    }

    fn shape(&self) -> [usize; 2] {
        self.matrix.shape()
    }
}

/// Words of four bytes on a device; the last one is filled up.
fn words(bytes: &[u8], device: &Device) -> Tensor<1, Int> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let count = bytes.len() / 4;
    let data = TensorData::from_bytes_vec(bytes, [count], DType::I32);
    Tensor::from_data(data, (device, DType::I32))
}

/// The bits of each word from each of `shifts` on, one after the other: `[words * shifts]`.
fn fields(words: &Tensor<1, Int>, shifts: &[i32], bits: u32) -> Tensor<1, Int> {
    let field = |shift: i32| {
        // The sign is shifted in above the bits that stay.
        words.clone().bitwise_right_shift_scalar(shift).bitwise_and_scalar((1 << bits) - 1)
    };
    let all: Tensor<2, Int> = Tensor::stack(shifts.iter().map(|&shift| field(shift)).collect(), 1);
    all.flatten(0, 1)
}

/// bitsandbytes' nf4.
#[derive(Debug)]
pub(super) struct Nf4 {
    shape: [usize; 2],
    block: usize,
    rows_at_once: usize,
    words: Tensor<1, Int>,
    table: Tensor<1>,
    scales: Tensor<1>,
}

impl Nf4 {
    fn new(matrix: &Nf4Matrix, device: &Device, weights_at_once: usize) -> Self {
        let out = matrix.shape.first().copied().unwrap_or(0);
        let inp = matrix.shape.iter().skip(1).product::<usize>();
        // Ranges of rows have to begin with a word and with a block.
        let fits = |rows: usize| {
            let weights = rows * inp;
            weights.is_multiple_of(WORD) && weights.is_multiple_of(matrix.block_size)
        };
        let least = (1..=out).find(|&rows| fits(rows)).unwrap_or(out.max(1));
        let times = (weights_at_once / (least * inp).max(1)).max(1);
        let scales = matrix.scales.len();
        Self {
            shape: [out, inp],
            block: matrix.block_size,
            rows_at_once: (least * times).min(out.max(1)),
            words: words(&matrix.quants, device),
            table: upload(matrix.table.to_vec(), [16], device),
            scales: upload(matrix.scales.clone(), [scales], device),
        }
    }
}

impl Slabs for Nf4 {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn rows(&self, rows: Range<usize>) -> Tensor<2> {
        let [_, inp] = self.shape;
        let (first, count) = (rows.start * inp, rows.len() * inp);
        let (first_word, n_words) = (first / WORD, count.div_ceil(WORD));
        let (first_block, n_blocks) = (first / self.block, count.div_ceil(self.block));
        let places = fields(&self.words.clone().narrow(0, first_word, n_words), &SHIFTS, 4);
        let values = self.table.clone().select(0, places.narrow(0, 0, count));
        let scales: Tensor<2> =
            self.scales.clone().narrow(0, first_block, n_blocks).unsqueeze_dim(1);
        let scales = scales.expand([n_blocks, self.block]).reshape([n_blocks * self.block]);
        (values * scales.narrow(0, 0, count)).reshape([rows.len(), inp])
    }

    /// On a card in one launch, where it has a kernel for these rows.
    #[cfg(feature = "kernels")]
    fn rows_for(&self, like: &Tensor<2>, rows: Range<usize>) -> Tensor<2> {
        let (parts, inp) = ([&self.table, &self.scales], self.shape[1]);
        // Tests have the tensors of the CPU, which no kernel takes.
        if !crate::device::is_cpu(&like.device())
            && let Ok(weights) = neurino_kernels::tensor::nf4_rows(
                like,
                &self.words,
                parts,
                rows.clone(),
                inp,
                self.block,
            )
        {
            return weights;
        }
        self.rows(rows).cast(like.dtype())
    }
}

/// HQQ's integers. They are a matrix of their own, whose rows are groups of weights or have one of each
/// group; rows of the weights are unpacked at once that are whole rows of it.
#[derive(Debug)]
pub(super) struct Hqq {
    shape: [usize; 2],
    bits: u32,
    /// Rows and columns of the integers' matrix.
    dims: [usize; 2],
    rows_at_once: usize,
    words: Tensor<1, Int>,
    /// `[rows, 1]` or `[1, columns]`.
    scales: Tensor<2>,
    /// As `scales`.
    zeros: Tensor<2>,
}

impl Hqq {
    fn new(matrix: &HqqMatrix, device: &Device, weights_at_once: usize) -> Self {
        let ([rows, columns], [out, inp]) = (matrix.dims, matrix.shape);
        // Rows of weights that are whole rows of integers; those have to begin with a word.
        let least = columns / greatest_common_divisor(columns, inp).max(1);
        let fits = columns.is_multiple_of(4) && least > 0 && out.is_multiple_of(least);
        let times = (weights_at_once / (least * inp).max(1)).max(1);
        let rows_at_once = if fits { (least * times).min(out) } else { out };
        let shape = if matrix.groups_are_rows { [rows, 1] } else { [1, columns] };
        Self {
            shape: matrix.shape,
            bits: matrix.bits,
            dims: matrix.dims,
            rows_at_once,
            words: words(&matrix.quants, device),
            scales: upload(matrix.scales.clone(), shape, device),
            zeros: upload(matrix.zeros.clone(), shape, device),
        }
    }
}

impl Slabs for Hqq {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    fn rows(&self, wanted: Range<usize>) -> Tensor<2> {
        let ([rows, columns], inp) = (self.dims, self.shape[1]);
        let first = wanted.start * inp / columns;
        let count = (wanted.len() * inp).div_ceil(columns);
        let parts = 8 / self.bits as usize;
        // The first part of the rows has the highest bits of its bytes, and so on.
        let each = rows / parts;
        let of_part = |part: usize| {
            let begin = first.max(part * each);
            let end = (first + count).min((part + 1) * each);
            if begin >= end {
                return None;
            }
            let (from, len) = ((begin - part * each) * columns, (end - begin) * columns);
            let shift = ((parts - 1 - part) as u32 * self.bits) as i32;
            let shifts: [i32; 4] = std::array::from_fn(|byte| 8 * byte as i32 + shift);
            let words = self.words.clone().narrow(0, from / 4, len.div_ceil(4));
            Some(fields(&words, &shifts, self.bits).narrow(0, 0, len))
        };
        let numbers: Vec<_> = (0..parts).filter_map(of_part).collect();
        let numbers = Tensor::cat(numbers, 0).reshape([count, columns]);
        // One for each group: of a row, or of a column, whose groups all rows have a part of.
        let of_rows = |each: &Tensor<2>| match each.dims()[0] {
            1 => each.clone(),
            _ => each.clone().narrow(0, first, count),
        };
        let weights = (numbers.float() - of_rows(&self.zeros)) * of_rows(&self.scales);
        weights.reshape([wanted.len(), inp])
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unpacking::tests::{floats, hqq, nf4};
    use super::*;
    use crate::device::in_memory;

    /// The reader's numbers, and their products.
    fn check<M: Slabs>(matrix: M, unpacked: &[f32], seq: usize) {
        let ([out, inp], device) = (matrix.shape(), Device::flex());
        let layer = OnDevice { matrix, dtype: DType::F32 };
        let eye: Tensor<2> = upload(
            (0..inp * inp).map(|i| if i / inp == i % inp { 1.0 } else { 0.0 }).collect(),
            [inp, inp],
            &device,
        );
        let columns = in_memory(layer.matmul(eye));
        for (i, found) in columns.iter().enumerate() {
            let expect = unpacked[i % out * inp + i / out];
            assert!((found - expect).abs() <= f32::EPSILON * expect.abs(), "{i}: {found} {expect}");
        }
        let x = floats(seq * inp, 6);
        let found = in_memory(layer.matmul(upload(x.clone(), [seq, inp], &device)));
        for (i, found) in found.iter().enumerate() {
            let (x, w) = (&x[i / out * inp..][..inp], &unpacked[i % out * inp..][..inp]);
            let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (expect, size) =
                products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            assert!((f64::from(*found) - expect).abs() <= 1e-5 * size, "{i}: {found} {expect}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 48, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn nf4_of_any_shape_in_any_slabs(
            (out, inp, seq) in (1..40usize, 1..150usize, 1..20usize),
            half_block in 1..70usize,
            at_once in 1..2000usize,
        ) {
            let matrix = nf4([out, inp], 2 * half_block);
            check(Nf4::new(&matrix, &Device::flex(), at_once), &matrix.to_f32(), seq);
        }

        #[test]
        fn hqq_of_both_axes(
            (out, inp, seq) in (1..5usize, 1..10usize, 1..20usize),
            bits in prop_oneof![Just(2u32), Just(4), Just(8)],
            groups_are_rows: bool,
            group in prop_oneof![Just(8usize), Just(16), Just(64)],
            at_once in 1..2000usize,
        ) {
            let shape = [out * 8, inp * 16];
            let other = out * inp * 128 / group;
            let dims = if groups_are_rows { [other, group] } else { [group, other] };
            prop_assume!(dims[0].is_multiple_of(8 / bits as usize));
            let matrix = hqq(shape, bits, groups_are_rows, dims);
            check(Hqq::new(&matrix, &Device::flex(), at_once), &matrix.to_f32(), seq);
        }
    }

    #[test]
    fn large_matrices_are_unpacked_in_slabs() {
        let device = Device::flex();
        let slabs = |shape, at_once| Nf4::new(&nf4(shape, 64), &device, at_once).rows_at_once();
        assert_eq!(slabs([3072, 64], 16 * 64), 16);
        // Two rows make a whole number of blocks.
        assert_eq!(slabs([128, 96], 5 * 96), 4);
        // HQQ's groups of 64: within rows, and across 128 / 64 of them.
        let slabs_of_hqq = |groups_are_rows, dims| {
            let matrix = hqq([128, 96], 4, groups_are_rows, dims);
            Hqq::new(&matrix, &device, 5 * 96).rows_at_once()
        };
        assert_eq!((slabs_of_hqq(true, [192, 64]), slabs_of_hqq(false, [64, 192])), (4, 4));
        // No range of rows does but all of them.
        assert_eq!(slabs([7, 9], 9), 7);
    }
}
