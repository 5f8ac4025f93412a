//! The one writer: collects writes, commits them together, answers after the commit.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use neurino_core::{JobId, LeaseId, MicroCredits, NodeId};
use neurino_ledger::{Event, PayerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audits::{AuditWrite, AuditWritten};
use super::postgres::{Claim, RENEWAL, Reach};
use super::records::{
    Admitted, Binding, Close, Grant, Hold, NewJob, Outrun, Release, SealedOutput, Second, Settled,
    Settlement, StoredKey,
};
use super::sql::{Connection, query};
use super::vault::{Rewrapped, SealedSpec, Vault};
use super::{ms, parse_id, receipt_of, to_json};
use crate::admin_log::Act;
use crate::database::PostgresBooks;
use crate::error::StoreError;
use crate::payload::{Field, Hour};
use crate::terms::release_event;

/// Most writes of one commit.
const GROUP_MAX: usize = 200;
/// Longest time the first write of a group waits for others.
const GROUP_WAIT: Duration = Duration::from_millis(5);

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A write and where its answer goes.
pub(super) enum Write {
    Admit(Box<(NewJob, SealedSpec)>, Reply<Admitted>),
    Grant(Box<Grant>, Reply<bool>),
    GrantSecond(Box<Second>, Reply<bool>),
    Outrun(Box<Outrun>, Reply<bool>),
    /// With what is kept of the failure, if the job is given up.
    Release(Box<(Release, Option<String>)>, Reply<bool>),
    Settle(Box<Settlement<SealedOutput>>, Reply<Settled>),
    /// With what is kept of the failure.
    Close(Box<(Close, String)>, Reply<bool>),
    Bind(Box<Binding>, Reply<()>),
    AddKey(Box<(StoredKey, Act)>, Reply<()>),
    Note(Box<(Act, i64)>, Reply<()>),
    AddUptime(Box<UptimeDay>, Reply<()>),
    Audit(Box<AuditWrite>, Reply<AuditWritten>),
    Voucher(Box<super::Booking>, Reply<super::Booked>),
    Draft(Box<super::DraftStep>, Reply<super::Drafted>),
    /// Of jobs that ended before the first time, unless an audit was disputed since the second.
    Prune((i64, i64), Reply<u64>),
    Rewrap(Box<Rewrapped>, Reply<u64>),
    NoteHour(Hour, Reply<()>),
    /// Nothing; answered once all that was written before is decided.
    Nothing(Reply<()>),
    Stop(oneshot::Sender<()>),
}

/// Seconds that nodes were connected, and the day, since the Unix epoch.
pub(super) type UptimeDay = (i64, Vec<(NodeId, u64)>);

/// Sends an answer once the fate of its group is known.
type Ack = Box<dyn FnOnce(&Fate) + Send>;

/// What became of a group of writes.
pub(super) enum Fate {
    Committed,
    /// Not committed: the file refused.
    Refused(String),
    /// Not committed: the server is away.
    Away,
    /// The connection broke at the commit.
    Unknown,
    /// Not committed: another coordinator has taken the books.
    Superseded,
}

impl Fate {
    /// Why nothing was committed.
    pub(super) fn error(&self) -> StoreError {
        self.of_all().err().unwrap_or(StoreError::Doubtful)
    }

    pub(super) fn of_all(&self) -> Result<(), StoreError> {
        match self {
            Self::Committed => Ok(()),
            Self::Refused(words) => Err(StoreError::Commit(words.clone())),
            Self::Away => Err(StoreError::Unavailable),
            Self::Unknown => Err(StoreError::Doubtful),
            Self::Superseded => Err(StoreError::Superseded),
        }
    }
}

/// The writer's connection, and what holds the books.
pub(super) enum Keeper {
    /// A file, whose lock the store holds.
    Sqlite(Connection),
    /// A server that may go away and come back.
    Postgres(Box<Remote>),
}

pub(super) struct Remote {
    reach: Reach,
    claim: Claim,
    open: Option<Connection>,
    /// When the transaction began.
    began: Instant,
}

impl Keeper {
    pub(super) fn postgres(books: &PostgresBooks, claim: Claim, open: Connection) -> Self {
        let remote =
            Remote { reach: Reach::new(books), claim, open: Some(open), began: Instant::now() };
        Self::Postgres(Box::new(remote))
    }

    /// Begins a transaction in which the books are held.
    pub(super) async fn begin(&mut self) -> Result<&mut Connection, Fate> {
        match self {
            Self::Sqlite(connection) => match connection.begin_writing().await {
                Ok(()) => Ok(connection),
                Err(error) => {
                    tracing::error!(?error, "no transaction can be begun");
                    Err(Fate::Refused(error.to_string()))
                }
            },
            Self::Postgres(remote) => remote.begin().await,
        }
    }

    /// Ends the transaction, whatever state it is in.
    pub(super) async fn end(&mut self, fault: Option<sqlx::Error>) -> Fate {
        match self {
            Self::Sqlite(connection) => {
                let outcome = match fault {
                    None => connection.run("COMMIT").await,
                    Some(fault) => Err(fault),
                };
                let Err(error) = outcome else { return Fate::Committed };
                tracing::error!(?error, "a group of writes was not committed");
                // Fails when SQLite has rolled back by itself; either way no transaction is left.
                let _ = connection.run("ROLLBACK").await;
                Fate::Refused(error.to_string())
            }
            Self::Postgres(remote) => remote.end(fault).await,
        }
    }

    /// Leaves nothing in the log beside a file of what was deleted. Readers are not waited for: they
    /// do not keep it from being done the next time.
    async fn truncate_log(&mut self) {
        let Self::Sqlite(connection) = self else { return };
        for words in [
            "PRAGMA busy_timeout = 100",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA busy_timeout = 5000",
        ] {
            if let Err(error) = connection.run(words).await {
                tracing::warn!(?error, "the log beside the books was not emptied: {error}");
            }
        }
    }

    /// Writes a file anew, so that nothing is left of what former versions deleted or replaced.
    pub(super) async fn rewrite(&mut self) -> Result<(), StoreError> {
        if let Self::Sqlite(connection) = self {
            connection.run("VACUUM").await?;
            self.truncate_log().await;
        }
        Ok(())
    }

    /// Renews the ownership while there is nothing to write.
    async fn renew(&mut self) -> Fate {
        match self.begin().await {
            Ok(_) => self.end(None).await,
            Err(fate) => fate,
        }
    }

    async fn close(self) {
        let connection = match self {
            Self::Sqlite(connection) => Some(connection),
            Self::Postgres(mut remote) => {
                if let Some(open) = &mut remote.open
                    && let Err(error) = remote.claim.give_up(open).await
                {
                    tracing::warn!(?error, "the books come free when the ownership has run out");
                }
                remote.open
            }
        };
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(?error, "the books were not closed in order");
        }
    }
}

