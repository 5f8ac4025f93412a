//! The loop of a working machine: lease, run, digest, sign, submit.
//!
//! Read [`Miner`] (how to start and stop it), [`MinerStatus`] (what it shows), [`ReceiptLog`] (what
//! it was paid); inside, `run` (the loop), `work` (what it does about each event), `ends` (how jobs
//! ended), `filter` (which it does not take), `files` (showing what it has), `predict` (how long they take), `units` (the cards one by one), `job` (one job's task) and `outbox` (results until they are settled).

mod advice;
mod backoff;
mod ends;
mod error;
mod faults;
mod files;
mod filter;
mod job;
mod miner;
mod outbox;
mod predict;
mod run;
mod status;
mod talk;
mod units;
mod work;

pub use error::MinerError;
pub use files::{ModelFiles, Showing};
pub use filter::ContentFilter;
pub use job::lacks_memory;
pub use miner::{Miner, MinerConfig, MinerHandle};
pub use neurino_earnings::{ReceiptLog, ReceiptTotals};
pub use status::{Counters, MinerState, MinerStatus, RunningJob, Stage};
