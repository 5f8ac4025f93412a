//! Single files with the names of latent diffusion's own code: Stable Diffusion 1.x and SDXL.

use std::path::Path;

use neurino_weights::file::WeightFile;
use neurino_weights::{Safetensors, StoredTensor, WeightsError};

use super::{Tensors, Weight, same_shape};
use crate::DiffusionError;
use names::Form;

pub mod names;

/// What this build reads, for messages.
const SUPPORTED: &str =
    "a checkpoint of Stable Diffusion 1.x or SDXL in one safetensors file, or a diffusers folder";

const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const SD1_TEXT: &str = "cond_stage_model.transformer.";
const SDXL_TEXT: &str = "conditioner.embedders.0.transformer.";
const SDXL_TEXT_2: &str = "conditioner.embedders.1.model.";

/// Under which name of the metadata trainers say what a network tells.
///
/// Source: Stability-AI/ModelSpec, `modelspec.prediction_type`.
const PREDICTS: &str = "modelspec.prediction_type";
/// What stands there if it is the noise.
const NOISE: [&str; 2] = ["epsilon", "eps"];

/// Whose checkpoint a single file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdmFamily {
    /// Stable Diffusion 1.x: one text encoder.
    Sd1,
    /// SDXL: two text encoders, one of them with open_clip's names.
    Sdxl,
}

/// A single-file checkpoint, with the autoencoder of another file if there is one.
#[derive(Debug)]
pub struct LdmTensors {
    file: Safetensors,
    family: LdmFamily,
    layers_per_block: usize,
    vae: VaeFile,
}

#[derive(Debug)]
struct VaeFile {
    /// Only if the autoencoder has a file of its own.
    file: Option<Safetensors>,
    prefix: &'static str,
    names: Names,
}

impl LdmTensors {
    /// Opens a checkpoint; reads headers only.
    ///
    /// - `separate_vae`: a file whose autoencoder takes the place of the checkpoint's
    ///
    /// # Errors
    /// `Weights` if a file is damaged, `Unsupported` if it holds something else.
    pub fn open(path: &Path, separate_vae: Option<&Path>) -> Result<Self, DiffusionError> {
        let file = open_file(path)?;
        let unsupported = |found: &str| DiffusionError::Unsupported {
            path: path.to_owned(),
            found: found.to_owned(),
            supported: SUPPORTED,
        };
        let family = family(&file).map_err(unsupported)?;
        if let Some(other) = file.note(PREDICTS).filter(|told| !NOISE.contains(told)) {
            return Err(unsupported(&format!(
                "a checkpoint that predicts `{other}` (`{PREDICTS}` in its metadata) and not noise; \
                 take the model's version that predicts noise (epsilon)"
            )));
        }
        let own = file.names().filter_map(|name| name.strip_prefix(UNET));
        let layers_per_block = names::unet_layers_per_block(own);
        let vae = match separate_vae {
            Some(path) => VaeFile::open(path)?,
            None => VaeFile::of_checkpoint(&file),
        };
        Ok(Self { file, family, layers_per_block, vae })
    }

    /// Whose checkpoint it is.
    pub fn family(&self) -> LdmFamily {
        self.family
    }

    /// The file itself.
    pub fn file(&self) -> &Safetensors {
        &self.file
    }

    /// Whether there is an autoencoder that makes pictures.
    pub fn has_vae(&self) -> bool {
        matches!(self.vae.names, Names::Same | Names::Vae { levels: 1.. })
    }

    /// The file of the autoencoder, if it has one of its own.
    pub fn vae_file(&self) -> Option<&Safetensors> {
        self.vae.file.as_ref()
    }

    /// Bytes of the tensors of one component, of those that a network may read.
    pub fn component_bytes(&self, component: &LdmComponent<'_>) -> u64 {
        let ours = component.file.tensors().filter(|t| t.name().starts_with(component.prefix));
        ours.map(|tensor| tensor.size_bytes() as u64).sum()
    }

