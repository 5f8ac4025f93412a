//! Epochs of a network: made when a week is over, kept for good, served to everybody.
//!
//! What is in no epoch yet and lies before the end of a week makes that week's epoch, so a payment that
//! was written late goes into the next one and a published file stays as it is. [`make`] reads the week
//! page by page and drafts its entries a few at a time; the file, which comes last, publishes them. A
//! program that dies before has published nothing and makes the epoch anew after its start.

pub(crate) mod make;

use std::collections::BTreeMap;
use std::sync::Arc;

use neurino_core::JobId;
use neurino_core::audit::AuditRules;
use neurino_ledger::PayerId;
use neurino_ledger::epoch::{Address, EpochEditions, EpochError, Holder, Snapshot, canonical_json};
use neurino_wallet::IdentityKey;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::admin::noted;
use crate::admin_log::digest;
use crate::coordinator::Coordinator;
use crate::database::Database;
use crate::error::CoordinatorError;
use crate::store::Beside;
use make::{EpochBooks, Maker, Sizes};

/// Most entries of a list that are kept of holdings.
const HOLDINGS_MAX: usize = 100_000;

/// What those who are paid held at some time, and who belongs together, as somebody who watches the
/// chain says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdings {
    /// On which chain and when.
    pub snapshot: Snapshot,
    /// Pieces and stakes.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// Who is paid for an identity, if not the identity's own address.
    #[serde(default)]
    pub bindings: Vec<Binding>,
    /// Payers that belong to somebody who is paid: their work on own nodes is no demand.
    #[serde(default)]
    pub payers: Vec<Owner>,
}

/// Who is paid for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Address of the key that signs.
    pub identity: Address,
    /// Address that is paid.
    pub reward: Address,
}

/// To whom a payer belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The payer's account.
    pub payer: String,
    /// Address that is paid.
    pub owner: Address,
}

impl Holdings {
    /// Sorts the lists, and refuses what is there twice or too much.
    ///
    /// # Errors
    /// `Holdings`.
    pub fn tidied(mut self) -> Result<Self, CoordinatorError> {
        let lengths = [self.holders.len(), self.bindings.len(), self.payers.len()];
        if lengths.iter().any(|length| *length > HOLDINGS_MAX) {
            return Err(CoordinatorError::Holdings("a list has more than 100,000 entries"));
        }
        self.holders.sort_by_key(|holder| holder.reward);
        self.bindings.sort_by_key(|binding| binding.identity);
        self.payers.sort_by(|a, b| a.payer.cmp(&b.payer));
        let unique = self.holders.is_sorted_by(|a, b| a.reward < b.reward)
            && self.bindings.is_sorted_by(|a, b| a.identity < b.identity)
            && self.payers.is_sorted_by(|a, b| a.payer < b.payer);
        if unique { Ok(self) } else { Err(CoordinatorError::Holdings("something is in it twice")) }
    }
}

/// Makes every epoch that is due in books that another process may serve from; returns the numbers of
/// those that were made. `now_ms` is in milliseconds since the Unix epoch.
///
/// # Errors
/// `NoBooks`, `OtherCoordinator` (the key is not that of the books), `EpochUnderWay`, `EpochMoved`, `Epoch`,
/// `Store`.
pub async fn make_beside(
    database: &Database,
    rules: &str,
    key: &IdentityKey,
    now_ms: i64,
) -> Result<Vec<i64>, CoordinatorError> {
    let mut books = open(database).await?;
    books.check_coordinator(&key.address()).await?;
    let network = books.network().await?;
    let maker = Maker {
        network: &network,
        rules: &EpochEditions::named(rules)?,
        key,
        escrow_ms: AuditRules::built_in().escrow_ms,
        sizes: Sizes::default(),
    };
    let mut books = EpochBooks::Beside(&mut books);
    let mut all = Vec::new();
    while let Some(mut week) = make::drafted(&mut books, &maker, now_ms, rand::random()).await? {
        let epoch = make::made(&maker, &mut week, now_ms)?;
        if !week.publish(&mut books, epoch).await? {
            // The coordinator itself was quicker.
            break;
        }
        all.push(week.epoch());
    }
    Ok(all)
}

/// The file of an epoch, or of the newest, if it was made.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn file_beside(
    database: &Database,
    epoch: Option<i64>,
) -> Result<Option<String>, CoordinatorError> {
    let mut books = open(database).await?;
    Ok(match epoch {
        Some(epoch) => books.epoch_file(epoch).await?,
        None => books.last_epoch().await?,
    })
}

