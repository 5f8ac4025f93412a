//! The one writer: collects writes, commits them together, answers after the commit.

use std::time::Duration;

use neurino_core::{JobId, MicroCredits, NodeId};
use neurino_ledger::{Event, PayerId};
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::audits::{AuditWrite, AuditWritten};
use super::pictures::Kept;
use super::records::{
    Admitted, Binding, Close, Grant, Hold, NewJob, Release, Settled, Settlement, StoredKey,
};
use super::{ms, parse_id, receipt_of, to_json};
use crate::error::StoreError;
use crate::terms::release_event;

/// Most writes of one commit.
const GROUP_MAX: usize = 200;
/// Longest time the first write of a group waits for others.
const GROUP_WAIT: Duration = Duration::from_millis(5);

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write and where its answer goes.
pub(super) enum Write {
    Admit(Box<NewJob>, Reply<Admitted>),
    Grant(Box<Grant>, Reply<bool>),
    Release(Box<Release>, Reply<bool>),
    Settle(Box<Settlement<Kept>>, Reply<Settled>),
    Close(Box<Close>, Reply<bool>),
    Bind(Box<Binding>, Reply<()>),
    AddKey(Box<StoredKey>, Reply<()>),
    AddUptime(Box<UptimeDay>, Reply<()>),
    Audit(Box<AuditWrite>, Reply<AuditWritten>),
    Voucher(Box<super::Booking>, Reply<super::Booked>),
    Epoch(Box<super::NewEpoch>, Reply<bool>),
    Prune(i64, Reply<u64>),
    Stop(oneshot::Sender<()>),
}

/// Seconds that nodes were connected, and the day, since the Unix epoch.
pub(super) type UptimeDay = (i64, Vec<(NodeId, u64)>);

