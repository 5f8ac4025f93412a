//! The engine's contract.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use neurino_core::job::WeightPrecision;
use neurino_core::{ImageStep, JobOutput, JobSpec, ModelId, TextDelta};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A verified model on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its id in the catalogue.
    pub id: ModelId,
    /// A GGUF file, or a Hugging Face folder (config.json, safetensors, tokenizer.json); or an image
    /// model: a checkpoint's file, a diffusers folder, or a folder with a `model.toml`.
    pub path: PathBuf,
    /// SHA-256 of its files by their paths below the folder, in hexadecimal digits, where a manifest
    /// vouches for them. What two models share is known by it.
    #[serde(default)]
    pub sha256: BTreeMap<String, String>,
    /// How a language model's weights are kept, instead of as suits the devices: for measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<WeightPrecision>,
}

impl ModelRef {
    /// A model of whose files nobody says what they are.
    pub fn new(id: ModelId, path: impl Into<PathBuf>) -> Self {
        Self { id, path: path.into(), sha256: BTreeMap::new(), precision: None }
    }
}

/// Which device computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The first NVIDIA card if this build and this machine have one, with the others for models
    /// that do not fit it; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA card by index.
    Cuda(u32),
    /// The first NVIDIA card, with the others for models that do not fit it; never the CPU.
    Cards,
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Its id.
    pub id: ModelId,
    /// The architecture, as the file names it, for example `llama` or `sd15`.
    pub arch: String,
    /// The device, for people, for example `CPU (2 threads)`.
    pub device: String,
    /// Longest sequence, prompt and answer together, in tokens; 0 for an image model.
    pub context_tokens: u32,
    /// Jobs it computes at once; more wait inside the engine. At least 1.
    pub slots: u32,
    /// Memory its weights take, in bytes.
    pub weights_bytes: u64,
    /// What was planned for it, and what it came to.
    #[serde(default)]
    pub memory: MemoryUse,
    /// How long loading took, in milliseconds.
    pub load_ms: u64,
    /// What is known of the pictures of an image model.
    #[serde(default)]
    pub pictures: Option<PictureFacts>,
}

/// What is known of the pictures of a model before the first job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PictureFacts {
    /// How much a picture computes.
    pub work: PictureWork,
    /// How quick it was when it was warmed up; `None` where it was not.
    pub pace: Option<PicturePace>,
}

/// How much a picture computes by its size: TFLOP that every picture takes, for each megapixel, and for
/// each square of it, which attention takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PictureWork {
    /// A forward pass of the network that makes pictures.
    pub pass: [f64; 3],
    /// The decoder.
    pub decoder: [f64; 3],
    /// Whether a step with guidance takes two passes. Networks that were taught it take one.
    pub guided_twice: bool,
}

impl PictureWork {
    /// Of one pass and of the decoder, in TFLOP.
    pub fn tflop(&self, pixels: u32) -> (f64, f64) {
        let megapixels = f64::from(pixels) / 1e6;
        let at = |[fixed, each, square]: [f64; 3]| {
            fixed + each * megapixels + square * megapixels * megapixels
        };
        (at(self.pass), at(self.decoder))
    }
}

/// How long a picture took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PicturePace {
    /// A step, in milliseconds.
    pub step_ms: f64,
    /// Prompt and decoder, in milliseconds.
    pub beside_ms: f64,
    /// Of the picture.
    pub pixels: u32,
    /// Whether its steps were computed with the prompt and without it.
    pub guided: bool,
}

/// Memory of a loaded model, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Weights, cache and activations, as planned before loading.
    pub planned_bytes: u64,
    /// How much more memory the device (or, on a CPU, this process) had in use after loading;
    /// `None` where nobody tells.
    pub measured_bytes: Option<u64>,
    /// The part of the key-value cache.
    pub cache_bytes: u64,
}

/// What the engine does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EngineStatus {
    /// No model in memory.
    Idle,
    /// A model is being loaded. `unload` ends it.
    Loading {
        /// The model.
        model: ModelId,
        /// Bytes of its files read so far.
        #[serde(default)]
        done_bytes: u64,
        /// All bytes to read; 0 until they are counted.
        #[serde(default)]
        total_bytes: u64,
        /// How many of the first steps are done, which a card compiles its kernels for, in percent;
        /// 0 until the weights are there.
        #[serde(default)]
        warm_percent: u8,
    },
    /// A model is in memory.
    Ready(LoadedModel),
    /// The engine's process died and is being started again.
    Restarting {
        /// Starts since the last success.
        attempt: u32,
        /// Milliseconds until the next one.
        wait_ms: u64,
    },
}

/// One step of a running job. `Finished` and `Failed` are last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// The job was taken on; its prompt is read as soon as there is room.
    Started {
        /// The prompt's length in tokens; 0 for a picture, whose prompt is not counted.
        prompt_tokens: u32,
    },
    /// More of an answer. Its text may be empty while a stop string or a character is incomplete.
    Delta {
        /// What was added to which answer since its last event.
        delta: TextDelta,
        /// Tokens generated so far, in all answers.
        tokens: u32,
    },
    /// One more step of a picture. A slow reader misses some, never the newest.
    Step {
        /// Which step, and what there is to see if the job asked for previews.
        step: ImageStep,
    },
    /// Done.
    Finished {
        /// The result.
        output: JobOutput,
    },
    /// Not done.
    Failed {
        /// Why.
        error: EngineError,
    },
}

/// The events of one job, ending with `Finished` or `Failed`. Dropping it cancels the job.
pub type JobStream = mpsc::Receiver<JobEvent>;

