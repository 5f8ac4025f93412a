//! What a model is worth on this machine: the network's demand for it, and points an hour where they
//! can be told. Nothing is made up: without this machine's own jobs, and without a network that tells,
//! there is no number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_config::{NetworkSetting, ProtocolSetting};
use neurino_core::{MicroPoints, ModelId, Receipt};
use neurino_protocol::demand::{EstimateMethod, ModelDemand, NetworkDemand, PointsEstimate};
use neurino_protocol::library::{FitVerdict, ModelFit};
use tracing::debug;

use crate::{App, lock};

/// How often the network and the receipts are asked while somebody looks.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// How long an answer of the network counts.
const ANSWER_FOR: Duration = Duration::from_secs(300);
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How soon it is looked whether somebody looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The last receipts that a rate of one's own is made of.
const RECEIPTS: usize = 200;
/// Fewer jobs, or less time, make no rate.
const OWN_JOBS_MIN: u32 = 5;
const OWN_TIME_MIN_MS: i64 = 60_000;
const HOUR_MS: i128 = 3_600_000;

/// What is known of models' worth.
#[derive(Default)]
pub(crate) struct Worth {
    network: Option<(Instant, NetworkDemand)>,
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
/// as anywhere.
fn estimate(
    own: Option<OwnRate>,
    demand: Option<&ModelDemand>,
    fits: &[ModelFit],
) -> Option<PointsEstimate> {
    if let Some(OwnRate { jobs, points_per_hour_micro }) = own {
        let method = EstimateMethod::Own { jobs };
        let points_per_hour_micro = MicroPoints(points_per_hour_micro);
        return Some(PointsEstimate { points_per_hour_micro, method });
    }
    let runs = fits.iter().any(|fit| fit.verdict == FitVerdict::Runs);
    let points_per_hour_micro = demand?.points_per_node_hour_micro.filter(|_| runs)?;
    Some(PointsEstimate { points_per_hour_micro, method: EstimateMethod::Network })
}

impl App {
    /// Asks network and receipts now and then, as long as somebody looks.
    pub(crate) fn spawn_worth(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut asked: Option<Instant> = None;
            loop {
                let due = asked.is_none_or(|at| at.elapsed() >= ASK_EVERY);
                if due && app.events.receiver_count() > 0 {
                    asked = Some(Instant::now());
                    tokio::select! {
                        () = app.end.cancelled() => return,
                        () = app.ask_worth() => {}
                    }
                }
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
    }

    async fn ask_worth(&self) {
        let log = Arc::clone(&self.receipts);
        let reading = tokio::task::spawn_blocking(move || log.before(i64::MAX, RECEIPTS));
        let own = match reading.await {
            Ok(Ok(receipts)) => own_rates(&receipts),
            // The earnings page tells what is wrong with the record.
            _ => HashMap::new(),
        };
        let network = self.ask_demand().await;
        {
            let mut worth = lock(&self.worth);
            worth.own = own;
            if let Some(network) = network {
                worth.network = Some((Instant::now(), network));
            }
        }
        self.changed.notify_one();
    }

    /// The network's demand; `None` where the network does not tell it, as the original one.
    async fn ask_demand(&self) -> Option<NetworkDemand> {
        if let Some(practice) = self.network.practice() {
            return Some(practice.demand());
        }
        let network = &self.settings.network;
        let NetworkSetting::Coordinator(url) = &network.coordinator else { return None };
        if network.protocol == ProtocolSetting::Original {
            return None;
        }
        let asking = async {
            let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).build()?;
            let mut answer =
                client.get(format!("{url}/v1/demand")).send().await?.error_for_status()?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Ok(None);
                }
                body.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>(serde_json::from_slice(&body).ok())
        };
        match asking.await {
            Ok(demand) => demand,
            Err(error) => {
                debug!("the network does not tell its demand: {}", error.without_url());
                None
            }
        }
    }

    /// The demand for a model and what it may bring here.
    pub(crate) fn worth_of(
        &self,
        model: &ModelId,
        fits: &[ModelFit],
    ) -> (Option<ModelDemand>, Option<PointsEstimate>) {
        let worth = lock(&self.worth);
        let told = worth.network.as_ref().filter(|(at, _)| at.elapsed() < ANSWER_FOR);
        let demand = told.and_then(|(_, told)| told.models.iter().find(|d| d.model == *model));
        let estimate = estimate(worth.own.get(model).copied(), demand, fits);
        (demand.cloned(), estimate)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn demand(points: Option<i64>) -> ModelDemand {
        ModelDemand {
            model: ModelId::new("m").unwrap(),
            jobs: 1,
            waiting: 0,
            nodes: 1,
            points_per_node_hour_micro: points.map(MicroPoints),
        }
    }

    fn fit(verdict: FitVerdict) -> ModelFit {
        let device = "Card".into();
        ModelFit { device, verdict, needed_bytes: 1, available_bytes: 2, free_bytes: 2 }
    }

    #[test]
    fn ones_own_rate_wins_and_without_any_there_is_no_number() {
        let own = OwnRate { jobs: 7, points_per_hour_micro: 5 };
        let good = [fit(FitVerdict::Runs)];
        let told = estimate(Some(own), Some(&demand(Some(9))), &good).unwrap();
        assert_eq!(told.method, EstimateMethod::Own { jobs: 7 });
        let told = estimate(None, Some(&demand(Some(9))), &good).unwrap();
        assert_eq!((told.points_per_hour_micro.0, told.method), (9, EstimateMethod::Network));
        assert_eq!(estimate(None, Some(&demand(None)), &good), None);
        assert_eq!(estimate(None, None, &good), None);
        for slow in [FitVerdict::SlowerFourBit, FitVerdict::No] {
            assert_eq!(estimate(None, Some(&demand(Some(9))), &[fit(slow)]), None);
        }
    }
}
