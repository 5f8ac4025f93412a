//! The files of a model's components.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_weights::file::WeightFile;
use neurino_weights::prefetch::{Prefetch, budget_bytes};
use neurino_weights::{DType, Safetensors, StoredTensor};

use super::SUPPORTED;
use super::manifest::Manifest;
use crate::DiffusionError;
use crate::checkpoint::folder::FolderTensors;
use crate::checkpoint::ldm::{LdmComponent, LdmTensors, LdmVae};
use crate::checkpoint::{Precision, Tensors, Weight};
use crate::memory::{self, Turn};
use crate::pipeline::Family;

mod order;

/// A component that has tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The UNet or transformer.
    Denoiser,
    Vae,
    TextEncoder,
    TextEncoder2,
}

impl Part {
    /// The name of its folder.
    pub(super) fn folder_name(self, family: Family) -> &'static str {
        match self {
            Self::Denoiser if family == Family::Flux => "transformer",
            Self::Denoiser => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }
}

/// Where the tensors of a model lie.
#[derive(Debug)]
pub(super) enum Files {
    /// In one file, but for an autoencoder in a folder.
    Checkpoint { file: Box<LdmTensors>, vae: Option<FolderTensors> },
    /// Each component in its folder, but for an autoencoder in a file of its own.
    Components {
        family: Family,
        parts: Vec<(Part, FolderTensors, PathBuf)>,
        vae: Option<Box<LdmVae>>,
    },
}

/// The tensors of one component. From the first one that is read on, several threads read the others
/// ahead, as long as this lives.
#[derive(Debug)]
pub(super) struct PartTensors<'a> {
    lie: Lie<'a>,
    /// Whether only the half that makes pictures is wanted.
    decodes: bool,
    ahead: OnceCell<Arc<Prefetch>>,
}

/// Where the tensors of a component lie.
#[derive(Debug)]
enum Lie<'a> {
    Ldm(LdmComponent<'a>),
    Folder(&'a FolderTensors),
}

impl<'a> PartTensors<'a> {
    fn new(lie: Lie<'a>, part: Part) -> Self {
        Self { lie, decodes: part == Part::Vae, ahead: OnceCell::new() }
    }

    /// What will be read, in the order in which that is likely.
    fn plan(&self) -> Vec<StoredTensor> {
        let all: Vec<StoredTensor> = match &self.lie {
            Lie::Ldm(tensors) => tensors.tensors().cloned().collect(),
            Lie::Folder(tensors) => tensors.file().tensors().cloned().collect(),
        };
        let wanted = |tensor: &StoredTensor| !self.decodes || is_of_decoder(tensor.name());
        order::sorted(all.into_iter().filter(wanted).collect())
    }

    fn read_ahead(&self) {
        self.ahead.get_or_init(|| {
            let plan = self.plan();
            let all_bytes = plan.iter().map(|tensor| tensor.size_bytes() as u64).sum();
            let largest = plan.iter().map(StoredTensor::size_bytes).max().unwrap_or(0) as u64;
            Prefetch::serving(plan, budget_bytes(all_bytes, largest))
        });
    }
}

impl Tensors for PartTensors<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.lie {
            Lie::Ldm(tensors) => tensors.shape(name),
            Lie::Folder(tensors) => tensors.shape(name),
        }
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        self.read_ahead();
        match &self.lie {
            Lie::Ldm(tensors) => tensors.read(name, shape),
            Lie::Folder(tensors) => tensors.read(name, shape),
        }
    }
}

impl Files {
    /// Opens the components of a diffusers folder, with those that a manifest puts elsewhere.
    pub(super) fn open_components(
        folder: &Path,
        family: Family,
        manifest: &Manifest,
    ) -> Result<Self, DiffusionError> {
        let elsewhere = |part: Part| match part {
            Part::Denoiser => manifest.components.transformer.as_ref(),
            Part::TextEncoder2 => manifest.components.text_encoder_2.as_ref(),
            Part::Vae => manifest.vae.as_ref(),
            Part::TextEncoder => None,
        };
        let needed: &[Part] = match family {
            Family::Sd15 => &[Part::Denoiser, Part::Vae, Part::TextEncoder],
            Family::Sdxl | Family::Flux => {
                &[Part::Denoiser, Part::Vae, Part::TextEncoder, Part::TextEncoder2]
            }
        };
        let open = |&part: &Part| {
            let own = folder.join(part.folder_name(family));
            let place = elsewhere(part).cloned().unwrap_or(own);
            let tensors = if place.is_file() {
                FolderTensors::open_file(&place)?
            } else {
                FolderTensors::open(&place)?
            };
            Ok((part, tensors, place))
        };
        let file = manifest.vae.as_ref().filter(|vae| vae.is_file());
        let vae = file.map(|file| LdmVae::open(file).map(Box::new)).transpose()?;
        let in_folders = needed.iter().filter(|part| vae.is_none() || **part != Part::Vae);
        let parts = in_folders.map(open).collect::<Result<_, DiffusionError>>()?;
        Ok(Self::Components { family, parts, vae })
    }

