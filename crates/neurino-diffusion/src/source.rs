//! What a file or folder is: a checkpoint in one file, a diffusers folder, or a folder that says in its
//! `model.toml` what belongs together (`docs/ADDING_A_MODEL.md`). Opening reads headers and
//! configurations only.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurino_llm::Tokenizer;
use neurino_nn::quant::UNPACKING_BYTES;
use neurino_weights::Safetensors;
use neurino_weights::file::WeightFile;
use serde::Deserialize;

use crate::DiffusionError;
use crate::checkpoint::folder::FolderTensors;
use crate::checkpoint::kept::{Kept, KeptTensors};
use crate::checkpoint::ldm::{LdmFamily, LdmTensors};
use crate::checkpoint::{Component, Loading, Precision, Tensors};
use crate::clip::{ClipConfig, ClipKind, ClipTextEncoder, ClipTokenizer};
use crate::flux::{FluxConfig, FluxTransformer};
use crate::lora::Lora;
use crate::memory::{Dims, ImageMemory, Layers, Turn};
use crate::pipeline::{Family, LoraFile, LoraFiles, Pipeline, Residence};
use crate::scheduler::{FlowShift, Method};
use crate::t5::{T5Config, T5Encoder};
use crate::unet::{Unet, UnetConfig};
use crate::vae::{LatentScaling, Vae, VaeConfig};

pub(crate) mod assembly;
mod manifest;
mod parts;

use assembly::{Assembly, Visitors, Vocabularies};
use manifest::{Manifest, Schedule};
use parts::{Files, Part, Stored};

/// What this build reads, for messages.
const SUPPORTED: &str = "checkpoints of Stable Diffusion 1.x or SDXL in one safetensors file, and \
                         diffusers folders of them and of FLUX.1";

/// An image model on disk.
#[derive(Debug)]
pub struct ImageSource {
    family: Family,
    /// Where configurations and vocabularies lie, if anywhere.
    folder: PathBuf,
    files: Files,
    loras: Vec<LoraFile>,
    /// SHA-256 of files, where somebody vouches for them.
    digests: BTreeMap<PathBuf, String>,
    dims: Dims,
    /// Instead of the network's.
    method: Option<Method>,
    /// Of Flux: how its noise levels are shifted.
    shift: FlowShift,
}

/// `model_index.json`.
#[derive(Deserialize)]
struct Index {
    #[serde(rename = "_class_name")]
    class_name: String,
}

