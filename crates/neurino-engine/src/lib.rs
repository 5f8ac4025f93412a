//! Loads and runs models. burn stops here: in go a job and a verified model folder, out come text
//! and numbers.
//!
//! [`Engine`] is the contract. [`LocalEngine`] keeps it with a thread of this process, and
//! [`ProcessEngine`] with a child process of the same program, so that a driver reset
//! or a kernel fault cannot take the window or the ledger down. Reading order: [`api`],
//! [`device`], [`local`] with its `queue` and `worker`, then [`frame`], [`child`], [`process`] with its
//! `supervisor` and `link`.

pub mod api;
pub mod bench;
pub mod child;
pub mod device;
mod fault;
pub mod frame;
pub mod inspect;
mod link;
pub mod local;
pub mod memory;
mod outlet;
pub mod process;
mod queue;
mod serving;
pub mod soak;
mod supervisor;
mod warm_up;
mod worker;

pub use api::{
    DeviceChoice, Engine, EngineCounters, EngineError, EngineErrorCode, EngineStatus, JobEvent,
    JobStream, LoadedModel, MemoryUse, ModelRef,
};
pub use local::LocalEngine;
pub use process::{ProcessEngine, ProcessEngineConfig, ProcessLimits};
