//! What an audit was about, for whoever decides an appeal.

use std::path::Path;

use neurino_core::{JobId, JobOutput, JobSpec, NodeId};
use serde::Serialize;

use super::pictures::Pictures;
use super::sql::{Row, query};
use super::vault::{KeyFile, Vault, check, opened};
use super::{Beside, StoredAudit, audits, parse_id, parse_json};
use crate::database::Database;
use crate::error::{CoordinatorError, StoreError};
use crate::payload::{Field, PayloadKey};

/// What an audit is about, as far as it is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Evidence {
    /// The audit.
    pub audit: StoredAudit,
    /// What was asked; absent once it was shredded.
    pub asked: Option<JobSpec>,
    /// The audited result, and those that were computed again.
    pub runs: Vec<EvidenceRun>,
}

/// One of an audit's results.
#[derive(Debug, Clone, Serialize)]
pub struct EvidenceRun {
    /// Its job.
    pub job: JobId,
    /// Who computed it, if it was paid.
    pub node: Option<NodeId>,
    /// What was answered; absent once it was shredded, and where a picture lies in a bucket.
    pub output: Option<JobOutput>,
}

impl Beside {
    /// What an audit is about, unsealed with the key of a file; `None` if there is no such audit.
    pub(crate) async fn evidence(
        &mut self,
        database: &Database,
        key_file: &Path,
        job: JobId,
    ) -> Result<Option<Evidence>, CoordinatorError> {
        let file = KeyFile { path: key_file.to_owned(), renew: false };
        check(&mut self.0, &file).await?;
        // Books that were never opened with a key hold nothing that was sealed.
        let Some(key) = PayloadKey::read(key_file)? else { return Ok(None) };
        let Some(audit) = audits::of_job(&mut self.0, job).await? else { return Ok(None) };
        let vault = Vault::new(key);
        let pictures = match database {
            Database::Sqlite(path) => Pictures::beside(path),
            Database::Postgres(books) => Pictures::at(books.pictures()),
        };
        let mut evidence = Evidence { asked: None, runs: Vec::new(), audit };
        let runs = [Some(job), evidence.audit.second, evidence.audit.third];
        for id in runs.into_iter().flatten() {
            let row: Option<Row> = query(
                "SELECT j.spec, j.output, j.payload_key, r.node FROM job j \
                 LEFT JOIN receipt r ON r.job = j.id WHERE j.id = $1",
            )
            .bind(id.to_string())
            .fetch_optional(&mut self.0)
            .await
            .map_err(StoreError::from)?;
            let Some(row) = row else { continue };
            let (asked, run) = run_of(&row, id, &vault, &pictures).await?;
            if id == job {
                evidence.asked = asked;
            }
            evidence.runs.push(run);
        }
        Ok(Some(evidence))
    }
}

/// What was asked of a run, and what came of it.
async fn run_of(
    row: &Row,
    id: JobId,
    vault: &Vault,
    pictures: &Pictures,
) -> Result<(Option<JobSpec>, EvidenceRun), StoreError> {
    let read = |name| row.try_get::<Option<String>>(name);
    let node = read("node")?.map(|node| parse_id(&node, "node id")).transpose()?;
    let wrapped: Option<Vec<u8>> = row.try_get("payload_key")?;
    let mut run = EvidenceRun { job: id, node, output: None };
    let Some(key) = vault.job_key(id, wrapped.as_deref())? else { return Ok((None, run)) };
    let text = |field, name| -> Result<Option<String>, StoreError> {
        let sealed = read(name)?;
        sealed.map(|sealed| opened(key.open_text(id, field, &sealed), field)).transpose()
    };
    let spec = text(Field::Spec, "spec")?;
    let spec = spec.map(|spec| parse_json(&spec, "spec")).transpose()?;
    if let Some(kept) = text(Field::Output, "output")? {
        run.output = match pictures.whole(parse_json(&kept, "output")?, (id, &key)).await {
            // It lies in the bucket, or its file is gone.
            Err(StoreError::Picture(_)) => None,
            output => Some(output?),
        };
    }
    Ok((spec, run))
}
