//! Kernels against their oracles, on CubeCL's CPU runtime, or on a card (`NEURINO_TEST_DEVICE=cuda`
//! in a build with the feature `cuda-runtime`).
#![cfg(feature = "cpu-runtime")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod layer;
mod math;
mod matvec;
mod ptx;
mod sample;
mod step;
mod support;