impl Remote {
    async fn begin(&mut self) -> Result<&mut Connection, Fate> {
        let mut connection = match self.open.take() {
            Some(connection) => connection,
            None => self.reach.connect().await.map_err(|_| Fate::Away)?,
        };
        self.began = Instant::now();
        let held = async {
            connection.run("BEGIN").await?;
            self.claim.hold(&mut connection).await
        };
        match held.await {
            Ok(true) => Ok(self.open.insert(connection)),
            Ok(false) => Err(Fate::Superseded),
            Err(error) => {
                tracing::error!(?error, "the connection to the database broke: {error}");
                Err(Fate::Away)
            }
        }
    }

    async fn end(&mut self, fault: Option<sqlx::Error>) -> Fate {
        // Dropped unless all is well, which undoes what was not committed.
        let Some(mut connection) = self.open.take() else { return Fate::Away };
        if let Some(error) = fault {
            tracing::error!(?error, "a group of writes was not committed: {error}");
            return Fate::Away;
        }
        // Whoever stands by waits for the row that this transaction holds. Had the ownership run out
        // meanwhile, it would take the books from a router that is well.
        if self.began.elapsed() > RENEWAL
            && let Err(error) = self.claim.hold(&mut connection).await
        {
            tracing::error!(?error, "a long group of writes was not committed: {error}");
            return Fate::Away;
        }
        match connection.run("COMMIT").await {
            Ok(()) => {
                self.open = Some(connection);
                Fate::Committed
            }
            Err(error) => {
                tracing::error!(?error, "whether a group was committed is not known: {error}");
                Fate::Unknown
            }
        }
    }
}

