//! The loop of a working machine: lease, run, digest, sign, submit.
//!
//! Read [`MinerStatus`] (what it shows), then [`ReceiptLog`] (what it was paid).

mod error;
mod receipts;
mod status;

pub use error::MinerError;
pub use receipts::{ReceiptLog, ReceiptTotals};
pub use status::{Counters, MinerState, MinerStatus, RunningJob, Stage};
