//! Keys of payloads in the books: which file opens them, what is sealed with them, and how they go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neurino_core::{JobId, JobState};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::{Deserialize, Serialize};

use super::pictures::Pictures;
use super::sql::{Connection, Row, query};
use super::writer::{Keeper, Write};
use super::{Close, Mark, NewJob, Store, parse_id, parse_json, to_json};
use crate::coordinator::now_ms;
use crate::error::{CoordinatorError, StoreError};
use crate::payload::{Field, Hour, JobKey, PayloadKey, PayloadKeyError, Unsealable, hour_of};

/// Most keys of open jobs that are kept at hand; of others they are read again.
const AT_HAND: usize = 100_000;
/// Jobs of one step when keys are wrapped anew.
const WRAPS: i64 = 500;
/// Jobs of one step when former books are sealed.
const FORMER: usize = 50;

/// Under which name the books know their payload key.
const KEY: &str = "payload_key";
/// The oldest hour whose keys can still be unwrapped.
const HOUR: &str = "payload_hour";

/// Where the payload key lies.
#[derive(Debug, Clone)]
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
    /// Whether the books go on with another key where theirs is lost.
    pub(crate) renew: bool,
}

/// The payload key, and the keys of jobs that are open.
pub(crate) struct Vault {
    key: PayloadKey,
    jobs: Mutex<HashMap<JobId, JobKey>>,
}

/// What is written of a new job's payload.
#[derive(Debug)]
pub(super) struct SealedSpec {
    pub(super) spec: String,
    pub(super) key: Vec<u8>,
    pub(super) hour: Hour,
}

/// Keys that were wrapped in a later hour: of which job, the former wrapping, the new one, and the hour.
pub(super) struct Rewrapped {
    pub(super) hour: Hour,
    pub(super) keys: Vec<(JobId, Vec<u8>, Vec<u8>)>,
}

