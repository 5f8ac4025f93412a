//! Epochs in the books: which movements of points are in none yet, and what was published.

use std::collections::BTreeMap;

use neurino_core::{JobId, MicroCredits, NodeId, Receipt};
use neurino_ledger::PayerId;
use neurino_ledger::epoch::Movement;

use super::sql::{Place, query};
use super::{Beside, Store, parse_id, parse_json};
use crate::error::StoreError;

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

pub(super) fn name(movement: Movement) -> &'static str {
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

/// The newest epoch that is published. Entries of later ones are those of a draft: they are in none yet.
macro_rules! published {
    () => {
        "(SELECT COALESCE(MAX(epoch), -1) FROM epoch_file)"
    };
}
pub(super) use published;

/// When the first movement before a time was that is in no epoch yet.
async fn first_unmarked(mut place: Place<'_>, before_ms: i64) -> Result<Option<i64>, StoreError> {
    const STATEMENTS: [&str; 3] = [
        concat!(
            "SELECT MIN(r.settled_at_ms) FROM receipt r WHERE r.settled_at_ms < $1 AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry e WHERE e.lease = r.lease AND e.movement = 'reward' \
             AND e.epoch <= ",
            published!(),
            ")"
        ),
        concat!(
            "SELECT MIN(b.at_ms) FROM clawback b WHERE b.at_ms < $1 AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry e WHERE e.lease = b.lease AND e.movement = 'clawback' \
             AND e.epoch <= ",
            published!(),
            ")"
        ),
        concat!(
            "SELECT MIN(b.restored_at_ms) FROM clawback b WHERE b.restored_at_ms < $1 AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry e WHERE e.lease = b.lease AND e.movement = 'return' \
             AND e.epoch <= ",
            published!(),
            ")"
        ),
    ];
    let mut first: Option<i64> = None;
    for statement in STATEMENTS {
        let found: Option<Option<i64>> =
            query(statement).bind(before_ms).fetch_optional(at!(place)).await?;
        first = first.into_iter().chain(found.flatten()).min();
    }
    Ok(first)
}

/// Which movements are asked for: those before a time that are in no epoch yet, and what of their pay was
/// called back since, up to a later time. Both in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until {
    pub(crate) before_ms: i64,
    pub(crate) known_ms: i64,
}

/// Where a page begins: behind the movement of a time and a lease.
pub(crate) type Behind = (i64, String);

/// Of what came after a reward: one kind's moment, and its name among the entries.
macro_rules! later {
    ($at:literal, $name:literal) => {
        concat!(
            "SELECT b.",
            $at,
            ", r.body, j.payer, j.class, e.organic_micro FROM clawback b \
             JOIN receipt r ON r.lease = b.lease JOIN job j ON j.id = r.job \
             LEFT JOIN epoch_entry e ON e.lease = b.lease AND e.movement = 'reward' \
             AND e.epoch <= ",
            published!(),
            " \
             WHERE (b.",
            $at,
            " < $1 \
             OR (e.lease IS NULL AND r.settled_at_ms < $1 AND b.",
            $at,
            " < $2)) AND NOT EXISTS \
             (SELECT 1 FROM epoch_entry o WHERE o.lease = b.lease AND o.movement = '",
            $name,
            "' \
             AND o.epoch <= ",
            published!(),
            ") \
             AND (b.",
            $at,
            ", b.lease) > ($3, $4) ORDER BY b.",
            $at,
            ", b.lease LIMIT $5"
        )
    };
}

/// A page of the movements of one kind, by time and lease.
async fn unmarked(
    place: Place<'_>,
    movement: Movement,
    until: Until,
    behind: &Behind,
    most: u32,
) -> Result<Vec<RawMovement>, StoreError> {
    let later = match movement {
        Movement::Reward => return rewards(place, until.before_ms, behind, most).await,
        Movement::Clawback => later!("at_ms", "clawback"),
        Movement::Return => later!("restored_at_ms", "return"),
    };
    let rows: Vec<(i64, String, String, String, Option<i64>)> = query(later)
        .bind(until.before_ms)
        .bind(until.known_ms)
        .bind(behind.0)
        .bind(&behind.1)
        .bind(most)
        .fetch_all(place)
        .await?;
    let read = |(at_ms, body, payer, class, organic_micro): (i64, String, String, String, _)| {
        let raw = raw(movement, &body, payer, &class)?;
        Ok(RawMovement { at_ms, organic_micro, ..raw })
    };
    rows.into_iter().map(read).collect()
}

async fn rewards(
    place: Place<'_>,
    before_ms: i64,
    behind: &Behind,
    most: u32,
) -> Result<Vec<RawMovement>, StoreError> {
    let rows: Vec<(String, String, String, i64, i64)> = query(concat!(
        "SELECT r.body, j.payer, j.class, j.charged_micro, \
         CAST(COALESCE((SELECT SUM(p.amount_micro) FROM posting p WHERE p.event = r.lease \
         AND p.points = 'credit' AND p.kind = 'credit_charge' \
         AND p.account IN ('deployer:' || j.payer, 'frontend:' || j.payer)), 0) AS BIGINT) \
         FROM receipt r JOIN job j ON j.id = r.job WHERE r.settled_at_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM epoch_entry e WHERE e.lease = r.lease AND e.movement = 'reward' \
         AND e.epoch <= ",
        published!(),
        ") AND (r.settled_at_ms, r.lease) > ($2, $3) ORDER BY r.settled_at_ms, r.lease LIMIT $4"
    ))
    .bind(before_ms)
    .bind(behind.0)
    .bind(&behind.1)
    .bind(most)
    .fetch_all(place)
    .await?;
    let read = |(body, payer, class, charged, returned): (String, String, String, _, _)| {
        let raw = raw(Movement::Reward, &body, payer, &class)?;
        let (charged, returned) = (MicroCredits(charged), MicroCredits(returned));
        Ok(RawMovement { charged, returned, ..raw })
    };
    rows.into_iter().map(read).collect()
}

pub(super) fn raw(
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
    // Those of a draft are nobody's business yet.
    let statement = concat!(
        "SELECT line FROM epoch_entry WHERE epoch = $1 AND place >= $2 AND epoch <= ",
        published!(),
        " ORDER BY place LIMIT $3"
    );
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
    /// A page of the movements of one kind that are in no epoch yet, by time and lease.
    unmarked(movement: Movement, until: Until, behind: &Behind, most: u32) -> Vec<RawMovement> = unmarked;
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
    /// Which network the books are of.
    pub(crate) async fn network(&mut self) -> Result<String, StoreError> {
        let name = self.opened_for().await?;
        name.ok_or(StoreError::Unreadable { what: "network" })
    }

    /// Whoever asked for a job.
    pub(crate) async fn payer_of(&mut self, job: JobId) -> Result<Option<PayerId>, StoreError> {
        let payer: Option<String> = query("SELECT payer FROM job WHERE id = $1")
            .bind(job.to_string())
            .fetch_optional(&mut self.0)
            .await?;
        payer.map(|payer| parse_id(&payer, "payer")).transpose()
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
