//! The kernels called through burn, fusion included, on CubeCL's CPU runtime.
#![cfg(feature = "burn-cpu")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::f16;
use neurino_kernels::format::{Format, Packed};
use neurino_kernels::rope::BLOCK_TOKENS;
use neurino_kernels::tensor::{
    CacheTensors, PackedTensors, RowTensors, add_rms_norm, attend, dense_product, fence,
    group_norm, nf4_rows, packed_product, rms_norm, rotate_and_write, swiglu,
};

fn numbers(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 101) % 97) as f32 / 48.0 - 1.0).collect()
}

fn floats<const D: usize>(seed: usize, shape: [usize; D]) -> Tensor<D> {
    let values = numbers(seed, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), (&Device::cpu(), DType::F32))
}

fn integers<const D: usize>(values: Vec<i32>, shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::cpu(), DType::I32))
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).try_into_data().unwrap().try_into_vec_as::<f32>().unwrap()
}

fn assert_close(found: &[f32], expect: &[f32]) {
    assert_eq!(found.len(), expect.len());
    for (found, expect) in found.iter().zip(expect) {
        assert!((found - expect).abs() < 2e-5 * expect.abs().max(1.0), "{found} for {expect}");
    }
}

#[test]
fn products_between_fused_operations() {
    let (out, inner) = (6, 64);
    let quants: Vec<i8> = (0..out * inner).map(|i| (i * 7 % 16) as i8).collect();
    let scales = numbers(1, out * 2).iter().map(|x| f16::from_f32(x * 0.1)).collect();
    let packed = Packed::new(Format::Q4, [out, inner, 32], &quants, scales, Vec::new());
    let device = Device::cpu();
    let words: Vec<i32> = packed.words.iter().map(|word| word.cast_signed()).collect();
    let scales = TensorData::new(packed.scales.clone(), [out, 2]);
    let matrix = PackedTensors {
        format: Format::Q4,
        words: integers(words, [out, inner / 8]),
        scales: Tensor::from_data(scales, (&device, DType::F16)),
        offsets: floats(0, [1, 1]),
    };
    let unpacked = TensorData::new(packed.to_f32(), [out, inner]);
    let unpacked: Tensor<2> = Tensor::from_data(unpacked, (&device, DType::F32));
    let x = floats(2, [3, inner]);
    // Element-wise work before and after, which burn fuses around the kernel.
    let around = |y: Tensor<2>| y * 0.5 + 1.0;
    let expect = read(around((x.clone() * 2.0).matmul(unpacked.clone().transpose())));
    let found = packed_product(x.clone() * 2.0, &matrix, false).unwrap();
    assert_close(&read(around(found)), &expect);
    let found = dense_product(x.clone() * 2.0, &unpacked, false).unwrap();
    assert_close(&read(around(found)), &expect);
    let y = x.clone().matmul(unpacked.transpose());
    let (gate, up) = (y.clone().narrow(1, 0, 3), y.narrow(1, 3, 3));
    let expect = read(burn::tensor::activation::silu(gate.clone()) * up.clone());
    assert_close(&read(packed_product(x, &matrix, true).unwrap()), &expect);
    assert_close(&read(swiglu(gate, up).unwrap()), &expect);
}

#[test]
fn a_fence_stands_behind_what_is_computed_before_it() {
    let x: Tensor<1> = floats(1, [64]);
    let y = x.clone() * 2.0 + 1.0;
    let fence = fence::behind(&y).unwrap();
    // What comes after it goes on, and `y` is as usable as before.
    let after = y.clone() * 3.0;
    fence.wait().unwrap();
    let expect: Vec<f32> = numbers(1, 64).iter().map(|x| x * 2.0 + 1.0).collect();
    assert_close(&read(y), &expect);
    let expect: Vec<f32> = expect.iter().map(|y| y * 3.0).collect();
    assert_close(&read(after), &expect);
}

#[test]
fn sums_are_normalised() {
    let (x, delta, weight) = (floats(1, [3, 32]), floats(2, [3, 32]), floats(3, [32]));
    let sum = x.clone() + delta.clone();
    let mean = sum.clone().powi_scalar(2).mean_dim(1) + 1e-5;
    let expect = sum.clone() / mean.sqrt() * weight.clone().unsqueeze();
    assert_close(&read(rms_norm(sum.clone(), &weight, 1e-5).unwrap()), &read(expect.clone()));
    let (found_sum, found) = add_rms_norm(x.clone(), delta, &weight, 1e-5).unwrap();
    assert_close(&read(found), &read(expect));
    assert_close(&read(found_sum), &read(sum));
    assert_close(&read(x), &numbers(1, 96));
}

