//! The weekly epoch: what everybody earned in a week, as a file that anybody can compute again.
//!
//! Pure, like the rest of the ledger. Reading order: `values` (amounts and addresses as they stand in
//! the file), `rules` (dated, from data), `organic` (which work counts for the dynamic pools),
//! `entry` (one line for each payment of the week), `inputs` (what a week's entries come to), `share`
//! (points to shares, in integers), `merkle` (what a contract checks), `file` (all of it, with proofs
//! and the check of a file that somebody else made). Beside them `behaviour` (what looks automatic in the
//! entries; it moves no points).

mod behaviour;
mod canonical;
mod entry;
mod file;
mod inputs;
mod merkle;
mod organic;
mod rules;
mod share;
#[cfg(test)]
mod tests;
mod values;

pub use behaviour::{
    Alike, Behaviour, BehaviourError, BehaviourLimits, BehaviourPart, Figures, GroupBehaviour,
    PayerBehaviour, Reason, Verdict, behaviour,
};
pub use canonical::canonical_json;
pub use entry::{Entries, Entry, EntryFault, EntryLines, Movement, read_entries};
pub use file::{EpochFile, FORMAT, Proof, check_against, check_entries};
pub use inputs::{
    Before, Demand, EpochInputs, EpochSums, Holder, ModelDemand, NodeInput, PerKind, Snapshot,
    Sums, nodes_of,
};
pub use merkle::{leaf, root_of};
pub use organic::{PaidSums, Source, Weigher, Work, weigh};
pub use rules::{EpochEditions, EpochRules, PoolRules};
pub use share::{AccountShare, EpochResult, NodeFactors, Part, PoolResult, compute};
pub use values::{Address, Hash, Tokens};

/// Milliseconds of an epoch: a week.
pub const EPOCH_MS: i64 = 7 * 24 * 3600 * 1000;

/// The epoch of a time in milliseconds since the Unix epoch: weeks since Thursday, 1 January 1970, UTC.
pub fn epoch_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(EPOCH_MS)
}

/// Why an epoch cannot be computed, or a file not be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// A rule set is unknown to this build.
    #[error("the epoch rules `{0}` are unknown to this version; update Neurino")]
    UnknownRules(String),
    /// The data of rule sets does not parse, or makes no sense.
    #[error("the epoch rules cannot be used: {0}")]
    Rules(String),
    /// A number does not fit, or cannot stand in a canonical file.
    #[error("{0} is too large, or no whole number")]
    Number(&'static str),
    /// Something in the inputs contradicts itself.
    #[error("{at}: {fault}")]
    Input {
        /// Where.
        at: String,
        /// What.
        fault: String,
    },
    /// The file says one thing and its inputs another.
    #[error("{at}: the file says {found}, its inputs give {expected}")]
    Differs {
        /// The first place, as a path.
        at: String,
        /// What the file says.
        found: String,
        /// What was computed.
        expected: String,
    },
    /// An address has no share.
    #[error(
        "the address {0} has no share in this epoch; addresses are written as `0x` and 40 digits"
    )]
    NoShare(Address),
    /// A proof does not lead to its root.
    #[error("the proof does not lead from {account} with {cumulative} to the root")]
    BadProof {
        /// Whose.
        account: Address,
        /// How much.
        cumulative: Tokens,
    },
}
