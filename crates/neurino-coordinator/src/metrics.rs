//! Counts and times for whoever runs the network, in Prometheus' text form. Names of people, prompts
//! and keys have no place in it.

use std::time::Duration;

use neurino_core::{JobKind, JobState, PointsKind, Receipt};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::coordinator::Coordinator;
use crate::router::JobClass;
use crate::store::{AttemptEnd, AuditState};

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// What is counted while the coordinator works. Gauges are read from memory when somebody asks.
#[derive(Debug)]
pub(crate) struct Metrics {
    accepted: Family<Label, Counter>,
    settled: Family<Label, Counter>,
    ended_unpaid: Family<Label, Counter>,
    attempts_ended: Family<Label, Counter>,
    points_micro: Family<Label, Counter>,
    limited: Counter,
    hedged: Counter,
    honeypots: Counter,
    files: Family<Label, Counter>,
    audited: Family<Label, Counter>,
    /// From acceptance, or the return to the queue, to the message to the node, in seconds.
    assigned: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        /// From a millisecond to about a minute.
        const BUCKETS: [f64; 12] =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];
        Self {
            accepted: Family::default(),
            settled: Family::default(),
            ended_unpaid: Family::default(),
            attempts_ended: Family::default(),
            points_micro: Family::default(),
            limited: Counter::default(),
            hedged: Counter::default(),
            honeypots: Counter::default(),
            files: Family::default(),
            audited: Family::default(),
            assigned: Histogram::new(BUCKETS),
        }
    }
}

impl Metrics {
    pub(crate) fn accepted(&self, class: JobClass) {
        self.accepted.get_or_create(&[("class", class.as_str())]).inc();
    }

    pub(crate) fn settled(&self, receipt: &Receipt) {
        let (kind, points) = match receipt.quote.points {
            PointsKind::Llama => (JobKind::Text, "llama"),
            PointsKind::Waifu => (JobKind::Image, "waifu"),
        };
        let kind = if kind == JobKind::Text { "text" } else { "image" };
        self.settled.get_or_create(&[("kind", kind)]).inc();
        let amount = u64::try_from(receipt.quote.amount_micro.0).unwrap_or(0);
        self.points_micro.get_or_create(&[("points", points)]).inc_by(amount);
    }

    pub(crate) fn ended_unpaid(&self, state: JobState) {
        self.ended_unpaid.get_or_create(&[("state", state.as_str())]).inc();
    }

    pub(crate) fn attempt_ended(&self, end: AttemptEnd) {
        self.attempts_ended.get_or_create(&[("end", end.as_str())]).inc();
    }

    pub(crate) fn audited(&self, end: AuditState) {
        self.audited.get_or_create(&[("end", end.as_str())]).inc();
    }

    pub(crate) fn hedged(&self) {
        self.hedged.inc();
    }

    /// Second leases since the last call.
    #[cfg(test)]
    pub(crate) fn take_hedged(&self) -> u64 {
        self.hedged.inner().swap(0, std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn files(&self, verdict: crate::files::Verdict) {
        self.files.get_or_create(&[("verdict", verdict.as_str())]).inc();
    }

    pub(crate) fn honeypot_given(&self) {
        self.honeypots.inc();
    }

    pub(crate) fn limited(&self) {
        self.limited.inc();
    }

    pub(crate) fn assigned(&self, waited: Duration) {
        self.assigned.observe(waited.as_secs_f64());
    }
}

impl Coordinator {
    /// Everything that is counted, in Prometheus' text form.
    pub fn metrics_text(&self) -> String {
        let mut registry = Registry::with_prefix("neurino");
        let m = &self.metrics;
        registry.register("jobs_accepted", "Jobs accepted, by class", m.accepted.clone());
        registry.register("jobs_settled", "Jobs paid, by kind", m.settled.clone());
        let help = "Jobs that ended unpaid, by state";
        registry.register("jobs_ended_unpaid", help, m.ended_unpaid.clone());
        let help = "Attempts that ended unpaid, by their end";
        registry.register("attempts_ended", help, m.attempts_ended.clone());
        let help = "Micro-points paid to nodes, by kind";
        registry.register("points_paid_micro", help, m.points_micro.clone());
        let help = "Requests refused because their key asked too often";
        registry.register("requests_limited", help, m.limited.clone());
        let help = "Jobs that were given to a second node because the first one was late";
        registry.register("jobs_hedged", help, m.hedged.clone());
        let help = "Answers of nodes that were asked to show a file, by verdict";
        registry.register("files_shown", help, m.files.clone());
        let help = "Jobs whose answer the network knew";
        registry.register("jobs_known", help, m.honeypots.clone());
        let help = "Seconds from the queue to the message to the node";
        registry.register("assign_seconds", help, m.assigned.clone());
        let waiting: Family<Label, Gauge> = Family::default();
        let [units, slots, busy] = [(); 3].map(|()| Family::<Label, Gauge>::default());
        let (leased, nodes) = (Gauge::<i64>::default(), Gauge::<i64>::default());
        {
            let state = self.state();
            for class in JobClass::ALL {
                let depth = i64::try_from(state.router.depth(class)).unwrap_or(i64::MAX);
                waiting.get_or_create(&[("class", class.as_str())]).set(depth);
            }
            leased.set(i64::try_from(state.leases.len()).unwrap_or(i64::MAX));
            nodes.set(i64::try_from(state.sessions.len()).unwrap_or(i64::MAX));
            let figure = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            for (kind, of_kind) in state.router.units_by_kind() {
                let label = [("kind", kind)];
                units.get_or_create(&label).set(figure(of_kind.units));
                slots.get_or_create(&label).set(figure(of_kind.slots));
                busy.get_or_create(&label).set(figure(of_kind.busy));
            }
        }
        registry.register("jobs_waiting", "Jobs in the queues, by class", waiting);
        registry.register("leases", "Leases that nodes hold", leased);
        registry.register("nodes", "Connected nodes", nodes);
        let help = "Cards, groups and parts of cards of connected nodes, by kind";
        registry.register("units", help, units);
        registry.register("slots", "Jobs that they take at once, by kind", slots);
        registry.register("slots_busy", "Jobs that they have, by kind", busy);
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &registry) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}
