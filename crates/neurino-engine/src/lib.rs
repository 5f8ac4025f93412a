//! Loads and runs models. burn stops here: in go a job and a verified model folder, out come text
//! and numbers.
//!
//! [`Engine`] is the contract. [`LocalEngine`] keeps it with a thread of this process, and
//! [`ProcessEngine`] with a child process of the same program, so that a driver reset
//! or a kernel fault cannot take the window or the ledger down; [`MultiEngine`] is several of them.
//! Reading order: [`api`], [`device`], [`memory`], [`local`] with its `queue` and `worker`, `served` with
//! `serving` (text; `preparation` beside it) and `image` (pictures), `warm_up` with [`tuning`] and [`warmed`], then [`frame`], [`child`], [`process`] with its
//! `supervisor` and `link`, [`multi`], [`prefetch`]; at last [`bench`] and [`soak`], which measure all of it.

pub mod api;
pub mod bench;
pub mod child;
pub mod device;
mod fault;
pub mod fit;
pub mod frame;
mod heap;
mod image;
pub mod inspect;
mod link;
pub mod local;
pub mod memory;
pub mod multi;
mod outlet;
mod prefetch;
mod preparation;
pub mod process;
mod queue;
mod served;
mod serving;
pub mod soak;
#[cfg(test)]
mod stand_in;
mod supervisor;
pub mod tuning;
mod warm_pictures;
mod warm_up;
pub mod warmed;
mod worker;

pub use api::{
    DeviceChoice, Engine, EngineCounters, EngineError, EngineErrorCode, EngineStatus, JobEvent,
    JobStream, LoadedModel, MemoryUse, ModelRef, PictureFacts, PicturePace, PictureWork, PlaceCard,
    PlaceCards,
};
pub use local::LocalEngine;
pub use multi::{KindOf, MultiEngine, Serves};
pub use prefetch::prefetch;
pub use process::{ProcessEngine, ProcessEngineConfig, ProcessLimits};
