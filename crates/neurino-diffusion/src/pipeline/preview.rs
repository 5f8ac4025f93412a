//! What a picture that is being made looks like, for almost nothing: each latent pixel becomes one pixel
//! by a linear map, which is fitted once to what the model's own decoder makes of plain colours.

use burn::tensor::{Device, Tensor};
use neurino_nn::device::download;

use super::LatentShape;
use crate::rng::{NoiseDtype, TorchRng};
use crate::{DiffusionError, RgbImage};

/// Patches on each side of the picture that the map is fitted to; more than there are channels.
const PATCHES: usize = 6;
/// Latent pixels on each side of a patch of one colour.
const PATCH_SIDE: usize = 4;
/// Latent pixels at a patch's edge that are left out: its neighbours shine through.
const PATCH_EDGE: usize = 1;
/// Keeps the fit from following what is not linear.
const RIDGE: f64 = 0.05;

/// Inputs, and the output that was seen for them.
type Sample = (Vec<f64>, f64);

/// A map from the channels of a latent pixel to its colour.
#[derive(Debug, Clone)]
pub(crate) struct LinearPreview {
    /// Red, green and blue: a factor for each channel, then the constant.
    colours: [Vec<f32>; 3],
}

impl LinearPreview {
    /// Fits the map to `decode`, which makes `[1, height * factor, width * factor, 3]` of latents
    /// `[1, height, width, channels]` as the denoising loop has them.
    pub(crate) fn fit(
        channels: usize,
        factor: usize,
        device: &Device,
        decode: impl FnOnce(Tensor<4>) -> Result<Tensor<4>, DiffusionError>,
    ) -> Result<Self, DiffusionError> {
        let side = PATCHES * PATCH_SIDE;
        let patches = TorchRng::new(0).randn(PATCHES * PATCHES * channels, NoiseDtype::F32);
        let patch_of = |row: usize, column: usize| row / PATCH_SIDE * PATCHES + column / PATCH_SIDE;
        let shape = LatentShape { channels, height: side, width: side };
        let value = |place: usize| {
            let (channel, pixel) = (place / (side * side), place % (side * side));
            patches[patch_of(pixel / side, pixel % side) * channels + channel]
        };
        let latents: Vec<f32> = (0..shape.count()).map(value).collect();
        let picture = download(decode(shape.upload(&latents, device))?)?;
        let colours = (0..3).map(|colour| {
            let samples = (0..PATCHES * PATCHES).map(|patch| {
                let inputs = patches[patch * channels..][..channels].iter().map(|&x| f64::from(x));
                (inputs.chain([1.0]).collect(), mean(&picture, patch, side, factor, colour))
            });
            let map = least_squares(&samples.collect::<Vec<Sample>>(), RIDGE);
            map.into_iter().map(|x| x as f32).collect()
        });
        let mut colours = colours.collect::<Vec<Vec<f32>>>().into_iter();
        let colours = std::array::from_fn(|_| colours.next().unwrap_or_default());
        Ok(Self { colours })
    }

    /// One pixel for each latent pixel.
    pub(crate) fn draw(
        &self,
        latents: &[f32],
        shape: LatentShape,
    ) -> Result<RgbImage, DiffusionError> {
        let pixels = shape.height * shape.width;
        let colour = |pixel: usize, map: &[f32]| -> f32 {
            let (constant, factors) = map.split_last().unwrap_or((&0.0, &[]));
            let shares = factors.iter().enumerate();
            constant + shares.map(|(c, factor)| factor * latents[c * pixels + pixel]).sum::<f32>()
        };
        let values: Vec<f32> = (0..pixels)
            .flat_map(|pixel| self.colours.each_ref().map(|map| colour(pixel, map)))
            .collect();
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        RgbImage::from_decoded(&values, side(shape.width), side(shape.height))
    }
}

