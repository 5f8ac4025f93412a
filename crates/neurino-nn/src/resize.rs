//! Larger and smaller pictures, and numbers as waves.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::device::{is_cpu, upload};

/// The nearest pixel's value for each pixel of a picture of another size.
///
/// # Shapes
/// - `x`: `[batch, height, width, channels]`; returns `[batch, height, width, channels]` of the new
///   `height` and `width`
///
/// Source: `torch.nn.functional.interpolate(mode="nearest")`, its rounding included.
pub fn nearest(x: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [_, from_height, from_width, _] = x.dims();
    let device = x.device();
    if !is_cpu(&device) && [height, width] == [2 * from_height, 2 * from_width] {
        return doubled(x);
    }
    let places = |from, to| -> Tensor<1, Int> {
        let places = sources(from, to);
        let shape = [places.len()];
        Tensor::from_data(TensorData::new(places, shape), (&device, DType::I32))
    };
    x.select(1, places(from_height, height)).select(2, places(from_width, width))
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
    fn twice_the_size_needs_no_table() {
        let device = Device::flex();
        let x = upload((0..30_u8).map(f32::from).collect(), [1, 2, 5, 3], &device);
        let found = doubled(x.clone());
        assert_eq!(found.dims(), [1, 4, 10, 3]);
        let expect = nearest(x, 4, 10);
        assert_eq!(download(found).expect("reads"), download(expect).expect("reads"));
    }
}
