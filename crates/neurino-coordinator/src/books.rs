//! What the read side reports: balances, sums, jobs. Everything here is derived from the store.

use std::collections::BTreeMap;
use std::path::Path;

use neurino_core::{MicroPoints, ModelId};
use neurino_ledger::{Account, Unit};
use serde::Serialize;

use crate::database::Database;
use crate::error::CoordinatorError;
use crate::store::Beside;

/// One account's balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountBalance {
    /// Whose.
    pub account: Account,
    /// Which points, or credits.
    pub points: Unit,
    /// Sum of the account's postings.
    pub balance_micro: MicroPoints,
    /// Sum of the receipts that name the account's node, without those whose pay was called back;
    /// zero for other accounts.
    pub receipts_micro: MicroPoints,
    /// Number of postings.
    pub postings: u64,
}

/// The ledger, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerCheck {
    /// Sum of all postings for each kind of points and of credits; zero in a ledger that is whole.
    pub sums_micro: BTreeMap<Unit, MicroPoints>,
    /// Balance of each account.
    pub balances: Vec<AccountBalance>,
    /// Number of jobs in each state.
    pub jobs: BTreeMap<String, u64>,
    /// Number of receipts.
    pub receipts: u64,
    /// Jobs with more than one receipt; zero in a ledger that is whole.
    pub jobs_paid_twice: u64,
    /// Succeeded jobs without a receipt, and receipts of jobs that did not succeed; zero in a
    /// ledger that is whole.
    pub mismatched_jobs: u64,
    /// Payers whose open jobs hold other credits than are set aside; zero in a ledger that is whole.
    pub mismatched_holds: u64,
    /// Accounts whose kept balance of credits is not the sum of their postings; zero in a ledger that
    /// is whole.
    pub mismatched_balances: u64,
}

impl LedgerCheck {
    /// Whether everything that must hold does.
    pub fn holds(&self) -> bool {
        self.sums_micro.values().all(|sum| sum.0 == 0)
            && self.jobs_paid_twice == 0
            && self.mismatched_jobs == 0
            && self.mismatched_holds == 0
            && self.mismatched_balances == 0
            && self.balances.iter().all(|b| match (&b.account, b.points.points()) {
                // Receipts are of points.
                (Account::Node(_), Some(_)) => b.balance_micro == b.receipts_micro,
                (account, None) => *account == Account::Issuance || b.balance_micro.0 >= 0,
                _ => true,
            })
    }
}

/// Adds up the books at `database`, also while a coordinator serves from them.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn ledger_check(database: &Database) -> Result<LedgerCheck, CoordinatorError> {
    Ok(Beside::open(database).await?.ledger_check().await?)
}

/// Whether there are books at `database`.
///
/// # Errors
/// `Store`.
pub async fn exist(database: &Database) -> Result<bool, CoordinatorError> {
    match Beside::open(database).await {
        Ok(_) => Ok(true),
        Err(CoordinatorError::NoBooks(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The address of the coordinator's key to which the books at `database` belong; `None` for books that
/// were made before it was kept, and not opened since.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn coordinator_of(database: &Database) -> Result<Option<String>, CoordinatorError> {
    Ok(Beside::open(database).await?.coordinator().await?)
}

/// The network to which the books at `database` belong; `None` for books that were begun and never opened.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn network_of(database: &Database) -> Result<Option<String>, CoordinatorError> {
    Ok(Beside::open(database).await?.opened_for().await?)
}

/// Waits until no coordinator holds the books at `database`, also while their server is away. Whoever
/// opens them then may still be too late. A file is not waited for. Whoever stands by keeps `payload_key`,
/// its copy of the payload key, no older than that of the books.
///
/// # Errors
/// `Store`.
pub async fn until_free(database: &Database, payload_key: &Path) -> Result<(), CoordinatorError> {
    Ok(crate::store::until_free(database, payload_key).await?)
}

/// Jobs and nodes at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JobsOverview {
    /// Waiting for a node.
    pub queued: usize,
    /// Being computed.
    pub leased: usize,
    /// Connected nodes.
    pub nodes: usize,
    /// For each model that may be asked for: how many connected nodes serve it.
    pub models: BTreeMap<ModelId, usize>,
    /// What these nodes consist of, by kind: `whole` cards (or nodes that are one), `group`s of cards,
    /// `instance`s and `slice`s of cards.
    pub units: BTreeMap<&'static str, UnitsOverview>,
}

/// Units of one kind at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UnitsOverview {
    /// How many there are.
    pub units: usize,
    /// How many jobs they take at once.
    pub slots: usize,
    /// How many they have.
    pub busy: usize,
}