impl ImageSource {
    /// Whether a path looks like an image model rather than a language model, by names alone: whoever
    /// opens it then hears what is wrong with it in the words of this engine.
    pub fn is_image_model(path: &Path) -> bool {
        let is_checkpoint = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("safetensors" | "ckpt"))
        };
        if !path.is_dir() {
            return is_checkpoint(path);
        }
        if path.join("model_index.json").is_file() || Manifest::is_in(path) {
            return true;
        }
        // A language model's folder has a configuration of its own.
        !path.join("config.json").is_file() && checkpoints(path).next().is_some()
    }

    /// Opens a model.
    ///
    /// # Errors
    /// `Unsupported` if it is none that this build knows, `Weights` or `Config` if it is damaged,
    /// `Lora`.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let manifest = if path.is_dir() { Manifest::open(path)? } else { Manifest::default() };
        Self::open_as(path, manifest)
    }

    /// Opens a model with parts of it taken from elsewhere, as a `model.toml` would name them.
    ///
    /// # Errors
    /// As [`ImageSource::open`].
    pub fn open_with(path: &Path, changes: &Changes) -> Result<Self, DiffusionError> {
        let mut manifest = if path.is_dir() { Manifest::open(path)? } else { Manifest::default() };
        if let Some(vae) = &changes.vae {
            manifest.vae = Some(vae.clone());
        }
        if let Some(transformer) = &changes.transformer {
            manifest.components.transformer = Some(transformer.clone());
        }
        if let Some(encoder) = &changes.text_encoder_2 {
            manifest.components.text_encoder_2 = Some(encoder.clone());
        }
        manifest.loras.extend(changes.loras.iter().cloned());
        Self::open_as(path, manifest)
    }

    fn open_as(path: &Path, manifest: Manifest) -> Result<Self, DiffusionError> {
        let base = manifest.base.clone().unwrap_or_else(|| path.to_owned());
        let (family, files, folder) = if base.is_dir() {
            Self::open_folder(&base, &manifest)?
        } else {
            let (family, files) = open_checkpoint(&base, manifest.vae.as_deref())?;
            (family, files, base.parent().map(Path::to_owned).unwrap_or_default())
        };
        predicts_noise(family, &folder)?;
        let dims = dims(family, &files, &folder)?;
        // Updates of another kind of model are refused before anything is read.
        LoraFiles::open(&manifest.loras, family.low_rank_parts())?;
        let method = method(family, &folder, manifest.schedule)?;
        let (loras, digests) = (manifest.loras, BTreeMap::new());
        let shift = shift(&folder, &dims)?;
        Ok(Self { family, folder, files, loras, digests, dims, method, shift })
    }

    fn open_folder(
        folder: &Path,
        manifest: &Manifest,
    ) -> Result<(Family, Files, PathBuf), DiffusionError> {
        let family = match index(folder)? {
            Some(index) => Some(family(folder, &index)?),
            None => None,
        };
        let has_components = ["unet", "transformer"]
            .iter()
            .any(|name| Safetensors::in_folder(&folder.join(name)).is_some())
            || manifest.components.transformer.is_some();
        match family {
            Some(family) if has_components => {
                let files = Files::open_components(folder, family, manifest)?;
                Ok((family, files, folder.to_owned()))
            }
            _ => {
                let file = only_checkpoint(folder)?;
                let (family, files) = open_checkpoint(&file, manifest.vae.as_deref())?;
                Ok((family, files, folder.to_owned()))
            }
        }
    }

    /// The same with the SHA-256 of files that were found to have it.
    #[must_use]
    pub fn vouched(self, digests: BTreeMap<PathBuf, String>) -> Self {
        Self { digests, ..self }
    }

    /// Its kind.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether only the low-rank updates differ from `other`'s. Composites of one base have their own
    /// names for its files: these are compared by their digests where both are known, else as files.
    pub fn has_base_of(&self, other: &Self) -> bool {
        let is_same = |(own, theirs): (&WeightFile, &WeightFile)| match (
            self.digests.get(own.path()),
            other.digests.get(theirs.path()),
        ) {
            (Some(own), Some(theirs)) => own == theirs,
            _ => own.is_same_as(theirs),
        };
        let (own, theirs) = (self.files.weights(), other.files.weights());
        self.family == other.family
            && self.method == other.method
            && self.shift == other.shift
            && self.dims == other.dims
            && own.len() == theirs.len()
            && own.into_iter().zip(theirs).all(is_same)
            && self.reads_words_as(other)
    }

    /// Whether the vocabularies that lie beside the weights are those of `other`.
    fn reads_words_as(&self, other: &Self) -> bool {
        let equal = |name: &str| {
            let [own, theirs] = [&self.folder, &other.folder].map(|folder| folder.join(name));
            own == theirs || contents(&own) == contents(&theirs)
        };
        ["tokenizer", "tokenizer_2"].into_iter().all(equal)
    }

    /// The low-rank updates that belong to it.
    pub fn loras(&self) -> &[LoraFile] {
        &self.loras
    }

    /// What picture programs call the schedule of its pictures.
    pub fn sampler(&self) -> &'static str {
        match (self.method, self.family) {
            (Some(method), _) => method.sampler(),
            (None, Family::Sd15) => Method::SD15.sampler(),
            (None, Family::Sdxl) => Method::SDXL.sampler(),
            (None, Family::Flux) => "Flow-match Euler",
        }
    }

    /// Bytes that loading reads of the files.
    pub fn read_bytes(&self) -> u64 {
        self.files.stored().iter().map(|tensor| tensor.size_bytes).sum()
    }

    /// How most weights are stored, for example `f16` or `nf4`.
    pub fn storage(&self) -> &'static str {
        self.files.storage()
    }

    /// The shapes and formats of all layers and of the updates of low rank, in words that are the same for
    /// models which are computed with alike, whatever their weights are.
    pub fn layout(&self) -> String {
        let formats: BTreeSet<_> = self.files.stored().iter().map(Stored::kind).collect();
        // One that cannot be opened says so when it is loaded.
        let files = self.loras.iter().filter_map(|lora| Lora::open(&lora.path).ok());
        let mut updates: Vec<String> = files.map(|lora| lora.layout()).collect();
        updates.sort();
        format!("{:?} {formats:?} {updates:?}", self.dims)
    }

    /// What it takes of memory with weights kept in `precision`.
    pub fn memory(&self, precision: Precision) -> ImageMemory {
        let (texts, others): (Vec<_>, Vec<_>) =
            self.files.stored().into_iter().partition(|tensor| tensor.reads_prompts);
        let of_vae = self.dims.vae_precision(precision);
        let kept = |t: &Stored| t.kept_bytes(if t.decodes { of_vae } else { precision });
        let bytes = |tensors: &[Stored]| tensors.iter().map(kept).sum();
        let encoders_bytes: u64 = bytes(&texts);
        let weights_bytes = encoders_bytes + bytes(&others);
        let mut layers = BTreeMap::<Turn, u64>::new();
        for tensor in &others {
            if let Some(turn) = tensor.turn {
                *layers.entry(turn).or_default() += tensor.kept_bytes(precision);
            }
        }
        let layers = Layers::of(&layers.into_values().collect::<Vec<_>>());
        let decoder_bytes = others.iter().filter(|tensor| tensor.decodes).map(kept).sum();
        let memory = ImageMemory::new(weights_bytes, encoders_bytes, self.dims.clone())
            .with_layers(layers)
            .with_decoder(decoder_bytes)
            .with_updates(self.updates_bytes(precision));
        // A CPU unpacks a few kilobytes at a time.
        let unpacks = others.iter().chain(&texts).any(Stored::is_packed);
        let on_card = precision == Precision::Half;
        memory.on_card(on_card).unpacking(if unpacks && on_card { UNPACKING_BYTES } else { 0 })
    }

    /// Memory of its low-rank updates.
    fn updates_bytes(&self, precision: Precision) -> u64 {
        let each = if precision == Precision::Half { 2 } else { 4 };
        // One that cannot be opened says so when it is loaded.
        let files = self.loras.iter().filter_map(|lora| Lora::open(&lora.path).ok());
        each * files.map(|lora| lora.numbers(self.family.low_rank_parts())).sum::<u64>()
    }

    /// Loads it with its low-rank updates.
    ///
    /// # Errors
    /// `Weights`, `Config`, `Tokenizer`, `Lora`; `Cancelled` if `loading` was given up.
    pub fn load(&self, loading: &Loading<'_>) -> Result<Box<dyn Pipeline>, DiffusionError> {
        self.assemble(loading, Brings::default())
    }

    /// Loads it with its low-rank updates, and with its weights where `residence` says.
    ///
    /// # Errors
    /// As [`ImageSource::load`].
    pub fn load_as(
        self: &Arc<Self>,
        loading: &Loading<'_>,
        residence: Residence,
    ) -> Result<Box<dyn Pipeline>, DiffusionError> {
        let again = Visitors {
            source: Arc::clone(self),
            device: loading.device.clone(),
            precision: loading.precision,
            pulse: loading.pulse().clone(),
            kept: self.keeps_encoders(loading).map(Arc::new),
        };
        let visitors = (residence != Residence::Stay).then(|| again.clone());
        let brings = Brings { visitors, again: Some(again), residence };
        if residence == Residence::Stream {
            return self.assemble(&loading.clone().streaming(), brings);
        }
        self.assemble(loading, brings)
    }

    /// Where text encoders are kept that come for each prompt, if the host has the memory for all of them.
    fn keeps_encoders(&self, loading: &Loading<'_>) -> Option<KeptTensors> {
        let stored = self.files.stored();
        let texts = stored.iter().filter(|tensor| tensor.reads_prompts);
        let bytes: u64 = texts.map(|tensor| tensor.size_bytes).sum();
        // Scales of packed weights are wider in memory than in their files.
        let limit_bytes = bytes + bytes / 4;
        (limit_bytes <= loading.host_room_bytes()).then(|| KeptTensors::new(limit_bytes))
    }

    fn assemble(
        &self,
        loading: &Loading<'_>,
        Brings { visitors, again, residence }: Brings,
    ) -> Result<Box<dyn Pipeline>, DiffusionError> {
        let part = |part| self.files.part(part);
        let (denoiser, vae) = (part(Part::Denoiser)?, part(Part::Vae)?);
        let (text_encoder, text_encoder_2) =
            (part(Part::TextEncoder)?, part(Part::TextEncoder2).ok());
        let assembly = Assembly {
            dims: &self.dims,
            loading,
            denoiser: &denoiser,
            vae: &vae,
            text_encoder: &text_encoder,
            text_encoder_2: text_encoder_2.as_ref().map(|tensors| tensors as &dyn Tensors),
            vocabularies: self.vocabularies()?,
            visitors,
            again,
            decoder_visits: residence.decoder_visits(),
            method: self.method,
            shift: self.shift,
        };
        let mut pipeline = assembly.assemble()?;
        if !self.loras.is_empty() {
            pipeline.set_loras(&self.loras)?;
        }
        Ok(pipeline)
    }

    /// The dimensions of its networks.
    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// Loads the UNet alone, without low-rank updates.
    ///
    /// # Errors
    /// As [`ImageSource::load`]; `Unsupported` for a family without one.
    pub fn load_unet(&self, loading: &Loading<'_>) -> Result<Unet, DiffusionError> {
        let (Dims::Sd15 { unet, .. } | Dims::Sdxl { unet, .. }) = &self.dims else {
            return Err(self.lacks("a UNet"));
        };
        Unet::load(&Component::new(&self.files.part(Part::Denoiser)?, loading), unet)
    }

    /// Loads Flux's transformer alone, without low-rank updates.
    ///
    /// # Errors
    /// As [`ImageSource::load_unet`].
    pub fn load_transformer(
        &self,
        loading: &Loading<'_>,
    ) -> Result<FluxTransformer, DiffusionError> {
        let Dims::Flux { transformer, .. } = &self.dims else {
            return Err(self.lacks("a transformer"));
        };
        let tensors = self.files.part(Part::Denoiser)?;
        FluxTransformer::load(&Component::new(&tensors, loading), transformer)
    }

    /// Loads both halves of the autoencoder alone.
    ///
    /// # Errors
    /// As [`ImageSource::load`].
    pub fn load_vae(&self, loading: &Loading<'_>) -> Result<Vae, DiffusionError> {
        Vae::load(&Component::new(&self.files.part(Part::Vae)?, loading), self.dims.vae())
    }

    /// Loads the half of the autoencoder that makes pictures alone.
    ///
    /// # Errors
    /// As [`ImageSource::load`].
    pub fn load_decoder(&self, loading: &Loading<'_>) -> Result<Vae, DiffusionError> {
        Vae::load_decoder(&Component::new(&self.files.part(Part::Vae)?, loading), self.dims.vae())
    }

    /// Loads a text encoder of CLIP alone, the `second` of SDXL if that is asked for.
    ///
    /// # Errors
    /// As [`ImageSource::load_unet`].
    pub fn load_text_encoder(
        &self,
        loading: &Loading<'_>,
        second: bool,
    ) -> Result<ClipTextEncoder, DiffusionError> {
        let (part, config) = match (&self.dims, second) {
            (Dims::Sd15 { text, .. } | Dims::Flux { text, .. }, false) => (Part::TextEncoder, text),
            (Dims::Sdxl { texts, .. }, false) => (Part::TextEncoder, &texts[0]),
            (Dims::Sdxl { texts, .. }, true) => (Part::TextEncoder2, &texts[1]),
            _ => return Err(self.lacks("a second text encoder of CLIP")),
        };
        let tensors = self.files.part(part)?;
        let tensors = self.kept(part, &tensors, loading);
        ClipTextEncoder::load(&Component::new(&tensors, loading), config)
    }

    /// Loads Flux's T5 alone.
    ///
    /// # Errors
    /// As [`ImageSource::load_unet`].
    pub fn load_t5(&self, loading: &Loading<'_>) -> Result<T5Encoder, DiffusionError> {
        let Dims::Flux { t5, .. } = &self.dims else { return Err(self.lacks("T5")) };
        let tensors = self.files.part(Part::TextEncoder2)?;
        let tensors = self.kept(Part::TextEncoder2, &tensors, loading);
        T5Encoder::load(&Component::new(&tensors, loading), t5)
    }

    /// The tensors of a text encoder, of which those that `loading` has kept are not read again.
    fn kept<'a>(&self, part: Part, tensors: &'a dyn Tensors, loading: &'a Loading<'_>) -> Kept<'a> {
        Kept { tensors, component: part.folder_name(self.family), among: loading.kept() }
    }

    fn lacks(&self, what: &str) -> DiffusionError {
        DiffusionError::Unsupported {
            path: self.files.path().to_owned(),
            found: format!("a model without {what}"),
            supported: SUPPORTED,
        }
    }

    fn vocabularies(&self) -> Result<Vocabularies, DiffusionError> {
        let first = self.clip_tokenizer("tokenizer")?;
        Ok(match self.family {
            Family::Sd15 => Vocabularies::Sd15(first),
            Family::Sdxl => Vocabularies::Sdxl([first, self.clip_tokenizer("tokenizer_2")?]),
            Family::Flux => {
                let t5 = Tokenizer::open_folder(&self.folder.join("tokenizer_2"))
                    .map_err(|error| DiffusionError::Tokenizer(error.to_string()))?;
                Vocabularies::Flux(first, t5)
            }
        })
    }

    /// CLIP's vocabulary in the model's folder, or the standard one.
    fn clip_tokenizer(&self, name: &str) -> Result<ClipTokenizer, DiffusionError> {
        let folder = self.folder.join(name);
        if Tokenizer::is_in(&folder) {
            ClipTokenizer::open(&folder)
        } else {
            Ok(ClipTokenizer::standard())
        }
    }
}

