//! Why a tokenizer cannot be used.

use std::path::PathBuf;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder holds none of the files a tokenizer may come in.
    #[error(
        "{} has no tokenizer (tokenizer.json, tokenizer.model, spiece.model, or vocab.json with \
         merges.txt); download the model again with all of its files",
        folder.display()
    )]
    Missing {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A file is missing or unreadable.
    #[error("cannot read {}; check that you may read it or download the model again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is no tokenizer this build understands; download the model again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The vocabulary is of a kind this build does not have.
    #[error(
        "the tokenizer is of the kind `{found}`, which this build does not have; choose a model with one of these: {supported}"
    )]
    Unsupported {
        /// What the files say.
        found: String,
        /// The kinds that would work.
        supported: &'static str,
    },
    /// The vocabulary contradicts itself.
    #[error("the vocabulary is damaged ({0}); download the model again")]
    Damaged(String),
    /// A text could not be turned into tokens, or tokens into text.
    #[error("the tokenizer failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TokenizerError {
    /// A vocabulary that the tokenizer library refuses.
    pub(super) fn damaged(reason: impl std::fmt::Display) -> Self {
        Self::Damaged(reason.to_string())
    }
}
