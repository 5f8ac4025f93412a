//! What can go wrong while a picture is made.

use std::path::PathBuf;

use neurino_nn::NnError;
use neurino_weights::WeightsError;

use crate::scheduler::SchedulerError;

/// Why a model cannot be loaded or a picture not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// The files of the model.
    #[error("the model's weights cannot be read")]
    Weights(#[from] WeightsError),
    /// A configuration file that is damaged or describes something this build does not know.
    #[error("`{}` {problem}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, as a predicate: "has no field `x`".
        problem: String,
    },
    /// A file or folder that is no image model this build knows.
    #[error("`{}` is {found}; supported are {supported}", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What it seems to be.
        found: String,
        /// What would be understood.
        supported: &'static str,
    },
    /// The request does not suit this model.
    #[error("`{field}` {rule}")]
    InvalidRequest {
        /// The field, as the API spells it.
        field: &'static str,
        /// The rule it broke.
        rule: String,
    },
    /// A prompt that cannot be read.
    #[error("the prompt cannot be turned into tokens: {0}")]
    Tokenizer(String),
    /// The device failed, or ran out of memory.
    #[error("the device failed")]
    Nn(#[from] NnError),
    /// The noise schedule.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// A LoRA that cannot be used.
    #[error(transparent)]
    Lora(#[from] crate::lora::LoraError),
    /// The model's numbers overflowed on their way to the picture.
    #[error("the model computed values that are no numbers; its files may be damaged")]
    NotFinite,
    /// A picture's file that is no picture of ours.
    #[error("the picture cannot be read: {found}")]
    Png {
        /// What was found.
        found: String,
    },
    /// Loading was given up because nobody wants the model any more.
    #[error("loading was cancelled")]
    Cancelled,
}
