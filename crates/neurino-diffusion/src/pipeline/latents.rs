//! Latents on the host, in the reference's order, and on the device, in ours.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use neurino_nn::device::{download, upload};

use super::Guidance;
use crate::DiffusionError;

/// The shape of one picture's latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentShape {
    /// Channels.
    pub channels: usize,
    /// In latent pixels.
    pub height: usize,
    /// In latent pixels.
    pub width: usize,
}

impl LatentShape {
    /// Values of one picture.
    pub fn count(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// `[channels, height, width]` as `[height, width, channels]`.
    pub(crate) fn channels_last(&self, values: &[f32]) -> Vec<f32> {
        let pixels = self.height * self.width;
        let places = (0..pixels)
            .flat_map(|pixel| (0..self.channels).map(move |channel| channel * pixels + pixel));
        places.map(|place| values[place]).collect()
    }

    /// `[height, width, channels]` as `[channels, height, width]`.
    fn channels_first(&self, values: &[f32]) -> Vec<f32> {
        let pixels = self.height * self.width;
        let places = (0..self.channels)
            .flat_map(|channel| (0..pixels).map(move |pixel| pixel * self.channels + channel));
        places.map(|place| values[place]).collect()
    }

    /// Uploads latents: `[channels, height, width]` to `[1, height, width, channels]`.
    pub(crate) fn upload(&self, latents: &[f32], device: &Device) -> Tensor<4> {
        let shape = [1, self.height, self.width, self.channels];
        upload(self.channels_last(latents), shape, device)
    }

    /// The flat latents of one picture as `[1, height, width, channels]`.
    pub(crate) fn picture(&self, latents: Tensor<1>) -> Tensor<4> {
        latents.reshape([1, self.height, self.width, self.channels])
    }

    /// Reads a picture back: `[1, height, width, channels]` to `[channels, height, width]`.
    pub(crate) fn download(&self, latents: Tensor<4>) -> Result<Vec<f32>, DiffusionError> {
        Ok(self.channels_first(&download(latents)?))
    }
}

/// Computes the outputs of all sides of a picture, in one batch or one after the other: flat, of each side.
///
/// - `input`: `[1, ..]`, the same for all of them
/// - `compute`: from `[sides, ..]` of the input to `[sides, ..]`
pub(crate) fn by_side(
    sides: usize,
    guidance: Guidance,
    input: &Tensor<4>,
    compute: impl Fn(Range<usize>, Tensor<4>) -> Tensor<4>,
) -> Vec<Tensor<1>> {
    match guidance {
        Guidance::Together => {
            let output = compute(0..sides, Tensor::cat(vec![input.clone(); sides], 0));
            (0..sides).map(|side| output.clone().narrow(0, side, 1).flatten(0, 3)).collect()
        }
        Guidance::InTurn => {
            (0..sides).map(|side| compute(side..side + 1, input.clone()).flatten(0, 3)).collect()
        }
    }
}

/// Follows the prompt `guidance` times as strongly as the negative prompt leads away: the model's
/// outputs are those of the negative prompt and of the prompt, or of the prompt alone.
///
/// # Shapes
/// - `outputs`: one or two of `[values]`; returns the same
/// - `guidance`: `[1]`
///
/// Source: Ho and Salimans 2022, in the order of operations of the reference.
pub(crate) fn guided(outputs: Vec<Tensor<1>>, guidance: &Tensor<1>) -> Tensor<1> {
    match <[Tensor<1>; 2]>::try_from(outputs) {
        Ok([without, with]) => without.clone() + (with - without) * guidance.clone(),
        Err(mut alone) => alone.pop().expect("a picture has at least one side"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_values_survives_the_device() {
        let shape = LatentShape { channels: 4, height: 3, width: 5 };
        let values: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let device = Device::flex();
        let tensor = shape.upload(&values, &device);
        assert_eq!(tensor.dims(), [1, 3, 5, 4]);
        let on_device = download(tensor.clone()).expect("download");
        // Row 1, column 2, channel 3.
        assert!((on_device[(5 + 2) * 4 + 3] - values[3 * 15 + 5 + 2]).abs() < 1e-9);
        let flat: Tensor<1> = tensor.flatten(0, 3);
        assert_eq!(shape.download(shape.picture(flat)).expect("download"), values);
    }

    #[test]
    fn guidance_goes_beyond_the_prompt() {
        let device = Device::flex();
        let flat = |values: &[f32]| upload(values.to_vec(), [values.len()], &device);
        let read = |outputs| download(guided(outputs, &flat(&[3.0]))).expect("download");
        assert_eq!(read(vec![flat(&[1.0, 2.0]), flat(&[2.0, 2.0])]), [4.0, 2.0]);
        assert_eq!(read(vec![flat(&[2.0, 5.0])]), [2.0, 5.0]);
    }

    #[test]
    fn sides_come_in_their_order_however_they_are_computed() {
        let device = Device::flex();
        let input = upload(vec![1.0, 2.0], [1, 1, 2, 1], &device);
        for guidance in [Guidance::Together, Guidance::InTurn] {
            let outputs = by_side(2, guidance, &input, |sides, input| {
                let factors: Vec<f32> = sides.clone().map(|side| side as f32 + 1.0).collect();
                input * upload(factors, [sides.len(), 1, 1, 1], &device)
            });
            let read: Vec<_> =
                outputs.into_iter().map(|side| download(side).expect("read")).collect();
            assert_eq!(read, [[1.0, 2.0], [2.0, 4.0]], "{guidance:?}");
        }
    }
}