/// What of a model is not on the device all the time, and comes from where.
#[derive(Default)]
struct Brings {
    /// Brings text encoders, unless they stay.
    visitors: Option<Visitors>,
    /// Brings a decoder in f32.
    again: Option<Visitors>,
    residence: Residence,
}

/// Parts of a model that are taken from elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// An autoencoder's file or folder.
    pub vae: Option<PathBuf>,
    /// The folder of Flux's denoising network.
    pub transformer: Option<PathBuf>,
    /// The folder of the second text encoder.
    pub text_encoder_2: Option<PathBuf>,
    /// Low-rank updates, beside those that the model names.
    pub loras: Vec<LoraFile>,
}

/// The small files of a folder, by their names; none if there is no folder.
fn contents(folder: &Path) -> BTreeMap<OsString, Option<Vec<u8>>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).ok())).collect()
}

/// Refuses a network that was trained to tell something else than the noise of a picture, which would be
/// taken for noise: whatever schedule is used, the base's own file says what its network tells.
fn predicts_noise(family: Family, folder: &Path) -> Result<(), DiffusionError> {
    #[derive(Deserialize)]
    struct Predicts {
        prediction_type: Option<String>,
    }
    let path = folder.join("scheduler").join("scheduler_config.json");
    if family == Family::Flux || !path.is_file() {
        return Ok(());
    }
    let bad = |problem: String| DiffusionError::Config { file: path.clone(), problem };
    let bytes = std::fs::read(&path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let found: Predicts = serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("is not understood: {error}")))?;
    match found.prediction_type.as_deref() {
        None | Some("epsilon") => Ok(()),
        Some(other) => Err(bad(format!(
            "has `prediction_type` {other}, and this build knows epsilon; take the model's version \
             that predicts noise (epsilon)"
        ))),
    }
}

