//! The 4-bit forms of image models: kept as their files have them, and unpacked a tile at a time while
//! they are multiplied. The unpacked numbers are those of the reader, bit for bit.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use neurino_weights::hqq::HqqMatrix;
use neurino_weights::nf4::Nf4Matrix;

use super::QuantMatmul;
use super::on_device::OnDevice;
use crate::dense::Single;
use crate::device::{in_memory, is_cpu, upload};
use crate::panels::{Geometry, Room, Source, multiply};
use crate::simd::{Isa, Kernel, LANES, Simd};

/// Multiplication with `matrix`, whose first dimension is the result's, on `device`. It stays packed;
/// on devices other than the CPU `dtype` is multiplied.
pub fn nf4_on(
    matrix: impl Into<Arc<Nf4Matrix>>,
    device: &Device,
    dtype: DType,
) -> Arc<dyn QuantMatmul> {
    let matrix = matrix.into();
    if is_cpu(device) {
        return Arc::new(Unpacking(Arc::unwrap_or_clone(matrix)));
    }
    Arc::new(OnDevice::nf4(&matrix, device, dtype))
}

/// As [`nf4_on`], for HQQ's form.
pub fn hqq_on(
    matrix: impl Into<Arc<HqqMatrix>>,
    device: &Device,
    dtype: DType,
) -> Arc<dyn QuantMatmul> {
    let matrix = matrix.into();
    if is_cpu(device) {
        return Arc::new(Unpacking(Arc::unwrap_or_clone(matrix)));
    }
    Arc::new(OnDevice::hqq(&matrix, device, dtype))
}

/// Weights that can be unpacked in pieces of rows.
trait Rows: Debug + Send + Sync + 'static {
    /// `[out, in]`.
    fn out_and_in(&self) -> [usize; 2];

    /// Writes the weights `first ..` of all, counted row after row, of which none is behind the last
    /// one of a row.
    fn unpack<S: Simd>(&self, s: S, first: usize, out: &mut [f32]);
}

/// Multiplies on the CPU with weights that stay packed.
#[derive(Debug)]
struct Unpacking<M>(M);

impl<M: Rows> Unpacking<M> {
    fn product(&self, x: &[f32], rows: usize, isa: Isa) -> Vec<f32> {
        let [_, features] = self.0.out_and_in();
        multiply(x, &Geometry::rows(rows, features), self, None, isa)
    }
}

impl<M: Rows> QuantMatmul for Unpacking<M> {
    fn matmul(&self, x: Tensor<2>) -> Tensor<2> {
        let ([rows, _], [out, _]) = (x.dims(), self.0.out_and_in());
        let device = x.device();
        upload(self.product(&in_memory(x), rows, Isa::best()), [rows, out], &device)
    }

    fn shape(&self) -> [usize; 2] {
        self.0.out_and_in()
    }
}

impl<M: Rows> Source<Single> for Unpacking<M> {
    fn out_features(&self) -> usize {
        self.0.out_and_in()[0]
    }

    /// Enough that unpacking is a small part of the work.
    fn rows_at_once(&self) -> usize {
        256
    }

    fn panel<'s>(
        &'s self,
        panel: usize,
        inputs: Range<usize>,
        room: &'s mut Room,
        isa: Isa,
    ) -> &'s [[f32; LANES]] {
        isa.run(Unpack { matrix: &self.0, panel, inputs, room });
        &room.panel
    }
}

/// Unpacks a panel.
struct Unpack<'a, M> {
    matrix: &'a M,
    panel: usize,
    inputs: Range<usize>,
    room: &'a mut Room,
}

