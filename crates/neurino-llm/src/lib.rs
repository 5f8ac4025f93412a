//! Language models: where their parts come from ([`source`]), architectures ([`models`]), and what
//! turns a conversation into tokens and back.
//!
//! Reading order: `source`, `config`, `model`, `models`, then `tokenizer`, `chat`, `sampler`,
//! `stop`, `generate`.