    /// The denoiser, under diffusers' names.
    pub fn unet(&self) -> LdmComponent<'_> {
        let names = Names::Unet { layers_per_block: self.layers_per_block };
        LdmComponent { file: &self.file, prefix: UNET, names }
    }

    /// The autoencoder, under diffusers' names.
    pub fn vae(&self) -> LdmComponent<'_> {
        let VaeFile { file, prefix, names } = &self.vae;
        LdmComponent { file: file.as_ref().unwrap_or(&self.file), prefix, names: *names }
    }

    /// The (first) text encoder, under Hugging Face's names.
    pub fn text_encoder(&self) -> LdmComponent<'_> {
        let prefix = match self.family {
            LdmFamily::Sd1 => SD1_TEXT,
            LdmFamily::Sdxl => SDXL_TEXT,
        };
        LdmComponent { file: &self.file, prefix, names: Names::Same }
    }

    /// SDXL's second text encoder, under Hugging Face's names.
    pub fn text_encoder_2(&self) -> Option<LdmComponent<'_>> {
        (self.family == LdmFamily::Sdxl).then_some(LdmComponent {
            file: &self.file,
            prefix: SDXL_TEXT_2,
            names: Names::OpenClip,
        })
    }
}

/// An autoencoder in a file of its own, with the names of a checkpoint or of diffusers.
#[derive(Debug)]
pub struct LdmVae {
    file: Safetensors,
    prefix: &'static str,
    names: Names,
}

impl LdmVae {
    /// Opens a file; reads its header only.
    ///
    /// # Errors
    /// `Weights` if the file is damaged, `Unsupported` if it holds something else.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let VaeFile { file, prefix, names } = VaeFile::open(path)?;
        let file = file.map_or_else(|| open_file(path), Ok)?;
        Ok(Self { file, prefix, names })
    }

    /// The file itself.
    pub fn file(&self) -> &Safetensors {
        &self.file
    }

    /// Its tensors, under diffusers' names.
    pub fn vae(&self) -> LdmComponent<'_> {
        LdmComponent { file: &self.file, prefix: self.prefix, names: self.names }
    }
}

impl VaeFile {
    fn of_checkpoint(file: &Safetensors) -> Self {
        let own = file.names().filter_map(|name| name.strip_prefix(VAE));
        Self { file: None, prefix: VAE, names: Names::Vae { levels: names::vae_levels(own) } }
    }

    /// A file of its own: with the names of a checkpoint, with or without their prefix, or diffusers'.
    fn open(path: &Path) -> Result<Self, DiffusionError> {
        let file = open_file(path)?;
        let prefix = if file.names().any(|name| name.starts_with(VAE)) { VAE } else { "" };
        let levels = names::vae_levels(file.names().filter_map(|name| name.strip_prefix(prefix)));
        let names = match levels {
            0 if file.names().any(|name| name.starts_with("decoder.up_blocks.")) => Names::Same,
            0 => {
                return Err(DiffusionError::Unsupported {
                    path: path.to_owned(),
                    found: "no autoencoder".to_owned(),
                    supported: "autoencoders with the names of a checkpoint or of diffusers",
                });
            }
            levels => Names::Vae { levels },
        };
        Ok(Self { file: Some(file), prefix, names })
    }
}

