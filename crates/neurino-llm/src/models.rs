//! One file for each architecture; each reads like its paper.

pub mod llama;
