//! Epochs of a network: made when a week is over, kept for good, served to everybody.
//!
//! What is in no epoch yet and lies before the end of a week makes that week's epoch, so a payment that
//! was written late goes into the next one and a published file stays as it is. File and entries are
//! published in one transaction; a program that dies before has published nothing and makes the same
//! epoch after its start.

use std::collections::BTreeMap;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use neurino_core::audit::AuditRules;
use neurino_core::{LeaseId, NodeId, PointsKind};
use neurino_ledger::epoch::{
    Address, Before, Entries, Entry, EpochError, EpochFile, EpochInputs, EpochRules, Hash, Holder,
    Movement, PerKind, Snapshot, Source, Work, canonical_json, epoch_of, nodes_of, weigh,
};
use neurino_wallet::IdentityKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::admin::noted;
use crate::admin_log::digest;
use crate::audits::{AUDIT_PAYER, key_of, secret_of};
use crate::coordinator::Coordinator;
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};
use crate::router::owner_of;
use crate::store::{Beside, NewEpoch, NewEpochEntry, RawMovement};

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

/// Whose books an epoch is made of, and by which rules.
pub(crate) struct Maker<'a> {
    pub(crate) network: &'a str,
    pub(crate) rules: EpochRules,
    pub(crate) key: &'a IdentityKey,
    pub(crate) escrow_ms: i64,
}

/// What the books say of a week that is over.
struct Week {
    epoch: i64,
    movements: Vec<RawMovement>,
    previous: Option<EpochFile>,
    holdings: Option<Holdings>,
    votes: BTreeMap<NodeId, u64>,
}

/// The epoch that goes on at a time as seen by those before it: they are over, and so is the time in
/// which their pay can be called back.
fn over_at(now_ms: i64, settle_wait_ms: i64, escrow_ms: i64) -> i64 {
    epoch_of(now_ms.saturating_sub(settle_wait_ms).saturating_sub(escrow_ms))
}

/// Reads what the next due epoch needs, or nothing if none is due. A macro, as books are read both from
/// their coordinator and beside it.
macro_rules! due {
    ($books:expr, $maker:expr, $now_ms:expr) => {{
        let over_ms = over_at($now_ms, $maker.rules.settle_wait_ms, $maker.escrow_ms);
        let over_ms = EpochInputs::bounds(over_ms).map_or(0, |(start_ms, _)| start_ms);
        let first_ms = $books.first_unmarked(over_ms).await?;
        let previous = $books.last_epoch().await?;
        let previous = previous.map(|body| read_file(&body)).transpose()?;
        let after = previous.as_ref().map_or(0, |file| file.inputs.epoch + 1);
        let epoch = first_ms.map(|first_ms| epoch_of(first_ms).max(after));
        let bounds = epoch.and_then(|epoch| Some((epoch, EpochInputs::bounds(epoch)?)));
        match bounds.filter(|(_, (_, end_ms))| *end_ms <= over_ms) {
            None => None,
            Some((epoch, (_, end_ms))) => {
                let holdings = $books.holdings(end_ms).await?;
                Some(Week {
                    epoch,
                    movements: $books.unmarked(end_ms, $now_ms).await?,
                    previous,
                    holdings: holdings.map(|body| read_holdings(&body)).transpose()?,
                    votes: $books.votes_for_nodes().await?,
                })
            }
        }
    }};
}

fn read_file(body: &str) -> Result<EpochFile, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::Unreadable { what: "epoch" })
}

fn read_holdings(body: &str) -> Result<Holdings, StoreError> {
    serde_json::from_str(body).map_err(|_| StoreError::Unreadable { what: "holdings" })
}

/// Who belongs to whom.
struct Kinship<'a> {
    rewards: BTreeMap<Address, Address>,
    payers: BTreeMap<&'a str, Address>,
}

impl<'a> Kinship<'a> {
    fn of(holdings: Option<&'a Holdings>) -> Self {
        let bindings = holdings.iter().flat_map(|held| &held.bindings);
        let payers = holdings.iter().flat_map(|held| &held.payers);
        Self {
            rewards: bindings.map(|bound| (bound.identity, bound.reward)).collect(),
            payers: payers.map(|own| (own.payer.as_str(), own.owner)).collect(),
        }
    }

    /// Who is paid for a node: whom its key is bound to, or the address in its name.
    fn reward(&self, node: &NodeId) -> Option<Address> {
        let address: Address = owner_of(node).parse().ok()?;
        Some(self.rewards.get(&address).copied().unwrap_or(address))
    }

