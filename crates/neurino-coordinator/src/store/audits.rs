//! The books of the audits: each step is a conditional write, so that a repeated one changes nothing,
//! and what an audit says of a node is written together with its end.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::audit::margins::Margins;
use neurino_core::audit::rank::TextRank;
use neurino_core::audit::{AuditRules, Outcome, Record};
use neurino_core::{JobId, JobSpec, LeaseId, NodeId, Receipt};
use neurino_ledger::PayerId;
use serde::{Deserialize, Serialize};

use super::sql::{Connection, Row, query};
use super::{Store, clawback, parse, parse_id, parse_json, to_json};
use crate::admin_log::Act;
use crate::compare::Finding;
use crate::error::StoreError;
use crate::payload::Field;
use crate::router::party_of;

/// A result that is to be computed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewAudit {
    /// The numeric class of its node.
    pub(crate) class: String,
    /// At which rate it was drawn.
    pub(crate) rate_ppm: u32,
    /// What else called for it.
    pub(crate) suspicion: Option<&'static str>,
    /// The job that has the answer, and whether it was computed in the same numeric class: then nobody
    /// need compute the result again.
    pub(crate) known: Option<(JobId, bool)>,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditState {
    /// Nobody computes it again yet.
    Waiting,
    /// Somebody of another owner does.
    Second,
    /// The two results differ; a validator computes it for the third time.
    Third,
    /// The result held.
    Held,
    /// It did not.
    Failed,
    /// It was not possible to tell.
    Unresolved,
    /// Nobody of another owner could compute it again.
    NoIndependentAuditor,
}

impl AuditState {
    /// The name in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Second => "second",
            Self::Third => "third",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Unresolved => "unresolved",
            Self::NoIndependentAuditor => "no_independent_auditor",
        }
    }
}

/// An audit as the books have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredAudit {
    /// The job whose result is checked.
    pub job: JobId,
    /// Who made the result.
    pub node: NodeId,
    /// Names its program and device; empty if unknown.
    pub class: String,
    /// The model.
    pub model: String,
    /// At which rate it was drawn, in millionths.
    pub rate_ppm: u32,
    /// What else called for it.
    pub suspicion: Option<String>,
    /// How far it is.
    pub state: AuditState,
    /// The job that computes it again.
    pub second: Option<JobId>,
    /// Whether by a node of the same class.
    pub second_class: bool,
    /// Who did.
    pub auditor: Option<NodeId>,
    /// The job that decides.
    pub third: Option<JobId>,
    /// Whether by a node of the same class.
    pub third_class: bool,
    /// Who decided.
    pub validator: Option<NodeId>,
    /// What the last comparison found.
    pub finding: Option<Finding>,
    /// When it was drawn, in milliseconds since the Unix epoch.
    pub drawn_at_ms: i64,
    /// When it last changed.
    pub changed_at_ms: i64,
}

/// What an audit says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) node: NodeId,
    pub(crate) outcome: Outcome,
    /// Scores of a text that was too short to say anything alone.
    pub(crate) pooled: Option<Margins>,
    /// Where a text of another engine stands among the network's own.
    pub(crate) rank: Option<TextRank>,
    /// Whether it is of what the node said of another's result.
    pub(crate) of_word: bool,
}

impl Ruling {
    pub(crate) fn new(node: NodeId, outcome: Outcome) -> Self {
        Self { node, outcome, pooled: None, rank: None, of_word: false }
    }

    /// What an audit says of whoever computed the result again.
    pub(crate) fn of_word(node: NodeId, outcome: Outcome) -> Self {
        Self { of_word: true, ..Self::new(node, outcome) }
    }
}

