//! The books: one writer that commits in groups, and a few readers. They are kept in a SQLite file or
//! in PostgreSQL, and behave the same in both.
//!
//! Terminal states, fences and "paid once" are enforced by the statements and the schema, so two
//! callers that race are decided here whatever the memory of the router says. `sql` runs the statements
//! on either database; only `sqlite` and `postgres` know how books are opened and who holds them.

mod admin_log;
mod audits;
mod beside;
mod clawback;
#[cfg(test)]
mod contract;
mod draft;
mod epochs;
mod evidence;
#[cfg(test)]
mod faults;
mod file_roots;
mod marks;
mod pictures;
mod postgres;
mod read;
mod records;
mod sql;
mod sqlite;
mod vault;
mod vouchers;
mod writer;

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neurino_core::{JobId, LeaseId, NodeId, Receipt};
use serde::de::{DeserializeOwned, IntoDeserializer, value};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use records::{
    Admitted, AttemptEnd, Binding, Close, Grant, Hold, NewJob, OpenJob, Outrun, Pod, Release,
    RunningAttempt, SealedOutput, Second, Settled, Settlement, StoredAttempt, StoredJob, StoredKey,
};

pub use audits::{AuditState, Conviction, StoredAudit};
pub(crate) use audits::{AuditWrite, AuditWritten, NewAudit, Ruling};
pub(crate) use beside::Beside;
#[cfg(test)]
pub(crate) use contract::server;
pub(crate) use draft::{DraftStep, Drafted, Drafter, NewEpoch, NewEpochEntry};
pub(crate) use epochs::{Behind, RawMovement, Until};
pub use evidence::{Evidence, EvidenceRun};
#[cfg(test)]
pub(crate) use faults::outlive;
pub(crate) use marks::{Mark, PictureMark, TextMark};
use pictures::Pictures;
pub(crate) use pictures::name_of;
pub(crate) use sql::is_gone;
use sql::{Connection, Readers, query};
pub(crate) use vault::KeyFile;
pub(crate) use vouchers::{Booked, Booking};

use crate::admin_log::Act;
use crate::blobs::Bucket;
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};
use crate::payload::{Field, PayloadKey, hour_of};
use vault::Vault;
use writer::{Keeper, Reply, SHREDDED_AT_ONCE, Write};

/// Connections that read.
const READERS: u32 = 4;
/// Writes that may wait for the writer; further callers wait for room.
const WRITE_QUEUE: usize = 4096;

/// The books of one coordinator.
pub(crate) struct Store {
    writes: mpsc::Sender<Write>,
    readers: Readers,
    pictures: Pictures,
    vault: Arc<Vault>,
    writer: Mutex<Option<JoinHandle<()>>>,
    superseded: CancellationToken,
    /// Under which a server's books are held.
    epoch: Option<i64>,
    #[cfg(test)]
    faults: faults::Faults,
    calls: AtomicU64,
    /// Held as long as the store lives, so that no second process routes from the same file.
    lock: Option<File>,
}

/// Books that were opened, and by what they are held.
struct Opened<H> {
    connection: Connection,
    readers: Readers,
    held: H,
    /// Opens the payloads.
    key: PayloadKey,
}

