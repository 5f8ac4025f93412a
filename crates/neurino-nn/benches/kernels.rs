//! Times of the CPU's kernels: `cargo bench -p neurino-nn`.
//!
//! Matrices are those of a layer 2048 wide; throughput is multiplications, or bytes of the cache.
#![expect(missing_docs, reason = "criterion's macros make functions without")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed measurement")]

use std::hint::black_box;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use neurino_nn::activation::geglu;
use neurino_nn::attention::{Mask, full};
use neurino_nn::paged::{BLOCK_TOKENS, BatchLayout, KvShape, SequenceSpan, store_on};
use neurino_nn::quant::{PackedMatrix, Packing, matmul_on, nf4_on};
use neurino_nn::{Affine, Conv2d, GroupNorm, Linear, Padding, RmsNorm, swiglu};
use neurino_weights::nf4::Nf4Matrix;

const WIDTH: usize = 2048;

fn tensor<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F32))
}

/// A square layer in a packing, of arbitrary integers and small scales.
fn packed(packing: Packing, weights: usize, bytes: usize, halves: &[usize]) -> Linear {
    let mut blocks: Vec<u8> =
        (0..WIDTH * WIDTH / weights * bytes).map(|i| (i * 73 % 251) as u8).collect();
    for block in blocks.chunks_exact_mut(bytes) {
        for &at in halves {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.002).to_le_bytes());
        }
    }
    let matrix = PackedMatrix::from_blocks(packing, WIDTH, WIDTH, &blocks, |row| row).unwrap();
    Linear::packed(matmul_on(&Arc::new(matrix), &Device::flex(), DType::F32))
}

