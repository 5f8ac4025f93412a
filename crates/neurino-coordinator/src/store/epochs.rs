//! Epochs in the books: which movements of points are in none yet, and what was published.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use neurino_core::{LeaseId, MicroCredits, NodeId, Receipt};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::Movement;

use super::sql::{Connection, Place, query};
use super::{Beside, Store, parse_id, parse_json, writer};
use crate::admin_log::Act;
use crate::error::StoreError;

/// Entries that one statement writes.
const ROWS: usize = 32;

/// A movement of points that is in no epoch yet.
#[derive(Debug, Clone)]
pub(crate) struct RawMovement {
    pub(crate) movement: Movement,
    pub(crate) at_ms: i64,
    pub(crate) receipt: Receipt,
    pub(crate) payer: PayerId,
    pub(crate) is_audit: bool,
    /// What the job was charged.
    pub(crate) charged: MicroCredits,
    /// What of that its payer got back as deployer or frontend.
    pub(crate) returned: MicroCredits,
    /// What the reward counted in the epoch that it is in; for what came after.
    pub(crate) organic_micro: Option<i64>,
}

/// An epoch to be published.
#[derive(Debug, Clone)]
pub(crate) struct NewEpoch {
    pub(crate) epoch: i64,
    /// The one before, as far as its maker knew.
    pub(crate) previous: Option<i64>,
    pub(crate) made_at_ms: i64,
    pub(crate) summary: String,
    pub(crate) body: String,
    pub(crate) entries: Vec<NewEpochEntry>,
}

/// One of its entries.
#[derive(Debug, Clone)]
pub(crate) struct NewEpochEntry {
    pub(crate) lease: LeaseId,
    pub(crate) movement: Movement,
    pub(crate) organic_micro: i64,
    pub(crate) line: String,
}

fn name(movement: Movement) -> &'static str {
    match movement {
        Movement::Reward => "reward",
        Movement::Clawback => "clawback",
        Movement::Return => "return",
    }
}

/// Begins a statement at wherever it is run: beside a coordinator or in its own process.
macro_rules! at {
    ($place:ident) => {
        match &mut $place {
            Place::Connection(connection) => Place::Connection(connection),
            Place::Readers(readers) => Place::Readers(readers),
        }
    };
}

/// When the first movement before a time was that is in no epoch yet.
async fn first_unmarked(mut place: Place<'_>, before_ms: i64) -> Result<Option<i64>, StoreError> {
    const STATEMENTS: [&str; 3] = [
        "SELECT MIN(r.settled_at_ms) FROM receipt r WHERE r.settled_at_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM epoch_entry e WHERE e.lease = r.lease AND e.movement = 'reward')",
        "SELECT MIN(b.at_ms) FROM clawback b WHERE b.at_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM epoch_entry e WHERE e.lease = b.lease AND e.movement = 'clawback')",
        "SELECT MIN(b.restored_at_ms) FROM clawback b WHERE b.restored_at_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM epoch_entry e WHERE e.lease = b.lease AND e.movement = 'return')",
    ];
    let mut first: Option<i64> = None;
    for statement in STATEMENTS {
        let found: Option<Option<i64>> =
            query(statement).bind(before_ms).fetch_optional(at!(place)).await?;
        first = first.into_iter().chain(found.flatten()).min();
    }
    Ok(first)
}

