//! Updates of low rank (LoRA) from files, applied to layers while the weights stay.

mod layer;

pub use layer::{Layer, LowRankLayers, Placement};