/// Why the engine could not do what was asked; crosses the process boundary, so causes are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// For programs.
    pub code: EngineErrorCode,
    /// For people: a lowercase fragment, without the prompt.
    pub message: String,
}

/// Kinds of engine errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineErrorCode {
    /// The model's files are missing, damaged or of an unsupported kind.
    ModelUnreadable,
    /// The job names another model than the loaded one.
    ModelNotLoaded,
    /// Prompt and `max_tokens` exceed the context.
    ContextTooLong,
    /// The request cannot be served whatever the model.
    InvalidRequest,
    /// The device is out of memory; the engine stays usable.
    OutOfMemory,
    /// The requested device does not exist here.
    NoSuchDevice,
    /// The engine's program is gone, or the system lets nobody start it: as after an antivirus program has
    /// taken it away.
    NoProgram,
    /// The job was cancelled, or the load by an unload.
    Cancelled,
    /// The engine has as many jobs as it takes; the job can be tried again.
    Busy,
    /// The engine's process ended, or a fault below it made it load the model again; the job can be
    /// tried again.
    Crashed,
    /// A fault inside.
    Internal,
}

impl EngineError {
    /// An error of a kind, with its words.
    pub fn new(code: EngineErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn not_loaded(model: &ModelId) -> Self {
        Self::new(EngineErrorCode::ModelNotLoaded, format!("model `{model}` is not loaded"))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(EngineErrorCode::Internal, message)
    }

    pub(crate) fn crashed(message: impl Into<String>) -> Self {
        Self::new(EngineErrorCode::Crashed, message)
    }
}

/// The cards of an engine's place, the one that a model goes to first at the front; a model that it does not
/// hold is split over all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceCards(pub Vec<PlaceCard>);

/// A card, or an instance of one, that an engine computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceCard {
    /// Tells the cards of a machine apart. Instances of one card have its number.
    pub number: u8,
    /// Its name, as its maker spells it.
    pub name: String,
    /// Its memory in bytes; zero if unknown.
    pub memory_bytes: u64,
    /// Whether it is an instance: a part with memory and processors of its own (MIG).
    pub instance: bool,
}

/// How much the engine has to do, and with what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineCounters {
    /// Jobs that were taken and have not ended.
    pub jobs: u32,
    /// Sequences in the cache; each answer of a job is one.
    pub sequences_running: u32,
    /// Sequences that wait for room.
    pub sequences_waiting: u32,
    /// Blocks of the cache held by sequences.
    pub blocks_used: u32,
    /// Blocks that nobody holds, kept because a later prompt may begin alike.
    pub blocks_cached: u32,
    /// Empty blocks.
    pub blocks_free: u32,
    /// Blocks that did not have to be computed, since the model was loaded.
    pub prefix_hits: u64,
    /// How often a sequence had to give up its blocks, since the model was loaded.
    pub preemptions: u64,
    /// Steps of work since the engine started.
    pub steps: u64,
}

/// Something that loads a model, or a few, and runs jobs on it, many at once.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Loads a model, replacing the one in memory once its jobs have ended. Loading the loaded model
    /// again is free. An `unload` ends a load that is under way; dropping the future does not.
    ///
    /// # Errors
    /// `ModelUnreadable`, `NoSuchDevice`, `OutOfMemory`, `Cancelled`, `Crashed`.
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError>;

    /// Starts a job on the loaded model and returns its events at once. Cancelling (or dropping the
    /// stream) ends it within one step, with `Failed { Cancelled }` as the last event.
    ///
    /// # Errors
    /// `ModelNotLoaded`, `Busy`, `Crashed`; everything later arrives as [`JobEvent::Failed`].
    async fn run(&self, job: &JobSpec, cancel: CancellationToken)
    -> Result<JobStream, EngineError>;

    /// Frees the model and its memory once its jobs have ended; cancel them to be quick. A no-op
    /// without a model.
    ///
    /// # Errors
    /// `Crashed`.
    async fn unload(&self) -> Result<(), EngineError>;

    /// Models it holds at the same time; a further one replaces the one that was not asked for the
    /// longest.
    fn places(&self) -> usize {
        1
    }

    /// Whether a place may hold a model: some may be kept for text, others for pictures.
    fn fits_place(&self, _model: &ModelId, _place: usize) -> bool {
        true
    }

    /// The cards of each place, where models can be told which place to go to; empty where they cannot, and
    /// the engine chooses.
    fn place_cards(&self) -> Vec<PlaceCards> {
        Vec::new()
    }

    /// Loads a model into one place; as [`Engine::load`] otherwise. Other places may hold the same model.
    ///
    /// # Errors
    /// As [`Engine::load`].
    async fn load_at(&self, _place: usize, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        self.load(model).await
    }

    /// Starts a job on the model in one place; as [`Engine::run`] otherwise.
    ///
    /// # Errors
    /// As [`Engine::run`].
    async fn run_at(
        &self,
        _place: usize,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        self.run(job, cancel).await
    }

    /// Frees one place; as [`Engine::unload`] otherwise.
    ///
    /// # Errors
    /// As [`Engine::unload`].
    async fn unload_at(&self, _place: usize) -> Result<(), EngineError> {
        self.unload().await
    }

    /// The processes that hold its memory, where they are not this one.
    fn process_ids(&self) -> Vec<u32> {
        Vec::new()
    }

    /// What the engine does, now and later.
    fn status(&self) -> watch::Receiver<EngineStatus>;

    /// Counts of this moment: what ended a job before its last event is in them. All zero for an
    /// engine that does not count.
    ///
    /// # Errors
    /// `Crashed`.
    async fn counters(&self) -> Result<EngineCounters, EngineError> {
        Ok(EngineCounters::default())
    }
}
