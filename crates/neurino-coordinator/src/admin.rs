//! What whoever runs a network changes in its books: keys, credits, models, votes. Works beside a
//! running coordinator, which notices within a second.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::audit::{AuditRules, Record, TrustStage};
use neurino_core::{MicroCredits, MicroPoints, ModelId, NodeId};
use neurino_ledger::{Account, EntryKind, Event, PayerId, Unit, event_of_deposit};
use serde::Serialize;

use crate::coordinator::now_ms;
use crate::database::Database;
use crate::error::CoordinatorError;
use crate::keys::{ApiKey, ApiKeyInfo, KeyTerms, draw, draw_secret};
use crate::store::{AuditState, Beside, Conviction, StoredAudit};

/// How long the secret before a rotation stays good, in milliseconds.
pub const ROTATION_MS: u64 = 24 * 3600 * 1000;

/// Makes a gateway key that may ask for everything and costs nothing.
///
/// # Errors
/// `KeyName`, `NoBooks`, `Store`.
pub async fn create_api_key(database: &Database, name: &str) -> Result<ApiKey, CoordinatorError> {
    create_api_key_with(database, name, KeyTerms::default()).await
}

/// Makes a gateway key on some terms.
///
/// # Errors
/// `KeyName`, `KeyTerms`, `NoBooks`, `Store`.
pub async fn create_api_key_with(
    database: &Database,
    name: &str,
    terms: KeyTerms,
) -> Result<ApiKey, CoordinatorError> {
    let (key, stored) = draw(name, terms)?;
    open(database).await?.add_key(&stored).await?;
    Ok(key)
}

/// The keys there are, revoked ones too.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn api_keys(database: &Database) -> Result<Vec<ApiKeyInfo>, CoordinatorError> {
    let keys = open(database).await?.keys().await?;
    Ok(keys.iter().map(ApiKeyInfo::of).collect())
}

/// Closes a key for good. Jobs that it sent go on.
///
/// # Errors
/// `NoSuchKey` (also for one that is revoked), `NoBooks`, `Store`.
pub async fn revoke_api_key(database: &Database, id: &str) -> Result<(), CoordinatorError> {
    let revoked = open(database).await?.revoke_key(id, now_ms()).await?;
    if revoked { Ok(()) } else { Err(CoordinatorError::NoSuchKey(id.to_owned())) }
}

/// Gives a key another secret. The one before stays good for a while, so that its user has time to
/// change over; zero milliseconds close it at once.
///
/// # Errors
/// `NoSuchKey`, `NoBooks`, `Store`.
pub async fn rotate_api_key(
    database: &Database,
    id: &str,
    keep_old_ms: u64,
) -> Result<ApiKey, CoordinatorError> {
    let (secret, sha256) = draw_secret();
    let until_ms = now_ms().saturating_add_unsigned(keep_old_ms);
    let mut books = open(database).await?;
    let key = books.rotate_key(id, &sha256, until_ms).await?;
    let key = key.ok_or_else(|| CoordinatorError::NoSuchKey(id.to_owned()))?;
    Ok(ApiKey::new(&key, secret))
}

/// Books credits that a payer bought, or gave back if the amount is negative. A repeat with the same
/// reference books nothing. Returns the balance.
///
/// # Errors
/// `Deposit` (nothing, more than there is, or another amount under the same reference), `NoBooks`,
/// `Store`.
pub async fn deposit(
    database: &Database,
    payer: &PayerId,
    amount: MicroCredits,
    reference: &str,
) -> Result<MicroCredits, CoordinatorError> {
    if amount.0 == 0 {
        return Err(CoordinatorError::Deposit("the amount is nothing"));
    }
    if reference.is_empty() || reference.len() > 200 || reference.chars().any(char::is_control) {
        return Err(CoordinatorError::Deposit("a reference is 1 to 200 printable bytes"));
    }
    let event = Event::transfer(
        event_of_deposit(payer, reference),
        EntryKind::CreditDeposit,
        Unit::Credit,
        Account::Issuance,
        Account::Payer(payer.clone()),
        MicroPoints(amount.0),
    )
    .map_err(|_| CoordinatorError::Deposit("the amount is too large"))?;
    open(database).await?.deposit(payer, &event, now_ms()).await
}

/// What payers of credits have and what is set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CreditAccount {
    /// To spend.
    pub balance: MicroCredits,
    /// Set aside for open jobs.
    pub held: MicroCredits,
}

/// Everybody's credits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Credits {
    /// Of those that pay.
    pub payers: BTreeMap<String, CreditAccount>,
    /// Of those that earn: nodes, deployers, frontends, voters, the network.
    pub earned: BTreeMap<String, MicroCredits>,
    /// All that were ever bought, less those given back.
    pub issued: MicroCredits,
}

