//! Which node gets which job: in memory, pure, no clock.
//!
//! A job goes to a node that serves its model and did not fail at it: filter. Of
//! those that are free a few are drawn at random: [`Sample`]. The best of them by the network's order
//! gets it (`nodes`): model loaded, referred by the job's frontend, speed, votes, uptime. Which job is
//! next is decided by `queue`, fair between classes and between payers.

mod conduct;
mod nodes;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{JobId, ModelId, NodeId};
use neurino_ledger::PayerId;
use neurino_protocol::node::{NoJob, SkipCount, SkipReason};
use rand::Rng;
use tokio::time::Instant;

pub use nodes::Sample;
pub(crate) use nodes::Standing;
pub use queue::JobClass;
pub(crate) use queue::{
    KnownAnswer, OTHER_ENGINE, Placement, Waiting, is_other_engine, owner_of, party_of,
};

use crate::advice::Seen;
use conduct::Conduct;
use nodes::{Free, Node};
use queue::Queues;

/// Most reasons told to a node that gets no job.
const REASONS_MAX: usize = 4;

/// The router's memory.
#[derive(Debug, Default)]
pub(crate) struct Router {
    queues: Queues,
    nodes: BTreeMap<NodeId, Node>,
    free: BTreeMap<ModelId, Free>,
    /// Connected nodes with at least one slot, per model.
    serving: BTreeMap<ModelId, usize>,
    /// Memory that a node usually needs for a model, in bytes, where the network knows: for what nodes
    /// are told. One that serves a model is believed that it can.
    needs: BTreeMap<ModelId, u64>,
    sample: Sample,
    turn: u64,
    /// Speed of the fastest node for each model, in cost units a second, as of the last banding.
    fastest: BTreeMap<ModelId, f64>,
    /// The middle one, likewise.
    usual: BTreeMap<ModelId, f64>,
    conduct: Conduct,
    /// Models that nodes get no jobs for, connected or not: their files could not be shown.
    withheld: BTreeMap<NodeId, BTreeSet<ModelId>>,
    /// Jobs that an owner whom nobody knows holds at once; `None` is any number.
    of_new: Option<u32>,
}

impl Router {
    /// A router that compares so many nodes, on a network that knows what models need.
    pub(crate) fn new(sample: Sample, needs: BTreeMap<ModelId, u64>) -> Self {
        Self { needs, sample, ..Self::default() }
    }

    /// The same, where an owner whom nobody knows holds so many jobs at once.
    #[must_use]
    pub(crate) fn with_new_owners_holding(self, most: u32) -> Self {
        Self { of_new: Some(most), ..self }
    }

    /// Sets what a connected node can take. `busy` counts the leases it holds.
    pub(crate) fn set_node(
        &mut self,
        id: &NodeId,
        models: Vec<ModelId>,
        slots: u32,
        busy: u32,
        standing: Standing,
    ) {
        let before = self.take_node(id);
        let offered = models;
        let withheld = self.withheld.get(id);
        let given = |model: &&ModelId| withheld.is_none_or(|all| !all.contains(*model));
        let models: Vec<ModelId> = offered.iter().filter(given).cloned().collect();
        if slots > 0 {
            for model in &models {
                *self.serving.entry(model.clone()).or_default() += 1;
            }
        }
        let resting = self.conduct.is_resting(id);
        let fault_band = self.conduct.fault_band(id);
        let before = before.unwrap_or_default();
        let parked = false;
        let node =
            Node { models, offered, slots, busy, resting, parked, fault_band, standing, ..before };
        self.nodes.insert(id.clone(), node);
        self.refresh(id);
        self.owner_changed(id);
    }

