//! The vocabulary of the system: ids, jobs, leases, points, pricing.
//!
//! Pure: no io, no async, no clock, no randomness. Time and ids arrive as parameters.
//! Reading order: [`ids`], [`job`], [`lease`], [`points`], [`pricing`], [`credits`], [`receipt`],
//! [`editions`], [`boost`], [`audit`], [`file_tree`], [`causes`].

pub mod audit;
pub mod boost;
pub mod causes;
pub mod credits;
pub mod editions;
pub mod file_tree;
pub mod ids;
pub mod job;
pub mod lease;
pub mod points;
pub mod pricing;
pub mod receipt;

pub use boost::{BoostStep, BoostTable};
pub use causes::told_with_causes;
pub use credits::{MicroCredits, PriceList, PriceLists, Roles, Shares, Split, TextPrice};
pub use editions::Edition;
pub use ids::{EventId, FrontendId, IdempotencyKey, JobId, LeaseId, ModelId, NodeId, UnitId};
pub use job::{
    ChatMessage, ClaimScore, FinishReason, ImageDefaults, ImageJob, ImageOutput, ImageStep,
    InvalidJob, JobKind, JobOutput, JobSpec, JobState, Png, RatedToken, ResponseFormat,
    ResultDigest, Role, SETTINGS_KEYWORD, SamplingParams, SeedScore, TextChoice, TextClaim,
    TextDelta, TextJob, TextOutput, TokenLogprob, ToolCall, ToolChoice, ToolDefinition, Usage,
};
pub use lease::{Lease, ResultStatement};
pub use points::{MicroPoints, Multiplier, PointsKind};
pub use pricing::{PriceError, Quote, RuleSet, RuleSets};
pub use receipt::Receipt;
