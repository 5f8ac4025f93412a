//! Which work counts for the dynamic pools. Transparent on purpose: every rule can be checked by hand,
//! and dividing one payer into many earns no more.
//!
//! Paid work counts by the part of its fee that does not come back to its payer, never by more than its
//! points. Free work counts a fifth, and for no more than a part of what the same payer paid for: a
//! payer that never pays brings nothing. A network's own work and its audits do not count at all.

use std::collections::BTreeMap;

use neurino_core::PointsKind;
use serde::{Deserialize, Serialize};

use super::PerKind;
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
    let mut paid = PaidSums::default();
    for work in works {
        paid.add(rules, work);
    }
    let mut weigher = paid.weigher(rules);
    works.iter().map(|work| weigher.weigh(work)).collect()
}

/// What the paid work of each payer counts, added up work by work: what must be known of a whole epoch
/// before its free work can be weighed. Holds one sum for each payer and kind, however much work there is.
#[derive(Debug, Clone, Default)]
pub struct PaidSums(BTreeMap<String, PerKind<i128>>);

impl PaidSums {
    /// Adds one work, in any order.
    pub fn add(&mut self, rules: &EpochRules, work: &Work<'_>) {
        let counts = if work.source == Source::Paid { paid_part(rules, work) } else { 0 };
        if counts == 0 {
            return;
        }
        if !self.0.contains_key(work.payer) {
            self.0.insert(work.payer.to_owned(), PerKind::default());
        }
        if let Some(sums) = self.0.get_mut(work.payer) {
            *sums.of_mut(work.kind) += i128::from(counts);
        }
    }

    /// Weighs the same works, once all of them were added.
    pub fn weigher(self, rules: &EpochRules) -> Weigher {
        let mut left = self.0;
        for allowances in left.values_mut() {
            for kind in [PointsKind::Llama, PointsKind::Waifu] {
                let allowance = allowances.of_mut(kind);
                *allowance = *allowance * i128::from(rules.free_per_paid_ppm) / i128::from(WHOLE);
            }
        }
        Weigher { rules: rules.clone(), left }
    }
}

/// Weighs the works of an epoch one after the other, in the order of its entries.
#[derive(Debug, Clone)]
pub struct Weigher {
    rules: EpochRules,
    /// What is left for the free work of each payer.
    left: BTreeMap<String, PerKind<i128>>,
}

impl Weigher {
    /// The organic micro-points of the next work.
    pub fn weigh(&mut self, work: &Work<'_>) -> i64 {
        match work.source {
            Source::Paid => paid_part(&self.rules, work),
            Source::Own | Source::Audit => 0,
            Source::Free => {
                let Some(left) = self.left.get_mut(work.payer) else { return 0 };
                let left = left.of_mut(work.kind);
                let points = i128::from(work.points_micro.max(0));
                let free = points * i128::from(self.rules.free_ppm) / i128::from(WHOLE);
                let part = free.min(*left);
                *left -= part;
                i64::try_from(part).unwrap_or(0)
            }
        }
    }
}

fn paid_part(rules: &EpochRules, work: &Work<'_>) -> i64 {
    let price = i128::from(rules.pool(work.kind).price_micro);
    let fee = i128::from(work.fee_micro.max(0)) * i128::from(rules.kappa_ppm);
    // Micro-credits by micro-credits a point are points; a million micro-points each.
    let bought = fee / price;
    i64::try_from(bought.min(work.points_micro.max(0).into())).unwrap_or(0)
}