impl Store {
    /// Opens or creates the books of a network and brings their schema up to date. `coordinator` is the
    /// address of the key that signs for it; books that have another one are refused, and so are those
    /// whose payload key is not in `key_file`. Payloads that former versions left open are sealed first.
    pub(crate) async fn open(
        database: &Database,
        network: &str,
        coordinator: &str,
        key_file: &KeyFile,
    ) -> Result<Self, CoordinatorError> {
        let (mut keeper, readers, pictures, key, lock, epoch) = match database {
            Database::Sqlite(path) => {
                let Opened { connection, readers, held, key } =
                    sqlite::open(path, network, coordinator, key_file).await?;
                let keeper = Keeper::Sqlite(connection);
                (keeper, readers, Pictures::beside(path), key, Some(held), None)
            }
            Database::Postgres(books) => {
                let Opened { connection, readers, held, key } =
                    postgres::open(books, network, coordinator, key_file).await?;
                let epoch = Some(held.epoch());
                let keeper = Keeper::postgres(books, held, connection);
                (keeper, readers, Pictures::at(books.pictures()), key, None, epoch)
            }
        };
        let vault = Arc::new(Vault::new(key));
        vault::seal_former(&mut keeper, &vault, &pictures).await?;
        let (writes, queue) = mpsc::channel(WRITE_QUEUE);
        let superseded = CancellationToken::new();
        let running = writer::run(keeper, queue, superseded.clone(), Arc::clone(&vault));
        let writer = tokio::spawn(running);
        Ok(Self {
            writes,
            readers,
            pictures,
            vault,
            writer: Mutex::new(Some(writer)),
            superseded,
            epoch,
            calls: AtomicU64::new(0),
            lock,
            #[cfg(test)]
            faults: faults::Faults::default(),
        })
    }

    /// The same, with pictures in a bucket.
    pub(crate) fn with_bucket(mut self, bucket: Option<Bucket>) -> Self {
        self.pictures.put_into(bucket);
        self
    }

    /// Under which epoch the books are held; each holder of a server's books has a higher one than those
    /// before. `None` for a file.
    pub(crate) fn epoch(&self) -> Option<i64> {
        self.epoch
    }

    /// Cancelled once another coordinator has taken the books: nothing is written here any more.
    pub(crate) fn superseded(&self) -> &CancellationToken {
        &self.superseded
    }

