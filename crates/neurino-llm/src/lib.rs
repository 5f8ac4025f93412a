//! Language models: where their parts come from ([`source`]), architectures ([`models`]), and what
//! turns a conversation into tokens and back.
//!
//! Reading order: `source`, `config`, `model`, `models`, then `tokenizer`, `chat`, `sampler`,
//! `stop`, `tools`, `guide`, `serving`, `self_check`.

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod guide;
pub mod model;
pub mod models;
mod python_json;
pub mod sampler;
pub mod self_check;
pub mod serving;
pub mod source;
pub mod stop;
pub mod tokenizer;
pub mod tools;

pub use chat::ChatTemplate;
pub use error::LlmError;
pub use guide::{Guide, GuideError};
pub use model::LanguageModel;
pub use serving::Runner;
pub use source::{ModelArch, ModelSource, TokenizerSource};
pub use stop::StopMatcher;
pub use tokenizer::{TextStream, Tokenizer, TokenizerError};
pub use tools::{TextPiece, ToolStream, ToolSyntax};
