//! Free nodes, and which of them is the best one for a job.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use neurino_core::{FrontendId, ModelId, NodeId};
use rand::Rng;

use super::conduct::Conduct;
use super::queue::{Placement, Waiting, owner_of};

/// How many free nodes are compared for one job. A published parameter of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The best of so many random ones, so that work spreads over a large network.
    BestOf(NonZeroUsize),
    /// The best of all: the strict order.
    All,
}

impl Default for Sample {
    /// The best of three.
    fn default() -> Self {
        Self::BestOf(NonZeroUsize::new(3).expect("three is not zero"))
    }
}

/// What the order of nodes looks at besides their models. Bands, not raw figures: otherwise the first
/// key that differs would always decide, and the later ones never.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Memory of the device that computes, in bytes; zero if unknown.
    pub(crate) memory_bytes: u64,
    /// The frontend whose user set the node up.
    pub(crate) referred_by: Option<FrontendId>,
    /// Votes for it.
    pub(crate) votes: u64,
    /// Tenths of the last thirty days in which it was connected, 0 to 10.
    pub(crate) uptime_tenths: u8,
    /// What its results can be compared with bit by bit: names its program and device.
    pub(crate) class: String,
    /// Whether it scores claimed texts, and names the tokens of its own.
    pub(crate) scores: bool,
}

impl Standing {
    /// Doublings of the votes, at most four.
    fn vote_band(&self) -> u32 {
        self.votes.saturating_add(1).ilog2().min(4)
    }
}

/// How fast a node serves a model, timed by the coordinator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    /// Cost units a second, smoothed.
    units_per_s: f64,
    /// The most of them, forgotten slowly: alone on a card a job is faster than beside others.
    best_per_s: f64,
    /// Against the others that serve the model, -2 to 2; each step is a quarter more.
    band: i8,
}

/// How long a node takes to the first words of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Begin {
    /// Milliseconds for a short prompt, smoothed.
    ms: f64,
    /// How often it was timed.
    times: u32,
}

/// A connected node.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each keeps it from jobs by itself")]
pub(super) struct Node {
    /// The loaded one first.
    pub(super) models: Vec<ModelId>,
    /// What it announced: the same, and what is withheld from it.
    pub(super) offered: Vec<ModelId>,
    /// Whether not even that one is loaded.
    pub(super) cold: bool,
    pub(super) slots: u32,
    pub(super) busy: u32,
    /// The model whose job it is held free for: until it has nothing else to do, it gets nothing.
    pub(super) reserved: Option<ModelId>,
    /// Whether it rests because it handed jobs back.
    pub(super) resting: bool,
    /// Whether its owner, whom nobody knows yet, holds as many jobs as it may.
    pub(super) capped: bool,
    /// Whether nobody would hear of a job for it now: it asks again later.
    pub(super) parked: bool,
    /// How many of its attempts failed lately, as a band.
    pub(super) fault_band: u32,
    /// Turn in which it was last given a job.
    pub(super) last_served: u64,
    pub(super) standing: Standing,
    pub(super) speeds: BTreeMap<ModelId, Speed>,
    pub(super) begins: BTreeMap<ModelId, Begin>,
}

/// Position in the order, best first: few failures, speed, votes, uptime, then whoever has less to do, was served
/// longer ago, and at last the id.
pub(super) type Rank<'a> = (u32, Reverse<i8>, Reverse<u32>, Reverse<u8>, u32, u64, &'a NodeId);

