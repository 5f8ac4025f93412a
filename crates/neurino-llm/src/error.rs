//! Why a model could not be opened, loaded or run.

use std::path::PathBuf;

use neurino_nn::NnError;
use neurino_weights::WeightsError;

/// Why a model could not be opened, loaded or run. Every message names what is wrong and a way out.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A layer refused or the device failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// Neither a GGUF file nor a folder with `config.json`.
    #[error("{} is no language model: it is neither a GGUF file nor a folder with config.json; point to the model's file or folder", path.display())]
    NotAModel {
        /// What was opened.
        path: PathBuf,
    },
    /// Something that is known, but no language model that this build reads.
    #[error("{} is {found}; {way_out}", path.display())]
    NotALanguageModel {
        /// What was opened.
        path: PathBuf,
        /// What it is, as a noun phrase.
        found: &'static str,
        /// What to do instead.
        way_out: &'static str,
    },
    /// A file beside the weights cannot be read.
    #[error("cannot read {}; check that you may read it or download the model again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The model's configuration makes no sense.
    #[error("the configuration in {} is damaged ({reason}); download the model again", path.display())]
    BadConfig {
        /// The file that holds it.
        path: PathBuf,
        /// What was found, as a fragment.
        reason: String,
    },
    /// The architecture is not one of ours.
    #[error("{} is a `{found}` model, which this build cannot run; choose a model of these kinds: {supported}", path.display())]
    UnsupportedArchitecture {
        /// What was opened.
        path: PathBuf,
        /// The architecture's name in the metadata.
        found: String,
        /// The names that would work.
        supported: &'static str,
    },
    /// The architecture is ours, but the checkpoint uses a variant that is not.
    #[error("{} needs {feature}, which this build does not have; choose another model", path.display())]
    UnsupportedFeature {
        /// What was opened.
        path: PathBuf,
        /// The missing piece, as a noun phrase.
        feature: String,
    },
    /// The model comes without its tokenizer.
    #[error("{} has no tokenizer ({missing} is missing); download the model again with all of its files", path.display())]
    TokenizerMissing {
        /// What was opened.
        path: PathBuf,
        /// The file or metadata that should be there.
        missing: &'static str,
    },
    /// Layers were given to devices wrongly: a fault of the caller.
    #[error(
        "{placed} layers were given to devices and the model has {layers}; this is a fault in the program"
    )]
    BadPlacement {
        /// Layers that have a device.
        placed: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A step without any token.
    #[error("there is no text to continue; give at least one token")]
    NoTokens,
    /// A token that is not in the vocabulary.
    #[error(
        "token {token} is outside the model's vocabulary of {vocab_size}; the tokenizer belongs to another model"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Tokens the model knows.
        vocab_size: usize,
    },
}
