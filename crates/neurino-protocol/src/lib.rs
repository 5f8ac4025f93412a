//! Wire types: what travels between node and coordinator ([`node`]), between the window (or a
//! remote viewer) and the application ([`app`], [`earnings`]), and how errors look on every edge ([`error`]).
//!
//! The TypeScript types of the web UI are generated from here (`cargo xtask gen`).

pub mod app;
pub mod earnings;
pub mod error;
pub mod node;

pub use error::{ErrorBody, ErrorCode};
