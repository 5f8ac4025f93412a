//! Dense weights on the CPU, kept in the 16 or 32 bits they are stored in.
//!
//! A sum has 16 lanes, lane `l` of which adds the products of the inputs `l`, `l + 16`, .. in order;
//! then the lanes are added. That holds for one row as for many, so rows never change each other.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use std::ops::Range;

use burn::tensor::{DType, Tensor, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::cpu::PANEL;
use crate::simd::{Isa, Kernel, LANES, Simd};

/// Memory of activations that stays in a core's second cache level while weights pass by.
const X_BYTES_MAX: usize = 512 << 10;

/// Weights of shape `[out, in]`, row after row.
#[derive(Debug)]
pub(crate) struct DenseMatrix {
    out_features: usize,
    in_features: usize,
    /// f32, f16 or bf16.
    data: TensorData,
}

impl DenseMatrix {
    /// The values of a tensor of the CPU; those that are neither f16 nor bf16 as f32.
    pub(crate) fn new(weight: Tensor<2>) -> Self {
        let [out_features, in_features] = weight.dims();
        let weight = match weight.dtype() {
            DType::F16 | DType::BF16 | DType::F32 => weight,
            _ => weight.cast(DType::F32),
        };
        Self { out_features, in_features, data: weight.into_data() }
    }

    pub(crate) fn out_features(&self) -> usize {
        self.out_features
    }

    pub(crate) fn in_features(&self) -> usize {
        self.in_features
    }

    /// `[out, in]`, f32, f16 or bf16.
    pub(crate) fn data(&self) -> &TensorData {
        &self.data
    }

    /// Appends row `row` as f32.
    pub(crate) fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let range = row * self.in_features..(row + 1) * self.in_features;
        match self.values() {
            Values::F32(values) => out.extend_from_slice(&values[range]),
            Values::F16(values) => {
                out.extend(values[range].iter().map(|x| f16::from_bits(*x).to_f32()));
            }
            Values::Bf16(values) => {
                out.extend(values[range].iter().map(|x| bf16::from_bits(*x).to_f32()));
            }
        }
    }

    fn values(&self) -> Values<'_> {
        const IS: &str = "a tensor's data has the number format that it says";
        match self.data.dtype() {
            DType::F16 => Values::F16(self.data.as_slice::<f16>().expect(IS).reinterpret_cast()),
            DType::BF16 => Values::Bf16(self.data.as_slice::<bf16>().expect(IS).reinterpret_cast()),
            _ => Values::F32(self.data.as_slice().expect(IS)),
        }
    }

    /// Multiplies the features of `panels` with all rows of `x` into `out`, one slice a row.
    pub(crate) fn multiply(
        &self,
        x: &[f32],
        panels: Range<usize>,
        out: &mut [&mut [f32]],
        isa: Isa,
    ) {
        let features = panels.start * PANEL..self.out_features.min(panels.end * PANEL);
        let range = features.start * self.in_features..features.end * self.in_features;
        let in_features = self.in_features;
        match self.values() {
            Values::F32(w) => isa.run(Rows::<Single> { w: &w[range], x, in_features, out }),
            Values::F16(w) => isa.run(Rows::<Half> { w: &w[range], x, in_features, out }),
            Values::Bf16(w) => isa.run(Rows::<Brain> { w: &w[range], x, in_features, out }),
        }
    }
}

enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
}

/// A stored number format.
pub(crate) trait Stored: Send + Sync {
    type Bits: Copy + Default + Send + Sync;
    fn load<S: Simd>(s: S, from: &[Self::Bits; LANES]) -> S::F;
}

pub(crate) struct Single;
pub(crate) struct Half;
pub(crate) struct Brain;

impl Stored for Single {
    type Bits = f32;
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[f32; LANES]) -> S::F {
        s.load(from)
    }
}

impl Stored for Half {
    type Bits = u16;
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u16; LANES]) -> S::F {
        s.load_f16(from)
    }
}

impl Stored for Brain {
    type Bits = u16;
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u16; LANES]) -> S::F {
        s.load_bf16(from)
    }
}

