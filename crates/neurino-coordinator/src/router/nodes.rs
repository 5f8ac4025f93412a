//! Free units of nodes, and which of them is the best one for a job.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use neurino_core::{FrontendId, ModelId, NodeId};
use rand::Rng;

use super::conduct::Conduct;
use super::queue::{Placement, Waiting, owner_of};
use super::units::{Needs, Node, Place, Unit};

/// How many free units are compared for one job. A published parameter of the network.
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

/// All units of all nodes.
pub(super) fn units(nodes: &BTreeMap<NodeId, Node>) -> impl Iterator<Item = &Unit> {
    nodes.values().flat_map(|node| &node.units)
}

/// The speeds of the units that served each model, slowest first.
fn sorted(nodes: &BTreeMap<NodeId, Node>) -> BTreeMap<ModelId, Vec<f64>> {
    let mut all = BTreeMap::<ModelId, Vec<f64>>::new();
    for (model, speed) in units(nodes).flat_map(|unit| &unit.speeds) {
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

/// Sets the speed bands of all units anew, each against the median of its model. Returns the greatest
/// speed of each model that several nodes served.
pub(super) fn band_all(nodes: &mut BTreeMap<NodeId, Node>) -> BTreeMap<ModelId, f64> {
    /// How far beyond the border of its band a speed must be to change it.
    const HYSTERESIS: f64 = 0.1;
    let all = sorted(nodes);
    let mut best = BTreeMap::<ModelId, f64>::new();
    for (model, speed) in units(nodes).flat_map(|unit| &unit.speeds) {
        let best = best.entry(model.clone()).or_default();
        *best = best.max(speed.best_per_s);
    }
    let units = nodes.values_mut().flat_map(|node| &mut node.units);
    for (model, speed) in units.flat_map(|unit| &mut unit.speeds) {
        let Some(speeds) = all.get(model) else { continue };
        let median = speeds[speeds.len() / 2];
        let steps = (speed.units_per_s / median).ln() / 1.25_f64.ln();
        if steps.is_finite() && (steps - f64::from(speed.band)).abs() > 0.5 + HYSTERESIS {
            speed.band = steps.round().clamp(-2.0, 2.0) as i8;
        }
    }
    // What one machine alone does, however many cards it has, is no measure for others.
    let serve = |model: &ModelId| {
        let timed = |node: &&Node| node.units.iter().any(|unit| unit.speeds.contains_key(model));
        nodes.values().filter(timed).nth(1).is_some()
    };
    best.retain(|model, _| serve(model));
    best
}

/// Places with random choice, insertion and removal in constant time, nearly.
#[derive(Debug, Default)]
pub(super) struct PlaceSet {
    all: Vec<Place>,
    at: BTreeMap<Place, usize>,
}

impl PlaceSet {
    fn insert(&mut self, place: &Place) {
        if !self.at.contains_key(place) {
            self.at.insert(place.clone(), self.all.len());
            self.all.push(place.clone());
        }
    }

    fn remove(&mut self, place: &Place) {
        let Some(at) = self.at.remove(place) else { return };
        self.all.swap_remove(at);
        if let Some(moved) = self.all.get(at) {
            self.at.insert(moved.clone(), at);
        }
    }

    /// The allowed ones of a sample, or all allowed ones if the sample has none.
    pub(super) fn sample(
        &self,
        sample: Sample,
        allowed: impl Fn(&Place) -> bool,
        rng: &mut impl Rng,
    ) -> Vec<&Place> {
        if let Sample::BestOf(most) = sample
            && self.all.len() > most.get()
        {
            let drawn = rand::seq::index::sample(rng, self.all.len(), most.get());
            let drawn: Vec<&Place> =
                drawn.iter().map(|at| &self.all[at]).filter(|place| allowed(place)).collect();
            if !drawn.is_empty() {
                return drawn;
            }
        }
        self.all.iter().filter(|place| allowed(place)).collect()
    }
}

/// Units with a free slot, all of them and by the frontend that referred them.
#[derive(Debug, Default)]
struct Idle {
    all: PlaceSet,
    referred: BTreeMap<FrontendId, PlaceSet>,
}

/// Units with a free slot for one model.
#[derive(Debug, Default)]
pub(super) struct Free {
    /// Those that have it loaded.
    warm: Idle,
    /// Those that have it on disk.
    cold: Idle,
}

impl Free {
    pub(super) fn any(&self) -> bool {
        !self.warm.all.all.is_empty() || !self.cold.all.all.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any()
    }

    pub(super) fn insert(&mut self, place: &Place, warm: bool, referred_by: Option<&FrontendId>) {
        let idle = if warm { &mut self.warm } else { &mut self.cold };
        idle.all.insert(place);
        if let Some(frontend) = referred_by {
            idle.referred.entry(frontend.clone()).or_default().insert(place);
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        for idle in [&mut self.warm, &mut self.cold] {
            idle.all.remove(place);
            idle.referred.retain(|_, places| {
                places.remove(place);
                !places.all.is_empty()
            });
        }
    }

    /// Those that have the model loaded.
    fn loaded(&self) -> &PlaceSet {
        &self.warm.all
    }

    /// Candidates in the order of the first two keys: loaded before stored, and of either those that
    /// the job's frontend referred before others.
    pub(super) fn groups(&self, frontend: Option<&FrontendId>) -> impl Iterator<Item = &PlaceSet> {
        [&self.warm, &self.cold].into_iter().flat_map(move |idle| {
            let referred = frontend.and_then(|frontend| idle.referred.get(frontend));
            referred.into_iter().chain([&idle.all])
        })
    }
}

/// Machines of one owner that are asked for a job in turn; then others come first, as if all of that owner's
/// had been asked.
const OF_ONE_OWNER: usize = 2;

/// Chooses a free unit: of an owner that was not asked yet, then one of a node that was not, then any, each by
/// the order; never one of a node that cannot read the model. What failed lately or was asked before is asked
/// only where no other node serves the model.
pub(super) fn place(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    needs: &Needs,
    conduct: &Conduct,
    sample: Sample,
    rng: &mut impl Rng,
) -> Option<Place> {
    let able_at = |id: &NodeId, node: &Node, at: usize| {
        let placed =
            |place: &Arc<Placement>| place.allows(id, &node.units[at].class, node.standing.scores);
        !node.is_in_the_way(at, &waiting.model, needs)
            && waiting.placement.as_ref().is_none_or(placed)
            && !waiting.unable.contains(id)
    };
    let able = |place: &Place| {
        let node = nodes.get(&place.node);
        let found = node.and_then(|node| Some((node, node.at(place.unit)?)));
        found.is_some_and(|(node, at)| able_at(&place.node, node, at))
    };
    let asked_of = |id: &NodeId| {
        let asked = waiting.tried.iter().chain(&waiting.unable);
        asked.filter(|other| owner_of(other) == owner_of(id)).count()
    };
    let good = |id: &NodeId| !waiting.tried.contains(id) && !conduct.is_shunned(id);
    let fresh = |place: &Place| good(&place.node) && asked_of(&place.node) == 0 && able(place);
    if let Some(place) = best(nodes, free, waiting, sample, fresh, rng) {
        return Some(place);
    }
    let other =
        |place: &Place| good(&place.node) && asked_of(&place.node) < OF_ONE_OWNER && able(place);
    if !waiting.tried.is_empty()
        && let Some(place) = best(nodes, free, waiting, sample, other, rng)
    {
        return Some(place);
    }
    let place = best(nodes, free, waiting, sample, able, rng)?;
    // Only nodes that failed, at it or lately, are free: worth waiting if another one serves the model.
    let another = |(id, node): (&NodeId, &Node)| {
        let serves = |at: usize| node.units[at].serves(&waiting.model) && able_at(id, node, at);
        !node.resting
            && good(id)
            && asked_of(id) < OF_ONE_OWNER
            && (0..node.units.len()).any(serves)
    };
    (!nodes.iter().any(another)).then_some(place)
}

/// Chooses a free unit for a job that another node works on already.
pub(super) fn second(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    (needs, conduct): (&Needs, &Conduct),
    sample: Sample,
    allowed: impl Fn(&NodeId) -> bool,
    rng: &mut impl Rng,
) -> Option<Place> {
    let may = |place: &Place| {
        let id = &place.node;
        let asked = waiting.tried.contains(id) || waiting.unable.contains(id);
        let begins = |node: &Node| {
            let at = node.at(place.unit);
            at.is_some_and(|at| !node.is_in_the_way(at, &waiting.model, needs))
        };
        allowed(id) && !asked && !conduct.is_shunned(id) && nodes.get(id).is_some_and(begins)
    };
    let drawn = free.loaded().sample(sample, may, rng);
    first(nodes, drawn, &waiting.model)
}

fn best(
    nodes: &BTreeMap<NodeId, Node>,
    free: &Free,
    waiting: &Waiting,
    sample: Sample,
    allowed: impl Fn(&Place) -> bool,
    rng: &mut impl Rng,
) -> Option<Place> {
    free.groups(waiting.frontend.as_ref()).find_map(|group| {
        let drawn = group.sample(sample, &allowed, rng);
        first(nodes, drawn, &waiting.model)
    })
}

/// The first of some by the order.
fn first(nodes: &BTreeMap<NodeId, Node>, drawn: Vec<&Place>, model: &ModelId) -> Option<Place> {
    let ranks = drawn.into_iter().filter_map(|place| nodes.get(&place.node)?.rank(place, model));
    ranks.min().map(|(.., place)| place.clone())
}
