//! What a model and a picture take of memory, before either is there.
//!
//! Weights are exact. Activations are counted at the places where most of them are held at once, in f32:
//! the finest level of a UNet on its way up, one block of a transformer, and the decoder's entrance into
//! its finest level. On cards also where most is held beside them: the attention of each level. A processor's
//! attention holds a few kilobytes.

use crate::checkpoint::Precision;
use crate::clip::ClipConfig;
use crate::flux::FluxConfig;
use crate::pipeline::{Decoding, Guidance, Plan, Residence};
use crate::t5::T5Config;
use crate::unet::UnetConfig;
use crate::vae::{Tiling, VaeConfig};
use neurino_nn::attention::Dims as Seen;

mod layers;

pub use layers::Layers;
pub(crate) use layers::{Turn, turn};

const F32_BYTES: u64 = 4;
/// Prompts of usual length, in tokens; a Flux prompt is always this long.
const FLUX_TEXT_TOKENS: u64 = 512;
/// Values that a block of a transformer holds for each of its input's: the input, normalised, queries,
/// keys and values, and the feed-forward network's eight and four times as wide parts.
const BLOCK_VALUES: u64 = 14;
/// Values that a block holds for each of its input's while it attends: the input, queries as they are and
/// scaled, keys, values and the result by head and by token.
const ATTENTION_VALUES: u64 = 8;
/// What the feed-forward network of Flux's second kind of blocks holds beside that.
const BESIDE_VALUES: u64 = 4;
/// Tokens of a long prompt of Stable Diffusion: three pieces.
const LONG_PROMPT_TOKENS: usize = 3 * 77;
/// Buffers of the threads and of the allocator, beside what is counted.
const OTHER_BYTES: u64 = 64 << 20;

/// The dimensions of all networks of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Dims {
    /// Stable Diffusion 1.x.
    Sd15 {
        /// CLIP-L.
        text: ClipConfig,
        /// The denoiser.
        unet: UnetConfig,
        /// The autoencoder.
        vae: VaeConfig,
    },
    /// Stable Diffusion XL.
    Sdxl {
        /// CLIP-L and OpenCLIP-G.
        texts: [ClipConfig; 2],
        /// The denoiser.
        unet: UnetConfig,
        /// The autoencoder.
        vae: VaeConfig,
    },
    /// FLUX.1.
    Flux {
        /// CLIP-L.
        text: ClipConfig,
        /// T5.
        t5: T5Config,
        /// The denoiser.
        transformer: FluxConfig,
        /// The autoencoder.
        vae: VaeConfig,
    },
}

impl Dims {
    /// The autoencoder's.
    pub fn vae(&self) -> &VaeConfig {
        match self {
            Self::Sd15 { vae, .. } | Self::Sdxl { vae, .. } | Self::Flux { vae, .. } => vae,
        }
    }

    /// How the autoencoder's weights are kept where the others are kept in `precision`. SDXL's overflows
    /// f16, and bf16 has fewer steps than a picture has levels, so that a card has it in f32, as the
    /// reference does.
    pub fn vae_precision(&self, precision: Precision) -> Precision {
        match self {
            Self::Sdxl { vae, .. } if precision == Precision::Half && vae.force_upcast => {
                Precision::Full
            }
            _ => precision,
        }
    }

