//! Changes to the books by somebody who is not their coordinator. The database itself keeps two
//! processes apart.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::audit::Record;
use neurino_core::{MicroCredits, ModelId, NodeId};
use neurino_ledger::{Account, Event, PayerId};

use super::admin_log;
use super::audits::{self, AuditState, Conviction, StoredAudit};
use super::sql::{Connection, query};
use super::{StoredKey, parse_id, postgres, read, sqlite, writer};
use crate::admin_log::Act;
use crate::books::LedgerCheck;
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};

/// What the books say of audits.
pub(crate) struct AuditBooks {
    pub(crate) records: BTreeMap<NodeId, Record>,
    pub(crate) counts: BTreeMap<NodeId, BTreeMap<AuditState, u64>>,
    pub(crate) convictions: Vec<Conviction>,
    pub(crate) validators: BTreeSet<NodeId>,
    pub(crate) newest: Vec<StoredAudit>,
}

/// Books that another process may have open. A transaction that is not committed goes with them.
pub(crate) struct Beside(pub(super) Connection);

impl Beside {
    /// Opens books that exist, and brings their schema up to date.
    pub(crate) async fn open(database: &Database) -> Result<Self, CoordinatorError> {
        let opened = match database {
            Database::Sqlite(path) if !path.is_file() => None,
            Database::Sqlite(path) => Some(sqlite::beside(path).await?),
            Database::Postgres(books) => postgres::beside(books).await?,
        };
        opened.map(Self).ok_or_else(|| CoordinatorError::NoBooks(database.clone()))
    }

    /// The address of the coordinator's key, if the books have been opened with one.
    pub(crate) async fn coordinator(&mut self) -> Result<Option<String>, StoreError> {
        super::coordinator_of(&mut self.0).await
    }

    /// The name of the network, if the books have been opened for one.
    pub(crate) async fn opened_for(&mut self) -> Result<Option<String>, StoreError> {
        super::network_of(&mut self.0).await
    }

    /// Refuses a key that is not the coordinator's.
    pub(crate) async fn check_coordinator(&mut self, own: &str) -> Result<(), CoordinatorError> {
        super::check_coordinator(&mut self.0, own).await
    }

    /// Stores a key, and writes down that it was made.
    pub(crate) async fn add_key(&mut self, key: &StoredKey, act: &Act) -> Result<(), StoreError> {
        self.0.begin_writing().await?;
        writer::add_key(&mut self.0, key, act).await?;
        Ok(self.0.run("COMMIT").await?)
    }

    /// Opens books for an act: what follows is written together with the line that tells of it, by
    /// [`Beside::end_act`], or not at all.
    pub(crate) async fn begin_act(database: &Database) -> Result<Self, CoordinatorError> {
        let mut books = Self::open(database).await?;
        books.0.begin_writing().await.map_err(StoreError::from)?;
        Ok(books)
    }

    /// Writes an act down and ends it. Of one that was refused nothing but the line is kept.
    pub(crate) async fn end_act(
        &mut self,
        act: &Act,
        refused: bool,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        if refused {
            self.0.run("ROLLBACK").await?;
            self.0.begin_writing().await?;
        }
        admin_log::append(&mut self.0, act, at_ms).await?;
        Ok(self.0.run("COMMIT").await?)
    }

    /// Lines of the log behind a number, at most so many.
    pub(crate) async fn log(&mut self, after: i64, most: u32) -> Result<Vec<String>, StoreError> {
        admin_log::lines(&mut self.0, after, most).await
    }

    pub(crate) async fn keys(&mut self) -> Result<Vec<StoredKey>, StoreError> {
        read::keys(&mut self.0).await
    }

