//! What a model is worth on this machine: the network's demand for it, and points an hour where they
//! can be told. Nothing is made up: a network that says nothing of its demand, as the original one,
//! leaves it empty, and so do too few jobs of one's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_core::{MicroPoints, ModelId, Receipt};
use neurino_protocol::demand::{EstimateMethod, ModelDemand, NetworkDemand, PointsEstimate};

use crate::{App, lock};

/// How often network and receipts are asked while somebody looks.
const EVERY: Duration = Duration::from_mins(1);
/// How soon a network that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long an answer of the network counts.
const ANSWER_FOR: Duration = Duration::from_mins(5);
/// The last receipts that a rate of one's own is made of.
const RECEIPTS: usize = 200;
/// Fewer jobs, or less time, make no rate.
const OWN_JOBS_MIN: u32 = 5;
const OWN_TIME_MIN_MS: i64 = 60_000;
const HOUR_MS: i128 = 3_600_000;

/// What is known of models' worth.
#[derive(Default)]
pub(crate) struct Worth {
    ask_at: Option<Instant>,
    told: Option<(Instant, NetworkDemand)>,
    own: HashMap<ModelId, OwnRate>,
}

/// What this machine earned with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnRate {
    jobs: u32,
    points_per_hour_micro: i64,
}

/// The rates of models in a list of receipts. Jobs that ran at the same time share their time.
fn own_rates(receipts: &[Receipt]) -> HashMap<ModelId, OwnRate> {
    let mut by_model: HashMap<&ModelId, Vec<(i64, i64, i64)>> = HashMap::new();
    for receipt in receipts {
        let end = receipt.settled_at_ms;
        let start = end.saturating_sub(i64::try_from(receipt.duration_ms).unwrap_or(i64::MAX));
        let job = (start, end, receipt.quote.amount_micro.0);
        by_model.entry(&receipt.model).or_default().push(job);
    }
    let rate = |(model, mut jobs): (&ModelId, Vec<(i64, i64, i64)>)| {
        jobs.sort_unstable();
        let (mut busy_ms, mut until) = (0_i64, i64::MIN);
        for (start, end, _) in &jobs {
            busy_ms += (end - (*start).max(until)).max(0);
            until = until.max(*end);
        }
        let points: i128 = jobs.iter().map(|(_, _, points)| i128::from(*points)).sum();
        let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        if count < OWN_JOBS_MIN || busy_ms < OWN_TIME_MIN_MS {
            return None;
        }
        let rate = i64::try_from(points * HOUR_MS / i128::from(busy_ms)).ok()?;
        Some((model.clone(), OwnRate { jobs: count, points_per_hour_micro: rate }))
    };
    by_model.into_iter().filter_map(rate).collect()
}

/// Points an hour on this machine: its own rate; else the network's where the model runs here as well
/// as elsewhere.
fn estimate(
    own: Option<OwnRate>,
    demand: Option<&ModelDemand>,
    runs_well: bool,
) -> Option<PointsEstimate> {
    if let Some(OwnRate { jobs, points_per_hour_micro }) = own {
        let method = EstimateMethod::Own { jobs };
        let points_per_hour_micro = MicroPoints(points_per_hour_micro);
        return Some(PointsEstimate { points_per_hour_micro, method });
    }
    let points_per_hour_micro = demand?.points_per_node_hour_micro.filter(|_| runs_well)?;
    Some(PointsEstimate { points_per_hour_micro, method: EstimateMethod::Network })
}

impl App {
    /// Asks network and receipts in the background if that was a while ago: called while somebody
    /// looks, and nobody waits for a network that does not answer.
    pub(crate) fn learn_worth(self: &Arc<Self>) {
        let mut worth = lock(&self.worth);
        let now = Instant::now();
        if worth.ask_at.is_none_or(|due| now >= due) {
            worth.ask_at = Some(now + EVERY);
            let app = Arc::clone(self);
            self.tasks.spawn(async move { app.ask_worth().await });
        }
    }

    async fn ask_worth(&self) {
        // The practice network's jobs are this machine's own: nobody else wants anything of it.
        let told = match self.network.practice() {
            Some(practice) => {
                Some(NetworkDemand { network: practice.network().into(), models: Vec::new() })
            }
            None => self.ask_demand().await,
        };
        let Some(told) = told else { return };
        let log = Arc::clone(&self.receipts);
        let reading = tokio::task::spawn_blocking(move || log.before(i64::MAX, RECEIPTS));
        let own = match reading.await {
            // Points of another network say nothing about this one's.
            Ok(Ok(mut receipts)) => {
                receipts.retain(|receipt| receipt.network == told.network);
                own_rates(&receipts)
            }
            // The earnings page tells what is wrong with the record.
            _ => HashMap::new(),
        };
        {
            let mut worth = lock(&self.worth);
            worth.own = own;
            worth.told = Some((Instant::now(), told));
        }
        self.changed.notify_one();
    }