/// Some features times all rows.
struct Rows<'a, 'o, W: Stored> {
    w: &'a [W::Bits],
    x: &'a [f32],
    in_features: usize,
    out: &'a mut [&'o mut [f32]],
}

impl<W: Stored> Kernel for Rows<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { w, x, in_features: k, out } = self;
        let block = (X_BYTES_MAX / (k * size_of::<f32>())).max(6);
        for (x, out) in x.chunks(block * k).zip(out.chunks_mut(block)) {
            if S::WIDE {
                pass::<S, W, 4>(s, w, x, k, out);
            } else {
                pass::<S, W, 2>(s, w, x, k, out);
            }
        }
    }
}

/// All features, `C` at a time, times rows that stay in the cache.
#[inline(always)]
fn pass<S: Simd, W: Stored, const C: usize>(
    s: S,
    w: &[W::Bits],
    x: &[f32],
    k: usize,
    out: &mut [&mut [f32]],
) {
    let count = w.len() / k;
    let whole = count / C * C;
    for first in (0..whole).step_by(C) {
        features::<S, W, C>(s, &w[first * k..], x, k, first, out);
    }
    for first in whole..count {
        features::<S, W, 1>(s, &w[first * k..], x, k, first, out);
    }
}

#[inline(always)]
fn features<S: Simd, W: Stored, const C: usize>(
    s: S,
    w: &[W::Bits],
    x: &[f32],
    k: usize,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let mut row = 0;
    if S::WIDE {
        while row + 6 <= out.len() {
            tile::<S, W, 6, C>(s, w, &x[row * k..], k, first, &mut out[row..]);
            row += 6;
        }
    }
    while row + 3 <= out.len() {
        tile::<S, W, 3, C>(s, w, &x[row * k..], k, first, &mut out[row..]);
        row += 3;
    }
    while row < out.len() {
        tile::<S, W, 1, C>(s, w, &x[row * k..], k, first, &mut out[row..]);
        row += 1;
    }
}

/// `C` features, whose weights are the first of `w`, of `R` rows.
#[inline(always)]
fn tile<S: Simd, W: Stored, const R: usize, const C: usize>(
    s: S,
    w: &[W::Bits],
    x: &[f32],
    k: usize,
    first: usize,
    out: &mut [&mut [f32]],
) {
    let steps = k / LANES;
    let mut w_rows: [&[[W::Bits; LANES]]; C] = [&[]; C];
    for (c, row) in w_rows.iter_mut().enumerate() {
        *row = &w[c * k..][..k].as_chunks().0[..steps];
    }
    let mut x_rows: [&[[f32; LANES]]; R] = [&[]; R];
    for (r, row) in x_rows.iter_mut().enumerate() {
        *row = &x[r * k..][..k].as_chunks().0[..steps];
    }
    let mut sums = [[s.splat(0.0); C]; R];
    for step in 0..steps {
        let mut weights = [s.splat(0.0); C];
        for c in 0..C {
            weights[c] = W::load(s, &w_rows[c][step]);
            if R == 1 {
                // Rows are too short for the CPU to guess where the next ones are.
                s.prefetch(&w_rows[c][step], C * k * size_of::<W::Bits>());
            }
        }
        for r in 0..R {
            let x = s.load(&x_rows[r][step]);
            for c in 0..C {
                sums[r][c] = s.fma(weights[c], x, sums[r][c]);
            }
        }
    }
    let rest = k - steps * LANES;
    if rest > 0 {
        for r in 0..R {
            let mut last = [0.0; LANES];
            last[..rest].copy_from_slice(&x[(r + 1) * k - rest..(r + 1) * k]);
            for c in 0..C {
                let mut weights = [W::Bits::default(); LANES];
                weights[..rest].copy_from_slice(&w[(c + 1) * k - rest..(c + 1) * k]);
                sums[r][c] = s.fma(W::load(s, &weights), s.load(&last), sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            out[r][first + c] = s.sum(sums[r][c]);
        }
    }
}