/// Entries of an epoch from a place on, a line each.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn entries_beside(
    database: &Database,
    epoch: i64,
    from: i64,
    most: u32,
) -> Result<Vec<String>, CoordinatorError> {
    Ok(open(database).await?.epoch_lines(epoch, from, most).await?)
}

/// Who asked for jobs, of those that the books know: whoever runs the network learns who a payer of an
/// epoch is.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn payers_beside(
    database: &Database,
    jobs: &[JobId],
) -> Result<BTreeMap<JobId, PayerId>, CoordinatorError> {
    let mut books = open(database).await?;
    let mut payers = BTreeMap::new();
    for job in jobs {
        if let Some(payer) = books.payer_of(*job).await? {
            payers.insert(*job, payer);
        }
    }
    Ok(payers)
}

/// Keeps what was held at a time, for the epochs that end after it. A repeat changes nothing.
///
/// # Errors
/// `Holdings` (twice the same entry, or other holdings of that time are kept), `NoBooks`, `Store`.
pub async fn keep_holdings(
    database: &Database,
    holdings: Holdings,
) -> Result<(), CoordinatorError> {
    let holdings = holdings.tidied()?;
    let body = canonical_json(&holdings)?;
    let mut books = Beside::begin_act(database).await?;
    let kept = books.keep_holdings(holdings.snapshot.taken_at_ms, &body).await?;
    let other = "other holdings are kept of that very time";
    let outcome = if kept { Ok(()) } else { Err(CoordinatorError::Holdings(other)) };
    // Whose they are stays in the books; the digest tells one list from another.
    let about = json!({ "snapshot": holdings.snapshot, "holders": holdings.holders.len(),
        "sha256": digest(&body) });
    noted(&mut books, "holdings kept", about, outcome).await
}

async fn open(database: &Database) -> Result<Beside, CoordinatorError> {
    Beside::open(database).await
}

impl Coordinator {
    /// Makes every epoch that is due at a time in milliseconds since the Unix epoch, and returns their
    /// numbers. The coordinator calls this by itself; doing so again makes nothing twice.
    ///
    /// # Errors
    /// `EpochUnderWay`, `EpochMoved`, `Epoch`, `Store`.
    pub async fn make_epochs(self: &Arc<Self>, now_ms: i64) -> Result<Vec<i64>, CoordinatorError> {
        let Some(rules) = &self.config.epoch_rules else { return Ok(Vec::new()) };
        let rules = EpochEditions::named(rules)?;
        let escrow_ms = self.config.audits.escrow_ms;
        let (key, network) = (Arc::clone(&self.config.key), self.config.network.clone());
        let sizes = Sizes::default();
        let maker = Maker { network: &network, rules: &rules, key: &key, escrow_ms, sizes };
        let mut books = EpochBooks::Own(&self.store);
        let mut all = Vec::new();
        while let Some(mut week) = make::drafted(&mut books, &maker, now_ms, rand::random()).await?
        {
            let (key, network, rules) = (Arc::clone(&key), network.clone(), rules.clone());
            // Shares of a busy network take a while; other tasks go on meanwhile.
            let computed = tokio::task::spawn_blocking(move || {
                let maker = Maker { network: &network, rules: &rules, key: &key, escrow_ms, sizes };
                make::made(&maker, &mut week, now_ms).map(|epoch| (week, epoch))
            });
            let computed = computed.await.map_err(|error| {
                tracing::error!(%error, "an epoch could not be computed");
                EpochError::Number("something")
            })?;
            let (week, epoch) = computed?;
            let (number, entries) = (week.epoch(), epoch.entries);
            if !week.publish(&mut books, epoch).await? {
                break;
            }
            tracing::info!(epoch = number, entries, "published epoch {number}: {entries} entries");
            all.push(number);
        }
        Ok(all)
    }

    /// The epoch of a time that is the last one that may be made by then.
    pub(crate) fn epoch_over(&self, now_ms: i64) -> Option<i64> {
        let rules = EpochEditions::named(self.config.epoch_rules.as_deref()?).ok()?;
        Some(
            make::over_at(now_ms, rules.at(now_ms).settle_wait_ms, self.config.audits.escrow_ms)
                - 1,
        )
    }
}