fn linear(c: &mut Criterion) {
    let dense = |dtype| Linear::dense(tensor([WIDTH, WIDTH]).cast(dtype));
    let layers = [
        ("f32", dense(DType::F32)),
        ("f16", dense(DType::F16)),
        ("bf16", dense(DType::BF16)),
        ("q4_0", packed(Packing::Q4Symmetric, 32, 18, &[0])),
        ("q4_1", packed(Packing::Q4Minimum, 32, 20, &[0, 2])),
        ("q5_0", packed(Packing::Q5Symmetric, 32, 22, &[0])),
        ("q8_0", packed(Packing::Q8, 32, 34, &[0])),
        ("q4_k", packed(Packing::Q4K, 256, 144, &[0, 2])),
        ("q5_k", packed(Packing::Q5K, 256, 176, &[0, 2])),
        ("q6_k", packed(Packing::Q6K, 256, 210, &[208])),
    ];
    let mut group = c.benchmark_group("linear");
    for rows in [1, 8, 32, 256] {
        let x = tensor([rows, WIDTH]);
        group.throughput(Throughput::Elements((rows * WIDTH * WIDTH) as u64));
        for (name, layer) in &layers {
            group.bench_with_input(BenchmarkId::new(*name, rows), &x, |b, x| {
                b.iter(|| black_box(layer.forward(x.clone())));
            });
        }
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let (n_heads, n_kv_heads, head_dim, len) = (16, 4, 128, 1024);
    let device = Device::flex();
    let mut group = c.benchmark_group("attention");
    for dtype in [DType::F32, DType::F16] {
        let shape =
            KvShape { n_layers: 1, n_kv_heads, head_dim, n_blocks: len / BLOCK_TOKENS, dtype };
        let mut store = store_on(&device, &shape);
        let blocks: Vec<u32> = (0..shape.n_blocks as u32).collect();
        for rows in [1, 256] {
            let span = SequenceSpan { rows, start: len - rows, blocks: blocks.clone() };
            store.begin(&BatchLayout { sequences: vec![span] }).unwrap();
            let keys = tensor([rows, n_kv_heads, head_dim]);
            store.write(0, keys.clone(), keys).unwrap();
            let queries = tensor([rows, n_heads, head_dim]);
            group.throughput(Throughput::Bytes(shape.block_bytes() * shape.n_blocks as u64));
            group.bench_with_input(
                BenchmarkId::new(format!("{dtype:?}"), rows),
                &queries,
                |b, q| {
                    b.iter(|| black_box(store.attend(0, q.clone(), None).unwrap()));
                },
            );
        }
    }
    group.finish();
}

fn rows(c: &mut Criterion) {
    let norm = RmsNorm::new(tensor([WIDTH]), 1e-5);
    let mut group = c.benchmark_group("rows");
    for rows in [1, 256] {
        group.throughput(Throughput::Elements((rows * WIDTH) as u64));
        let x = tensor([rows, WIDTH]);
        group.bench_with_input(BenchmarkId::new("add_norm", rows), &x, |b, x| {
            b.iter(|| black_box(norm.add_forward(x.clone(), x.clone())));
        });
        group.bench_with_input(BenchmarkId::new("swiglu", rows), &x, |b, x| {
            b.iter(|| black_box(swiglu(x.clone(), x.clone())));
        });
    }
    group.finish();
}

/// The layers of a network for pictures of 512 x 512.
fn pictures(c: &mut Criterion) {
    let mut group = c.benchmark_group("pictures");
    group.sample_size(10);
    for (channels, size) in [(320, 64), (1280, 16), (512, 64)] {
        let x = tensor([1, size, size, channels]);
        let products = size * size * channels * channels * 9;
        group.throughput(Throughput::Elements(products as u64));
        for dtype in [DType::F16, DType::F32] {
            let weight = tensor([channels, channels, 3, 3]).cast(dtype);
            let conv = Conv2d::new(weight, Some(tensor([channels])), 1, Padding::same(1));
            let name = BenchmarkId::new(format!("conv_{dtype:?}"), format!("{channels}x{size}"));
            group.bench_with_input(name, &x, |b, x| b.iter(|| black_box(conv.forward(x.clone()))));
        }
    }
    let x = tensor([1, 64, 64, 320]);
    group.throughput(Throughput::Elements(64 * 64 * 320));
    let norm = GroupNorm::new(tensor([320]), tensor([320]), 32, 1e-5);
    group.bench_with_input("group_norm_silu/320x64", &x, |b, x| {
        b.iter(|| black_box(norm.forward_silu(x.clone())));
    });
    for (tokens, heads, dim) in [(4096, 8, 40), (4096, 1, 512), (1024, 10, 64)] {
        let q = tensor([1, tokens, heads * dim]);
        group.throughput(Throughput::Elements((2 * tokens * tokens * heads * dim) as u64));
        let name = BenchmarkId::new("attention", format!("{heads}x{tokens}x{dim}"));
        group.bench_with_input(name, &q, |b, q| {
            let attend =
                |q: &Tensor<3>| full(q.clone(), q.clone(), q.clone(), heads, 0.1, Mask::None);
            b.iter(|| black_box(attend(q)));
        });
    }
    group.throughput(Throughput::Elements(4096 * 320 * 2560));
    let affine =
        Affine::new(Linear::dense(tensor([2560, 320]).cast(DType::F16)), Some(tensor([2560])));
    let tokens = tensor([1, 4096, 320]);
    group.bench_with_input("affine/4096x320x2560", &tokens, |b, x| {
        b.iter(|| black_box(affine.forward(x.clone())));
    });
    let nf4 = Nf4Matrix {
        shape: vec![2560, 320],
        block_size: 64,
        quants: (0..2560 * 320 / 2).map(|i| (i * 73 % 251) as u8).collect(),
        table: std::array::from_fn(|i| i as f32 / 8.0 - 1.0),
        scales: vec![0.01; 2560 * 320 / 64],
    };
    let nf4 = Affine::new(Linear::packed(nf4_on(nf4, &Device::flex(), DType::F32)), None);
    group.bench_with_input("nf4/4096x320x2560", &tokens, |b, x| {
        b.iter(|| black_box(nf4.forward(x.clone())));
    });
    group.throughput(Throughput::Elements(4096 * 1280));
    let wide = tensor([1, 4096, 2560]);
    group.bench_with_input("geglu/4096x2560", &wide, |b, x| {
        b.iter(|| black_box(geglu(x.clone())));
    });
    group.finish();
}

criterion_group!(benches, linear, attention, rows, pictures);
criterion_main!(benches);