    /// Whether there was such a key to revoke.
    pub(crate) async fn revoke_key(&mut self, id: &str, at_ms: i64) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE api_key SET revoked_at_ms = $1, old_sha256 = NULL, old_until_ms = NULL \
             WHERE id = $2 AND revoked_at_ms IS NULL",
        )
        .bind(at_ms)
        .bind(id)
        .execute(&mut self.0)
        .await?;
        Ok(done == 1)
    }

    pub(crate) async fn rotate_key(
        &mut self,
        id: &str,
        sha256: &[u8; 32],
        old_until_ms: i64,
    ) -> Result<Option<StoredKey>, StoreError> {
        let done = query(
            "UPDATE api_key SET old_sha256 = sha256, old_until_ms = $1, sha256 = $2 \
             WHERE id = $3 AND revoked_at_ms IS NULL",
        )
        .bind(old_until_ms)
        .bind(sha256.as_slice())
        .bind(id)
        .execute(&mut self.0)
        .await?;
        if done != 1 {
            return Ok(None);
        }
        Ok(self.keys().await?.into_iter().find(|key| key.id == id))
    }

    /// Books a deposit once, within an act, and returns the payer's balance.
    pub(crate) async fn deposit(
        &mut self,
        payer: &PayerId,
        event: &Event,
        at_ms: i64,
    ) -> Result<MicroCredits, CoordinatorError> {
        let booking = &mut self.0;
        let account = Account::Payer(payer.clone()).to_string();
        let (known, asked) = booked(booking, event, &account).await?;
        if known.is_some_and(|known| known != asked) {
            return Err(CoordinatorError::Deposit(OTHER_AMOUNT));
        }
        if known.is_none() {
            let after = balance(booking, &account).await?.checked_add(asked);
            // What everybody bought is one sum as well, and shown without its sign.
            let issued = balance(booking, &Account::Issuance.to_string()).await?;
            let issued = issued.checked_sub(asked).and_then(i64::checked_neg);
            let (Some(after), Some(_)) = (after, issued) else {
                let message = "the books cannot count so many credits; book a smaller amount";
                return Err(CoordinatorError::Deposit(message));
            };
            if after < 0 {
                return Err(CoordinatorError::Deposit("the payer has fewer credits than that"));
            }
            writer::post(booking, event, at_ms).await?;
        }
        Ok(MicroCredits(balance(booking, &account).await?))
    }

    /// Books once, within an act, that somebody who earned credits was paid for them. What came since
    /// `escrow_from_ms` stays: it can still be called back. Returns the balance.
    pub(crate) async fn pay_out(
        &mut self,
        account: &Account,
        event: &Event,
        escrow_from_ms: i64,
        at_ms: i64,
    ) -> Result<MicroCredits, CoordinatorError> {
        let (booking, account) = (&mut self.0, account.to_string());
        let (known, asked) = booked(booking, event, &account).await?;
        if known.is_some_and(|known| known != asked) {
            return Err(CoordinatorError::PayOut(OTHER_AMOUNT.into()));
        }
        let before = balance(booking, &account).await?;
        if known.is_none() {
            let held = in_escrow(booking, &account, escrow_from_ms).await?;
            let free = before.saturating_sub(held).max(0);
            if free.saturating_add(asked) < 0 {
                let (has, free) = (MicroCredits(before), MicroCredits(free));
                let message = format!(
                    "{account} has {has} credits, of which {free} can be paid out; the others can \
                     still be called back"
                );
                return Err(CoordinatorError::PayOut(message));
            }
            writer::post(booking, event, at_ms).await?;
        }
        Ok(MicroCredits(balance(booking, &account).await?))
    }

    pub(crate) async fn credit_balances(
        &mut self,
    ) -> Result<Vec<(Account, MicroCredits)>, StoreError> {
        let rows: Vec<(String, i64)> =
            query("SELECT account, amount_micro FROM credit_balance ORDER BY account")
                .fetch_all(&mut self.0)
                .await?;
        rows.into_iter()
            .map(|(account, amount)| Ok((parse_id(&account, "account")?, MicroCredits(amount))))
            .collect()
    }

    pub(crate) async fn set_pod(
        &mut self,
        model: &ModelId,
        deployer: Option<&PayerId>,
        votes: u32,
        shareable: bool,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO pod (model, deployer, votes, shareable) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (model) DO UPDATE SET deployer = excluded.deployer, \
             votes = excluded.votes, shareable = excluded.shareable",
        )
        .bind(model.as_str())
        .bind(deployer.map(PayerId::as_str))
        .bind(votes)
        .bind(u32::from(shareable))
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    pub(crate) async fn set_node_votes(
        &mut self,
        node: &NodeId,
        votes: u32,
    ) -> Result<(), StoreError> {
        query(
            "INSERT INTO node_vote (node, votes) VALUES ($1, $2) \
             ON CONFLICT (node) DO UPDATE SET votes = excluded.votes",
        )
        .bind(node.as_str())
        .bind(votes)
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    /// Nodes' records, their audits by state, convictions, validators, and the newest audits.
    pub(crate) async fn audits(&mut self, newest: u32) -> Result<AuditBooks, StoreError> {
        let c = &mut self.0;
        Ok(AuditBooks {
            records: audits::records(c).await?,
            counts: audits::counts(c).await?,
            convictions: audits::convictions(c).await?,
            validators: audits::validators(c).await?,
            newest: audits::newest(c, newest).await?,
        })
    }

    pub(crate) async fn appeal(
        &mut self,
        node: &NodeId,
        words: &str,
        at_ms: i64,
    ) -> Result<bool, StoreError> {
        audits::appeal(&mut self.0, node, words, at_ms).await
    }

    pub(crate) async fn decide_appeal(
        &mut self,
        node: &NodeId,
        granted: bool,
        note: &str,
        at_ms: i64,
    ) -> Result<bool, StoreError> {
        audits::decide_appeal(&mut self.0, node, granted, note, at_ms).await
    }

    /// Trusts a node's word, or no longer; `false` if that was so before.
    pub(crate) async fn set_validator(
        &mut self,
        node: &NodeId,
        trusted: bool,
    ) -> Result<bool, StoreError> {
        let words = if trusted {
            "INSERT INTO validator (node) VALUES ($1) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM validator WHERE node = $1"
        };
        let done = query(words).bind(node.as_str()).execute(&mut self.0).await?;
        Ok(done == 1)
    }

    /// Forgets whose key signs for a reward address of the original protocol; `false` if there was none.
    pub(crate) async fn unbind(&mut self, reward: &str) -> Result<bool, StoreError> {
        let done = query("DELETE FROM original_binding WHERE reward = $1")
            .bind(reward.to_owned())
            .execute(&mut self.0)
            .await?;
        // A running coordinator has it in memory.
        query(
            "UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) \
             WHERE key = 'settings_version'",
        )
        .execute(&mut self.0)
        .await?;
        Ok(done == 1)
    }

    pub(crate) async fn ledger_check(&mut self) -> Result<LedgerCheck, StoreError> {
        read::ledger_check(&mut self.0).await
    }
}

