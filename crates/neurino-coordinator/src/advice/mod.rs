//! Which model each node should load next: demand is noted as jobs are accepted, looked at every half
//! minute, and who should change something is told so. Advice, not an order: a node follows it between
//! jobs, if its owner lets it, and is never told of a model that it did not announce.

mod policy;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neurino_core::{ModelId, NodeId};
use neurino_protocol::node::{Advice, CoordinatorMessage};
use tokio::time::Instant;

use crate::coordinator::Coordinator;
use crate::router::Place;
use crate::state::{LiveJob, State};
use crate::terms::cost_units;
use policy::{Holder, Wish, plan};

/// How fast demand is forgotten: the quicker view sees a rise, the slower one keeps what comes and goes.
const VIEWS: [Duration; 2] = [Duration::from_mins(5), Duration::from_hours(1)];
/// Waiting jobs are to be done within this time, in seconds.
const CLEAR_S: f64 = 30.0;
/// What a model keeps, beyond what the present demand needs.
const MARGIN: f64 = 1.3;
/// How long a job takes where no node was timed yet, in seconds.
const GUESS_S: f64 = 10.0;
/// How long a node that was told something counts as if it had done it.
const FOLLOWS_WITHIN: Duration = Duration::from_mins(2);
/// Nodes that are told something at once, in thousandths of all; one may always.
const MOVES_PERMILLE: usize = 20;
/// How long a node that went away is remembered, in dwells.
const FORGET_DWELLS: u32 = 4;

/// What was asked for and who was told what.
pub(crate) struct AdviceBook {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    asked: BTreeMap<ModelId, Asked>,
    told: BTreeMap<Place, Told>,
}

/// Demand for a model, decaying.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    /// Cost units, of each of the views.
    units: [f64; 2],
    jobs: [f64; 2],
    last: Instant,
}

impl Asked {
    fn new(now: Instant) -> Self {
        Self { at: now, units: [0.0; 2], jobs: [0.0; 2], last: now }
    }

    fn decay(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        for (view, over) in VIEWS.iter().enumerate() {
            let keep = (-passed / over.as_secs_f64()).exp();
            self.units[view] *= keep;
            self.jobs[view] *= keep;
        }
        self.at = self.at.max(now);
    }

    fn add(&mut self, cost: u64, now: Instant) {
        self.decay(now);
        for view in 0..VIEWS.len() {
            self.units[view] += cost as f64;
            self.jobs[view] += 1.0;
        }
        self.last = now;
    }

    /// The higher one of the views, in cost units a second.
    fn units_per_s(&self) -> f64 {
        let rates = self.units.iter().zip(VIEWS).map(|(units, over)| units / over.as_secs_f64());
        rates.fold(0.0, f64::max)
    }
}

/// What a node was told, or did by itself, last.
#[derive(Debug, Clone)]
struct Told {
    /// What it holds, as last seen or told.
    holds: Option<ModelId>,
    since: Instant,
    /// What it held before.
    left: Option<ModelId>,
    /// Whether it was told so and has not said that it did it.
    pending: bool,
    seen: Instant,
}

impl AdviceBook {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job was accepted.
    pub(crate) fn asked(&self, model: &ModelId, cost: u64) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.asked.entry(model.clone()).or_insert_with(|| Asked::new(now)).add(cost, now);
    }
}

/// A unit of a connected node, as the router and its session have it.
pub(crate) struct Seen {
    pub(crate) place: Place,
    pub(crate) slots: u32,
    pub(crate) busy: u32,
    /// Those it announced and is large enough for.
    pub(crate) offers: Vec<ModelId>,
    pub(crate) loaded: Option<ModelId>,
    /// Whether it takes advice.
    pub(crate) advised: bool,
}

/// Jobs that wait for a model.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    jobs: u32,
    units: u64,
}

/// Everything that is looked at, at one moment.
struct Look {
    units: Vec<Seen>,
    waiting: BTreeMap<ModelId, Waits>,
    /// Usual speed of a slot, in cost units a second.
    speeds: BTreeMap<ModelId, f64>,
}

impl Coordinator {
    /// Tells nodes which model to have loaded, where that should change.
    pub(crate) fn advise(&self) {
        let look = look(&self.state());
        let told = self.advice_on(&look, Instant::now());
        let state = self.state();
        for (node, advice) in told {
            let what = advice.model.as_ref().map_or("nothing", ModelId::as_str);
            tracing::debug!("advised node {} to hold {what}", crate::jobs::short(&node));
            state.send(&node, CoordinatorMessage::Advice(advice));
        }
    }