/// The mean of one colour over the inner part of a patch.
fn mean(picture: &[f32], patch: usize, side: usize, factor: usize, colour: usize) -> f64 {
    let inner = |index: usize| {
        let start = index * PATCH_SIDE + PATCH_EDGE;
        start * factor..(start + PATCH_SIDE - 2 * PATCH_EDGE) * factor
    };
    let (rows, columns) = (inner(patch / PATCHES), inner(patch % PATCHES));
    let count = (rows.len() * columns.len()) as f64;
    let pixel = |row: usize, column: usize| {
        f64::from(picture[(row * side * factor + column) * 3 + colour].clamp(-1.0, 1.0))
    };
    rows.flat_map(|row| columns.clone().map(move |column| pixel(row, column))).sum::<f64>() / count
}

/// The factors of a linear map from inputs to an output that fit best; `ridge` keeps them small.
fn least_squares(samples: &[Sample], ridge: f64) -> Vec<f64> {
    let width = samples.first().map_or(0, |(inputs, _)| inputs.len());
    // The normal equations, with the right side as the last column.
    let mut rows: Vec<Vec<f64>> = (0..width)
        .map(|i| {
            let sum = |f: &dyn Fn(&Sample) -> f64| samples.iter().map(f).sum::<f64>();
            let left = (0..width).map(|j| sum(&|(x, _)| x[i] * x[j]));
            let mut row: Vec<f64> = left.collect();
            row[i] += ridge * samples.len() as f64;
            row.push(sum(&|(x, y)| x[i] * y));
            row
        })
        .collect();
    // The matrix is positive definite: elimination needs no pivots.
    for i in 0..width {
        let pivot = rows[i].clone();
        for row in rows.iter_mut().skip(i + 1) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(&pivot).skip(i).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let mut solution = vec![0.0; width];
    for i in (0..width).rev() {
        let known: f64 = (i + 1..width).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][width] - known) / rows[i][i];
    }
    solution
}

#[cfg(test)]
mod tests {
    use neurino_nn::device::upload;

    use super::*;

    /// Repeats each pixel, and gives it a colour that is linear in its channels.
    fn linear_decoder(latents: Tensor<4>, factor: usize) -> Tensor<4> {
        let [_, height, width, channels] = latents.dims();
        let device = latents.device();
        let values = download(latents).expect("download");
        let mut pixels = Vec::new();
        for row in 0..height * factor {
            for column in 0..width * factor {
                let at = (row / factor * width + column / factor) * channels;
                let x = &values[at..at + channels];
                pixels.extend([0.1 * x[0] + 0.2, 0.2 * x[1] - 0.1, 0.1 * x[0] - 0.1 * x[2]]);
            }
        }
        upload(pixels, [1, height * factor, width * factor, 3], &device)
    }

    #[test]
    fn a_linear_decoder_is_found_again() {
        let decode = |latents| Ok(linear_decoder(latents, 8));
        let preview = LinearPreview::fit(3, 8, &Device::flex(), decode).expect("fits");
        let shape = LatentShape { channels: 3, height: 1, width: 2 };
        let found = preview.draw(&[1.0, -1.0, 0.5, 0.0, 0.0, 1.0], shape).expect("draws");
        let level = |x: f32| i32::from(((x / 2.0 + 0.5) * 255.0).round_ties_even() as u8);
        let expect = [0.3, 0.0, 0.1, 0.1, -0.1, -0.2].map(level);
        for (found, expect) in found.pixels().iter().zip(expect) {
            // The ridge takes a little off.
            assert!((i32::from(*found) - expect).abs() <= 4, "{found} {expect}");
        }
    }

    #[test]
    fn a_line_is_fitted_exactly_without_a_ridge() {
        let samples: Vec<_> =
            (0..5).map(|i| (vec![f64::from(i), 1.0], 3.0 * f64::from(i) - 2.0)).collect();
        let found = least_squares(&samples, 0.0);
        assert!((found[0] - 3.0).abs() < 1e-9 && (found[1] + 2.0).abs() < 1e-9, "{found:?}");
    }
}