/// What was said of a failure, as the books keep it. The code tells nothing of the payload; the words may
/// be a node's.
#[derive(Serialize, Deserialize)]
struct KeptError {
    code: ErrorCode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
    // Of former versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The message that a job's failure has once the words are gone.
const WORDS_GONE: &str = "what was said of this failure was shredded with the request";

impl Vault {
    pub(super) fn new(key: PayloadKey) -> Self {
        Self { key, jobs: Mutex::default() }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, JobKey>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals what a new job asks for.
    pub(super) fn begin(&self, job: &NewJob) -> SealedSpec {
        let own = JobKey::draw();
        let spec = own.seal_text(job.id, Field::Spec, &to_json(&job.spec));
        let (hour, key) = self.key.wrap(job.id, hour_of(job.at_ms), &own);
        let mut jobs = self.jobs();
        if jobs.len() >= AT_HAND {
            jobs.clear();
        }
        jobs.insert(job.id, own);
        SealedSpec { spec, key, hour }
    }

    /// Forgets the key of a job that has ended.
    pub(super) fn forget(&self, job: JobId) {
        self.jobs().remove(&job);
    }

    /// The key of a job; `None` if it was shredded.
    pub(super) fn job_key(
        &self,
        job: JobId,
        wrapped: Option<&[u8]>,
    ) -> Result<Option<JobKey>, StoreError> {
        let Some(wrapped) = wrapped else { return Ok(None) };
        match self.key.unwrap(job, wrapped) {
            Ok(key) => Ok(Some(key)),
            Err(Unsealable::Shredded) => Ok(None),
            Err(Unsealable::Changed) => Err(StoreError::Sealed { what: "key of a job" }),
        }
    }

    /// A sealed value; `None` if it is not there or was shredded.
    pub(super) fn text(
        &self,
        job: JobId,
        wrapped: Option<&[u8]>,
        field: Field,
        sealed: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let Some(key) = self.job_key(job, wrapped)? else { return Ok(None) };
        opened(key.open_text(job, field, sealed), field).map(Some)
    }

    /// What a picture's small copy is, or `None` if it was shredded.
    pub(super) fn thumb(
        &self,
        job: JobId,
        wrapped: Option<&[u8]>,
        sealed: &[u8],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(key) = self.job_key(job, wrapped)? else { return Ok(None) };
        opened(key.open(job, Field::Thumb, sealed), Field::Thumb).map(Some)
    }

    /// What the books keep of a failure.
    pub(super) fn error(
        &self,
        job: JobId,
        wrapped: Option<&[u8]>,
        kept: &str,
    ) -> Result<ErrorBody, StoreError> {
        let KeptError { code, sealed, message, hint } = parse_json(kept, "error")?;
        if let Some(message) = message {
            return Ok(ErrorBody { code, message, hint });
        }
        match self.text(job, wrapped, Field::Error, sealed.as_deref())? {
            Some(words) => parse_json(&words, "error"),
            None => Ok(ErrorBody::new(code, WORDS_GONE)),
        }
    }
}

/// A value that was opened, or why it cannot be.
pub(super) fn opened<T>(value: Result<T, Unsealable>, field: Field) -> Result<T, StoreError> {
    value.map_err(|_| StoreError::Sealed { what: field.words() })
}

/// Seals a picture's small copy.
pub(super) fn seal_mark(job: JobId, key: &JobKey, mark: Mark) -> Mark {
    match mark {
        Mark::Picture(mut mark) => {
            mark.thumb = key.seal(job, Field::Thumb, &mark.thumb);
            Mark::Picture(mark)
        }
        text @ Mark::Text(_) => text,
    }
}

/// What is kept of a failure. Where the job's key is gone, only its code.
fn seal_error(job: JobId, key: Option<&JobKey>, error: &ErrorBody) -> String {
    let sealed = key.map(|key| key.seal_text(job, Field::Error, &to_json(error)));
    to_json(&KeptError { code: error.code, sealed, message: None, hint: None })
}

async fn noted(c: &mut Connection, name: &str) -> Result<Option<String>, StoreError> {
    let value = query("SELECT value FROM meta WHERE key = $1").bind(name);
    Ok(value.fetch_optional(c).await?)
}

async fn note(c: &mut Connection, name: &str, value: &str) -> Result<(), StoreError> {
    let set = query(
        "INSERT INTO meta (key, value) VALUES ($1, $2) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    );
    set.bind(name).bind(value).execute(c).await?;
    Ok(())
}

/// Which key the books have, if it is not the one at hand.
fn refused(known: String, found: Option<&PayloadKey>, file: &KeyFile) -> PayloadKeyError {
    let path = file.path.clone();
    match found {
        None => PayloadKeyError::Missing { path, id: known },
        Some(found) => PayloadKeyError::Other { path, id: known, found: found.id().to_owned() },
    }
}

/// Refuses a key that is not the books', without writing anything.
pub(super) async fn check(c: &mut Connection, file: &KeyFile) -> Result<(), CoordinatorError> {
    if file.renew {
        return Ok(());
    }
    let Some(known) = noted(c, KEY).await? else { return Ok(()) };
    let found = PayloadKey::read(&file.path)?;
    let same = found.as_ref().is_some_and(|found| found.id() == known);
    if same { Ok(()) } else { Err(refused(known, found.as_ref(), file).into()) }
}

/// The key of the file, if there is one. One that is damaged is as good as lost.
fn found(file: &KeyFile) -> Result<Option<PayloadKey>, PayloadKeyError> {
    match PayloadKey::read(&file.path) {
        Err(PayloadKeyError::File { path, source })
            if file.renew && source.kind() == std::io::ErrorKind::InvalidData =>
        {
            tracing::warn!("the payload key {} is damaged; it is set aside", path.display());
            let aside = path.with_extension("key.damaged");
            std::fs::rename(&path, aside)
                .map_err(|source| PayloadKeyError::File { path, source })?;
            Ok(None)
        }
        found => found,
    }
}

/// The key of books that are held. The first opening makes it, or takes the one that is there.
pub(super) async fn unlock(
    c: &mut Connection,
    file: &KeyFile,
) -> Result<PayloadKey, CoordinatorError> {
    let known = noted(c, KEY).await?;
    let found = found(file)?;
    let made = |found: Option<PayloadKey>| match found {
        Some(key) => Ok(key),
        None => PayloadKey::make(&file.path, hour_of(now_ms())),
    };
    let key = match (known, found) {
        (Some(known), Some(key)) if key.id() == known => key,
        (None, found) => {
            let key = made(found)?;
            note(c, KEY, key.id()).await?;
            key
        }
        (Some(known), found) if file.renew => {
            let key = made(found)?;
            let lost = shred_before(c, Hour::MAX).await?;
            query("DELETE FROM meta WHERE key = $1")
                .bind(HOUR)
                .execute(&mut *c)
                .await
                .map_err(StoreError::from)?;
            note(c, KEY, key.id()).await?;
            let (before, now) = (known, key.id());
            tracing::warn!(
                jobs = lost,
                "the payload key {before} is lost: gave up the payloads of {lost} jobs, goes on with {now}"
            );
            key
        }
        (Some(known), found) => return Err(refused(known, found.as_ref(), file).into()),
    };
    if let Some(hour) = noted(c, HOUR).await? {
        // Stepped on by another coordinator, or by this one just before it fell over.
        key.step_to(parse_id(&hour, "hour of the payload key")?)?;
    }
    // Of books that were put back from a backup nobody can read more than this.
    let gone = shred_before(c, key.from()).await?;
    if gone > 0 {
        tracing::warn!(jobs = gone, "payloads of {gone} jobs are older than the payload key");
    }
    Ok(key)
}

/// Steps the file of somebody who stands by on to the hour of the books, so that it does not open for
/// longer what they shredded. `seen` is the hour that it was stepped to last. Another key's file is left
/// alone: whoever opens the books with it will be told.
pub(super) async fn follow(
    c: &mut Connection,
    path: &Path,
    seen: &mut Option<String>,
) -> Result<(), StoreError> {
    let hour = noted(c, HOUR).await?;
    if hour == *seen {
        return Ok(());
    }
    let known = noted(c, KEY).await?;
    if let Some(hour) = &hour
        && let Some(key) = PayloadKey::read(path)?
        && known.as_deref() == Some(key.id())
    {
        key.step_to(parse_id(hour, "hour of the payload key")?)?;
    }
    *seen = hour;
    Ok(())
}

/// Shreds what was wrapped before an hour.
async fn shred_before(c: &mut Connection, hour: Hour) -> Result<u64, StoreError> {
    for words in [
        "DELETE FROM text_mark WHERE job IN (SELECT id FROM job \
         WHERE payload_key IS NOT NULL AND payload_hour < $1)",
        "DELETE FROM picture WHERE job IN (SELECT id FROM job \
         WHERE payload_key IS NOT NULL AND payload_hour < $1)",
    ] {
        query(words).bind(hour).execute(&mut *c).await?;
    }
    let jobs = query(
        "UPDATE job SET spec = NULL, output = NULL, idempotency_key = NULL, payload_key = NULL, \
         payload_hour = NULL WHERE payload_key IS NOT NULL AND payload_hour < $1",
    );
    Ok(jobs.bind(hour).execute(c).await?)
}

/// Writes keys that were wrapped in a later hour.
pub(super) async fn rewrap(c: &mut Connection, anew: &Rewrapped) -> Result<u64, StoreError> {
    let mut changed = 0;
    for (job, before, now) in &anew.keys {
        changed += query(
            "UPDATE job SET payload_key = $1, payload_hour = $2 WHERE id = $3 AND payload_key = $4",
        )
        .bind(now)
        .bind(anew.hour)
        .bind(job.to_string())
        .bind(before)
        .execute(&mut *c)
        .await?;
    }
    Ok(changed)
}

/// Notes the oldest hour whose keys are still to be unwrapped.
pub(super) async fn note_hour(c: &mut Connection, hour: Hour) -> Result<(), StoreError> {
    note(c, HOUR, &hour.to_string()).await
}

/// Seals payloads that former versions left in the open, before anybody reads the books. Whatever kills
/// the program meanwhile, each job is sealed or as it was.
pub(super) async fn seal_former(
    keeper: &mut Keeper,
    vault: &Vault,
    pictures: &Pictures,
) -> Result<(), StoreError> {
    let (mut sealed, mut files) = (0, Vec::new());
    loop {
        let connection = keeper.begin().await.map_err(|fate| fate.error())?;
        let done = seal_some(connection, vault, pictures, &mut files).await?;
        keeper.end(None).await.of_all()?;
        sealed += done;
        if done < FORMER {
            break;
        }
    }
    if sealed == 0 {
        return Ok(());
    }
    // Two jobs may have shared one; all of them have their own now.
    for file in files {
        pictures.remove_former(file).await?;
    }
    keeper.rewrite().await?;
    tracing::info!(jobs = sealed, "sealed the payloads of {sealed} jobs of a former version");
    Ok(())
}

async fn seal_some(
    c: &mut Connection,
    vault: &Vault,
    pictures: &Pictures,
    files: &mut Vec<neurino_core::ResultDigest>,
) -> Result<usize, StoreError> {
    let rows: Vec<Row> = query(
        "SELECT j.id, j.spec, j.output, j.error, p.thumb, r.lease FROM job j \
         LEFT JOIN picture p ON p.job = j.id LEFT JOIN receipt r ON r.job = j.id \
         WHERE j.payload_key IS NULL AND j.spec IS NOT NULL LIMIT $1",
    )
    .bind(i64::try_from(FORMER).unwrap_or(i64::MAX))
    .fetch_all(&mut *c)
    .await?;
    for row in &rows {
        let id: JobId = parse_id(row.text("id")?, "job id")?;
        let own = JobKey::draw();
        let (hour, wrapped) = vault.key.wrap(id, hour_of(now_ms()), &own);
        let spec = own.seal_text(id, Field::Spec, row.text("spec")?);
        let lease: Option<String> = row.try_get("lease")?;
        let output = match row.try_get::<Option<String>>("output")? {
            None => None,
            Some(kept) => {
                let lease = lease.map(|lease| parse_id(&lease, "lease id")).transpose()?;
                let kept = parse_json(&kept, "output")?;
                let (kept, file) = pictures.seal_former(kept, id, lease, &own).await?;
                files.extend(file);
                Some(own.seal_text(id, Field::Output, &to_json(&kept)))
            }
        };
        let error: Option<String> = row.try_get("error")?;
        let error = error.map(|error| parse_json(&error, "error")).transpose()?;
        let error = error.map(|error: ErrorBody| seal_error(id, Some(&own), &error));
        query(
            "UPDATE job SET spec = $1, output = $2, error = $3, payload_key = $4, payload_hour = $5 \
             WHERE id = $6",
        )
        .bind(spec)
        .bind(output)
        .bind(error)
        .bind(&wrapped)
        .bind(hour)
        .bind(id.to_string())
        .execute(&mut *c)
        .await?;
        if let Some(thumb) = row.try_get::<Option<Vec<u8>>>("thumb")? {
            query("UPDATE picture SET thumb = $1 WHERE job = $2")
                .bind(&own.seal(id, Field::Thumb, &thumb))
                .bind(id.to_string())
                .execute(&mut *c)
                .await?;
        }
    }
    Ok(rows.len())
}

impl Store {
    /// The key of a job's payload; `None` if it was shredded, or there is no such job.
    pub(super) async fn job_key(&self, job: JobId) -> Result<Option<JobKey>, StoreError> {
        if let Some(key) = self.vault.jobs().get(&job) {
            return Ok(Some(key.clone()));
        }
        let wrapped: Option<Option<Vec<u8>>> = query("SELECT payload_key FROM job WHERE id = $1")
            .bind(job.to_string())
            .fetch_optional(self.readers())
            .await?;
        self.vault.job_key(job, wrapped.flatten().as_deref())
    }

    /// What is kept of a job's failure.
    pub(super) async fn sealed_error(&self, job: JobId, error: &ErrorBody) -> String {
        let key = self.job_key(job).await.unwrap_or_else(|fault| {
            tracing::warn!(error = ?fault, job.id = %job, "only the code of a failure is kept: {fault}");
            None
        });
        seal_error(job, key.as_ref(), error)
    }

    /// Ends open jobs whose requests are gone: with a lost key, or in books from a backup that is older
    /// than their keeping time.
    pub(crate) async fn end_shredded(&self) -> Result<(), StoreError> {
        let jobs: Vec<String> =
            query("SELECT id FROM job WHERE state IN ('queued', 'leased') AND spec IS NULL")
                .fetch_all(self.readers())
                .await?;
        for job in jobs {
            let error = ErrorBody::new(ErrorCode::PayloadShredded, "the request was shredded")
                .with_hint("send it again");
            let job = parse_id(&job, "job id")?;
            let close = Close { job, state: JobState::Failed, error, at_ms: now_ms() };
            self.end(close).await?;
        }
        Ok(())
    }

    /// Steps the payload key on to an hour, so that nobody can unwrap what was wrapped before it. Keys
    /// that are still needed are wrapped anew first.
    pub(super) async fn step_to(&self, hour: Hour) -> Result<(), StoreError> {
        let hour = hour.min(hour_of(now_ms()));
        if hour <= self.vault.key.from() {
            return Ok(());
        }
        loop {
            let rows: Vec<(String, Vec<u8>)> = query(
                "SELECT id, payload_key FROM job WHERE payload_key IS NOT NULL AND payload_hour < $1 \
                 LIMIT $2",
            )
            .bind(hour)
            .bind(WRAPS)
            .fetch_all(self.readers())
            .await?;
            if rows.is_empty() {
                break;
            }
            let mut anew = Rewrapped { hour, keys: Vec::with_capacity(rows.len()) };
            for (job, before) in rows {
                let job: JobId = parse_id(&job, "job id")?;
                let now = if let Ok(key) = self.vault.key.unwrap(job, &before) {
                    self.vault.key.wrap(job, hour, &key).1
                } else {
                    tracing::error!(job.id = %job, "the key of job {job} cannot be read any more");
                    // Nobody can; it must not keep the others from being shredded.
                    before.clone()
                };
                anew.keys.push((job, before, now));
            }
            let changed = self.write(|reply| Write::Rewrap(Box::new(anew), reply)).await?;
            if changed == 0 {
                // Somebody else is at it; the next round sees to the rest.
                return Ok(());
            }
        }
        self.write(|reply| Write::NoteHour(hour, reply)).await?;
        let vault = Arc::clone(&self.vault);
        let stepped = tokio::task::spawn_blocking(move || vault.key.step_to(hour)).await;
        stepped.map_err(|error| StoreError::Commit(error.to_string()))??;
        Ok(())
    }
}
