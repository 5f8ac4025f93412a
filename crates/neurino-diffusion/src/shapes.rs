//! The dimensions of real models, by name, and models of that shape with random weights: for
//! measurements and tests at real size where no model file is.

use neurino_llm::Tokenizer;

use crate::DiffusionError;
use crate::checkpoint::Loading;
use crate::checkpoint::random::{RandomFormat, RandomTensors};
use crate::clip::{ClipActivation, ClipConfig, ClipTokenizer};
use crate::flux::FluxConfig;
use crate::memory::Dims;
use crate::pipeline::Pipeline;
use crate::scheduler::FlowShift;
use crate::source::assembly::{Assembly, Vocabularies};
use crate::t5::T5Config;
use crate::unet::{AddedConfig, UnetConfig};
use crate::vae::VaeConfig;

/// The shapes there are. The last letters of a name say how the denoiser's weights are kept, where it is
/// not in 16 bits.
pub const NAMES: [&str; 7] =
    ["sd15", "sdxl", "flux", "flux-nf4", "tiny", "tiny-flux", "tiny-flux-nf4"];

/// A shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The dimensions of all networks.
    pub dims: Dims,
    /// How the denoiser's weights are kept.
    pub denoiser: RandomFormat,
    /// How the second text encoder's weights are kept.
    pub text_encoder_2: RandomFormat,
    /// How those of all else are kept.
    pub rest: RandomFormat,
    /// The usual size of a picture, in pixels a side.
    pub side: u32,
}

/// The shape of a name of [`NAMES`].
pub fn named(name: &str) -> Option<Shape> {
    let same = |dims, format, side| {
        Some(Shape { dims, denoiser: format, text_encoder_2: format, rest: format, side })
    };
    let in_4_bits = |dims, side| {
        Some(Shape {
            dims,
            denoiser: RandomFormat::Nf4,
            text_encoder_2: RandomFormat::Hqq,
            rest: RandomFormat::Bf16,
            side,
        })
    };
    match name {
        "sd15" => same(Dims::sd15(), RandomFormat::F16, 512),
        "sdxl" => same(Dims::sdxl(), RandomFormat::F16, 1024),
        "flux" => same(Dims::flux(), RandomFormat::Bf16, 1024),
        "flux-nf4" => in_4_bits(Dims::flux(), 1024),
        "tiny-flux" => same(Dims::tiny_flux(), RandomFormat::Bf16, 64),
        "tiny-flux-nf4" => in_4_bits(Dims::tiny_flux(), 64),
        "tiny" => same(Dims::tiny(), RandomFormat::F16, 64),
        _ => None,
    }
}

impl Dims {
    /// Stable Diffusion 1.5.
    pub fn sd15() -> Self {
        Self::Sd15 { text: clip_l(), unet: UnetConfig::sd15(), vae: VaeConfig::sd15() }
    }

    /// Stable Diffusion XL.
    pub fn sdxl() -> Self {
        let texts = [clip_l(), clip_g()];
        Self::Sdxl { texts, unet: UnetConfig::sdxl(), vae: VaeConfig::sdxl() }
    }

    /// FLUX.1-dev.
    pub fn flux() -> Self {
        let (t5, transformer) = (T5Config::xxl(), FluxConfig::dev());
        Self::Flux { text: clip_l(), t5, transformer, vae: VaeConfig::flux() }
    }

    /// A Stable Diffusion XL that is quick to try on any machine.
    pub fn tiny() -> Self {
        let second = ClipConfig { projection: Some(32), ..small(&clip_g(), 64) };
        Self::Sdxl {
            texts: [small(&clip_l(), 32), second],
            unet: UnetConfig {
                channels: vec![32, 64, 64],
                depths: vec![0, 1, 1],
                mid_depth: 1,
                heads: vec![1, 2, 2],
                context_width: 96,
                added: Some(AddedConfig { time_width: 16, input_width: 32 + 6 * 16 }),
                ..UnetConfig::sdxl()
            },
            vae: VaeConfig { channels: vec![32, 32, 64, 64], ..VaeConfig::sdxl() },
        }
    }

    /// A Flux that is quick to try on any machine; its matrices are whole blocks of 4-bit weights.
    pub fn tiny_flux() -> Self {
        Self::Flux {
            text: small(&clip_l(), 64),
            t5: T5Config {
                width: 64,
                head_width: 16,
                heads: 4,
                mlp_width: 128,
                layers: 2,
                ..T5Config::xxl()
            },
            transformer: FluxConfig {
                num_layers: 2,
                num_single_layers: 3,
                attention_head_dim: 32,
                num_attention_heads: 4,
                joint_attention_dim: 64,
                pooled_projection_dim: 64,
                axes_dims_rope: [8, 12, 12],
                ..FluxConfig::dev()
            },
            vae: VaeConfig { channels: vec![32, 32, 64, 64], ..VaeConfig::flux() },
        }
    }
}

/// An encoder of fewer and narrower layers.
fn small(clip: &ClipConfig, width: usize) -> ClipConfig {
    ClipConfig { width, mlp_width: 2 * width, layers: 2, heads: 2, ..clip.clone() }
}

fn clip_l() -> ClipConfig {
    ClipConfig {
        width: 768,
        mlp_width: 3072,
        layers: 12,
        heads: 12,
        vocab_size: 49_408,
        positions: 77,
        activation: ClipActivation::QuickGelu,
        projection: None,
        norm_epsilon: 1e-5,
        eos: None,
    }
}

fn clip_g() -> ClipConfig {
    ClipConfig {
        width: 1280,
        mlp_width: 5120,
        layers: 32,
        heads: 20,
        activation: ClipActivation::Gelu,
        projection: Some(1280),
        ..clip_l()
    }
}

impl Shape {
    /// Whether some of its weights are unpacked when they are used.
    pub fn unpacks(&self) -> bool {
        [self.denoiser, self.text_encoder_2, self.rest]
            .iter()
            .any(|format| matches!(format, RandomFormat::Nf4 | RandomFormat::Hqq))
    }

    /// Makes a model of this shape. The vocabulary of Flux's second encoder comes with its models only:
    /// here each letter of a prompt is a token of it.
    ///
    /// # Errors
    /// `Cancelled` if `loading` was given up.
    pub fn make(&self, loading: &Loading<'_>) -> Result<Box<dyn Pipeline>, DiffusionError> {
        let (denoiser, rest) =
            (RandomTensors::new(self.denoiser, 1), RandomTensors::new(self.rest, 2));
        let text_encoder_2 = RandomTensors::new(self.text_encoder_2, 3);
        let clip = ClipTokenizer::standard();
        let vocabularies = match &self.dims {
            Dims::Sd15 { .. } => Vocabularies::Sd15(clip),
            Dims::Sdxl { .. } => Vocabularies::Sdxl([clip.clone(), clip]),
            Dims::Flux { .. } => {
                let letters = Tokenizer::from_clip_merges("")
                    .map_err(|error| DiffusionError::Tokenizer(error.to_string()))?;
                Vocabularies::Flux(clip, letters)
            }
        };
        Assembly {
            dims: &self.dims,
            loading,
            denoiser: &denoiser,
            vae: &rest,
            text_encoder: &rest,
            text_encoder_2: Some(&text_encoder_2),
            vocabularies,
            visitors: None,
            again: None,
            decoder_visits: false,
            method: None,
            shift: FlowShift::DEV,
        }
        .assemble()
    }
}
