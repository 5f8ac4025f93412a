//! What whoever runs a network changes in its books: keys, credits, models, votes. Works beside a
//! running coordinator, which notices within a second.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use neurino_core::audit::{AuditRules, Record, TrustStage};
use neurino_core::{JobId, MicroCredits, MicroPoints, ModelId, NodeId};
use neurino_ledger::epoch::Address;
use neurino_ledger::{
    Account, EntryKind, Event, PayerId, Unit, event_of_deposit, event_of_pay_out,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::admin_log::{Act, LogCheck};
use crate::coordinator::now_ms;
use crate::database::Database;
use crate::error::CoordinatorError;
use crate::files::FileRoot;
use crate::keys::{ApiKey, ApiKeyInfo, KeyTerms, draw, draw_secret};
use crate::router::party_of;
use crate::store::{AuditState, Beside, Conviction, Evidence, StoredAudit};

/// How long the secret before a rotation stays good, in milliseconds.
pub const ROTATION_MS: u64 = 24 * 3600 * 1000;

/// Lines of the log that are read at once.
const LOG_PAGE: u32 = 1000;

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
    open(database).await?.add_key(&stored, &Act::key_made(&key.info)).await?;
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
    let mut books = Beside::begin_act(database).await?;
    let revoked = books.revoke_key(id, now_ms()).await?;
    let outcome = if revoked { Ok(()) } else { Err(CoordinatorError::NoSuchKey(id.to_owned())) };
    noted(&mut books, "key revoked", json!({ "key": id }), outcome).await
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
    let mut books = Beside::begin_act(database).await?;
    let key = books.rotate_key(id, &sha256, until_ms).await?;
    let key = key.ok_or_else(|| CoordinatorError::NoSuchKey(id.to_owned()));
    let about = json!({ "key": id, "old_good_until_ms": until_ms });
    let key = noted(&mut books, "key rotated", about, key).await?;
    Ok(ApiKey::new(&key, secret))
}

/// Books credits that a payer bought, or gave back if the amount is negative. A repeat with the same
/// reference books nothing. Returns the balance.
///
/// # Errors
/// `Deposit` (nothing, more than there is or the books can count, or another amount under the same
/// reference), `NoBooks`, `Store`.
pub async fn deposit(
    database: &Database,
    payer: &PayerId,
    amount: MicroCredits,
    reference: &str,
) -> Result<MicroCredits, CoordinatorError> {
    if amount.0 == 0 {
        return Err(CoordinatorError::Deposit("the amount is nothing"));
    }
    if !is_reference(reference) {
        return Err(CoordinatorError::Deposit(NO_REFERENCE));
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
    let mut books = Beside::begin_act(database).await?;
    let booked = books.deposit(payer, &event, now_ms()).await;
    let about = json!({ "payer": payer, "amount_micro": amount, "reference": reference });
    noted(&mut books, "credits booked", about, booked).await
}

const NO_REFERENCE: &str = "a reference is 1 to 200 printable bytes";

fn is_reference(text: &str) -> bool {
    !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control)
}

