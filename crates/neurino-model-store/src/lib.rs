//! Catalogue of models, verified downloads, the library on disk.
//!
//! A model file is used only after its digest matched. Reading order: [`catalog`] (what there is
//! and where it comes from), [`store`] (what this machine has: [`ModelStore::verified`] is the one
//! door to the engine), [`fetch`] (getting a model: sources in order, resumed, hashed on the way),
//! [`error`] (what to tell the person).

pub mod catalog;
pub mod digest;
pub mod error;
pub mod fetch;
pub mod store;

mod adopt;
pub mod bench;
mod chunks;
mod former;
mod import;
pub mod library;
pub mod lists;
pub mod one_file;
mod owned;
mod part;
pub mod queue;
mod relocate;
pub mod scrub;
pub mod signed;
mod source;
pub mod speed;
mod stamp;
pub mod throttle;
mod tree;

pub use adopt::{OwnModel, own_files, own_id, own_name};
pub use catalog::{Catalog, ModelFile, ModelManifest, Pieces, Source};
pub use digest::Digest;
pub use error::{FailureReason, ListKind, ListProblem, SourceError, SourceFailure, StoreError};
pub use fetch::{FetchOptions, Progress, SourceKind};
pub use library::{ModelUsage, Reused};
pub use queue::{DownloadQueue, Queued, Window};
pub use relocate::MoveProgress;
pub use scrub::{Found, Pace, ScrubProgress, ScrubReport, WholeFile};
pub use speed::SpeedMeter;
pub use store::{Edition, ModelState, ModelStore, OpenFile};
pub use throttle::Throttle;
pub use tree::FileTree;