const OTHER_AMOUNT: &str =
    "another amount was booked under this reference; choose another reference";

/// What an event that is in the books already moved of an account, and what it is to move.
async fn booked(
    c: &mut Connection,
    event: &Event,
    account: &str,
) -> Result<(Option<i64>, i64), StoreError> {
    let known = query("SELECT amount_micro FROM posting WHERE event = $1 AND account = $2")
        .bind(event.id().to_string())
        .bind(account)
        .fetch_optional(c)
        .await?;
    let asked = event.postings().iter().find(|line| line.account.to_string() == account);
    Ok((known, asked.map_or(0, |line| line.amount_micro.0)))
}

/// An account's parts of charges since a time that were not called back.
async fn in_escrow(c: &mut Connection, account: &str, from_ms: i64) -> Result<i64, StoreError> {
    let held: Option<i64> = query(
        "SELECT CAST(COALESCE(SUM(p.amount_micro), 0) AS BIGINT) FROM posting p \
         WHERE p.account = $1 AND p.points = 'credit' AND p.kind = 'credit_charge' \
         AND p.at_ms >= $2 AND NOT EXISTS \
         (SELECT 1 FROM clawback b WHERE b.lease = p.event AND b.restored_at_ms IS NULL)",
    )
    .bind(account)
    .bind(from_ms)
    .fetch_optional(c)
    .await?;
    Ok(held.unwrap_or(0))
}

async fn balance(c: &mut Connection, account: &str) -> Result<i64, StoreError> {
    let balance: Option<i64> = query("SELECT amount_micro FROM credit_balance WHERE account = $1")
        .bind(account)
        .fetch_optional(c)
        .await?;
    Ok(balance.unwrap_or(0))
}
