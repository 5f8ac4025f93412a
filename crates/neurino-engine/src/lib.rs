//! Loads and runs models. burn stops here: in go a job and a verified model folder, out come text
//! and numbers.
//!
//! and [`ProcessEngine`] (the same, in a child process of the same program, so that a driver reset
//! or a kernel fault cannot take the window or the ledger down). Reading order: [`api`].

pub mod api;

pub use api::{
    DeviceChoice, Engine, EngineError, EngineErrorCode, EngineStatus, JobEvent, JobStream,
    LoadedModel, ModelRef,
};
