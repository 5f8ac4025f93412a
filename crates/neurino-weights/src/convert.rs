//! Converts whole matrices row by row, on all cores, without an f32 copy of the matrix in between.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::tensor::TensorView;
use crate::{DType, WeightsError, repack};

impl TensorView<'_> {
    /// The rows of a matrix as `target`: F32, F16, BF16, `Q4_1` or `Q8_0`. Row `i` of the result is
    /// row `source(i)` of the file.
    ///
    /// # Errors
    /// `UnsupportedDType` if the tensor is no matrix of weights, or its rows do not fill whole blocks
    /// of `target`.
    pub fn rows_as(
        &self,
        target: DType,
        source: impl Fn(usize) -> usize + Sync,
    ) -> Result<Vec<u8>, WeightsError> {
        let &[out, features] = self.shape else {
            return Err(self.unsupported("weights that are not a matrix"));
        };
        let stored = self.dtype.size_bytes(&[features]).filter(|_| self.dtype.is_float());
        let stored = stored.ok_or_else(|| self.unsupported(self.dtype.name()))?;
        let wanted = target.size_bytes(&[features]);
        let wanted = wanted.ok_or_else(|| self.unsupported("rows of partial blocks"))?;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; out * wanted];
        bytes.par_chunks_exact_mut(wanted).enumerate().for_each_init(
            || vec![0.0; features],
            |values, (row, row_bytes)| {
                let found = &self.bytes[source(row) * stored..][..stored];
                if self.dtype == target {
                    row_bytes.copy_from_slice(found);
                } else {
                    self.dtype.dequantize(found, values);
                    store(target, values, row_bytes);
                }
            },
        );
        Ok(bytes)
    }
}

/// Rows of f32 values as `target`, as [`TensorView::rows_as`] does. `None` if rows of `features`
/// values do not fill whole blocks of `target`.
pub fn rows_from_f32(values: &[f32], features: usize, target: DType) -> Option<Vec<u8>> {
    let wanted = target.size_bytes(&[features]).filter(|&bytes| bytes > 0)?;
    let mut bytes = vec![0; values.len() / features * wanted];
    bytes
        .par_chunks_exact_mut(wanted)
        .zip(values.par_chunks_exact(features))
        .for_each(|(row_bytes, values)| store(target, values, row_bytes));
    Some(bytes)
}

/// Writes `values` to `bytes` as `target`; a format that cannot be written leaves them as they are.
fn store(target: DType, values: &[f32], bytes: &mut [u8]) {
    match target {
        DType::F32 => {
            for (out, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                *out = value.to_le_bytes();
            }
        }
        DType::F16 => narrow(values, bytes, |from, to: &mut [f16]| to.convert_from_f32_slice(from)),
        DType::BF16 => {
            narrow(values, bytes, |from, to: &mut [bf16]| to.convert_from_f32_slice(from));
        }
        DType::Q4_1 => {
            for (out, block) in bytes.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
                *out = repack::q4_1(block);
            }
        }
        DType::Q8_0 => {
            for (out, block) in bytes.as_chunks_mut().0.iter_mut().zip(values.as_chunks().0) {
                *out = repack::q8_0(block);
            }
        }
        _ => {}
    }
}

/// In pieces on the stack, so that the conversion can use the CPU's own instruction.
fn narrow<T: Copy + Default + IntoBytes>(
    values: &[f32],
    bytes: &mut [u8],
    convert: impl Fn(&[f32], &mut [T]),
) {
    const PIECE: usize = 1024;
    let mut halves = [T::default(); PIECE];
    for (values, bytes) in values.chunks(PIECE).zip(bytes.chunks_mut(PIECE * 2)) {
        let halves = &mut halves[..values.len()];
        convert(values, halves);
        for (out, half) in bytes.as_chunks_mut().0.iter_mut().zip(halves) {
            *out = half.into_bytes();
        }
    }
}

trait IntoBytes {
    fn into_bytes(self) -> [u8; 2];
}

impl IntoBytes for f16 {
    fn into_bytes(self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

impl IntoBytes for bf16 {
    fn into_bytes(self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_move_and_change_format() {
        let values: Vec<f32> =
            (0..3 * 1100u16).map(|i| f32::from(i % 800) * 0.25 - 100.0).collect();
        let stored: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (name, file, dtype) = ("w", Path::new("file"), DType::F32);
        let view = TensorView { name, file, dtype, shape: &[3, 1100], bytes: &stored };
        let expect: Vec<f32> =
            [2, 0, 1].iter().flat_map(|row| &values[row * 1100..][..1100]).copied().collect();
        for target in [DType::F32, DType::F16, DType::BF16] {
            let bytes = view.rows_as(target, |row| (row + 2) % 3).expect("rows");
            let mut found = vec![0.0; values.len()];
            target.dequantize(&bytes, &mut found);
            let limit = if target == DType::BF16 { 0.25 } else { 0.0 };
            assert!(found.iter().zip(&expect).all(|(a, b)| (a - b).abs() <= limit), "{target:?}");
            assert_eq!(
                rows_from_f32(&expect, 1100, target).expect("rows"),
                bytes,
                "{target:?} of values"
            );
        }
        assert!(view.rows_as(DType::Q4_1, |row| row).is_err(), "1100 is no multiple of 32");
        let flat = TensorView { shape: &[3300], ..view };
        assert!(flat.rows_as(DType::F32, |row| row).is_err(), "not a matrix");
    }
}
