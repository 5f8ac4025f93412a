//! Larger and smaller pictures, and numbers as waves.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::device::upload;

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
    let places = |from, to| -> Tensor<1, Int> {
        let places = sources(from, to);
        let shape = [places.len()];
        Tensor::from_data(TensorData::new(places, shape), (&device, DType::I32))
    };
    x.select(1, places(from_height, height)).select(2, places(from_width, width))
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
