//! What the pay of one lease moves when its node is convicted, and when the appeal is granted. Points return
//! to where they were emitted; credits, to who paid them.

use std::collections::BTreeMap;

use neurino_core::{EventId, LeaseId, MicroPoints, NodeId};
use neurino_ledger::{
    Account, EntryKind, Event, Unit, event_of, event_of_clawback, event_of_restoring,
};

use super::sql::{Connection, query};
use super::{parse, parse_id, writer};
use crate::error::StoreError;

/// Postings by account and unit.
type Lines = BTreeMap<(Account, Unit), i64>;

/// Calls a lease's pay back: the node's points, and all that the payer was charged, as far as those that had a
/// part of it still have it. What one of them spent the network's own share makes good, as far as it goes.
pub(super) async fn take_back(
    c: &mut Connection,
    lease: LeaseId,
    node: &NodeId,
    at_ms: i64,
) -> Result<(), StoreError> {
    let paid = lines_of(c, &event_of(lease).to_string()).await?;
    let node = Account::Node(node.clone());
    let mut back = Lines::new();
    for ((account, unit), amount) in &paid {
        if *unit != Unit::Credit && *account == node && *amount > 0 {
            back.insert((node.clone(), *unit), -amount);
            back.insert((Account::Pool, *unit), *amount);
        }
    }
    // The line of what was set aside names who paid.
    let payer = paid.keys().find_map(|(account, _)| match account {
        Account::Held(payer) => Some(payer.clone()),
        _ => None,
    });
    let refund = match &payer {
        None => 0,
        Some(payer) => {
            let is_part = |((account, unit), amount): &(&(Account, Unit), &i64)| {
                *unit == Unit::Credit && **amount > 0 && *account != Account::Payer(payer.clone())
            };
            let mut short = 0;
            let mut refund = 0;
            for ((account, _), amount) in paid.iter().filter(is_part) {
                let there = (*amount).min(balance(c, account).await?);
                back.insert((account.clone(), Unit::Credit), -there);
                short += amount - there;
                refund += there;
            }
            refund += lend(c, &mut back, short).await?;
            back.insert((Account::Payer(payer.clone()), Unit::Credit), refund);
            refund
        }
    };
    write(c, event_of_clawback(lease), EntryKind::Clawback, back, at_ms).await?;
    spent(c, lease, -refund).await
}

/// Gives back what [`take_back`] took. The payer returns what it still has of it; for the rest the network's
/// own share stands in, and behind that whoever runs the network, as for a purchase that nobody made.
pub(super) async fn give_back(
    c: &mut Connection,
    lease: LeaseId,
    at_ms: i64,
) -> Result<(), StoreError> {
    let taken = lines_of(c, &event_of_clawback(lease).to_string()).await?;
    let (mut back, mut short, mut returned) = (Lines::new(), 0, 0);
    for ((account, unit), amount) in &taken {
        if *unit != Unit::Credit || *amount <= 0 {
            back.insert((account.clone(), *unit), -amount);
            continue;
        }
        let there = (*amount).min(balance(c, account).await?);
        back.insert((account.clone(), *unit), -there);
        short += amount - there;
        if matches!(account, Account::Payer(_)) {
            returned = there;
        }
    }
    short -= lend(c, &mut back, short).await?;
    if short > 0 {
        back.insert((Account::Issuance, Unit::Credit), -short);
    }
    write(c, event_of_restoring(lease), EntryKind::ClawbackReturn, back, at_ms).await?;
    spent(c, lease, returned).await
}

/// Takes up to `wanted` more credits from the network's own share; returns how many.
async fn lend(c: &mut Connection, lines: &mut Lines, wanted: i64) -> Result<i64, StoreError> {
    if wanted <= 0 {
        return Ok(0);
    }
    let has = balance(c, &Account::Protocol).await?;
    let line = lines.entry((Account::Protocol, Unit::Credit)).or_default();
    let lent = wanted.min(has.saturating_add(*line)).max(0);
    *line -= lent;
    Ok(lent)
}

async fn lines_of(c: &mut Connection, event: &str) -> Result<Lines, StoreError> {
    let rows: Vec<(String, String, i64)> = query(
        "SELECT account, points, CAST(SUM(amount_micro) AS BIGINT) FROM posting WHERE event = $1 \
         GROUP BY account, points",
    )
    .bind(event)
    .fetch_all(c)
    .await?;
    let read = |(account, unit, amount): (String, String, i64)| {
        Ok(((parse_id(&account, "account")?, parse(&unit, "points")?), amount))
    };
    rows.into_iter().map(read).collect()
}

async fn balance(c: &mut Connection, account: &Account) -> Result<i64, StoreError> {
    let balance: Option<i64> = query("SELECT amount_micro FROM credit_balance WHERE account = $1")
        .bind(account.to_string())
        .fetch_optional(c)
        .await?;
    Ok(balance.unwrap_or(0))
}

async fn write(
    c: &mut Connection,
    id: EventId,
    kind: EntryKind,
    lines: Lines,
    at_ms: i64,
) -> Result<(), StoreError> {
    let lines = lines.into_iter().filter(|(_, amount)| *amount != 0);
    let lines: Vec<_> =
        lines.map(|((account, unit), amount)| (account, kind, unit, MicroPoints(amount))).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let event = Event::new(id, lines);
    let event = event.map_err(|_| StoreError::Unreadable { what: "pay of a lease" })?;
    writer::post(c, &event, at_ms).await
}

/// Counts a movement of credits in the budget of the key that sent the job.
async fn spent(c: &mut Connection, lease: LeaseId, amount: i64) -> Result<(), StoreError> {
    if amount == 0 {
        return Ok(());
    }
    let key: Option<(String, i64)> = query(
        "SELECT j.api_key, j.created_at_ms FROM receipt r JOIN job j ON j.id = r.job \
         WHERE r.lease = $1 AND j.api_key IS NOT NULL",
    )
    .bind(lease.to_string())
    .fetch_optional(&mut *c)
    .await?;
    match key {
        Some((key, accepted_at_ms)) => writer::add_spend(c, &key, accepted_at_ms, amount).await,
        None => Ok(()),
    }
}