    /// Refuses networks that do not go together, with a predicate.
    pub(crate) fn check(&self) -> Result<(), String> {
        let equal = |what: &str, found: usize, expect: usize| {
            if found == expect {
                return Ok(());
            }
            Err(format!("has parts that do not go together: {what} is {found} and {expect}"))
        };
        match self {
            Self::Sd15 { text, unet, vae } => {
                equal("the prompt's width", text.width, unet.context_width)?;
                equal("the number of latent channels", unet.in_channels, vae.latent_channels)?;
                equal("the number of latent channels", unet.out_channels, vae.latent_channels)
            }
            Self::Sdxl { texts: [first, second], unet, vae } => {
                equal("the prompt's width", first.width + second.width, unet.context_width)?;
                let pooled = unet.added.map_or(0, |added| added.pooled_width());
                equal("the pooled width", second.projection.unwrap_or(second.width), pooled)?;
                equal("the number of latent channels", unet.in_channels, vae.latent_channels)?;
                equal("the number of latent channels", unet.out_channels, vae.latent_channels)
            }
            Self::Flux { text, t5, transformer, vae } => {
                equal("the prompt's width", t5.width, transformer.joint_attention_dim)?;
                let pooled = text.projection.unwrap_or(text.width);
                equal("the pooled width", pooled, transformer.pooled_projection_dim)?;
                let channels = 4 * vae.latent_channels;
                equal("the number of latent channels", transformer.in_channels, channels)
            }
        }
    }

    /// Memory of the denoiser's activations for a picture of `width` x `height` pixels, in bytes.
    fn denoising_bytes(&self, width: u32, height: u32, guided: bool, on_card: bool) -> u64 {
        let factor = self.vae().factor() as u64;
        let latents = u64::from(width).div_ceil(factor) * u64::from(height).div_ceil(factor);
        match self {
            Self::Sd15 { unet, .. } | Self::Sdxl { unet, .. } => {
                let sides = 1 + u64::from(guided);
                let steady = sides * F32_BYTES * unet_values(unet, latents);
                if on_card {
                    steady.max(unet_attention_bytes(unet, latents, sides))
                } else {
                    steady
                }
            }
            Self::Flux { transformer, .. } => {
                let tokens = FLUX_TEXT_TOKENS + latents.div_ceil(4);
                let values = |each: u64| F32_BYTES * each * tokens * transformer.width() as u64;
                let steady = values(BLOCK_VALUES);
                if !on_card {
                    return steady;
                }
                let (heads, dim) =
                    (transformer.num_attention_heads, transformer.attention_head_dim);
                let tokens = tokens as usize;
                let seen = Seen { batch: 1, heads, queries: tokens, keys: tokens, dim };
                steady.max(values(ATTENTION_VALUES + BESIDE_VALUES) + seen.card_bytes(true))
            }
        }
    }

    /// Memory of the decoder's activations for a picture of so many pixels, in bytes.
    fn decoding_bytes(&self, pixels: u64, on_card: bool) -> u64 {
        let vae = self.vae();
        let channels = &vae.channels;
        let finest = channels.first().copied().unwrap_or(0) as u64;
        let before = channels.get(1).copied().unwrap_or(0) as u64;
        // What comes from the coarser level, before and behind its norm, and two of the finest level.
        let entrance = F32_BYTES * pixels * (2 * before.max(finest) + 2 * finest);
        if !(on_card && vae.mid_attention) {
            return entrance;
        }
        let factor = vae.factor() as u64;
        let tokens = pixels.div_ceil(factor * factor);
        let dim = channels.last().copied().unwrap_or(0);
        let (queries, keys) = (tokens as usize, tokens as usize);
        let seen = Seen { batch: 1, heads: 1, queries, keys, dim };
        let values = ATTENTION_VALUES * tokens * dim as u64;
        entrance.max(F32_BYTES * values + seen.card_bytes(false))
    }
}

/// Values that a UNet holds at once for one picture of `latents` latent pixels: what waits for the way
/// up, and one block of the finest level.
fn unet_values(unet: &UnetConfig, latents: u64) -> u64 {
    let levels = unet.channels.len();
    let mut waiting = unet.channels.first().map_or(0, |&c| c as u64 * latents);
    let mut pixels = latents;
    for (level, &channels) in unet.channels.iter().enumerate() {
        waiting += (unet.layers_per_block * channels) as u64 * pixels;
        if level + 1 < levels {
            pixels = pixels.div_ceil(4);
            waiting += channels as u64 * pixels;
        }
    }
    let finest = unet.channels.first().map_or(0, |&c| c as u64);
    waiting + BLOCK_VALUES * finest * latents
}

