//! `y = x Wᵀ` for every format of weights.

use half::{bf16, f16};
use neurino_kernels::buffer::Buffer;
use neurino_kernels::format::{Format, Packed};
use neurino_kernels::gpu::Gpu;
use neurino_kernels::matvec::Matrix;

use crate::support::{assert_close, floats, gpu, noise, warps};

pub(crate) const FORMATS: [Format; 6] =
    [Format::Q4, Format::Q4Offset, Format::Q4Zero, Format::Q8, Format::Q8Offset, Format::Q8Zero];

pub(crate) fn packed(format: Format, shape: [usize; 3], seed: u64) -> Packed {
    let [out, inner, group] = shape;
    let (spread, middle) = if format.bits() == 8 { (128.0, 0.0) } else { (8.0, 8.0) };
    let quants: Vec<i8> =
        noise(seed, out * inner).iter().map(|x| (x * spread + middle).floor() as i8).collect();
    let groups = out * inner / group;
    let scales = noise(seed + 1, groups).iter().map(|x| f16::from_f32(x * 0.05)).collect();
    let offsets = noise(seed + 2, groups);
    let offsets = match format {
        Format::Q4Offset | Format::Q8Offset => {
            offsets.iter().map(|x| f16::from_f32(x * 0.3)).collect()
        }
        Format::Q4Zero | Format::Q8Zero => {
            offsets.iter().map(|x| f16::from_f32((x * 8.0 + 8.0).floor())).collect()
        }
        Format::Q4 | Format::Q8 => Vec::new(),
    };
    Packed::new(format, shape, &quants, scales, offsets)
}

/// In f64, so that its own rounding does not matter.
pub(crate) fn oracle(weights: &[f32], x: &[f32], inner: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| {
        x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
    };
    x.chunks(inner).flat_map(|x| weights.chunks(inner).map(move |w| dot(x, w))).collect()
}

fn multiply(gpu: &Gpu, matrix: &Matrix, x: &[f32], gated: bool) -> Vec<f32> {
    let rows = x.len() / matrix.inner();
    let out = if gated { matrix.out() / 2 } else { matrix.out() };
    let y = Buffer::upload(&gpu.client, &vec![f32::NAN; rows * out]);
    matrix.multiply(gpu, &Buffer::upload(&gpu.client, x), &y, rows, gated);
    floats(gpu, &y)
}

/// [out, inner, group]: odd numbers of outputs, rows shorter than a warp's step, several steps,
/// groups as in GGUF and GPTQ.
const SHAPES: [[usize; 3]; 4] = [[1, 32, 32], [7, 96, 16], [37, 1152, 128], [1030, 64, 64]];

#[test]
fn packed_weights_give_what_unpacked_ones_give() {
    let gpu = gpu();
    for format in FORMATS {
        for (seed, shape) in (0..).zip(SHAPES) {
            let packed = packed(format, shape, 10 * seed);
            let matrix = Matrix::upload(&gpu, &packed);
            for rows in [1, 3] {
                let x = noise(77, rows * shape[1]);
                let found = multiply(&gpu, &matrix, &x, false);
                let expect = oracle(&packed.to_f32(), &x, shape[1]);
                assert_close(&format!("{format:?} {shape:?}"), &found, &expect, 1e-5);
            }
        }
    }
}

#[test]
fn dense_weights_multiply() {
    let gpu = gpu();
    for [out, inner, _] in SHAPES {
        let weights = noise(3, out * inner);
        let halves: Vec<f16> = weights.iter().map(|w| f16::from_f32(*w)).collect();
        let rounded: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
        let x = noise(4, 5 * inner);
        let f32s = Matrix::f32(Buffer::upload(&gpu.client, &weights), out, inner).unwrap();
        let f16s = Matrix::f16(Buffer::upload(&gpu.client, &halves), out, inner).unwrap();
        let found = multiply(&gpu, &f32s, &x, false);
        assert_close("f32", &found, &oracle(&weights, &x, inner), 1e-5);
        let found = multiply(&gpu, &f16s, &x, false);
        assert_close("f16", &found, &oracle(&rounded, &x, inner), 1e-5);
        // As two bytes each, which is all that the kernel knows of them.
        let stored: Vec<bf16> = weights.iter().map(|w| bf16::from_f32(*w * 1e30)).collect();
        let rounded: Vec<f32> = stored.iter().map(|w| w.to_f32() / 1e30).collect();
        let bits: Vec<u16> = stored.iter().map(|w| w.to_bits()).collect();
        let bf16s = Matrix::bf16(Buffer::upload(&gpu.client, &bits), out, inner).unwrap();
        let found = multiply(&gpu, &bf16s, &x, false);
        let found: Vec<f32> = found.iter().map(|y| y / 1e30).collect();
        assert_close("bf16, beyond f16's range", &found, &oracle(&rounded, &x, inner), 1e-5);
    }
}

#[test]
fn lanes_and_warps_share_a_row() {
    let gpu = warps();
    let shape = [3, 96, 32];
    for format in [Format::Q4Zero, Format::Q8] {
        let packed = packed(format, shape, 1);
        let x = noise(77, 2 * shape[1]);
        let found = multiply(&gpu, &Matrix::upload(&gpu, &packed), &x, false);
        assert_close("two warps", &found, &oracle(&packed.to_f32(), &x, shape[1]), 1e-5);
    }
}

#[test]
fn a_row_does_not_depend_on_how_many_there_are() {
    let gpu = gpu();
    let shape = [21, 1152, 32];
    for format in FORMATS {
        let matrix = Matrix::upload(&gpu, &packed(format, shape, 5));
        let x = noise(6, 19 * shape[1]);
        let all = multiply(&gpu, &matrix, &x, false);
        for row in [0, 7, 8, 18] {
            let alone = multiply(&gpu, &matrix, &x[row * shape[1]..(row + 1) * shape[1]], false);
            assert_eq!(alone, all[row * shape[0]..(row + 1) * shape[0]], "{format:?} row {row}");
        }
    }
}

#[test]
fn a_gated_matrix_gives_the_product_of_its_halves() {
    let gpu = gpu();
    let [out, inner] = [2 * 13, 96];
    let packed = packed(Format::Q4, [out, inner, 32], 8);
    let matrix = Matrix::upload(&gpu, &packed);
    let x = noise(9, 3 * inner);
    let found = multiply(&gpu, &matrix, &x, true);
    let both = oracle(&packed.to_f32(), &x, inner);
    let silu = |x: f32| x / (1.0 + (-x).exp());
    let expect: Vec<f32> = both
        .chunks(out)
        .flat_map(|row| (0..out / 2).map(|i| silu(row[i]) * row[out / 2 + i]))
        .collect();
    assert_close("gated", &found, &expect, 1e-5);
}