impl Node {
    pub(super) fn rank<'a>(&self, id: &'a NodeId, model: &ModelId) -> Rank<'a> {
        let speed = self.speeds.get(model).map_or(0, |speed| speed.band);
        let standing = &self.standing;
        (
            self.fault_band,
            Reverse(speed),
            Reverse(standing.vote_band()),
            Reverse(standing.uptime_tenths),
            self.busy,
            self.last_served,
            id,
        )
    }

    /// Whether a model that needs so many bytes cannot be loaded beside what the node works with now. Its job
    /// would wait there for the others, and its time would run.
    pub(super) fn is_in_the_way(&self, model: &ModelId, need_bytes: u64) -> bool {
        let loaded = self.models.first() == Some(model) && !self.cold;
        let memory_bytes = self.standing.memory_bytes;
        !loaded && self.busy > 0 && memory_bytes > 0 && need_bytes > memory_bytes / 2
    }

    /// Whether it takes a job on a model now.
    pub(super) fn is_free_for(&self, model: &ModelId) -> bool {
        let held = self.reserved.as_ref().is_some_and(|held| held != model || self.busy > 0);
        self.busy < self.slots && !held && !self.resting && !self.capped && !self.parked
    }

    /// Whether a model is in its memory.
    pub(super) fn has_loaded(&self, model: &ModelId) -> bool {
        self.offered.first() == Some(model) && !self.cold
    }

    /// Notes how long the first words of an answer took.
    pub(super) fn began(&mut self, model: &ModelId, ms: f64) {
        /// Weight of the newest job.
        const NEW: f64 = 0.2;
        let begin = self.begins.entry(model.clone()).or_insert(Begin { ms, times: 0 });
        begin.ms += NEW * (ms - begin.ms);
        begin.times = begin.times.saturating_add(1);
    }

    /// How long they usually take, once they were timed a few times.
    pub(super) fn begins_after(&self, model: &ModelId) -> Option<f64> {
        /// What one or two jobs took says little.
        const TIMES_MIN: u32 = 3;
        self.begins.get(model).filter(|begin| begin.times >= TIMES_MIN).map(|begin| begin.ms)
    }

    /// How fast it serves a model, in cost units a second, if it was timed.
    pub(super) fn speed(&self, model: &ModelId) -> Option<f64> {
        self.speeds.get(model).map(|speed| speed.units_per_s)
    }

    /// Notes how fast a job was served.
    pub(super) fn timed(&mut self, model: &ModelId, units_per_s: f64, suspect: bool) {
        /// Weight of the newest job.
        const NEW: f64 = 0.2;
        /// What is left of the best speed after a job.
        const KEPT: f64 = 0.998;
        let new = Speed { units_per_s, best_per_s: 0.0, band: 0 };
        let speed = self.speeds.entry(model.clone()).or_insert(new);
        speed.units_per_s += NEW * (units_per_s - speed.units_per_s);
        let best = if suspect { 0.0 } else { units_per_s };
        // The smoothed speed catches up with a card that truly is new.
        speed.best_per_s = (KEPT * speed.best_per_s).max(best).max(speed.units_per_s);
    }
}

/// The speeds of the nodes that served each model, slowest first.
fn sorted(nodes: &BTreeMap<NodeId, Node>) -> BTreeMap<ModelId, Vec<f64>> {
    let mut all = BTreeMap::<ModelId, Vec<f64>>::new();
    for (model, speed) in nodes.values().flat_map(|node| &node.speeds) {
        all.entry(model.clone()).or_default().push(speed.units_per_s);
    }
    for speeds in all.values_mut() {
        speeds.sort_by(f64::total_cmp);
    }
    all
}

/// The middle one of the speeds of each model.
pub(super) fn medians(nodes: &BTreeMap<NodeId, Node>) -> BTreeMap<ModelId, f64> {
    sorted(nodes).into_iter().map(|(model, speeds)| (model, speeds[speeds.len() / 2])).collect()
}

/// Sets the speed bands of all nodes anew, each against the median of its model. Returns the greatest
/// speed of each model that several nodes served.
pub(super) fn band_all(nodes: &mut BTreeMap<NodeId, Node>) -> BTreeMap<ModelId, f64> {
    /// How far beyond the border of its band a speed must be to change it.
    const HYSTERESIS: f64 = 0.1;
    let all = sorted(nodes);
    let mut best = BTreeMap::<ModelId, f64>::new();
    for (model, speed) in nodes.values().flat_map(|node| &node.speeds) {
        let best = best.entry(model.clone()).or_default();
        *best = best.max(speed.best_per_s);
    }
    for (model, speed) in nodes.values_mut().flat_map(|node| &mut node.speeds) {
        let Some(speeds) = all.get(model) else { continue };
        let median = speeds[speeds.len() / 2];
        let steps = (speed.units_per_s / median).ln() / 1.25_f64.ln();
        if steps.is_finite() && (steps - f64::from(speed.band)).abs() > 0.5 + HYSTERESIS {
            speed.band = steps.round().clamp(-2.0, 2.0) as i8;
        }
    }
    best.retain(|model, _| all.get(model).is_some_and(|speeds| speeds.len() > 1));
    best
}

/// Node ids with random choice, insertion and removal in constant time, nearly.
#[derive(Debug, Default)]
pub(super) struct IdSet {
    ids: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
}

impl IdSet {
    fn insert(&mut self, id: &NodeId) {
        if !self.places.contains_key(id) {
            self.places.insert(id.clone(), self.ids.len());
            self.ids.push(id.clone());
        }
    }

    fn remove(&mut self, id: &NodeId) {
        let Some(place) = self.places.remove(id) else { return };
        self.ids.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(moved.clone(), place);
        }
    }

    /// The allowed ones of a sample, or all allowed ones if the sample has none.
    pub(super) fn sample(
        &self,
        sample: Sample,
        allowed: impl Fn(&NodeId) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<&NodeId> {
        if let Sample::BestOf(most) = sample
            && self.ids.len() > most.get()
        {
            let drawn = rand::seq::index::sample(rng, self.ids.len(), most.get());
            let drawn: Vec<&NodeId> =
                drawn.iter().map(|at| &self.ids[at]).filter(|id| allowed(id)).collect();
            if !drawn.is_empty() {
                return drawn;
            }
        }
        self.ids.iter().filter(|id| allowed(id)).collect()
    }
}

