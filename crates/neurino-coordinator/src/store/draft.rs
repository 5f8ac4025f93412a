//! An epoch on its way into the books. Its entries are written first, a few hundred at a time, so that
//! leases and payments are written in between; they count for nothing until the file is there, which one
//! last small write adds. Who writes is named in `epoch_draft`: whoever is not, writes no more.

use std::sync::LazyLock;

use neurino_core::LeaseId;
use neurino_ledger::epoch::Movement;

use super::epochs::{name, published};
use super::sql::{Connection, query};
use super::{Beside, Store, writer};
use crate::admin_log::Act;
use crate::error::StoreError;

/// Entries that one statement writes.
const ROWS: usize = 32;
/// Entries of a former draft that one step removes.
const CLEARED: u32 = 500;
/// After so long without a step, somebody else may begin anew.
const ABANDONED_MS: i64 = 60_000;

/// Who makes a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drafter {
    /// Drawn for each attempt.
    pub(crate) name: String,
    /// Whether it holds the books. There is one such at a time, so what another one left is its own.
    pub(crate) is_router: bool,
}

/// A step of a draft.
#[derive(Debug, Clone)]
pub(crate) enum DraftStep {
    /// Begins, unless another epoch than `previous` is the newest, or somebody else is about it.
    Begin { drafter: Drafter, epoch: i64, previous: Option<i64>, at_ms: i64 },
    /// Removes some entries of former drafts.
    Clear { drafter: Drafter, at_ms: i64 },
    /// Adds entries from a place on.
    Add { drafter: Drafter, epoch: i64, from: u64, entries: Vec<NewEpochEntry>, at_ms: i64 },
    /// Publishes what was drafted.
    Publish { drafter: Drafter, epoch: Box<NewEpoch>, at_ms: i64 },
}

/// An epoch to be published, once its entries are drafted.
#[derive(Debug, Clone)]
pub(crate) struct NewEpoch {
    pub(crate) epoch: i64,
    /// The one before, as far as its maker knew.
    pub(crate) previous: Option<i64>,
    pub(crate) made_at_ms: i64,
    pub(crate) summary: String,
    pub(crate) body: String,
    /// How many entries there must be.
    pub(crate) entries: u64,
}

