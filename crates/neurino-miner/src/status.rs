//! What the miner shows of itself: enough for one honest sentence and a progress bar.

use std::time::Instant;

use neurino_core::{JobId, JobKind, LeaseId, MicroPoints, ModelId};
use neurino_protocol::ErrorBody;
use neurino_protocol::node::{Advice, NoJob};

/// What the miner does now. Sent whole whenever something changes.
#[derive(Debug, Clone, PartialEq)]
pub struct MinerStatus {
    /// The state.
    pub state: MinerState,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Whether a session with the coordinator is open.
    pub connected: bool,
    /// The network's name, once the coordinator has said it.
    pub network: Option<String>,
    /// The oldest job that is being computed, else the oldest on its way.
    pub job: Option<RunningJob>,
    /// Jobs in work.
    pub jobs: u32,
    /// Finished results on disk that no receipt has answered yet.
    pub unsettled: u32,
    /// When the oldest of them was finished, in milliseconds since the Unix epoch.
    pub unsettled_since_ms: Option<i64>,
    /// The last thing that went wrong since work last went right.
    pub problem: Option<ErrorBody>,
    /// Why the network has no job for this node, while it waits and the network said so.
    pub no_job: Option<NoJob>,
    /// What the network advised, while its model is being loaded, or nothing is loaded because of it.
    pub advice: Option<Advice>,
    /// What was done since the start.
    pub counters: Counters,
}

/// What the miner does.
#[derive(Debug, Clone, PartialEq)]
pub enum MinerState {
    /// No session; `wait_ms` of zero means that an attempt is under way.
    Connecting {
        /// Attempts since the last session, the coming one included; 1 at first.
        attempt: u32,
        /// Pause before it, in milliseconds, counted from `since_ms`.
        wait_ms: u64,
        /// Why the last one failed.
        error: Option<ErrorBody>,
    },
    /// Loading a model; nothing is announced before it is in memory.
    LoadingModel {
        /// The model.
        model: ModelId,
        /// Pause before the next attempt, in milliseconds, counted from `since_ms`.
        wait_ms: u64,
        /// Why the last attempt failed.
        error: Option<ErrorBody>,
    },
    /// Ready; no job yet.
    Waiting,
    /// Computing, or sending a result.
    Working,
    /// Finishing the running jobs, taking no others.
    Finishing,
    /// Cannot go on without the person.
    NeedsYou {
        /// Why, and what helps.
        error: ErrorBody,
    },
    /// Ended; a new start makes a new miner.
    Stopped,
}

/// A job in work.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningJob {
    /// The job.
    pub job: JobId,
    /// The lease it runs under.
    pub lease: LeaseId,
    /// What it makes.
    pub kind: JobKind,
    /// Its model.
    pub model: ModelId,
    /// What happens to it.
    pub stage: Stage,
    /// Tokens generated, or steps of the picture done.
    pub done: u32,
    /// Most tokens it may generate, or all steps of the picture.
    pub of: u32,
    /// When the lease arrived.
    pub started: Instant,
    /// Milliseconds from then after which it earns nothing.
    pub budget_ms: u64,
    /// How long it will take in all, told from others of its model; `None` before any was measured.
    pub estimate_ms: Option<u64>,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its model is being loaded.
    Loading,
    /// The prompt is being read or tokens are being generated.
    Running,
    /// The result is on disk and on its way.
    Sending,
}

/// What a miner did since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs paid.
    pub settled: u64,
    /// What they paid, in micro-points.
    pub earned_micro: MicroPoints,
    /// Results that a network without receipts took.
    pub accepted: u64,
    /// Results that the coordinator did not accept.
    pub rejected: u64,
    /// Jobs that could not be computed.
    pub failed: u64,
    /// Jobs given back unharmed.
    pub handed_back: u64,
    /// Jobs that the coordinator withdrew.
    pub cancelled: u64,
    /// Tokens written, of all jobs.
    pub tokens_written: u64,
    /// Pictures finished.
    pub pictures: u64,
}