impl<M: Rows> Kernel for Unpack<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { matrix, panel, inputs, room } = self;
        let [out, features] = matrix.out_and_in();
        let count = inputs.len();
        room.rows.resize(LANES * count, 0.0);
        for (lane, row) in room.rows.chunks_exact_mut(count).enumerate() {
            let feature = panel * LANES + lane;
            if feature < out {
                matrix.unpack(s, feature * features + inputs.start, row);
            } else {
                row.fill(0.0);
            }
        }
        room.panel.resize(count, [0.0; LANES]);
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (to, row) in rows.iter_mut().zip(room.rows.chunks_exact(count)) {
            *to = row;
        }
        for (i, weights) in room.panel.iter_mut().enumerate() {
            for (weight, row) in weights.iter_mut().zip(rows) {
                *weight = row[i];
            }
        }
    }
}

impl Rows for Nf4Matrix {
    fn out_and_in(&self) -> [usize; 2] {
        let out = self.shape.first().copied().unwrap_or(0);
        [out, self.shape.iter().skip(1).product()]
    }

    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, first: usize, out: &mut [f32]) {
        let table = s.load(&self.table);
        let mut done = 0;
        while done < out.len() {
            let at = first + done;
            let block = at / self.block_size;
            let count = (out.len() - done).min((block + 1) * self.block_size - at);
            let scale = self.scales[block];
            let mut run = &mut out[done..done + count];
            let mut quants = &self.quants[at / 2..];
            if !at.is_multiple_of(2) {
                // The second weight of a byte.
                run[0] = self.table[usize::from(quants[0] & 15)] * scale;
                run = &mut run[1..];
                quants = &quants[1..];
            }
            let (whole, rest) = run.as_chunks_mut::<LANES>();
            let bytes = quants.as_chunks::<{ LANES / 2 }>().0;
            for (weights, bytes) in whole.iter_mut().zip(bytes) {
                let mut places = [0u8; LANES];
                for (pair, byte) in places.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
                    *pair = [byte >> 4, byte & 15];
                }
                s.store(s.mul(s.lookup(table, &places), s.splat(scale)), weights);
            }
            for (pair, byte) in rest.chunks_mut(2).zip(&quants[whole.len() * LANES / 2..]) {
                for (weight, place) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                    *weight = self.table[usize::from(place)] * scale;
                }
            }
            done += count;
        }
    }
}

impl Rows for HqqMatrix {
    fn out_and_in(&self) -> [usize; 2] {
        self.shape
    }