/// Runs until `Stop` arrives or the last sender is gone. Cancels `superseded` when another coordinator
/// has taken the books.
pub(super) async fn run(
    mut keeper: Keeper,
    mut queue: mpsc::Receiver<Write>,
    superseded: CancellationToken,
    vault: Arc<Vault>,
) {
    let mut stop = None;
    // A lone write is committed at once; only under load is it worth waiting for company.
    let mut under_load = false;
    while stop.is_none() {
        let Some(first) = first(&mut keeper, &mut queue, &superseded).await else { break };
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
            commit(&mut keeper, group, &superseded, &vault).await;
        }
    }
    keeper.close().await;
    if let Some(reply) = stop {
        // Nobody waiting for the end is fine.
        let _ = reply.send(());
    }
}

/// The next write. The ownership of a database is renewed while there is none.
async fn first(
    keeper: &mut Keeper,
    queue: &mut mpsc::Receiver<Write>,
    superseded: &CancellationToken,
) -> Option<Write> {
    if matches!(keeper, Keeper::Sqlite(_)) {
        return queue.recv().await;
    }
    loop {
        match tokio::time::timeout(RENEWAL, queue.recv()).await {
            Ok(write) => return write,
            Err(_) if superseded.is_cancelled() => {}
            Err(_) => note(&keeper.renew().await, superseded),
        }
    }
}

fn note(fate: &Fate, superseded: &CancellationToken) {
    if matches!(fate, Fate::Superseded) && !superseded.is_cancelled() {
        tracing::error!("another coordinator has taken the books; this one steps down");
        superseded.cancel();
    }
}

/// Applies a group in one transaction and answers each write.
async fn commit(
    keeper: &mut Keeper,
    group: Vec<Write>,
    superseded: &CancellationToken,
    vault: &Vault,
) {
    let shreds = group.iter().any(|write| matches!(write, Write::Prune(..) | Write::Rewrap(..)));
    let mut acks: Vec<Ack> = Vec::with_capacity(group.len());
    let mut fault = None;
    let begun =
        if superseded.is_cancelled() { Err(Fate::Superseded) } else { keeper.begin().await };
    let fate = match begun {
        Ok(connection) => {
            for write in group {
                acks.push(apply(Some(&mut *connection), write, &mut fault, vault).await);
            }
            keeper.end(fault).await
        }
        Err(fate) => {
            for write in group {
                acks.push(apply(None, write, &mut fault, vault).await);
            }
            fate
        }
    };
    note(&fate, superseded);
    if shreds && matches!(fate, Fate::Committed) {
        keeper.truncate_log().await;
    }
    for ack in acks {
        ack(&fate);
    }
}

/// Applies one write; a fault of its own undoes it alone, a fault of the connection sets `fault`. Without
/// a connection nothing is applied, and the group's fate is the answer.
async fn apply(
    connection: Option<&mut Connection>,
    write: Write,
    fault: &mut Option<sqlx::Error>,
    vault: &Vault,
) -> Ack {
    macro_rules! guarded {
        ($reply:ident, |$c:ident| $body:expr) => {{
            let result = match connection {
                Some($c) if fault.is_none() => {
                    if let Err(error) = $c.run("SAVEPOINT one").await {
                        *fault = Some(error);
                        Err(StoreError::Closed)
                    } else {
                        let result = $body.await;
                        if result.is_err()
                            && let Err(error) = $c.run("ROLLBACK TO one").await
                        {
                            *fault = Some(error);
                        } else if let Err(error) = $c.run("RELEASE one").await {
                            *fault = Some(error);
                        }
                        result
                    }
                }
                _ => Err(StoreError::Closed),
            };
            ack($reply, result)
        }};
    }
    match write {
        Write::Admit(job, reply) => guarded!(reply, |c| admit(c, &job.0, &job.1, vault)),
        Write::Grant(record, reply) => guarded!(reply, |c| grant(c, &record)),
        Write::GrantSecond(record, reply) => guarded!(reply, |c| grant_second(c, &record)),
        Write::Outrun(record, reply) => guarded!(reply, |c| outrun(c, &record)),
        Write::Release(record, reply) => {
            guarded!(reply, |c| release(c, &record.0, record.1.as_deref()))
        }
        Write::Settle(record, reply) => guarded!(reply, |c| settle(c, &record)),
        Write::Close(record, reply) => guarded!(reply, |c| close(c, &record.0, &record.1)),
        Write::Bind(binding, reply) => guarded!(reply, |c| bind(c, &binding)),
        Write::AddKey(made, reply) => guarded!(reply, |c| add_key(c, &made.0, &made.1)),
        Write::Note(note, reply) => {
            guarded!(reply, |c| super::admin_log::append(c, &note.0, note.1))
        }
        Write::AddUptime(day, reply) => guarded!(reply, |c| add_uptime(c, &day)),
        Write::Audit(write, reply) => guarded!(reply, |c| super::audits::apply(c, &write)),
        Write::Voucher(booking, reply) => {
            guarded!(reply, |c| super::vouchers::book(c, &booking))
        }
        Write::Draft(step, reply) => guarded!(reply, |c| super::draft::apply(c, &step)),
        Write::Prune((before_ms, disputed_before_ms), reply) => {
            guarded!(reply, |c| prune(c, before_ms, disputed_before_ms))
        }
        Write::Rewrap(anew, reply) => guarded!(reply, |c| super::vault::rewrap(c, &anew)),
        Write::NoteHour(hour, reply) => guarded!(reply, |c| super::vault::note_hour(c, hour)),
        Write::Nothing(reply) => guarded!(reply, |_c| std::future::ready(Ok(()))),
        Write::Stop(reply) => Box::new(move |_| drop(reply)),
    }
}

