//! Text encoders in memory all the time, or only while a prompt is read.

use std::sync::Arc;

use burn::tensor::{Device, ExecutionError};
use neurino_nn::NnError;
use neurino_nn::device::run_near;

use super::LoraFiles;
use crate::DiffusionError;
use crate::clip::ClipTextEncoder;
use crate::lora::{LoraError, Part, set_loras};
use crate::t5::T5Encoder;

/// All text encoders of a family.
pub trait TextEncoders: Sized + Send + Sync + 'static {
    /// Replaces their low-rank updates.
    #[doc(hidden)]
    fn set_loras(&mut self, files: &LoraFiles) -> Result<(), LoraError>;
}

impl TextEncoders for ClipTextEncoder {
    fn set_loras(&mut self, files: &LoraFiles) -> Result<(), LoraError> {
        set_loras(self, Part::TextEncoder, &files.as_trained())
    }
}

impl TextEncoders for [ClipTextEncoder; 2] {
    fn set_loras(&mut self, files: &LoraFiles) -> Result<(), LoraError> {
        let [first, second] = self;
        set_loras(first, Part::TextEncoder, &files.as_trained())?;
        set_loras(second, Part::TextEncoder2, &files.as_trained())
    }
}

/// No updates of T5 are known. The reference's pipeline scales CLIP's with the transformer's; those of the
/// other families, which read weighted prompts, do not.
impl TextEncoders for (ClipTextEncoder, T5Encoder) {
    fn set_loras(&mut self, files: &LoraFiles) -> Result<(), LoraError> {
        set_loras(&mut self.0, Part::TextEncoder, &files.scaled())
    }
}

/// Reads text encoders from where they are kept.
type Read<T> = Arc<dyn Fn() -> Result<T, DiffusionError> + Send + Sync>;

/// The text encoders of a model, wherever they are.
pub enum Encoders<T> {
    /// In memory.
    Stay(T),
    /// Read when a prompt comes that is not remembered, and dropped behind it. The system keeps the
    /// file in memory as long as nobody else wants that, so mostly this costs the way to the device.
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

    pub(super) fn set_loras(&mut self, files: &LoraFiles) -> Result<(), DiffusionError> {
        match self {
            Self::Stay(encoders) => encoders.set_loras(files)?,
            Self::Visit(visitor) => {
                let before = std::mem::replace(&mut visitor.loras, files.clone());
                // Whether they fit is to be known now.
                if let Err(error) = visitor.come() {
                    visitor.loras = before;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<T: TextEncoders> Visitor<T> {
    fn come(&self) -> Result<T, DiffusionError> {
        let mut encoders = (self.read)()?;
        if !self.loras.is_empty() {
            encoders.set_loras(&self.loras)?;
        }
        Ok(encoders)
    }
}
