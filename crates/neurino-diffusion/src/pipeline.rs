//! From words to a picture: text encoders, a schedule of noise levels, a network that finds the noise, and
//! the decoder of latents. One file a family, with its denoising loop.
//!
//! A [`Pipeline`] is a model in memory. [`Pipeline::begin`] reads a job's prompts and draws its noise;
//! the [`Denoising`] that comes back goes one step at a time, so that whoever drives it can stop between
//! two steps, show a preview, or do something else:
//!
//! ```text
//! let mut run = pipeline.begin(&job)?;
//! while run.done() < run.steps() {
//!     run.step()?;
//! }
//! let picture = run.finish(Decoding::Whole)?;
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Tensor;
use neurino_core::ImageJob;
use neurino_nn::device::download;

use crate::lora::{Lora, LoraError, Part};
use crate::{DiffusionError, RgbImage};

mod cache;
mod encoders;
pub mod flux;
mod latents;
mod preview;
pub mod sd15;
pub mod sdxl;
mod size;
mod stage;
mod trajectory;

pub use encoders::{Encoders, TextEncoders, Visitor};
pub use latents::LatentShape;

/// The kinds of image models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Stable Diffusion 1.x.
    Sd15,
    /// Stable Diffusion XL.
    Sdxl,
    /// FLUX.1.
    Flux,
}

impl Family {
    /// The networks that updates of low rank may change.
    pub(crate) fn low_rank_parts(self) -> &'static [Part] {
        match self {
            Self::Sd15 => &[Part::Denoiser, Part::TextEncoder],
            Self::Flux => &[Part::Denoiser, Part::TextEncoder, Part::T5],
            Self::Sdxl => &[Part::Denoiser, Part::TextEncoder, Part::TextEncoder2],
        }
    }

    /// The name, for people and in facts about a model.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd15 => "sd15",
            Self::Sdxl => "sdxl",
            Self::Flux => "flux",
        }
    }

    /// The size that such models were trained on, in pixels a side.
    pub fn native_side(self) -> u32 {
        match self {
            Self::Sd15 => 512,
            Self::Sdxl | Self::Flux => 1024,
        }
    }
}

/// Facts about a loaded image model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineFacts {
    /// Its kind.
    pub family: Family,
    /// Pixels of a picture for each latent pixel, a side.
    pub vae_factor: u32,
    /// Memory of its weights, in bytes.
    pub weights_bytes: u64,
}

/// Whether the last stage takes the picture in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decoding {
    /// As a whole, as the reference does.
    #[default]
    Whole,
    /// In overlapping tiles, which takes less memory and moves a few pixels at their seams.
    Tiled,
    /// In tiles of half the side, with more seams: where the device turns out to have less memory than
    /// was planned.
    SmallTiles,
}

impl Decoding {
    /// The next way that takes less memory.
    pub fn smaller(self) -> Option<Self> {
        match self {
            Self::Whole => Some(Self::Tiled),
            Self::Tiled => Some(Self::SmallTiles),
            Self::SmallTiles => None,
        }
    }
}

/// Whether the two halves of a guided step, with the prompt and without it, are one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guidance {
    /// Together, as the reference does.
    #[default]
    Together,
    /// One after the other, which takes half the memory and more time.
    InTurn,
}

/// How a picture is computed with the memory there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// How its steps are computed.
    pub guidance: Guidance,
    /// How its last stage is.
    pub decoding: Decoding,
}

impl Plan {
    /// What takes the least memory.
    pub const LEAST: Self = Self { guidance: Guidance::InTurn, decoding: Decoding::Tiled };
}

/// Where weights are while nothing computes with them, from the quickest way to the one that takes the
/// least memory of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Residence {
    /// On the device.
    #[default]
    Stay,
    /// Text encoders in host memory, where that has room, or in their files: they come for each new prompt.
    /// The rest on the device.
    Visit,
    /// As [`Residence::Visit`], and the decoder in host memory: it comes once the steps are done.
    VisitAll,
    /// As [`Residence::VisitAll`], and the layers of the denoiser in host memory: two of them are on the
    /// device while a step computes.
    Stream,
}

