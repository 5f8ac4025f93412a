//! Which node gets which job: in memory, pure, no clock.
//!
//! A job goes to a unit of a node that serves its model and did not fail at it: filter. Of
//! those that are free a few are drawn at random: [`Sample`]. The best of them by the network's order
//! gets it (`nodes`): model loaded, referred by the job's frontend, speed, votes, uptime. What a unit is,
//! and what its work means for others of the same node, is in `units`; what somebody did or is counts for
//! all of a node. Which job is next is decided by `queue`, fair between classes and between payers.

mod conduct;
mod index;
mod nodes;
mod queue;
#[cfg(test)]
mod tests;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{JobId, ModelId, NodeId};
use neurino_ledger::PayerId;
use neurino_protocol::node::{NoJob, SkipCount, SkipReason};
use rand::Rng;
use tokio::time::Instant;

pub use nodes::Sample;
pub use queue::JobClass;
pub(crate) use queue::{
    KnownAnswer, OTHER_ENGINE, Placement, Waiting, is_other_engine, owner_of, party_of,
};

pub(crate) use units::{Announced, Place, Standing};

use crate::advice::Seen;
use crate::books::UnitsOverview;
use conduct::Conduct;
use index::Index;
use neurino_protocol::node::unit::{Beside, UnitKind};
use nodes::Free;
use queue::Queues;
use units::{Needs, Node, Unit};

/// Most reasons told to a node that gets no job.
const REASONS_MAX: usize = 4;