/// Opens a safetensors file, and says what it is if it is another kind of file that people take for a
/// checkpoint.
fn open_file(path: &Path) -> Result<Safetensors, DiffusionError> {
    let error = match Safetensors::open_file(path) {
        Ok(file) => return Ok(file),
        Err(error @ (WeightsError::CorruptHeader { .. } | WeightsError::Truncated { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let found = match WeightFile::open(path)?.first(4)?.as_slice() {
        b"PK\x03\x04" => "a pickled checkpoint (.ckpt), which could run programs",
        b"GGUF" => "a GGUF file",
        _ => return Err(error.into()),
    };
    Err(DiffusionError::Unsupported {
        path: path.to_owned(),
        found: found.to_owned(),
        supported: SUPPORTED,
    })
}

/// Whose checkpoint it is by the names of its tensors, or what it is instead.
fn family(file: &Safetensors) -> Result<LdmFamily, &'static str> {
    let has = |part: &str| file.names().any(|name| name.starts_with(part));
    let unet = has("model.diffusion_model.input_blocks.");
    if unet {
        let entrance = file.stored("model.diffusion_model.input_blocks.0.0.weight");
        let channels = entrance.ok().and_then(|tensor| tensor.shape().get(1).copied());
        return match channels {
            Some(9) => Err("a checkpoint for inpainting"),
            Some(8) => Err("a checkpoint for editing pictures"),
            // A mark that its trainers put there, because nothing else tells.
            _ if file.stored("v_pred").is_ok() => Err(
                "a checkpoint that predicts velocity (`v_pred`) and not noise; take the model's \
                 version that predicts noise (epsilon)",
            ),
            _ if has(SDXL_TEXT_2) && has(SDXL_TEXT) => Ok(LdmFamily::Sdxl),
            _ if has("conditioner.embedders.0.model.") => Err("the refiner of SDXL"),
            _ if has("cond_stage_model.model.") => Err("a checkpoint of Stable Diffusion 2"),
            _ if has(SD1_TEXT) => Ok(LdmFamily::Sd1),
            _ if has("model.diffusion_model.label_emb.") => {
                Err("a checkpoint of SDXL without its text encoders")
            }
            _ => Err("a UNet without its text encoder"),
        };
    }
    let named = |part: &str| file.names().any(|name| name.contains(part));
    Err(if named("double_blocks.") && !named("lora") {
        "a single file of Flux, which is read from a diffusers folder"
    } else if named("lora_down") || named("lora_A") || named("_lora.") || named(".lora.") {
        "a LoRA, which is used together with a checkpoint"
    } else if named("joint_blocks.") {
        "a checkpoint of Stable Diffusion 3"
    } else if has("decoder.") || has(VAE) {
        "an autoencoder alone"
    } else if has("down_blocks.") || has("transformer_blocks.") || has("text_model.") {
        "one component of a diffusers folder"
    } else {
        "no image model"
    })
}

/// One component of a single file, its tensors under diffusers' or Hugging Face's names.
#[derive(Debug, Clone, Copy)]
pub struct LdmComponent<'a> {
    file: &'a Safetensors,
    prefix: &'a str,
    names: Names,
}

#[derive(Debug, Clone, Copy)]
enum Names {
    Same,
    Unet { layers_per_block: usize },
    Vae { levels: usize },
    OpenClip,
}

impl<'a> LdmComponent<'a> {
    /// All its tensors, under the names that the file has.
    pub fn tensors(&self) -> impl Iterator<Item = &'a StoredTensor> + use<'a> {
        let prefix = self.prefix;
        self.file.tensors().filter(move |tensor| tensor.name().starts_with(prefix))
    }
}

impl LdmComponent<'_> {
    /// Where the tensor is stored that diffusers calls `name`.
    fn find(&self, name: &str) -> Option<(&StoredTensor, Form)> {
        let (names, form) = match self.names {
            Names::Same => {
                // Files of the first days lack the module between.
                let without = name.strip_prefix("text_model.").unwrap_or(name);
                (vec![name.to_owned(), without.to_owned()], Form::Same)
            }
            Names::Unet { layers_per_block } => (names::unet(name, layers_per_block), Form::Same),
            Names::Vae { levels } => (vec![names::vae(name, levels)], Form::Same),
            Names::OpenClip => {
                let (name, form) = names::open_clip(name)?;
                (vec![name], form)
            }
        };
        let stored = |name: &String| self.file.stored(&format!("{}{name}", self.prefix)).ok();
        Some((names.iter().find_map(stored)?, form))
    }
}

/// The shape of a tensor that is stored in another form; `None` if that form cannot be.
fn formed(stored: &[usize], form: Form) -> Option<Vec<usize>> {
    match (form, stored) {
        (Form::Same, shape) => Some(shape.to_vec()),
        (Form::Third(_), [rows, rest @ ..]) if rows.is_multiple_of(3) => {
            Some([&[rows / 3], rest].concat())
        }
        (Form::Transposed, &[rows, columns]) => Some(vec![columns, rows]),
        _ => None,
    }
}

impl Tensors for LdmComponent<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (stored, form) = self.find(name)?;
        formed(stored.shape(), form)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let file = self.file.path();
        let (stored, form) = self.find(name).ok_or_else(|| WeightsError::TensorAbsent {
            file: file.to_owned(),
            tensor: format!("{}{name}", self.prefix),
        })?;
        let found = formed(stored.shape(), form).unwrap_or_else(|| stored.shape().to_vec());
        same_shape(file, stored.name(), &found, shape)?;
        let bytes = stored.read()?.into_bytes();
        let bytes = match form {
            Form::Same => bytes,
            Form::Third(third) => {
                let len = bytes.len() / 3;
                bytes[third * len..][..len].to_vec()
            }
            Form::Transposed => transposed(&bytes, stored.shape()),
        };
        Ok(Weight::plain(stored.dtype(), bytes))
    }
}

/// A matrix of numbers of equal size with rows and columns exchanged.
fn transposed(bytes: &[u8], shape: &[usize]) -> Vec<u8> {
    let &[rows, columns] = shape else { return bytes.to_vec() };
    let size = bytes.len().checked_div(rows * columns).unwrap_or(0);
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            out.extend_from_slice(&bytes[(row * columns + column) * size..][..size]);
        }
    }
    out
}