impl Residence {
    /// The ways that are of use on a device. The processor has no other memory to bring layers from.
    pub fn ways(is_cpu: bool) -> &'static [Self] {
        if is_cpu {
            &[Self::Stay, Self::Visit]
        } else {
            &[Self::Stay, Self::Visit, Self::VisitAll, Self::Stream]
        }
    }

    /// Whether the decoder is on the device only while it computes.
    pub fn decoder_visits(self) -> bool {
        matches!(self, Self::VisitAll | Self::Stream)
    }
}

/// An image model in memory.
pub trait Pipeline: Send {
    /// Facts about it.
    fn facts(&self) -> &PipelineFacts;

    /// The size of the picture that a job gets: what was asked for, rounded down to what the model can
    /// make, as the reference does.
    fn picture_size(&self, job: &ImageJob) -> [u32; 2];

    /// Tokens that the network sees of a job's prompts, where that is more for longer ones; else 0.
    ///
    /// # Errors
    /// `Tokenizer`.
    fn prompt_tokens(&self, job: &ImageJob) -> Result<usize, DiffusionError> {
        let _ = job;
        Ok(0)
    }

    /// Reads a job's prompts and draws its noise.
    ///
    /// # Errors
    /// `InvalidRequest` for what this model cannot make, `Tokenizer`, `Nn`.
    fn begin(&mut self, job: &ImageJob) -> Result<Box<dyn Denoising>, DiffusionError>;

    /// The same with a network that is told another size (width, height) than the picture has, where it is
    /// told one.
    ///
    /// # Errors
    /// As [`Pipeline::begin`].
    fn begin_told(
        &mut self,
        job: &ImageJob,
        size: [u32; 2],
    ) -> Result<Box<dyn Denoising>, DiffusionError> {
        let _ = size;
        self.begin(job)
    }

    /// Replaces all low-rank updates (LoRA files) by `loras`. No picture may be under way.
    ///
    /// # Errors
    /// `Lora` for files that do not fit the model, `InvalidRequest` while a picture is under way.
    fn set_loras(&mut self, loras: &[LoraFile]) -> Result<(), DiffusionError>;
}

/// A file of low-rank updates and how strongly they act on the denoising network.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraFile {
    /// The file.
    pub path: PathBuf,
    /// 1 as trained. Text encoders of Stable Diffusion always take their updates as trained, as on the
    /// network.
    pub scale: f32,
}

/// Files of low-rank updates, opened.
#[derive(Clone, Default)]
pub struct LoraFiles(Vec<(Arc<Lora>, f32)>);

impl LoraFiles {
    /// Whether any of them changes a text encoder.
    fn change_encoders(&self) -> bool {
        let encoders = [Part::TextEncoder, Part::TextEncoder2, Part::T5];
        self.0.iter().any(|(lora, _)| encoders.into_iter().any(|part| lora.changes(part)))
    }

    /// Opens files for a model that has `parts`.
    pub(crate) fn open(files: &[LoraFile], parts: &[Part]) -> Result<Self, LoraError> {
        let open = |file: &LoraFile| {
            let lora = Lora::open(&file.path)?;
            lora.check_parts(parts)?;
            Ok((Arc::new(lora), file.scale))
        };
        files.iter().map(open).collect::<Result<_, LoraError>>().map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For the denoising network, and Flux's text encoders.
    fn scaled(&self) -> Vec<(Arc<Lora>, f32)> {
        self.0.clone()
    }

    /// For text encoders of Stable Diffusion.
    fn as_trained(&self) -> Vec<(Arc<Lora>, f32)> {
        self.0.iter().map(|(lora, _)| (Arc::clone(lora), 1.0)).collect()
    }
}

/// Why a model cannot be changed now.
fn under_way() -> DiffusionError {
    let rule = "can be changed only while no picture is being made".to_owned();
    DiffusionError::InvalidRequest { field: "loras", rule }
}

/// A picture that is being made. Dropping it gives it up.
pub trait Denoising: Send {
    /// All steps.
    fn steps(&self) -> usize;

    /// Steps done, as far as the host has to do with them: a card may still compute the last.
    fn done(&self) -> usize;

    /// Steps that are computed: all that are done, or all but the last.
    fn computed(&self) -> usize {
        self.done()
    }

    /// How the steps from now on are computed, where the picture is guided.
    fn set_guidance(&mut self, guidance: Guidance) {
        let _ = guidance;
    }