    /// The network's demand; `None` where it does not say, or not now.
    async fn ask_demand(&self) -> Option<NetworkDemand> {
        let coordinator = self.network.for_miner();
        let answered = tokio::select! {
            () = self.end.cancelled() => return None,
            answered = coordinator.demand() => answered,
        };
        // What was known stays for a while; the link says by itself that the network is away.
        answered.unwrap_or_else(|error| {
            tracing::debug!(%error, "the network does not say its demand");
            lock(&self.worth).ask_at = Some(Instant::now() + AGAIN);
            None
        })
    }

    /// The demand for a model and what it may bring here. `runs_well`: whether a card of this machine
    /// takes it whole.
    pub(crate) fn worth_of(
        &self,
        model: &ModelId,
        runs_well: bool,
    ) -> (Option<ModelDemand>, Option<PointsEstimate>) {
        let worth = lock(&self.worth);
        let Some((_, told)) = worth.told.as_ref().filter(|(at, _)| at.elapsed() < ANSWER_FOR)
        else {
            return (None, None);
        };
        let demand = told.models.iter().find(|demand| demand.model == *model);
        let estimate = estimate(worth.own.get(model).copied(), demand, runs_well);
        (demand.cloned(), estimate)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    fn demand(points: Option<i64>) -> ModelDemand {
        ModelDemand {
            model: ModelId::new("m").unwrap(),
            minutes: 60,
            jobs: 1,
            waiting: 0,
            nodes: 1,
            points_per_node_hour_micro: points.map(MicroPoints),
        }
    }

    /// A job that was paid at a time (s) after it took some time (s).
    fn paid(model: &str, at_s: i64, took_s: u64, amount_micro: i64) -> Receipt {
        let id = "01935000-0000-7000-8000-000000000001";
        let receipt = json!({
            "event": id, "job": id, "lease": id, "node": "0xab", "model": model,
            "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "rule_set": "r",
            "quote": {
                "points": "llama", "units": 2, "base_micro": amount_micro, "factor": 1_000_000,
                "multiplier": 1_000_000, "amount_micro": amount_micro,
            },
            "digest": "00".repeat(32), "duration_ms": took_s * 1000,
            "settled_at_ms": at_s * 1000, "network": "n", "coordinator": "0x", "signature": "0x",
        });
        serde_json::from_value(receipt).unwrap()
    }

    fn rate(receipts: &[Receipt], model: &str) -> Option<(u32, i64)> {
        let rates = own_rates(receipts);
        let rate = rates.get(&ModelId::new(model).unwrap())?;
        Some((rate.jobs, rate.points_per_hour_micro))
    }

    #[test]
    fn a_rate_is_points_over_the_time_that_jobs_took() {
        // Six jobs of 20 s with pauses between them: 6 points in 2 minutes.
        let apart: Vec<_> = (1..=6).map(|n| paid("m", n * 100, 20, 1_000_000)).collect();
        assert_eq!(rate(&apart, "m"), Some((6, 180_000_000)));
        // The same in pairs at the same time: 6 points in 1 minute.
        let pairs: Vec<_> = (0..6).map(|n| paid("m", n / 2 * 100 + 50, 20, 1_000_000)).collect();
        assert_eq!(rate(&pairs, "m"), Some((6, 360_000_000)));
        // One that overlaps by half adds half of its time.
        let mut half = apart.clone();
        half.push(paid("m", 610, 20, 1_000_000));
        assert_eq!(rate(&half, "m"), Some((7, 7_000_000 * 3600 / 130)));
        // Each model for itself, in whatever order they come.
        let mut both = apart;
        both.extend((1..=5).rev().map(|n| paid("other", n * 100, 60, 500_000)));
        assert_eq!(rate(&both, "m"), Some((6, 180_000_000)));
        assert_eq!(rate(&both, "other"), Some((5, 30_000_000)));
    }

    #[test]
    fn few_jobs_or_short_ones_make_no_rate() {
        let four: Vec<_> = (1..=4).map(|n| paid("m", n * 100, 60, 1)).collect();
        assert_eq!(rate(&four, "m"), None);
        let short: Vec<_> = (1..=50).map(|n| paid("m", n * 100, 1, 1)).collect();
        assert_eq!(rate(&short, "m"), None);
        let longer: Vec<_> = (1..=60).map(|n| paid("m", n * 100, 1, 1)).collect();
        assert_eq!(rate(&longer, "m"), Some((60, 3600)));
        assert_eq!(rate(&[], "m"), None);
    }

    #[test]
    fn ones_own_rate_wins_and_without_any_there_is_no_number() {
        let own = Some(OwnRate { jobs: 7, points_per_hour_micro: 5 });
        let told = demand(Some(9));
        for runs_well in [true, false] {
            let estimate = estimate(own, Some(&told), runs_well).unwrap();
            assert_eq!(estimate.points_per_hour_micro, MicroPoints(5));
            assert_eq!(estimate.method, EstimateMethod::Own { jobs: 7 });
        }
        let of_network = estimate(None, Some(&told), true).unwrap();
        assert_eq!(of_network.points_per_hour_micro, MicroPoints(9));
        assert_eq!(of_network.method, EstimateMethod::Network);
        assert_eq!(estimate(None, Some(&told), false), None, "it runs slower here");
        assert_eq!(estimate(None, Some(&demand(None)), true), None);
        assert_eq!(estimate(None, None, true), None);
    }
}
