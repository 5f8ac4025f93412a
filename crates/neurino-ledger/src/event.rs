//! One event of the ledger and its postings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use neurino_core::{EventId, JobId, LeaseId, MicroPoints, PointsKind};
use serde::{Deserialize, Serialize};

use sha2::{Digest as _, Sha256};

use crate::account::{Account, PayerId};

/// What an amount counts: one of the two kinds of points, or prepaid credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Points for text.
    Llama,
    /// Points for images.
    Waifu,
    /// Credits, which payers buy.
    Credit,
}

impl Unit {
    /// The name used in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => PointsKind::Llama.as_str(),
            Self::Waifu => PointsKind::Waifu.as_str(),
            Self::Credit => "credit",
        }
    }

    /// The points it is, unless it is credits.
    pub fn points(self) -> Option<PointsKind> {
        match self {
            Self::Llama => Some(PointsKind::Llama),
            Self::Waifu => Some(PointsKind::Waifu),
            Self::Credit => None,
        }
    }
}

impl From<PointsKind> for Unit {
    fn from(points: PointsKind) -> Self {
        match points {
            PointsKind::Llama => Self::Llama,
            PointsKind::Waifu => Self::Waifu,
        }
    }
}

/// Why an event cannot be built or appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An event needs at least two postings.
    #[error("an event needs at least two postings; a transfer has exactly two")]
    TooFewPostings,
    /// The postings of one kind of points do not cancel out.
    #[error("the {} postings sum to {sum} instead of zero", points.as_str())]
    Unbalanced {
        /// The kind of points.
        points: Unit,
        /// Their sum.
        sum: MicroPoints,
    },
    /// One account appears twice with the same entry kind and points.
    #[error("account `{0}` is posted to twice in one event; add the amounts up first")]
    DoubledPosting(Account),
    /// The event is in the ledger with other postings.
    #[error("event {0} is in the ledger with other postings; an event never changes")]
    Conflict(EventId),
    /// A sum does not fit 64 bits.
    #[error("an amount is too large to be added")]
    Overflow,
    /// A stored entry kind is unknown to this build.
    #[error("`{0}` is not an entry kind of this build; a newer version wrote it")]
    UnknownEntryKind(String),
}

/// Why points moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A node was paid for a job.
    JobReward,
    /// A payer bought credits, or gave some back.
    CreditDeposit,
    /// Who earned credits was paid for them outside of the books.
    CreditPayOut,
    /// A job was accepted, and what it may cost set aside.
    CreditHold,
    /// A job ended without success; what was set aside returned.
    CreditRelease,
    /// A job succeeded; its price was shared out, and the rest returned.
    CreditCharge,
    /// What a convicted node was paid was called back.
    Clawback,
    /// The appeal was granted; it was given back.
    ClawbackReturn,
}

impl EntryKind {
    /// The name used in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobReward => "job_reward",
            Self::CreditDeposit => "credit_deposit",
            Self::CreditPayOut => "credit_pay_out",
            Self::CreditHold => "credit_hold",
            Self::CreditRelease => "credit_release",
            Self::CreditCharge => "credit_charge",
            Self::Clawback => "clawback",
            Self::ClawbackReturn => "clawback_return",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntryKind {
    type Err = LedgerError;
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        match text {
            "job_reward" => Ok(Self::JobReward),
            "credit_deposit" => Ok(Self::CreditDeposit),
            "credit_pay_out" => Ok(Self::CreditPayOut),
            "credit_hold" => Ok(Self::CreditHold),
            "credit_release" => Ok(Self::CreditRelease),
            "credit_charge" => Ok(Self::CreditCharge),
            "clawback" => Ok(Self::Clawback),
            "clawback_return" => Ok(Self::ClawbackReturn),
            other => Err(LedgerError::UnknownEntryKind(other.into())),
        }
    }
}