/// Nodes with a free slot, all of them and by the frontend that referred them.
#[derive(Debug, Default)]
struct Idle {
    all: IdSet,
    referred: BTreeMap<FrontendId, IdSet>,
}

/// Nodes with a free slot for one model.
#[derive(Debug, Default)]
pub(super) struct Free {
    /// Those that have it loaded.
    warm: Idle,
    /// Those that have it on disk.
    cold: Idle,
}

impl Free {
    pub(super) fn any(&self) -> bool {
        !self.warm.all.ids.is_empty() || !self.cold.all.ids.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any()
    }

    pub(super) fn insert(&mut self, id: &NodeId, warm: bool, referred_by: Option<&FrontendId>) {
        let idle = if warm { &mut self.warm } else { &mut self.cold };
        idle.all.insert(id);
        if let Some(frontend) = referred_by {
            idle.referred.entry(frontend.clone()).or_default().insert(id);
        }
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        for idle in [&mut self.warm, &mut self.cold] {
            idle.all.remove(id);
            idle.referred.retain(|_, ids| {
                ids.remove(id);
                !ids.ids.is_empty()
            });
        }
    }

    /// Those that have the model loaded.
    fn loaded(&self) -> &IdSet {
        &self.warm.all
    }

    /// Candidates in the order of the first two keys: loaded before stored, and of either those that
    /// the job's frontend referred before others.
    pub(super) fn groups(&self, frontend: Option<&FrontendId>) -> impl Iterator<Item = &IdSet> {
        [&self.warm, &self.cold].into_iter().flat_map(move |idle| {
            let referred = frontend.and_then(|frontend| idle.referred.get(frontend));
            referred.into_iter().chain([&idle.all])
        })
    }
}

/// Machines of one owner that are asked for a job in turn; then others come first, as if all of that owner's
/// had been asked.
const OF_ONE_OWNER: usize = 2;

/// Chooses a free node: of an owner that was not asked yet, then one that was not, then any, each by the
/// order; never one that cannot read the model. What failed lately or was asked before is asked only where
/// no other node serves the model.
pub(super) fn place(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    need_bytes: u64,
    conduct: &Conduct,
    sample: Sample,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    let able = |id: &NodeId| {
        if nodes.get(id).is_some_and(|node| node.is_in_the_way(&waiting.model, need_bytes)) {
            return false;
        }
        let standing = |id| nodes.get(id).map(|node| &node.standing);
        let placed = |place: &Arc<Placement>| standing(id).is_some_and(|s| place.allows(id, s));
        waiting.placement.as_ref().is_none_or(placed) && !waiting.unable.contains(id)
    };
    let asked_of = |id: &NodeId| {
        let asked = waiting.tried.iter().chain(&waiting.unable);
        asked.filter(|other| owner_of(other) == owner_of(id)).count()
    };
    let good = |id: &NodeId| !waiting.tried.contains(id) && !conduct.is_shunned(id);
    let fresh = |id: &NodeId| good(id) && asked_of(id) == 0 && able(id);
    if let Some(id) = best(nodes, free, waiting, sample, fresh, rng) {
        return Some(id);
    }
    let other = |id: &NodeId| good(id) && asked_of(id) < OF_ONE_OWNER && able(id);
    if !waiting.tried.is_empty()
        && let Some(id) = best(nodes, free, waiting, sample, other, rng)
    {
        return Some(id);
    }
    let id = best(nodes, free, waiting, sample, able, rng)?;
    // Only nodes that failed, at it or lately, are free: worth waiting if another one serves the model.
    let another = |(id, node): (&NodeId, &Node)| {
        node.slots > 0
            && !node.resting
            && good(id)
            && able(id)
            && asked_of(id) < OF_ONE_OWNER
            && node.models.contains(&waiting.model)
    };
    (!nodes.iter().any(another)).then_some(id)
}

/// Chooses a free node for a job that another one works on already.
pub(super) fn second(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    conduct: &Conduct,
    sample: Sample,
    allowed: impl Fn(&NodeId) -> bool,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    let may = |id: &NodeId| {
        let asked = waiting.tried.contains(id) || waiting.unable.contains(id);
        allowed(id) && !asked && !conduct.is_shunned(id)
    };
    let drawn = free.loaded().sample(sample, may, rng).into_iter();
    let ranked = drawn.filter_map(|id| Some((nodes.get(id)?.rank(id, &waiting.model), id)));
    ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, id)| id.clone())
}

fn best(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    sample: Sample,
    allowed: impl Fn(&NodeId) -> bool,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    free.groups(waiting.frontend.as_ref()).find_map(|group| {
        let drawn = group.sample(sample, &allowed, rng).into_iter();
        let ranked = drawn.filter_map(|id| Some((nodes.get(id)?.rank(id, &waiting.model), id)));
        ranked.min_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, id)| id.clone())
    })
}
