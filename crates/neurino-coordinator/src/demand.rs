//! What the network was asked for in the last hour, model by model, kept in memory as jobs are paid:
//! reading it costs no question to the books.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use neurino_core::{MicroPoints, ModelId, Receipt};
use neurino_protocol::demand::{ModelDemand, NetworkDemand};

use crate::coordinator::{Coordinator, now_ms};
use crate::state::LiveJob;

const MINUTE_MS: i64 = 60_000;
const MINUTES: i64 = 60;
/// How long an answer is given again: however many ask, the open jobs are counted this often.
const ANSWER_FOR: Duration = Duration::from_secs(5);
/// Fewer minutes say nothing about an hour.
const MINUTES_SEEN_MIN: u32 = 10;

/// The last hour.
#[derive(Default)]
pub(crate) struct Demand {
    minutes: Mutex<VecDeque<Minute>>,
    answer: Mutex<Option<(Instant, NetworkDemand)>>,
}

/// One minute in which something was noted.
#[derive(Default)]
struct Minute {
    /// Minutes since the Unix epoch.
    at: i64,
    /// How often connected machines were counted.
    looks: u32,
    models: BTreeMap<ModelId, Tally>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    jobs: u32,
    points_micro: i64,
    /// Machines counted, in all looks together.
    nodes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Demand {
    /// A job was paid.
    pub(crate) fn settled(&self, receipt: &Receipt, now_ms: i64) {
        self.note(now_ms, |minute| {
            let tally = minute.models.entry(receipt.model.clone()).or_default();
            tally.jobs = tally.jobs.saturating_add(1);
            tally.points_micro = tally.points_micro.saturating_add(receipt.quote.amount_micro.0);
        });
    }

    /// So many machines serve each model at the moment.
    pub(crate) fn served(&self, counts: impl Iterator<Item = (ModelId, usize)>, now_ms: i64) {
        self.note(now_ms, |minute| {
            minute.looks = minute.looks.saturating_add(1);
            for (model, nodes) in counts {
                minute.models.entry(model).or_default().nodes += nodes as u64;
            }
        });
    }

    fn note(&self, now_ms: i64, change: impl FnOnce(&mut Minute)) {
        let at = now_ms.div_euclid(MINUTE_MS);
        let mut minutes = lock(&self.minutes);
        if minutes.back().is_none_or(|last| last.at < at) {
            minutes.push_back(Minute { at, ..Minute::default() });
        }
        while minutes.front().is_some_and(|first| first.at <= at - MINUTES) {
            minutes.pop_front();
        }
        // A clock that was set back adds to the newest minute.
        if let Some(minute) = minutes.back_mut() {
            change(minute);
        }
    }

    /// The hour in numbers, for these models with the jobs that wait and the machines there are.
    fn hour(
        &self,
        models: impl Iterator<Item = (ModelId, usize, usize)>,
        now_ms: i64,
    ) -> Vec<ModelDemand> {
        let at = now_ms.div_euclid(MINUTE_MS);
        let minutes = lock(&self.minutes);
        let recent = || minutes.iter().filter(|minute| minute.at > at - MINUTES);
        let looked = || recent().filter(|minute| minute.looks > 0);
        let seen = u32::try_from(looked().count()).unwrap_or(0);
        let demand = |(model, waiting, nodes): (ModelId, usize, usize)| {
            let tallies = || recent().filter_map(|minute| minute.models.get(&model));
            let points_micro: i64 = tallies().map(|tally| tally.points_micro).sum();
            // Machines in each minute, added up: sixty are a machine for an hour.
            let node_minutes: f64 = looked()
                .filter_map(|minute| Some((minute.looks, minute.models.get(&model)?)))
                .map(|(looks, tally)| tally.nodes as f64 / f64::from(looks))
                .sum();
            let enough = seen >= MINUTES_SEEN_MIN && node_minutes >= f64::from(MINUTES_SEEN_MIN);
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            ModelDemand {
                minutes: seen,
                jobs: tallies().map(|tally| tally.jobs).sum(),
                waiting: count(waiting),
                nodes: count(nodes),
                points_per_node_hour_micro: enough
                    .then(|| MicroPoints((points_micro as f64 * 60.0 / node_minutes) as i64)),
                model,
            }
        };
        models.map(demand).collect()
    }
}

impl Coordinator {
    /// Demand over the last hour. Computed at most every five seconds, from memory alone.
    pub fn demand(&self) -> NetworkDemand {
        let mut answer = lock(&self.demand.answer);
        if let Some((at, told)) = &*answer
            && at.elapsed() < ANSWER_FOR
        {
            return told.clone();
        }
        let counted: Vec<_> = {
            let state = self.state();
            let mut waiting: BTreeMap<&ModelId, usize> = BTreeMap::new();
            let open = |job: &&LiveJob| job.lease.is_none() && job.admitted && !job.closing;
            for job in state.jobs.values().filter(open) {
                *waiting.entry(job.spec.model()).or_default() += 1;
            }
            let known = self.known_models(&state).into_iter();
            let count = |model: ModelId| {
                let waits = waiting.get(&model).copied().unwrap_or(0);
                let nodes = state.router.serving(&model);
                (model, waits, nodes)
            };
            known.map(count).collect()
        };
        let models = self.demand.hour(counted.into_iter(), now_ms());
        let told = NetworkDemand { network: self.network().into(), models };
        *answer = Some((Instant::now(), told.clone()));
        told
    }

