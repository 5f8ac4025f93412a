//! What is asked for, what comes back, and the states in between.

mod claim;
mod image;
mod sampling;
mod settings_text;
mod text;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ts_rs::TS;

use crate::ids::ModelId;
use crate::points::PointsKind;

pub use claim::{ClaimScore, SeedScore, TextClaim};
pub use image::{ImageDefaults, ImageJob, ImageOutput, ImageStep, Png};
pub use sampling::SamplingParams;
pub use settings_text::SETTINGS_KEYWORD;
pub use text::{
    ChatMessage, FinishReason, RatedToken, ResponseFormat, Role, TextChoice, TextDelta, TextJob,
    TextOutput, TokenLogprob, ToolCall, ToolChoice, ToolDefinition, Usage, WeightPrecision,
};

/// What a job computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "most jobs are texts, and none is held in numbers")]
pub enum JobSpec {
    /// A chat completion.
    Text(TextJob),
    /// A picture.
    Image(ImageJob),
}

impl JobSpec {
    /// The model that must serve the job.
    pub fn model(&self) -> &ModelId {
        match self {
            Self::Text(job) => &job.model,
            Self::Image(job) => &job.model,
        }
    }

    /// The kind of job, without its parameters.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Text(_) => JobKind::Text,
            Self::Image(_) => JobKind::Image,
        }
    }

    /// Checks every limit that does not need the model.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidJob> {
        match self {
            Self::Text(job) => job.validate(),
            Self::Image(job) => job.validate(),
        }
    }
}

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A chat completion, paid in Llama points.
    Text,
    /// A picture, paid in Waifu points.
    Image,
}

impl JobKind {
    /// The points that pay this kind.
    pub fn points(self) -> PointsKind {
        match self {
            Self::Text => PointsKind::Llama,
            Self::Image => PointsKind::Waifu,
        }
    }
}

/// A field of a job is outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {rule}")]
pub struct InvalidJob {
    /// The field, as the API spells it.
    pub field: &'static str,
    /// The rule it broke.
    pub rule: String,
}

/// What a job produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobOutput {
    /// A chat completion.
    Text(TextOutput),
    /// A picture.
    Image(ImageOutput),
}

impl JobOutput {
    /// The kind of job that produced it.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Text(_) => JobKind::Text,
            Self::Image(_) => JobKind::Image,
        }
    }

    /// SHA-256 over the output's canonical JSON (fields in declaration order, no spaces).
    pub fn digest(&self) -> ResultDigest {
        let bytes = serde_json::to_vec(self).expect("strings and integers always serialise");
        ResultDigest(Sha256::digest(bytes).into())
    }
}

/// SHA-256 of a result; what the node signs and the receipt names. Hex on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(try_from = "String", into = "String")]
#[ts(type = "string")]
pub struct ResultDigest(pub [u8; 32]);

impl fmt::Display for ResultDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl From<ResultDigest> for String {
    fn from(digest: ResultDigest) -> Self {
        hex::encode(digest.0)
    }
}

impl TryFrom<String> for ResultDigest {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Where a job stands. `Succeeded`, `Failed` and `Cancelled` are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waiting for a node.
    Queued,
    /// A node holds a lease on it.
    Leased,
    /// A result was accepted and paid.
    Succeeded,
    /// Given up: attempts used, deadline passed, or the request cannot be served. Costs nothing.
    Failed,
    /// Withdrawn by the payer. Costs nothing.
    Cancelled,
}

impl JobState {
    /// The name used in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Leased => "leased",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can change the job any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether the machine may step from here to `next`.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Queued, Self::Leased | Self::Failed | Self::Cancelled)
                | (Self::Leased, Self::Queued | Self::Succeeded | Self::Failed | Self::Cancelled)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [JobState; 5] = [
        JobState::Queued,
        JobState::Leased,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
    ];

    #[test]
    fn terminal_states_are_left_by_nothing() {
        for from in STATES {
            for to in STATES {
                assert!(!(from.is_terminal() && from.may_become(to)), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn only_a_leased_job_can_succeed() {
        for from in STATES {
            assert_eq!(from.may_become(JobState::Succeeded), from == JobState::Leased);
        }
    }

    #[test]
    fn digest_covers_every_field() {
        let output = |text: &str, n| {
            let usage = Usage { prompt_tokens: 1, completion_tokens: n };
            JobOutput::Text(TextOutput::single(text, FinishReason::Stop, usage))
        };
        assert_eq!(output("a", 1).digest(), output("a", 1).digest());
        assert_ne!(output("a", 1).digest(), output("b", 1).digest());
        assert_ne!(output("a", 1).digest(), output("a", 2).digest());
        let mut half = TextOutput::single("a", FinishReason::Stop, Usage::default());
        let unsaid = JobOutput::Text(half.clone()).digest();
        half.precision = Some(WeightPrecision::Half);
        assert_ne!(JobOutput::Text(half).digest(), unsaid);
    }
}
