//! Reads model weights: safetensors (one file or shards) and GGUF, and the quantised forms that
//! tools store in them. No file is mapped and none is held whole.
//!
//! Reading order: [`dtype`] and `blocks` (how numbers are stored), [`file`] (positioned reads),
//! [`tensor`] (where a tensor lies, its bytes, a view of them), [`convert`] (matrices to another
//! format), [`safetensors`] and [`gguf`] (the two
//! containers), [`prefetch`] (reads ahead with several threads), [`gptq`], [`nf4`] and [`hqq`] (weights
//! that several tensors describe), [`repack`] (quantises while loading), [`error`].
//!
//! A file is hostile until its header has been validated: counts, lengths, offsets and nesting are
//! checked against the file's real size before anything is allocated or read.

mod blocks;
pub mod convert;
pub mod dtype;
pub mod error;
pub mod file;
pub mod gguf;
pub mod gptq;
pub mod hqq;
pub mod nf4;
pub mod prefetch;
pub mod repack;
pub mod safetensors;
pub mod tensor;

pub use dtype::DType;
pub use error::WeightsError;
pub use gguf::Gguf;
pub use prefetch::Prefetch;
pub use safetensors::Safetensors;
pub use tensor::{StoredTensor, TensorData, TensorView};
