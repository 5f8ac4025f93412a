//! Changes to the books by somebody who is not their coordinator. SQLite itself keeps two processes
//! apart; waiting covers the other one's commits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use neurino_core::audit::Record;
use neurino_core::{MicroCredits, ModelId, NodeId};
use neurino_ledger::{Account, Event, PayerId};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::audits::{self, AuditState, Conviction, StoredAudit};
use super::{StoredKey, parse_id, read, writer};
use crate::books::LedgerCheck;
use crate::error::{CoordinatorError, StoreError};

/// What the books say of audits.
pub(crate) struct AuditBooks {
    pub(crate) records: BTreeMap<NodeId, Record>,
    pub(crate) counts: BTreeMap<NodeId, BTreeMap<AuditState, u64>>,
    pub(crate) convictions: Vec<Conviction>,
    pub(crate) validators: BTreeSet<NodeId>,
    pub(crate) newest: Vec<StoredAudit>,
}

/// Books that another process may have open.
pub(crate) struct Beside(pub(super) SqliteConnection);

impl Beside {
    /// Opens books that exist, and brings their schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(Duration::from_secs(5))
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        sqlx::migrate!("./migrations").run_direct(None, &mut connection, false).await?;
        Ok(Self(connection))
    }

    pub(crate) async fn add_key(&mut self, key: &StoredKey) -> Result<(), StoreError> {
        writer::add_key(&mut self.0, key).await
    }

    pub(crate) async fn keys(&mut self) -> Result<Vec<StoredKey>, StoreError> {
        read::keys(&mut self.0).await
    }

    /// Whether there was such a key to revoke.
    pub(crate) async fn revoke_key(&mut self, id: &str, at_ms: i64) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE api_key SET revoked_at_ms = ?, old_sha256 = NULL, old_until_ms = NULL \
             WHERE id = ? AND revoked_at_ms IS NULL",
        )
        .bind(at_ms)
        .bind(id)
        .execute(&mut self.0)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn rotate_key(
        &mut self,
        id: &str,
        sha256: &[u8; 32],
        old_until_ms: i64,
    ) -> Result<Option<StoredKey>, StoreError> {
        let done = sqlx::query(
            "UPDATE api_key SET old_sha256 = sha256, old_until_ms = ?, sha256 = ? \
             WHERE id = ? AND revoked_at_ms IS NULL",
        )
        .bind(old_until_ms)
        .bind(sha256.as_slice())
        .bind(id)
        .execute(&mut self.0)
        .await?;
        if done.rows_affected() != 1 {
            return Ok(None);
        }
        Ok(self.keys().await?.into_iter().find(|key| key.id == id))
    }

    /// Books a deposit once, and returns the payer's balance.
    pub(crate) async fn deposit(
        &mut self,
        payer: &PayerId,
        event: &Event,
        at_ms: i64,
    ) -> Result<MicroCredits, CoordinatorError> {
        let fault = StoreError::from;
        let mut booking = self.0.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
        let account = Account::Payer(payer.clone()).to_string();
        let known: Option<i64> =
            sqlx::query_scalar("SELECT amount_micro FROM posting WHERE event = ? AND account = ?")
                .bind(event.id().to_string())
                .bind(&account)
                .fetch_optional(&mut *booking)
                .await
                .map_err(fault)?;
        let asked = event.postings().iter().find(|line| line.account.to_string() == account);
        let asked = asked.map_or(0, |line| line.amount_micro.0);
        if known.is_some_and(|known| known != asked) {
            return Err(CoordinatorError::Deposit(
                "another amount was booked under this reference; choose another reference",
            ));
        }
        let before = balance(&mut booking, &account).await.map_err(fault)?;
        if known.is_none() {
            if before.saturating_add(asked) < 0 {
                return Err(CoordinatorError::Deposit("the payer has fewer credits than that"));
            }
            writer::post(&mut booking, event, at_ms).await?;
        }
        let after = balance(&mut booking, &account).await.map_err(fault)?;
        booking.commit().await.map_err(fault)?;
        Ok(MicroCredits(after))
    }

    pub(crate) async fn credit_balances(
        &mut self,
    ) -> Result<Vec<(Account, MicroCredits)>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT account, amount_micro FROM credit_balance ORDER BY account")
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
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO pod (model, deployer, votes) VALUES (?, ?, ?) \
             ON CONFLICT (model) DO UPDATE SET deployer = excluded.deployer, votes = excluded.votes",
        )
        .bind(model.as_str())
        .bind(deployer.map(PayerId::as_str))
        .bind(votes)
        .execute(&mut self.0)
        .await?;
        Ok(())
    }

    pub(crate) async fn set_node_votes(
        &mut self,
        node: &NodeId,
        votes: u32,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO node_vote (node, votes) VALUES (?, ?) \
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
        let mut deciding = self.0.begin_with("BEGIN IMMEDIATE").await?;
        let decided = audits::decide_appeal(&mut deciding, node, granted, note, at_ms).await?;
        deciding.commit().await?;
        Ok(decided)
    }

    /// Trusts a node's word, or no longer; `false` if that was so before.
    pub(crate) async fn set_validator(
        &mut self,
        node: &NodeId,
        trusted: bool,
    ) -> Result<bool, StoreError> {
        let words = if trusted {
            "INSERT OR IGNORE INTO validator (node) VALUES (?)"
        } else {
            "DELETE FROM validator WHERE node = ?"
        };
        let done = sqlx::query(words).bind(node.as_str()).execute(&mut self.0).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) async fn ledger_check(&mut self) -> Result<LedgerCheck, StoreError> {
        read::ledger_check(&mut self.0).await
    }
}

async fn balance(c: &mut SqliteConnection, account: &str) -> Result<i64, sqlx::Error> {
    let balance: Option<i64> =
        sqlx::query_scalar("SELECT amount_micro FROM credit_balance WHERE account = ?")
            .bind(account)
            .fetch_optional(c)
            .await?;
    Ok(balance.unwrap_or(0))
}