/// One line of the ledger: an account gained (positive) or gave (negative) points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// The event it belongs to.
    pub event: EventId,
    /// Whose points.
    pub account: Account,
    /// Why.
    pub kind: EntryKind,
    /// Which points, or credits.
    pub points: Unit,
    /// How many.
    pub amount_micro: MicroPoints,
}

/// The event of a lease's payment. A lease is paid at most once because its event exists at most
/// once.
pub fn event_of(lease: LeaseId) -> EventId {
    EventId(lease.0)
}

/// The event of setting a job's price aside.
pub fn event_of_hold(job: JobId) -> EventId {
    derived("hold", job.0.as_bytes())
}

/// The event of giving it back because the job did not succeed.
pub fn event_of_release(job: JobId) -> EventId {
    derived("release", job.0.as_bytes())
}

/// The event of calling a lease's pay back. It can be called back once.
pub fn event_of_clawback(lease: LeaseId) -> EventId {
    derived("clawback", lease.0.as_bytes())
}

/// The event of giving it back because an appeal was granted.
pub fn event_of_restoring(lease: LeaseId) -> EventId {
    derived("clawback return", lease.0.as_bytes())
}

/// The event of a deposit. Whoever books it names it, so that a repeat is the same one.
pub fn event_of_deposit(payer: &PayerId, reference: &str) -> EventId {
    derived("deposit", format!("{payer}\n{reference}").as_bytes())
}

/// The event of paying somebody out. Whoever books it names it, so that a repeat is the same one.
pub fn event_of_pay_out(account: &Account, reference: &str) -> EventId {
    derived("pay out", format!("{account}\n{reference}").as_bytes())
}

/// An id that depends on nothing but what the event is about.
fn derived(what: &str, about: &[u8]) -> EventId {
    let digest = Sha256::new().chain_update(what).chain_update([0]).chain_update(about).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    EventId(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Postings that belong together and cancel out. Cannot be built otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    id: EventId,
    postings: Vec<Posting>,
}

impl Event {
    /// Checks and builds an event from `(account, entry kind, points, amount)` lines.
    ///
    /// # Errors
    /// `TooFewPostings`, `DoubledPosting`, `Unbalanced`, `Overflow`.
    pub fn new(
        id: EventId,
        lines: impl IntoIterator<Item = (Account, EntryKind, Unit, MicroPoints)>,
    ) -> Result<Self, LedgerError> {
        let postings: Vec<Posting> = lines
            .into_iter()
            .map(|(account, kind, points, amount_micro)| Posting {
                event: id,
                account,
                kind,
                points,
                amount_micro,
            })
            .collect();
        if postings.len() < 2 {
            return Err(LedgerError::TooFewPostings);
        }
        let mut seen = BTreeSet::new();
        let mut sums = BTreeMap::<Unit, MicroPoints>::new();
        for posting in &postings {
            if !seen.insert((&posting.account, posting.kind, posting.points)) {
                return Err(LedgerError::DoubledPosting(posting.account.clone()));
            }
            let sum = sums.entry(posting.points).or_default();
            *sum = sum.checked_add(posting.amount_micro).ok_or(LedgerError::Overflow)?;
        }
        match sums.into_iter().find(|(_, sum)| sum.0 != 0) {
            Some((points, sum)) => Err(LedgerError::Unbalanced { points, sum }),
            None => Ok(Self { id, postings }),
        }
    }

    /// Moves an amount from one account to another.
    ///
    /// # Errors
    /// `DoubledPosting` when both are the same account, `Overflow` for `i64::MIN`.
    pub fn transfer(
        id: EventId,
        kind: EntryKind,
        points: Unit,
        from: Account,
        to: Account,
        amount: MicroPoints,
    ) -> Result<Self, LedgerError> {
        let debit = amount.0.checked_neg().map(MicroPoints).ok_or(LedgerError::Overflow)?;
        Self::new(id, [(from, kind, points, debit), (to, kind, points, amount)])
    }

    /// The event's id.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Its lines, in the order given.
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }
}
