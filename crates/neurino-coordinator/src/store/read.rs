//! Reading the books.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;
use std::time::Duration;

use neurino_core::{
    IdempotencyKey, ImageOutput, JobId, JobSpec, LeaseId, MicroCredits, MicroPoints, ModelId,
    NodeId, PointsKind, Receipt, ResultDigest, UnitId,
};
use neurino_ledger::{Account, PayerId, Unit};
use neurino_protocol::app::PointsSummary;
use sha2::{Digest, Sha256};

use super::pictures::NAMES;
use super::sql::{Connection, Query, Row, query};
use super::vault::opened;
use super::{
    OpenJob, Pod, RunningAttempt, Store, StoredAttempt, StoredJob, StoredKey, parse, parse_id,
    parse_json, receipt_of, receipt_of_job,
};
use crate::books::{AccountBalance, LedgerCheck};
use crate::error::StoreError;
use crate::keys::KeyTerms;
use crate::payload::Field;
use crate::terms::Payment;

/// Pictures of paid leases.
static OF_LEASES: LazyLock<&'static str> = LazyLock::new(|| {
    let text =
        "SELECT r.lease, p.sha256 FROM receipt r JOIN picture p ON p.job = r.job WHERE r.lease";
    one_of_names(text)
});
/// Pictures by their digests, whoever made them.
static OF_DIGESTS: LazyLock<&'static str> =
    LazyLock::new(|| one_of_names("SELECT DISTINCT p.sha256 FROM picture p WHERE p.sha256"));

/// A statement that looks for one of [`NAMES`] values.
fn one_of_names(text: &str) -> &'static str {
    let places: Vec<String> = (1..=NAMES).map(|n| format!("${n}")).collect();
    format!("{text} IN ({})", places.join(", ")).leak()
}

/// The same with values, and with empty ones where there are fewer.
fn about_names<'v>(text: &'static str, values: impl Iterator<Item = &'v str>) -> Query {
    let padded = values.chain(std::iter::repeat("")).take(NAMES);
    padded.fold(query(text), Query::bind)
}