    fn source(&self, raw: &RawMovement) -> Source {
        let payer = raw.payer.as_str();
        if raw.is_audit || payer == AUDIT_PAYER {
            return Source::Audit;
        }
        // The program that runs the network asks for itself.
        if payer == "local" {
            return Source::Own;
        }
        let named = payer
            .parse()
            .ok()
            .map(|address| self.rewards.get(&address).copied().unwrap_or(address));
        let owner = self.payers.get(payer).copied().or(named);
        if owner.is_some() && owner == self.reward(&raw.receipt.node) {
            return Source::Own;
        }
        if raw.charged.0 > 0 { Source::Paid } else { Source::Free }
    }
}

/// The entries of a week, weighed and in order.
fn entries_of(
    week: &Week,
    rules: &EpochRules,
    kinship: &Kinship<'_>,
    salt: [u8; 32],
) -> Vec<Entry> {
    let alias = |payer: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&salt).expect("a key of any length fits");
        mac.update(payer.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..12])
    };
    let mut entries: Vec<(Entry, Option<i64>)> = week
        .movements
        .iter()
        .map(|raw| {
            let (receipt, source) = (&raw.receipt, kinship.source(raw));
            let fee = if source == Source::Paid { raw.charged.0 - raw.returned.0 } else { 0 };
            let entry = Entry {
                at_ms: raw.at_ms,
                lease: receipt.lease,
                movement: raw.movement,
                job: receipt.job,
                node: receipt.node.clone(),
                model: receipt.model.clone(),
                points: receipt.quote.points,
                points_micro: receipt.quote.amount_micro.0,
                organic_micro: 0,
                payer: alias(raw.payer.as_str()),
                source,
                fee_micro: fee.max(0),
            };
            (entry, raw.organic_micro)
        })
        .collect();
    entries.sort_by_key(|(entry, _)| entry.place());
    let rewards = || entries.iter().filter(|(entry, _)| entry.movement == Movement::Reward);
    let works: Vec<Work<'_>> = rewards()
        .map(|(entry, _)| Work {
            payer: &entry.payer,
            kind: entry.points,
            points_micro: entry.points_micro,
            fee_micro: entry.fee_micro,
            source: entry.source,
        })
        .collect();
    let counted: BTreeMap<LeaseId, i64> =
        rewards().map(|(entry, _)| entry.lease).zip(weigh(rules, &works)).collect();
    let entries = entries.into_iter().map(|(mut entry, before)| {
        // What came after a reward moves what the reward counted, in this epoch or an earlier one.
        entry.organic_micro = before.or(counted.get(&entry.lease).copied()).unwrap_or(0);
        entry
    });
    entries.collect()
}

/// What nodes still owe.
fn debts(previous: Option<&EpochFile>) -> BTreeMap<NodeId, (PerKind<i64>, PerKind<i64>)> {
    let nodes = previous.iter().flat_map(|file| &file.result.nodes);
    let debts =
        nodes.map(|node| (node.node.clone(), (node.carried_micro, node.organic_carried_micro)));
    let nothing = PerKind { llama: 0, waifu: 0 };
    debts.filter(|(_, debt)| *debt != (nothing, nothing)).collect()
}

/// Computes and signs an epoch.
fn made(
    maker: &Maker<'_>,
    week: &Week,
    now_ms: i64,
    salt: [u8; 32],
) -> Result<NewEpoch, EpochError> {
    let fit = EpochError::Number("the number of the epoch");
    let (start_ms, end_ms) = EpochInputs::bounds(week.epoch).ok_or(fit)?;
    let kinship = Kinship::of(week.holdings.as_ref());
    let entries = entries_of(week, &maker.rules, &kinship, salt);
    let previous = week.previous.as_ref();
    let about = |node: &NodeId| {
        let votes = week.votes.get(node).copied().unwrap_or(0);
        kinship.reward(node).map(|reward| (reward, votes))
    };
    let (nodes, demand) = nodes_of(&entries, &debts(previous), about)?;
    let paid = |holder: &&Holder| nodes.iter().any(|node| node.reward == holder.reward);
    let holders = week.holdings.iter().flat_map(|held| &held.holders);
    let holders = holders.filter(paid).copied().collect();
    let before = previous.iter().flat_map(|file| &file.result.accounts);
    let before = before.map(|own| Before { reward: own.reward, cumulative: own.cumulative });
    let inputs = EpochInputs {
        network: maker.network.to_owned(),
        epoch: week.epoch,
        start_ms,
        end_ms,
        claimable_from_ms: end_ms.saturating_add(maker.escrow_ms),
        previous_sha256: previous.map(EpochFile::sha256).transpose()?,
        rules: maker.rules.clone(),
        audit_key: Some(Hash(key_of(&secret_of(maker.key, maker.network), week.epoch))),
        snapshot: week.holdings.as_ref().map(|held| held.snapshot),
        entries: Entries::of(&entries)?,
        demand,
        holders,
        before: before.collect(),
        nodes,
    };
    let mut file = EpochFile::new(inputs, maker.key.address())?;
    file.signature = maker.key.sign(&file.message()?);
    let entries = entries.iter().map(|entry| {
        Ok(NewEpochEntry {
            lease: entry.lease,
            movement: entry.movement,
            organic_micro: entry.organic_micro,
            line: canonical_json(entry)?,
        })
    });
    Ok(NewEpoch {
        epoch: week.epoch,
        previous: previous.map(|file| file.inputs.epoch),
        made_at_ms: now_ms,
        summary: summary(&file)?,
        body: file.canonical()?,
        entries: entries.collect::<Result<_, EpochError>>()?,
    })
}