    /// Commits what was handed in and closes the files. Later calls answer `Closed`.
    pub(crate) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.writes.send(Write::Stop(reply)).await.is_ok() {
            // An error means that the writer is gone already, which is what we want.
            let _ = done.await;
        }
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "the writer of the books ended badly");
        }
        self.readers.close().await;
        if let Some(Err(error)) = self.lock.as_ref().map(File::unlock) {
            tracing::warn!(%error, "the lock of the books goes with the process");
        }
    }

    /// How often the books were read or written since they were opened.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The connections for a read.
    fn readers(&self) -> &Readers {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.readers
    }

    async fn write<T>(&self, make: impl FnOnce(Reply<T>) -> Write) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        let lost = self.faults.before_write()?;
        let (reply, answer) = oneshot::channel();
        self.writes.send(make(reply)).await.map_err(|_| StoreError::Closed)?;
        let answer = answer.await.map_err(|_| StoreError::Closed)?;
        #[cfg(test)]
        if lost {
            return Err(StoreError::Commit("the answer was lost".into()));
        }
        answer
    }

    /// Waits until every write before this call is committed or undone, also one whose connection broke:
    /// the server holds what it began until its fate is known. Whoever reads afterwards reads the truth.
    pub(crate) async fn after_doubts(&self) -> Result<(), StoreError> {
        self.write(Write::Nothing).await
    }

    /// Inserts a job, unless its payer used its idempotency key before.
    pub(crate) async fn admit(&self, job: NewJob) -> Result<Admitted, StoreError> {
        let (id, sealed) = (job.id, self.vault.begin(&job));
        let admitted = self.write(|reply| Write::Admit(Box::new((job, sealed)), reply)).await;
        if !matches!(admitted, Ok(Admitted::New) | Err(_)) {
            self.vault.forget(id);
        }
        admitted
    }

    /// Leases a queued job; `false` when it is not queued any more.
    pub(crate) async fn grant(&self, grant: Grant) -> Result<bool, StoreError> {
        self.write(|reply| Write::Grant(Box::new(grant), reply)).await
    }

    /// Begins a second attempt beside a running one; `false` when that is not so any more.
    pub(crate) async fn grant_second(&self, second: Second) -> Result<bool, StoreError> {
        self.write(|reply| Write::GrantSecond(Box::new(second), reply)).await
    }

    /// Ends one of two running attempts without payment; `false` when it was decided otherwise before.
    pub(crate) async fn outrun(&self, outrun: Outrun) -> Result<bool, StoreError> {
        self.write(|reply| Write::Outrun(Box::new(outrun), reply)).await
    }

    /// Ends a running attempt without payment; `false` when it was decided otherwise before.
    pub(crate) async fn release(&self, release: Release) -> Result<bool, StoreError> {
        let (job, error) = (release.job, &release.give_up);
        let error = match error {
            Some(error) => Some(self.sealed_error(job, error).await),
            None => None,
        };
        let ends = error.is_some();
        let released = self.write(|reply| Write::Release(Box::new((release, error)), reply)).await;
        if ends && matches!(released, Ok(true)) {
            self.vault.forget(job);
        }
        released
    }

    /// Pays a result: job, attempt, postings and receipt in one transaction. A picture is on disk
    /// before it begins.
    pub(crate) async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        let job = settlement.receipt.job;
        let Some(key) = self.job_key(job).await? else {
            // Only of a job that ended long ago.
            let before = self.receipt(settlement.receipt.lease).await?;
            return Ok(before.map_or(Settled::Stale, |before| Settled::Before(Box::new(before))));
        };
        let _nothing_is_collected = self.pictures.settling().await;
        let Settlement { output, uploaded, fence, event, receipt, charged, mark, audit } =
            settlement;
        let kept = self.pictures.keep(output, receipt.lease, uploaded, (job, &key)).await?;
        let output = SealedOutput {
            text: key.seal_text(job, Field::Output, &to_json(&kept)),
            picture: kept.picture(),
        };
        let mark = mark.map(|mark| vault::seal_mark(job, &key, mark));
        let settlement =
            Settlement { output, uploaded, fence, event, receipt, charged, mark, audit };
        let settled = self.write(|reply| Write::Settle(Box::new(settlement), reply)).await;
        if matches!(settled, Ok(Settled::Paid)) {
            self.vault.forget(job);
        }
        settled
    }

    /// Ends an open job without payment; `false` when it had ended before.
    pub(crate) async fn end(&self, end: Close) -> Result<bool, StoreError> {
        let (job, error) = (end.job, self.sealed_error(end.job, &end.error).await);
        let ended = self.write(|reply| Write::Close(Box::new((end, error)), reply)).await;
        if ended.is_ok() {
            self.vault.forget(job);
        }
        ended
    }

    /// Binds an identity key's address to a reward address, unless another one is bound to it.
    pub(crate) async fn bind(&self, binding: Binding) -> Result<(), StoreError> {
        self.write(|reply| Write::Bind(Box::new(binding), reply)).await
    }

    /// Stores a gateway key, and writes down that it was made.
    pub(crate) async fn add_key(&self, key: StoredKey, act: Act) -> Result<(), StoreError> {
        self.write(|reply| Write::AddKey(Box::new((key, act)), reply)).await
    }

    /// Writes an administrative act down.
    pub(crate) async fn note(&self, act: Act) -> Result<(), StoreError> {
        let at_ms = crate::coordinator::now_ms();
        self.write(|reply| Write::Note(Box::new((act, at_ms)), reply)).await
    }

    /// Adds seconds that nodes were connected on a day.
    pub(crate) async fn add_uptime(
        &self,
        day: i64,
        nodes: Vec<(NodeId, u64)>,
    ) -> Result<(), StoreError> {
        self.write(|reply| Write::AddUptime(Box::new((day, nodes)), reply)).await
    }

    /// Takes a step of the audits.
    pub(crate) async fn audit(&self, write: AuditWrite) -> Result<AuditWritten, StoreError> {
        self.write(|reply| Write::Audit(Box::new(write), reply)).await
    }

    /// Shreds the payloads and idempotency keys of jobs that ended before a time: their keys go with what
    /// was sealed with them, pictures that no job keeps are removed, and the payload key steps on. What
    /// audits need stays, if they are open or had to be decided by a third run, and changed since
    /// `disputed_before_ms`.
    pub(crate) async fn prune(
        &self,
        before_ms: i64,
        disputed_before_ms: i64,
    ) -> Result<u64, StoreError> {
        let span = (before_ms, disputed_before_ms);
        let mut jobs = 0;
        loop {
            let some = self.write(|reply| Write::Prune(span, reply)).await?;
            jobs += some;
            if some < u64::from(SHREDDED_AT_ONCE) {
                break;
            }
        }
        self.pictures.collect(|names| self.kept_pictures(names)).await?;
        self.step_to(hour_of(before_ms)).await?;
        Ok(jobs)
    }
}

