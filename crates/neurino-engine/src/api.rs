//! The engine's contract.

use std::path::PathBuf;

use async_trait::async_trait;
use neurino_core::{JobOutput, JobSpec, ModelId, TextDelta};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A verified model on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its id in the catalogue.
    pub id: ModelId,
    /// A GGUF file, or a Hugging Face folder (config.json, safetensors, tokenizer.json).
    pub path: PathBuf,
}

/// Which device computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The first NVIDIA card if this build and this machine have one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA card by index.
    Cuda(u32),
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Its id.
    pub id: ModelId,
    /// The architecture, as the file names it, for example `llama`.
    pub arch: String,
    /// The device, for people, for example `CPU (2 threads)`.
    pub device: String,
    /// Longest sequence, prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// Jobs it computes at once; more wait inside the engine. At least 1.
    pub slots: u32,
    /// Memory its weights take, in bytes.
    pub weights_bytes: u64,
    /// How long loading took, in milliseconds.
    pub load_ms: u64,
}

/// What the engine does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EngineStatus {
    /// No model in memory.
    Idle,
    /// A model is being loaded.
    Loading {
        /// The model.
        model: ModelId,
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
    /// The prompt is being read.
    Started {
        /// Its length in tokens.
        prompt_tokens: u32,
    },
    /// More of an answer. Its text may be empty while a stop string or a character is incomplete.
    Delta {
        /// What was added to which answer since its last event.
        delta: TextDelta,
        /// Tokens generated so far, in all answers.
        tokens: u32,
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
    /// The job was cancelled.
    Cancelled,
    /// The engine's process ended; the job can be tried again.
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

/// Something that loads one model at a time and runs jobs on it.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Loads a model, replacing the one in memory. Loading the loaded model again is free.
    ///
    /// # Errors
    /// `ModelUnreadable`, `NoSuchDevice`, `OutOfMemory`, `Crashed`.
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError>;

    /// Starts a job on the loaded model and returns its events at once. Cancelling (or dropping the
    /// stream) ends it within one step, with `Failed { Cancelled }` as the last event.
    ///
    /// # Errors
    /// `ModelNotLoaded`, `Crashed`; everything later arrives as [`JobEvent::Failed`].
    async fn run(&self, job: &JobSpec, cancel: CancellationToken)
    -> Result<JobStream, EngineError>;

    /// Frees the model and its memory. A no-op without one.
    ///
    /// # Errors
    /// `Crashed`.
    async fn unload(&self) -> Result<(), EngineError>;

    /// What the engine does, now and later.
    fn status(&self) -> watch::Receiver<EngineStatus>;
}