/// What lists show of an epoch.
fn summary(file: &EpochFile) -> Result<String, EpochError> {
    let (inputs, result) = (&file.inputs, &file.result);
    let pool = |kind: PointsKind| {
        let (demand, pool) = (inputs.demand.of(kind), result.pools.of(kind));
        json!({ "demand": demand, "base": pool.base, "dynamic": pool.dynamic })
    };
    canonical_json(&json!({
        "epoch": inputs.epoch,
        "start_ms": inputs.start_ms,
        "end_ms": inputs.end_ms,
        "claimable_from_ms": inputs.claimable_from_ms,
        "rules": inputs.rules.name,
        "entries": inputs.entries,
        "accounts": result.accounts.len(),
        "paid": result.paid,
        "total": result.total,
        "root": result.root,
        "sha256": Hash(Sha256::digest(file.canonical()?).into()),
        "pools": { "llama": pool(PointsKind::Llama), "waifu": pool(PointsKind::Waifu) },
    }))
}

/// Makes every epoch that is due in books that another process may serve from; returns the numbers of
/// those that were made. `now_ms` is in milliseconds since the Unix epoch.
///
/// # Errors
/// `NoBooks`, `OtherCoordinator` (the key is not that of the books), `Epoch`, `Store`.
pub async fn make_beside(
    database: &Database,
    rules: &str,
    key: &IdentityKey,
    now_ms: i64,
) -> Result<Vec<i64>, CoordinatorError> {
    let mut books = open(database).await?;
    books.check_coordinator(&key.address()).await?;
    let network = books.network().await?;
    let rules = EpochRules::named(rules)?;
    let escrow_ms = AuditRules::built_in().escrow_ms;
    let maker = Maker { network: &network, rules, key, escrow_ms };
    let mut all = Vec::new();
    while let Some(week) = due!(books, maker, now_ms) {
        let epoch = made(&maker, &week, now_ms, rand::random())?;
        if !books.publish_epoch(&epoch).await? {
            // The coordinator itself was quicker.
            break;
        }
        all.push(epoch.epoch);
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
    /// `Epoch`, `Store`.
    pub async fn make_epochs(self: &Arc<Self>, now_ms: i64) -> Result<Vec<i64>, CoordinatorError> {
        let Some(rules) = &self.config.epoch_rules else { return Ok(Vec::new()) };
        let rules = EpochRules::named(rules)?;
        let mut all = Vec::new();
        loop {
            let escrow_ms = self.config.audits.escrow_ms;
            let (key, network) = (Arc::clone(&self.config.key), self.config.network.clone());
            let asking = Maker { network: &network, rules: rules.clone(), key: &key, escrow_ms };
            let Some(week) = due!(self.store, asking, now_ms) else { return Ok(all) };
            let rules = rules.clone();
            // A busy network's week takes a while; other tasks go on meanwhile.
            let computed = tokio::task::spawn_blocking(move || {
                let maker = Maker { network: &network, rules, key: &key, escrow_ms };
                made(&maker, &week, now_ms, rand::random())
            });
            let computed = computed.await.map_err(|error| {
                tracing::error!(%error, "an epoch could not be computed");
                EpochError::Number("something")
            })?;
            let epoch = computed?;
            let (number, entries) = (epoch.epoch, epoch.entries.len());
            if !self.store.publish_epoch(epoch).await? {
                return Ok(all);
            }
            tracing::info!(epoch = number, entries, "published epoch {number}: {entries} entries");
            all.push(number);
        }
    }

    /// The epoch of a time that is the last one that may be made by then.
    pub(crate) fn epoch_over(&self, now_ms: i64) -> Option<i64> {
        let rules = EpochRules::named(self.config.epoch_rules.as_deref()?).ok()?;
        Some(over_at(now_ms, rules.settle_wait_ms, self.config.audits.escrow_ms) - 1)
    }
}