/// Waits until no coordinator holds the books; at once where they are a file. The file of the payload key
/// is kept at their hour meanwhile.
pub(crate) async fn until_free(database: &Database, payload_key: &Path) -> Result<(), StoreError> {
    match database {
        Database::Sqlite(_) => Ok(()),
        Database::Postgres(books) => postgres::until_free(books, payload_key).await,
    }
}

/// The first opening writes the network's name, later ones must match it.
async fn check_network(connection: &mut Connection, network: &str) -> Result<(), CoordinatorError> {
    let found = kept(connection, "network", network).await?;
    if found == network {
        Ok(())
    } else {
        Err(CoordinatorError::OtherNetwork { found, asked: network.to_owned() })
    }
}

/// The first opening with a key writes its address, later ones must match it: receipts and epochs of one
/// network that different keys signed could not be checked by anybody.
async fn check_coordinator(
    connection: &mut Connection,
    coordinator: &str,
) -> Result<(), CoordinatorError> {
    let found = kept(connection, "coordinator", coordinator).await?;
    same_coordinator(found, coordinator)
}

fn same_coordinator(found: String, asked: &str) -> Result<(), CoordinatorError> {
    if found == asked {
        Ok(())
    } else {
        Err(CoordinatorError::OtherCoordinator { found, asked: asked.to_owned() })
    }
}

/// The address of the coordinator's key, if the books have been opened with one.
async fn coordinator_of(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    let statement = "SELECT value FROM meta WHERE key = 'coordinator'";
    Ok(query(statement).fetch_optional(connection).await?)
}

/// The name of the network, if the books have been opened for one.
async fn network_of(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    let statement = "SELECT value FROM meta WHERE key = 'network'";
    Ok(query(statement).fetch_optional(connection).await?)
}

/// What is kept under a name; `value` if nothing is.
async fn kept(connection: &mut Connection, name: &str, value: &str) -> Result<String, StoreError> {
    query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(value)
        .execute(&mut *connection)
        .await?;
    let statement = "SELECT value FROM meta WHERE key = $1";
    Ok(query(statement).bind(name).fetch_one(connection).await?)
}

/// Reads an enum or id stored as its wire name.
fn parse<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    let name: value::StrDeserializer<'_, value::Error> = text.into_deserializer();
    T::deserialize(name).map_err(|_| StoreError::Unreadable { what })
}

/// Reads a stored JSON value.
fn parse_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable { what })
}

/// Reads a value through its `FromStr`.
fn parse_id<T: FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Unreadable { what })
}

/// JSON of one of our own types, all of which serialise.
fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value)
        .expect("the vocabulary's types have string keys and no fallible impl")
}

/// Milliseconds as the databases keep them.
fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The receipt of a lease.
async fn receipt_of(
    connection: &mut Connection,
    lease: LeaseId,
) -> Result<Option<Receipt>, StoreError> {
    let body: Option<String> = query("SELECT body FROM receipt WHERE lease = $1")
        .bind(lease.to_string())
        .fetch_optional(connection)
        .await?;
    body.map(|b| parse_json(&b, "receipt")).transpose()
}

/// The receipt of a job.
async fn receipt_of_job(
    connection: &mut Connection,
    job: JobId,
) -> Result<Option<Receipt>, StoreError> {
    let body: Option<String> = query("SELECT body FROM receipt WHERE job = $1")
        .bind(job.to_string())
        .fetch_optional(connection)
        .await?;
    body.map(|b| parse_json(&b, "receipt")).transpose()
}