    /// Counts the machines of each model, for what an hour of one is worth.
    pub(crate) fn count_served(&self) {
        let counts: Vec<_> = {
            let state = self.state();
            let served = state.router.served();
            served.map(|model| (model.clone(), state.router.serving(model))).collect()
        };
        self.demand.served(counts.into_iter(), now_ms());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name).unwrap()
    }

    fn paid(demand: &Demand, name: &str, points_micro: i64, minute: i64) {
        demand.note(minute * MINUTE_MS, |now| {
            let tally = now.models.entry(model(name)).or_default();
            tally.jobs += 1;
            tally.points_micro += points_micro;
        });
    }

    fn look(demand: &Demand, name: &str, nodes: usize, minute: i64) {
        demand.served([(model(name), nodes)].into_iter(), minute * MINUTE_MS);
    }

    fn hour(demand: &Demand, name: &str, minute: i64) -> ModelDemand {
        let asked = [(model(name), 3, 2)].into_iter();
        demand.hour(asked, minute * MINUTE_MS).remove(0)
    }

    #[test]
    fn an_hour_of_a_machine_is_paid_by_what_all_of_them_were_paid() {
        let demand = Demand::default();
        for minute in 0..60 {
            // Two looks a minute: one machine in the first half hour, then three.
            let nodes = if minute < 30 { 1 } else { 3 };
            look(&demand, "a", nodes, minute);
            look(&demand, "a", nodes, minute);
            paid(&demand, "a", 1_000_000, minute);
        }
        let told = hour(&demand, "a", 59);
        assert_eq!((told.minutes, told.jobs, told.waiting, told.nodes), (60, 60, 3, 2));
        // 60 points for two machine hours.
        assert_eq!(told.points_per_node_hour_micro, Some(MicroPoints(30_000_000)));
        let other = hour(&demand, "b", 59);
        assert_eq!((other.jobs, other.points_per_node_hour_micro), (0, None));
        // What is an hour old does not count any more.
        assert_eq!(hour(&demand, "a", 89).jobs, 30);
        assert_eq!(hour(&demand, "a", 200).jobs, 0);
        paid(&demand, "a", 1, 200);
        assert_eq!(demand.minutes.lock().unwrap().len(), 1, "an hour is all that is kept");
    }

    #[test]
    fn a_few_minutes_say_nothing_of_an_hour() {
        let demand = Demand::default();
        for minute in 0..9 {
            look(&demand, "a", 5, minute);
            paid(&demand, "a", 9, minute);
        }
        assert_eq!(hour(&demand, "a", 9).points_per_node_hour_micro, None);
        look(&demand, "a", 5, 9);
        assert!(hour(&demand, "a", 9).points_per_node_hour_micro.is_some());
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let demand = Demand::default();
        paid(&demand, "a", 5, 100);
        paid(&demand, "a", 5, 40);
        assert_eq!(hour(&demand, "a", 100).jobs, 2);
    }
}