/// A step of the audits.
#[derive(Debug, Clone)]
pub(crate) enum AuditWrite {
    /// A job that computes a waiting one again was admitted.
    Second { job: JobId, second: JobId, same_class: bool, at_ms: i64 },
    /// The second run said nothing; another job takes its place.
    Again { job: JobId, before: JobId, second: JobId, same_class: bool, at_ms: i64 },
    /// The two differ, or could not be told apart by whom a validator can stand in for.
    Disputed { job: JobId, auditor: NodeId, finding: Finding, at_ms: i64 },
    /// A third job was admitted that decides.
    Third { job: JobId, third: JobId, same_class: bool, at_ms: i64 },
    /// It is decided.
    Decide {
        job: JobId,
        from: AuditState,
        to: AuditState,
        finding: Option<Finding>,
        auditor: Option<NodeId>,
        validator: Option<NodeId>,
        rulings: Vec<Ruling>,
        rules: AuditRules,
        at_ms: i64,
    },
    /// Calls back what a convicted node earned, a few leases at a time.
    ClawBack { node: NodeId, most: u32, at_ms: i64 },
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditWritten {
    /// Rows that changed; none if somebody was faster.
    pub(crate) changed: u64,
    /// New records of nodes.
    pub(crate) records: BTreeMap<NodeId, Record>,
    /// Nodes convicted by it.
    pub(crate) convicted: Vec<NodeId>,
    /// Owners whose engine was found to draw otherwise by it.
    pub(crate) apart: Vec<NodeId>,
}

/// A conviction, its appeal, and what was called back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conviction {
    /// Its number.
    pub id: i64,
    /// Who: an owner, whose nodes' ids all begin with it.
    pub node: NodeId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Earnings since then are called back.
    pub since_ms: i64,
    /// The record at that time, and the jobs whose audits failed.
    pub evidence: serde_json::Value,
    /// The owner's words.
    pub appeal: Option<String>,
    /// When they were taken down.
    pub appealed_at_ms: Option<i64>,
    /// Whether the appeal was granted.
    pub granted: Option<bool>,
    /// Why.
    pub note: Option<String>,
    /// When.
    pub decided_at_ms: Option<i64>,
    /// Paid leases that were called back and not given back.
    pub called_back: u64,
}

