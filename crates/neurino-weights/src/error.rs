//! What can be wrong with a weight file, in words a person can act on.

use std::io;
use std::path::PathBuf;

/// Why weights could not be read. Every message names the file and a way out.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("cannot read {}; check that it exists and that you may read it", file.display())]
    Unreadable {
        /// The file asked for.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file ends before what its header announces.
    #[error("{} is incomplete: it has {size_bytes} bytes and should have {expected_bytes}; download the model again", file.display())]
    Truncated {
        /// The short file.
        file: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The least size its header asks for.
        expected_bytes: u64,
    },
    /// The part of the file that describes its tensors makes no sense.
    #[error("{} is damaged ({reason}); download the model again", file.display())]
    CorruptHeader {
        /// The damaged file.
        file: PathBuf,
        /// What was found, as a fragment.
        reason: String,
    },
    /// The file is a version of its format that this build does not know.
    #[error("{} has format version {version}; this build reads GGUF 2 and 3, so convert the file or get another copy", file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// The version it states.
        version: u32,
    },
    /// The index names a shard that is not beside it.
    #[error("{} is missing although {} names it; download the model again", shard.display(), index.display())]
    MissingShard {
        /// The shard that should be there.
        shard: PathBuf,
        /// The index file.
        index: PathBuf,
    },
    /// The file was written to, or cut short, after it had been opened.
    #[error("{} changed while it was read; close the program that writes it, or download the model again", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Reading was given up because the caller asked for it.
    #[error("reading {} was stopped; start it again when you want the model", file.display())]
    Stopped {
        /// The file that would have been read next.
        file: PathBuf,
    },
    /// A folder without any weights.
    #[error("{} holds no model.safetensors and no model.safetensors.index.json; point to the model's folder or download it again", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// The model needs a tensor that the file lacks.
    #[error("{} has no tensor `{tensor}`; the file belongs to another model or is incomplete, download the model again", file.display())]
    TensorAbsent {
        /// The file or folder searched.
        file: PathBuf,
        /// The checkpoint's name of the tensor.
        tensor: String,
    },
    /// A tensor has other dimensions than the model's configuration says.
    #[error("tensor `{tensor}` in {} has shape {found:?} where the model's configuration needs {expected:?}; files of two models may be mixed, download the model again", file.display())]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The checkpoint's name of the tensor.
        tensor: String,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A tensor is stored in a number format that this build cannot read.
    #[error("tensor `{tensor}` in {} is stored as {dtype}, which this build cannot read; choose a copy of the model in {}", file.display(), crate::DType::READABLE)]
    UnsupportedDType {
        /// The file.
        file: PathBuf,
        /// The checkpoint's name of the tensor.
        tensor: String,
        /// The format's name.
        dtype: String,
    },
    /// A tensor's values, or those of the tensors beside it, make no sense together.
    #[error("tensor `{tensor}` in {} is damaged ({reason}); download the model again", file.display())]
    BadTensor {
        /// The file.
        file: PathBuf,
        /// The checkpoint's name of the tensor.
        tensor: String,
        /// What was found, as a fragment.
        reason: String,
    },
    /// The description of a model's quantisation makes no sense or asks for what is not here.
    #[error("{} describes a quantisation that this build cannot read ({reason}); choose a copy of the model in GPTQ with 2, 4 or 8 bits, in GGUF, or unquantised", file.display())]
    UnsupportedQuantization {
        /// The file with the description.
        file: PathBuf,
        /// What was found, as a fragment.
        reason: String,
    },
    /// GGUF metadata lacks a value or holds it in another type.
    #[error("the metadata `{key}` of {} is missing or is not {expected}; get another copy of the model", file.display())]
    BadMetadata {
        /// The file.
        file: PathBuf,
        /// The metadata key.
        key: String,
        /// What was needed, as a noun phrase.
        expected: &'static str,
    },
}
