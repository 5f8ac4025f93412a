//! The norms of pictures and tokens on the CPU: one pass for what is measured, one that applies it.
//!
//! Pixels are measured in runs of [`RUN`], relative to the first one of the run, in f32; the runs are
//! put together in f64 and in their order (Chan et al. 1979).
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use rayon::prelude::*;

use crate::elementwise::{Function, Swish};
use crate::simd::{self, Kernel, LANES, Simd};

/// Pixels that are measured together.
const RUN: usize = 128;
/// Values that a thread takes at once.
const PIECE: usize = 1 << 14;

/// What a group norm does to a channel of a picture: `(x - mean) * gain + shift`.
struct Scaling {
    mean: Vec<f32>,
    gain: Vec<f32>,
    shift: Vec<f32>,
}

/// Normalises groups of channels of pictures of `pixels` pixels each.
pub(super) fn group_norm(
    x: &mut [f32],
    pixels: usize,
    (gamma, beta): (&[f32], &[f32]),
    groups: usize,
    epsilon: f64,
    silu: bool,
) {
    let channels = gamma.len();
    if x.is_empty() || channels == 0 {
        return;
    }
    for picture in x.chunks_exact_mut(pixels * channels) {
        let scaling = measure(picture, (gamma, beta), groups, epsilon);
        let rows = PIECE.div_ceil(channels);
        picture.par_chunks_mut(rows * channels).for_each(|x| {
            if silu {
                simd::run(Scale { x, scaling: &scaling, after: Swish { factor: 1.0 } });
            } else {
                simd::run(Scale { x, scaling: &scaling, after: Same });
            }
        });
    }
}

fn measure(
    picture: &[f32],
    (gamma, beta): (&[f32], &[f32]),
    groups: usize,
    epsilon: f64,
) -> Scaling {
    let channels = gamma.len();
    let runs: Vec<Sums> =
        picture.par_chunks(RUN * channels).map(|x| simd::run(Measure { x, channels })).collect();
    let size = channels / groups;
    let mut scaling = Scaling {
        mean: Vec::with_capacity(channels),
        gain: Vec::with_capacity(channels),
        shift: beta.to_vec(),
    };
    for group in 0..groups {
        let mut whole = Moments::default();
        for (run, pixels) in runs.iter().zip(picture.chunks(RUN * channels)) {
            let count = (pixels.len() / channels) as f64;
            let range = group * size..(group + 1) * size;
            let sums = run.sums[range.clone()].iter().zip(&run.squares[range.clone()]);
            for (pivot, (sum, squares)) in pixels[range].iter().zip(sums) {
                let (sum, squares) = (f64::from(*sum), f64::from(*squares));
                let mean = f64::from(*pivot) + sum / count;
                whole.add(&Moments { count, mean, squares: squares - sum * sum / count });
            }
        }
        let inverse = 1.0 / (whole.squares / whole.count + epsilon).sqrt();
        for gamma in &gamma[group * size..][..size] {
            scaling.mean.push(whole.mean as f32);
            scaling.gain.push((inverse * f64::from(*gamma)) as f32);
        }
    }
    scaling
}

/// Of some values.
#[derive(Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    /// The sum of the squared distances to the mean.
    squares: f64,
}

impl Moments {
    fn add(&mut self, other: &Self) {
        let count = self.count + other.count;
        let off = other.mean - self.mean;
        self.mean += off * (other.count / count);
        self.squares += other.squares + off * off * (self.count * other.count / count);
        self.count = count;
    }
}

/// Of each channel of a run of pixels, relative to the first pixel.
struct Sums {
    sums: Vec<f32>,
    squares: Vec<f32>,
}

struct Measure<'a> {
    x: &'a [f32],
    channels: usize,
}

impl Kernel for Measure<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Sums {
        let Self { x, channels } = self;
        let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
        let whole = channels / (2 * LANES) * (2 * LANES);
        for first in (0..whole).step_by(2 * LANES) {
            let pivot = pair(s, &x[first..]);
            let mut sum = [s.splat(0.0); 2];
            let mut square = [s.splat(0.0); 2];
            for row in x.chunks_exact(channels) {
                let row = pair(s, &row[first..]);
                for i in 0..2 {
                    let off = s.sub(row[i], pivot[i]);
                    sum[i] = s.add(sum[i], off);
                    square[i] = s.fma(off, off, square[i]);
                }
            }
            let to = sums[first..].as_chunks_mut::<LANES>().0.iter_mut();
            to.zip(sum).for_each(|(to, sum)| s.store(sum, to));
            let to = squares[first..].as_chunks_mut::<LANES>().0.iter_mut();
            to.zip(square).for_each(|(to, square)| s.store(square, to));
        }
        for row in x.chunks_exact(channels) {
            for channel in whole..channels {
                let off = row[channel] - x[channel];
                sums[channel] += off;
                squares[channel] += off * off;
            }
        }
        Sums { sums, squares }
    }
}

/// The first 32 values.
#[inline(always)]
fn pair<S: Simd>(s: S, x: &[f32]) -> [S::F; 2] {
    let x = &x.as_chunks::<LANES>().0[..2];
    [s.load(&x[0]), s.load(&x[1])]
}

#[derive(Debug, Clone, Copy)]
struct Same;

