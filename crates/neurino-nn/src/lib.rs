//! Layers that models share and burn lacks, or has in a form that does not fit them.
//!
//! Reading order for language models: [`linear`] and [`embedding`] (weights, dense or packed),
//! [`rms_norm`], [`rotary`], [`paged`], [`attention`], [`choice`], [`experts`]; then [`quant`], the packed weights. What the CPU
//! computes is in `cpu`, `dense`, `rows` and `quant::kernel`, over the vectors of `simd`.
//!
//! For image models: [`affine`], [`conv`], [`norm`], [`attention::full`], [`activation`], [`resize`];
//! then `panels`, the product that [`affine`] and [`conv`] share on the CPU, and `elementwise`.
//!
//! For the hosts of both: [`device`], what goes to a device and comes back from it, and [`fence`], how far it
//! has come.
//!
//! Shapes are written `[outermost, .., innermost]`. Activations are f32; weights and the cache may
//! be narrower.

pub mod activation;
pub mod affine;
pub mod attention;
pub mod choice;
pub mod conv;
mod cpu;
#[cfg(feature = "kernels")]
pub mod cuda;
mod dense;
pub mod device;
mod elementwise;
pub mod embedding;
pub mod error;
pub mod experts;
pub mod fence;
#[cfg(any(test, feature = "kernels"))]
mod groups;
pub mod launches;
pub mod linear;
pub mod norm;
pub mod paged;
mod panels;
pub mod quant;
pub mod resize;
pub mod rms_norm;
pub mod rotary;
mod rows;
mod simd;

pub use activation::swiglu;
pub use affine::{Affine, LowRank};
pub use conv::{Conv2d, ConvLowRank, Padding};
pub use embedding::Embedding;
pub use error::NnError;
pub use fence::Fence;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm};
pub use paged::PagedKvCache;
pub use rms_norm::RmsNorm;
pub use rotary::RotaryEmbedding;
