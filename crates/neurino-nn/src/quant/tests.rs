//! The kernels against the unpacked matrix, and rows against themselves in other company.
#![expect(clippy::float_cmp, reason = "equal means the same bits")]

use burn::tensor::Device;
use neurino_weights::dtype::BLOCK;
use neurino_weights::gptq::GptqMatrix;

use super::source::Stored;
use super::*;
use crate::cpu::multiply;
use crate::device::download;

/// Largest difference, relative to the largest value: what rounding to 15 bits costs.
const LIMIT: f32 = 1e-4;

const GGUF: [(Packing, neurino_weights::DType); 8] = [
    (Packing::Q4Symmetric, neurino_weights::DType::Q4_0),
    (Packing::Q4Minimum, neurino_weights::DType::Q4_1),
    (Packing::Q5Symmetric, neurino_weights::DType::Q5_0),
    (Packing::Q5Minimum, neurino_weights::DType::Q5_1),
    (Packing::Q8, neurino_weights::DType::Q8_0),
    (Packing::Q4K, neurino_weights::DType::Q4K),
    (Packing::Q5K, neurino_weights::DType::Q5K),
    (Packing::Q6K, neurino_weights::DType::Q6K),
];

fn random() -> impl FnMut() -> u8 {
    let mut state = 0x9E37_79B9u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }
}

/// Blocks with scattered integers and scales.
fn stored(packing: Packing, out: usize, features: usize) -> Vec<u8> {
    let mut random = random();
    let unit = Stored::of(packing).expect("a format of GGUF");
    let mut bytes: Vec<u8> =
        (0..out * features / unit.weights * unit.bytes).map(|_| random()).collect();
    for block in bytes.chunks_exact_mut(unit.bytes) {
        // Only the fields that are halves must not be arbitrary.
        let at = if packing == Packing::Q6K { 208 } else { 0 };
        let two = at == 0
            && !matches!(packing, Packing::Q4Symmetric | Packing::Q5Symmetric | Packing::Q8);
        for field in 0..=usize::from(two) {
            let value = half::f16::from_f32((f32::from(random()) - 100.0) / 1000.0);
            block[at + 2 * field..][..2].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

fn matrix(packing: Packing, out: usize, features: usize) -> Arc<PackedMatrix> {
    let bytes = stored(packing, out, features);
    let matrix = PackedMatrix::from_blocks(packing, out, features, &bytes, |row| row);
    Arc::new(matrix.expect("whole blocks"))
}

fn gptq(bits: u32, out: usize, features: usize, group_size: usize) -> GptqMatrix {
    let mut random = random();
    let groups = features.div_ceil(group_size);
    let mut order: Vec<u32> = (0..features as u32).collect();
    order.sort_by_key(|i| i * 37 % 101);
    GptqMatrix {
        out_features: out,
        in_features: features,
        bits,
        group_size,
        quants: (0..out * features * bits as usize / 8).map(|_| random()).collect(),
        scales: (0..out * groups).map(|_| f32::from(random()) / 9000.0).collect(),
        zeros: (0..out * groups).map(|_| random() % (1 << bits.min(7))).collect(),
        permutation: (bits == 4).then_some(order),
    }
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.61).sin() * 4.0).collect()
}

fn plain(weights: &[f32], x: &[f32], features: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| {
        x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
    };
    x.chunks_exact(features)
        .flat_map(|x| weights.chunks_exact(features).map(move |w| dot(x, w)))
        .collect()
}

#[test]
fn unpacking_gives_what_the_reader_gives() {
    let (out, features) = (21, 512);
    for (packing, dtype) in GGUF {
        let bytes = stored(packing, out, features);
        let source = |row: usize| out - 1 - row;
        let matrix = PackedMatrix::from_blocks(packing, out, features, &bytes, source);
        let mut expect = vec![0.0; out * features];
        dtype.dequantize(&bytes, &mut expect);
        let found = matrix.expect("whole blocks").to_f32();
        for row in 0..out {
            let (found, expect) = (&found[row * features..], &expect[source(row) * features..]);
            assert_eq!(found[..features], expect[..features], "{packing:?} row {row}");
        }
    }
    for bits in [2, 4, 8] {
        let gptq = gptq(bits, out, 320, 128);
        let found = PackedMatrix::from_gptq(&gptq).expect("whole blocks").to_f32();
        for (found, expect) in found.iter().zip(gptq.to_f32()) {
            assert!((found - expect).abs() <= 2e-6, "{bits} bits: {found} {expect}");
        }
    }
}

#[test]
fn groups_that_cut_blocks_are_refused() {
    assert!(PackedMatrix::from_gptq(&gptq(4, 16, 320, 40)).is_none());
    assert!(PackedMatrix::from_blocks(Packing::Q8, 2, 32, &[0; 67], |row| row).is_err());
    assert!(PackedMatrix::from_blocks(Packing::Q4K, 1, 128, &[0; 72], |row| row).is_err());
}

/// Each packing with some rows, on every instruction set: right, and each row as alone.
#[test]
fn kernels_agree_with_the_unpacked_matrix_and_rows_stay_themselves() {
    let (out, rows) = (77, 23);
    let mut matrices: Vec<Arc<PackedMatrix>> = Vec::new();
    for (packing, _) in GGUF {
        matrices.push(matrix(packing, out, 768));
    }
    for (bits, group) in [(4, 128), (4, 32), (8, 128), (2, 64)] {
        let packed = PackedMatrix::from_gptq(&gptq(bits, out, 320, group));
        matrices.push(Arc::new(packed.expect("whole blocks")));
    }
    for matrix in matrices {
        let features = matrix.in_features();
        let x = values(rows * features);
        let expect = plain(&matrix.to_f32(), &x, features);
        let largest = expect.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let cpu = CpuMatrix::Packed(Arc::clone(&matrix));
        for isa in Isa::available() {
            let [found] = multiply([&cpu], &x, rows, isa);
            for (i, (found, expect)) in found.iter().zip(&expect).enumerate() {
                let off = (found - expect).abs();
                assert!(
                    off <= LIMIT * largest,
                    "{:?} {isa:?} {i}: {found} {expect}",
                    matrix.packing()
                );
            }
            for count in [1, 2, 3, 5, 8, 13] {
                let first = rows - count;
                let [part] = multiply([&cpu], &x[first * features..], count, isa);
                assert_eq!(part, found[first * out..], "{:?} {isa:?} {count}", matrix.packing());
            }
        }
    }
}

#[test]
fn tensor_form_has_the_oracles_shape_and_values() {
    let device = Device::flex();
    let matrix = matrix(Packing::Q4Minimum, 65, 64);
    for rows in [1, 5] {
        let x: Tensor<2> = upload(values(rows * 64), [rows, 64], &device);
        let oracle = Dequantized::new(&matrix, &device, DType::F32).matmul(x.clone());
        let found = CpuKernel::new(Arc::clone(&matrix)).matmul(x);
        assert_eq!(found.dims(), oracle.dims());
        let expect = download(oracle).expect("download");
        for (found, expect) in download(found).expect("download").iter().zip(expect) {
            assert!((found - expect).abs() < 1e-3, "{found} {expect}");
        }
    }
}

#[test]
fn rows_for_other_devices_keep_their_integers() {
    let matrix = matrix(Packing::Q8, 3, 2 * BLOCK);
    let row = matrix.row(2);
    let mut weights = Vec::new();
    matrix.append_row(2, &mut weights);
    for (i, weight) in weights.iter().enumerate() {
        assert_eq!(*weight, row.scales[i / 16] * f32::from(row.quants[i]) + row.minima[i / 16]);
    }
}