impl Function for Same {
    #[inline(always)]
    fn of<S: Simd>(self, _s: S, x: S::F) -> S::F {
        x
    }
}

struct Scale<'a, F> {
    x: &'a mut [f32],
    scaling: &'a Scaling,
    after: F,
}

impl<F: Function> Kernel for Scale<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Scaling { mean, gain, shift } = self.scaling;
        let (means, last_mean) = mean.as_chunks::<LANES>();
        let (gains, last_gain) = gain.as_chunks::<LANES>();
        let (shifts, last_shift) = shift.as_chunks::<LANES>();
        for row in self.x.chunks_exact_mut(mean.len()) {
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            for (((x, mean), gain), shift) in whole.iter_mut().zip(means).zip(gains).zip(shifts) {
                s.store(scaled(s, x, [mean, gain, shift], self.after), x);
            }
            if !rest.is_empty() {
                let mut x = padded(rest);
                let by = [padded(last_mean), padded(last_gain), padded(last_shift)];
                let y = scaled(s, &x, by.each_ref(), self.after);
                s.store(y, &mut x);
                rest.copy_from_slice(&x[..rest.len()]);
            }
        }
    }
}

/// `after((x - mean) * gain + shift)`.
#[inline(always)]
fn scaled<S: Simd>(
    s: S,
    x: &[f32; LANES],
    [mean, gain, shift]: [&[f32; LANES]; 3],
    after: impl Function,
) -> S::F {
    let off = s.sub(s.load(x), s.load(mean));
    after.of(s, s.fma(off, s.load(gain), s.load(shift)))
}

#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    let mut all = [0.0; LANES];
    all[..x.len()].copy_from_slice(x);
    all
}

/// Normalises each row of `features` values.
pub(super) fn layer_norm(
    x: &mut [f32],
    features: usize,
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    epsilon: f64,
) {
    if features == 0 {
        return;
    }
    let rows = PIECE.div_ceil(features);
    x.par_chunks_mut(rows * features).for_each(|x| {
        for x in x.chunks_exact_mut(features) {
            simd::run(Row { x, gamma, beta, epsilon: epsilon as f32 });
        }
    });
}

struct Row<'a> {
    x: &'a mut [f32],
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    epsilon: f32,
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.x.len() as f32;
        let (whole, rest) = self.x.as_chunks_mut::<LANES>();
        let mut sum = s.splat(0.0);
        for x in &*whole {
            sum = s.add(sum, s.load(x));
        }
        let mean = (s.sum(sum) + rest.iter().sum::<f32>()) / count;
        let mut squares = s.splat(0.0);
        for x in whole {
            let off = s.sub(s.load(x), s.splat(mean));
            squares = s.fma(off, off, squares);
            s.store(off, x);
        }
        let mut last = 0.0;
        for x in rest {
            *x -= mean;
            last += *x * *x;
        }
        let inverse = 1.0 / ((s.sum(squares) + last) / count + self.epsilon).sqrt();
        match (self.gamma, self.beta) {
            (Some(gamma), Some(beta)) => {
                for ((x, gamma), beta) in self.x.iter_mut().zip(gamma).zip(beta) {
                    *x = *x * inverse * gamma + beta;
                }
            }
            (gamma, beta) => {
                for (i, x) in self.x.iter_mut().enumerate() {
                    *x = *x * inverse * gamma.map_or(1.0, |g| g[i]) + beta.map_or(0.0, |b| b[i]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn large_maps_far_from_zero_keep_their_variance() {
        let (pixels, channels, groups) = (1 << 16, 12, 3);
        let wave = |i: usize| (i as f64 * 0.618_034).fract() - 0.5;
        let x: Vec<f32> = (0..pixels * channels).map(|i| (100.0 + wave(i)) as f32).collect();
        let (gamma, beta) = (vec![1.0; channels], vec![0.0; channels]);
        let mut found = x.clone();
        group_norm(&mut found, pixels, (&gamma, &beta), groups, 0.0, false);
        let size = channels / groups;
        for group in 0..groups {
            let of = |x: &[f32]| -> Vec<f64> {
                let rows = x.chunks(channels);
                rows.flat_map(|row| row[group * size..][..size].iter().map(|x| f64::from(*x)))
                    .collect()
            };
            let (before, after) = (of(&x), of(&found));
            let mean = before.iter().sum::<f64>() / before.len() as f64;
            let variance =
                before.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / before.len() as f64;
            for (before, after) in before.iter().zip(after) {
                let expect = (before - mean) / variance.sqrt();
                assert!((after - expect).abs() < 1e-4, "{after} {expect}");
            }
        }
    }

    #[test]
    fn every_instruction_set_measures_alike() {
        let x: Vec<f32> = (0..53 * 37).map(|i| (i as f32 * 0.7).sin() + 4.0).collect();
        let [portable, others @ ..] = &*Isa::available() else { unreachable!() };
        let expect = portable.run(Measure { x: &x, channels: 53 });
        for isa in others {
            let found = isa.run(Measure { x: &x, channels: 53 });
            for (found, expect) in found.squares.iter().zip(&expect.squares) {
                assert!((found - expect).abs() < 1e-4, "{isa:?}");
            }
            for (found, expect) in found.sums.iter().zip(&expect.sums) {
                assert!((found - expect).abs() < 1e-4, "{isa:?}");
            }
        }
    }
}