/// The schedule that a manifest asks for.
fn method(
    family: Family,
    folder: &Path,
    schedule: Option<Schedule>,
) -> Result<Option<Method>, DiffusionError> {
    let Some(schedule) = schedule else { return Ok(None) };
    let file = folder.join("scheduler").join("scheduler_config.json");
    if family == Family::Flux {
        let problem = "asks for a scheduler, and FLUX.1 has but one".to_owned();
        return Err(DiffusionError::Config { file, problem });
    }
    match schedule {
        Schedule::Named(method) => Ok(Some(method)),
        Schedule::OfBase => Method::open(&file).map(Some),
    }
}

/// How the noise levels of a model of Flux are shifted: as its folder says, else as the one of its two
/// releases does that has an input for guidance as it has, or none.
fn shift(folder: &Path, dims: &Dims) -> Result<FlowShift, DiffusionError> {
    let guided = match dims {
        Dims::Flux { transformer, .. } => transformer.guidance_embeds,
        Dims::Sd15 { .. } | Dims::Sdxl { .. } => return Ok(FlowShift::DEV),
    };
    let file = folder.join("scheduler").join("scheduler_config.json");
    if file.is_file() {
        FlowShift::open(&file)
    } else if guided {
        Ok(FlowShift::DEV)
    } else {
        Ok(FlowShift::SCHNELL)
    }
}