/// Sends an answer once the fate of its group is known.
type Ack = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// Runs until `Stop` arrives or the last sender is gone.
pub(super) async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Write>) {
    let mut stop = None;
    // A lone write is committed at once; only under load is it worth waiting for company.
    let mut under_load = false;
    while stop.is_none() {
        let Some(first) = queue.recv().await else { break };
        let mut group = Vec::with_capacity(GROUP_MAX);
        let full_at = Instant::now() + GROUP_WAIT;
        let mut next = Some(first);
        while let Some(write) = next.take() {
            if let Write::Stop(reply) = write {
                stop = Some(reply);
                break;
            }
            group.push(write);
            if group.len() == GROUP_MAX {
                break;
            }
            next = match queue.try_recv() {
                Ok(write) => Some(write),
                Err(_) if under_load => {
                    tokio::time::timeout_at(full_at, queue.recv()).await.unwrap_or(None)
                }
                Err(_) => None,
            };
        }
        under_load = group.len() > 1;
        if !group.is_empty() {
            commit(&mut connection, group).await;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(?error, "the books were not closed in order");
    }
    if let Some(reply) = stop {
        // Nobody waiting for the end is fine.
        let _ = reply.send(());
    }
}

/// Applies a group in one transaction and answers each write.
async fn commit(connection: &mut SqliteConnection, group: Vec<Write>) {
    let mut acks: Vec<Ack> = Vec::with_capacity(group.len());
    let mut fault = execute(connection, "BEGIN IMMEDIATE").await.err();
    for write in group {
        let ack = apply(connection, write, &mut fault).await;
        acks.push(ack);
    }
    if fault.is_none() {
        fault = execute(connection, "COMMIT").await.err();
    }
    let fate = match &fault {
        None => Ok(()),
        Some(error) => {
            tracing::error!(?error, writes = acks.len(), "a group of writes was not committed");
            // Fails when SQLite has rolled back by itself; either way no transaction is left.
            let _ = execute(connection, "ROLLBACK").await;
            Err(error.to_string())
        }
    };
    for ack in acks {
        ack(fate.as_ref().copied().map_err(String::as_str));
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Applies one write; a fault of its own undoes it alone, a fault of the file sets `fault`.
async fn apply(
    connection: &mut SqliteConnection,
    write: Write,
    fault: &mut Option<sqlx::Error>,
) -> Ack {
    macro_rules! guarded {
        ($reply:ident, $body:expr) => {{
            let result = if fault.is_some() {
                Err(StoreError::Closed)
            } else if let Err(error) = execute(connection, "SAVEPOINT one").await {
                *fault = Some(error);
                Err(StoreError::Closed)
            } else {
                let result = $body.await;
                if result.is_err()
                    && let Err(error) = execute(connection, "ROLLBACK TO one").await
                {
                    *fault = Some(error);
                } else if let Err(error) = execute(connection, "RELEASE one").await {
                    *fault = Some(error);
                }
                result
            };
            ack($reply, result)
        }};
    }
    match write {
        Write::Admit(job, reply) => guarded!(reply, admit(connection, &job)),
        Write::Grant(record, reply) => guarded!(reply, grant(connection, &record)),
        Write::Release(record, reply) => guarded!(reply, release(connection, &record)),
        Write::Settle(record, reply) => guarded!(reply, settle(connection, &record)),
        Write::Close(record, reply) => guarded!(reply, close(connection, &record)),
        Write::Bind(binding, reply) => guarded!(reply, bind(connection, &binding)),
        Write::AddKey(key, reply) => guarded!(reply, add_key(connection, &key)),
        Write::AddUptime(day, reply) => guarded!(reply, add_uptime(connection, &day)),
        Write::Audit(write, reply) => {
            guarded!(reply, super::audits::apply(connection, &write))
        }
        Write::Voucher(booking, reply) => {
            guarded!(reply, super::vouchers::book(connection, &booking))
        }
        Write::Epoch(epoch, reply) => {
            guarded!(reply, super::epochs::publish(connection, &epoch))
        }
        Write::Prune(before_ms, reply) => guarded!(reply, prune(connection, before_ms)),
        Write::Stop(reply) => Box::new(move |_| drop(reply)),
    }
}

fn ack<T: Send + 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Ack {
    Box::new(move |fate| {
        let answer = match fate {
            Ok(()) => result,
            Err(words) => Err(StoreError::Commit(words.to_owned())),
        };
        // A caller that stopped waiting finds the outcome in the books.
        let _ = reply.send(answer);
    })
}

async fn admit(c: &mut SqliteConnection, job: &NewJob) -> Result<Admitted, StoreError> {
    let spec = to_json(&job.spec);
    if let Some(key) = &job.key {
        let known: Option<(String, Option<String>)> =
            sqlx::query_as("SELECT id, spec FROM job WHERE payer = ? AND idempotency_key = ?")
                .bind(job.payer.as_str())
                .bind(key.as_str())
                .fetch_optional(&mut *c)
                .await?;
        if let Some((id, known_spec)) = known {
            let same = known_spec.as_deref() == Some(&spec);
            let id: JobId = parse_id(&id, "job id")?;
            return Ok(if same { Admitted::Known(id) } else { Admitted::Conflict });
        }
    }
    if let Some(hold) = &job.hold
        && let Some(refused) = uncovered(c, job, hold).await?
    {
        return Ok(refused);
    }
    let hold = job.hold.as_ref();
    sqlx::query(
        "INSERT INTO job (id, payer, idempotency_key, rule_set, spec, state, no_node_wait_ms, \
         created_at_ms, class, attempts_max, frontend, price_list, held_micro, api_key, placement) \
         VALUES (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(job.id.to_string())
    .bind(job.payer.as_str())
    .bind(job.key.as_ref().map(neurino_core::IdempotencyKey::as_str))
    .bind(&job.rule_set)
    .bind(spec)
    .bind(ms(job.no_node_wait_ms))
    .bind(job.at_ms)
    .bind(job.class.as_str())
    .bind(job.attempts_max)
    .bind(job.frontend.as_ref().map(neurino_core::FrontendId::as_str))
    .bind(hold.map(|hold| &hold.price_list))
    .bind(hold.map_or(0, |hold| hold.amount.0))
    .bind(hold.map(|hold| &hold.key))
    .bind(job.placement.as_ref().map(to_json))
    .execute(&mut *c)
    .await?;
    if let Some(hold) = hold {
        post(c, &hold.event, job.at_ms).await?;
        add_spend(c, &hold.key, job.at_ms, hold.amount.0).await?;
    }
    Ok(Admitted::New)
}

/// Why credits or budget do not cover a job, if they do not.
async fn uncovered(
    c: &mut SqliteConnection,
    job: &NewJob,
    hold: &Hold,
) -> Result<Option<Admitted>, StoreError> {
    let account = neurino_ledger::Account::Payer(job.payer.clone()).to_string();
    let balance: Option<i64> =
        sqlx::query_scalar("SELECT amount_micro FROM credit_balance WHERE account = ?")
            .bind(account)
            .fetch_optional(&mut *c)
            .await?;
    let balance = balance.unwrap_or(0);
    if balance < hold.amount.0 {
        return Ok(Some(Admitted::Uncovered(MicroCredits(balance))));
    }
    let Some(budget) = hold.budget else { return Ok(None) };
    let spent: Option<i64> = sqlx::query_scalar(
        "SELECT amount_micro FROM key_spend \
         WHERE api_key = ? AND month = strftime('%Y-%m', ? / 1000, 'unixepoch')",
    )
    .bind(&hold.key)
    .bind(job.at_ms)
    .fetch_optional(c)
    .await?;
    let left = budget.0.saturating_sub(spent.unwrap_or(0));
    Ok((left < hold.amount.0).then_some(Admitted::OverBudget(MicroCredits(left.max(0)))))
}

/// Adds to what a key's jobs of a month cost; the month is that of the job's acceptance.
async fn add_spend(
    c: &mut SqliteConnection,
    key: &str,
    accepted_at_ms: i64,
    amount_micro: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO key_spend (api_key, month, amount_micro) \
         VALUES (?, strftime('%Y-%m', ? / 1000, 'unixepoch'), ?) \
         ON CONFLICT (api_key, month) DO UPDATE SET amount_micro = amount_micro + excluded.amount_micro",
    )
    .bind(key)
    .bind(accepted_at_ms)
    .bind(amount_micro)
    .execute(c)
    .await?;
    Ok(())
}

/// Writes an event's postings. An event that is in the ledger already breaks the primary key.
pub(super) async fn post(
    c: &mut SqliteConnection,
    event: &Event,
    at_ms: i64,
) -> Result<(), StoreError> {
    for posting in event.postings() {
        sqlx::query(
            "INSERT INTO posting (event, account, kind, points, amount_micro, at_ms) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(posting.event.to_string())
        .bind(posting.account.to_string())
        .bind(posting.kind.as_str())
        .bind(posting.points.as_str())
        .bind(posting.amount_micro.0)
        .bind(at_ms)
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

/// Gives back what was set aside for a job that ended unpaid.
async fn release_hold(c: &mut SqliteConnection, job: JobId, at_ms: i64) -> Result<(), StoreError> {
    let held: Option<(String, i64, String, i64)> = sqlx::query_as(
        "SELECT payer, held_micro, api_key, created_at_ms FROM job \
         WHERE id = ? AND held_micro > 0 AND api_key IS NOT NULL",
    )
    .bind(job.to_string())
    .fetch_optional(&mut *c)
    .await?;
    let Some((payer, held, key, accepted_at_ms)) = held else { return Ok(()) };
    let payer = PayerId::new(payer).map_err(|_| StoreError::Unreadable { what: "payer" })?;
    let event = release_event(job, &payer, MicroCredits(held))
        .map_err(|_| StoreError::Unreadable { what: "hold" })?;
    post(c, &event, at_ms).await?;
    add_spend(c, &key, accepted_at_ms, -held).await
}

async fn add_uptime(c: &mut SqliteConnection, day: &UptimeDay) -> Result<(), StoreError> {
    let (day, nodes) = day;
    for (node, seconds) in nodes {
        sqlx::query(
            "INSERT INTO uptime (node, day, seconds) VALUES (?, ?, ?) \
             ON CONFLICT (node, day) DO UPDATE SET seconds = seconds + excluded.seconds",
        )
        .bind(node.as_str())
        .bind(day)
        .bind(ms(*seconds))
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

async fn grant(c: &mut SqliteConnection, grant: &Grant) -> Result<bool, StoreError> {
    let touched = sqlx::query(
        "UPDATE job SET state = 'leased', fence = ?2 WHERE id = ?1 AND state = 'queued' AND fence < ?2",
    )
    .bind(grant.job.to_string())
    .bind(grant.fence)
    .execute(&mut *c)
    .await?
    .rows_affected();
    if touched != 1 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO attempt (lease, job, fence, node, state, granted_at_ms, deadline_ms) \
         VALUES (?, ?, ?, ?, 'running', ?, ?)",
    )
    .bind(grant.lease.to_string())
    .bind(grant.job.to_string())
    .bind(grant.fence)
    .bind(grant.node.as_str())
    .bind(grant.granted_at_ms)
    .bind(grant.deadline_ms)
    .execute(c)
    .await?;
    Ok(true)
}

async fn release(c: &mut SqliteConnection, release: &Release) -> Result<bool, StoreError> {
    let touched = sqlx::query(
        "UPDATE job SET state = ?, failures = failures + ?, losses = losses + ?, error = ?, \
         finished_at_ms = ? WHERE id = ? AND state = 'leased' AND fence = ?",
    )
    .bind(if release.give_up.is_some() { "failed" } else { "queued" })
    .bind(i64::from(release.end.is_failure()))
    .bind(i64::from(release.end == super::AttemptEnd::Lost))
    .bind(release.give_up.as_ref().map(to_json))
    .bind(release.give_up.as_ref().map(|_| release.at_ms))
    .bind(release.job.to_string())
    .bind(release.fence)
    .execute(&mut *c)
    .await?
    .rows_affected();
    if touched != 1 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE attempt SET state = ?, ended_at_ms = ? WHERE lease = ? AND state = 'running'",
    )
    .bind(release.end.as_str())
    .bind(release.at_ms)
    .bind(release.lease.to_string())
    .execute(&mut *c)
    .await?;
    if release.give_up.is_some() {
        release_hold(c, release.job, release.at_ms).await?;
    }
    Ok(true)
}

async fn settle(
    c: &mut SqliteConnection,
    settlement: &Settlement<Kept>,
) -> Result<Settled, StoreError> {
    let receipt = &settlement.receipt;
    let touched = sqlx::query(
        "UPDATE job SET state = 'succeeded', output = ?, finished_at_ms = ? \
         WHERE id = ? AND state = 'leased' AND fence = ?",
    )
    .bind(to_json(&settlement.output))
    .bind(receipt.settled_at_ms)
    .bind(receipt.job.to_string())
    .bind(settlement.fence)
    .execute(&mut *c)
    .await?
    .rows_affected();
    if touched != 1 {
        return Ok(match receipt_of(c, receipt.lease).await? {
            Some(before) => Settled::Before(Box::new(before)),
            None => Settled::Stale,
        });
    }
    let touched = sqlx::query(
        "UPDATE attempt SET state = 'paid', ended_at_ms = ? \
         WHERE lease = ? AND job = ? AND fence = ? AND node = ? AND state = 'running'",
    )
    .bind(receipt.settled_at_ms)
    .bind(receipt.lease.to_string())
    .bind(receipt.job.to_string())
    .bind(settlement.fence)
    .bind(receipt.node.as_str())
    .execute(&mut *c)
    .await?
    .rows_affected();
    if touched != 1 {
        // The error undoes the step above: job and attempt must agree before anybody is paid.
        return Err(StoreError::Unreadable { what: "attempt" });
    }
    if let Kept::Image { sha256, .. } = &settlement.output {
        sqlx::query("INSERT INTO picture (job, sha256) VALUES (?, ?)")
            .bind(receipt.job.to_string())
            .bind(sha256.to_string())
            .execute(&mut *c)
            .await?;
    }
    if let Some(mark) = &settlement.mark {
        super::marks::add(c, receipt.job, mark).await?;
    }
    post(c, &settlement.event, receipt.settled_at_ms).await?;
    charged(c, receipt.job, settlement.charged).await?;
    sqlx::query(
        "INSERT INTO receipt (lease, job, node, points, amount_micro, settled_at_ms, body) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(receipt.lease.to_string())
    .bind(receipt.job.to_string())
    .bind(receipt.node.as_str())
    .bind(receipt.quote.points.as_str())
    .bind(receipt.quote.amount_micro.0)
    .bind(receipt.settled_at_ms)
    .bind(to_json(receipt))
    .execute(&mut *c)
    .await?;
    if let Some(audit) = &settlement.audit {
        super::audits::add(c, receipt, audit).await?;
    }
    Ok(Settled::Paid)
}

/// Notes what a prepaid job cost at last; the rest of what was set aside counts no more.
async fn charged(
    c: &mut SqliteConnection,
    job: JobId,
    charged: MicroCredits,
) -> Result<(), StoreError> {
    let held: Option<(i64, String, i64)> = sqlx::query_as(
        "UPDATE job SET charged_micro = ? WHERE id = ? AND api_key IS NOT NULL \
         RETURNING held_micro, api_key, created_at_ms",
    )
    .bind(charged.0)
    .bind(job.to_string())
    .fetch_optional(&mut *c)
    .await?;
    match held {
        Some((held, key, accepted_at_ms)) => {
            add_spend(c, &key, accepted_at_ms, charged.0 - held).await
        }
        None => Ok(()),
    }
}

async fn close(c: &mut SqliteConnection, close: &Close) -> Result<bool, StoreError> {
    let touched = sqlx::query(
        "UPDATE job SET state = ?, error = ?, finished_at_ms = ? \
         WHERE id = ? AND state IN ('queued', 'leased')",
    )
    .bind(close.state.as_str())
    .bind(to_json(&close.error))
    .bind(close.at_ms)
    .bind(close.job.to_string())
    .execute(&mut *c)
    .await?
    .rows_affected();
    if touched != 1 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE attempt SET state = 'cancelled', ended_at_ms = ? WHERE job = ? AND state = 'running'",
    )
    .bind(close.at_ms)
    .bind(close.job.to_string())
    .execute(&mut *c)
    .await?;
    release_hold(c, close.job, close.at_ms).await?;
    Ok(true)
}

async fn bind(c: &mut SqliteConnection, binding: &Binding) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO original_binding (reward, identity, bound_at_ms) VALUES (?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&binding.reward)
    .bind(&binding.identity)
    .bind(binding.at_ms)
    .execute(c)
    .await?;
    Ok(())
}

pub(super) async fn add_key(c: &mut SqliteConnection, key: &StoredKey) -> Result<(), StoreError> {
    let terms = &key.terms;
    sqlx::query(
        "INSERT INTO api_key (id, name, sha256, created_at_ms, payer, scopes, prepaid, budget_micro, \
         requests_per_min, units_per_min, frontend) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&key.id)
    .bind(&key.name)
    .bind(key.sha256.as_slice())
    .bind(key.created_at_ms)
    .bind(terms.payer.as_ref().map(PayerId::as_str))
    .bind(crate::keys::scopes_text(&terms.scopes))
    .bind(terms.prepaid)
    .bind(terms.budget.map(|budget| budget.0))
    .bind(terms.requests_per_min)
    .bind(terms.units_per_min)
    .bind(terms.frontend.as_ref().map(neurino_core::FrontendId::as_str))
    .execute(c)
    .await?;
    Ok(())
}

async fn prune(c: &mut SqliteConnection, before_ms: i64) -> Result<u64, StoreError> {
    super::marks::prune(c, before_ms).await?;
    super::audits::prune(c, before_ms).await?;
    sqlx::query(
        "DELETE FROM picture WHERE job IN (SELECT id FROM job \
         WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL AND finished_at_ms < ?)",
    )
    .bind(before_ms)
    .execute(&mut *c)
    .await?;
    let pruned = sqlx::query(
        "UPDATE job SET spec = NULL, output = NULL, idempotency_key = NULL \
         WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL AND finished_at_ms < ?",
    )
    .bind(before_ms)
    .execute(c)
    .await?;
    Ok(pruned.rows_affected())
}
