//! Whether a card's tensor cores multiply as they should: what has never run on some card proves itself
//! there, when the first weights of a kind are put on it.
//!
//! A made-up matrix is multiplied with rows in steps of every form, held to the host's products, and
//! each row's bits in a step to those in all others. After one fault, weights of that kind are multiplied
//! on that card as by the kernels of [`super::dense`] and [`super::quant`] before there were tiles.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use half::{bf16, f16};
use neurino_kernels::format::{Format, Packed};
use neurino_kernels::tensor::PackedTensors;
use neurino_kernels::tensor::tiles::{dense_tiles, has_tensor_cores, packed_tiles};

use crate::NnError;
use crate::device::{TileVerdict, Tiles, download, upload};

/// Weights that the tiles multiply differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Dense, f16.
    F16,
    /// Dense, bf16.
    Bf16,
    /// Packed.
    Packed(Format),
}

/// What was found out in this process. A fact about the card and this build, which no model changes.
static FOUND: Mutex<Vec<(Device, Kind, Tiles)>> = Mutex::new(Vec::new());

/// Whether weights of `kind` are multiplied in tiles on `device`: always, or never. What could not be
/// asked, such as for lack of memory, is asked again.
pub fn are_right(device: &Device, kind: Kind) -> bool {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., tiles)) = found.iter().find(|(d, k, _)| d == device && *k == kind) {
        return *tiles == Tiles::Right;
    }
    let Ok(tiles) = check(device, kind) else { return false };
    found.push((device.clone(), kind, tiles));
    tiles == Tiles::Right
}

/// What was found out of all cards so far.
pub(crate) fn verdicts() -> Vec<TileVerdict> {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let verdict = |(device, kind, tiles): &(Device, Kind, Tiles)| TileVerdict {
        device: device.clone(),
        weights: format!("{kind:?}"),
        tiles: *tiles,
    };
    found.iter().map(verdict).collect()
}

/// Rows of the matrix, which fill no tile, and its columns: many parts, the last of them shorter.
const OUT: usize = 216;
const INNER: usize = 2080;
/// Rows that are multiplied in the largest step, and those that the host multiplies, too.
const ROWS: usize = 520;
const HOST_ROWS: usize = 24;
/// Sizes of the other steps: one for each form of tiles.
const STEPS: [usize; 7] = [1, 9, 31, 33, 65, 200, 300];
/// How far a product may lie from the host's, relative to the largest.
const TOLERANCE: f32 = 1e-4;

/// Numbers from -1 to 1 that look random, always the same.
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat_n((), len).scan(seed, |state, ()| step(state)).collect()
}

/// Multiplies a made-up matrix on `device` in steps of every form.
///
/// # Errors
/// `Device` if it could not compute.
pub fn check(device: &Device, kind: Kind) -> Result<Tiles, NnError> {
    let failed = |reason: String| NnError::Device { reason };
    if !has_tensor_cores(device, kind == Kind::Bf16).map_err(failed)? {
        return Ok(Tiles::NoTensorCores);
    }
    let made = Made::new(kind, device);
    let x = noise(7, ROWS * INNER);
    let all = download(made.multiply(&x, device)?)?;
    let expect = made.on_host(&x[..HOST_ROWS * INNER], kind);
    let largest = expect.iter().fold(0.0_f32, |most, y| most.max(y.abs()));
    let is_close = |(y, e): (&f32, &f32)| (y - e).abs() <= TOLERANCE * largest;
    if !all.iter().zip(&expect).all(is_close) {
        return Ok(Tiles::Wrong);
    }
    for rows in STEPS {
        // At another place among others.
        let from = (ROWS - rows) / 2;
        let some = download(made.multiply(&x[from * INNER..(from + rows) * INNER], device)?)?;
        let same = &all[from * OUT..(from + rows) * OUT];
        if !some.iter().zip(same).all(|(some, same)| some.to_bits() == same.to_bits()) {
            return Ok(Tiles::NotTheSame);
        }
    }
    Ok(Tiles::Right)
}

/// A matrix on a device, and its weights on the host.
struct Made {
    weights: Vec<f32>,
    on_device: OnDevice,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum OnDevice {
    Dense(Tensor<2>),
    Packed(PackedTensors),
}

impl Made {
    fn new(kind: Kind, device: &Device) -> Self {
        let numbers = noise(3, OUT * INNER);
        let dense = |data: TensorData, dtype: DType| {
            OnDevice::Dense(Tensor::from_data(data, (device, dtype)))
        };
        match kind {
            Kind::F16 => {
                let stored: Vec<f16> = numbers.iter().map(|w| f16::from_f32(*w)).collect();
                let weights = stored.iter().map(|w| w.to_f32()).collect();
                let data = TensorData::new(stored, [OUT, INNER]);
                Self { weights, on_device: dense(data, DType::F16) }
            }
            Kind::Bf16 => {
                let stored: Vec<bf16> = numbers.iter().map(|w| bf16::from_f32(*w)).collect();
                let weights = stored.iter().map(|w| w.to_f32()).collect();
                let data = TensorData::new(stored, [OUT, INNER]);
                Self { weights, on_device: dense(data, DType::BF16) }
            }
            Kind::Packed(format) => Self::packed(format, &numbers, device),
        }
    }

