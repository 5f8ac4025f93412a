//! An epoch made with all of its week in memory: what one made in pieces is held against.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac as _};
use neurino_ledger::epoch::{
    Before, Entries, Entry, EpochFile, EpochInputs, EpochRules, Hash, Holder, Movement, Source,
    Work, canonical_json, epoch_of, nodes_of, weigh,
};
use sha2::Sha256;

use super::*;
use crate::audits::{key_of, secret_of};
use crate::epochs::make::{Kinship, Maker, debts, over_at, summary};
use crate::store::epochs::{RawMovement, raw};

/// The file and the summary of an epoch.
pub(super) struct Whole {
    pub(super) body: String,
    pub(super) summary: String,
}

/// The next epoch that is due, and the lines of its entries.
pub(super) async fn made(
    beside: &mut Beside,
    maker: &Maker<'_>,
    now_ms: i64,
    salt: [u8; 32],
) -> Option<(Whole, Vec<String>)> {
    let over = over_at(now_ms, maker.rules.at(now_ms).settle_wait_ms, maker.escrow_ms);
    let (over_ms, _) = EpochInputs::bounds(over).expect("it fits");
    let first_ms = beside.first_unmarked(over_ms).await.expect("reads")?;
    let previous: Option<EpochFile> = beside
        .last_epoch()
        .await
        .expect("reads")
        .map(|body| serde_json::from_str(&body).expect("parses"));
    let previous = previous.as_ref();
    let epoch = epoch_of(first_ms).max(previous.map_or(0, |file| file.inputs.epoch + 1));
    let (start_ms, end_ms) = EpochInputs::bounds(epoch).expect("it fits");
    if end_ms > over_ms {
        return None;
    }
    let rules = maker.rules.at(start_ms);
    let holdings: Option<crate::epochs::Holdings> = beside
        .holdings(end_ms)
        .await
        .expect("reads")
        .map(|body| serde_json::from_str(&body).expect("parses"));
    let votes = beside.votes_for_nodes().await.expect("reads");
    let kinship = Kinship::of(holdings.as_ref());
    let movements = unmarked(&mut beside.0, end_ms, now_ms).await;
    let entries = entries_of(&movements, rules, &kinship, salt);
    let about = |node: &NodeId| {
        let votes = votes.get(node).copied().unwrap_or(0);
        kinship.reward(node).map(|reward| (reward, votes))
    };
    let (nodes, demand) = nodes_of(&entries, &debts(previous), about).expect("it fits");
    let paid = |holder: &&Holder| nodes.iter().any(|node| node.reward == holder.reward);
    let holders = holdings.iter().flat_map(|held| &held.holders);
    let holders = holders.filter(paid).copied().collect();
    let before = previous.iter().flat_map(|file| &file.result.accounts);
    let before = before.map(|own| Before { reward: own.reward, cumulative: own.cumulative });
    let inputs = EpochInputs {
        network: maker.network.to_owned(),
        epoch,
        start_ms,
        end_ms,
        claimable_from_ms: end_ms + maker.escrow_ms,
        previous_sha256: previous.map(|file| file.sha256().expect("it fits")),
        rules: rules.clone(),
        audit_key: Some(Hash(key_of(&secret_of(maker.key, maker.network), epoch))),
        snapshot: holdings.as_ref().map(|held| held.snapshot),
        entries: Entries::of(&entries).expect("it fits"),
        demand,
        holders,
        before: before.collect(),
        nodes,
    };
    let mut file = EpochFile::new(inputs, maker.key.address()).expect("computes");
    file.signature = maker.key.sign(&file.message().expect("it fits"));
    file.verify().expect("it holds");
    let lines = entries.iter().map(|entry| canonical_json(entry).expect("it fits"));
    let body = file.canonical().expect("it fits");
    Some((Whole { body, summary: summary(&file).expect("it fits") }, lines.collect()))
}

/// Every movement of the week, as the books have it when no draft is in them.
async fn unmarked(c: &mut Connection, before_ms: i64, known_ms: i64) -> Vec<RawMovement> {
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
        let rows: Vec<Later> = query(statement)
            .bind(before_ms)
            .bind(known_ms)
            .fetch_all(&mut *c)
            .await
            .expect("reads");
        for (at_ms, body, payer, class, organic_micro) in rows {
            let raw = raw(movement, &body, payer, &class).expect("parses");
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
    .fetch_all(c)
    .await
    .expect("reads");
    for (body, payer, class, charged, returned) in rewards {
        let raw = raw(Movement::Reward, &body, payer, &class).expect("parses");
        let (charged, returned) = (MicroCredits(charged), MicroCredits(returned));
        all.push(RawMovement { charged, returned, ..raw });
    }
    all
}

/// The entries of a week, weighed and in order.
fn entries_of(
    movements: &[RawMovement],
    rules: &EpochRules,
    kinship: &Kinship<'_>,
    salt: [u8; 32],
) -> Vec<Entry> {
    let alias = |payer: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&salt).expect("a key of any length fits");
        mac.update(payer.as_bytes());
        hex::encode(&mac.finalize().into_bytes()[..12])
    };
    let mut entries: Vec<(Entry, Option<i64>)> = movements
        .iter()
        .map(|raw| {
            let (receipt, source) = (&raw.receipt, kinship.source(raw));
            let fee = if source == Source::Paid { raw.charged.0 - raw.returned.0 } else { 0 };
            let entry = Entry {
                at_ms: raw.at_ms,
                lease: receipt.lease,
                movement: raw.movement,
                job: receipt.job,
                node: receipt.node.clone(),
                model: receipt.model.clone(),
                points: receipt.quote.points,
                points_micro: receipt.quote.amount_micro.0,
                organic_micro: 0,
                payer: alias(raw.payer.as_str()),
                source,
                fee_micro: fee.max(0),
            };
            (entry, raw.organic_micro)
        })
        .collect();
    entries.sort_by_key(|(entry, _)| entry.place());
    let rewards = || entries.iter().filter(|(entry, _)| entry.movement == Movement::Reward);
    let works: Vec<Work<'_>> = rewards()
        .map(|(entry, _)| Work {
            payer: &entry.payer,
            kind: entry.points,
            points_micro: entry.points_micro,
            fee_micro: entry.fee_micro,
            source: entry.source,
        })
        .collect();
    let counted: BTreeMap<LeaseId, i64> =
        rewards().map(|(entry, _)| entry.lease).zip(weigh(rules, &works)).collect();
    let entries = entries.into_iter().map(|(mut entry, before)| {
        // What came after a reward moves what the reward counted, in this epoch or an earlier one.
        entry.organic_micro = before.or(counted.get(&entry.lease).copied()).unwrap_or(0);
        entry
    });
    entries.collect()
}
