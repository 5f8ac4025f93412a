//! `y = x Wᵀ` in tiles: what it gives, and that a row's bits are its own.

use half::{bf16, f16};
use neurino_kernels::buffer::Buffer;
use neurino_kernels::format::Format;
use neurino_kernels::gpu::{Gpu, Unsupported};
use neurino_kernels::matvec::Matrix;
use neurino_kernels::product;

use crate::matvec::{FORMATS, oracle, packed};
use crate::support::{assert_close, floats, gpu, noise};

/// One for each form of tiles, and one for their edges.
const ROWS: [usize; 9] = [1, 8, 9, 31, 33, 64, 65, 200, 300];

fn multiply(gpu: &Gpu, matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    let rows = x.len() / matrix.inner();
    let y = Buffer::upload(&gpu.client, &vec![f32::NAN; rows * matrix.out()]);
    product::multiply(gpu, matrix, &Buffer::upload(&gpu.client, x), &y, rows).unwrap();
    floats(gpu, &y)
}

/// `x` as a tensor core is given it.
fn in_f16(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| f16::from_f32(x.clamp(-65_504.0, 65_504.0)).to_f32()).collect()
}

/// Every row of steps of all sizes has, to the last bit, what it has alone, and that is right.
fn check(what: &str, gpu: &Gpu, matrix: &Matrix, x: &[f32], expect: &[f32]) {
    let (inner, out) = (matrix.inner(), matrix.out());
    let all = multiply(gpu, matrix, x);
    assert_close(what, &all, expect, 2e-5);
    let most = x.len() / inner;
    for rows in ROWS.into_iter().filter(|rows| *rows < most) {
        // At another place among others.
        let from = (most - rows) / 2;
        let some = multiply(gpu, matrix, &x[from * inner..(from + rows) * inner]);
        assert_eq!(some, all[from * out..(from + rows) * out], "{what}: {rows} rows");
    }
}

#[test]
fn a_row_has_the_same_bits_in_steps_of_every_size() {
    let gpu = gpu();
    // Several parts of a row, the last of them shorter; a matrix that fills no tile.
    let [out, inner] = [21, 352];
    let weights = noise(3, out * inner);
    let x = noise(4, 520 * inner);
    let halves: Vec<f16> = weights.iter().map(|w| f16::from_f32(*w)).collect();
    let rounded: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
    let f16s = Matrix::f16(Buffer::upload(&gpu.client, &halves), out, inner).unwrap();
    check("f16", &gpu, &f16s, &x, &oracle(&rounded, &in_f16(&x), inner));

    let stored: Vec<bf16> = weights.iter().map(|w| bf16::from_f32(*w * 1e30)).collect();
    let rounded: Vec<f32> = stored.iter().map(|w| w.to_f32()).collect();
    let bits: Vec<u16> = stored.iter().map(|w| w.to_bits()).collect();
    let narrow: Vec<f32> = x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    let bf16s = Matrix::bf16(Buffer::upload(&gpu.client, &bits), out, inner).unwrap();
    check("bf16", &gpu, &bf16s, &x, &oracle(&rounded, &narrow, inner));
}

#[test]
fn packed_rows_have_the_same_bits_in_steps_of_every_size() {
    let gpu = gpu();
    for (format, [out, inner, group]) in
        FORMATS.into_iter().zip([[21, 352, 32], [5, 256, 128]].into_iter().cycle())
    {
        let packed = packed(format, [out, inner, group], 5);
        let x = noise(6, 70 * inner);
        let expect = oracle(&packed.to_f32(), &in_f16(&x), inner);
        check(&format!("{format:?}"), &gpu, &Matrix::upload(&gpu, &packed), &x, &expect);
    }
}

#[test]
fn what_f16_cannot_hold_is_its_largest_number() {
    let gpu = gpu();
    let one = vec![f16::ONE; 32];
    let matrix = Matrix::f16(Buffer::upload(&gpu.client, &one), 1, 32).unwrap();
    for rows in [1, 40] {
        let mut x = vec![0.0; rows * 32];
        (x[0], x[3]) = (1e9, 1.0);
        assert_eq!(multiply(&gpu, &matrix, &x)[0], 65_505.0, "{rows} rows");
        x[0] = f32::NAN;
        assert!(multiply(&gpu, &matrix, &x)[0].is_nan(), "no number stays none");
    }
}

#[test]
fn weights_without_a_tile_are_refused() {
    let gpu = gpu();
    let upload = |len: usize| Buffer::upload(&gpu.client, &vec![f16::ONE; len]);
    let narrow = Matrix::f16(upload(40), 1, 40).unwrap();
    assert!(matches!(product::check(&gpu, &narrow), Err(Unsupported(_))));
    let small_groups = Matrix::upload(&gpu, &packed(Format::Q8, [2, 64, 16], 1));
    assert!(matches!(product::check(&gpu, &small_groups), Err(Unsupported(_))));
    let wide = Matrix::f32(Buffer::upload(&gpu.client, &[1.0_f32; 64]), 2, 32).unwrap();
    assert!(matches!(product::check(&gpu, &wide), Err(Unsupported(_))));
}