    /// The tensors of a component.
    pub(super) fn part(&self, part: Part) -> Result<PartTensors<'_>, DiffusionError> {
        let absent = || DiffusionError::Unsupported {
            path: self.path().to_owned(),
            found: "a model without all its parts".into(),
            supported: SUPPORTED,
        };
        let lie = match self {
            Self::Checkpoint { file, vae } => match part {
                Part::Denoiser => Lie::Ldm(file.unet()),
                Part::Vae => match vae {
                    Some(vae) => Lie::Folder(vae),
                    None => Lie::Ldm(file.vae()),
                },
                Part::TextEncoder => Lie::Ldm(file.text_encoder()),
                Part::TextEncoder2 => Lie::Ldm(file.text_encoder_2().ok_or_else(absent)?),
            },
            Self::Components { vae: Some(vae), .. } if part == Part::Vae => Lie::Ldm(vae.vae()),
            Self::Components { parts, .. } => {
                let found = parts.iter().find(|(found, ..)| *found == part);
                Lie::Folder(found.map(|(_, tensors, _)| tensors).ok_or_else(absent)?)
            }
        };
        Ok(PartTensors::new(lie, part))
    }

    /// The configuration of a component, if there is one: beside its tensors, or in `folder`.
    pub(super) fn config(&self, part: Part, folder: &Path) -> Option<PathBuf> {
        let family = match self {
            // Both families of single files name their components alike.
            Self::Checkpoint { .. } => Family::Sd15,
            Self::Components { family, .. } => *family,
        };
        let beside = match self {
            Self::Components { parts, .. } => {
                parts.iter().find(|(found, ..)| *found == part).map(|(_, _, place)| place.clone())
            }
            Self::Checkpoint { .. } => None,
        };
        let places = [beside, Some(folder.join(part.folder_name(family)))];
        places
            .into_iter()
            .flatten()
            .map(|place| place.join("config.json"))
            .find(|file| file.is_file())
    }

    /// A path for messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Checkpoint { file, .. } => file.file().path(),
            Self::Components { parts, .. } => {
                parts.first().map_or(Path::new(""), |(_, tensors, _)| tensors.file().path())
            }
        }
    }

    /// The files of all weights, in an order that models of one kind share.
    pub(super) fn weights(&self) -> Vec<&WeightFile> {
        match self {
            Self::Checkpoint { file, vae } => {
                let vae = vae.as_ref().map(FolderTensors::file).or(file.vae_file());
                file.file().files().chain(vae.into_iter().flat_map(Safetensors::files)).collect()
            }
            Self::Components { parts, vae, .. } => {
                let own = parts.iter().flat_map(|(_, tensors, _)| tensors.file().files());
                own.chain(vae.iter().flat_map(|vae| vae.file().files())).collect()
            }
        }
    }

    /// The tensors that loading reads.
    pub(super) fn stored(&self) -> Vec<Stored> {
        match self {
            Self::Checkpoint { file, vae } => {
                let own = file.file().tensors().filter_map(|tensor| {
                    let is_of = |part: &&str| tensor.name().starts_with(part);
                    if ["cond_stage_model.", "conditioner."].iter().any(is_of) {
                        return Some(Stored::of_text(tensor));
                    }
                    is_of(&"model.diffusion_model.").then(|| Stored::of_denoiser(tensor))
                });
                let vae = match vae {
                    Some(vae) => decoder(vae.file()),
                    None => file
                        .vae()
                        .tensors()
                        .filter(|t| is_of_decoder(t.name()))
                        .map(Stored::of_decoder)
                        .collect(),
                };
                own.chain(vae).collect()
            }
            Self::Components { parts, vae, .. } => {
                let of_part = |(part, tensors, _): &(Part, FolderTensors, PathBuf)| match part {
                    Part::Vae => decoder(tensors.file()),
                    Part::TextEncoder | Part::TextEncoder2 => {
                        tensors.file().tensors().map(Stored::of_text).collect()
                    }
                    Part::Denoiser => tensors.file().tensors().map(Stored::of_denoiser).collect(),
                };
                let own = vae.iter().flat_map(|vae| vae.vae().tensors().collect::<Vec<_>>());
                let own = own.filter(|tensor| is_of_decoder(tensor.name())).map(Stored::of_decoder);
                parts.iter().flat_map(of_part).chain(own).collect()
            }
        }
    }

    /// How most of the weights are stored.
    pub(super) fn storage(&self) -> &'static str {
        let mut sizes: Vec<(&'static str, u64)> = Vec::new();
        for tensor in self.stored() {
            let name = tensor.format();
            match sizes.iter_mut().find(|(known, _)| *known == name) {
                // Packed weights stand for more than their bytes.
                Some((_, count)) => *count += tensor.weights(),
                None => sizes.push((name, tensor.weights())),
            }
        }
        sizes.into_iter().max_by_key(|(_, count)| *count).map_or("f16", |(name, _)| name)
    }
}