fn payer(text: String) -> Result<PayerId, StoreError> {
    PayerId::new(text).map_err(|_| StoreError::Unreadable { what: "payer" })
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Jobs that have not ended, with their running attempts.
macro_rules! open_jobs {
    () => {
        "SELECT j.id, j.payer, j.rule_set, j.spec, j.payload_key, j.fence, j.failures, j.losses, \
         j.no_node_wait_ms, j.class, j.placement, j.attempts_max, j.frontend, j.price_list, j.held_micro, \
         j.attended, j.idempotency_key IS NOT NULL AS has_key, j.state, \
         COALESCE((SELECT MAX(x.fence) FROM attempt x WHERE x.job = j.id), j.fence) AS last_fence, \
         a.lease, a.node, a.unit, a.granted_at_ms, a.deadline_ms \
         FROM job j LEFT JOIN attempt a \
         ON a.job = j.id AND a.fence = j.fence AND a.state = 'running' AND j.state = 'leased' \
         WHERE j.state IN ('queued', 'leased')"
    };
}

impl Store {
    /// The job that a payer sent under an idempotency key, while its request is kept.
    pub(crate) async fn job_of_key(
        &self,
        payer: &PayerId,
        key: &IdempotencyKey,
    ) -> Result<Option<(JobId, JobSpec)>, StoreError> {
        let row: Option<(String, Option<String>, Option<Vec<u8>>)> = query(
            "SELECT id, spec, payload_key FROM job WHERE payer = $1 AND idempotency_key = $2",
        )
        .bind(payer.as_str())
        .bind(key.as_str())
        .fetch_optional(self.readers())
        .await?;
        let Some((id, spec, key)) = row else { return Ok(None) };
        let id = parse_id(&id, "job id")?;
        let spec = self.vault.text(id, key.as_deref(), Field::Spec, spec.as_deref())?;
        spec.map(|spec| Ok((id, parse_json(&spec, "job")?))).transpose()
    }

    /// Which identity key's address is bound to which reward address.
    pub(crate) async fn bindings(&self) -> Result<HashMap<String, String>, StoreError> {
        let rows: Vec<(String, String)> = query("SELECT reward, identity FROM original_binding")
            .fetch_all(self.readers())
            .await?;
        Ok(rows.into_iter().collect())
    }

    /// Seeds of kept jobs on a model whose result is this very picture.
    pub(crate) async fn seeds_of(
        &self,
        picture: &ImageOutput,
        model: &str,
    ) -> Result<Vec<u64>, StoreError> {
        let sha256 = ResultDigest(Sha256::digest(&picture.png.0).into());
        let specs: Vec<(String, String, Option<Vec<u8>>)> = query(
            "SELECT j.id, j.spec, j.payload_key FROM picture p JOIN job j ON j.id = p.job \
             WHERE p.sha256 = $1 AND j.spec IS NOT NULL LIMIT 16",
        )
        .bind(sha256.to_string())
        .fetch_all(self.readers())
        .await?;
        let mut seeds = Vec::new();
        for (id, spec, key) in specs {
            let id = parse_id(&id, "job id")?;
            let spec = self.vault.text(id, key.as_deref(), Field::Spec, Some(&spec))?;
            if let Some(JobSpec::Image(job)) =
                spec.map(|spec| parse_json(&spec, "spec")).transpose()?
                && job.model.as_str() == model
            {
                seeds.push(job.seed);
            }
        }
        Ok(seeds)
    }

    /// Jobs that have not ended, oldest first.
    pub(crate) async fn open_jobs(&self) -> Result<Vec<OpenJob>, StoreError> {
        let rows: Vec<Row> =
            query(concat!(open_jobs!(), " ORDER BY j.id")).fetch_all(self.readers()).await?;
        rows.iter().filter_map(|row| self.open_job_of(row).transpose()).collect()
    }

    /// One of them.
    pub(crate) async fn open_job(&self, id: JobId) -> Result<Option<OpenJob>, StoreError> {
        let row: Option<Row> = query(concat!(open_jobs!(), " AND j.id = $1"))
            .bind(id.to_string())
            .fetch_optional(self.readers())
            .await?;
        row.as_ref().and_then(|row| self.open_job_of(row).transpose()).transpose()
    }

    /// A job, open or ended.
    pub(crate) async fn job(&self, id: JobId) -> Result<Option<StoredJob>, StoreError> {
        let mut connection = self.readers().acquire().await?;
        let row: Option<Row> = query(
            "SELECT payer, state, created_at_ms, finished_at_ms, output, error, payload_key \
             FROM job WHERE id = $1",
        )
        .bind(id.to_string())
        .fetch_optional(&mut connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let receipt = receipt_of_job(&mut connection, id).await?;
        drop(connection);
        let wrapped: Option<Vec<u8>> = row.try_get("payload_key")?;
        let key = self.vault.job_key(id, wrapped.as_deref())?;
        let sealed: Option<String> = row.try_get("output")?;
        let output = match sealed.zip(key.as_ref()) {
            Some((sealed, key)) => {
                let kept = opened(key.open_text(id, Field::Output, &sealed), Field::Output)?;
                Some(self.pictures.whole(parse_json(&kept, "output")?, (id, key)).await?)
            }
            None => None,
        };
        let error: Option<String> = row.try_get("error")?;
        let error = error.map(|error| self.vault.error(id, wrapped.as_deref(), &error));
        Ok(Some(StoredJob {
            payer: payer(row.try_get("payer")?)?,
            state: parse(row.text("state")?, "job state")?,
            created_at_ms: row.try_get("created_at_ms")?,
            finished_at_ms: row.try_get("finished_at_ms")?,
            output,
            error: error.transpose()?,
            receipt,
            shredded: key.is_none(),
        }))
    }

    /// Those of some names of files, in a folder or a bucket, that a picture of a job has.
    pub(crate) async fn kept_pictures(
        &self,
        names: Vec<String>,
    ) -> Result<HashSet<String>, StoreError> {
        let mut kept = HashSet::with_capacity(names.len());
        for names in names.chunks(NAMES) {
            let parts = |name: &String| {
                let stem = name.strip_suffix(".png").or_else(|| name.strip_suffix(".sealed"))?;
                let (lease, sha256) = match stem.rsplit_once('-') {
                    Some((lease, sha256)) => (lease.to_owned(), sha256.to_owned()),
                    // As former versions named it.
                    None => (String::new(), stem.to_owned()),
                };
                Some((name.clone(), lease, sha256))
            };
            let files: Vec<(String, String, String)> = names.iter().filter_map(parts).collect();
            let leases = files.iter().map(|(_, lease, _)| lease.as_str());
            let of_leases: Vec<(String, String)> =
                about_names(*OF_LEASES, leases).fetch_all(self.readers()).await?;
            let of_leases: HashSet<(String, String)> = of_leases.into_iter().collect();
            let former = files.iter().filter(|(_, lease, _)| lease.is_empty());
            let digests = former.map(|(_, _, sha256)| sha256.as_str());
            let of_digests: Vec<String> =
                about_names(*OF_DIGESTS, digests).fetch_all(self.readers()).await?;
            let of_digests: HashSet<String> = of_digests.into_iter().collect();
            for (name, lease, sha256) in files {
                let known = if lease.is_empty() {
                    of_digests.contains(&sha256)
                } else {
                    of_leases.contains(&(lease, sha256))
                };
                if known {
                    kept.insert(name);
                }
            }
        }
        Ok(kept)
    }

    /// A job that is open; `None` if its request was shredded.
    fn open_job_of(&self, row: &Row) -> Result<Option<OpenJob>, StoreError> {
        let id = parse_id(row.text("id")?, "job id")?;
        let spec: Option<String> = row.try_get("spec")?;
        let key: Option<Vec<u8>> = row.try_get("payload_key")?;
        let spec = self.vault.text(id, key.as_deref(), Field::Spec, spec.as_deref())?;
        spec.map(|spec| open_job(row, id, parse_json(&spec, "job")?)).transpose()
    }

    /// A link to a job's picture, good for so long, if it lies in the bucket.
    pub(crate) async fn picture_link(
        &self,
        id: JobId,
        valid: Duration,
    ) -> Result<Option<String>, StoreError> {
        let row: Option<(Option<String>, Option<Vec<u8>>)> =
            query("SELECT output, payload_key FROM job WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(self.readers())
                .await?;
        let Some((output, key)) = row else { return Ok(None) };
        let kept = self.vault.text(id, key.as_deref(), Field::Output, output.as_deref())?;
        let Some(kept) = kept else { return Ok(None) };
        Ok(self.pictures.link(&parse_json(&kept, "output")?, valid))
    }

    /// The receipt of a lease that was paid.
    pub(crate) async fn receipt(&self, lease: LeaseId) -> Result<Option<Receipt>, StoreError> {
        receipt_of(&mut self.readers().acquire().await?, lease).await
    }

    /// An attempt and the state of its job.
    pub(crate) async fn attempt(
        &self,
        lease: LeaseId,
    ) -> Result<Option<StoredAttempt>, StoreError> {
        let row: Option<Row> = query(
            "SELECT a.job, a.state, a.node, j.state AS job_state \
             FROM attempt a JOIN job j ON j.id = a.job WHERE a.lease = $1",
        )
        .bind(lease.to_string())
        .fetch_optional(self.readers())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(StoredAttempt {
            job: parse_id(row.text("job")?, "job id")?,
            state: row.try_get("state")?,
            job_state: parse(row.text("job_state")?, "job state")?,
            node: parse_id(row.text("node")?, "node id")?,
        }))
    }

    /// Receipts, newest first.
    pub(crate) async fn receipts(
        &self,
        node: Option<&NodeId>,
        before_ms: i64,
        limit: u32,
    ) -> Result<Vec<Receipt>, StoreError> {
        let query = match node {
            Some(node) => query(
                "SELECT body FROM receipt WHERE node = $1 AND settled_at_ms < $2 \
                 ORDER BY settled_at_ms DESC LIMIT $3",
            )
            .bind(node.as_str()),
            None => query(
                "SELECT body FROM receipt WHERE settled_at_ms < $1 \
                 ORDER BY settled_at_ms DESC LIMIT $2",
            ),
        };
        let bodies: Vec<String> =
            query.bind(before_ms).bind(i64::from(limit)).fetch_all(self.readers()).await?;
        bodies.iter().map(|body| parse_json(body, "receipt")).collect()
    }

    /// When the last receipt was settled; zero before the first.
    pub(crate) async fn last_settled_ms(&self) -> Result<i64, StoreError> {
        let last: Option<i64> =
            query("SELECT MAX(settled_at_ms) FROM receipt").fetch_one(self.readers()).await?;
        Ok(last.unwrap_or(0))
    }

    /// Points of a node in all and since a time, from its postings.
    pub(crate) async fn points(
        &self,
        node: &NodeId,
        since_ms: i64,
    ) -> Result<PointsSummary, StoreError> {
        let account = Account::Node(node.clone()).to_string();
        let rows: Vec<(String, i64, i64, i64, i64)> = query(
            "SELECT points, CAST(SUM(amount_micro) AS BIGINT), \
             COUNT(*) FILTER (WHERE kind = 'job_reward'), \
             CAST(COALESCE(SUM(amount_micro) FILTER (WHERE at_ms >= $2), 0) AS BIGINT), \
             COUNT(*) FILTER (WHERE at_ms >= $2 AND kind = 'job_reward') \
             FROM posting WHERE account = $1 AND points <> 'credit' GROUP BY points",
        )
        .bind(account)
        .bind(since_ms)
        .fetch_all(self.readers())
        .await?;
        let mut sum = PointsSummary {
            llama_today: MicroPoints(0),
            llama_total: MicroPoints(0),
            waifu_today: MicroPoints(0),
            waifu_total: MicroPoints(0),
            jobs_today: 0,
            jobs_total: 0,
        };
        for (points, total, jobs, today, jobs_today) in rows {
            let (of_today, in_all) = match parse(&points, "points")? {
                PointsKind::Llama => (&mut sum.llama_today, &mut sum.llama_total),
                PointsKind::Waifu => (&mut sum.waifu_today, &mut sum.waifu_total),
            };
            (*of_today, *in_all) = (MicroPoints(today), MicroPoints(total));
            sum.jobs_today += u32::try_from(jobs_today).unwrap_or(u32::MAX);
            sum.jobs_total += u32::try_from(jobs).unwrap_or(u32::MAX);
        }
        Ok(sum)
    }

    /// Adds everything up.
    pub(crate) async fn ledger_check(&self) -> Result<LedgerCheck, StoreError> {
        ledger_check(&mut self.readers().take().await?).await
    }

    /// The gateway keys.
    pub(crate) async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        keys(&mut self.readers().acquire().await?).await
    }

    /// Rises when keys, models or votes were changed.
    pub(crate) async fn settings_version(&self) -> Result<i64, StoreError> {
        let version: String = query("SELECT value FROM meta WHERE key = 'settings_version'")
            .fetch_one(self.readers())
            .await?;
        parse_id(&version, "settings version")
    }

    /// Models that somebody brought or voted for.
    pub(crate) async fn pods(&self) -> Result<BTreeMap<ModelId, Pod>, StoreError> {
        let rows: Vec<(String, Option<String>, i64, i64)> =
            query("SELECT model, deployer, votes, shareable FROM pod")
                .fetch_all(self.readers())
                .await?;
        rows.into_iter()
            .map(|(model, deployer, votes, shareable)| {
                let deployer = deployer.map(payer).transpose()?;
                let pod = Pod { deployer, votes: count(votes), shareable: shareable != 0 };
                Ok((parse_id(&model, "model")?, pod))
            })
            .collect()
    }

    /// Votes for nodes.
    pub(crate) async fn node_votes(&self) -> Result<BTreeMap<NodeId, u64>, StoreError> {
        let rows: Vec<(String, i64)> =
            query("SELECT node, votes FROM node_vote").fetch_all(self.readers()).await?;
        rows.into_iter().map(|(node, votes)| Ok((parse_id(&node, "node")?, count(votes)))).collect()
    }

    /// Seconds that nodes were connected since a day.
    pub(crate) async fn uptimes(&self, since: i64) -> Result<BTreeMap<NodeId, u64>, StoreError> {
        let rows: Vec<(String, i64)> = query(
            "SELECT node, CAST(SUM(seconds) AS BIGINT) FROM uptime WHERE day >= $1 GROUP BY node",
        )
        .bind(since)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(|(node, sum)| Ok((parse_id(&node, "node")?, count(sum)))).collect()
    }
}

/// The gateway keys.
pub(super) async fn keys(c: &mut Connection) -> Result<Vec<StoredKey>, StoreError> {
    let rows: Vec<Row> =
        query("SELECT * FROM api_key ORDER BY created_at_ms, id").fetch_all(c).await?;
    rows.iter().map(stored_key).collect()
}

fn stored_key(row: &Row) -> Result<StoredKey, StoreError> {
    let digest = |bytes: Vec<u8>| {
        <[u8; 32]>::try_from(bytes).map_err(|_| StoreError::Unreadable { what: "key digest" })
    };
    let owner: Option<String> = row.try_get("payer")?;
    let frontend: Option<String> = row.try_get("frontend")?;
    let budget: Option<i64> = row.try_get("budget_micro")?;
    let old: Option<Vec<u8>> = row.try_get("old_sha256")?;
    let old_until: Option<i64> = row.try_get("old_until_ms")?;
    Ok(StoredKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        sha256: digest(row.try_get("sha256")?)?,
        created_at_ms: row.try_get("created_at_ms")?,
        terms: KeyTerms {
            payer: owner.map(payer).transpose()?,
            scopes: crate::keys::scopes_of(row.text("scopes")?)?,
            prepaid: row.try_get("prepaid")?,
            budget: budget.map(MicroCredits),
            requests_per_min: row.try_get("requests_per_min")?,
            units_per_min: row.try_get("units_per_min")?,
            frontend: frontend.map(|f| parse_id(&f, "frontend")).transpose()?,
        },
        revoked_at_ms: row.try_get("revoked_at_ms")?,
        old: old.map(digest).transpose()?.zip(old_until),
    })
}

