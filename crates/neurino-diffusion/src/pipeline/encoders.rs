//! Text encoders in memory all the time, or only while a prompt is read.

use std::sync::Arc;

use burn::tensor::{Device, ExecutionError};
use neurino_nn::NnError;
use neurino_nn::device::run_near;

use super::LoraFiles;
use crate::DiffusionError;
use crate::clip::ClipTextEncoder;
use crate::lora::{LoraError, LowRankLayers, Part, check_fit, prepare_loras};
use crate::t5::T5Encoder;

/// All text encoders of a family.
pub trait TextEncoders: Sized + Send + Sync + 'static {
    /// Whether updates act on them as strongly as on the denoiser: those of the reference's pipelines of
    /// Stable Diffusion, which read weighted prompts, take them as trained.
    #[doc(hidden)]
    const SCALED: bool = false;

    /// The networks that take low-rank updates.
    #[doc(hidden)]
    fn networks(&mut self) -> Vec<(Part, &mut dyn LowRankLayers)>;
}

impl TextEncoders for ClipTextEncoder {
    fn networks(&mut self) -> Vec<(Part, &mut dyn LowRankLayers)> {
        vec![(Part::TextEncoder, self)]
    }
}

impl TextEncoders for [ClipTextEncoder; 2] {
    fn networks(&mut self) -> Vec<(Part, &mut dyn LowRankLayers)> {
        let [first, second] = self;
        vec![(Part::TextEncoder, first), (Part::TextEncoder2, second)]
    }
}

/// The reference's pipeline scales both with the transformer.
impl TextEncoders for (ClipTextEncoder, T5Encoder) {
    const SCALED: bool = true;

    fn networks(&mut self) -> Vec<(Part, &mut dyn LowRankLayers)> {
        vec![(Part::TextEncoder, &mut self.0), (Part::T5, &mut self.1)]
    }
}

/// Reads text encoders from where they are kept.
type Read<T> = Arc<dyn Fn() -> Result<T, DiffusionError> + Send + Sync>;

/// The text encoders of a model, wherever they are.
pub enum Encoders<T> {
    /// In memory.
    Stay(T),
    /// Brought when a prompt comes that is not remembered, and dropped behind it: from the host's memory
    /// where that has room for them, else from their files.
    Visit(Visitor<T>),
}

/// Text encoders that come for a prompt.
pub struct Visitor<T> {
    read: Read<T>,
    loras: LoraFiles,
}

impl<T: TextEncoders> Encoders<T> {
    /// Encoders that `read` brings each time.
    pub(crate) fn visiting(
        read: impl Fn() -> Result<T, DiffusionError> + Send + Sync + 'static,
    ) -> Self {
        Self::Visit(Visitor { read: Arc::new(read), loras: LoraFiles::default() })
    }

    /// Does something with the encoders.
    pub(super) fn with<R: Send>(
        &self,
        device: &Device,
        read_prompt: impl FnOnce(&T) -> Result<R, DiffusionError> + Send,
    ) -> Result<R, DiffusionError> {
        match self {
            Self::Stay(encoders) => run_near(device, || read_prompt(encoders)),
            Self::Visit(visitor) => {
                let encoders = visitor.come()?;
                let made = run_near(device, || read_prompt(&encoders))?;
                // What was made of the prompt must be there before its makers go.
                let lost = |error: ExecutionError| NnError::Device { reason: error.to_string() };
                device.sync().map_err(lost)?;
                drop(encoders);
                device.memory_cleanup();
                Ok(made)
            }
        }
    }

    /// Makes `files` the updates of the encoders and of the `denoiser`. Whether they fit is found
    /// before anything is read, and what is read before anything changes.
    pub(super) fn set_loras(
        &mut self,
        denoiser: &mut dyn LowRankLayers,
        files: &LoraFiles,
    ) -> Result<(), DiffusionError> {
        match self {
            Self::Stay(encoders) => {
                let mut networks = encoders.networks();
                networks.push((Part::Denoiser, denoiser));
                check_fit(&mut networks, &files.scaled())?;
                set_all::<T>(&mut networks, files)?;
            }
            Self::Visit(visitor) => {
                // Their layers are known once they are there.
                let mut encoders = files.change_encoders().then(|| (visitor.read)()).transpose()?;
                let mut networks = encoders.as_mut().map(T::networks).unwrap_or_default();
                networks.push((Part::Denoiser, &mut *denoiser));
                check_fit(&mut networks, &files.scaled())?;
                drop(networks);
                drop(encoders);
                set_all::<T>(&mut [(Part::Denoiser, denoiser)], files)?;
                visitor.loras = files.clone();
            }
        }
        Ok(())
    }
}

/// Makes the updates of all `networks` and, once all are made, sets them.
fn set_all<T: TextEncoders>(
    networks: &mut [(Part, &mut dyn LowRankLayers)],
    files: &LoraFiles,
) -> Result<(), LoraError> {
    let loras = |part| match part {
        Part::Denoiser => files.scaled(),
        _ if T::SCALED => files.scaled(),
        _ => files.as_trained(),
    };
    let prepare = |(part, network): &mut (Part, &mut dyn LowRankLayers)| {
        prepare_loras(*network, *part, &loras(*part))
    };
    let prepared: Vec<_> = networks.iter_mut().map(prepare).collect::<Result<_, _>>()?;
    for ((_, network), prepared) in networks.iter_mut().zip(prepared) {
        prepared.set(*network);
    }
    Ok(())
}

impl<T: TextEncoders> Visitor<T> {
    fn come(&self) -> Result<T, DiffusionError> {
        let mut encoders = (self.read)()?;
        if !self.loras.is_empty() {
            set_all::<T>(&mut encoders.networks(), &self.loras)?;
        }
        Ok(encoders)
    }
}