/// Movements before a time that are in no epoch yet, and what of their pay was called back since, up to a
/// later time. What came after a reward is read first, so that its reward is there as well.
async fn unmarked(
    mut place: Place<'_>,
    before_ms: i64,
    known_ms: i64,
) -> Result<Vec<RawMovement>, StoreError> {
    type Later = (i64, String, String, String, Option<i64>);
    const LATER: [(Movement, &str); 2] = [
        (
            Movement::Return,
            "SELECT b.restored_at_ms, r.body, j.payer, j.class, e.organic_micro FROM clawback b \
             JOIN receipt r ON r.lease = b.lease JOIN job j ON j.id = r.job \
             LEFT JOIN epoch_entry e ON e.lease = b.lease AND e.movement = 'reward' \
             WHERE (b.restored_at_ms < $1 \
             OR (e.lease IS NULL AND r.settled_at_ms < $1 AND b.restored_at_ms < $2)) AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry o WHERE o.lease = b.lease AND o.movement = 'return')",
        ),
        (
            Movement::Clawback,
            "SELECT b.at_ms, r.body, j.payer, j.class, e.organic_micro FROM clawback b \
             JOIN receipt r ON r.lease = b.lease JOIN job j ON j.id = r.job \
             LEFT JOIN epoch_entry e ON e.lease = b.lease AND e.movement = 'reward' \
             WHERE (b.at_ms < $1 \
             OR (e.lease IS NULL AND r.settled_at_ms < $1 AND b.at_ms < $2)) AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry o WHERE o.lease = b.lease AND o.movement = 'clawback')",
        ),
    ];
    let mut all = Vec::new();
    for (movement, statement) in LATER {
        let rows: Vec<Later> =
            query(statement).bind(before_ms).bind(known_ms).fetch_all(at!(place)).await?;
        for (at_ms, body, payer, class, organic_micro) in rows {
            let raw = raw(movement, &body, payer, &class)?;
            all.push(RawMovement { at_ms, organic_micro, ..raw });
        }
    }
    let rewards: Vec<(String, String, String, i64, i64)> = query(
        "SELECT r.body, j.payer, j.class, j.charged_micro, \
         CAST(COALESCE((SELECT SUM(p.amount_micro) FROM posting p WHERE p.event = r.lease \
         AND p.points = 'credit' AND p.kind = 'credit_charge' \
         AND p.account IN ('deployer:' || j.payer, 'frontend:' || j.payer)), 0) AS BIGINT) \
         FROM receipt r JOIN job j ON j.id = r.job WHERE r.settled_at_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM epoch_entry e WHERE e.lease = r.lease AND e.movement = 'reward')",
    )
    .bind(before_ms)
    .fetch_all(place)
    .await?;
    for (body, payer, class, charged, returned) in rewards {
        let raw = raw(Movement::Reward, &body, payer, &class)?;
        let (charged, returned) = (MicroCredits(charged), MicroCredits(returned));
        all.push(RawMovement { charged, returned, ..raw });
    }
    Ok(all)
}

fn raw(
    movement: Movement,
    body: &str,
    payer: String,
    class: &str,
) -> Result<RawMovement, StoreError> {
    let receipt: Receipt = parse_json(body, "receipt")?;
    Ok(RawMovement {
        movement,
        at_ms: receipt.settled_at_ms,
        receipt,
        payer: PayerId::new(payer).map_err(|_| StoreError::Unreadable { what: "payer" })?,
        is_audit: class == "audit",
        charged: MicroCredits(0),
        returned: MicroCredits(0),
        organic_micro: None,
    })
}

async fn last(place: Place<'_>) -> Result<Option<String>, StoreError> {
    let statement = "SELECT body FROM epoch_file ORDER BY epoch DESC LIMIT 1";
    Ok(query(statement).fetch_optional(place).await?)
}

async fn holdings(place: Place<'_>, before_ms: i64) -> Result<Option<String>, StoreError> {
    let statement = "SELECT body FROM holdings WHERE taken_at_ms < $1 \
                     ORDER BY taken_at_ms DESC LIMIT 1";
    Ok(query(statement).bind(before_ms).fetch_optional(place).await?)
}

async fn votes(place: Place<'_>) -> Result<BTreeMap<NodeId, u64>, StoreError> {
    let rows: Vec<(String, i64)> =
        query("SELECT node, votes FROM node_vote").fetch_all(place).await?;
    rows.into_iter()
        .map(|(node, votes)| Ok((parse_id(&node, "node id")?, u64::try_from(votes).unwrap_or(0))))
        .collect()
}

async fn file(place: Place<'_>, epoch: i64) -> Result<Option<String>, StoreError> {
    let statement = "SELECT body FROM epoch_file WHERE epoch = $1";
    Ok(query(statement).bind(epoch).fetch_optional(place).await?)
}

async fn lines(
    place: Place<'_>,
    epoch: i64,
    from: i64,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    let statement = "SELECT line FROM epoch_entry WHERE epoch = $1 AND place >= $2 \
                     ORDER BY place LIMIT $3";
    Ok(query(statement).bind(epoch).bind(from).bind(most).fetch_all(place).await?)
}

