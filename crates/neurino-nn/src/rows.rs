//! Row-by-row work on the CPU as single loops: norms and activations.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use rayon::prelude::*;

use crate::simd::{self, Kernel, LANES, Simd};

/// From this many values on, rows are shared among threads.
const PARALLEL_VALUES_MIN: usize = 1 << 15;

/// Calls `work` for each row of `out` and the same rows of `x`, on all threads if there is enough.
fn each_row(
    out: &mut [f32],
    x: &mut [f32],
    features: usize,
    work: impl Fn(&mut [f32], &mut [f32], usize) + Sync,
) {
    if features == 0 {
        return;
    }
    if out.len() < PARALLEL_VALUES_MIN {
        let rows = out.chunks_exact_mut(features).zip(x.chunks_exact_mut(features));
        return rows.enumerate().for_each(|(row, (out, x))| work(out, x, row));
    }
    let rows = out.par_chunks_exact_mut(features).zip(x.par_chunks_exact_mut(features));
    rows.enumerate().for_each(|(row, (out, x))| work(out, x, row));
}

/// `x / sqrt(mean(x^2) + epsilon) * weight` of each row; if there is a `delta`, it is added to `x`
/// first.
pub(crate) fn rms_norm(
    x: &mut [f32],
    delta: Option<&[f32]>,
    weight: &[f32],
    epsilon: f32,
) -> Vec<f32> {
    let features = weight.len();
    let mut normed = vec![0.0; x.len()];
    each_row(&mut normed, x, features, |out, x, row| {
        let delta = delta.map(|delta| &delta[row * features..][..features]);
        simd::run(Norm { out, x, delta, weight, epsilon });
    });
    normed
}

struct Norm<'a> {
    out: &'a mut [f32],
    x: &'a mut [f32],
    delta: Option<&'a [f32]>,
    weight: &'a [f32],
    epsilon: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if let Some(delta) = self.delta {
            for (x, delta) in self.x.iter_mut().zip(delta) {
                *x += delta;
            }
        }
        let (whole, rest) = self.x.as_chunks::<LANES>();
        let mut squares = s.splat(0.0);
        for x in whole {
            let x = s.load(x);
            squares = s.fma(x, x, squares);
        }
        let mut sum = s.sum(squares);
        for x in rest {
            sum += x * x;
        }
        let scale = 1.0 / (sum / self.x.len() as f32 + self.epsilon).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(&*self.x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }
}

/// Adds `addend` to each row of `x`.
pub(crate) fn add_to_each(x: &mut [f32], addend: &[f32]) {
    /// Values that a thread takes at least.
    const PIECE: usize = 1 << 15;
    let features = addend.len();
    if features == 0 {
        return;
    }
    let piece = PIECE.div_ceil(features) * features;
    x.par_chunks_mut(piece).for_each(|x| {
        for row in x.chunks_exact_mut(features) {
            for (x, addend) in row.iter_mut().zip(addend) {
                *x += addend;
            }
        }
    });
}

/// `silu(gate) * up` in place of `gate`.
pub(crate) fn swiglu(gate: &mut [f32], up: &mut [f32]) {
    /// Values that a thread takes at once.
    const PIECE: usize = 4096;
    if gate.len() < PARALLEL_VALUES_MIN {
        return simd::run(Gate { gate, up });
    }
    let pieces = gate.par_chunks_mut(PIECE).zip(up.par_chunks_mut(PIECE));
    pieces.for_each(|(gate, up)| simd::run(Gate { gate, up }));
}

struct Gate<'a> {
    gate: &'a mut [f32],
    up: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gates, rest) = self.gate.as_chunks_mut::<LANES>();
        let (ups, rest_up) = self.up.as_chunks::<LANES>();
        for (gate, up) in gates.iter_mut().zip(ups) {
            s.store(gated(s, s.load(gate), s.load(up)), gate);
        }
        if !rest.is_empty() {
            let (mut gate, mut up) = ([0.0; LANES], [0.0; LANES]);
            gate[..rest.len()].copy_from_slice(rest);
            up[..rest.len()].copy_from_slice(rest_up);
            let (x, up) = (s.load(&gate), s.load(&up));
            s.store(gated(s, x, up), &mut gate);
            rest.copy_from_slice(&gate[..rest.len()]);
        }
    }
}

#[inline(always)]
fn gated<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    // Beyond 87 the sigmoid is 0 or 1 in all digits that f32 has.
    let inverse = s.min(s.sub(s.splat(0.0), gate), s.splat(87.0));
    let sigmoid = s.div(s.splat(1.0), s.add(s.splat(1.0), s.exp(inverse)));
    s.mul(s.mul(gate, sigmoid), up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * seed).sin() * 9.0).collect()
    }

    #[test]
    fn norm_follows_its_definition_on_every_instruction_set() {
        let (features, weight) = (70, values(70, 0.3));
        let (x, delta) = (values(features, 0.7), values(features, 1.9));
        for isa in Isa::available() {
            for delta in [None, Some(&*delta)] {
                let (mut sum, mut found) = (x.clone(), vec![0.0; features]);
                let (out, weight) = (&mut *found, &*weight);
                isa.run(Norm { out, x: &mut sum, delta, weight, epsilon: 0.5 });
                let add = |i: usize| x[i] + delta.map_or(0.0, |delta| delta[i]);
                let mean = (0..features).map(|i| add(i) * add(i)).sum::<f32>() / features as f32;
                for i in 0..features {
                    let expect = add(i) / (mean + 0.5).sqrt() * weight[i];
                    assert!((found[i] - expect).abs() < 1e-5, "{isa:?} {i}");
                    assert!((sum[i] - add(i)).abs() < f32::EPSILON);
                }
            }
        }
    }

    #[test]
    fn gate_follows_its_definition_even_at_the_ends() {
        let mut gate = values(37, 0.9);
        gate[..4].copy_from_slice(&[-1e30, 1e30, -95.0, 95.0]);
        let up = values(37, 0.4);
        for isa in Isa::available() {
            let (mut found, mut side) = (gate.clone(), up.clone());
            isa.run(Gate { gate: &mut found, up: &mut side });
            for ((found, gate), up) in found.iter().zip(&gate).zip(&up) {
                let gate = f64::from(*gate);
                let expect = (gate / (1.0 + (-gate).exp()) * f64::from(*up)) as f32;
                let limit = 1e-6 * expect.abs().max(1e-3);
                assert!((found - expect).abs() <= limit, "{isa:?} {found} {expect}");
            }
        }
    }
}