/// Reads a folder's `model_index.json`, if it has one.
fn index(folder: &Path) -> Result<Option<Index>, DiffusionError> {
    let file = folder.join("model_index.json");
    if !file.is_file() {
        return Ok(None);
    }
    let bad = |problem: String| DiffusionError::Config { file: file.clone(), problem };
    let bytes = std::fs::read(&file).map_err(|error| bad(format!("cannot be read: {error}")))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| bad(format!("is not understood: {error}")))
}

fn family(folder: &Path, index: &Index) -> Result<Family, DiffusionError> {
    match index.class_name.as_str() {
        "StableDiffusionPipeline" => Ok(Family::Sd15),
        "StableDiffusionXLPipeline" => Ok(Family::Sdxl),
        "FluxPipeline" => Ok(Family::Flux),
        other => Err(DiffusionError::Unsupported {
            path: folder.to_owned(),
            found: format!("a folder of a `{other}`"),
            supported: SUPPORTED,
        }),
    }
}

fn open_checkpoint(path: &Path, vae: Option<&Path>) -> Result<(Family, Files), DiffusionError> {
    let (vae, folder_vae) = match vae {
        Some(vae) if vae.is_dir() => (None, Some(FolderTensors::open(vae)?)),
        Some(vae) => (Some(vae), None),
        None => (None, None),
    };
    let file = LdmTensors::open(path, vae)?;
    if folder_vae.is_none() && !file.has_vae() {
        return Err(DiffusionError::Unsupported {
            path: path.to_owned(),
            found: "a checkpoint without an autoencoder (VAE)".into(),
            supported: "checkpoints that have one, and this one with the file of one: put both into \
                        a folder with a `model.toml` that says `base = \"...\"` and `vae = \"...\"`",
        });
    }
    let family = match file.family() {
        LdmFamily::Sd1 => Family::Sd15,
        LdmFamily::Sdxl => Family::Sdxl,
    };
    Ok((family, Files::Checkpoint { file: Box::new(file), vae: folder_vae }))
}

