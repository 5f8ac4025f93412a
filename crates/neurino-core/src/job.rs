//! What is asked for, what comes back, and the states in between.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ts_rs::TS;

use crate::ids::ModelId;
use crate::points::PointsKind;

/// What a job computes. Image jobs join as a second arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobSpec {
    /// A chat completion.
    Text(TextJob),
}

impl JobSpec {
    /// The model that must serve the job.
    pub fn model(&self) -> &ModelId {
        match self {
            Self::Text(job) => &job.model,
        }
    }

    /// The kind of job, without its parameters.
    pub fn kind(&self) -> JobKind {
        match self {
            Self::Text(_) => JobKind::Text,
        }
    }
}

/// The kind of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A chat completion, paid in Llama points.
    Text,
}

impl JobKind {
    /// The points that pay this kind.
    pub fn points(self) -> PointsKind {
        match self {
            Self::Text => PointsKind::Llama,
        }
    }
}

/// A chat completion request, as the network carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TextJob {
    /// Model of the catalogue.
    pub model: ModelId,
    /// The conversation, oldest first; never empty.
    pub messages: Vec<ChatMessage>,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Most tokens to generate, 1 to [`TextJob::MAX_TOKENS_LIMIT`].
    pub max_tokens: u32,
    /// Texts that end the answer; they are cut off. At most [`TextJob::STOP_LIMIT`].
    #[serde(default)]
    pub stop: Vec<String>,
}

impl TextJob {
    /// Most tokens one job may generate (the deployed network's limit).
    pub const MAX_TOKENS_LIMIT: u32 = 4096;
    /// Most stop strings of one job.
    pub const STOP_LIMIT: usize = 8;
    /// Most messages of one conversation.
    pub const MESSAGES_LIMIT: usize = 256;

    /// Checks every limit that does not need the model.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        if self.messages.is_empty() {
            return bad("messages", "needs at least one message".into());
        }
        if self.messages.len() > Self::MESSAGES_LIMIT {
            return bad("messages", format!("takes at most {} messages", Self::MESSAGES_LIMIT));
        }
        if self.max_tokens == 0 || self.max_tokens > Self::MAX_TOKENS_LIMIT {
            return bad("max_tokens", format!("must be 1 to {}", Self::MAX_TOKENS_LIMIT));
        }
        if self.stop.len() > Self::STOP_LIMIT {
            return bad("stop", format!("takes at most {} strings", Self::STOP_LIMIT));
        }
        if self.stop.iter().any(|s| s.is_empty() || s.len() > 256) {
            return bad("stop", "takes strings of 1 to 256 bytes each".into());
        }
        let s = &self.sampling;
        if !(0.0..=2.0).contains(&s.temperature) {
            return bad("temperature", "must be 0 to 2".into());
        }
        if !(s.top_p > 0.0 && s.top_p <= 1.0) {
            return bad("top_p", "must be above 0 and at most 1".into());
        }
        Ok(())
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

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The word chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// How the next token is chosen. Applied in vLLM's order: temperature, top-k, top-p.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
pub struct SamplingParams {
    /// 0 to 2; below 1e-5 the likeliest token is taken.
    pub temperature: f32,
    /// Keeps the smallest set of tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps the likeliest so many tokens; 0 keeps all.
    pub top_k: u32,
    /// Makes the answer repeatable. The network sets one when the payer did not.
    #[ts(type = "number")]
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// What a job produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobOutput {
    /// A chat completion.
    Text(TextOutput),
}

impl JobOutput {
    /// SHA-256 over the output's canonical JSON (fields in declaration order, no spaces).
    pub fn digest(&self) -> ResultDigest {
        let bytes = serde_json::to_vec(self).expect("strings and integers always serialise");
        ResultDigest(Sha256::digest(bytes).into())
    }
}

/// A generated answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct TextOutput {
    /// The answer, without its stop string.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens read and written.
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model's end token or a stop string.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
}

/// Tokens read and written by one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Usage {
    /// Tokens of the prompt, after the chat template.
    pub prompt_tokens: u32,
    /// Tokens generated, the end token included.
    pub completion_tokens: u32,
}

impl Usage {
    /// Tokens in and out.
    pub fn total(self) -> u32 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
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

    fn job() -> TextJob {
        TextJob {
            model: ModelId::new("m").expect("valid"),
            messages: vec![ChatMessage { role: Role::User, content: "hi".into() }],
            sampling: SamplingParams::default(),
            max_tokens: 16,
            stop: vec![],
        }
    }

    fn check(change: impl FnOnce(&mut TextJob), field: Option<&str>) {
        let mut job = job();
        change(&mut job);
        assert_eq!(job.validate().err().map(|e| e.field), field);
    }

    #[test]
    fn limits_name_their_field() {
        check(|_| {}, None);
        check(|j| j.messages.clear(), Some("messages"));
        check(|j| j.max_tokens = 0, Some("max_tokens"));
        check(|j| j.max_tokens = 5000, Some("max_tokens"));
        check(|j| j.stop = vec![String::new()], Some("stop"));
        check(|j| j.sampling.temperature = f32::NAN, Some("temperature"));
        check(|j| j.sampling.top_p = 0.0, Some("top_p"));
    }

    #[test]
    fn digest_covers_every_field() {
        let output = |text: &str, n| {
            JobOutput::Text(TextOutput {
                text: text.into(),
                finish_reason: FinishReason::Stop,
                usage: Usage { prompt_tokens: 1, completion_tokens: n },
            })
        };
        assert_eq!(output("a", 1).digest(), output("a", 1).digest());
        assert_ne!(output("a", 1).digest(), output("b", 1).digest());
        assert_ne!(output("a", 1).digest(), output("a", 2).digest());
    }
}
