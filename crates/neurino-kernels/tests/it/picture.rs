//! What pictures need beside the kernels of texts.

use cubecl::prelude::*;
use half::{bf16, f16};
use neurino_kernels::buffer::Buffer;
use neurino_kernels::group_norm::{check, group_norm};
use neurino_kernels::nf4::{Unpacked, unpack};

use crate::support::{assert_close, floats, gpu, noise, warps};

/// In f64, group by group.
fn oracle(
    x: &[f32],
    factors: [&[f32]; 2],
    pixels: usize,
    groups: usize,
    epsilon: f32,
    silu: bool,
) -> Vec<f32> {
    let channels = factors[0].len();
    let width = channels / groups;
    let mut y = vec![0.0; x.len()];
    for (picture, y) in x.chunks(pixels * channels).zip(y.chunks_mut(pixels * channels)) {
        for group in 0..groups {
            let places = || {
                let of = move |p: usize| (0..width).map(move |c| p * channels + group * width + c);
                (0..pixels).flat_map(of)
            };
            let all = (pixels * width) as f64;
            let mean = places().map(|i| f64::from(picture[i])).sum::<f64>() / all;
            let square = |i: usize| (f64::from(picture[i]) - mean).powi(2);
            let variance = places().map(square).sum::<f64>() / all;
            for i in places() {
                let [gamma, beta] = factors.map(|f| f64::from(f[i % channels]));
                let value = (f64::from(picture[i]) - mean) / (variance + f64::from(epsilon)).sqrt()
                    * gamma
                    + beta;
                y[i] = if silu { value / (1.0 + (-value).exp()) } else { value } as f32;
            }
        }
    }
    y
}

#[test]
fn groups_of_channels_are_normalised() {
    let cases = [
        // Groups of ten channels; runs that end in the middle; one pixel; many runs; one group.
        (gpu(), [2, 45, 320], 32),
        (gpu(), [1, 1, 64], 32),
        (gpu(), [1, 70_000, 8], 2),
        (gpu(), [3, 33, 12], 1),
        (warps(), [2, 70, 40], 4),
    ];
    for (gpu, [pictures, pixels, channels], groups) in cases {
        // A mean far from zero beside a small variance is what naive sums lose.
        for (scale, shift) in [(1.0_f32, 0.0_f32), (0.01, 30.0)] {
            let x: Vec<f32> = noise(1, pictures * pixels * channels)
                .iter()
                .enumerate()
                .map(|(i, v)| v * scale + shift * (1 + i % channels % 3) as f32)
                .collect();
            let [gamma, beta] = [2, 3].map(|seed| noise(seed, channels));
            let [bx, bg, bb] = [&x, &gamma, &beta].map(|v| Buffer::upload(&gpu.client, v));
            let y = Buffer::upload(&gpu.client, &vec![f32::NAN; x.len()]);
            for silu in [true, false] {
                let size = [pictures, pixels];
                group_norm(&gpu, [&bx, &y], [&bg, &bb], size, groups, 1e-5, silu).unwrap();
                let expect = oracle(&x, [&gamma, &beta], pixels, groups, 1e-5, silu);
                let what = format!("{size:?} x {channels} in {groups}, {shift}, {silu}");
                assert_close(&what, &floats(&gpu, &y), &expect, 2e-5);
            }
        }
    }
}

#[test]
fn a_picture_is_normalised_alike_in_any_company() {
    let gpu = gpu();
    let (pixels, channels) = (50, 16);
    let x = noise(5, 3 * pixels * channels);
    let [gamma, beta] = [6, 7].map(|seed| Buffer::upload(&gpu.client, &noise(seed, channels)));
    let normalised = |x: &[f32]| {
        let x = Buffer::upload(&gpu.client, x);
        let y = Buffer::empty::<f32>(&gpu.client, x.len());
        let size = [x.len() / pixels / channels, pixels];
        group_norm(&gpu, [&x, &y], [&gamma, &beta], size, 4, 1e-6, true).unwrap();
        floats(&gpu, &y)
    };
    let each: Vec<f32> = x.chunks(pixels * channels).flat_map(normalised).collect();
    assert_eq!(normalised(&x), each);
}

#[test]
fn what_has_no_kernel_is_told() {
    for (channels, groups) in [(0, 1), (8, 0), (10, 3), (6, 2)] {
        assert!(check(channels, groups).is_err(), "{channels} {groups}");
    }
    assert!(check(320, 32).is_ok());
}

/// Words, table and scales of `count` weights, and the weights.
fn nf4(count: usize, block: usize) -> ([Vec<u32>; 1], [Vec<f32>; 3]) {
    let table = noise(11, 16);
    let scales = noise(12, count.div_ceil(block));
    let places: Vec<usize> = (0..count).map(|i| (i * 7 + i / 5) % 16).collect();
    let bytes: Vec<u8> = places
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair.get(1).copied().unwrap_or(0)) as u8)
        .collect();
    let word = |bytes: &[u8]| std::array::from_fn(|i| bytes.get(i).copied().unwrap_or(0));
    let words = bytes.chunks(4).map(|bytes| u32::from_le_bytes(word(bytes))).collect();
    let weights = places.iter().enumerate().map(|(i, place)| table[*place] * scales[i / block]);
    let weights = weights.collect();
    ([words], [table, scales, weights])
}

#[test]
fn nf4_is_unpacked_bit_for_bit() {
    let gpu = gpu();
    // Whole matrices, rows from the middle of a word on, and a last word that is not full.
    for (count, block, first, rows) in [(4096, 64, 0, 4096), (612, 12, 36, 576), (68, 4, 4, 60)] {
        let ([words], [table, scales, weights]) = nf4(count, block);
        let words = Buffer::upload(&gpu.client, &words);
        let [table, scales] = [&table, &scales].map(|v| Buffer::upload(&gpu.client, v));
        let parts = [&words, &table, &scales];
        let expect = &weights[first..first + rows];
        let y = Buffer::upload(&gpu.client, &vec![f32::NAN; rows]);
        unpack(&gpu, parts, &y, Unpacked::F32, first, block).unwrap();
        assert_eq!(floats(&gpu, &y), expect, "{count} {block}");
        let y = Buffer::upload(&gpu.client, &vec![f16::NAN; rows]);
        unpack(&gpu, parts, &y, Unpacked::F16, first, block).unwrap();
        let bytes = y.download(&gpu.client).unwrap();
        let halves: Vec<f16> = expect.iter().map(|w| f16::from_f32(*w)).collect();
        assert_eq!(f16::from_bytes(&bytes)[..rows], halves, "{count} {block}");
        let y = Buffer::upload(&gpu.client, &vec![bf16::NAN; rows]);
        unpack(&gpu, parts, &y, Unpacked::Bf16, first, block).unwrap();
        let bytes = y.download(&gpu.client).unwrap();
        let halves: Vec<bf16> = expect.iter().map(|w| bf16::from_f32(*w)).collect();
        assert_eq!(bf16::from_bytes(&bytes)[..rows], halves, "{count} {block}");
    }
    for (first, count, block) in [(2, 8, 8), (0, 7, 8), (0, 8, 6), (0, 8, 0)] {
        assert!(neurino_kernels::nf4::check(first, count, block).is_err());
    }
}