/// Memory that a UNet takes on a card for `sides` pictures while the level whose attention takes the most
/// attends, in bytes.
fn unet_attention_bytes(unet: &UnetConfig, latents: u64, sides: u64) -> u64 {
    let finest = unet.channels.first().map_or(0, |&c| c as u64);
    let waiting = unet_values(unet, latents) - BLOCK_VALUES * finest * latents;
    let levels = unet.channels.len();
    let at = |level: usize| {
        let attends = unet.depths.get(level).is_some_and(|&depth| depth > 0);
        let middle = level + 1 == levels && unet.mid_depth > 0;
        if !attends && !middle {
            return 0;
        }
        let (channels, heads) = (unet.channels[level], unet.heads[level].max(1));
        let pixels = latents.div_ceil(1 << (2 * level));
        let queries = pixels as usize;
        let seen = |keys| {
            let dim = channels / heads;
            Seen { batch: sides as usize, heads, queries, keys, dim }.card_bytes(true)
        };
        let values = waiting + ATTENTION_VALUES * channels as u64 * pixels;
        sides * F32_BYTES * values + seen(queries).max(seen(LONG_PROMPT_TOKENS))
    };
    (0..levels).map(at).max().unwrap_or(0)
}

/// Memory of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageMemory {
    weights_bytes: u64,
    encoders_bytes: u64,
    /// What packed weights are unpacked into, some at a time.
    scratch_bytes: u64,
    /// Low-rank updates, which are always on the device.
    updates_bytes: u64,
    /// The decoder, as far as it can visit.
    decoder_bytes: u64,
    /// The layers of the denoiser that can stream.
    layers: Layers,
    dims: Dims,
    on_card: bool,
}

impl ImageMemory {
    /// A model of `weights_bytes`, of which text encoders take `encoders_bytes`, with networks of
    /// `dims`.
    pub fn new(weights_bytes: u64, encoders_bytes: u64, dims: Dims) -> Self {
        Self {
            weights_bytes,
            encoders_bytes,
            scratch_bytes: 0,
            updates_bytes: 0,
            decoder_bytes: 0,
            layers: Layers::default(),
            dims,
            on_card: false,
        }
    }

    /// The same on a device that unpacks weights into so much memory.
    #[must_use]
    pub fn unpacking(self, scratch_bytes: u64) -> Self {
        Self { scratch_bytes, ..self }
    }

    /// The same on a card, whose attention holds more at once than a processor's.
    #[must_use]
    pub fn on_card(self, on_card: bool) -> Self {
        Self { on_card, ..self }
    }

    /// The same with `layers` of the denoiser that can stream.
    #[must_use]
    pub fn with_layers(self, layers: Layers) -> Self {
        Self { layers, ..self }
    }

    /// The same with a decoder that can visit, which takes `decoder_bytes` of the weights.
    #[must_use]
    pub fn with_decoder(self, decoder_bytes: u64) -> Self {
        Self { decoder_bytes, ..self }
    }

    /// The same with low-rank updates of `updates_bytes`.
    #[must_use]
    pub fn with_updates(self, updates_bytes: u64) -> Self {
        Self { updates_bytes, ..self }
    }

    /// Memory of the weights.
    pub fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    /// Memory of the text encoders, a part of that of the weights.
    pub fn encoders_bytes(&self) -> u64 {
        self.encoders_bytes
    }

    /// Memory of the decoder, a part of that of the weights.
    pub fn decoder_bytes(&self) -> u64 {
        self.decoder_bytes
    }

    /// Memory of the low-rank updates.
    pub fn updates_bytes(&self) -> u64 {
        self.updates_bytes
    }

    /// Memory on the device of what is there all the time: weights and low-rank updates.
    pub fn resident_bytes(&self, residence: Residence) -> u64 {
        let away_bytes = match residence {
            Residence::Stay => 0,
            Residence::Visit | Residence::VisitAll => self.encoders_bytes,
            Residence::Stream => self.encoders_bytes + self.layers.all_bytes,
        };
        let away_bytes = away_bytes + self.visiting_decoder_bytes(residence);
        self.weights_bytes.saturating_sub(away_bytes) + self.updates_bytes
    }