/// Everybody's credits.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn credits(database: &Database) -> Result<Credits, CoordinatorError> {
    let mut all = Credits::default();
    for (account, amount) in open(database).await?.credit_balances().await? {
        match account {
            Account::Payer(payer) => {
                all.payers.entry(payer.to_string()).or_default().balance = amount;
            }
            Account::Held(payer) => all.payers.entry(payer.to_string()).or_default().held = amount,
            Account::Issuance => all.issued = MicroCredits(-amount.0),
            earner => drop(all.earned.insert(earner.to_string(), amount)),
        }
    }
    Ok(all)
}

/// Says who brought a model, and how many votes it has.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn set_pod(
    database: &Database,
    model: &ModelId,
    deployer: Option<&PayerId>,
    votes: u32,
) -> Result<(), CoordinatorError> {
    Ok(open(database).await?.set_pod(model, deployer, votes).await?)
}

/// Says how many votes a node has.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn set_node_votes(
    database: &Database,
    node: &NodeId,
    votes: u32,
) -> Result<(), CoordinatorError> {
    Ok(open(database).await?.set_node_votes(node, votes).await?)
}

/// A node as its audits show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditedNode {
    /// How closely it is watched.
    pub stage: TrustStage,
    /// What its audits came to.
    pub record: Record,
    /// Its audits by state.
    pub audits: BTreeMap<AuditState, u64>,
}

/// The audits of a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audits {
    /// Nodes that were audited.
    pub nodes: BTreeMap<NodeId, AuditedNode>,
    /// Nodes whose word decides.
    pub validators: BTreeSet<NodeId>,
    /// Convictions with their appeals, oldest first.
    pub convictions: Vec<Conviction>,
    /// The newest audits, newest first.
    pub newest: Vec<StoredAudit>,
}

/// The audits of a network, with so many of the newest.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn audits(database: &Database, newest: u32) -> Result<Audits, CoordinatorError> {
    let books = open(database).await?.audits(newest).await?;
    let rules = AuditRules::built_in();
    let mut nodes = BTreeMap::new();
    for node in books.records.keys().chain(books.counts.keys()) {
        nodes.entry(node.clone()).or_insert_with(|| {
            let record = books.records.get(node).copied().unwrap_or_default();
            let audits = books.counts.get(node).cloned().unwrap_or_default();
            AuditedNode { stage: record.stage(&rules, false), record, audits }
        });
    }
    let (validators, convictions) = (books.validators, books.convictions);
    Ok(Audits { nodes, validators, convictions, newest: books.newest })
}

/// Trusts a node's word when two others differ, or no longer. Returns whether that is news.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn set_validator(
    database: &Database,
    node: &NodeId,
    trusted: bool,
) -> Result<bool, CoordinatorError> {
    Ok(open(database).await?.set_validator(node, trusted).await?)
}

/// Takes down what the owner of a convicted node says.
///
/// # Errors
/// `Appeal` (no conviction that is not decided, or words that cannot be kept), `NoBooks`, `Store`.
pub async fn appeal(
    database: &Database,
    node: &NodeId,
    words: &str,
) -> Result<(), CoordinatorError> {
    check_words(words)?;
    if open(database).await?.appeal(node, words, now_ms()).await? {
        return Ok(());
    }
    Err(CoordinatorError::Appeal(
        "there is no conviction of that node whose appeal is open; `audits` lists them",
    ))
}

/// Decides whether a conviction stands. Granting an appeal gives back what was called back, and lets
/// the node begin anew.
///
/// # Errors
/// `Appeal` (no conviction that stands, or words that cannot be kept), `NoBooks`, `Store`.
pub async fn decide_appeal(
    database: &Database,
    node: &NodeId,
    granted: bool,
    note: &str,
) -> Result<(), CoordinatorError> {
    check_words(note)?;
    if open(database).await?.decide_appeal(node, granted, note, now_ms()).await? {
        return Ok(());
    }
    Err(CoordinatorError::Appeal("no conviction of that node stands; `audits` lists them"))
}

fn check_words(words: &str) -> Result<(), CoordinatorError> {
    // Databases keep no text with a zero byte.
    if words.trim().is_empty() || words.len() > 2000 || words.contains('\0') {
        return Err(CoordinatorError::Appeal("the words of an appeal are 1 to 2000 bytes"));
    }
    Ok(())
}

/// A token for the admin listener: 256 random bits in hexadecimal digits.
pub fn draw_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

async fn open(database: &Database) -> Result<Beside, CoordinatorError> {
    Beside::open(database).await
}
