//! A lease: the right of one node to compute one job for a while, and be paid for it.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::ids::{JobId, LeaseId, NodeId, UnitId};
use crate::job::{JobSpec, ResultDigest};
use crate::points::{MicroPoints, PointsKind};

/// One attempt of one node at one job, as the coordinator grants it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct Lease {
    /// Names the attempt; the idempotency key of its result.
    pub id: LeaseId,
    /// The job.
    pub job: JobId,
    /// Rises with every lease of a job; a result that carries an older one is never paid.
    pub fence: u32,
    /// What to compute.
    pub spec: JobSpec,
    /// Time left from receipt until a result earns nothing, in milliseconds.
    #[ts(type = "number")]
    pub budget_ms: u64,
    /// What the job would pay if it used all of `max_tokens`: an upper bound, not a promise.
    pub quote_micro: MicroPoints,
    /// Which points pay it.
    pub points: PointsKind,
    /// The rule set that prices it.
    pub rule_set: String,
    /// Which unit of the node is to compute it; absent for a node that announced none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub unit: Option<UnitId>,
}

/// What a node signs when it submits: the signature binds job, lease, fence, node and result, so
/// what is signed is what is paid and nothing can be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultStatement {
    /// The job.
    pub job: JobId,
    /// The lease it was computed under.
    pub lease: LeaseId,
    /// The lease's fence.
    pub fence: u32,
    /// The node that computed it.
    pub node: NodeId,
    /// SHA-256 of the output.
    pub digest: ResultDigest,
}

impl ResultStatement {
    /// The text that is signed (EIP-191 personal message).
    pub fn message(&self) -> String {
        format!(
            "neurino result v1\njob: {}\nlease: {}\nfence: {}\nnode: {}\nsha256: {}",
            self.job, self.lease, self.fence, self.node, self.digest
        )
    }
}