/// Adds everything up, in one consistent view.
pub(super) async fn ledger_check(view: &mut Connection) -> Result<LedgerCheck, StoreError> {
    view.begin_view().await?;
    let sums: Vec<(String, i64)> =
        query("SELECT points, CAST(SUM(amount_micro) AS BIGINT) FROM posting GROUP BY points")
            .fetch_all(&mut *view)
            .await?;
    let accounts: Vec<(String, String, i64, i64)> = query(
        "SELECT account, points, CAST(SUM(amount_micro) AS BIGINT), COUNT(*) FROM posting \
             GROUP BY account, points ORDER BY account, points",
    )
    .fetch_all(&mut *view)
    .await?;
    let paid: Vec<(String, String, i64)> = query(
        "SELECT node, points, CAST(SUM(amount_micro) AS BIGINT) FROM receipt r WHERE NOT EXISTS \
             (SELECT 1 FROM clawback b WHERE b.lease = r.lease AND b.restored_at_ms IS NULL) \
             GROUP BY node, points",
    )
    .fetch_all(&mut *view)
    .await?;
    let jobs: Vec<(String, i64)> =
        query("SELECT state, COUNT(*) FROM job GROUP BY state").fetch_all(&mut *view).await?;
    let (mismatched_holds, mismatched_balances): (i64, i64) = query(
        "SELECT (SELECT COUNT(*) FROM \
             (SELECT 'held:' || payer AS account, SUM(held_micro) AS amount FROM job \
              WHERE state IN ('queued', 'leased') AND held_micro > 0 GROUP BY payer) h \
             FULL JOIN (SELECT * FROM credit_balance WHERE account LIKE 'held:%') b \
             ON b.account = h.account WHERE COALESCE(h.amount, 0) <> COALESCE(b.amount_micro, 0)), \
         (SELECT COUNT(*) FROM credit_balance b FULL JOIN \
             (SELECT account, SUM(amount_micro) AS amount FROM posting WHERE points = 'credit' \
              GROUP BY account) p ON p.account = b.account \
             WHERE COALESCE(p.amount, 0) <> COALESCE(b.amount_micro, 0))",
    )
    .fetch_one(&mut *view)
    .await?;
    let (receipts, twice, mismatched): (i64, i64, i64) = query(
        "SELECT (SELECT COUNT(*) FROM receipt), \
             (SELECT COUNT(*) FROM (SELECT job FROM attempt WHERE state = 'paid' GROUP BY job \
              HAVING COUNT(*) > 1) twice), \
             (SELECT COUNT(*) FROM job j LEFT JOIN receipt r ON r.job = j.id \
              WHERE (j.state = 'succeeded') <> (r.job IS NOT NULL))",
    )
    .fetch_one(&mut *view)
    .await?;
    view.run("ROLLBACK").await?;

    let mut paid: BTreeMap<(String, String), i64> =
        paid.into_iter().map(|(node, points, sum)| ((node, points), sum)).collect();
    let mut balances = Vec::with_capacity(accounts.len());
    for (account, points, balance, postings) in accounts {
        let account: Account = parse_id(&account, "account")?;
        let receipts = match &account {
            Account::Node(node) => paid.remove(&(node.to_string(), points.clone())),
            _ => None,
        };
        balances.push(AccountBalance {
            account,
            points: parse(&points, "points")?,
            balance_micro: MicroPoints(balance),
            receipts_micro: MicroPoints(receipts.unwrap_or(0)),
            postings: count(postings),
        });
    }
    // Receipts of a node that has no posting at all would be a hole; show them as one.
    for ((node, points), sum) in paid {
        balances.push(AccountBalance {
            account: Account::Node(parse_id(&node, "node id")?),
            points: parse(&points, "points")?,
            balance_micro: MicroPoints(0),
            receipts_micro: MicroPoints(sum),
            postings: 0,
        });
    }
    let sums_micro = sums
        .into_iter()
        .map(|(points, sum)| Ok((parse(&points, "points")?, MicroPoints(sum))))
        .collect::<Result<BTreeMap<Unit, _>, StoreError>>()?;
    Ok(LedgerCheck {
        sums_micro,
        balances,
        jobs: jobs.into_iter().map(|(state, n)| (state, count(n))).collect(),
        receipts: count(receipts),
        jobs_paid_twice: count(twice),
        mismatched_jobs: count(mismatched),
        mismatched_holds: count(mismatched_holds),
        mismatched_balances: count(mismatched_balances),
    })
}

