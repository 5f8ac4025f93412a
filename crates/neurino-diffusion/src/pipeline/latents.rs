//! Latents on the host, in the reference's order, and on the device, in ours.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use neurino_nn::device::{download, upload};

use super::Guidance;
use crate::DiffusionError;
use crate::rng::TorchRng;
use crate::scheduler::NoiseScheduler;

/// What a step stirs in; nothing where the schedule stirs nothing. The reference draws for every step, the
/// last included.
pub(super) fn fresh_noise(
    scheduler: &dyn NoiseScheduler,
    rng: &mut TorchRng,
    shape: LatentShape,
) -> Vec<f32> {
    if scheduler.needs_noise() {
        rng.randn(shape.count(), scheduler.noise_dtype())
    } else {
        Vec::new()
    }
}

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
    fn channels_last(&self, values: &[f32]) -> Vec<f32> {
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

    /// Uploads the same latents `copies` times: `[channels, height, width]` to
    /// `[copies, height, width, channels]`.
    pub(crate) fn upload(&self, latents: &[f32], copies: usize, device: &Device) -> Tensor<4> {
        let shape = [copies, self.height, self.width, self.channels];
        upload(self.channels_last(latents).repeat(copies), shape, device)
    }

    /// Reads pictures back: `[copies, height, width, channels]` to one `[channels, height, width]` for
    /// each.
    pub(crate) fn download(&self, latents: Tensor<4>) -> Result<Vec<Vec<f32>>, DiffusionError> {
        let values = download(latents)?;
        Ok(values.chunks(self.count()).map(|one| self.channels_first(one)).collect())
    }
}

/// Computes the outputs of all sides of a picture, in one batch or one after the other.
pub(crate) fn by_side(
    sides: usize,
    guidance: Guidance,
    compute: impl Fn(Range<usize>) -> Result<Vec<Vec<f32>>, DiffusionError>,
) -> Result<Vec<Vec<f32>>, DiffusionError> {
    match guidance {
        Guidance::Together => compute(0..sides),
        Guidance::InTurn => {
            let each = (0..sides).map(|side| compute(side..side + 1));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
    }
}

/// Follows the prompt `guidance` times as strongly as the negative prompt leads away: the model's
/// outputs are those of the negative prompt and of the prompt, or of the prompt alone.
///
/// Source: Ho and Salimans 2022, in the order of operations of the reference.
pub(crate) fn guided(mut outputs: Vec<Vec<f32>>, guidance: f32) -> Vec<f32> {
    let with = outputs.pop().unwrap_or_default();
    let Some(without) = outputs.pop() else { return with };
    without.iter().zip(&with).map(|(without, with)| without + guidance * (with - without)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_values_survives_the_device() {
        let shape = LatentShape { channels: 4, height: 3, width: 5 };
        let values: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let device = Device::flex();
        let tensor = shape.upload(&values, 2, &device);
        assert_eq!(tensor.dims(), [2, 3, 5, 4]);
        let on_device = download(tensor.clone()).expect("download");
        // Row 1, column 2, channel 3.
        assert!((on_device[(5 + 2) * 4 + 3] - values[3 * 15 + 5 + 2]).abs() < 1e-9);
        assert_eq!(shape.download(tensor).expect("download"), [values.clone(), values]);
    }

    #[test]
    fn guidance_goes_beyond_the_prompt() {
        assert_eq!(guided(vec![vec![1.0, 2.0], vec![2.0, 2.0]], 3.0), [4.0, 2.0]);
        assert_eq!(guided(vec![vec![2.0, 5.0]], 3.0), [2.0, 5.0]);
    }
}
