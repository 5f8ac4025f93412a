//! Reads model weights: safetensors (one file or shards) and GGUF, mapped and never copied whole.
//!
//! Reading order: [`dtype`] (how numbers are stored), [`tensor`] (a view of one stored tensor),
//! [`safetensors`] and [`gguf`] (the two containers), [`file`] (the one home of mmap), [`error`].
//!
//! A file is hostile until its header has been validated: counts, lengths, offsets and nesting are
//! checked against the file's real size before anything is allocated or sliced.

pub mod dtype;
pub mod error;
pub mod file;
pub mod gguf;
pub mod safetensors;
pub mod tensor;

pub use dtype::DType;
pub use error::WeightsError;
pub use gguf::Gguf;
pub use safetensors::Safetensors;
pub use tensor::TensorView;