/// Books that somebody who earned credits (a node, a deployer, a frontend, a model's voters, the network) was
/// paid for them outside of the books. What can still be called back stays. A repeat with the same reference
/// books nothing. Returns the balance.
///
/// # Errors
/// `PayOut` (an account that earns nothing, nothing or less, more than there is to pay out, or another amount
/// under the same reference), `NoBooks`, `Store`.
pub async fn pay_out(
    database: &Database,
    account: &Account,
    amount: MicroCredits,
    reference: &str,
) -> Result<MicroCredits, CoordinatorError> {
    let refused = |why: &str| Err(CoordinatorError::PayOut(why.to_owned()));
    if amount.0 <= 0 {
        return refused("the amount is nothing");
    }
    if !is_reference(reference) {
        return refused(NO_REFERENCE);
    }
    let earns = match account {
        Account::Node(_)
        | Account::Deployer(_)
        | Account::Frontend(_)
        | Account::Voters(_)
        | Account::Protocol => true,
        Account::Pool | Account::Issuance | Account::Payer(_) | Account::Held(_) => false,
    };
    if !earns {
        return refused(
            "only `node:`, `deployer:`, `frontend:` and `voters:` with a name, and `protocol`, earn \
             credits; a payer gets back what it bought by a negative deposit",
        );
    }
    let event = Event::transfer(
        event_of_pay_out(account, reference),
        EntryKind::CreditPayOut,
        Unit::Credit,
        account.clone(),
        Account::Issuance,
        MicroPoints(amount.0),
    )
    .map_err(|_| CoordinatorError::PayOut("the amount is too large".into()))?;
    let mut books = Beside::begin_act(database).await?;
    let now = now_ms();
    let escrow_from_ms = now.saturating_sub(AuditRules::built_in().escrow_ms);
    let booked = books.pay_out(account, &event, escrow_from_ms, now).await;
    let about = json!({ "account": account, "amount_micro": amount, "reference": reference });
    noted(&mut books, "credits paid out", about, booked).await
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

/// Says who brought a model, how many votes it has, and whether it may be computed on a part of a card,
/// beside strangers' work.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn set_pod(
    database: &Database,
    model: &ModelId,
    deployer: Option<&PayerId>,
    votes: u32,
    shareable: bool,
) -> Result<(), CoordinatorError> {
    let mut books = Beside::begin_act(database).await?;
    books.set_pod(model, deployer, votes, shareable).await?;
    let about = json!({
        "model": model, "deployer": deployer, "votes": votes, "shareable": shareable
    });
    noted(&mut books, "pod set", about, Ok(())).await
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
    let mut books = Beside::begin_act(database).await?;
    books.set_node_votes(node, votes).await?;
    noted(&mut books, "votes set", json!({ "node": node, "votes": votes }), Ok(())).await
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
    // A record is its owner's, and shown with each of the nodes.
    for node in books.counts.keys().chain(books.records.keys()) {
        let is_shown = !books.counts.contains_key(node)
            && books.counts.keys().any(|counted| party_of(counted) == *node);
        if is_shown {
            continue;
        }
        nodes.entry(node.clone()).or_insert_with(|| {
            let record = books.records.get(&party_of(node)).copied().unwrap_or_default();
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
    let mut books = Beside::begin_act(database).await?;
    let changed = books.set_validator(node, trusted).await?;
    let about = json!({ "node": node, "trusted": trusted, "changed": changed });
    noted(&mut books, "validator set", about, Ok(changed)).await
}

/// Files of models whose pieces nodes can be asked to show.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn file_roots(database: &Database) -> Result<Vec<FileRoot>, CoordinatorError> {
    Ok(open(database).await?.file_roots().await?)
}

/// Sets the files of a model that nodes are asked to show; with none of them nobody is asked. Returns how
/// many there were before.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn set_file_roots(
    database: &Database,
    model: &ModelId,
    files: &[FileRoot],
) -> Result<u64, CoordinatorError> {
    let mut books = Beside::begin_act(database).await?;
    let before = books.set_file_roots(model, files).await?;
    let roots: Vec<Value> =
        files.iter().map(|file| json!({ "file": file.file, "root": file.root })).collect();
    let about = json!({ "model": model, "files": roots, "before": before });
    let what = match (files.is_empty(), before) {
        (false, _) => "file roots set",
        (true, 0) => "no file roots to forget",
        (true, _) => "file roots forgotten",
    };
    noted(&mut books, what, about, Ok(before)).await
}

/// Frees a reward address of the original protocol from the identity key that its first paid result bound it
/// to: the next paid result binds it anew. For an owner who lost that key, or whose address somebody else
/// signed for first.
///
/// # Errors
/// `Binding` (none of that address), `NoBooks`, `Store`.
pub async fn unbind(database: &Database, reward: Address) -> Result<(), CoordinatorError> {
    let reward = reward.to_string();
    let mut books = Beside::begin_act(database).await?;
    let freed = books.unbind(&reward).await?;
    let missing = "no identity key is bound to that reward address";
    let outcome = if freed { Ok(()) } else { Err(CoordinatorError::Binding(missing)) };
    noted(&mut books, "miner unbound", json!({ "reward": reward }), outcome).await
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
    let mut books = Beside::begin_act(database).await?;
    let taken = books.appeal(node, words, now_ms()).await?;
    let missing = "there is no conviction of that node whose appeal is open; `audits` lists them";
    let outcome = if taken { Ok(()) } else { Err(CoordinatorError::Appeal(missing)) };
    // The owner's words stay with the conviction.
    noted(&mut books, "appeal taken down", json!({ "node": node }), outcome).await
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
    let mut books = Beside::begin_act(database).await?;
    let decided = books.decide_appeal(node, granted, note, now_ms()).await?;
    let missing = "no conviction of that node stands; `audits` lists them";
    let outcome = if decided { Ok(()) } else { Err(CoordinatorError::Appeal(missing)) };
    let about = json!({ "node": node, "granted": granted });
    noted(&mut books, "appeal decided", about, outcome).await
}

/// What the audit of a job's result is about, for whoever decides an appeal: what was asked, and the
/// results. `payload_key` is the file that opens it. That somebody looked is written down.
///
/// # Errors
/// `Appeal` (no such audit), `PayloadKey`, `NoBooks`, `Store`.
pub async fn evidence(
    database: &Database,
    payload_key: &Path,
    job: JobId,
) -> Result<Evidence, CoordinatorError> {
    let mut books = Beside::begin_act(database).await?;
    let found = books.evidence(database, payload_key, job).await?;
    let missing = "that job's result was not audited; `audits` lists those that were";
    let outcome = found.ok_or(CoordinatorError::Appeal(missing));
    noted(&mut books, "evidence read", json!({ "job": job }), outcome).await
}

/// Lines of the log of acts behind a number, oldest first: JSON of who did what when, and what came of
/// it.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn log_lines(
    database: &Database,
    after: i64,
    most: u32,
) -> Result<Vec<String>, CoordinatorError> {
    Ok(open(database).await?.log(after, most).await?)
}

/// Whether every line of the log of acts carries the digest of the one before.
///
/// # Errors
/// `NoBooks`, `Store`.
pub async fn log_check(database: &Database) -> Result<LogCheck, CoordinatorError> {
    let mut books = open(database).await?;
    let (mut check, mut after) = (LogCheck::new(), 0);
    loop {
        let lines = books.log(after, LOG_PAGE).await?;
        for line in &lines {
            check.read(line);
        }
        after += lines.len() as i64;
        if lines.len() < LOG_PAGE as usize || !check.holds() {
            return Ok(check);
        }
    }
}

/// Writes down what was done, or why it was refused, together with the act itself: a program that is killed
/// leaves both or neither.
pub(crate) async fn noted<T>(
    books: &mut Beside,
    what: &'static str,
    about: Value,
    outcome: Result<T, CoordinatorError>,
) -> Result<T, CoordinatorError> {
    let act = Act::done(what, about).with_outcome(&outcome);
    // An act that the books could not do is told to whoever asked; they could not keep it either.
    if !matches!(outcome, Err(CoordinatorError::Store(_))) {
        books.end_act(&act, outcome.is_err(), now_ms()).await?;
    }
    outcome
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
