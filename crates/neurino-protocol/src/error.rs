//! One shape for every error that crosses an edge.

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// What went wrong, for programs. A variant exists only where somebody acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or outside a limit.
    InvalidRequest,
    /// The body is larger than the edge accepts.
    TooLarge,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The credentials are good, but not for this.
    Forbidden,
    /// The prepaid credits or the budget do not cover the request.
    InsufficientCredits,
    /// More requests or work than the credentials allow in this time.
    RateLimited,
    /// A signature does not match.
    BadSignature,
    /// The thing named does not exist.
    NotFound,
    /// A job's request and answer are gone for good: their keeping time is over, or their key was lost.
    PayloadShredded,
    /// No such model in the catalogue or on the network.
    UnknownModel,
    /// The prompt and `max_tokens` do not fit the model's context.
    ContextTooLong,
    /// The model is known but not on this machine, or its files do not match their digests.
    ModelNotReady,
    /// A model's file is damaged or of an unsupported kind.
    ModelUnreadable,
    /// Nobody serves the model right now.
    NoNodeAvailable,
    /// The deadline passed.
    DeadlinePassed,
    /// The lease is over: another attempt replaced it, or it was settled otherwise.
    StaleLease,
    /// Too many requests or no room in the queue.
    Overloaded,
    /// The payer withdrew the request.
    Cancelled,
    /// The engine failed; the job goes elsewhere.
    EngineFailed,
    /// A machine's operator does not take such content; the job goes elsewhere.
    Declined,
    /// The network cannot be reached.
    Unreachable,
    /// A client speaks a protocol version that this server does not.
    UnsupportedVersion,
    /// Something broke inside; the log has the chain.
    Internal,
}

impl ErrorCode {
    /// Whether it passes: the same request may succeed in a while.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::ModelNotReady | Self::NoNodeAvailable | Self::Unreachable | Self::Overloaded
        )
    }
}

/// An error as it crosses an edge: plain words first, and a way out where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people: one sentence, no secrets, no prompt.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub hint: Option<String>,
}

impl ErrorBody {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ErrorBody {}
