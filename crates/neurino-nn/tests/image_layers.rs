//! The layers of image networks against their definitions, written as plain loops in f64, over odd
//! sizes.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use burn::tensor::{DType, Device, Tensor, TensorData};
use neurino_nn::attention::{self, Mask};
use neurino_nn::{
    Affine, Conv2d, ConvLowRank, GroupNorm, LayerNorm, Linear, LowRank, Padding, RmsNorm,
    activation, resize,
};
use proptest::prelude::*;

fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) ^ 0x85EB_CA6B;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() + next() * 0.5).collect()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F32))
}

fn random<const D: usize>(shape: [usize; D], seed: u32) -> Tensor<D> {
    tensor(values(shape.iter().product(), seed), shape)
}

fn read<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.cast(DType::F32).into_data().try_into_vec_as::<f32>().unwrap()
}

/// Each value within `limit` of the expected ones' largest.
fn assert_close(found: &[f32], expect: &[f64], limit: f64) {
    assert_eq!(found.len(), expect.len());
    let largest = expect.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (found, expect)) in found.iter().zip(expect).enumerate() {
        let off = (f64::from(*found) - expect).abs();
        assert!(off <= limit * largest, "value {i}: {found}, not {expect} (largest {largest})");
    }
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
}

/// A convolution by its definition.
fn convolve(
    x: &[f32],
    shape: Shape,
    weight: &[f32],
    [out, kernel_height, kernel_width]: [usize; 3],
    stride: usize,
    padding: Padding,
) -> (Vec<f64>, [usize; 4]) {
    let Shape { batch, height, width, channels } = shape;
    let out_height = (padding.top + height + padding.bottom - kernel_height) / stride + 1;
    let out_width = (padding.left + width + padding.right - kernel_width) / stride + 1;
    let mut y = Vec::new();
    for n in 0..batch {
        for row in 0..out_height {
            for column in 0..out_width {
                for feature in 0..out {
                    let mut sum = 0.0;
                    for ky in 0..kernel_height {
                        for kx in 0..kernel_width {
                            let at_y = (row * stride + ky).wrapping_sub(padding.top);
                            let at_x = (column * stride + kx).wrapping_sub(padding.left);
                            if at_y >= height || at_x >= width {
                                continue;
                            }
                            for channel in 0..channels {
                                let x =
                                    x[((n * height + at_y) * width + at_x) * channels + channel];
                                let w = weight[((feature * channels + channel) * kernel_height
                                    + ky)
                                    * kernel_width
                                    + kx];
                                sum += f64::from(x) * f64::from(w);
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    (y, [batch, out_height, out_width, out])
}

fn padding() -> impl Strategy<Value = Padding> {
    prop_oneof![
        Just(Padding::default()),
        Just(Padding::same(1)),
        Just(Padding { bottom: 1, right: 1, ..Padding::default() }),
        (0..3usize, 0..3usize, 0..3usize, 0..3usize)
            .prop_map(|(top, left, bottom, right)| Padding { top, left, bottom, right }),
    ]
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution(
        (height, width) in (1..19usize, 1..19usize),
        (batch, channels, out) in (1..3usize, 1..40usize, 1..60usize),
        (kernel_height, kernel_width) in prop_oneof![Just((1, 1)), Just((3, 3)), (1..4usize, 1..4usize)],
        stride in 1..3usize,
        padding in padding(),
        dtype in dtype(),
        with_bias: bool,
    ) {
        let shape = Shape { batch, height, width, channels };
        prop_assume!(padding.top + height + padding.bottom >= kernel_height);
        prop_assume!(padding.left + width + padding.right >= kernel_width);
        let x = random([batch, height, width, channels], 1);
        let weight = random([out, channels, kernel_height, kernel_width], 2).cast(dtype);
        let bias = with_bias.then(|| random([out], 3));
        let kernel = [out, kernel_height, kernel_width];
        let (mut expect, dims) =
            convolve(&read(x.clone()), shape, &read(weight.clone()), kernel, stride, padding);
        if let Some(bias) = &bias {
            for (y, bias) in expect.iter_mut().zip(read(bias.clone()).iter().cycle()) {
                *y += f64::from(*bias);
            }
        }
        let conv = Conv2d::new(weight, bias, stride, padding);
        prop_assert_eq!((conv.out_channels(), conv.in_channels()), (out, channels));
        let y = conv.forward(x);
        prop_assert_eq!(y.dims(), dims);
        assert_close(&read(y), &expect, 2e-6);
    }

    #[test]
    fn group_norm(
        (height, width, batch) in (1..19usize, 1..19usize, 1..3usize),
        (groups, group_channels) in (1..9usize, 1..12usize),
        offset in -30.0..30.0f32,
    ) {
        let channels = groups * group_channels;
        let x = random([batch, height, width, channels], 4).add_scalar(offset);
        let (gamma, beta) = (random([channels], 5), random([channels], 6));
        let (values, g, b) = (read(x.clone()), read(gamma.clone()), read(beta.clone()));
        let mut expect = vec![0.0; values.len()];
        for n in 0..batch {
            for group in 0..groups {
                let places: Vec<usize> = (0..height * width)
                    .flat_map(|pixel| (0..group_channels).map(move |c| (pixel, c)))
                    .map(|(pixel, c)| (n * height * width + pixel) * channels + group * group_channels + c)
                    .collect();
                let count = places.len() as f64;
                let mean = places.iter().map(|&i| f64::from(values[i])).sum::<f64>() / count;
                let variance =
                    places.iter().map(|&i| (f64::from(values[i]) - mean).powi(2)).sum::<f64>() / count;
                for i in places {
                    let channel = i % channels;
                    let normal = (f64::from(values[i]) - mean) / (variance + 1e-5).sqrt();
                    expect[i] = normal * f64::from(g[channel]) + f64::from(b[channel]);
                }
            }
        }
        let norm = GroupNorm::new(gamma, beta, groups, 1e-5);
        // A group of one value is nothing but its rounding.
        prop_assume!(height * width * group_channels > 4);
        assert_close(&read(norm.forward(x.clone())), &expect, 5e-5);
        for y in &mut expect {
            *y /= 1.0 + (-*y).exp();
        }
        assert_close(&read(norm.forward_silu(x)), &expect, 5e-5);
    }

    #[test]
    fn layer_norm(rows in 1..40usize, features in 2..100usize, gain: bool, shift: bool) {
        let x = random([1, rows, features], 7).add_scalar(3.0);
        let gamma = gain.then(|| random([features], 8));
        let beta = shift.then(|| random([features], 9));
        let g = gamma.clone().map_or(vec![1.0; features], read);
        let b = beta.clone().map_or(vec![0.0; features], read);
        let mut expect = Vec::new();
        for row in read(x.clone()).chunks(features) {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / features as f64;
            let variance =
                row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / features as f64;
            for (i, x) in row.iter().enumerate() {
                let normal = (f64::from(*x) - mean) / (variance + 1e-5).sqrt();
                expect.push(normal * f64::from(g[i]) + f64::from(b[i]));
            }
        }
        assert_close(&read(LayerNorm::new(gamma, beta, 1e-5).forward(x)), &expect, 1e-5);
    }

    #[test]
    fn full_attention(
        (batch, heads, dim) in (1..3usize, 1..4usize, 1..50usize),
        (queries, keys) in (1..150usize, 1..300usize),
        kind in 0..3usize,
    ) {
        let keys = if kind == 1 { queries } else { keys };
        let q = random([batch, queries, heads * dim], 10);
        let k = random([batch, keys, heads * dim], 11);
        let v = random([batch, keys, heads * dim], 12);
        let bias = random([heads, queries, keys], 13).mul_scalar(2.0);
        let scale = 0.7;
        let (qs, ks, vs, biases) =
            (read(q.clone()), read(k.clone()), read(v.clone()), read(bias.clone()));
        let width = heads * dim;
        let mut expect = Vec::new();
        for n in 0..batch {
            for query in 0..queries {
                for head in 0..heads {
                    let at = |tokens: usize, token: usize| (n * tokens + token) * width + head * dim;
                    let weights: Vec<f64> = (0..keys)
                        .map(|key| {
                            if kind == 1 && key > query {
                                return 0.0;
                            }
                            let q = &qs[at(queries, query)..][..dim];
                            let k = &ks[at(keys, key)..][..dim];
                            let dot: f64 =
                                q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                            let bias = biases[(head * queries + query) * keys + key];
                            let bias = if kind == 2 { f64::from(bias) } else { 0.0 };
                            (dot * f64::from(scale) + bias).exp()
                        })
                        .collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..dim {
                        let sum: f64 = weights
                            .iter()
                            .enumerate()
                            .map(|(key, w)| w * f64::from(vs[at(keys, key) + i]))
                            .sum();
                        expect.push(sum / total);
                    }
                }
            }
        }
        let mask = [Mask::None, Mask::Causal, Mask::Bias(&bias)][kind];
        let y = attention::full(q, k, v, heads, scale, mask);
        prop_assert_eq!(y.dims(), [batch, queries, width]);
        assert_close(&read(y), &expect, 5e-6);
    }

    #[test]
    fn affine_with_updates(
        (rows, features, out) in (1..20usize, 1..70usize, 1..70usize),
        ranks in prop::collection::vec(1..9usize, 0..3),
        dtype in dtype(),
    ) {
        let x = random([2, rows, features], 14);
        let weight = random([out, features], 15).cast(dtype);
        let bias = random([out], 16);
        let mut total: Vec<f64> = read(weight.clone()).iter().map(|w| f64::from(*w)).collect();
        let mut updates = Vec::new();
        for (i, &rank) in ranks.iter().enumerate() {
            let down = random([rank, features], 20 + i as u32).cast(dtype);
            let up = random([out, rank], 30 + i as u32).cast(dtype);
            let scale = 0.3 - i as f32;
            let (d, u) = (read(down.clone()), read(up.clone()));
            for row in 0..out {
                for column in 0..features {
                    for r in 0..rank {
                        total[row * features + column] += f64::from(scale)
                            * f64::from(u[row * rank + r])
                            * f64::from(d[r * features + column]);
                    }
                }
            }
            updates.push(LowRank { down, up, scale });
        }
        let b = read(bias.clone());
        let product = |weights: &[f64]| -> Vec<f64> {
            let rows = read(x.clone());
            let row = |x: &[f32]| -> Vec<f64> {
                let dot = |w: &[f64]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum::<f64>();
                weights.chunks(features).zip(&b).map(|(w, b)| dot(w) + f64::from(*b)).collect()
            };
            rows.chunks(features).flat_map(row).collect()
        };
        let mut layer = Affine::new(Linear::dense(weight.clone()), Some(bias));
        prop_assert_eq!((layer.out_features(), layer.in_features()), (out, features));
        let before = read(layer.forward(x.clone()));
        layer.set_low_rank(updates);
        let plain = Affine::new(Linear::dense(weight), None);
        let [y, other] = Affine::forward_each([&layer, &plain], x.clone());
        prop_assert_eq!(y.dims(), [2, rows, out]);
        assert_close(&read(y), &product(&total), 1e-5);
        let expect: Vec<f32> = read(plain.forward(x.clone()));
        prop_assert_eq!(read(other), expect);
        layer.set_low_rank(Vec::new());
        prop_assert_eq!(read(layer.forward(x.clone())), before);
    }

    #[test]
    fn nearest_pixels(
        (height, width) in (1..9usize, 1..9usize),
        (to_height, to_width) in (1..20usize, 1..20usize),
        channels in 1..6usize,
    ) {
        let x = random([2, height, width, channels], 17);
        let from = read(x.clone());
        let y = resize::nearest(x, to_height, to_width);
        prop_assert_eq!(y.dims(), [2, to_height, to_width, channels]);
        let mut expect = Vec::new();
        for n in 0..2 {
            for row in 0..to_height {
                for column in 0..to_width {
                    let (row, column) = (row * height / to_height, column * width / to_width);
                    let at = ((n * height + row) * width + column) * channels;
                    expect.extend_from_slice(&from[at..at + channels]);
                }
            }
        }
        prop_assert_eq!(read(y), expect);
    }
}

/// The integral that defines the error function, by Simpson's rule.
fn erf(x: f64) -> f64 {
    let steps = 2000;
    let h = x / f64::from(steps);
    let f = |i: i32| (-(f64::from(i) * h).powi(2)).exp();
    let inner: f64 = (1..steps).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * f(i)).sum();
    (f(0) + inner + f(steps)) * h / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn activations_follow_their_definitions() {
    type Activation = fn(Tensor<2>) -> Tensor<2>;
    let count = 2 * 1023;
    let mut x: Vec<f32> = (0..count).map(|i| (i as f32 - 1000.0) / 90.0).collect();
    x[..4].copy_from_slice(&[-1e30, 1e30, -95.0, 95.0]);
    let each =
        |f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|x| f(f64::from(*x))).collect() };
    let gelu = |x: f64| {
        // Farther out, the integral is 1 to all digits.
        let bounded = (x / 2f64.sqrt()).abs().min(8.0);
        if x < -10.0 { 0.0 } else { x * 0.5 * (1.0 + erf(bounded) * x.signum()) }
    };
    let tanh = |x: f64| {
        x * 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    };
    let cases: [(&str, Activation, Vec<f64>); 4] = [
        ("silu", activation::silu, each(&|x| x / (1.0 + (-x).exp()))),
        ("gelu", activation::gelu, each(&gelu)),
        ("gelu_tanh", activation::gelu_tanh, each(&tanh)),
        ("quick_gelu", activation::quick_gelu, each(&|x| x / (1.0 + (-1.702 * x).exp()))),
    ];
    for (name, function, expect) in cases {
        let found = read(function(tensor(x.clone(), [2, count / 2])));
        for ((x, found), expect) in x.iter().zip(found).zip(expect) {
            let off = (f64::from(found) - expect).abs();
            assert!(off <= 1e-6 * expect.abs().max(1.0), "{name}({x}) is {expect}, not {found}");
        }
    }
}

#[test]
fn geglu_gates_the_first_half_with_the_second() {
    let x = values(3 * 2 * 37, 18);
    let found = read(activation::geglu(tensor(x.clone(), [3, 74])));
    let expect: Vec<f64> = x
        .chunks(74)
        .flat_map(|row| {
            let (value, gate) = row.split_at(37);
            value.iter().zip(gate).map(|(value, gate)| {
                let gate = f64::from(*gate);
                f64::from(*value) * gate * 0.5 * (1.0 + erf(gate / 2f64.sqrt()))
            })
        })
        .collect();
    assert_close(&found, &expect, 1e-6);
}

#[test]
fn low_rank_convolutions_add_up_and_go_away() {
    let (channels, out, rank) = (7, 21, 3);
    for stride in [1, 2] {
        let x = random([1, 9, 6, channels], 40);
        let weight = random([out, channels, 3, 3], 41);
        let down = random([rank, channels, 3, 3], 42);
        let up = random([out, rank, 1, 1], 43);
        let (mut merged, d, u) = (read(weight.clone()), read(down.clone()), read(up.clone()));
        let taps = channels * 9;
        for row in 0..out {
            for tap in 0..taps {
                for r in 0..rank {
                    merged[row * taps + tap] += 0.25 * u[row * rank + r] * d[r * taps + tap];
                }
            }
        }
        let merged =
            Conv2d::new(tensor(merged, [out, channels, 3, 3]), None, stride, Padding::same(1));
        let mut conv = Conv2d::new(weight, None, stride, Padding::same(1));
        let before = read(conv.forward(x.clone()));
        conv.set_low_rank(vec![ConvLowRank { down, up, scale: 0.25 }]);
        let expect: Vec<f64> =
            read(merged.forward(x.clone())).iter().map(|x| f64::from(*x)).collect();
        assert_close(&read(conv.forward(x.clone())), &expect, 1e-5);
        conv.set_low_rank(Vec::new());
        assert_eq!(read(conv.forward(x)), before);
    }
}

#[test]
fn root_mean_square_over_the_last_of_many_dimensions() {
    let norm = RmsNorm::new(tensor(vec![1.0, 2.0], [2]), 0.0);
    let y = norm.forward(tensor(vec![3.0, 4.0, 1.0, -1.0], [1, 2, 1, 2]));
    assert_eq!(y.dims(), [1, 2, 1, 2]);
    let rms = 12.5f64.sqrt();
    assert_close(&read(y), &[3.0 / rms, 8.0 / rms, 1.0, -2.0], 1e-6);
}

#[test]
fn waves_have_their_cosines_first() {
    let found = read(resize::timestep_embedding(&[0.0, 999.0], 320, &Device::flex()));
    assert_eq!(found[..160], [1.0; 160]);
    assert_eq!(found[160..320], [0.0; 160]);
    for (i, found) in found[320..].iter().enumerate() {
        let frequency = (-(10000f64.ln()) * (i % 160) as f64 / 160.0).exp();
        let wave = 999.0 * frequency;
        let expect = if i < 160 { wave.cos() } else { wave.sin() };
        assert!((f64::from(*found) - expect).abs() < 1e-4, "{i}: {found} {expect}");
    }
}

/// The same bits whatever number of threads there are.
#[test]
fn threads_change_no_bit() {
    let x = random([2, 17, 23, 48], 50);
    let conv = Conv2d::new(random([100, 48, 3, 3], 51), None, 1, Padding::same(1));
    let norm = GroupNorm::new(random([48], 52), random([48], 53), 8, 1e-5);
    let q = random([2, 391, 48], 54);
    let results = || {
        let y = conv.forward(x.clone());
        let normed = norm.forward_silu(x.clone());
        let seen = attention::full(q.clone(), q.clone(), q.clone(), 3, 0.25, Mask::None);
        let gated = activation::geglu(x.clone());
        [read(y), read(normed), read(seen), read(gated)]
    };
    let expect = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(results);
    for threads in 2..6 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(results) == expect, "{threads} threads");
    }
}
