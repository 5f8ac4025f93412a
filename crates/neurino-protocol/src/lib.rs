//! Wire types: what travels between node and coordinator ([`node`]), between the window (or a
//! remote viewer) and the application ([`app`], [`control`], [`earnings`], [`wallet`], [`onboarding`]),
//! and how errors look on every edge ([`error`]).
//!
//! The TypeScript types of the web UI are generated from here (`cargo xtask gen`).

pub mod alerts;
pub mod app;
pub mod cards;
pub mod catalogue;
pub mod control;
pub mod data;
pub mod demand;
pub mod earnings;
pub mod error;
pub mod filter;
pub mod hotkey;
pub mod library;
pub mod node;
pub mod notices;
pub mod onboarding;
pub mod own_model;
pub mod power;
pub mod saying;
pub mod secret;
pub mod trust;
pub mod update;
pub mod wallet;

pub use error::{ErrorBody, ErrorCode};
pub use secret::SecretText;