    /// Memory on the device of the weights that a step needs at once.
    pub fn step_weights_bytes(&self, residence: Residence) -> u64 {
        self.resident_bytes(residence) - self.updates_bytes + self.window_bytes(residence)
    }

    /// Memory of the machine itself that weights take beside those on the device.
    pub fn host_bytes(&self, residence: Residence) -> u64 {
        let layers_bytes = match residence {
            Residence::Stay | Residence::Visit | Residence::VisitAll => 0,
            Residence::Stream => self.layers.all_bytes,
        };
        layers_bytes + self.visiting_decoder_bytes(residence)
    }

    /// Memory of the decoder, if it is on the device only while it computes.
    fn visiting_decoder_bytes(&self, residence: Residence) -> u64 {
        if residence.decoder_visits() { self.decoder_bytes } else { 0 }
    }

    /// Memory of the layers that are on the device during a step, if they stream.
    fn window_bytes(&self, residence: Residence) -> u64 {
        match residence {
            Residence::Stay | Residence::Visit | Residence::VisitAll => 0,
            Residence::Stream => self.layers.window_bytes,
        }
    }

    /// The most that is held at once for a `picture` planned for the same residence, weights and all.
    pub fn peak_bytes(&self, residence: Residence, picture: PictureMemory, plan: Plan) -> u64 {
        let beside = picture.peak_bytes(plan).max(self.reading_bytes(residence));
        self.resident_bytes(residence) + beside
    }

    /// What a new prompt takes beside the weights that are there all the time. It is read before the first
    /// step; what that computes is small beside the encoders.
    pub fn reading_bytes(&self, residence: Residence) -> u64 {
        match residence {
            Residence::Stay => OTHER_BYTES + self.scratch_bytes,
            Residence::Visit | Residence::VisitAll | Residence::Stream => {
                OTHER_BYTES + self.scratch_bytes + self.encoders_bytes
            }
        }
    }

    /// The dimensions of its networks.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// What a picture of `width` x `height` pixels takes beside the weights that are there all the
    /// time; `guided` pictures are computed twice.
    pub fn picture(
        &self,
        residence: Residence,
        [width, height]: [u32; 2],
        guided: bool,
    ) -> PictureMemory {
        let step_bytes = self.scratch_bytes + self.window_bytes(residence);
        let tile_side = (Tiling::USUAL.side * self.dims.vae().factor()) as u64;
        let (width_pixels, height_pixels) = (u64::from(width), u64::from(height));
        let tile = width_pixels.min(tile_side) * height_pixels.min(tile_side);
        // Tiles are put together in ordinary memory: three sums and a count for each pixel.
        let canvas = 4 * F32_BYTES * width_pixels * height_pixels;
        let denoising = |guided| self.dims.denoising_bytes(width, height, guided, self.on_card);
        let decoder_bytes = self.visiting_decoder_bytes(residence);
        let decoding = |pixels| decoder_bytes + self.dims.decoding_bytes(pixels, self.on_card);
        PictureMemory {
            denoising_bytes: step_bytes + denoising(guided),
            in_turn_bytes: step_bytes + denoising(false),
            decoding_bytes: decoding(width_pixels * height_pixels),
            tiled_bytes: decoding(tile) + canvas,
        }
    }
}

/// What a picture takes beside the weights that are there all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureMemory {
    /// Activations of the denoiser, and those of its layers that stream.
    pub denoising_bytes: u64,
    /// The same, if the halves of a guided step are computed one after the other.
    pub in_turn_bytes: u64,
    /// Activations of the decoder, for the picture as a whole; the decoder too, if it visits.
    pub decoding_bytes: u64,
    /// The same, tile by tile.
    pub tiled_bytes: u64,
}

/// Whether a picture fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// If it is computed like this.
    As(Plan),
    /// Not at all.
    No {
        /// What it would take at least.
        needed_bytes: u64,
    },
}