    fn advice_on(&self, look: &Look, now: Instant) -> Vec<(NodeId, Advice)> {
        let limits = &self.config.limits;
        let dwell = Duration::from_millis(limits.advice_dwell_ms);
        let mut inner = self.advice.inner();
        inner.notice(&look.units, now, dwell);
        let mut models: Vec<ModelId> = look
            .units
            .iter()
            .flat_map(|seen| seen.offers.iter().chain(&seen.loaded))
            .cloned()
            .collect();
        models.sort();
        models.dedup();
        let wishes = self.wishes(&inner, &models, look, now);
        let at = |model: &ModelId| models.binary_search(model).ok();
        let holders: Vec<Holder> = look
            .units
            .iter()
            .map(|seen| {
                let told = inner.told.get(&seen.place);
                let dwells = |many: u32| {
                    told.is_some_and(|told| now.duration_since(told.since) < dwell * many)
                };
                let left = told.and_then(|told| told.left.as_ref()).filter(|_| dwells(2));
                Holder {
                    slots: seen.slots.max(1),
                    busy: seen.busy,
                    offers: seen.offers.iter().filter_map(at).collect(),
                    loaded: told.and_then(|told| told.holds.as_ref()).and_then(at),
                    // One that takes no jobs now is left alone.
                    movable: seen.advised && seen.slots > 0 && !dwells(1),
                    barred: left.and_then(at),
                }
            })
            .collect();
        let most = (holders.len() * MOVES_PERMILLE / 1000).max(1);
        let moves = plan(&wishes, &holders, most);
        let advice = moves.into_iter().map(|(node, model)| {
            let place = look.units[node].place.clone();
            let model = model.map(|model| models[model].clone());
            let waits = model.as_ref().and_then(|model| look.waiting.get(model));
            if let Some(told) = inner.told.get_mut(&place) {
                told.change(model.clone(), now);
                told.pending = true;
            }
            let Place { node, unit } = place;
            (node, Advice { model, waiting: waits.map_or(0, |waits| waits.jobs), unit })
        });
        advice.collect()
    }

    fn wishes(&self, inner: &Inner, models: &[ModelId], look: &Look, now: Instant) -> Vec<Wish> {
        let idle = match self.config.limits.advice_idle_ms {
            0 => Duration::MAX,
            ms => Duration::from_millis(ms),
        };
        let votes: Vec<f64> = models.iter().map(|model| self.pod(model).votes as f64).collect();
        let all_votes = votes.iter().sum::<f64>().max(1.0);
        let wish = |(model, votes): (&ModelId, f64)| {
            let waits = look.waiting.get(model).copied().unwrap_or_default();
            let Some(mut asked) = inner
                .asked
                .get(model)
                .copied()
                .or_else(|| (waits.jobs > 0).then(|| Asked::new(now)))
            else {
                // Who begins does not know what was asked for before.
                let asked = now.saturating_duration_since(self.advice.began) < idle;
                return Wish { asked, ..Wish::default() };
            };
            let lately = waits.jobs > 0 || now.saturating_duration_since(asked.last) < idle;
            if !lately {
                return Wish::default();
            }
            asked.decay(now);
            let mean = (asked.units[1] + waits.units as f64)
                / (asked.jobs[1] + f64::from(waits.jobs)).max(1.0);
            let timed = look.speeds.get(model).copied().filter(|speed| *speed > 0.0);
            let speed = timed.unwrap_or(mean.max(1.0) / GUESS_S);
            let steady = asked.units_per_s() / speed;
            let behind = waits.units as f64 / CLEAR_S / speed;
            Wish {
                // One that was asked for lately is kept at hand.
                need: (steady + behind).max(1.0),
                keep: (MARGIN * steady + behind).max(1.0),
                asked: true,
                weight: (steady + behind + votes / all_votes).sqrt(),
            }
        };
        models.iter().zip(votes).map(wish).collect()
    }
}

impl Told {
    fn change(&mut self, holds: Option<ModelId>, now: Instant) {
        self.left = std::mem::replace(&mut self.holds, holds);
        self.since = now;
    }
}

impl Inner {
    /// Takes in what units hold. One that loaded something for a job stays with it for a while, too.
    fn notice(&mut self, units: &[Seen], now: Instant, dwell: Duration) {
        for seen in units {
            let told = self.told.entry(seen.place.clone()).or_insert_with(|| Told {
                holds: seen.loaded.clone(),
                // Whoever comes is told at once what is needed.
                since: now.checked_sub(dwell * 2).unwrap_or(now),
                left: None,
                pending: false,
                seen: now,
            });
            told.seen = now;
            if told.holds == seen.loaded {
                told.pending = false;
            } else if !told.pending || now.duration_since(told.since) > FOLLOWS_WITHIN {
                told.change(seen.loaded.clone(), now);
                told.pending = false;
            }
        }
        self.told.retain(|_, told| now.duration_since(told.seen) < dwell * FORGET_DWELLS);
        self.asked.retain(|_, asked| now.duration_since(asked.last) < 24 * VIEWS[1]);
    }
}

fn look(state: &State) -> Look {
    let mut waiting: BTreeMap<ModelId, Waits> = BTreeMap::new();
    let open = |job: &&LiveJob| job.lease.is_none() && job.admitted && !job.closing;
    for job in state.jobs.values().filter(open) {
        let waits = waiting.entry(job.spec.model().clone()).or_default();
        waits.jobs = waits.jobs.saturating_add(1);
        waits.units = waits.units.saturating_add(cost_units(&job.spec));
    }
    let units = state.sessions.iter().flat_map(|(node, session)| {
        let units = state.router.holders(node).into_iter();
        units.map(|seen| Seen { advised: session.advised, ..seen })
    });
    Look { units: units.collect(), waiting, speeds: state.router.speeds() }
}
