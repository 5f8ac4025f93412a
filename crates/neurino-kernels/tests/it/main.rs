//! Kernels against their oracles, on CubeCL's CPU runtime, or on a card (`NEURINO_TEST_DEVICE=cuda`
//! in a build with the feature `cuda-runtime`).
#![cfg(feature = "cpu-runtime")]
#![expect(
    clippy::unwrap_used,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test; equality is meant; the assembler's report is shown"
)]

mod experts;
mod layer;
mod math;
mod matvec;
mod picture;
mod product;
mod ptx;
mod sample;
mod step;
mod support;
