//! One file for each architecture, each from block to layer like its paper; and what they share:
//! [`decoder`] (the frame around the blocks), [`attention`], [`layers`] (where layers come from).

pub mod attention;
pub mod decoder;
pub mod layers;
pub mod llama;
pub mod mistral;
pub mod mixtral;
pub mod random;
#[cfg(test)]
mod tests;