#[test]
fn groups_of_channels_are_normalised() {
    let (x, gamma, beta) = (floats(1, [2, 3, 5, 24]), floats(2, [24]), floats(3, [24]));
    let grouped: Tensor<4> = x.clone().reshape([2, 15, 4, 6]);
    let moved = grouped.clone() - grouped.mean_dim(1).mean_dim(3);
    let variance = moved.clone().square().mean_dim(1).mean_dim(3);
    let scaled: Tensor<4> = (moved / (variance + 1e-5).sqrt()).reshape([2, 3, 5, 24]);
    let expect = scaled * gamma.clone().unsqueeze() + beta.clone().unsqueeze();
    // A view and what comes behind: burn fuses around the kernel.
    let view = x.swap_dims(1, 2).swap_dims(1, 2);
    let found =
        |silu| group_norm(view.clone() * 1.0, [&gamma, &beta], 4, 1e-5, silu).unwrap() * 2.0;
    assert_close(&read(found(false)), &read(expect.clone() * 2.0));
    assert_close(&read(found(true)), &read(burn::tensor::activation::silu(expect) * 2.0));
    assert!(group_norm(floats(1, [1, 2, 2, 6]), [&gamma, &beta], 3, 1e-5, true).is_err());
}

#[test]
fn rows_of_nf4_are_unpacked_as_what_they_meet() {
    let (inner, block) = (16, 32);
    let (table, scales) = (floats(4, [16]), floats(5, [6 * inner / block]));
    let values: Vec<i32> =
        (0..6 * inner as i32 / 8).map(|i| 0x1234_5678 ^ (i * 0x0101_1011)).collect();
    let count = values.len();
    let words = integers(values.clone(), [count]);
    let [numbers, factors] = [&table, &scales].map(|t| read(t.clone()));
    let weight = |i: usize| {
        let byte = values[i / 8].to_le_bytes()[i % 8 / 2];
        numbers[usize::from(if i % 2 == 0 { byte >> 4 } else { byte & 15 })] * factors[i / block]
    };
    let x = floats(6, [2, inner]);
    for dtype in [DType::F32, DType::F16] {
        let like = x.clone().cast(dtype) * 2.0;
        let unpacked = nf4_rows(&like, &words, [&table, &scales], 2..5, inner, block).unwrap();
        assert_eq!((unpacked.dims(), unpacked.dtype()), ([3, inner], dtype));
        let expect: Vec<f32> = (2 * inner..5 * inner).map(weight).collect();
        assert_close(&read(unpacked * 1.0), &expect);
    }
    assert!(nf4_rows(&x, &words, [&table, &scales], 2..7, inner, block).is_err());
}

/// One text over two blocks: what comes out for its last row is softmax attention over all rows.
#[test]
fn what_is_written_is_attended() {
    let (rows, heads, kv, dim) = (20, 4, 2, 16);
    let device = Device::cpu();
    let cache = CacheTensors {
        keys: Tensor::zeros([3, kv, dim / 8, BLOCK_TOKENS, 8], (&device, DType::F16)),
        values: Tensor::zeros([3, kv, BLOCK_TOKENS, dim], (&device, DType::F16)),
    };
    // Halves that f16 holds exactly.
    let exact = |seed, heads| (floats::<3>(seed, [rows, heads, dim]) * 8.0).round() / 8.0;
    let (q, k, v) = (exact(1, heads), exact(2, kv), exact(3, kv));
    let slots = (0..rows).map(|row| if row < 16 { 32 + row } else { row - 16 } as i32).collect();
    let cos = Tensor::ones([rows, 1, dim / 2], (&device, DType::F32));
    let sin = Tensor::zeros([rows, 1, dim / 2], (&device, DType::F32));
    let lines = integers((0..rows as i32).collect(), [rows]);
    let turned = rotate_and_write(
        [q.clone(), k.clone(), v.clone()],
        [&cos, &sin],
        &lines,
        &integers(slots, [rows]),
        &cache,
    );
    let step = |walk: bool| {
        let tiles: Vec<i32> = if walk {
            (0..rows as i32 / 4).flat_map(|tile| [tile * 4, 4]).collect()
        } else {
            (0..rows as i32).flat_map(|row| [row, 1]).collect()
        };
        let count = tiles.len() / 2;
        RowTensors {
            tables: integers(vec![2, 0], [1, 2]),
            sequences: integers(vec![0; rows], [rows]),
            positions: lines.clone(),
            tiles: integers(tiles, [count, 2]),
            walk,
        }
    };
    let turned = turned.unwrap();
    let found = read(attend(turned.clone(), &cache, &step(false), None).unwrap());
    assert_eq!(read(attend(turned, &cache, &step(true), None).unwrap()), found);
    let [q, k, v] = [q, k, v].map(read);
    for (row, head) in (0..rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let of = |all: &[f32], row: usize, head: usize, n: usize| {
            all[(row * n + head) * dim..(row * n + head + 1) * dim].to_vec()
        };
        let query = of(&q, row, head, heads);
        let score = |at: usize| {
            let key = of(&k, at, head / 2, kv);
            (query.iter().zip(&key).map(|(q, k)| q * k).sum::<f32>() / 4.0).exp()
        };
        let weights: Vec<f32> = (0..=row).map(score).collect();
        let total: f32 = weights.iter().sum();
        let mut expect = vec![0.0; dim];
        for (at, weight) in weights.iter().enumerate() {
            for (sum, value) in expect.iter_mut().zip(of(&v, at, head / 2, kv)) {
                *sum += weight / total * value;
            }
        }
        assert_close(&of(&found, row, head, heads), &expect);
    }
}
