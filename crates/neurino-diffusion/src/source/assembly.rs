//! A pipeline of the tensors and vocabularies of its components, wherever they come from.

use std::sync::Arc;

use burn::tensor::Device;
use neurino_llm::Tokenizer;

use super::ImageSource;
use crate::DiffusionError;
use crate::checkpoint::kept::KeptTensors;
use crate::checkpoint::{Component, Loading, Precision, Tensors};
use crate::clip::{ClipConfig, ClipTextEncoder, ClipTokenizer};
use crate::flux::FluxTransformer;
use crate::memory::Dims;
use crate::pipeline::flux::{Flux, FluxPipeline};
use crate::pipeline::sd15::{Sd15, Sd15Pipeline};
use crate::pipeline::sdxl::{Sdxl, SdxlPipeline};
use crate::pipeline::{Encoders, Pipeline, TextEncoders};
use crate::pulse::Pulse;
use crate::scheduler::{FlowShift, Method};
use crate::t5::T5Encoder;
use crate::unet::{Unet, UnetConfig};
use crate::vae::{Reserve, Vae};

/// What a pipeline is made of.
pub(crate) struct Assembly<'a> {
    pub(crate) dims: &'a Dims,
    pub(crate) loading: &'a Loading<'a>,
    pub(crate) denoiser: &'a dyn Tensors,
    pub(crate) vae: &'a dyn Tensors,
    pub(crate) text_encoder: &'a dyn Tensors,
    /// Where there is a second one.
    pub(crate) text_encoder_2: Option<&'a dyn Tensors>,
    pub(crate) vocabularies: Vocabularies,
    /// Where text encoders come from for each prompt, unless they stay.
    pub(crate) visitors: Option<Visitors>,
    /// Where a decoder in f32 comes from, if the one in 16 bits overflows.
    pub(crate) again: Option<Visitors>,
    /// Whether the decoder is in host memory while it does not compute.
    pub(crate) decoder_visits: bool,
    /// Instead of the network's schedule.
    pub(crate) method: Option<Method>,
    /// How Flux's noise levels are shifted.
    pub(crate) shift: FlowShift,
}

/// Brings parts of a model when they are wanted.
#[derive(Clone)]
pub(crate) struct Visitors {
    pub(crate) source: Arc<ImageSource>,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    /// What their networks beat with.
    pub(crate) pulse: Pulse,
    /// Where what was read of text encoders stays in host memory.
    pub(crate) kept: Option<Arc<KeptTensors>>,
}

impl Visitors {
    /// The decoder in f32.
    fn decoder(&self) -> Reserve {
        let Self { source, device, pulse, .. } = self.clone();
        Reserve::new(move || {
            source.load_decoder(&Loading::quiet(&device, Precision::Full).beating(&pulse))
        })
    }

    fn visiting<T: TextEncoders>(
        self,
        read: impl Fn(&ImageSource, &Loading<'_>) -> Result<T, DiffusionError> + Send + Sync + 'static,
    ) -> Encoders<T> {
        let Self { source, device, precision, pulse, kept } = self;
        Encoders::visiting(move || {
            let loading = Loading::quiet(&device, precision).beating(&pulse);
            match &kept {
                Some(kept) => read(&source, &loading.keeping(kept)),
                None => read(&source, &loading),
            }
        })
    }
}

/// Vocabularies, one for each text encoder.
pub(crate) enum Vocabularies {
    Sd15(ClipTokenizer),
    Sdxl([ClipTokenizer; 2]),
    Flux(ClipTokenizer, Tokenizer),
}

impl Assembly<'_> {
    /// Loads all components.
    pub(crate) fn assemble(mut self) -> Result<Box<dyn Pipeline>, DiffusionError> {
        let device = self.loading.device.clone();
        let held = || self.loading.held_bytes();
        let visitors = self.visitors.take();
        match (self.dims, &self.vocabularies) {
            (Dims::Sd15 { text, unet, vae: _ }, Vocabularies::Sd15(tokenizer)) => {
                let model = Sd15 {
                    tokenizer: tokenizer.clone(),
                    text_encoder: match visitors {
                        None => Encoders::Stay(self.text_encoder(text)?),
                        Some(visitors) => visitors
                            .visiting(|source, loading| source.load_text_encoder(loading, false)),
                    },
                    unet: self.unet(unet)?,
                    vae: self.decoder()?,
                    device,
                };
                let method = self.method.unwrap_or(Method::SD15);
                Ok(Box::new(Sd15Pipeline::new(model, held()).scheduled(method)))
            }
            (
                Dims::Sdxl { texts: [first, second], unet, vae: _ },
                Vocabularies::Sdxl(tokenizers),
            ) => {
                let model = Sdxl {
                    tokenizers: tokenizers.clone(),
                    text_encoders: match visitors {
                        None => Encoders::Stay([
                            self.text_encoder(first)?,
                            ClipTextEncoder::load(&self.second()?, second)?,
                        ]),
                        Some(visitors) => visitors.visiting(|source, loading| {
                            let one = |second| source.load_text_encoder(loading, second);
                            Ok([one(false)?, one(true)?])
                        }),
                    },
                    unet: self.unet(unet)?,
                    vae: self.decoder()?,
                    device,
                };
                let method = self.method.unwrap_or(Method::SDXL);
                Ok(Box::new(SdxlPipeline::new(model, held()).scheduled(method)))
            }
            (
                Dims::Flux { text, t5, transformer, vae: _ },
                Vocabularies::Flux(tokenizer, tokenizer_2),
            ) => {
                let model = Flux {
                    tokenizer: tokenizer.clone(),
                    tokenizer_2: tokenizer_2.clone(),
                    text_encoders: match visitors {
                        None => Encoders::Stay((
                            self.text_encoder(text)?,
                            T5Encoder::load(&self.second()?, t5)?,
                        )),
                        Some(visitors) => visitors.visiting(|source, loading| {
                            Ok((
                                source.load_text_encoder(loading, false)?,
                                source.load_t5(loading)?,
                            ))
                        }),
                    },
                    transformer: FluxTransformer::load(
                        &Component::new(self.denoiser, self.loading),
                        transformer,
                    )?,
                    vae: self.decoder()?,
                    device,
                };
                Ok(Box::new(FluxPipeline::new(model, held()).shifted(self.shift)))
            }
            _ => Err(incomplete()),
        }
    }

    fn text_encoder(&self, config: &ClipConfig) -> Result<ClipTextEncoder, DiffusionError> {
        ClipTextEncoder::load(&Component::new(self.text_encoder, self.loading), config)
    }

    fn second(&self) -> Result<Component<'_>, DiffusionError> {
        let tensors = self.text_encoder_2.ok_or_else(incomplete)?;
        Ok(Component::new(tensors, self.loading))
    }

    fn unet(&self, config: &UnetConfig) -> Result<Unet, DiffusionError> {
        Unet::load(&Component::new(self.denoiser, self.loading), config)
    }

    fn decoder(&self) -> Result<Vae, DiffusionError> {
        let precision = self.dims.vae_precision(self.loading.precision);
        let visiting = self.decoder_visits.then(|| self.loading.visiting());
        let loading = visiting.as_ref().unwrap_or(self.loading);
        let part = Component::new(self.vae, loading).kept_in(precision);
        let vae = Vae::load_decoder(&part, self.dims.vae())?;
        Ok(match &self.again {
            Some(again) if precision == Precision::Half => vae.with_reserve(again.decoder()),
            _ => vae,
        })
    }
}

fn incomplete() -> DiffusionError {
    let problem = "has not all components of its family".to_owned();
    DiffusionError::Config { file: "the model".into(), problem }
}
