//! Why a LoRA cannot be used.

use std::path::PathBuf;

use neurino_weights::WeightsError;

/// Why a LoRA file cannot be read, or does not fit a network.
#[derive(Debug, thiserror::Error)]
pub enum LoraError {
    /// The file cannot be read.
    #[error("the LoRA cannot be read")]
    Weights(#[from] WeightsError),
    /// A file without any update of low rank.
    #[error("`{}` is no LoRA that this build reads: {found}; choose a LoRA in the form of kohya or diffusers (`lora_down` and `lora_up`, or `lora_A` and `lora_B`)", file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// What was found, as a clause.
        found: String,
    },
    /// Tensors that make no update.
    #[error("`{}` is damaged: {problem}; download the LoRA again", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong, as a clause.
        problem: String,
    },
    /// Updates for layers that the network does not have.
    #[error("`{}` was made for another model: {count} of its {total} updates fit no layer ({names}); choose a LoRA for this family of models", file.display())]
    NoSuchLayer {
        /// The file.
        file: PathBuf,
        /// Updates that fit nothing.
        count: usize,
        /// Updates of this network in the file.
        total: usize,
        /// The first of them, by the file's names.
        names: String,
    },
    /// An update of another size than its layer.
    #[error("`{}` was made for another model: its update `{name}` is {found}, the layer is {expected}", file.display())]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The file's name of the update.
        name: String,
        /// Shapes of the factors.
        found: String,
        /// Shape of the layer.
        expected: String,
    },
}