/// One of its entries.
#[derive(Debug, Clone)]
pub(crate) struct NewEpochEntry {
    pub(crate) lease: LeaseId,
    pub(crate) movement: Movement,
    pub(crate) organic_micro: i64,
    pub(crate) line: String,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drafted {
    /// It was taken.
    Done,
    /// Some entries were removed, and there may be more.
    More,
    /// Somebody else makes an epoch right now.
    Busy,
    /// Somebody else published one, or began anew; nothing was written.
    Lost,
}

impl Store {
    /// Takes a step of a draft. Other writes may come before the next one.
    pub(crate) async fn draft(&self, step: DraftStep) -> Result<Drafted, StoreError> {
        self.write(|reply| writer::Write::Draft(Box::new(step), reply)).await
    }
}

impl Beside {
    /// Takes a step of a draft. Other writes may come before the next one.
    pub(crate) async fn draft(&mut self, step: DraftStep) -> Result<Drafted, StoreError> {
        self.0.begin_writing().await?;
        match apply(&mut self.0, &step).await {
            Ok(drafted) => {
                self.0.run("COMMIT").await?;
                Ok(drafted)
            }
            Err(error) => {
                self.0.run("ROLLBACK").await?;
                Err(error)
            }
        }
    }
}

/// Within the caller's transaction.
pub(super) async fn apply(c: &mut Connection, step: &DraftStep) -> Result<Drafted, StoreError> {
    match step {
        DraftStep::Begin { drafter, epoch, previous, at_ms } => {
            begin(c, drafter, (*epoch, *previous), *at_ms).await
        }
        DraftStep::Clear { drafter, at_ms } => {
            if !goes_on(c, drafter, *at_ms).await? {
                return Ok(Drafted::Lost);
            }
            clear(c).await
        }
        DraftStep::Add { drafter, epoch, from, entries, at_ms } => {
            if !goes_on(c, drafter, *at_ms).await? {
                return Ok(Drafted::Lost);
            }
            add(c, *epoch, *from, entries).await
        }
        DraftStep::Publish { drafter, epoch, at_ms } => {
            if !goes_on(c, drafter, *at_ms).await? {
                return Ok(Drafted::Lost);
            }
            publish(c, epoch).await
        }
    }
}

async fn newest(c: &mut Connection) -> Result<Option<i64>, StoreError> {
    let newest: Option<Option<i64>> =
        query("SELECT MAX(epoch) FROM epoch_file").fetch_optional(c).await?;
    Ok(newest.flatten())
}

async fn begin(
    c: &mut Connection,
    drafter: &Drafter,
    (epoch, previous): (i64, Option<i64>),
    at_ms: i64,
) -> Result<Drafted, StoreError> {
    if newest(c).await? != previous {
        return Ok(Drafted::Lost);
    }
    let other: Option<(i64, i64)> =
        query("SELECT is_router, touched_at_ms FROM epoch_draft").fetch_optional(&mut *c).await?;
    if let Some((is_router, touched_at_ms)) = other {
        let own = is_router != 0 && drafter.is_router;
        // Also one from a time to come: a clock was set.
        let abandoned = at_ms.saturating_sub(touched_at_ms).saturating_abs() > ABANDONED_MS;
        if !own && !abandoned {
            return Ok(Drafted::Busy);
        }
    }
    query("DELETE FROM epoch_draft").execute(&mut *c).await?;
    query(
        "INSERT INTO epoch_draft (one, drafter, is_router, epoch, touched_at_ms) \
         VALUES (1, $1, $2, $3, $4)",
    )
    .bind(&drafter.name)
    .bind(i64::from(drafter.is_router))
    .bind(epoch)
    .bind(at_ms)
    .execute(c)
    .await?;
    Ok(Drafted::Done)
}

/// Whether a draft is still its drafter's.
async fn goes_on(c: &mut Connection, drafter: &Drafter, at_ms: i64) -> Result<bool, StoreError> {
    let touched = query("UPDATE epoch_draft SET touched_at_ms = $1 WHERE drafter = $2")
        .bind(at_ms)
        .bind(&drafter.name)
        .execute(c)
        .await?;
    Ok(touched == 1)
}

async fn clear(c: &mut Connection) -> Result<Drafted, StoreError> {
    let removed = query(concat!(
        "DELETE FROM epoch_entry WHERE (lease, movement) IN (SELECT lease, movement \
         FROM epoch_entry WHERE epoch > ",
        published!(),
        " LIMIT $1)"
    ))
    .bind(CLEARED)
    .execute(c)
    .await?;
    Ok(if removed < u64::from(CLEARED) { Drafted::Done } else { Drafted::More })
}

/// The statement that writes so many entries.
fn insertion(rows: usize) -> String {
    let row = |n: usize| {
        let places: Vec<String> = (1..=6).map(|at| format!("${}", n * 6 + at)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    let columns = "lease, movement, epoch, place, organic_micro, line";
    format!("INSERT INTO epoch_entry ({columns}) VALUES {}", rows.join(", "))
}

/// An entry that is in an epoch already breaks the primary key.
async fn add(
    c: &mut Connection,
    epoch: i64,
    from: u64,
    entries: &[NewEpochEntry],
) -> Result<Drafted, StoreError> {
    static MANY: LazyLock<&'static str> = LazyLock::new(|| insertion(ROWS).leak());
    static ONE: LazyLock<&'static str> = LazyLock::new(|| insertion(1).leak());
    let mut place = i64::try_from(from).unwrap_or(i64::MAX);
    for chunk in entries.chunks(ROWS) {
        let many = chunk.len() == ROWS;
        let statements = if many { vec![chunk] } else { chunk.chunks(1).collect() };
        for rows in statements {
            let mut statement = query(if many { *MANY } else { *ONE });
            for row in rows {
                statement = statement
                    .bind(row.lease.to_string())
                    .bind(name(row.movement).to_owned())
                    .bind(epoch)
                    .bind(place)
                    .bind(row.organic_micro)
                    .bind(row.line.clone());
                place += 1;
            }
            statement.execute(&mut *c).await?;
        }
    }
    Ok(Drafted::Done)
}

async fn publish(c: &mut Connection, epoch: &NewEpoch) -> Result<Drafted, StoreError> {
    // Places are unique and none is left out, so the last one tells how many there are.
    let there: i64 = query("SELECT COALESCE(MAX(place), -1) + 1 FROM epoch_entry WHERE epoch = $1")
        .bind(epoch.epoch)
        .fetch_one(&mut *c)
        .await?;
    if newest(c).await? != epoch.previous || u64::try_from(there) != Ok(epoch.entries) {
        return Ok(Drafted::Lost);
    }
    query("INSERT INTO epoch_file (epoch, made_at_ms, summary, body) VALUES ($1, $2, $3, $4)")
        .bind(epoch.epoch)
        .bind(epoch.made_at_ms)
        .bind(epoch.summary.clone())
        .bind(epoch.body.clone())
        .execute(&mut *c)
        .await?;
    query("DELETE FROM epoch_draft").execute(&mut *c).await?;
    let digest = crate::admin_log::digest(&epoch.body);
    let about = serde_json::json!({ "epoch": epoch.epoch, "sha256": digest });
    let act = Act::by_the_rules("epoch published", about);
    super::admin_log::append(c, &act, epoch.made_at_ms).await?;
    Ok(Drafted::Done)
}