fn open_job(row: &Row, id: JobId, spec: JobSpec) -> Result<OpenJob, StoreError> {
    let (lease, unit) =
        (row.try_get::<Option<String>>("lease")?, row.try_get::<Option<u32>>("unit")?);
    let running = match lease {
        None => None,
        Some(lease) => Some(RunningAttempt {
            lease: parse_id(&lease, "lease id")?,
            node: parse_id(row.text("node")?, "node id")?,
            unit: unit.and_then(|unit| u8::try_from(unit).ok()).map(UnitId),
            granted_at_ms: row.try_get("granted_at_ms")?,
            deadline_ms: row.try_get("deadline_ms")?,
        }),
    };
    let wait: i64 = row.try_get("no_node_wait_ms")?;
    let frontend: Option<String> = row.try_get("frontend")?;
    let placement: Option<String> = row.try_get("placement")?;
    let (price_list, held) =
        (row.try_get::<Option<String>>("price_list")?, row.try_get("held_micro")?);
    Ok(OpenJob {
        id,
        payer: payer(row.try_get("payer")?)?,
        rule_set: row.try_get("rule_set")?,
        spec,
        fence: row.try_get("fence")?,
        last_fence: row.try_get("last_fence")?,
        failures: row.try_get("failures")?,
        losses: row.try_get("losses")?,
        no_node_wait_ms: count(wait),
        class: parse(row.text("class")?, "class")?,
        placement: placement.map(|p| parse_json(&p, "placement")).transpose()?,
        attempts_max: row.try_get("attempts_max")?,
        frontend: frontend.map(|f| parse_id(&f, "frontend")).transpose()?,
        payment: price_list.map(|price_list| Payment { price_list, held: MicroCredits(held) }),
        attended: row.try_get("attended")?,
        has_key: row.try_get("has_key")?,
        running,
    })
}