fn ack<T: Send + 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Ack {
    Box::new(move |fate| {
        // A caller that stopped waiting finds the outcome in the books.
        let _ = reply.send(fate.of_all().and(result));
    })
}

async fn admit(
    c: &mut Connection,
    job: &NewJob,
    sealed: &SealedSpec,
    vault: &Vault,
) -> Result<Admitted, StoreError> {
    if let Some(key) = &job.key {
        let known: Option<(String, Option<String>, Option<Vec<u8>>)> = query(
            "SELECT id, spec, payload_key FROM job WHERE payer = $1 AND idempotency_key = $2",
        )
        .bind(job.payer.as_str())
        .bind(key.as_str())
        .fetch_optional(&mut *c)
        .await?;
        if let Some((id, known_spec, wrapped)) = known {
            let id: JobId = parse_id(&id, "job id")?;
            let known = vault.text(id, wrapped.as_deref(), Field::Spec, known_spec.as_deref())?;
            let same = known.is_some_and(|known| known == to_json(&job.spec));
            return Ok(if same { Admitted::Known(id) } else { Admitted::Conflict });
        }
    }
    if let Some(hold) = &job.hold
        && let Some(refused) = uncovered(c, job, hold).await?
    {
        return Ok(refused);
    }
    let hold = job.hold.as_ref();
    query(
        "INSERT INTO job (id, payer, idempotency_key, rule_set, spec, state, no_node_wait_ms, \
         created_at_ms, class, attempts_max, frontend, price_list, held_micro, api_key, placement, \
         payload_key, payload_hour, attended) \
         VALUES ($1, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(job.id.to_string())
    .bind(job.payer.as_str())
    .bind(job.key.as_ref().map(neurino_core::IdempotencyKey::as_str))
    .bind(&job.rule_set)
    .bind(&sealed.spec)
    .bind(ms(job.no_node_wait_ms))
    .bind(job.at_ms)
    .bind(job.class.as_str())
    .bind(job.attempts_max)
    .bind(job.frontend.as_ref().map(neurino_core::FrontendId::as_str))
    .bind(hold.map(|hold| &hold.price_list))
    .bind(hold.map_or(0, |hold| hold.amount.0))
    .bind(hold.map(|hold| &hold.key))
    .bind(job.placement.as_ref().map(to_json))
    .bind(&sealed.key)
    .bind(sealed.hour)
    .bind(job.attended)
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
    c: &mut Connection,
    job: &NewJob,
    hold: &Hold,
) -> Result<Option<Admitted>, StoreError> {
    let account = neurino_ledger::Account::Payer(job.payer.clone()).to_string();
    let balance: Option<i64> = query("SELECT amount_micro FROM credit_balance WHERE account = $1")
        .bind(account)
        .fetch_optional(&mut *c)
        .await?;
    let balance = balance.unwrap_or(0);
    if balance < hold.amount.0 {
        return Ok(Some(Admitted::Uncovered(MicroCredits(balance))));
    }
    let Some(budget) = hold.budget else { return Ok(None) };
    let spent: Option<i64> = query(
        "SELECT amount_micro FROM key_spend \
         WHERE api_key = $1 AND month = $2",
    )
    .bind(&hold.key)
    .bind(month_of(job.at_ms))
    .fetch_optional(c)
    .await?;
    let left = budget.0.saturating_sub(spent.unwrap_or(0));
    Ok((left < hold.amount.0).then_some(Admitted::OverBudget(MicroCredits(left.max(0)))))
}

/// The month (UTC) of a time, as `2026-11`.
fn month_of(at_ms: i64) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    at.strftime("%Y-%m").to_string()
}

