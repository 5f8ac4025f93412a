//! The GPU kernels of the engines, where burn's own operations are not enough.
//!
//! Reading order: [`format`] (how packed weights lie in memory, plain Rust); [`lanes`] and [`math`]
//! (what the kernels share); then one module a kernel: [`matvec`], [`product`], [`norm`], [`rope`],
//! [`attention`], [`gate`], [`experts`], [`sample`], and [`group_norm`] and [`nf4`] for pictures; last [`tensor`], the
//! same on burn's tensors, and [`watch`], which counts launches. Beside each stands its oracle in plain
//! Rust.
//!
//! Written once with CubeCL: on NVIDIA cards they become PTX, in tests they run on CubeCL's CPU
//! runtime. Without the feature `cube` only the memory formats are compiled, so that a build for
//! the CPU alone never sees CubeCL.
//!
//! # The rule every kernel keeps
//! A row's result depends, to the last bit, on that row alone: never on how many rows there are or
//! where it stands among them. So sums run in an order that the shape of the weights fixes, keys
//! are walked in splits at absolute positions, and no kernel is tuned at run time.

pub mod format;

#[cfg(feature = "cube")]
pub mod attention;
#[cfg(feature = "cube")]
pub mod buffer;
#[cfg(feature = "cube")]
pub mod experts;
#[cfg(feature = "cube")]
pub mod gate;
#[cfg(feature = "cube")]
pub mod gpu;
#[cfg(feature = "cube")]
pub mod group_norm;
#[cfg(feature = "cube")]
pub mod keep;
#[cfg(feature = "cube")]
pub mod lanes;
#[cfg(feature = "cube")]
pub mod math;
#[cfg(feature = "cube")]
pub mod matvec;
#[cfg(feature = "cube")]
pub mod nf4;
#[cfg(feature = "cube")]
pub mod norm;
#[cfg(feature = "cube")]
pub mod product;
#[cfg(feature = "cpu-runtime")]
pub mod ptx;
#[cfg(feature = "cube")]
pub mod rope;
#[cfg(feature = "cube")]
pub mod sample;
#[cfg(feature = "cube")]
pub mod step;
#[cfg(feature = "burn")]
pub mod tensor;
#[cfg(feature = "cube")]
pub mod watch;
