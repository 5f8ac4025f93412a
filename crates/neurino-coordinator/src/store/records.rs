//! What goes into the books and comes out of them.

use neurino_core::{
    FrontendId, IdempotencyKey, JobId, JobOutput, JobSpec, JobState, LeaseId, MicroCredits, NodeId,
    Receipt, ResultDigest, UnitId,
};
use neurino_ledger::{Event, PayerId};
use neurino_protocol::ErrorBody;
use serde::Deserialize;

use super::audits::NewAudit;
use super::marks::Mark;

use crate::keys::KeyTerms;
use crate::router::{JobClass, Placement};
use crate::terms::Payment;

/// A job to be admitted.
#[derive(Debug, Clone)]
pub(crate) struct NewJob {
    pub(crate) id: JobId,
    pub(crate) payer: PayerId,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) rule_set: String,
    pub(crate) spec: JobSpec,
    pub(crate) no_node_wait_ms: u64,
    pub(crate) class: JobClass,
    /// Who may compute it, if not everybody.
    pub(crate) placement: Option<Placement>,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) frontend: Option<FrontendId>,
    /// What is set aside for it, if it is prepaid.
    pub(crate) hold: Option<Hold>,
    /// Whether it ends once nobody waits for it.
    pub(crate) attended: bool,
    pub(crate) at_ms: i64,
}

/// Credits to set aside for a job.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) amount: MicroCredits,
    pub(crate) price_list: String,
    pub(crate) key: String,
    /// Most that the key's jobs of the month may cost.
    pub(crate) budget: Option<MicroCredits>,
    pub(crate) event: Event,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    New,
    /// The payer sent the same job under the same key before.
    Known(JobId),
    /// The payer used the key for another job.
    Conflict,
    /// The payer has no more than this, which is not enough.
    Uncovered(MicroCredits),
    /// The key's budget of the month leaves no more than this, which is not enough.
    OverBudget(MicroCredits),
}

/// A lease to be granted.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) job: JobId,
    pub(crate) lease: LeaseId,
    pub(crate) fence: u32,
    pub(crate) node: NodeId,
    /// The unit of the node; absent for a node that announced none.
    pub(crate) unit: Option<UnitId>,
    pub(crate) granted_at_ms: i64,
    pub(crate) deadline_ms: i64,
}

/// A further attempt at a job that is leased by a fence.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    pub(crate) grant: Grant,
    /// Of the first one.
    pub(crate) beside: u32,
}

/// The end of one of a job's two attempts, without payment. The job is leased by the other one.
#[derive(Debug, Clone)]
pub(crate) struct Outrun {
    pub(crate) job: JobId,
    pub(crate) lease: LeaseId,
    pub(crate) fence: u32,
    /// The other one.
    pub(crate) stays: LeaseId,
    pub(crate) stays_fence: u32,
    pub(crate) end: AttemptEnd,
    pub(crate) at_ms: i64,
}

/// How an attempt can end without payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AttemptEnd {
    /// The node could not compute it, or its result was not acceptable.
    Failed,
    /// The deadline passed.
    Expired,
    /// The node gave it back unharmed.
    HandedBack,
    /// The node vanished or forgot it.
    Lost,
    /// Another attempt at the same job was faster.
    #[serde(rename = "cancelled")]
    Outrun,
}

impl AttemptEnd {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::HandedBack => "handed_back",
            Self::Lost => "lost",
            Self::Outrun => "cancelled",
        }
    }

    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Expired)
    }
}

/// The end of an attempt without payment.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    pub(crate) job: JobId,
    pub(crate) lease: LeaseId,
    pub(crate) fence: u32,
    pub(crate) end: AttemptEnd,
    /// Set when the job is given up with it; otherwise it is queued again.
    pub(crate) give_up: Option<ErrorBody>,
    pub(crate) at_ms: i64,
}

