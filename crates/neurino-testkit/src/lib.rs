//! What tests share: an engine that answers from a script.
//!
//! Reading order: [`script`] (what one job does), then [`engine`] (the [`ScriptedEngine`]);
//! [`picture`] makes the pictures of image jobs.

pub mod engine;
pub mod picture;
pub mod script;

pub use engine::ScriptedEngine;
pub use script::{Ending, Piece, Script};