    /// Computes the next step; nothing if all are done. On a card it returns once the step before is
    /// computed, the last step once it is itself, and if a preview is wanted each one. After an error it may
    /// be called again: the picture is where it was before the step that failed.
    ///
    /// # Errors
    /// `Nn`, of this step or the one before.
    fn step(&mut self) -> Result<(), DiffusionError>;

    /// What the picture looks like so far, one pixel for each latent pixel.
    ///
    /// # Errors
    /// `Nn`, `NotFinite`.
    fn preview(&self) -> Result<RgbImage, DiffusionError>;

    /// Decodes the latents. May be called again, with tiles, if the device ran out of memory. Where 16 bits
    /// overflowed, it is decoded once more in f32.
    ///
    /// # Errors
    /// `Nn`, `NotFinite`.
    fn finish(&mut self, decoding: Decoding) -> Result<RgbImage, DiffusionError> {
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let levels = |picture: Tensor<4>| {
            let [_, height, width, _] = picture.dims();
            RgbImage::from_decoded(&download(picture)?, side(width), side(height))
        };
        match levels(self.decode(decoding)?) {
            Err(DiffusionError::NotFinite) => match self.decode_in_full(decoding)? {
                Some(picture) => levels(picture),
                None => Err(DiffusionError::NotFinite),
            },
            other => other,
        }
    }

    /// The picture before it becomes levels: `[1, height, width, 3]`, about -1..1.
    ///
    /// # Errors
    /// `Nn`.
    fn decode(&self, decoding: Decoding) -> Result<Tensor<4>, DiffusionError>;

    /// [`Denoising::decode`] in f32, if the decoder is kept in less and the latents are numbers.
    ///
    /// # Errors
    /// `Nn`; as loading where the weights cannot be read again.
    fn decode_in_full(&self, decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
        let _ = decoding;
        Ok(None)
    }

    /// Reads the latents as they are now, in the reference's order.
    ///
    /// # Errors
    /// `Nn`.
    fn latents(&self) -> Result<Vec<f32>, DiffusionError>;

    /// Reads what the network gave in the last step, guided, in the order of [`Denoising::latents`].
    ///
    /// # Errors
    /// `Nn`.
    fn output(&self) -> Result<Vec<f32>, DiffusionError>;

    /// What the text encoders made of the prompts, by the reference's names.
    ///
    /// # Errors
    /// `Nn`.
    fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError>;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use burn::tensor::Device;
    use neurino_nn::device::upload;

    use super::*;

    /// A picture whose decoder overflows, with something in reserve or not.
    struct Overflowing {
        in_full: Option<f32>,
    }

    fn picture(value: f32) -> Tensor<4> {
        upload(vec![value; 3], [1, 1, 1, 3], &Device::flex())
    }

    impl Denoising for Overflowing {
        fn steps(&self) -> usize {
            1
        }

        fn done(&self) -> usize {
            1
        }

        fn step(&mut self) -> Result<(), DiffusionError> {
            Ok(())
        }

        fn preview(&self) -> Result<RgbImage, DiffusionError> {
            Err(DiffusionError::NotFinite)
        }

        fn decode(&self, _decoding: Decoding) -> Result<Tensor<4>, DiffusionError> {
            Ok(picture(f32::INFINITY))
        }

        fn decode_in_full(&self, _decoding: Decoding) -> Result<Option<Tensor<4>>, DiffusionError> {
            Ok(self.in_full.map(picture))
        }

        fn latents(&self) -> Result<Vec<f32>, DiffusionError> {
            Ok(Vec::new())
        }

        fn output(&self) -> Result<Vec<f32>, DiffusionError> {
            Ok(Vec::new())
        }

        fn conditions(&self) -> Result<Vec<(&'static str, Vec<f32>)>, DiffusionError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_picture_that_overflowed_is_decoded_once_more_in_full() {
        let finish = |in_full| Overflowing { in_full }.finish(Decoding::Whole);
        assert_eq!(finish(Some(1.0)).unwrap().pixels(), &[255, 255, 255]);
        for in_full in [None, Some(f32::NAN)] {
            assert!(matches!(finish(in_full), Err(DiffusionError::NotFinite)));
        }
    }
}
