//! What goes into a scheduler and what comes out of it: limits, plans, counts.

use neurino_nn::paged::BLOCK_TOKENS;

use super::blocks::BlockCounters;

/// Rows of claimed answers that a step scores at most, beside those of which an answer draws: their scores
/// come here whole, and take memory.
pub const CLAIM_ROWS: usize = 2 * BLOCK_TOKENS;

/// What a runner may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServingLimits {
    /// Blocks of the cache.
    pub n_blocks: usize,
    /// Most tokens of a step; at least a block more than decode at the same time.
    pub rows_per_step: usize,
    /// Most sequences in the cache at the same time; each answer of a request is one.
    pub sequences_max: usize,
}

impl ServingLimits {
    /// Most rows of a step whose scores are wanted.
    pub fn scored_max(&self) -> usize {
        (self.sequences_max + CLAIM_ROWS).min(self.rows_per_step.max(BLOCK_TOKENS))
    }
}

/// One answer of one request. Requests are numbered as they come; the lower number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceId {
    pub(crate) request: u64,
    pub(crate) choice: u32,
}

/// What the next step computes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Blocks to copy before anything is written, `(from, to)`, in this order.
    pub(crate) copies: Vec<(u32, u32)>,
    /// The parts of the step, in the order of their rows.
    pub(crate) parts: Vec<Part>,
    /// The token of each row.
    pub(crate) tokens: Vec<u32>,
}

/// The rows of one sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: SequenceId,
    /// Tokens before the first row.
    pub(crate) start: usize,
    pub(crate) rows: usize,
    /// Whether the last row's scores choose the next token.
    pub(crate) draws: bool,
    /// Rows at its end whose scores a claimed answer is held against; such a part draws nothing.
    pub(crate) scored: usize,
    /// The blocks of the sequence.
    pub(crate) blocks: Vec<u32>,
}

/// A request needs more blocks than there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) needed_tokens: usize,
    pub(crate) capacity_tokens: usize,
}

/// Counts of a scheduler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerCounters {
    /// Blocks by use.
    pub blocks: BlockCounters,
    /// Sequences in the cache.
    pub running: usize,
    /// Sequences that wait for a place, preempted ones included.
    pub waiting: usize,
    /// How often a sequence had to give up its blocks, since the start.
    pub preemptions: u64,
}
