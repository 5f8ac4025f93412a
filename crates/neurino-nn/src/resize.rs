//! Larger and smaller pictures, and numbers as waves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::device::{is_cpu, upload};

/// Tables that a layer keeps.
const TABLES_MAX: usize = 32;

/// The nearest pixel's value for each pixel of a picture of another size.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; returns `[batch, height, width, channels]` of the new
///   `height` and `width`
///
/// Source: `torch.nn.functional.interpolate(mode="nearest")`, its rounding included.
pub fn nearest(x: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    nearest_by(x, height, width, &Places::default())
}

/// Tables of which place takes its value from which, for a layer that enlarges pictures again and again: its
/// device is sent each of them once.
#[derive(Debug, Default)]
pub struct Places {
    /// By the lengths before and after.
    tables: Mutex<HashMap<(usize, usize), Tensor<1, Int>>>,
    sent: AtomicU64,
}

impl Places {
    /// Tables that were sent to a device.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn table(&self, from: usize, to: usize, device: &Device) -> Tensor<1, Int> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&(from, to)) {
            return table.clone();
        }
        // Pictures of so many sizes follow one another rarely.
        if tables.len() >= TABLES_MAX {
            tables.clear();
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        let places = sources(from, to);
        let shape = [places.len()];
        let table = Tensor::from_data(TensorData::new(places, shape), (device, DType::I32));
        tables.insert((from, to), table.clone());
        table
    }
}

/// [`nearest`] of a layer that is on one device, with the tables it has.
///
/// # Shapes
/// - as [`nearest`]
pub fn nearest_by(x: Tensor<4>, height: usize, width: usize, places: &Places) -> Tensor<4> {
    let [_, from_height, from_width, _] = x.dims();
    let device = x.device();
    if !is_cpu(&device) && [height, width] == [2 * from_height, 2 * from_width] {
        return doubled(x);
    }
    let rows = places.table(from_height, height, &device);
    x.select(1, rows).select(2, places.table(from_width, width, &device))
}

/// Each pixel four times: [`nearest`] for twice the size, without a table of places that a card would have
/// to be sent in every step.
fn doubled(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let x: Tensor<6> = x.reshape([batch, height, 1, width, 1, channels]);
    let x = x.expand([batch, height, 2, width, 2, channels]);
    x.reshape([batch, 2 * height, 2 * width, channels])
}

/// Of which of `from` places each of `to` places takes its value.
fn sources(from: usize, to: usize) -> Vec<i32> {
    let scale = from as f32 / to as f32;
    let last = from.saturating_sub(1);
    (0..to).map(|place| ((place as f32 * scale) as usize).min(last) as i32).collect()
}

/// Numbers as waves: `cos(t f_i)` for all frequencies, then `sin(t f_i)`, where
/// `f_i = 10000^(-i / (width / 2))`.
///
/// # Shapes
/// - returns `[t.len(), width]`, f32; `width` is even
///
/// Source: `diffusers@0.31.0 embeddings.py` `get_timestep_embedding` with `flip_sin_to_cos` and without
/// a shift, in f32 as there.
pub fn timestep_embedding(t: &[f32], width: usize, device: &Device) -> Tensor<2> {
    let half = width / 2;
    let step = -(10000f64.ln()) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (step * i as f32 / half as f32).exp()).collect();
    let mut values = Vec::with_capacity(t.len() * width);
    for &t in t {
        values.extend(frequencies.iter().map(|frequency| (t * frequency).cos()));
        values.extend(frequencies.iter().map(|frequency| (t * frequency).sin()));
    }
    upload(values, [t.len(), 2 * half], device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::download;

    #[test]
    fn a_table_of_places_is_sent_once() {
        let device = Device::flex();
        let x = |height: usize, width: usize| {
            let values = (0..height * width).map(|i| i as f32).collect();
            upload(values, [1, height, width, 1], &device)
        };
        let places = Places::default();
        let read = |y: Tensor<4>| download(y).expect("reads");
        for (steps, sent) in [(1, 2), (2, 2), (3, 2)] {
            let found = read(nearest_by(x(3, 5), 5, 9, &places));
            assert_eq!(found, read(nearest(x(3, 5), 5, 9)), "step {steps}");
            assert_eq!(places.sent(), sent);
        }
        // The same length along the other side is the same table.
        assert_eq!(read(nearest_by(x(5, 3), 9, 5, &places)), read(nearest(x(5, 3), 9, 5)));
        assert_eq!(places.sent(), 2);
        for from in 1..3 * TABLES_MAX {
            let found = read(nearest_by(x(from, 3), from + 1, 5, &places));
            assert_eq!(found, read(nearest(x(from, 3), from + 1, 5)));
        }
        assert!(places.tables.lock().is_ok_and(|tables| tables.len() <= TABLES_MAX));
    }

    #[test]
    fn twice_the_size_needs_no_table() {
        let device = Device::flex();
        let x = upload((0..30_u8).map(f32::from).collect(), [1, 2, 5, 3], &device);
        let found = doubled(x.clone());
        assert_eq!(found.dims(), [1, 4, 10, 3]);
        let expect = nearest(x, 4, 10);
        assert_eq!(download(found).expect("reads"), download(expect).expect("reads"));
    }
}