/// The safetensors files that lie in a folder, in the order of their names.
fn checkpoints(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
        .collect();
    files.sort();
    files.into_iter()
}

/// The one checkpoint in a folder; other files, such as LoRAs, may lie beside it.
fn only_checkpoint(folder: &Path) -> Result<PathBuf, DiffusionError> {
    let unsupported = |found: String| DiffusionError::Unsupported {
        path: folder.to_owned(),
        found,
        supported: SUPPORTED,
    };
    let (mut found, mut refused) = (Vec::new(), None);
    for file in checkpoints(folder) {
        match LdmTensors::open(&file, None) {
            Ok(_) => found.push(file),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match (found.as_slice(), refused) {
        ([_], _) => Ok(found.remove(0)),
        ([], Some(error)) => Err(error),
        ([], None) => Err(unsupported("a folder without a checkpoint".into())),
        (several, _) => {
            let count = several.len();
            Err(unsupported(format!(
                "a folder with {count} checkpoints, of which a `model.toml` would have to name one"
            )))
        }
    }
}

/// The dimensions of all parts: from configurations where there are any, else from the tensors.
fn dims(family: Family, files: &Files, folder: &Path) -> Result<Dims, DiffusionError> {
    let config = |part: Part| files.config(part, folder);
    let bad = |problem: String| DiffusionError::Config { file: files.path().to_owned(), problem };
    // Only shapes are asked for, which need no device.
    let device = burn::tensor::Device::flex();
    let loading = Loading::quiet(&device, Precision::Stored);
    let clip = |part: Part, kind: ClipKind| match config(part) {
        Some(file) => ClipConfig::open(&file),
        None => ClipConfig::infer(&Component::new(&files.part(part)?, &loading), kind),
    };
    let unet = || match config(Part::Denoiser) {
        Some(file) => UnetConfig::open(&file),
        None => UnetConfig::infer(&Component::new(&files.part(Part::Denoiser)?, &loading)),
    };
    let vae = |scaling: LatentScaling| match config(Part::Vae) {
        Some(file) => VaeConfig::open(&file),
        None => VaeConfig::infer(&Component::new(&files.part(Part::Vae)?, &loading), scaling),
    };
    let needed = |part: Part| {
        config(part)
            .ok_or_else(|| bad(format!("has no `{}/config.json`", part.folder_name(family))))
    };
    let dims = match family {
        Family::Sd15 => Dims::Sd15 {
            text: clip(Part::TextEncoder, ClipKind::L)?,
            unet: unet()?,
            vae: vae(LatentScaling::SD15)?,
        },
        Family::Sdxl => Dims::Sdxl {
            texts: [clip(Part::TextEncoder, ClipKind::L)?, clip(Part::TextEncoder2, ClipKind::G)?],
            unet: unet()?,
            vae: vae(LatentScaling::SDXL)?,
        },
        Family::Flux => Dims::Flux {
            text: clip(Part::TextEncoder, ClipKind::L)?,
            t5: T5Config::open(&needed(Part::TextEncoder2)?)?,
            transformer: FluxConfig::open(&needed(Part::Denoiser)?)?,
            vae: vae(LatentScaling::FLUX)?,
        },
    };
    dims.check().map_err(bad)?;
    Ok(dims)
}
