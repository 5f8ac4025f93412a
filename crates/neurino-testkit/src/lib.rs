//! What tests share: an engine that answers from a script.
//!
//! Reading order: [`script`] (what one job does), then [`engine`] (the [`ScriptedEngine`]).

pub mod engine;
pub mod script;

pub use engine::ScriptedEngine;
pub use script::{Ending, Piece, Script};
