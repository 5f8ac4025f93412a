//! Language models: where their parts come from ([`source`]), architectures ([`models`]), and what
//! turns a conversation into tokens and back.
//!
//! Reading order: `source`, `config`, `model`, `models`, then `tokenizer`, `chat`, `sampler`,
//! `stop`, `generate`.

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod generate;
pub mod model;
pub mod models;
pub mod sampler;
pub mod source;
pub mod stop;
pub mod tokenizer;

pub use chat::ChatTemplate;
pub use error::LlmError;
pub use model::LanguageModel;
pub use source::{ModelArch, ModelSource, TokenizerSource};
pub use tokenizer::Tokenizer;
