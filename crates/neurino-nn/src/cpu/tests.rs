//! Dense weights against the definition, and rows against themselves in other company.

use burn::tensor::{DType, Device};

use super::*;
use crate::device::download;

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * seed).sin()).collect()
}

fn dense(out: usize, features: usize, dtype: DType) -> (CpuMatrix, Vec<f32>) {
    let weight: Tensor<2> = upload(values(out * features, 0.37), [out, features], &Device::flex());
    let weight = weight.cast(dtype);
    let kept = download(weight.clone()).expect("download");
    (CpuMatrix::Dense(Arc::new(DenseMatrix::new(weight))), kept)
}

#[test]
fn dense_weights_of_each_format_on_every_instruction_set() {
    let (out, features, rows) = (37, 85, 17);
    let x = values(rows * features, 0.61);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (matrix, weights) = dense(out, features, dtype);
        for isa in Isa::available() {
            let [found] = multiply([&matrix], &x, rows, isa);
            for row in 0..rows {
                for feature in 0..out {
                    let w = &weights[feature * features..][..features];
                    let x = &x[row * features..][..features];
                    let expect: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                    let off = (found[row * out + feature] - expect).abs();
                    assert!(off < 1e-4, "{dtype:?} {isa:?} row {row} feature {feature}: {off}");
                }
            }
            for count in [1, 2, 4, 7, 12] {
                let [part] = multiply([&matrix], &x[..count * features], count, isa);
                assert_eq!(part, found[..count * out], "{dtype:?} {isa:?} {count} rows");
            }
        }
    }
}

#[test]
fn threads_and_company_change_no_bit() {
    let (out, features, rows) = (1031, 320, 6);
    let x = values(rows * features, 0.21);
    let (matrix, _) = dense(out, features, DType::F16);
    let (other, _) = dense(77, features, DType::F32);
    let [expect] = multiply([&matrix], &x, rows, Isa::best());
    for threads in 1..=5 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let [found, _, again] =
            pool.install(|| multiply([&matrix, &other, &matrix], &x, rows, Isa::best()));
        assert_eq!(found, expect, "{threads} threads");
        assert_eq!(again, expect, "{threads} threads");
    }
}

#[test]
fn tensors_that_are_views_are_read_in_their_order() {
    let device = Device::flex();
    let weight: Tensor<2> = upload(values(6 * 4, 0.9), [6, 4], &device);
    let x: Tensor<2> = upload(values(4 * 3, 0.5), [4, 3], &device);
    let expect = download(x.clone().transpose().matmul(weight.clone().transpose()));
    let matrix = CpuMatrix::Dense(Arc::new(DenseMatrix::new(weight)));
    let [found] = matmul([&matrix], x.transpose());
    let found = download(found).expect("download");
    for (found, expect) in found.iter().zip(expect.expect("download")) {
        assert!((found - expect).abs() < 1e-6, "{found} {expect}");
    }
}
