//! Which work counts for the dynamic pools. Transparent on purpose: every rule can be checked by hand,
//! and dividing one payer into many earns no more.
//!
//! Paid work counts by the part of its fee that does not come back to its payer, never by more than its
//! points. Free work counts a fifth, and for no more than a part of what the same payer paid for: a
//! payer that never pays brings nothing. A network's own work and its audits do not count at all.

use std::collections::BTreeMap;

use neurino_core::PointsKind;
use serde::{Deserialize, Serialize};

use super::rules::{EpochRules, WHOLE};

/// Where work comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody paid for it.
    Paid,
    /// It cost its payer nothing.
    Free,
    /// Its payer owns the node, or runs the network.
    Own,
    /// It checks other work.
    Audit,
}

/// One paid result, as far as it decides what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work<'a> {
    /// Whoever asked, by a name that says nothing else.
    pub payer: &'a str,
    /// Which points it earned.
    pub kind: PointsKind,
    /// How many, in millionths.
    pub points_micro: i64,
    /// What it cost and did not come back, in micro-credits.
    pub fee_micro: i64,
    /// Where it comes from.
    pub source: Source,
}

/// The organic micro-points of each work of an epoch, in the same order.
pub fn weigh(rules: &EpochRules, works: &[Work<'_>]) -> Vec<i64> {
    let mut paid: BTreeMap<(&str, PointsKind), i128> = BTreeMap::new();
    let mut organic: Vec<i64> = works
        .iter()
        .map(|work| {
            let counts = if work.source == Source::Paid { paid_part(rules, work) } else { 0 };
            *paid.entry((work.payer, work.kind)).or_default() += i128::from(counts);
            counts
        })
        .collect();
    // What is left for the free work of each payer.
    for allowance in paid.values_mut() {
        *allowance = *allowance * i128::from(rules.free_per_paid_ppm) / i128::from(WHOLE);
    }
    for (work, counts) in works.iter().zip(&mut organic) {
        if work.source != Source::Free {
            continue;
        }
        let left = paid.entry((work.payer, work.kind)).or_default();
        let points = i128::from(work.points_micro.max(0));
        let part = (points * i128::from(rules.free_ppm) / i128::from(WHOLE)).min(*left);
        *left -= part;
        *counts = i64::try_from(part).unwrap_or(0);
    }
    organic
}

fn paid_part(rules: &EpochRules, work: &Work<'_>) -> i64 {
    let price = i128::from(rules.pool(work.kind).price_micro);
    let fee = i128::from(work.fee_micro.max(0)) * i128::from(rules.kappa_ppm);
    // Micro-credits by micro-credits a point are points; a million micro-points each.
    let bought = fee / price;
    i64::try_from(bought.min(work.points_micro.max(0).into())).unwrap_or(0)
}