/// Whether a tensor belongs to the half of an autoencoder that makes pictures.
fn is_of_decoder(name: &str) -> bool {
    let name = name.strip_prefix("first_stage_model.").unwrap_or(name);
    name.starts_with("decoder.") || name.starts_with("post_quant_conv.")
}

fn decoder(file: &Safetensors) -> Vec<Stored> {
    let tensors = file.tensors().filter(|tensor| is_of_decoder(tensor.name()));
    tensors.map(Stored::of_decoder).collect()
}

/// A tensor as it is stored, for what is planned.
pub(super) struct Stored {
    pub(super) size_bytes: u64,
    dtype: DType,
    count: u64,
    role: Role,
    /// Whether it belongs to a text encoder.
    pub(super) reads_prompts: bool,
    /// Whether it belongs to the decoder.
    pub(super) decodes: bool,
    /// Of the layer of the denoiser that it belongs to, if that can stream.
    pub(super) turn: Option<Turn>,
}

/// What a tensor is to the layer it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A weight as it is.
    Plain,
    /// Pairs of 4-bit numbers.
    Nf4,
    Hqq,
    /// What packed numbers are multiplied with, f32 in memory.
    Scales,
    /// Read, and not kept.
    Described,
}

impl Stored {
    fn of(tensor: &StoredTensor) -> Self {
        let name = tensor.name();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let role = if ends(&[".W_q"]) {
            Role::Hqq
        } else if ends(&[".weight"]) && tensor.dtype() == DType::U8 {
            Role::Nf4
        } else if ends(&[".absmax", ".scale", ".zero"]) {
            Role::Scales
        } else if ends(&[".quant_map", ".nested_quant_map", ".nested_absmax"]) {
            // What scales are unpacked with while they are read.
            Role::Described
        } else if tensor.dtype().is_float() {
            Role::Plain
        } else {
            Role::Described
        };
        let count = tensor.shape().iter().product::<usize>() as u64;
        let size_bytes = tensor.size_bytes() as u64;
        let (reads_prompts, decodes, turn) = (false, false, None);
        Self { size_bytes, dtype: tensor.dtype(), count, role, reads_prompts, decodes, turn }
    }

    /// A tensor of the denoiser.
    fn of_denoiser(tensor: &StoredTensor) -> Self {
        Self { turn: memory::turn(tensor.name()), ..Self::of(tensor) }
    }

    /// A tensor of the decoder.
    fn of_decoder(tensor: &StoredTensor) -> Self {
        Self { decodes: true, ..Self::of(tensor) }
    }

    /// A tensor of a text encoder.
    fn of_text(tensor: &StoredTensor) -> Self {
        Self { reads_prompts: true, ..Self::of(tensor) }
    }