/// A payment, with the result as it came or as the books keep it.
#[derive(Debug, Clone)]
pub(crate) struct Settlement<O = JobOutput> {
    pub(crate) output: O,
    /// Whether its picture lies in the bucket already.
    pub(crate) uploaded: bool,
    pub(crate) fence: u32,
    pub(crate) event: Event,
    pub(crate) receipt: Receipt,
    /// What a prepaid job cost; zero otherwise.
    pub(crate) charged: MicroCredits,
    /// By what a later copy of the result is known.
    pub(crate) mark: Option<Mark>,
    /// Set if the result is to be computed again.
    pub(crate) audit: Option<NewAudit>,
}

/// A result as it goes into the books.
#[derive(Debug, Clone)]
pub(crate) struct SealedOutput {
    pub(crate) text: String,
    /// Digest of its picture.
    pub(crate) picture: Option<ResultDigest>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Paid,
    /// The lease was paid before, with this receipt.
    Before(Box<Receipt>),
    /// The job is not leased under that fence any more.
    Stale,
}

/// The end of a job without payment: `Failed` or `Cancelled`.
#[derive(Debug, Clone)]
pub(crate) struct Close {
    pub(crate) job: JobId,
    pub(crate) state: JobState,
    pub(crate) error: ErrorBody,
    pub(crate) at_ms: i64,
}

/// A job that had not ended when the coordinator stopped.
#[derive(Debug, Clone)]
pub(crate) struct OpenJob {
    pub(crate) id: JobId,
    pub(crate) payer: PayerId,
    pub(crate) rule_set: String,
    pub(crate) spec: JobSpec,
    /// Of the attempt that it is leased by, or was last.
    pub(crate) fence: u32,
    /// The highest one that was given out.
    pub(crate) last_fence: u32,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    pub(crate) no_node_wait_ms: u64,
    pub(crate) class: JobClass,
    pub(crate) placement: Option<Placement>,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) frontend: Option<FrontendId>,
    pub(crate) payment: Option<Payment>,
    /// Whether it ends once nobody waits for it, and whether somebody can come back for it.
    pub(crate) attended: bool,
    pub(crate) has_key: bool,
    pub(crate) running: Option<RunningAttempt>,
}

/// The attempt of a leased job.
#[derive(Debug, Clone)]
pub(crate) struct RunningAttempt {
    pub(crate) lease: LeaseId,
    pub(crate) node: NodeId,
    pub(crate) unit: Option<UnitId>,
    pub(crate) granted_at_ms: i64,
    pub(crate) deadline_ms: i64,
}

/// A job as the books have it.
#[derive(Debug, Clone)]
pub(crate) struct StoredJob {
    pub(crate) payer: PayerId,
    pub(crate) state: JobState,
    pub(crate) created_at_ms: i64,
    pub(crate) finished_at_ms: Option<i64>,
    /// Absent before the end, without success, and once shredded.
    pub(crate) output: Option<JobOutput>,
    pub(crate) error: Option<ErrorBody>,
    pub(crate) receipt: Option<Receipt>,
    /// Whether request and answer are gone for good.
    pub(crate) shredded: bool,
}

/// An attempt as the books have it.
#[derive(Debug, Clone)]
pub(crate) struct StoredAttempt {
    pub(crate) job: JobId,
    pub(crate) state: String,
    pub(crate) job_state: JobState,
    pub(crate) node: NodeId,
}

/// A gateway key as the books have it.
#[derive(Clone)]
pub(crate) struct StoredKey {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) created_at_ms: i64,
    pub(crate) terms: KeyTerms,
    pub(crate) revoked_at_ms: Option<i64>,
    /// The secret before the last rotation, and until when it is good.
    pub(crate) old: Option<([u8; 32], i64)>,
}

/// Who brought a model, and the votes for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) deployer: Option<PayerId>,
    pub(crate) votes: u64,
    /// Whether it may be computed on a part of a card, beside strangers' work.
    pub(crate) shareable: bool,
}

/// An identity key's address bound to a reward address of the original protocol.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) reward: String,
    pub(crate) identity: String,
    pub(crate) at_ms: i64,
}
