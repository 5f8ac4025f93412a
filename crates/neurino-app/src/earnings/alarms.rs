//! What needs the person's eye: receipts that do not add up, rewards that stopped coming, books that
//! say something else.

use std::time::{Duration, Instant};

use neurino_core::{MicroPoints, PointsKind};
use neurino_ledger::{Account, Unit};
use neurino_protocol::earnings::{BothPoints, EarningsAlarm, Pending};

use crate::{App, lock, now_ms};

/// A result without a receipt for so long is no delay of the network any more.
const FROZEN_MS: i64 = 10 * 60 * 1000;
/// So many refused results in a row are no accident.
const REFUSED_MAX: u32 = 3;
/// How often the books are looked at; adding them up is work.
const BOOKS_EVERY: Duration = Duration::from_mins(5);

impl App {
    pub(super) fn alarms(&self, pending: Pending, now_ms: i64) -> Vec<EarningsAlarm> {
        let (checked, drift, credited_ms) = self.receipts.view(|receipts| {
            let last = receipts.all().last().map(|e| e.settled_at_ms);
            (neurino_earnings::report::checked(receipts), receipts.drift(), last)
        });
        let mut alarms = Vec::new();
        if checked.differ > 0 {
            alarms.push(EarningsAlarm::Drift { receipts: checked.differ, difference: drift });
        }
        if let Some((jobs, credited_ms)) = self.frozen(pending, credited_ms, now_ms) {
            alarms.push(EarningsAlarm::Frozen { jobs, credited_ms });
        }
        alarms.extend(self.books_alarms(pending));
        alarms
    }

    /// Jobs whose reward does not come; `None` where rewards come as they should.
    pub(crate) fn frozen_jobs(&self) -> Option<u32> {
        let credited_ms =
            self.receipts.view(|receipts| receipts.all().last().map(|e| e.settled_at_ms));
        self.frozen(self.pending(), credited_ms, now_ms()).map(|(jobs, _)| jobs)
    }

    /// Jobs whose reward does not come, and when the last one came.
    fn frozen(
        &self,
        pending: Pending,
        credited_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<(u32, Option<i64>)> {
        let connected =
            lock(&self.mining).miner().is_some_and(|miner| miner.status().borrow().connected);
        let late = pending.since_ms.is_some_and(|since| now_ms - since > FROZEN_MS);
        let refused = lock(&self.records.history).refused_since(credited_ms.unwrap_or(0));
        ((connected && late) || refused >= REFUSED_MAX)
            .then_some((pending.jobs + refused, credited_ms))
    }

    fn books_alarms(&self, pending: Pending) -> Vec<EarningsAlarm> {
        let Some((_, books)) = *lock(&self.records.books) else { return Vec::new() };
        // What was paid since, or is on its way, is no difference; what the books lack is.
        let here = self.points_so_far();
        [(PointsKind::Llama, here.llama, books.llama), (PointsKind::Waifu, here.waifu, books.waifu)]
            .into_iter()
            .filter(|(_, here, books)| here < books && pending.jobs == 0)
            .map(|(kind, receipts, books)| EarningsAlarm::Books { kind, receipts, books })
            .collect()
    }

    /// Looks at the books of the practice network, unless that was done just now. Other networks
    /// do not open theirs to nodes.
    pub(super) async fn refresh_books(&self) {
        let Some(practice) = self.network.practice() else { return };
        let fresh = |at: &Instant| at.elapsed() < BOOKS_EVERY;
        if lock(&self.records.books).as_ref().is_some_and(|(at, _)| fresh(at)) {
            return;
        }
        let Ok(check) = practice.ledger_check().await else { return };
        let mut books = BothPoints::default();
        for balance in &check.balances {
            if !matches!(balance.account, Account::Node(_)) {
                continue;
            }
            let sum = match balance.points {
                Unit::Llama => &mut books.llama,
                Unit::Waifu => &mut books.waifu,
                Unit::Credit => continue,
            };
            *sum = MicroPoints(sum.0.saturating_add(balance.receipts_micro.0));
        }
        *lock(&self.records.books) = Some((Instant::now(), books));
    }
}
