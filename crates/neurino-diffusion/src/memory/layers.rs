//! The heavy layers of a denoiser, which may come to the device one by one: which tensors they have,
//! and how many weights.

use crate::checkpoint::Precision;
use crate::checkpoint::streaming::window_bytes;
use crate::flux::FluxConfig;
use crate::memory::Dims;
use crate::unet::UnetConfig;
use crate::vae::VaeConfig;

/// Memory of the layers of a denoiser that can stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers {
    /// Of all of them.
    pub all_bytes: u64,
    /// Of two that follow one another, at most: what is on the device if they stream.
    pub window_bytes: u64,
}

impl Layers {
    /// Of layers of these sizes, in the order in which they are computed.
    pub(crate) fn of(sizes: &[u64]) -> Self {
        Self { all_bytes: sizes.iter().sum(), window_bytes: window_bytes(sizes) }
    }
}

/// The place of a layer in its network's order.
pub(crate) type Turn = [u32; 5];

/// The turn of the layer that a denoiser's tensor belongs to, by diffusers' or LDM's names; `None` for
/// what is always on the device.
pub(crate) fn turn(name: &str) -> Option<Turn> {
    let name = name.strip_prefix("model.diffusion_model.").unwrap_or(name);
    let parts: Vec<&str> = name.split('.').collect();
    let number = |at: usize| parts.get(at)?.parse::<u32>().ok();
    let depth = |at: usize| match parts.get(at) {
        Some(&"transformer_blocks") => number(at + 1),
        _ => None,
    };
    let of_resnet = |at: usize| {
        let is = |part: &&str| {
            ["in_layers", "emb_layers", "out_layers", "skip_connection"].contains(part)
        };
        parts.get(at).is_some_and(is)
    };
    let way = match parts[0] {
        // Flux.
        "transformer_blocks" => return Some([0, number(1)?, 0, 0, 0]),
        "single_transformer_blocks" => return Some([1, number(1)?, 0, 0, 0]),
        "down_blocks" | "input_blocks" => 0,
        "mid_block" | "middle_block" => 1,
        "up_blocks" | "output_blocks" => 2,
        _ => return None,
    };
    match parts[0] {
        "down_blocks" | "up_blocks" | "mid_block" => {
            // The middle is one block and has no number.
            let at = if way == 1 { 1 } else { 2 };
            let block = if way == 1 { 0 } else { number(1)? };
            match *parts.get(at)? {
                "resnets" => Some([way, block, number(at + 1)?, 0, 0]),
                "attentions" => Some([way, block, number(at + 1)?, 1, depth(at + 2)?]),
                _ => None,
            }
        }
        "middle_block" if of_resnet(2) => Some([way, number(1)?, 0, 0, 0]),
        "middle_block" => Some([way, number(1)?, 0, 0, depth(2)?]),
        _ if of_resnet(3) => Some([way, number(1)?, number(2)?, 0, 0]),
        _ => Some([way, number(1)?, number(2)?, 0, depth(3)?]),
    }
}

impl Dims {
    /// The layers of the denoiser at so many bits a weight; norms and biases, which are few, are left
    /// out.
    pub fn layers(&self, bits: f64) -> Layers {
        let weights = match self {
            Self::Sd15 { unet, .. } | Self::Sdxl { unet, .. } => of_unet(unet),
            Self::Flux { transformer, .. } => of_flux(transformer),
        };
        let bytes = |weights: &u64| (*weights as f64 * bits / 8.0) as u64;
        Layers::of(&weights.iter().map(bytes).collect::<Vec<_>>())
    }
}

impl Dims {
    /// The decoder of a model whose weights are kept in `precision`; norms and biases are left out.
    pub fn decoder_bytes(&self, precision: Precision) -> u64 {
        let each = if self.vae_precision(precision) == Precision::Full { 4 } else { 2 };
        each * of_decoder(self.vae())
    }
}

fn of_decoder(vae: &VaeConfig) -> u64 {
    let channels = &vae.channels;
    let [first, last] = [channels.first(), channels.last()].map(|c| c.copied().unwrap_or(0));
    let resnet =
        |inp: usize, out: usize| 9 * (inp + out) * out + if inp == out { 0 } else { inp * out };
    let attention = if vae.mid_attention { 4 * last * last } else { 0 };
    let middle = 2 * resnet(last, last) + attention;
    let level = |(level, &out): (usize, &usize)| {
        let before = channels.get(level + 1).copied().unwrap_or(out);
        let upsample = if level == 0 { 0 } else { 9 * out * out };
        resnet(before, out) + vae.layers_per_block * resnet(out, out) + upsample
    };
    let levels: usize = channels.iter().enumerate().map(level).sum();
    let ends = 9 * (last * vae.latent_channels + first * 3);
    (ends + middle + levels) as u64
}