    #[inline(always)]
    fn unpack<S: Simd>(&self, _s: S, first: usize, out: &mut [f32]) {
        let [rows, columns] = self.dims;
        let parts = 8 / self.bits as usize;
        let packed_rows = rows / parts;
        let mask = ((1u32 << self.bits) - 1) as u8;
        let mut done = 0;
        while done < out.len() {
            let (row, column) = ((first + done) / columns, (first + done) % columns);
            let run = &mut out[done..];
            let count = run.len().min(columns - column);
            let run = &mut run[..count];
            let quants = &self.quants[row % packed_rows * columns + column..][..count];
            // The first part has the highest bits.
            let shift = (parts - 1 - row / packed_rows) as u32 * self.bits;
            if self.groups_are_rows {
                let (zero, scale) = (self.zeros[row], self.scales[row]);
                for (weight, quant) in run.iter_mut().zip(quants) {
                    *weight = (f32::from(quant >> shift & mask) - zero) * scale;
                }
            } else {
                let zeros = &self.zeros[column..][..count];
                let scales = &self.scales[column..][..count];
                for (((weight, quant), zero), scale) in
                    run.iter_mut().zip(quants).zip(zeros).zip(scales)
                {
                    *weight = (f32::from(quant >> shift & mask) - zero) * scale;
                }
            }
            done += count;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(count: usize, seed: u32) -> Vec<u8> {
        let mut state = seed ^ 0x9E37_79B9;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    pub(in super::super) fn floats(count: usize, seed: u32) -> Vec<f32> {
        bytes(count, seed).iter().map(|byte| f32::from(*byte) / 100.0 - 1.2).collect()
    }

    pub(in super::super) fn nf4(shape: [usize; 2], block_size: usize) -> Nf4Matrix {
        let count: usize = shape.iter().product();
        Nf4Matrix {
            shape: shape.to_vec(),
            block_size,
            quants: bytes(count.div_ceil(2), 1),
            table: std::array::from_fn(|i| (i as f32 - 7.4) * 0.11),
            scales: floats(count.div_ceil(block_size), 2),
        }
    }

    pub(in super::super) fn hqq(
        shape: [usize; 2],
        bits: u32,
        groups_are_rows: bool,
        dims: [usize; 2],
    ) -> HqqMatrix {
        let groups = if groups_are_rows { dims[0] } else { dims[1] };
        HqqMatrix {
            shape,
            bits,
            groups_are_rows,
            dims,
            quants: bytes(dims[0] * dims[1] * bits as usize / 8, 3),
            scales: floats(groups, 4),
            zeros: floats(groups, 5).iter().map(|x| x * 3.0 + 7.5).collect(),
        }
    }

    /// On every instruction set: the unpacked numbers of the reader, and their product.
    fn check<M: Rows>(matrix: M, unpacked: &[f32], rows: usize) {
        let [out, features] = matrix.out_and_in();
        let x = floats(rows * features, 6);
        let matrix = Unpacking(matrix);
        for isa in Isa::available() {
            let identity: Vec<f32> = (0..features * features)
                .map(|i| if i / features == i % features { 1.0 } else { 0.0 })
                .collect();
            let columns = matrix.product(&identity, features, isa);
            for (i, found) in columns.iter().enumerate() {
                let expect = unpacked[i % out * features + i / out];
                assert!((found - expect).abs() <= 0.0, "{isa:?} {i}: {found}, not {expect}");
            }
            let found = matrix.product(&x, rows, isa);
            for (i, found) in found.iter().enumerate() {
                let x = &x[i / out * features..][..features];
                let w = &unpacked[i % out * features..][..features];
                let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                let (expect, size) = products
                    .fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
                let off = (f64::from(*found) - expect).abs();
                assert!(off <= 1e-6 * size, "{isa:?} {i}: {found}, not {expect}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 48, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn nf4_of_any_shape(
            (out, features, rows) in (1..40usize, 1..150usize, 1..20usize),
            half_block in 1..70usize,
        ) {
            let matrix = nf4([out, features], 2 * half_block);
            let unpacked = matrix.to_f32();
            check(matrix, &unpacked, rows);
        }

        #[test]
        fn hqq_of_both_axes(
            (out, features, rows) in (1..5usize, 1..10usize, 1..20usize),
            bits in prop_oneof![Just(2u32), Just(4), Just(8)],
            groups_are_rows: bool,
            group in prop_oneof![Just(8usize), Just(16), Just(64)],
        ) {
            let shape = [out * 8, features * 16];
            let other = out * features * 128 / group;
            let dims = if groups_are_rows { [other, group] } else { [group, other] };
            prop_assume!(dims[0].is_multiple_of(8 / bits as usize));
            let matrix = hqq(shape, bits, groups_are_rows, dims);
            let unpacked = matrix.to_f32();
            check(matrix, &unpacked, rows);
        }
    }

    #[test]
    fn tensors_go_in_and_out() {
        let device = Device::flex();
        let matrix = nf4([48, 640], 64);
        let x: Tensor<2> = upload(floats(3 * 640, 7), [3, 640], &device);
        let weight: Tensor<2> = upload(matrix.to_f32(), [48, 640], &device);
        let expect = in_memory(x.clone().matmul(weight.transpose()));
        let layer = nf4_on(matrix, &device, DType::F32);
        assert_eq!(layer.shape(), [48, 640]);
        let y = layer.matmul(x);
        assert_eq!(y.dims(), [3, 48]);
        for (found, expect) in in_memory(y).iter().zip(expect) {
            assert!((found - expect).abs() < 1e-3, "{found} {expect}");
        }
    }
}