    /// Memory it takes once loaded.
    pub(super) fn kept_bytes(&self, precision: Precision) -> u64 {
        match (self.role, precision) {
            (Role::Described, _) | (Role::Scales, Precision::Full) => 0,
            (Role::Nf4 | Role::Hqq, Precision::Full) => 8 * self.count,
            (Role::Nf4 | Role::Hqq, _) => self.count,
            (Role::Plain, Precision::Stored) => self.size_bytes,
            (Role::Plain, Precision::Half | Precision::HalfWide) => 2 * self.count,
            (Role::Scales, _) | (Role::Plain, Precision::Full) => 4 * self.count,
        }
    }

    /// Whether its weights are unpacked when they are used.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.role, Role::Nf4 | Role::Hqq)
    }

    /// Weights that it stands for.
    fn weights(&self) -> u64 {
        match self.role {
            Role::Plain => self.count,
            Role::Nf4 | Role::Hqq => 2 * self.count,
            Role::Scales | Role::Described => 0,
        }
    }

    /// Where it belongs, and how it is stored.
    pub(super) fn kind(&self) -> (bool, bool, &'static str) {
        (self.reads_prompts, self.decodes, self.format())
    }

    fn format(&self) -> &'static str {
        match self.role {
            Role::Nf4 => "nf4",
            Role::Hqq => "hqq",
            _ => match self.dtype {
                DType::F32 => "f32",
                DType::BF16 => "bf16",
                _ => "f16",
            },
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use burn::tensor::Device;

    use super::*;
    use crate::ImageSource;
    use crate::checkpoint::{Component, Loading};
    use crate::clip::ClipTextEncoder;
    use crate::flux::FluxTransformer;
    use crate::memory::Dims;
    use crate::t5::T5Encoder;
    use crate::unet::Unet;
    use crate::vae::Vae;

    /// Notes what is asked for.
    struct Noted<'a> {
        tensors: PartTensors<'a>,
        asked: RefCell<Vec<String>>,
    }

    impl Tensors for Noted<'_> {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.tensors.shape(name)
        }

        fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
            self.asked.borrow_mut().push(name.to_owned());
            self.tensors.read(name, shape)
        }
    }

    type Load<'a> = &'a dyn Fn(&Component<'_>) -> Result<(), DiffusionError>;

    /// Most tensors are asked for when the readers have them: each soon behind the one planned before it.
    #[test]
    fn networks_ask_for_tensors_nearly_as_they_are_planned() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let source = ImageSource::open(&fixtures.join("flux")).unwrap();
        let sdxl = ImageSource::open(&fixtures.join("sd/sdxl")).unwrap();
        let device = Device::flex();
        let loading = Loading::quiet(&device, Precision::Stored);
        let Dims::Flux { text, t5, transformer, vae } = source.dims() else { panic!("no Flux") };
        let Dims::Sdxl { unet, .. } = sdxl.dims() else { panic!("no SDXL") };
        let cases: [(&ImageSource, Part, Load<'_>); 5] = [
            (&source, Part::Denoiser, &|c| FluxTransformer::load(c, transformer).map(drop)),
            (&source, Part::TextEncoder, &|c| ClipTextEncoder::load(c, text).map(drop)),
            (&source, Part::TextEncoder2, &|c| T5Encoder::load(c, t5).map(drop)),
            (&source, Part::Vae, &|c| Vae::load_decoder(c, vae).map(drop)),
            (&sdxl, Part::Denoiser, &|c| Unet::load(c, unet).map(drop)),
        ];
        for (source, part, load) in cases {
            let tensors = source.files.part(part).unwrap();
            assert!(tensors.ahead.get().is_none(), "before anything is read");
            let plan = tensors.plan();
            let noted = Noted { tensors, asked: RefCell::default() };
            load(&Component::new(&noted, &loading)).unwrap();
            assert!(noted.tensors.ahead.get().is_some());
            let asked = noted.asked.into_inner();
            let Lie::Folder(_) = noted.tensors.lie else { continue };
            let places: HashMap<&str, usize> =
                plan.iter().enumerate().map(|(place, tensor)| (tensor.name(), place)).collect();
            let near = asked.iter().enumerate().filter(|(at, name)| {
                places.get(name.as_str()).is_some_and(|place| place.abs_diff(*at) <= 40)
            });
            let share = near.count() as f64 / asked.len() as f64;
            assert!(share > 0.9, "{part:?}: {share} of {}", asked.len());
        }
    }
}
