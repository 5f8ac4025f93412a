//! Tests that drive the real program from outside.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;
mod encrypted;
mod kill;
mod openai;
mod practice;
mod program;