macro_rules! of_books {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $of:ty),*) -> $answer:ty = $function:ident;)*) => {
        impl Store {$(
            $(#[$doc])*
            pub(crate) async fn $name(&self, $($argument: $of),*) -> Result<$answer, StoreError> {
                $function(self.readers().into(), $($argument),*).await
            }
        )*}

        impl Beside {$(
            $(#[$doc])*
            pub(crate) async fn $name(&mut self, $($argument: $of),*) -> Result<$answer, StoreError> {
                $function((&mut self.0).into(), $($argument),*).await
            }
        )*}
    };
}

of_books! {
    /// When the first movement before a time was that is in no epoch yet.
    first_unmarked(before_ms: i64) -> Option<i64> = first_unmarked;
    /// Movements before a time that are in no epoch yet, and what of their pay was called back since.
    unmarked(before_ms: i64, known_ms: i64) -> Vec<RawMovement> = unmarked;
    /// The newest file.
    last_epoch() -> Option<String> = last;
    /// What was held, by the newest look before a time.
    holdings(before_ms: i64) -> Option<String> = holdings;
    /// Votes for nodes, as they are now.
    votes_for_nodes() -> BTreeMap<NodeId, u64> = votes;
    /// The file of an epoch.
    epoch_file(epoch: i64) -> Option<String> = file;
    /// Entries of an epoch from a place on.
    epoch_lines(epoch: i64, from: i64, most: u32) -> Vec<String> = lines;
}

impl Store {
    /// Publishes an epoch, all of it or nothing; `false` if somebody else published one meanwhile.
    pub(crate) async fn publish_epoch(&self, epoch: NewEpoch) -> Result<bool, StoreError> {
        self.write(|reply| writer::Write::Epoch(Box::new(epoch), reply)).await
    }

    /// Summaries of epochs before one, newest first.
    pub(crate) async fn epoch_summaries(
        &self,
        before: i64,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        let statement = "SELECT summary FROM epoch_file WHERE epoch < $1 \
                         ORDER BY epoch DESC LIMIT $2";
        Ok(query(statement).bind(before).bind(most).fetch_all(self.readers()).await?)
    }
}

impl Beside {
    /// Publishes an epoch, all of it or nothing; `false` if somebody else published one meanwhile.
    pub(crate) async fn publish_epoch(&mut self, epoch: &NewEpoch) -> Result<bool, StoreError> {
        self.0.begin_writing().await?;
        let published = publish(&mut self.0, epoch).await?;
        self.0.run("COMMIT").await?;
        Ok(published)
    }

    /// Which network the books are of.
    pub(crate) async fn network(&mut self) -> Result<String, StoreError> {
        let name = self.opened_for().await?;
        name.ok_or(StoreError::Unreadable { what: "network" })
    }

    /// Keeps what was held at a time; `false` if other holdings are kept of that very time.
    pub(crate) async fn keep_holdings(
        &mut self,
        taken_at_ms: i64,
        body: &str,
    ) -> Result<bool, StoreError> {
        query(
            "INSERT INTO holdings (taken_at_ms, body) VALUES ($1, $2) \
             ON CONFLICT (taken_at_ms) DO NOTHING",
        )
        .bind(taken_at_ms)
        .bind(body.to_owned())
        .execute(&mut self.0)
        .await?;
        let kept: Option<String> = query("SELECT body FROM holdings WHERE taken_at_ms = $1")
            .bind(taken_at_ms)
            .fetch_optional(&mut self.0)
            .await?;
        Ok(kept.as_deref() == Some(body))
    }
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

/// Within the caller's transaction. An entry that is in an epoch already breaks the primary key.
pub(super) async fn publish(c: &mut Connection, epoch: &NewEpoch) -> Result<bool, StoreError> {
    static MANY: LazyLock<&'static str> = LazyLock::new(|| insertion(ROWS).leak());
    static ONE: LazyLock<&'static str> = LazyLock::new(|| insertion(1).leak());
    let newest: Option<Option<i64>> =
        query("SELECT MAX(epoch) FROM epoch_file").fetch_optional(&mut *c).await?;
    if newest.flatten() != epoch.previous {
        return Ok(false);
    }
    query("INSERT INTO epoch_file (epoch, made_at_ms, summary, body) VALUES ($1, $2, $3, $4)")
        .bind(epoch.epoch)
        .bind(epoch.made_at_ms)
        .bind(epoch.summary.clone())
        .bind(epoch.body.clone())
        .execute(&mut *c)
        .await?;
    let digest = crate::admin_log::digest(&epoch.body);
    let about = serde_json::json!({ "epoch": epoch.epoch, "sha256": digest });
    let act = Act::by_the_rules("epoch published", about);
    super::admin_log::append(c, &act, epoch.made_at_ms).await?;
    let mut place = 0_i64;
    for chunk in epoch.entries.chunks(ROWS) {
        let many = chunk.len() == ROWS;
        let statements = if many { vec![chunk] } else { chunk.chunks(1).collect() };
        for rows in statements {
            let mut statement = query(if many { *MANY } else { *ONE });
            for row in rows {
                statement = statement
                    .bind(row.lease.to_string())
                    .bind(name(row.movement).to_owned())
                    .bind(epoch.epoch)
                    .bind(place)
                    .bind(row.organic_micro)
                    .bind(row.line.clone());
                place += 1;
            }
            statement.execute(&mut *c).await?;
        }
    }
    Ok(true)
}
