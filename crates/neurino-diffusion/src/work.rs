//! How much a model computes: multiplications and additions, counted from its dimensions.

use crate::flux::FluxConfig;
use crate::memory::Dims;
use crate::unet::UnetConfig;
use crate::vae::VaeConfig;

/// Text tokens that a transformer of Flux sees.
const FLUX_TEXT_TOKENS: f64 = 512.0;
/// Width of the feed-forward networks of Flux by the width of its blocks.
const FLUX_MLP: f64 = 4.0;

/// Tokens of a prompt of usual length.
const PROMPT_TOKENS: usize = 77;
/// Sides of pictures whose counts say how they grow.
const SIDES: [u32; 3] = [512, 1024, 2048];

/// How an amount of work grows with the size of a picture: TFLOP of a picture without a pixel, for each
/// megapixel, and for each of its square, which attention takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth(pub [f64; 3]);

impl Growth {
    /// Through three counts.
    fn through(flop: impl Fn(u32) -> f64) -> Self {
        let [x, y, z] = SIDES.map(|side| f64::from(side) * f64::from(side) / 1e6);
        let [at_x, at_y, at_z] = SIDES.map(|side| flop(side) / 1e12);
        let (first, second) = ((at_y - at_x) / (y - x), (at_z - at_y) / (z - y));
        let square = (second - first) / (z - x);
        let each = first - square * (x + y);
        Self([at_x - each * x - square * x * x, each, square])
    }
}

impl Dims {
    /// How one forward pass of the denoiser grows with the picture.
    pub fn denoising_growth(&self) -> Growth {
        Growth::through(|side| self.denoising_flop(side, side, PROMPT_TOKENS))
    }

    /// How the decoder grows with the picture.
    pub fn decoding_growth(&self) -> Growth {
        Growth::through(|side| self.decoding_flop(side, side))
    }

    /// Floating-point operations of one forward pass of the denoiser for one latent picture.
    ///
    /// - `tokens`: of the prompt, for a UNet
    pub fn denoising_flop(&self, width: u32, height: u32, tokens: usize) -> f64 {
        let factor = self.vae().factor() as u32;
        let size = [height, width].map(|side| side.div_ceil(factor.max(1)) as usize);
        match self {
            Self::Sd15 { unet, .. } | Self::Sdxl { unet, .. } => unet_flop(unet, size, tokens),
            Self::Flux { transformer, .. } => flux_flop(transformer, size),
        }
    }

    /// Floating-point operations of decoding a picture.
    pub fn decoding_flop(&self, width: u32, height: u32) -> f64 {
        let factor = self.vae().factor() as u32;
        vae_flop(self.vae(), [height, width].map(|side| side.div_ceil(factor.max(1)) as usize))
    }
}

/// A convolution with a kernel of `side` x `side`, or a linear layer for 1, over `places`.
fn conv(places: f64, inp: usize, out: usize, side: f64) -> f64 {
    2.0 * places * inp as f64 * out as f64 * side * side
}

fn linear(places: f64, inp: usize, out: usize) -> f64 {
    conv(places, inp, out, 1.0)
}

/// Scores and the values they weigh.
fn attention(queries: f64, keys: f64, width: usize) -> f64 {
    4.0 * queries * keys * width as f64
}

fn resnet(pixels: f64, inp: usize, out: usize) -> f64 {
    let shortcut = if inp == out { 0.0 } else { linear(pixels, inp, out) };
    conv(pixels, inp, out, 3.0) + conv(pixels, out, out, 3.0) + shortcut
}

/// A spatial transformer of `depth` blocks.
fn transformer(unet: &UnetConfig, pixels: f64, width: usize, depth: usize, tokens: f64) -> f64 {
    if depth == 0 {
        return 0.0;
    }
    let own = 4.0 * linear(pixels, width, width) + attention(pixels, pixels, width);
    let cross = 2.0 * linear(pixels, width, width)
        + 2.0 * linear(tokens, unet.context_width, width)
        + attention(pixels, tokens, width);
    let feed_forward = linear(pixels, width, 8 * width) + linear(pixels, 4 * width, width);
    2.0 * linear(pixels, width, width) + depth as f64 * (own + cross + feed_forward)
}

