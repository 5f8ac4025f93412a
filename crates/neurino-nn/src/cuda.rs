//! Layers on NVIDIA cards, with the kernels of `neurino-kernels` where a shape has one.
//!
//! [`dense`] and [`quant`] multiply, on tensor cores where [`tiles`] found them right, [`kv`] keeps keys and values, [`norm`] normalises.

pub mod dense;
pub mod kv;
pub mod norm;
pub mod quant;
pub mod tiles;

pub use kv::CudaKv;
pub use quant::CudaMatrix;
