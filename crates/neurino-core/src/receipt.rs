//! What the coordinator signs when it has paid a job: enough to recompute the amount by hand.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::ids::{EventId, JobId, LeaseId, ModelId, NodeId};
use crate::job::{ResultDigest, Usage};
use crate::pricing::Quote;

/// A signed statement that a job was paid, and how the amount was computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Receipt {
    /// The ledger event that holds the payment's postings.
    pub event: EventId,
    /// The paid job.
    pub job: JobId,
    /// The lease it was paid under.
    pub lease: LeaseId,
    /// Who was paid.
    pub node: NodeId,
    /// The model that served it.
    pub model: ModelId,
    /// Tokens read and written.
    pub usage: Usage,
    /// The rule set that priced it.
    pub rule_set: String,
    /// The amount, step by step.
    pub quote: Quote,
    /// SHA-256 of the result that was paid.
    pub digest: ResultDigest,
    /// From lease to accepted result, by the coordinator's clock, in milliseconds.
    #[ts(type = "number")]
    pub duration_ms: u64,
    /// When it was settled, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub settled_at_ms: i64,
    /// The network's name, for example `practice`.
    pub network: String,
    /// Address of the coordinator's key.
    pub coordinator: String,
    /// Its signature over [`Receipt::message`], `0x` and 130 hex digits.
    pub signature: String,
}

impl Receipt {
    /// The text the coordinator signs (EIP-191 personal message): every field but the signature
    /// and the units. Those follow from what is signed: of a text they are its tokens, and of a picture
    /// they have to give the signed base.
    pub fn message(&self) -> String {
        let q = &self.quote;
        format!(
            "neurino receipt v1\nnetwork: {}\nevent: {}\njob: {}\nlease: {}\nnode: {}\nmodel: {}\n\
             tokens: {} in, {} out\nrules: {}\nbase: {}\nfactor: {}\nmultiplier: {}\namount: {} {}\n\
             sha256: {}\nduration ms: {}\nsettled at ms: {}\ncoordinator: {}",
            self.network,
            self.event,
            self.job,
            self.lease,
            self.node,
            self.model,
            self.usage.prompt_tokens,
            self.usage.completion_tokens,
            self.rule_set,
            q.base_micro.0,
            q.factor.0,
            q.multiplier.0,
            q.amount_micro.0,
            q.points.as_str(),
            self.digest,
            self.duration_ms,
            self.settled_at_ms,
            self.coordinator,
        )
    }
}
