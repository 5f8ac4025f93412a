//! Activations on the CPU as single loops over values where they lie.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use rayon::prelude::*;

use crate::simd::{self, Kernel, LANES, Simd};

/// Values that a thread takes at once.
const PIECE: usize = 1 << 14;

/// A function of one number.
pub(crate) trait Function: Copy + Send + Sync {
    fn of<S: Simd>(self, s: S, x: S::F) -> S::F;
}

/// `x / (1 + exp(-factor x))`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swish {
    pub(crate) factor: f32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Gelu;

#[derive(Debug, Clone, Copy)]
pub(crate) struct GeluTanh;

impl Function for Swish {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::F) -> S::F {
        s.mul(x, sigmoid(s, s.mul(x, s.splat(self.factor))))
    }
}

impl Function for Gelu {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::F) -> S::F {
        // Below -6 nothing is left of `x`, but the last digit of the error function times `x` would be.
        let half = s.mul(s.max(x, s.splat(-6.0)), s.splat(0.5));
        s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::F) -> S::F {
        /// 2 sqrt(2 / pi): `(1 + tanh(u)) / 2` is the sigmoid of `2 u`.
        const FACTOR: f32 = 1.595_769;
        let inner = s.fma(s.mul(x, x), s.splat(0.044_715 * FACTOR), s.splat(FACTOR));
        s.mul(x, sigmoid(s, s.mul(x, inner)))
    }
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond 87 the sigmoid is 0 or 1 in all digits that f32 has.
    let inverse = s.min(s.sub(s.splat(0.0), x), s.splat(87.0));
    s.div(s.splat(1.0), s.add(s.splat(1.0), s.exp(inverse)))
}

/// The error function, to some units in the last place.
///
/// Source: the rational approximation on -4..4 of Eigen and XLA.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] =
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
    let x = s.min(s.max(x, s.splat(-4.0)), s.splat(4.0));
    let square = s.mul(x, x);
    s.div(s.mul(x, polynomial(s, square, &ABOVE)), polynomial(s, square, &BELOW))
}

/// The highest power's term first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, terms: &[f32; N]) -> S::F {
    let mut sum = s.splat(terms[0]);
    for term in &terms[1..] {
        sum = s.fma(sum, x, s.splat(*term));
    }
    sum
}

/// Replaces each value by its function.
pub(crate) fn map(x: &mut [f32], function: impl Function) {
    x.par_chunks_mut(PIECE).for_each(|x| simd::run(Map { x, function }));
}

struct Map<'a, F> {
    x: &'a mut [f32],
    function: F,
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (whole, rest) = self.x.as_chunks_mut::<LANES>();
        for x in whole {
            s.store(self.function.of(s, s.load(x)), x);
        }
        if !rest.is_empty() {
            let mut x = [0.0; LANES];
            x[..rest.len()].copy_from_slice(rest);
            s.store(self.function.of(s, s.load(&x)), &mut x);
            rest.copy_from_slice(&x[..rest.len()]);
        }
    }
}

/// `value * function(gate)` of rows of `features` values and as many gates.
pub(crate) fn gate(x: &[f32], features: usize, function: impl Function) -> Vec<f32> {
    let mut out = vec![0.0; x.len() / 2];
    if features == 0 {
        return out;
    }
    let rows = PIECE.div_ceil(features);
    let pieces = out.par_chunks_mut(rows * features).zip(x.par_chunks(2 * rows * features));
    pieces.for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(features).zip(x.chunks_exact(2 * features)) {
            let (values, gates) = x.split_at(features);
            simd::run(Gate { out, values, gates, function });
        }
    });
    out
}

struct Gate<'a, F> {
    out: &'a mut [f32],
    values: &'a [f32],
    gates: &'a [f32],
    function: F,
}

impl<F: Function> Kernel for Gate<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (gates, gates_rest) = self.gates.as_chunks::<LANES>();
        for ((out, value), gate) in out.iter_mut().zip(values).zip(gates) {
            s.store(s.mul(s.load(value), self.function.of(s, s.load(gate))), out);
        }
        let count = out_rest.len();
        if count > 0 {
            let (mut value, mut gate) = ([0.0; LANES], [0.0; LANES]);
            value[..count].copy_from_slice(values_rest);
            gate[..count].copy_from_slice(gates_rest);
            s.store(s.mul(s.load(&value), self.function.of(s, s.load(&gate))), &mut value);
            out_rest.copy_from_slice(&value[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn every_instruction_set_computes_alike() {
        let x: Vec<f32> = (0..77).map(|i| (i as f32 - 38.0) / 6.0).collect();
        let run = |isa: Isa| {
            let mut all = [x.clone(), x.clone(), x.clone()];
            let [a, b, c] = &mut all;
            isa.run(Map { x: a, function: Gelu });
            isa.run(Map { x: b, function: GeluTanh });
            isa.run(Map { x: c, function: Swish { factor: 1.702 } });
            let mut gated = vec![0.0; 77];
            isa.run(Gate { out: &mut gated, values: &x, gates: a, function: Gelu });
            (all, gated)
        };
        let [portable, others @ ..] = &*Isa::available() else { unreachable!() };
        let (expect, expect_gated) = run(*portable);
        for isa in others {
            let (found, gated) = run(*isa);
            let all = found.iter().flatten().chain(&gated);
            for (found, expect) in all.zip(expect.iter().flatten().chain(&expect_gated)) {
                assert!((found - expect).abs() <= 2e-6 * expect.abs().max(1.0), "{isa:?}");
            }
        }
    }
}