/// Adds to what a key's jobs of a month cost; the month is that of the job's acceptance.
pub(super) async fn add_spend(
    c: &mut Connection,
    key: &str,
    accepted_at_ms: i64,
    amount_micro: i64,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO key_spend (api_key, month, amount_micro) \
         VALUES ($1, $2, $3) \
         ON CONFLICT (api_key, month) DO UPDATE SET amount_micro = key_spend.amount_micro + excluded.amount_micro",
    )
    .bind(key)
    .bind(month_of(accepted_at_ms))
    .bind(amount_micro)
    .execute(c)
    .await?;
    Ok(())
}

/// Writes an event's postings. An event that is in the ledger already breaks the primary key.
pub(super) async fn post(c: &mut Connection, event: &Event, at_ms: i64) -> Result<(), StoreError> {
    for posting in event.postings() {
        query(
            "INSERT INTO posting (event, account, kind, points, amount_micro, at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6)",
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
async fn release_hold(c: &mut Connection, job: JobId, at_ms: i64) -> Result<(), StoreError> {
    let held: Option<(String, i64, String, i64)> = query(
        "SELECT payer, held_micro, api_key, created_at_ms FROM job \
         WHERE id = $1 AND held_micro > 0 AND api_key IS NOT NULL",
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

async fn add_uptime(c: &mut Connection, day: &UptimeDay) -> Result<(), StoreError> {
    let (day, nodes) = day;
    for (node, seconds) in nodes {
        query(
            "INSERT INTO uptime (node, day, seconds) VALUES ($1, $2, $3) \
             ON CONFLICT (node, day) DO UPDATE SET seconds = uptime.seconds + excluded.seconds",
        )
        .bind(node.as_str())
        .bind(day)
        .bind(ms(*seconds))
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}

async fn grant(c: &mut Connection, grant: &Grant) -> Result<bool, StoreError> {
    let touched = query(
        "UPDATE job SET state = 'leased', fence = $2 WHERE id = $1 AND state = 'queued' AND fence < $2",
    )
    .bind(grant.job.to_string())
    .bind(grant.fence)
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(false);
    }
    begin_attempt(c, grant).await?;
    Ok(true)
}

async fn begin_attempt(c: &mut Connection, grant: &Grant) -> Result<(), StoreError> {
    query(
        "INSERT INTO attempt (lease, job, fence, node, unit, state, granted_at_ms, deadline_ms) \
         VALUES ($1, $2, $3, $4, $5, 'running', $6, $7)",
    )
    .bind(grant.lease.to_string())
    .bind(grant.job.to_string())
    .bind(grant.fence)
    .bind(grant.node.as_str())
    .bind(grant.unit.map(|unit| u32::from(unit.0)))
    .bind(grant.granted_at_ms)
    .bind(grant.deadline_ms)
    .execute(c)
    .await?;
    Ok(())
}

async fn grant_second(c: &mut Connection, second: &Second) -> Result<bool, StoreError> {
    // Nothing changes in the job; the row is taken, so that nobody else changes it meanwhile.
    let touched = query(
        "UPDATE job SET fence = fence WHERE id = $1 AND state = 'leased' AND fence = $2 AND fence < $3",
    )
    .bind(second.grant.job.to_string())
    .bind(second.beside)
    .bind(second.grant.fence)
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(false);
    }
    begin_attempt(c, &second.grant).await?;
    Ok(true)
}

async fn outrun(c: &mut Connection, outrun: &Outrun) -> Result<bool, StoreError> {
    let touched = query(
        "UPDATE job SET fence = $1 WHERE id = $2 AND state = 'leased' AND fence IN ($1, $3) \
         AND EXISTS (SELECT 1 FROM attempt WHERE lease = $4 AND job = $2 AND fence = $1 \
         AND state = 'running')",
    )
    .bind(outrun.stays_fence)
    .bind(outrun.job.to_string())
    .bind(outrun.fence)
    .bind(outrun.stays.to_string())
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(false);
    }
    end_attempt(c, outrun.lease, outrun.end, outrun.at_ms).await?;
    Ok(true)
}

async fn end_attempt(
    c: &mut Connection,
    lease: LeaseId,
    end: super::AttemptEnd,
    at_ms: i64,
) -> Result<(), StoreError> {
    query("UPDATE attempt SET state = $1, ended_at_ms = $2 WHERE lease = $3 AND state = 'running'")
        .bind(end.as_str())
        .bind(at_ms)
        .bind(lease.to_string())
        .execute(c)
        .await?;
    Ok(())
}

/// Ends whatever else runs for a job that is not leased any more: it can be paid no longer.
async fn end_others(c: &mut Connection, job: JobId, at_ms: i64) -> Result<(), StoreError> {
    query(
        "UPDATE attempt SET state = 'cancelled', ended_at_ms = $1 WHERE job = $2 AND state = 'running'",
    )
    .bind(at_ms)
    .bind(job.to_string())
    .execute(c)
    .await?;
    Ok(())
}

async fn release(
    c: &mut Connection,
    release: &Release,
    error: Option<&str>,
) -> Result<bool, StoreError> {
    // As with `close`.
    let frees_key = release.give_up.as_ref().is_some_and(|error| error.code.passes());
    let touched = query(
        "UPDATE job SET state = $1, failures = failures + $2, losses = losses + $3, error = $4, \
         finished_at_ms = $5, idempotency_key = CASE WHEN $6 THEN NULL ELSE idempotency_key END \
         WHERE id = $7 AND state = 'leased' AND fence = $8",
    )
    .bind(if release.give_up.is_some() { "failed" } else { "queued" })
    .bind(i64::from(release.end.is_failure()))
    .bind(i64::from(release.end == super::AttemptEnd::Lost))
    .bind(error)
    .bind(release.give_up.as_ref().map(|_| release.at_ms))
    .bind(frees_key)
    .bind(release.job.to_string())
    .bind(release.fence)
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(false);
    }
    end_attempt(c, release.lease, release.end, release.at_ms).await?;
    end_others(c, release.job, release.at_ms).await?;
    if release.give_up.is_some() {
        release_hold(c, release.job, release.at_ms).await?;
    }
    Ok(true)
}

async fn settle(
    c: &mut Connection,
    settlement: &Settlement<SealedOutput>,
) -> Result<Settled, StoreError> {
    let receipt = &settlement.receipt;
    let touched = query(
        "UPDATE job SET state = 'succeeded', output = $1, finished_at_ms = $2 \
         WHERE id = $3 AND state = 'leased' AND EXISTS (SELECT 1 FROM attempt WHERE lease = $4 \
         AND job = $3 AND fence = $5 AND node = $6 AND state = 'running')",
    )
    .bind(&settlement.output.text)
    .bind(receipt.settled_at_ms)
    .bind(receipt.job.to_string())
    .bind(receipt.lease.to_string())
    .bind(settlement.fence)
    .bind(receipt.node.as_str())
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(match receipt_of(c, receipt.lease).await? {
            Some(before) => Settled::Before(Box::new(before)),
            None => Settled::Stale,
        });
    }
    let touched = query(
        "UPDATE attempt SET state = 'paid', ended_at_ms = $1 \
         WHERE lease = $2 AND job = $3 AND fence = $4 AND node = $5 AND state = 'running'",
    )
    .bind(receipt.settled_at_ms)
    .bind(receipt.lease.to_string())
    .bind(receipt.job.to_string())
    .bind(settlement.fence)
    .bind(receipt.node.as_str())
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        // The error undoes the step above: job and attempt must agree before anybody is paid.
        return Err(StoreError::Unreadable { what: "attempt" });
    }
    end_others(c, receipt.job, receipt.settled_at_ms).await?;
    if let Some(sha256) = &settlement.output.picture {
        query("INSERT INTO picture (job, sha256) VALUES ($1, $2)")
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
    query(
        "INSERT INTO receipt (lease, job, node, points, amount_micro, settled_at_ms, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
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
async fn charged(c: &mut Connection, job: JobId, charged: MicroCredits) -> Result<(), StoreError> {
    let held: Option<(i64, String, i64)> = query(
        "UPDATE job SET charged_micro = $1 WHERE id = $2 AND api_key IS NOT NULL \
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

async fn close(c: &mut Connection, close: &Close, error: &str) -> Result<bool, StoreError> {
    // Whoever is told to try again does so under the same key, and means another try.
    let frees_key = close.error.code.passes();
    let touched = query(
        "UPDATE job SET state = $1, error = $2, finished_at_ms = $3, \
         idempotency_key = CASE WHEN $4 THEN NULL ELSE idempotency_key END \
         WHERE id = $5 AND state IN ('queued', 'leased')",
    )
    .bind(close.state.as_str())
    .bind(error)
    .bind(close.at_ms)
    .bind(frees_key)
    .bind(close.job.to_string())
    .execute(&mut *c)
    .await?;
    if touched != 1 {
        return Ok(false);
    }
    end_others(c, close.job, close.at_ms).await?;
    release_hold(c, close.job, close.at_ms).await?;
    Ok(true)
}

async fn bind(c: &mut Connection, binding: &Binding) -> Result<(), StoreError> {
    query(
        "INSERT INTO original_binding (reward, identity, bound_at_ms) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&binding.reward)
    .bind(&binding.identity)
    .bind(binding.at_ms)
    .execute(c)
    .await?;
    Ok(())
}

/// Stores a key and writes down that it was made; within the caller's transaction.
pub(super) async fn add_key(
    c: &mut Connection,
    key: &StoredKey,
    act: &Act,
) -> Result<(), StoreError> {
    let terms = &key.terms;
    query(
        "INSERT INTO api_key (id, name, sha256, created_at_ms, payer, scopes, prepaid, budget_micro, \
         requests_per_min, units_per_min, frontend) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
    .execute(&mut *c)
    .await?;
    super::admin_log::append(c, act, key.created_at_ms).await
}

/// Most jobs that are shredded in one write: payments come in between, and no write takes so long that a
/// server gives it up.
pub(super) const SHREDDED_AT_ONCE: u32 = if cfg!(test) { 2 } else { 500 };

/// The first jobs whose payloads are past their keeping time ($1), at most so many ($3), but for what audits
/// need that changed since $2: those that are open, and those that failed or that a third run had to decide,
/// which can be appealed.
macro_rules! past {
    () => {
        "(SELECT id FROM job WHERE finished_at_ms IS NOT NULL AND spec IS NOT NULL \
         AND finished_at_ms < $1 AND id NOT IN \
         (SELECT job FROM audit \
          WHERE state IN ('waiting', 'second', 'third', 'failed') AND changed_at_ms >= $2 \
          UNION ALL SELECT second FROM audit WHERE state IN ('waiting', 'second', 'third', 'failed') \
          AND changed_at_ms >= $2 AND second IS NOT NULL \
          UNION ALL SELECT job FROM audit WHERE third IS NOT NULL AND changed_at_ms >= $2 \
          UNION ALL SELECT second FROM audit \
          WHERE third IS NOT NULL AND changed_at_ms >= $2 AND second IS NOT NULL \
          UNION ALL SELECT third FROM audit WHERE third IS NOT NULL AND changed_at_ms >= $2) \
         ORDER BY finished_at_ms, id LIMIT $3)"
    };
}

async fn prune(
    c: &mut Connection,
    before_ms: i64,
    disputed_before_ms: i64,
) -> Result<u64, StoreError> {
    super::audits::prune(c, before_ms).await?;
    for words in [
        concat!("DELETE FROM text_mark WHERE job IN ", past!()),
        concat!("DELETE FROM picture WHERE job IN ", past!()),
    ] {
        query(words)
            .bind(before_ms)
            .bind(disputed_before_ms)
            .bind(i64::from(SHREDDED_AT_ONCE))
            .execute(&mut *c)
            .await?;
    }
    let pruned = query(concat!(
        "UPDATE job SET spec = NULL, output = NULL, idempotency_key = NULL, payload_key = NULL, \
         payload_hour = NULL WHERE id IN ",
        past!()
    ))
    .bind(before_ms)
    .bind(disputed_before_ms)
    .bind(i64::from(SHREDDED_AT_ONCE))
    .execute(&mut *c)
    .await?;
    // Of those that are kept for audits only the payloads are.
    query(
        "UPDATE job SET idempotency_key = NULL WHERE finished_at_ms IS NOT NULL \
         AND spec IS NOT NULL AND finished_at_ms < $1 AND idempotency_key IS NOT NULL",
    )
    .bind(before_ms)
    .execute(c)
    .await?;
    Ok(pruned)
}