fn of_flux(config: &FluxConfig) -> Vec<u64> {
    let square = (config.width() * config.width()) as u64;
    // Each stream: six modulations, four projections, and a feed-forward network four times as wide.
    let double = 2 * (6 + 4 + 8) * square;
    let single = (3 + 3 + 4 + 5) * square;
    let of = |count: usize, weights: u64| std::iter::repeat_n(weights, count);
    of(config.num_layers, double).chain(of(config.num_single_layers, single)).collect()
}

fn of_unet(unet: &UnetConfig) -> Vec<u64> {
    let resnet = |inp: usize, out: usize| {
        let shortcut = if inp == out { 0 } else { inp * out };
        (9 * (inp + out) * out + unet.time_width() * out + shortcut) as u64
    };
    let blocks = |channels: usize, depth: usize| {
        // Self-attention, attention to the prompt, and the gated feed-forward network.
        let weights = channels * ((4 + 2 + 12) * channels + 2 * unet.context_width);
        std::iter::repeat_n(weights as u64, depth)
    };
    let channels = &unet.channels;
    let last = channels.len() - 1;
    let mut all = Vec::new();
    let mut current = channels[0];
    for (level, &out) in channels.iter().enumerate() {
        for _ in 0..unet.layers_per_block {
            all.push(resnet(current, out));
            all.extend(blocks(out, unet.depths[level]));
            current = out;
        }
    }
    all.push(resnet(current, current));
    all.extend(blocks(channels[last], unet.mid_depth));
    all.push(resnet(current, current));
    for (level, &out) in channels.iter().enumerate().rev() {
        for layer in 0..=unet.layers_per_block {
            let skip = if layer == unet.layers_per_block {
                channels[level.saturating_sub(1)]
            } else {
                out
            };
            all.push(resnet(current + skip, out));
            all.extend(blocks(out, unet.depths[level]));
            current = out;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_layers_in_the_order_of_the_network() {
        let none = [
            "conv_in.weight",
            "down_blocks.0.downsamplers.0.conv.weight",
            "mid_block.attentions.0.proj_in.weight",
            "input_blocks.3.0.op.weight",
            "input_blocks.4.1.norm.weight",
            "output_blocks.2.1.conv.weight",
            "x_embedder.weight",
            "out.2.weight",
        ];
        assert_eq!(none.map(turn), [None; 8]);
        for ordered in [
            &[
                "down_blocks.1.resnets.0.conv1.weight",
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
                "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q.weight",
                "down_blocks.1.resnets.1.norm1.bias",
                "down_blocks.1.attentions.1.transformer_blocks.0.ff.net.2.bias",
                "mid_block.resnets.0.conv1.weight",
                "mid_block.attentions.0.transformer_blocks.0.norm1.weight",
                "mid_block.resnets.1.conv1.weight",
                "up_blocks.0.resnets.10.conv1.weight",
            ][..],
            &[
                "model.diffusion_model.input_blocks.4.0.in_layers.0.weight",
                "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight",
                "model.diffusion_model.input_blocks.10.0.skip_connection.weight",
                "model.diffusion_model.middle_block.0.out_layers.3.weight",
                "model.diffusion_model.middle_block.1.transformer_blocks.9.attn1.to_q.weight",
                "model.diffusion_model.middle_block.2.emb_layers.1.bias",
                "model.diffusion_model.output_blocks.0.0.in_layers.2.weight",
            ],
            &[
                "transformer_blocks.2.attn.to_q.weight",
                "transformer_blocks.10.attn.to_q.weight.absmax",
                "single_transformer_blocks.0.norm.linear.weight",
            ],
        ] {
            let turns: Vec<_> = ordered.iter().map(|name| turn(name)).collect();
            assert!(turns.iter().all(Option::is_some), "{turns:?}");
            assert!(turns.is_sorted_by(|a, b| a < b), "{turns:?}");
        }
    }

    #[test]
    fn most_of_a_large_denoiser_is_in_its_layers() {
        // Published: 2.57 and 11.9 billion weights.
        let sdxl = Dims::sdxl().layers(16.0);
        assert!((4.6e9..5.2e9).contains(&(sdxl.all_bytes as f64)), "{sdxl:?}");
        assert!(sdxl.window_bytes < 200 << 20, "{sdxl:?}");
        let flux = Dims::flux().layers(16.0);
        assert!((23.0e9..23.9e9).contains(&(flux.all_bytes as f64)), "{flux:?}");
        assert!(flux.window_bytes < 1400 << 20, "{flux:?}");
    }

    #[test]
    fn decoders_have_fifty_million_weights() {
        // Published: 49.5 million, of which SDXL's are f32 on cards.
        for (dims, each) in [(Dims::sd15(), 2.0), (Dims::sdxl(), 4.0), (Dims::flux(), 2.0)] {
            let weights = dims.decoder_bytes(Precision::Half) as f64 / each;
            assert!((49.3e6..49.6e6).contains(&weights), "{weights}");
        }
    }
}