    fn packed(format: Format, numbers: &[f32], device: &Device) -> Self {
        const GROUP: usize = 32;
        let groups = OUT * INNER / GROUP;
        let (spread, middle) = if format.bits() == 8 { (128.0, 0.0) } else { (8.0, 8.0) };
        let quants: Vec<i8> = numbers.iter().map(|x| (x * spread + middle).floor() as i8).collect();
        let scales = noise(11, groups).iter().map(|x| f16::from_f32(x * 0.05)).collect();
        let offset = |x: &f32| match (format.subtracts_zeros(), format.bits()) {
            (true, 4) => f16::from_f32((x * 8.0 + 8.0).floor()),
            (true, _) => f16::from_f32((x * 128.0).floor()),
            (false, _) => f16::from_f32(x * 0.3),
        };
        let offsets = if format.has_offsets() {
            noise(13, groups).iter().map(offset).collect()
        } else {
            Vec::new()
        };
        let packed = Packed::new(format, [OUT, INNER, GROUP], &quants, scales, offsets);
        let weights = packed.to_f32();
        let words: Vec<i32> = packed.words.iter().map(|word| word.cast_signed()).collect();
        let row_words = words.len() / OUT;
        let halves = |values: Vec<f16>| {
            let data = TensorData::new(values, [OUT, INNER / GROUP]);
            Tensor::<2>::from_data(data, (device, DType::F16))
        };
        let words: Tensor<2, Int> =
            Tensor::from_data(TensorData::new(words, [OUT, row_words]), (device, DType::I32));
        let offsets = if format.has_offsets() {
            halves(packed.offsets)
        } else {
            upload(vec![0.0], [1, 1], device)
        };
        let scales = halves(packed.scales);
        let tensors = PackedTensors { format, words, scales, offsets };
        Self { weights, on_device: OnDevice::Packed(tensors) }
    }

    fn multiply(&self, x: &[f32], device: &Device) -> Result<Tensor<2>, NnError> {
        let x = upload(x.to_vec(), [x.len() / INNER, INNER], device);
        let y = match &self.on_device {
            OnDevice::Dense(weights) => dense_tiles(x, weights),
            OnDevice::Packed(matrix) => packed_tiles(x, matrix),
        };
        y.map_err(|error| NnError::Device { reason: error.to_string() })
    }

    /// With activations in 16 bits, as the tensor cores take them.
    fn on_host(&self, x: &[f32], kind: Kind) -> Vec<f32> {
        let narrow = |x: &f32| match kind {
            Kind::Bf16 => bf16::from_f32(*x).to_f32(),
            Kind::F16 | Kind::Packed(_) => f16::from_f32(*x).to_f32(),
        };
        let x: Vec<f32> = x.iter().map(narrow).collect();
        let dot = |x: &[f32], w: &[f32]| {
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32
        };
        let rows = x.chunks_exact(INNER);
        rows.flat_map(|x| self.weights.chunks_exact(INNER).map(|w| dot(x, w))).collect()
    }
}

#[cfg(test)]
#[cfg(feature = "kernels-on-cpu")]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_no_tensor_cores_and_keeps_what_it_had() {
        let device = Device::cpu();
        assert_eq!(check(&device, Kind::F16).unwrap(), Tiles::NoTensorCores);
        assert!(!are_right(&device, Kind::F16));
        let verdict = TileVerdict {
            device: device.clone(),
            weights: "F16".into(),
            tiles: Tiles::NoTensorCores,
        };
        assert!(verdicts().contains(&verdict));
    }

    #[test]
    fn made_up_matrices_are_what_the_host_multiplies() {
        let device = Device::cpu();
        let x = noise(7, 2 * INNER);
        for kind in [Kind::F16, Kind::Packed(Format::Q4Offset), Kind::Packed(Format::Q8Zero)] {
            let made = Made::new(kind, &device);
            let found = download(made.multiply(&x, &device).unwrap()).unwrap();
            let expect = made.on_host(&x, kind);
            let largest = expect.iter().fold(0.0_f32, |most, y| most.max(y.abs()));
            for (found, expect) in found.iter().zip(&expect) {
                assert!((found - expect).abs() <= TOLERANCE * largest, "{kind:?}");
            }
        }
    }
}