fn unet_flop(unet: &UnetConfig, [height, width]: [usize; 2], tokens: usize) -> f64 {
    let (levels, tokens) = (unet.channels.len(), tokens as f64);
    let mut size = [height, width];
    let pixels_of: Vec<f64> = (0..levels)
        .map(|_| {
            let pixels = (size[0] * size[1]) as f64;
            size = size.map(|side| side.div_ceil(2));
            pixels
        })
        .collect();
    let first = unet.channels.first().copied().unwrap_or(0);
    let mut flop = conv(pixels_of[0], unet.in_channels, first, 3.0)
        + conv(pixels_of[0], first, unet.out_channels, 3.0);
    // Channels of what waits for the way up.
    let mut waiting = vec![first];
    let mut current = first;
    for (level, &channels) in unet.channels.iter().enumerate() {
        for _ in 0..unet.layers_per_block {
            flop += resnet(pixels_of[level], current, channels)
                + transformer(unet, pixels_of[level], channels, unet.depths[level], tokens);
            current = channels;
            waiting.push(current);
        }
        if level + 1 < levels {
            flop += conv(pixels_of[level + 1], current, current, 3.0);
            waiting.push(current);
        }
    }
    let coarsest = pixels_of[levels - 1];
    flop += 2.0 * resnet(coarsest, current, current)
        + transformer(unet, coarsest, current, unet.mid_depth, tokens);
    for level in (0..levels).rev() {
        let channels = unet.channels[level];
        for _ in 0..=unet.layers_per_block {
            let skip = waiting.pop().unwrap_or(0);
            flop += resnet(pixels_of[level], current + skip, channels)
                + transformer(unet, pixels_of[level], channels, unet.depths[level], tokens);
            current = channels;
        }
        if level > 0 {
            flop += conv(pixels_of[level - 1], current, current, 3.0);
        }
    }
    flop
}

fn flux_flop(config: &FluxConfig, [height, width]: [usize; 2]) -> f64 {
    let image = (height / 2 * (width / 2)) as f64;
    let all = image + FLUX_TEXT_TOKENS;
    let width = config.width();
    let seen = attention(all, all, width);
    // Queries, keys, values and what leaves the attention; the feed-forward network.
    let square = linear(all, width, width);
    let double = (4.0 + 2.0 * FLUX_MLP) * square + seen;
    let single = (3.0 + FLUX_MLP + 1.0 + FLUX_MLP) * square + seen;
    let ends = 2.0 * linear(image, config.in_channels, width)
        + linear(FLUX_TEXT_TOKENS, config.joint_attention_dim, width);
    config.num_layers as f64 * double + config.num_single_layers as f64 * single + ends
}

fn vae_flop(vae: &VaeConfig, [height, width]: [usize; 2]) -> f64 {
    let levels = vae.channels.len();
    let mut pixels = (height * width) as f64;
    let mut current = vae.channels.last().copied().unwrap_or(0);
    let mut flop = conv(pixels, vae.latent_channels, current, 3.0);
    flop += 2.0 * resnet(pixels, current, current);
    if vae.mid_attention {
        flop += 4.0 * linear(pixels, current, current) + attention(pixels, pixels, current);
    }
    for level in (0..levels).rev() {
        let channels = vae.channels[level];
        for _ in 0..=vae.layers_per_block {
            flop += resnet(pixels, current, channels);
            current = channels;
        }
        if level > 0 {
            pixels *= 4.0;
            flop += conv(pixels, current, current, 3.0);
        }
    }
    flop + conv(pixels, current, 3, 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_that_of_the_counts_between_the_sizes_and_beyond() {
        for dims in [Dims::sd15(), Dims::sdxl(), Dims::flux()] {
            for side in [256, 768, 1536, 4096] {
                let megapixels = f64::from(side) * f64::from(side) / 1e6;
                let at = |Growth([fixed, each, square]): Growth| {
                    1e12 * (fixed + each * megapixels + square * megapixels * megapixels)
                };
                let close = |found: f64, expect: f64| (found / expect - 1.0).abs() < 1e-6;
                let step = dims.denoising_flop(side, side, PROMPT_TOKENS);
                assert!(close(at(dims.denoising_growth()), step), "{side} {step:e}");
                assert!(close(at(dims.decoding_growth()), dims.decoding_flop(side, side)));
            }
        }
    }

    /// Published counts: 0.803 and 6.76 TFLOP a pass of the UNets, 74.4 of Flux, 2.52 of the decoder.
    #[test]
    fn counts_are_those_that_others_publish() {
        let close = |found: f64, expect: f64| (found / 1e12 / expect - 1.0).abs() < 0.02;
        let sd15 = unet_flop(&UnetConfig::sd15(), [64, 64], 77);
        assert!(close(sd15, 0.803), "{sd15:e}");
        let sdxl = unet_flop(&UnetConfig::sdxl(), [128, 128], 77);
        assert!(close(sdxl, 6.76), "{sdxl:e}");
        let flux = flux_flop(&FluxConfig::dev(), [128, 128]);
        assert!(close(flux, 74.4), "{flux:e}");
        let vae = vae_flop(&VaeConfig::sd15(), [64, 64]);
        assert!(close(vae, 2.52), "{vae:e}");
    }
}
