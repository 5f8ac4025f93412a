//! The state machine from outside: against a simple model, through a simulated week, case by case.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stderr, reason = "a test says what it measured")]

mod cases;
mod model;
mod walk;
mod week;
mod world;