impl PictureMemory {
    /// The most that is held at once.
    pub fn peak_bytes(&self, plan: Plan) -> u64 {
        let steps = match plan.guidance {
            Guidance::Together => self.denoising_bytes,
            Guidance::InTurn => self.in_turn_bytes,
        };
        let last = match plan.decoding {
            Decoding::Whole => self.decoding_bytes,
            // Smaller ones are for what was planned wrongly, and take less than these.
            Decoding::Tiled | Decoding::SmallTiles => self.tiled_bytes,
        };
        OTHER_BYTES + steps.max(last)
    }

    /// Whether it fits into `free_bytes`, and the quickest way that does.
    pub fn fit(&self, free_bytes: u64) -> Fit {
        let fits = |bytes: u64| OTHER_BYTES + bytes <= free_bytes;
        let guidance =
            if fits(self.denoising_bytes) { Guidance::Together } else { Guidance::InTurn };
        let decoding = if fits(self.decoding_bytes) { Decoding::Whole } else { Decoding::Tiled };
        let plan = Plan { guidance, decoding };
        if self.peak_bytes(plan) <= free_bytes {
            return Fit::As(plan);
        }
        Fit::No { needed_bytes: self.peak_bytes(Plan::LEAST) }
    }
}

/// How weights are kept where there is a choice: as stored on a CPU, in 16 bits on a card.
pub fn usual_precision(is_cpu: bool) -> Precision {
    if is_cpu { Precision::Stored } else { Precision::Half }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sd15() -> ImageMemory {
        ImageMemory::new(2 << 30, 200 << 20, Dims::sd15())
    }

    #[test]
    fn larger_pictures_take_more_and_tiles_bound_the_last_stage() {
        let memory = sd15();
        let small = memory.picture(Residence::Stay, [512, 512], true);
        let large = memory.picture(Residence::Stay, [1024, 1536], true);
        assert!(
            small.denoising_bytes
                > 2 * memory.picture(Residence::Stay, [512, 512], false).denoising_bytes - MIB
        );
        assert!(large.denoising_bytes > 5 * small.denoising_bytes);
        assert!(large.decoding_bytes > 5 * small.decoding_bytes);
        assert!(large.tiled_bytes < small.decoding_bytes + 32 * MIB);
        assert!((400 * MIB..1200 * MIB).contains(&small.decoding_bytes), "{small:?}");
    }

    /// What used to be held without being counted: all scores of Flux at 1024 x 1024 are two gigabytes.
    #[test]
    fn a_card_has_room_for_what_attention_holds() {
        for (dims, side) in
            [(Dims::sd15(), 512), (Dims::sd15(), 2048), (Dims::sdxl(), 1024), (Dims::flux(), 1024)]
        {
            let guided = !matches!(dims, Dims::Flux { .. });
            let cpu = ImageMemory::new(2 << 30, 200 << 20, dims);
            let card = cpu.clone().on_card(true);
            let picture = |memory: &ImageMemory| memory.picture(Residence::Stay, [side; 2], guided);
            let (cpu, card) = (picture(&cpu), picture(&card));
            assert!(card.denoising_bytes >= cpu.denoising_bytes);
            assert!(card.denoising_bytes < cpu.denoising_bytes + 1536 * MIB, "{cpu:?} {card:?}");
            assert!(card.decoding_bytes >= cpu.decoding_bytes);
        }
        // The levels that attend hold more than the finest one, where that has no attention.
        let tall = UnetConfig { channels: vec![32, 1280], heads: vec![1, 2], ..UnetConfig::sdxl() };
        let tall = UnetConfig { depths: vec![0, 1], mid_depth: 0, ..tall };
        assert!(unet_attention_bytes(&tall, 4096, 2) > 2 * F32_BYTES * unet_values(&tall, 4096));
    }

    #[test]
    fn a_picture_fits_in_the_quickest_way_that_there_is_memory_for() {
        // The decoder of a large picture takes more than its steps, and in tiles it takes less.
        let large = sd15().picture(Residence::Stay, [2048, 2048], true);
        let plan = |guidance, decoding| Fit::As(Plan { guidance, decoding });
        let (together, in_turn) = (Guidance::Together, Guidance::InTurn);
        assert_eq!(large.fit(u64::MAX), plan(together, Decoding::Whole));
        let whole = large.peak_bytes(Plan::default());
        assert_eq!(large.fit(whole), plan(together, Decoding::Whole));
        assert_eq!(large.fit(whole - 1), plan(together, Decoding::Tiled));
        let tiled = large.peak_bytes(Plan { guidance: together, decoding: Decoding::Tiled });
        assert_eq!(large.fit(tiled), plan(together, Decoding::Tiled));
        assert_eq!(large.fit(tiled - 1), plan(in_turn, Decoding::Tiled));
        let needed_bytes = large.peak_bytes(Plan::LEAST);
        assert!(needed_bytes < tiled && tiled < whole);
        assert_eq!(large.fit(needed_bytes), plan(in_turn, Decoding::Tiled));
        assert_eq!(large.fit(needed_bytes - 1), Fit::No { needed_bytes });
    }

    #[test]
    fn visiting_encoders_leave_their_memory_to_the_picture() {
        let memory = sd15();
        let large = memory.picture(Residence::Stay, [1024, 1024], true);
        let peak = |residence, picture| memory.peak_bytes(residence, picture, Plan::default());
        let (stay, visit) = (peak(Residence::Stay, large), peak(Residence::Visit, large));
        assert_eq!(stay - visit, memory.encoders_bytes());
        // A small picture takes less than they do themselves.
        let small = memory.picture(Residence::Stay, [64, 64], true);
        let (stay, visit) = (peak(Residence::Stay, small), peak(Residence::Visit, small));
        assert!(visit < stay && visit > memory.weights_bytes());
    }

    #[test]
    fn a_decoder_that_visits_leaves_its_memory_to_the_steps() {
        let decoder_bytes = 100 * MIB;
        let memory = sd15().with_decoder(decoder_bytes);
        let plan = Plan { guidance: Guidance::Together, decoding: Decoding::Tiled };
        let peak = |residence, side| {
            let picture = memory.picture(residence, [side; 2], true);
            memory.peak_bytes(residence, picture, plan)
        };
        // Steps of a large picture take more than a tile and the decoder.
        let (stays, goes) = (Residence::Visit, Residence::VisitAll);
        assert_eq!(peak(stays, 1536) - peak(goes, 1536), decoder_bytes);
        assert_eq!(memory.resident_bytes(stays) - memory.resident_bytes(goes), decoder_bytes);
        assert_eq!((memory.host_bytes(stays), memory.host_bytes(goes)), (0, decoder_bytes));
        // Where the decoder is what takes the most, nothing is won, and nothing lost.
        let whole = |residence| {
            let picture = memory.picture(residence, [512, 512], true);
            memory.peak_bytes(residence, picture, Plan::default())
        };
        assert_eq!(whole(stays), whole(goes));
    }

    #[test]
    fn packed_encoders_that_visit_are_unpacked_beside_themselves() {
        let (plain, scratch_bytes) = (sd15(), 300 * MIB);
        let packed = plain.clone().unpacking(scratch_bytes);
        let peak = |memory: &ImageMemory| {
            let small = memory.picture(Residence::Visit, [64, 64], true);
            memory.peak_bytes(Residence::Visit, small, Plan::LEAST)
        };
        assert_eq!(peak(&packed) - peak(&plain), scratch_bytes);
    }

    #[test]
    fn networks_of_different_models_are_refused() {
        let Dims::Sd15 { text, vae, .. } = Dims::sd15() else {
            unreachable!("it is Stable Diffusion")
        };
        let dims = Dims::Sd15 { text, unet: UnetConfig::sdxl(), vae };
        assert!(dims.check().is_err_and(|problem| problem.contains("768 and 2048")));
        assert_eq!(sd15().dims().check(), Ok(()));
    }
}