    /// Has a connected node get nothing until it is set anew. It serves its models all the same.
    pub(crate) fn park(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.parked = true;
            self.refresh(id);
        }
    }

    /// Gives a node no jobs for a model, or gives it some again.
    pub(crate) fn withhold(&mut self, id: &NodeId, model: &ModelId, withheld: bool) {
        let of_node = self.withheld.entry(id.clone()).or_default();
        let changed = if withheld { of_node.insert(model.clone()) } else { of_node.remove(model) };
        if of_node.is_empty() {
            self.withheld.remove(id);
        }
        if changed && let Some(node) = self.nodes.get(id) {
            let (offered, standing) = (node.offered.clone(), node.standing.clone());
            self.set_node(id, offered, node.slots, node.busy, standing);
        }
    }

    /// What a connected node announced, whatever of it is withheld.
    pub(crate) fn offered(&self, id: &NodeId) -> impl Iterator<Item = &ModelId> {
        self.nodes.get(id).into_iter().flat_map(|node| &node.offered)
    }

    fn is_large_enough(&self, model: &ModelId, standing: &Standing) -> bool {
        let need = self.needs.get(model).copied().unwrap_or(0);
        standing.memory_bytes == 0 || standing.memory_bytes >= need
    }

    /// Says whether a connected node has nothing loaded: its first model is then as cold as the others.
    pub(crate) fn set_cold(&mut self, id: &NodeId, cold: bool) {
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.cold != cold) else { return };
        node.cold = cold;
        for model in &node.models {
            if let Some(free) = self.free.get_mut(model) {
                free.remove(id);
            }
        }
        self.refresh(id);
    }

    /// A connected node for those who say what it should load; whether it takes advice is not known here.
    pub(crate) fn holder(&self, id: &NodeId) -> Option<Seen> {
        let node = self.nodes.get(id)?;
        let fits = |model: &&ModelId| self.is_large_enough(model, &node.standing);
        Some(Seen {
            node: id.clone(),
            slots: node.slots,
            busy: node.busy,
            offers: node.models.iter().filter(fits).cloned().collect(),
            loaded: node.offered.first().filter(|_| !node.cold).cloned(),
            advised: false,
        })
    }

    /// The usual speed of a job for each model that was timed, in cost units a second.
    pub(crate) fn speeds(&self) -> BTreeMap<ModelId, f64> {
        nodes::medians(&self.nodes)
    }

    /// Forgets a node whose session ended.
    pub(crate) fn remove_node(&mut self, id: &NodeId) {
        self.take_node(id);
        self.owner_changed(id);
    }

    fn take_node(&mut self, id: &NodeId) -> Option<Node> {
        let node = self.nodes.remove(id)?;
        for model in &node.models {
            if let Some(free) = self.free.get_mut(model) {
                free.remove(id);
                // Names that nobody serves any more are forgotten: they are free to make up.
                if free.is_empty() {
                    self.free.remove(model);
                }
            }
            if node.slots > 0
                && let Some(serving) = self.serving.get_mut(model)
            {
                *serving -= 1;
                if *serving == 0 {
                    self.serving.remove(model);
                }
            }
        }
        Some(node)
    }

    /// Frees a slot.
    pub(crate) fn lease_ended(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            self.refresh(id);
            self.owner_changed(id);
        }
    }

    /// An attempt of a node failed, and the node is to blame: so many times as much as usual.
    pub(crate) fn failed(&mut self, id: &NodeId, times: u32) {
        self.conduct.failed(id, times);
        self.judged(id);
    }

    /// A result of a node was paid.
    pub(crate) fn paid(&mut self, id: &NodeId) {
        self.conduct.paid(id, party_of(id));
        self.judged(id);
        self.owner_changed(id);
    }

    /// A job that a node held came to nothing.
    pub(crate) fn wasted(&mut self, id: &NodeId) {
        self.conduct.wasted(&party_of(id));
        self.owner_changed(id);
    }

    /// A node handed a job back that it was given at a time.
    pub(crate) fn handed_back(&mut self, id: &NodeId, given: Instant, now: Instant) {
        self.conduct.handed_back(id, given, now);
        self.judged(id);
    }

    /// The owner of a node is known by its audits.
    pub(crate) fn trust(&mut self, id: &NodeId) {
        self.conduct.trust(party_of(id));
        self.owner_changed(id);
    }

    /// Has those work again that rested long enough; says whether any did.
    pub(crate) fn end_rests(&mut self, now: Instant) -> bool {
        let rested = self.conduct.rested(now);
        for id in &rested {
            self.judged(id);
        }
        !rested.is_empty()
    }

    /// Forgets a part of what failed.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.conduct.forgive(now);
        for (id, node) in &mut self.nodes {
            node.fault_band = self.conduct.fault_band(id);
        }
    }

    /// Moves everything that waits for a time closer to it.
    #[cfg(test)]
    pub(crate) fn pass_time(&mut self, by: std::time::Duration) {
        self.conduct.pass_time(by);
    }

    fn judged(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.fault_band = self.conduct.fault_band(id);
        let resting = self.conduct.is_resting(id);
        if std::mem::replace(&mut node.resting, resting) != resting {
            self.refresh(id);
        }
    }

    /// Whether another owner's node that was not asked yet can be asked about a job.
    pub(crate) fn another_owner_serves(
        &self,
        model: &ModelId,
        node: &NodeId,
        asked: impl Fn(&NodeId) -> bool,
        placement: Option<&Placement>,
    ) -> bool {
        self.nodes.iter().any(|(id, other)| {
            owner_of(id) != owner_of(node)
                && other.slots > 0
                && other.models.contains(model)
                && !asked(id)
                && placement.is_none_or(|place| place.allows(id, &other.standing))
        })
    }

    /// Notes how fast a node served a job: the work that was done, in the units of [`Waiting::cost`],
    /// and milliseconds. A suspect one is no measure for others yet.
    pub(crate) fn timed(
        &mut self,
        id: &NodeId,
        model: &ModelId,
        units: u64,
        duration_ms: u64,
        suspect: bool,
    ) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.timed(model, units as f64 * 1000.0 / duration_ms.max(1) as f64, suspect);
        }
    }

    /// Notes how long a node took to the first words of an answer, in milliseconds for a short prompt.
    pub(crate) fn began(&mut self, id: &NodeId, model: &ModelId, ms: f64) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.began(model, ms);
        }
    }

    /// How long a node usually takes to them; of one that was not timed, how long the middle one does.
    pub(crate) fn begins_after(&self, id: &NodeId, model: &ModelId) -> Option<f64> {
        let own = self.nodes.get(id).and_then(|node| node.begins_after(model));
        own.or_else(|| {
            let mut all: Vec<f64> =
                self.nodes.values().filter_map(|node| node.begins_after(model)).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        })
    }

    /// Whether a node has a model in memory.
    pub(crate) fn has_loaded(&self, id: &NodeId, model: &ModelId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.has_loaded(model))
    }

    /// Whether a free node that was not asked yet has a model in memory and may compute a job.
    pub(crate) fn another_could_begin(
        &self,
        model: &ModelId,
        asked: impl Fn(&NodeId) -> bool,
        placement: Option<&Placement>,
    ) -> bool {
        self.nodes.iter().any(|(id, node)| {
            node.has_loaded(model)
                && node.models.contains(model)
                && node.is_free_for(model)
                && !asked(id)
                && placement.is_none_or(|place| place.allows(id, &node.standing))
        })
    }

    /// Sets the speed bands of all nodes anew.
    pub(crate) fn band_all(&mut self) {
        self.fastest = nodes::band_all(&mut self.nodes);
        self.usual = nodes::medians(&self.nodes);
    }

    /// Speed of the fastest node for a model, in cost units a second, where several serve it.
    pub(crate) fn fastest(&self, model: &ModelId) -> Option<f64> {
        self.fastest.get(model).copied()
    }

    /// Puts a job into its queue.
    pub(crate) fn enqueue(&mut self, waiting: Waiting) {
        self.queues.push(waiting);
    }

    /// Takes a job out of its queue, wherever it waits.
    pub(crate) fn remove_job(&mut self, model: &ModelId, payer: &PayerId, job: JobId) {
        for class in JobClass::ALL {
            self.queues.remove(class, model, payer, job);
        }
    }

    /// Makes a waiting batch job interactive, because it has waited long. It keeps its payer's order.
    pub(crate) fn promote(&mut self, model: &ModelId, payer: &PayerId, job: JobId) {
        if let Some(waiting) = self.queues.remove(JobClass::Batch, model, payer, job) {
            self.queues.push(Waiting { class: JobClass::Interactive, ..waiting });
        }
    }

    /// Whether a node has said what it takes.
    pub(crate) fn knows(&self, id: &NodeId) -> bool {
        self.nodes.contains_key(id)
    }

    /// Connected nodes that serve a model, busy or not.
    pub(crate) fn serving(&self, model: &ModelId) -> usize {
        self.serving.get(model).copied().unwrap_or(0)
    }

    /// Whether a connected node serves a model, besides some.
    pub(crate) fn serves_besides(&self, model: &ModelId, besides: &[NodeId]) -> bool {
        self.serving(model) > besides.len()
            || self.nodes.iter().any(|(id, node)| {
                node.slots > 0 && node.models.contains(model) && !besides.contains(id)
            })
    }

    /// Whether a connected node serves a model and may compute a job of this placement.
    pub(crate) fn serves_placed(&self, model: &ModelId, placement: &Placement) -> bool {
        self.nodes.iter().any(|(id, node)| {
            node.slots > 0 && node.models.contains(model) && placement.allows(id, &node.standing)
        })
    }

    /// Whether a node would begin a job on a model now.
    pub(crate) fn is_free_for(&self, id: &NodeId, model: &ModelId) -> bool {
        self.nodes
            .get(id)
            .is_some_and(|node| node.models.contains(model) && node.is_free_for(model))
    }

    /// Models that a connected node serves.
    pub(crate) fn served(&self) -> impl Iterator<Item = &ModelId> {
        self.serving.iter().filter(|(_, nodes)| **nodes > 0).map(|(model, _)| model)
    }

    /// How many jobs of a class wait.
    pub(crate) fn depth(&self, class: JobClass) -> usize {
        self.queues.depth(class)
    }

    /// The next job and its node; takes the job from its queue and a slot from the node.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Option<(JobId, NodeId)> {
        let Self { queues, nodes, free, needs, sample, conduct, .. } = self;
        if queues.is_empty() {
            return None;
        }
        let open = |model: &ModelId| free.get(model).is_some_and(Free::any);
        let (waiting, id) = queues.take(open, |waiting| {
            let need_bytes = needs.get(&waiting.model).copied().unwrap_or(0);
            let free = free.get(&waiting.model)?;
            nodes::place(nodes, free, waiting, need_bytes, conduct, *sample, rng)
        })?;
        self.turn += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.busy += 1;
            node.last_served = self.turn;
            node.reserved = None;
        }
        self.refresh(&id);
        self.owner_changed(&id);
        Some((waiting.job, id))
    }

    /// A second node for a job that is worked on: a free one that has its model loaded, was not asked
    /// before, and is allowed. Takes a slot from it.
    pub(crate) fn second(
        &mut self,
        waiting: &Waiting,
        rng: &mut impl Rng,
        allowed: impl Fn(&NodeId) -> bool,
    ) -> Option<NodeId> {
        let free = self.free.get(&waiting.model)?;
        let Self { nodes, conduct, sample, .. } = &*self;
        let id = nodes::second(nodes, free, waiting, conduct, *sample, allowed, rng)?;
        self.turn += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.busy += 1;
            node.last_served = self.turn;
        }
        self.refresh(&id);
        self.owner_changed(&id);
        Some(id)
    }

    /// How fast a node serves a model, in cost units a second; of one that was not timed, how fast most
    /// do.
    pub(crate) fn speed(&self, id: &NodeId, model: &ModelId) -> Option<f64> {
        let own = self.nodes.get(id).and_then(|node| node.speed(model));
        own.or_else(|| self.usual.get(model).copied()).filter(|speed| *speed > 0.0)
    }

    /// Whether a job waits for a model.
    pub(crate) fn is_asked_for(&self, model: &ModelId) -> bool {
        self.queues.of_model(model).next().is_some()
    }

    /// Holds a node free for a model whose jobs wait for long and need a node of their own: the one that
    /// has the least to do among those that can. One at a time for a model, and a quarter of all nodes
    /// at most.
    pub(crate) fn reserve(
        &mut self,
        model: &ModelId,
        allowed: impl Fn(&NodeId) -> bool,
    ) -> Option<NodeId> {
        let need_bytes = self.needs.get(model).copied()?;
        let held = || self.nodes.values().filter_map(|node| node.reserved.as_ref());
        let many = held().count();
        if held().any(|held| held == model) || (many > 0 && (many + 1) * 4 > self.nodes.len()) {
            return None;
        }
        let can = |(id, node): &(&NodeId, &Node)| {
            node.slots > 0
                && node.reserved.is_none()
                && node.models.contains(model)
                && node.is_in_the_way(model, need_bytes)
                && allowed(id)
        };
        let best = self.nodes.iter().filter(can).min_by_key(|(id, node)| (node.busy, *id))?;
        let id = best.0.clone();
        self.hold(&id, Some(model.clone()));
        Some(id)
    }

    /// Holds a node free no longer.
    pub(crate) fn unreserve(&mut self, id: &NodeId) {
        self.hold(id, None);
    }

    /// What a node is held free for.
    pub(crate) fn reserved(&self, id: &NodeId) -> Option<&ModelId> {
        self.nodes.get(id)?.reserved.as_ref()
    }

    fn hold(&mut self, id: &NodeId, model: Option<ModelId>) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.reserved = model;
            self.refresh(id);
        }
    }

    /// Why a node gets none of the waiting jobs; `None` if it has no free slot or is not known, so that
    /// nothing is owed to it.
    pub(crate) fn no_job(&self, id: &NodeId) -> Option<NoJob> {
        let node = self.nodes.get(id).filter(|node| node.busy < node.slots && !node.parked)?;
        if self.queues.is_empty() {
            return Some(NoJob::default());
        }
        let mut reasons: Vec<SkipCount> = Vec::new();
        let mut add = |jobs: usize, reason: SkipReason| {
            let jobs = u32::try_from(jobs).unwrap_or(u32::MAX);
            match reasons.iter_mut().find(|known| known.reason == reason) {
                Some(known) => known.jobs = known.jobs.saturating_add(jobs),
                None if jobs > 0 => reasons.push(SkipCount { jobs, reason }),
                None => {}
            }
        };
        for (model, jobs) in self.queues.waiting() {
            if node.models.contains(model) {
                let standing = &node.standing;
                let barred = |w: &Waiting| {
                    w.placement.as_ref().is_some_and(|place| !place.allows(id, standing))
                };
                // Work that checks somebody's work is nobody else's business.
                let failed =
                    |w: &&Waiting| !barred(w) && (w.unable.contains(id) || w.tried.contains(id));
                let failed = self.queues.of_model(model).filter(failed).count();
                add(failed, SkipReason::Failed);
            } else if node.offered.contains(model) {
                add(jobs, SkipReason::Files { model: model.clone() });
            } else if self.is_large_enough(model, &node.standing) {
                add(jobs, SkipReason::Model { model: model.clone() });
            } else {
                let memory_bytes = self.needs.get(model).copied().unwrap_or(0);
                add(jobs, SkipReason::Memory { memory_bytes });
            }
        }
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.jobs));
        let waiting = reasons.iter().fold(0u32, |sum, reason| sum.saturating_add(reason.jobs));
        reasons.truncate(REASONS_MAX);
        Some(NoJob { waiting, reasons })
    }

    /// Takes the nodes of an owner who holds as many jobs as it may out of the sets of free nodes, and puts
    /// them back. Here and not where a node is chosen, which would look at them for every job that waits.
    fn owner_changed(&mut self, id: &NodeId) {
        let Some(of_new) = self.of_new else { return };
        let party = party_of(id);
        let of_owner =
            || self.nodes.range(&party..).take_while(|(id, _)| owner_of(id) == party.as_str());
        let busy = of_owner().fold(0u32, |sum, (_, node)| sum.saturating_add(node.busy));
        let capped = busy >= self.conduct.most(&party, of_new);
        let turned = of_owner().filter(|(_, node)| node.capped != capped);
        for id in turned.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.capped = capped;
                self.refresh(&id);
            }
        }
    }

    /// Puts a node into, or takes it out of, the sets of free nodes.
    fn refresh(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        for (at, model) in node.models.iter().enumerate() {
            let free = self.free.entry(model.clone()).or_default();
            if node.is_free_for(model) {
                // The first of those that are left is not loaded where the loaded one is withheld.
                let loaded = at == 0 && !node.cold && node.offered.first() == Some(model);
                free.insert(id, loaded, node.standing.referred_by.as_ref());
            } else {
                free.remove(id);
            }
        }
    }
}