/// The router's memory.
#[derive(Debug, Default)]
pub(crate) struct Router {
    queues: Queues,
    nodes: BTreeMap<NodeId, Node>,
    free: BTreeMap<ModelId, Free>,
    /// Who they are of, by model and by numeric class.
    index: Index,
    /// Memory that a node usually needs for a model, in bytes, where the network knows: for what nodes
    /// are told. One that serves a model is believed that it can.
    needs: Needs,
    /// Models that may be computed on a part of a card, beside strangers' work.
    shareable: BTreeSet<ModelId>,
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
        Self { needs: Needs(needs), sample, ..Self::default() }
    }

    /// The same, where an owner whom nobody knows holds so many jobs at once.
    #[must_use]
    pub(crate) fn with_new_owners_holding(self, most: u32) -> Self {
        // As many as there are is no limit, and nothing to count for.
        Self { of_new: (most < u32::MAX).then_some(most), ..self }
    }

    /// Says which models may be computed on a part of a card; whether that changed.
    pub(crate) fn set_shareable(&mut self, shareable: BTreeSet<ModelId>) -> bool {
        if self.shareable == shareable {
            return false;
        }
        self.shareable = shareable;
        let slices =
            |node: &Node| node.units.iter().any(|unit| matches!(unit.kind, UnitKind::Slice { .. }));
        let sliced = self.nodes.iter().filter(|(_, node)| slices(node));
        for id in sliced.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.set_again(&id);
        }
        true
    }

    /// Sets what a connected node can take, with the leases that it holds.
    pub(crate) fn set_node(&mut self, id: &NodeId, units: Vec<Announced>, standing: Standing) {
        let before = self.take_node(id).unwrap_or_default();
        let Node { units: known, capped, .. } = before;
        let mut known: Vec<Option<Unit>> = known.into_iter().map(Some).collect();
        let withheld = self.withheld.get(id);
        let units = units.into_iter().map(|unit| {
            let apart = !matches!(unit.kind, UnitKind::Slice { .. });
            let given = |model: &&ModelId| {
                withheld.is_none_or(|all| !all.contains(*model))
                    && (apart || self.shareable.contains(*model))
            };
            let models = unit.models.iter().filter(given).cloned().collect();
            let same = |known: &&mut Option<Unit>| known.as_ref().is_some_and(|k| k.id == unit.id);
            let before = known.iter_mut().find(same).and_then(Option::take);
            Unit::new(unit, models, &standing.class, before)
        });
        let units = units.collect();
        let (resting, fault_band) = (self.conduct.is_resting(id), self.conduct.fault_band(id));
        let node = Node { units, resting, capped, parked: false, fault_band, standing };
        self.index.insert(id, &node);
        self.nodes.insert(id.clone(), node);
        self.refresh(id);
        self.owner_changed(id);
    }

    /// Sets a node as it was set before, after something else changed.
    fn set_again(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let units = node.units.iter().map(Unit::announced).collect();
        let (parked, standing) = (node.parked, node.standing.clone());
        self.set_node(id, units, standing);
        if parked {
            self.park(id);
        }
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
        if changed {
            self.set_again(id);
        }
    }

    /// What a connected node announced, whatever of it is withheld.
    pub(crate) fn offered(&self, id: &NodeId) -> impl Iterator<Item = &ModelId> {
        let units = self.nodes.get(id).into_iter().flat_map(|node| &node.units);
        units.flat_map(|unit| &unit.offered).collect::<BTreeSet<_>>().into_iter()
    }

    fn is_large_enough(&self, model: &ModelId, unit: &Unit) -> bool {
        unit.memory_bytes == 0 || unit.memory_bytes >= self.needs.of(model)
    }

    /// The units of a connected node for those who say what they should load; whether it takes advice is not
    /// known here. A group whose cards are units, too, is left out: what it loads, it loads for a job.
    pub(crate) fn holders(&self, id: &NodeId) -> Vec<Seen> {
        let Some(node) = self.nodes.get(id) else { return Vec::new() };
        let group = |at: usize| matches!(node.units[at].kind, UnitKind::Group { .. });
        let in_the_way = |at: usize| node.beside(at).any(|(.., other)| other == Beside::Excludes);
        let at = (0..node.units.len()).filter(|at| !(group(*at) && in_the_way(*at)));
        at.map(|at| {
            let unit = &node.units[at];
            let fits = |model: &&ModelId| self.is_large_enough(model, unit);
            Seen {
                place: Place::new(id, unit.id),
                slots: unit.slots,
                busy: unit.busy,
                offers: unit.models.iter().filter(fits).cloned().collect(),
                loaded: unit.offered.first().filter(|_| !unit.cold).cloned(),
                advised: false,
            }
        })
        .collect()
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
        for unit in &node.units {
            let place = Place::new(id, unit.id);
            for model in &unit.models {
                let Some(free) = self.free.get_mut(model) else { continue };
                free.remove(&place);
                // Names that nobody serves any more are forgotten: they are free to make up.
                if free.is_empty() {
                    self.free.remove(model);
                }
            }
        }
        self.index.remove(id, &node);
        Some(node)
    }

    /// Frees a slot of a unit, whose job on a model has ended.
    pub(crate) fn lease_ended(&mut self, place: &Place, model: &ModelId) {
        let Some(node) = self.nodes.get_mut(&place.node) else { return };
        if let Some(unit) = node.unit_mut(place.unit) {
            unit.ended(model);
            self.refresh_unit(place);
            self.owner_changed(&place.node);
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
                && !asked(id)
                && Self::may_serve(id, other, model, placement)
        })
    }

    /// Whether a unit of a node serves a model and may compute a job of a placement.
    fn may_serve(id: &NodeId, node: &Node, model: &ModelId, placement: Option<&Placement>) -> bool {
        let allowed = |unit: &Unit| {
            placement.is_none_or(|place| place.allows(id, &unit.class, node.standing.scores))
        };
        node.units.iter().any(|unit| unit.serves(model) && allowed(unit))
    }

    fn unit(&self, place: &Place) -> Option<&Unit> {
        self.nodes.get(&place.node)?.unit(place.unit)
    }

    fn unit_mut(&mut self, place: &Place) -> Option<&mut Unit> {
        self.nodes.get_mut(&place.node)?.unit_mut(place.unit)
    }

    /// What the results of a unit can be compared with bit by bit.
    pub(crate) fn class_of(&self, place: &Place) -> Option<&str> {
        self.unit(place).map(|unit| &*unit.class)
    }

    /// The same of all units of a node.
    pub(crate) fn classes(&self, id: &NodeId) -> impl Iterator<Item = &str> {
        self.nodes.get(id).into_iter().flat_map(|node| &node.units).map(|unit| &*unit.class)
    }

    /// How many leases each unit of a node holds.
    #[cfg(test)]
    pub(crate) fn busy_units(&self, id: &NodeId) -> BTreeMap<Option<neurino_core::UnitId>, u32> {
        let units = self.nodes.get(id).into_iter().flat_map(|node| &node.units);
        units.map(|unit| (unit.id, unit.busy)).collect()
    }

    /// Units of all connected nodes by kind.
    pub(crate) fn units_by_kind(&self) -> BTreeMap<&'static str, UnitsOverview> {
        let mut kinds = BTreeMap::<_, UnitsOverview>::new();
        for unit in nodes::units(&self.nodes) {
            let kind = kinds.entry(unit.kind.as_str()).or_default();
            kind.units += 1;
            kind.slots += unit.slots as usize;
            kind.busy += unit.busy as usize;
        }
        kinds
    }

    /// Notes how fast a unit served a job: the work that was done, in the units of [`Waiting::cost`],
    /// and milliseconds. A suspect one is no measure for others yet.
    pub(crate) fn timed(
        &mut self,
        place: &Place,
        model: &ModelId,
        units: u64,
        duration_ms: u64,
        suspect: bool,
    ) {
        if let Some(unit) = self.unit_mut(place) {
            unit.timed(model, units as f64 * 1000.0 / duration_ms.max(1) as f64, suspect);
        }
    }

    /// Notes how long a unit took to the first words of an answer, in milliseconds for a short prompt.
    pub(crate) fn began(&mut self, place: &Place, model: &ModelId, ms: f64) {
        if let Some(unit) = self.unit_mut(place) {
            unit.began(model, ms);
        }
    }

    /// How long a unit usually takes to them; of one that was not timed, how long the middle one does.
    pub(crate) fn begins_after(&self, place: &Place, model: &ModelId) -> Option<f64> {
        let own = self.unit(place).and_then(|unit| unit.begins_after(model));
        own.or_else(|| {
            let units = nodes::units(&self.nodes);
            let mut all: Vec<f64> = units.filter_map(|unit| unit.begins_after(model)).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        })
    }

    /// Whether a unit has a model in memory.
    pub(crate) fn has_loaded(&self, place: &Place, model: &ModelId) -> bool {
        self.unit(place).is_some_and(|unit| unit.has_loaded(model))
    }

    /// Whether a free unit of a node that was not asked yet has a model in memory and may compute a job.
    pub(crate) fn another_could_begin(
        &self,
        model: &ModelId,
        asked: impl Fn(&NodeId) -> bool,
        placement: Option<&Placement>,
    ) -> bool {
        self.nodes.iter().any(|(id, node)| {
            let begins = |at: usize| {
                let unit = &node.units[at];
                let scores = node.standing.scores;
                unit.has_loaded(model)
                    && node.would_begin(at, model, &self.needs)
                    && placement.is_none_or(|place| place.allows(id, &unit.class, scores))
            };
            !asked(id) && (0..node.units.len()).any(begins)
        })
    }

    /// Sets the speed bands of all units anew.
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
        self.index.serving(model)
    }

    /// Whether a connected node serves a model, besides some.
    pub(crate) fn serves_besides(&self, model: &ModelId, besides: &[NodeId]) -> bool {
        self.serving(model) > besides.len()
            || (self.index.owners_serving(model).flat_map(|party| self.nodes_of(party)))
                .any(|(id, node)| node.serves(model) && !besides.contains(id))
    }

    /// Whether a connected node serves a model and may compute a job of this placement.
    pub(crate) fn serves_placed(&self, model: &ModelId, placement: &Placement) -> bool {
        let may = |(id, node): (&NodeId, &Node)| Self::may_serve(id, node, model, Some(placement));
        if let Some(only) = &placement.only {
            return only.iter().filter_map(|id| self.nodes.get_key_value(id)).any(may);
        }
        let others = |party: &&NodeId| !placement.not_owners.iter().any(|o| o == party.as_str());
        let mut may = |party| self.nodes_of(party).any(may);
        match &placement.class {
            Some(class) => self.index.owners_of_class(class).filter(others).any(&mut may),
            None => self.index.owners_serving(model).filter(others).any(may),
        }
    }

    /// Owners with a unit of a numeric class, as far as their nodes have said what they take.
    pub(crate) fn owners_of_class(&self, class: &str) -> usize {
        self.index.owners_of_class(class).count()
    }

    /// The nodes of an owner.
    fn nodes_of<'a>(&'a self, party: &'a NodeId) -> impl Iterator<Item = (&'a NodeId, &'a Node)> {
        self.nodes.range(party..).take_while(move |(id, _)| owner_of(id) == party.as_str())
    }

    /// The class of a unit of a node that would begin a job on a model now, if one would.
    pub(crate) fn class_free_for(&self, id: &NodeId, model: &ModelId) -> Option<&str> {
        let node = self.nodes.get(id)?;
        let at = (0..node.units.len()).find(|at| node.would_begin(*at, model, &self.needs))?;
        Some(&node.units[at].class)
    }

    /// Models that a connected node serves.
    pub(crate) fn served(&self) -> impl Iterator<Item = &ModelId> {
        self.index.models()
    }

    /// How many jobs of a class wait.
    pub(crate) fn depth(&self, class: JobClass) -> usize {
        self.queues.depth(class)
    }

    /// The next job and its place; takes the job from its queue and a slot from the unit.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Option<(Waiting, Place)> {
        let Self { queues, nodes, free, needs, sample, conduct, .. } = self;
        if queues.is_empty() {
            return None;
        }
        let open = |model: &ModelId| free.get(model).is_some_and(Free::any);
        let (waiting, place) = queues.take(open, |waiting| {
            let free = free.get(&waiting.model)?;
            nodes::place(nodes, free, waiting, needs, conduct, *sample, rng)
        })?;
        if let Some(unit) = self.unit_mut(&place) {
            unit.reserved = None;
        }
        self.take_slot(&place, &waiting.model);
        Some((waiting, place))
    }

    /// A second place for a job that is worked on: a free unit that has its model loaded, of a node that was
    /// not asked before, and is allowed. Takes a slot from it.
    pub(crate) fn second(
        &mut self,
        waiting: &Waiting,
        rng: &mut impl Rng,
        allowed: impl Fn(&NodeId) -> bool,
    ) -> Option<Place> {
        let free = self.free.get(&waiting.model)?;
        let Self { nodes, needs, conduct, sample, .. } = &*self;
        let by = (needs, conduct);
        let place = nodes::second(nodes, free, waiting, by, *sample, allowed, rng)?;
        self.take_slot(&place, &waiting.model);
        Some(place)
    }

    fn take_slot(&mut self, place: &Place, model: &ModelId) {
        self.turn += 1;
        let turn = self.turn;
        if let Some(unit) = self.unit_mut(place) {
            unit.take(model, turn);
        }
        self.refresh_unit(place);
        self.owner_changed(&place.node);
    }

    /// How fast a unit serves a model, in cost units a second; of one that was not timed, how fast most
    /// do.
    pub(crate) fn speed(&self, place: &Place, model: &ModelId) -> Option<f64> {
        let own = self.unit(place).and_then(|unit| unit.speed(model));
        own.or_else(|| self.usual.get(model).copied()).filter(|speed| *speed > 0.0)
    }

    /// Whether a job waits for a model.
    pub(crate) fn is_asked_for(&self, model: &ModelId) -> bool {
        self.queues.of_model(model).next().is_some()
    }

    /// Holds a unit free for a model whose jobs wait for long and need a unit of their own: the one that
    /// has the least to do, with those that are in its way, among those that can. One at a time for a model,
    /// and a quarter of all units at most.
    pub(crate) fn reserve(
        &mut self,
        model: &ModelId,
        allowed: impl Fn(&Place) -> bool,
    ) -> Option<Place> {
        let all = nodes::units(&self.nodes).count();
        let held = || nodes::units(&self.nodes).filter_map(|unit| unit.reserved.as_ref());
        let many = held().count();
        if held().any(|held| held == model) || (many > 0 && (many + 1) * 4 > all) {
            return None;
        }
        let mut best: Option<(u32, Place)> = None;
        for (id, node) in &self.nodes {
            for (at, unit) in node.units.iter().enumerate() {
                let mut neighbours = node.beside(at);
                let (mut taken, mut busy) = (unit.reserved.is_some(), 0u32);
                let mut blocked = node.is_in_the_way(at, model, &self.needs);
                for (_, other, beside) in &mut neighbours {
                    taken |= other.reserved.is_some();
                    busy = busy.saturating_add(other.busy);
                    blocked |= other.busy > 0 && beside == Beside::Excludes;
                }
                let place = Place::new(id, unit.id);
                if taken || !blocked || !unit.serves(model) || !allowed(&place) {
                    continue;
                }
                let candidate = (unit.busy.saturating_add(busy), place);
                if best.as_ref().is_none_or(|best| candidate < *best) {
                    best = Some(candidate);
                }
            }
        }
        let (_, place) = best?;
        self.hold(&place, Some(model.clone()));
        Some(place)
    }

    /// Holds a unit free no longer.
    pub(crate) fn unreserve(&mut self, place: &Place) {
        self.hold(place, None);
    }

    /// What a unit is held free for.
    pub(crate) fn reserved(&self, place: &Place) -> Option<&ModelId> {
        self.unit(place)?.reserved.as_ref()
    }

    fn hold(&mut self, place: &Place, model: Option<ModelId>) {
        if let Some(unit) = self.unit_mut(place) {
            unit.reserved = model;
            self.refresh_unit(place);
        }
    }

    /// Why a node gets none of the waiting jobs; `None` if it has no free slot or is not known, so that
    /// nothing is owed to it.
    pub(crate) fn no_job(&self, id: &NodeId) -> Option<NoJob> {
        let node = self.nodes.get(id).filter(|node| !node.parked)?;
        let room = || node.units.iter().filter(|unit| unit.busy < unit.slots);
        room().next()?;
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
            let serves = |unit: &&Unit| unit.models.contains(model);
            if room().any(|unit| serves(&unit)) {
                let scores = node.standing.scores;
                let barred = |w: &Waiting| {
                    let allows = |place: &Placement| {
                        room().filter(serves).any(|unit| place.allows(id, &unit.class, scores))
                    };
                    w.placement.as_ref().is_some_and(|place| !allows(place))
                };
                // Work that checks somebody's work is nobody else's business.
                let failed =
                    |w: &&Waiting| !barred(w) && (w.unable.contains(id) || w.tried.contains(id));
                let failed = self.queues.of_model(model).filter(failed).count();
                add(failed, SkipReason::Failed);
            } else if node.units.iter().any(|unit| serves(&unit)) {
                // Another unit has them to do, and is busy.
            } else if node.units.iter().any(|unit| unit.offered.contains(model)) {
                let withheld = self.withheld.get(id);
                let files = withheld.is_some_and(|withheld| withheld.contains(model));
                let model = model.clone();
                let reason =
                    if files { SkipReason::Files { model } } else { SkipReason::Shared { model } };
                add(jobs, reason);
            } else if node.units.iter().any(|unit| self.is_large_enough(model, unit)) {
                add(jobs, SkipReason::Model { model: model.clone() });
            } else {
                add(jobs, SkipReason::Memory { memory_bytes: self.needs.of(model) });
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
        let of_owner = || self.nodes_of(&party);
        let busy = of_owner().fold(0u32, |sum, (_, node)| sum.saturating_add(node.busy()));
        let capped = busy >= self.conduct.most(&party, of_new);
        let turned = of_owner().filter(|(_, node)| node.capped != capped);
        for id in turned.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.capped = capped;
                self.refresh(&id);
            }
        }
    }

    /// Puts the units of a node into, or takes them out of, the sets of free units.
    fn refresh(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        for at in 0..node.units.len() {
            refresh_at(&mut self.free, id, node, at);
        }
    }

    /// The same for a unit and those that its work means something for.
    fn refresh_unit(&mut self, place: &Place) {
        let Some(node) = self.nodes.get(&place.node) else { return };
        let Some(at) = node.at(place.unit) else { return };
        refresh_at(&mut self.free, &place.node, node, at);
        for (other, ..) in node.beside(at) {
            refresh_at(&mut self.free, &place.node, node, other);
        }
    }
}

fn refresh_at(free: &mut BTreeMap<ModelId, Free>, id: &NodeId, node: &Node, at: usize) {
    let unit = &node.units[at];
    let place = Place::new(id, unit.id);
    for model in &unit.models {
        let free = free.entry(model.clone()).or_default();
        if node.is_free_for(at, model) {
            free.insert(&place, unit.has_loaded(model), node.standing.referred_by.as_ref());
        } else {
            free.remove(&place);
        }
    }
}