pub(super) async fn add(
    c: &mut Connection,
    receipt: &Receipt,
    audit: &NewAudit,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO audit (job, lease, node, class, model, rate_ppm, suspicion, state, second, \
         second_class, drawn_at_ms, changed_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(receipt.job.to_string())
    .bind(receipt.lease.to_string())
    .bind(receipt.node.as_str())
    .bind(&audit.class)
    .bind(receipt.model.as_str())
    .bind(audit.rate_ppm)
    .bind(audit.suspicion)
    .bind(if audit.known.is_some() { AuditState::Second } else { AuditState::Waiting }.as_str())
    .bind(audit.known.map(|(job, _)| job.to_string()))
    .bind(audit.known.is_some_and(|(_, same_class)| same_class))
    .bind(receipt.settled_at_ms)
    .bind(receipt.settled_at_ms)
    .execute(c)
    .await?;
    Ok(())
}

/// Forgets audits that said nothing, long after; the others are evidence.
pub(super) async fn prune(c: &mut Connection, before_ms: i64) -> Result<(), StoreError> {
    query("DELETE FROM audit WHERE state = 'no_independent_auditor' AND changed_at_ms < $1")
        .bind(before_ms)
        .execute(c)
        .await?;
    Ok(())
}

pub(super) async fn apply(
    c: &mut Connection,
    write: &AuditWrite,
) -> Result<AuditWritten, StoreError> {
    let changed = |changed: u64| AuditWritten { changed, ..AuditWritten::default() };
    match write {
        AuditWrite::Second { job, second, same_class, at_ms } => Ok(changed(
            query(
                "UPDATE audit SET state = 'second', second = $1, second_class = $2, \
                 changed_at_ms = $3 WHERE job = $4 AND state = 'waiting'",
            )
            .bind(second.to_string())
            .bind(same_class)
            .bind(at_ms)
            .bind(job.to_string())
            .execute(c)
            .await?,
        )),
        AuditWrite::Again { job, before, second, same_class, at_ms } => Ok(changed(
            query(
                "UPDATE audit SET second = $1, second_class = $2, changed_at_ms = $3 \
                 WHERE job = $4 AND state = 'second' AND second = $5",
            )
            .bind(second.to_string())
            .bind(same_class)
            .bind(at_ms)
            .bind(job.to_string())
            .bind(before.to_string())
            .execute(c)
            .await?,
        )),
        AuditWrite::Disputed { job, auditor, finding, at_ms } => Ok(changed(
            query(
                "UPDATE audit SET state = 'third', auditor = $1, finding = $2, changed_at_ms = $3 \
                 WHERE job = $4 AND state = 'second'",
            )
            .bind(auditor.as_str())
            .bind(to_json(finding))
            .bind(at_ms)
            .bind(job.to_string())
            .execute(c)
            .await?,
        )),
        AuditWrite::Third { job, third, same_class, at_ms } => Ok(changed(
            query(
                "UPDATE audit SET third = $1, third_class = $2, changed_at_ms = $3 \
                 WHERE job = $4 AND state = 'third' AND third IS NULL",
            )
            .bind(third.to_string())
            .bind(same_class)
            .bind(at_ms)
            .bind(job.to_string())
            .execute(c)
            .await?,
        )),
        AuditWrite::Decide { .. } => decide(c, write).await,
        AuditWrite::ClawBack { node, most, at_ms } => {
            let changed = claw_back(c, node, *most, *at_ms).await?;
            Ok(AuditWritten { changed, ..AuditWritten::default() })
        }
    }
}

async fn decide(c: &mut Connection, write: &AuditWrite) -> Result<AuditWritten, StoreError> {
    let AuditWrite::Decide { job, from, to, finding, auditor, validator, rulings, rules, at_ms } =
        write
    else {
        return Ok(AuditWritten::default());
    };
    let done = query(
        "UPDATE audit SET state = $1, finding = COALESCE($2, finding), \
         auditor = COALESCE($3, auditor), validator = $4, changed_at_ms = $5 \
         WHERE job = $6 AND state = $7",
    )
    .bind(to.as_str())
    .bind(finding.as_ref().map(to_json))
    .bind(auditor.as_ref().map(NodeId::as_str))
    .bind(validator.as_ref().map(NodeId::as_str))
    .bind(at_ms)
    .bind(job.to_string())
    .bind(from.as_str())
    .execute(&mut *c)
    .await?;
    let mut written = AuditWritten { changed: done, ..AuditWritten::default() };
    if written.changed != 1 {
        return Ok(written);
    }
    for Ruling { node, outcome, pooled, rank, of_word } in rulings {
        let node = &party_of(node);
        let before = record_of(c, node).await?;
        let (before, outcome) = match (pooled, rank) {
            (Some(margins), _) => before.pool(*margins, rules),
            (None, Some(rank)) => {
                let (stood, outcome) = before.stood(*rank, rules);
                if stood.apart && !before.apart {
                    written.apart.push(node.clone());
                }
                (stood, outcome)
            }
            (None, None) => (before, *outcome),
        };
        let counts = outcome != Outcome::Failed || !was_pardoned_since(c, node, *job).await?;
        let after = match (counts, of_word) {
            (false, _) => before,
            (true, false) => before.with(outcome, rules),
            (true, true) => before.with_word(outcome, rules),
        };
        set_record(c, node, &after).await?;
        if after.convicted && !before.convicted {
            convict(c, node, &after, rules, *at_ms).await?;
            written.convicted.push(node.clone());
        }
        written.records.insert(node.clone(), after);
    }
    Ok(written)
}

/// Whether an appeal of the node was granted after the audited result was paid: what was wrong up to
/// then was forgiven, also what comes to light later.
async fn was_pardoned_since(
    c: &mut Connection,
    node: &NodeId,
    job: JobId,
) -> Result<bool, StoreError> {
    let pardons: i64 = query(
        "SELECT COUNT(*) FROM conviction v JOIN audit a ON a.drawn_at_ms <= v.decided_at_ms \
         WHERE v.node = $1 AND v.granted IS TRUE AND a.job = $2",
    )
    .bind(node.as_str())
    .bind(job.to_string())
    .fetch_one(c)
    .await?;
    Ok(pardons > 0)
}

async fn record_of(c: &mut Connection, node: &NodeId) -> Result<Record, StoreError> {
    let known: Option<String> = query("SELECT record FROM trust WHERE node = $1")
        .bind(node.as_str())
        .fetch_optional(c)
        .await?;
    known.map_or_else(|| Ok(Record::default()), |known| parse_json(&known, "trust record"))
}

async fn set_record(c: &mut Connection, node: &NodeId, record: &Record) -> Result<(), StoreError> {
    query(
        "INSERT INTO trust (node, record) VALUES ($1, $2) \
         ON CONFLICT (node) DO UPDATE SET record = excluded.record",
    )
    .bind(node.as_str())
    .bind(to_json(record))
    .execute(c)
    .await?;
    Ok(())
}

async fn convict(
    c: &mut Connection,
    node: &NodeId,
    record: &Record,
    rules: &AuditRules,
    at_ms: i64,
) -> Result<(), StoreError> {
    let failed: Vec<String> = query(
        "SELECT job FROM audit WHERE (substr(node, 1, 42) = $1 AND state = 'failed') \
         OR (substr(auditor, 1, 42) = $1 AND state IN ('held', 'failed') AND third IS NOT NULL) \
         ORDER BY changed_at_ms DESC LIMIT 100",
    )
    .bind(node.as_str())
    .fetch_all(&mut *c)
    .await?;
    let evidence = serde_json::json!({ "record": record, "rules": rules.name, "audits": failed });
    query("INSERT INTO conviction (node, at_ms, since_ms, evidence) VALUES ($1, $2, $3, $4)")
        .bind(node.as_str())
        .bind(at_ms)
        .bind(at_ms.saturating_sub(rules.escrow_ms))
        .bind(evidence.to_string())
        .execute(&mut *c)
        .await?;
    let about = serde_json::json!({ "node": node, "rules": rules.name, "audits": failed.len() });
    super::admin_log::append(c, &Act::by_the_rules("node convicted", about), at_ms).await
}

async fn claw_back(
    c: &mut Connection,
    node: &NodeId,
    most: u32,
    at_ms: i64,
) -> Result<u64, StoreError> {
    // All nodes of the owner: ids are its address, or that and `-` with a tag. A point follows a dash.
    let due: Vec<(String, String, i64)> = query(
        "SELECT r.lease, r.node, v.id FROM conviction v \
         JOIN receipt r ON r.node >= $1 AND r.node < $1 || '.' \
         AND substr(r.node, 1, 42) = v.node AND r.settled_at_ms >= v.since_ms \
         WHERE v.node = $1 AND v.granted IS NOT TRUE \
         AND NOT EXISTS (SELECT 1 FROM clawback b WHERE b.lease = r.lease) \
         ORDER BY r.settled_at_ms LIMIT $2",
    )
    .bind(node.as_str())
    .bind(most)
    .fetch_all(&mut *c)
    .await?;
    for (lease, node, conviction) in &due {
        let lease: LeaseId = parse_id(lease, "lease id")?;
        let node: &NodeId = &parse_id(node, "node id")?;
        clawback::take_back(c, lease, node, at_ms).await?;
        query("INSERT INTO clawback (lease, node, conviction, at_ms) VALUES ($1, $2, $3, $4)")
            .bind(lease.to_string())
            .bind(node.as_str())
            .bind(conviction)
            .bind(at_ms)
            .execute(&mut *c)
            .await?;
    }
    Ok(due.len() as u64)
}

/// Takes an owner's words down; `false` if no conviction stands or its appeal was decided.
pub(super) async fn appeal(
    c: &mut Connection,
    node: &NodeId,
    words: &str,
    at_ms: i64,
) -> Result<bool, StoreError> {
    let node = &party_of(node);
    let done = query(
        "UPDATE conviction SET appeal = $1, appealed_at_ms = $2 WHERE node = $3 AND granted IS NULL",
    )
    .bind(words)
    .bind(at_ms)
    .bind(node.as_str())
    .execute(c)
    .await?;
    Ok(done == 1)
}

/// Decides the appeal of a conviction that stands; within the caller's transaction. Granting gives
/// everything back that was called back, and lets the node begin anew.
pub(super) async fn decide_appeal(
    c: &mut Connection,
    node: &NodeId,
    granted: bool,
    note: &str,
    at_ms: i64,
) -> Result<bool, StoreError> {
    let node = &party_of(node);
    let done = query(
        "UPDATE conviction SET granted = $1, note = $2, decided_at_ms = $3 \
         WHERE node = $4 AND granted IS NOT TRUE",
    )
    .bind(granted)
    .bind(note)
    .bind(at_ms)
    .bind(node.as_str())
    .execute(&mut *c)
    .await?;
    if done != 1 || !granted {
        return Ok(done == 1);
    }
    set_record(c, node, &Record::pardoned()).await?;
    let leases: Vec<String> = query(
        "SELECT b.lease FROM clawback b JOIN conviction v ON v.id = b.conviction \
         WHERE v.node = $1 AND b.restored_at_ms IS NULL",
    )
    .bind(node.as_str())
    .fetch_all(&mut *c)
    .await?;
    for lease in &leases {
        let lease: LeaseId = parse_id(lease, "lease id")?;
        clawback::give_back(c, lease, at_ms).await?;
        query("UPDATE clawback SET restored_at_ms = $1 WHERE lease = $2")
            .bind(at_ms)
            .bind(lease.to_string())
            .execute(&mut *c)
            .await?;
    }
    Ok(true)
}

pub(super) async fn convictions(c: &mut Connection) -> Result<Vec<Conviction>, StoreError> {
    let rows: Vec<Row> = query(
        "SELECT v.*, (SELECT COUNT(*) FROM clawback b WHERE b.conviction = v.id \
         AND b.restored_at_ms IS NULL) AS called_back FROM conviction v ORDER BY v.id",
    )
    .fetch_all(c)
    .await?;
    let read = |row: &Row| {
        let called_back: i64 = row.try_get("called_back")?;
        Ok(Conviction {
            id: row.try_get("id")?,
            node: parse_id(row.text("node")?, "node id")?,
            at_ms: row.try_get("at_ms")?,
            since_ms: row.try_get("since_ms")?,
            evidence: parse_json(row.text("evidence")?, "evidence")?,
            appeal: row.try_get("appeal")?,
            appealed_at_ms: row.try_get("appealed_at_ms")?,
            granted: row.try_get("granted")?,
            note: row.try_get("note")?,
            decided_at_ms: row.try_get("decided_at_ms")?,
            called_back: called_back.unsigned_abs(),
        })
    };
    rows.iter().map(read).collect()
}

pub(super) async fn records(c: &mut Connection) -> Result<BTreeMap<NodeId, Record>, StoreError> {
    let rows: Vec<(String, String)> = query("SELECT node, record FROM trust").fetch_all(c).await?;
    let read = |(node, record): (String, String)| {
        Ok((parse_id(&node, "node id")?, parse_json(&record, "trust record")?))
    };
    rows.into_iter().map(read).collect()
}

pub(super) async fn validators(c: &mut Connection) -> Result<BTreeSet<NodeId>, StoreError> {
    let rows: Vec<String> = query("SELECT node FROM validator").fetch_all(c).await?;
    rows.iter().map(|node| parse_id(node, "node id")).collect()
}

/// Audits of a node by state; of all nodes without one.
pub(super) async fn counts(
    c: &mut Connection,
) -> Result<BTreeMap<NodeId, BTreeMap<AuditState, u64>>, StoreError> {
    let rows: Vec<(String, String, i64)> =
        query("SELECT node, state, COUNT(*) FROM audit GROUP BY node, state").fetch_all(c).await?;
    let mut all = BTreeMap::<NodeId, BTreeMap<AuditState, u64>>::new();
    for (node, state, count) in rows {
        let states = all.entry(parse_id(&node, "node id")?).or_default();
        states.insert(parse(&state, "audit state")?, count.unsigned_abs());
    }
    Ok(all)
}

/// The newest audits, at most so many.
pub(super) async fn newest(c: &mut Connection, most: u32) -> Result<Vec<StoredAudit>, StoreError> {
    let rows: Vec<Row> = query("SELECT * FROM audit ORDER BY drawn_at_ms DESC LIMIT $1")
        .bind(most)
        .fetch_all(c)
        .await?;
    rows.iter().map(stored).collect()
}

/// The audit of a job's result.
pub(super) async fn of_job(
    c: &mut Connection,
    job: JobId,
) -> Result<Option<StoredAudit>, StoreError> {
    let row: Option<Row> =
        query("SELECT * FROM audit WHERE job = $1").bind(job.to_string()).fetch_optional(c).await?;
    row.as_ref().map(stored).transpose()
}

fn stored(row: &Row) -> Result<StoredAudit, StoreError> {
    let job = |column: &str| -> Result<Option<JobId>, StoreError> {
        let id: Option<String> = row.try_get(column)?;
        id.map(|id| parse_id(&id, "job id")).transpose()
    };
    let node = |column: &str| -> Result<Option<NodeId>, StoreError> {
        let id: Option<String> = row.try_get(column)?;
        id.map(|id| parse_id(&id, "node id")).transpose()
    };
    let finding: Option<String> = row.try_get("finding")?;
    Ok(StoredAudit {
        job: parse_id(row.text("job")?, "job id")?,
        node: parse_id(row.text("node")?, "node id")?,
        class: row.try_get("class")?,
        model: row.try_get("model")?,
        rate_ppm: row.try_get("rate_ppm")?,
        suspicion: row.try_get("suspicion")?,
        state: parse(row.text("state")?, "audit state")?,
        second: job("second")?,
        second_class: row.try_get("second_class")?,
        auditor: node("auditor")?,
        third: job("third")?,
        third_class: row.try_get("third_class")?,
        validator: node("validator")?,
        finding: finding.map(|f| parse_json(&f, "finding")).transpose()?,
        drawn_at_ms: row.try_get("drawn_at_ms")?,
        changed_at_ms: row.try_get("changed_at_ms")?,
    })
}

impl Store {
    /// Audits that are not decided, in the order of their jobs' ids after one, at most so many.
    pub(crate) async fn open_audits(
        &self,
        after: Option<JobId>,
        most: u32,
    ) -> Result<Vec<StoredAudit>, StoreError> {
        let rows: Vec<Row> = query(
            "SELECT * FROM audit WHERE state IN ('waiting', 'second', 'third') AND job > $1 \
             ORDER BY job LIMIT $2",
        )
        .bind(after.map(|job| job.to_string()).unwrap_or_default())
        .bind(most)
        .fetch_all(self.readers())
        .await?;
        rows.iter().map(stored).collect()
    }

    /// The idempotency key that a job of a payer was sent under, while it is kept.
    pub(crate) async fn key_of_job(
        &self,
        payer: &PayerId,
        job: JobId,
    ) -> Result<Option<String>, StoreError> {
        let key: Option<Option<String>> =
            query("SELECT idempotency_key FROM job WHERE id = $1 AND payer = $2")
                .bind(job.to_string())
                .bind(payer.as_str())
                .fetch_optional(self.readers())
                .await?;
        Ok(key.flatten())
    }

    /// Jobs that a payer sent under idempotency keys that begin so, oldest first, with their keys.
    pub(crate) async fn jobs_of_keys(
        &self,
        payer: &PayerId,
        prefix: &str,
    ) -> Result<Vec<(JobId, String)>, StoreError> {
        // PostgreSQL takes no larger integer for a length.
        let length = i64::try_from(prefix.len()).unwrap_or(i64::MAX);
        let rows: Vec<(String, String)> = query(
            "SELECT id, idempotency_key FROM job WHERE payer = $1 AND idempotency_key IS NOT NULL \
             AND substr(idempotency_key, 1, CAST($2 AS INTEGER)) = $3 ORDER BY created_at_ms, id",
        )
        .bind(payer.as_str())
        .bind(length)
        .bind(prefix)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(|(id, key)| Ok((parse_id(&id, "job id")?, key))).collect()
    }

    /// What was asked for; absent once it was shredded.
    pub(crate) async fn spec(&self, job: JobId) -> Result<Option<JobSpec>, StoreError> {
        let row: Option<(Option<String>, Option<Vec<u8>>)> =
            query("SELECT spec, payload_key FROM job WHERE id = $1")
                .bind(job.to_string())
                .fetch_optional(self.readers())
                .await?;
        let Some((spec, key)) = row else { return Ok(None) };
        let spec = self.vault.text(job, key.as_deref(), Field::Spec, spec.as_deref())?;
        spec.map(|spec| parse_json(&spec, "spec")).transpose()
    }

    /// Records of nodes.
    pub(crate) async fn trust(&self) -> Result<BTreeMap<NodeId, Record>, StoreError> {
        records(&mut self.readers().acquire().await?).await
    }

    /// Nodes whose word decides.
    pub(crate) async fn validators(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        validators(&mut self.readers().acquire().await?).await
    }

    /// Audits of a node by state.
    pub(crate) async fn audit_counts(
        &self,
        node: &NodeId,
    ) -> Result<BTreeMap<AuditState, u64>, StoreError> {
        let rows: Vec<(String, i64)> =
            query("SELECT state, COUNT(*) FROM audit WHERE node = $1 GROUP BY state")
                .bind(node.as_str())
                .fetch_all(self.readers())
                .await?;
        let read = |(state, count): (String, i64)| {
            Ok((parse(&state, "audit state")?, count.unsigned_abs()))
        };
        rows.into_iter().map(read).collect()
    }
}
