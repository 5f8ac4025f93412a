//! Nodes and their units, as the router knows them: what each takes, holds and has been timed at, and which
//! of them can work beside which.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{FrontendId, ModelId, NodeId, UnitId};
use neurino_protocol::node::unit::{Beside, UnitKind};

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
    pub(super) units_per_s: f64,
    /// The most of them, forgotten slowly: alone on a card a job is faster than beside others.
    pub(super) best_per_s: f64,
    /// Against the others that serve the model, -2 to 2; each step is a quarter more.
    pub(super) band: i8,
}

/// How long a node takes to the first words of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Begin {
    /// Milliseconds for a short prompt, smoothed.
    ms: f64,
    /// How often it was timed.
    times: u32,
}

/// Where a job can go: a unit of a node. A node that announced none is one, without a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) unit: Option<UnitId>,
}

impl Place {
    pub(crate) fn new(node: &NodeId, unit: Option<UnitId>) -> Self {
        Self { node: node.clone(), unit }
    }
}

/// What a node says of a unit, and what is known of it besides.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) id: Option<UnitId>,
    pub(crate) kind: UnitKind,
    /// Zero if unknown.
    pub(crate) memory_bytes: u64,
    /// What its results can be compared with bit by bit, if not with those of the node as one.
    pub(crate) class: Option<String>,
    /// The loaded one first.
    pub(crate) models: Vec<ModelId>,
    pub(crate) slots: u32,
    /// Whether not even the first of them is loaded.
    pub(crate) cold: bool,
    /// Models of the leases it holds, one for each.
    pub(crate) running: Vec<ModelId>,
}

impl Announced {
    /// All of a node, as one.
    pub(crate) fn node(models: Vec<ModelId>, slots: u32, memory_bytes: u64) -> Self {
        Self {
            id: None,
            kind: UnitKind::Whole { card: 0 },
            memory_bytes,
            class: None,
            models,
            slots,
            cold: false,
            running: Vec::new(),
        }
    }
}

/// A part of a node that takes jobs by itself.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) id: Option<UnitId>,
    pub(super) kind: UnitKind,
    /// Zero if unknown.
    pub(super) memory_bytes: u64,
    pub(super) class: String,
    /// The loaded one first.
    pub(super) models: Vec<ModelId>,
    /// What it announced: the same, and what it gets no jobs for.
    pub(super) offered: Vec<ModelId>,
    /// Whether not even that one is loaded.
    pub(super) cold: bool,
    pub(super) slots: u32,
    /// How many leases it holds, and of which models.
    pub(super) busy: u32,
    pub(super) running: BTreeMap<ModelId, u32>,
    /// The model whose job it is held free for: until it has nothing else to do, it gets nothing.
    pub(super) reserved: Option<ModelId>,
    /// Turn in which it was last given a job.
    pub(super) last_served: u64,
    pub(super) speeds: BTreeMap<ModelId, Speed>,
    pub(super) begins: BTreeMap<ModelId, Begin>,
}

/// A connected node: what its units have in common.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) units: Vec<Unit>,
    /// Whether it rests because it handed jobs back.
    pub(super) resting: bool,
    /// Whether its owner, whom nobody knows yet, holds as many jobs as it may.
    pub(super) capped: bool,
    /// Whether nobody would hear of a job for it now: it asks again later.
    pub(super) parked: bool,
    /// How many of its attempts failed lately, as a band.
    pub(super) fault_band: u32,
    pub(super) standing: Standing,
}

/// Position in the order, best first: few failures, speed, votes, uptime, then whoever stands in fewer other
/// units' way, has less to do, was served longer ago, and at last the name.
pub(super) type Rank<'a> =
    (u32, Reverse<i8>, Reverse<u32>, Reverse<u8>, (usize, u32, u64), &'a Place);

impl Node {
    /// Where a unit stands among the others.
    pub(super) fn at(&self, unit: Option<UnitId>) -> Option<usize> {
        self.units.iter().position(|known| known.id == unit)
    }

    pub(super) fn unit(&self, unit: Option<UnitId>) -> Option<&Unit> {
        self.units.iter().find(|known| known.id == unit)
    }

    pub(super) fn unit_mut(&mut self, unit: Option<UnitId>) -> Option<&mut Unit> {
        self.units.iter_mut().find(|known| known.id == unit)
    }

    /// Leases it holds.
    pub(super) fn busy(&self) -> u32 {
        self.units.iter().fold(0, |sum, unit| sum.saturating_add(unit.busy))
    }

    /// Whether it takes jobs at all on a model, now or when others have ended.
    pub(super) fn serves(&self, model: &ModelId) -> bool {
        self.units.iter().any(|unit| unit.serves(model))
    }

    /// The models that it takes jobs on, each once.
    pub(super) fn served(&self) -> BTreeSet<&ModelId> {
        self.units.iter().filter(|unit| unit.slots > 0).flat_map(|unit| &unit.models).collect()
    }

    /// The numeric classes of its units, each once.
    pub(super) fn classes(&self) -> BTreeSet<&str> {
        self.units.iter().map(|unit| &*unit.class).collect()
    }

    /// Other units that a unit's work means something for.
    pub(super) fn beside(&self, at: usize) -> impl Iterator<Item = (usize, &Unit, Beside)> {
        let kind = &self.units[at].kind;
        let others = self.units.iter().enumerate().filter(move |(other, _)| *other != at);
        others.filter_map(move |(other, unit)| match kind.beside(&unit.kind) {
            Beside::Apart => None,
            beside => Some((other, unit, beside)),
        })
    }

    pub(super) fn rank<'a>(&self, place: &'a Place, model: &ModelId) -> Option<Rank<'a>> {
        let at = self.at(place.unit)?;
        let unit = &self.units[at];
        let speed = unit.speeds.get(model).map_or(0, |speed| speed.band);
        let standing = &self.standing;
        let blocks = self.beside(at).filter(|(.., beside)| *beside == Beside::Excludes).count();
        Some((
            self.fault_band,
            Reverse(speed),
            Reverse(standing.vote_band()),
            Reverse(standing.uptime_tenths),
            (blocks, unit.busy, unit.last_served),
            place,
        ))
    }

    /// Whether a unit takes a job on a model now, as far as slots tell.
    pub(super) fn is_free_for(&self, at: usize, model: &ModelId) -> bool {
        let unit = &self.units[at];
        let held = unit.reserved.as_ref().is_some_and(|held| held != model || unit.busy > 0);
        // What is held free waits for its neighbours, too.
        let hindered = || {
            self.beside(at).any(|(_, other, beside)| {
                other.reserved.is_some() || (other.busy > 0 && beside == Beside::Excludes)
            })
        };
        let rests = self.resting || self.capped || self.parked;
        unit.busy < unit.slots && !held && !rests && !hindered()
    }

    /// Whether a model cannot be begun beside what is computed there now: it takes so much that its job would
    /// wait inside the node, while its time runs, or the slices of a card would hold more than the card has.
    pub(super) fn is_in_the_way(&self, at: usize, model: &ModelId, needs: &Needs) -> bool {
        let unit = &self.units[at];
        let need_bytes = needs.of(model);
        let large = unit.memory_bytes > 0 && need_bytes > unit.memory_bytes / 2;
        if large && unit.busy > 0 && !unit.has_loaded(model) {
            return true;
        }
        if !matches!(unit.kind, UnitKind::Slice { .. }) {
            return false;
        }
        let others = self.beside(at).filter(|(.., beside)| *beside == Beside::SharesMemory);
        let others = others.fold(0u64, |sum, (_, other, _)| sum.saturating_add(other.held(needs)));
        // A unit holds one model at a time: its own jobs give way to each other.
        others.saturating_add(unit.held(needs).max(need_bytes)) > unit.memory_bytes
    }

    /// Whether a unit would begin a job on a model at once.
    pub(super) fn would_begin(&self, at: usize, model: &ModelId, needs: &Needs) -> bool {
        self.units[at].models.contains(model)
            && self.is_free_for(at, model)
            && !self.is_in_the_way(at, model, needs)
    }
}

/// Memory that models usually need, in bytes, where the network knows.
#[derive(Debug, Default)]
pub(super) struct Needs(pub(super) BTreeMap<ModelId, u64>);

impl Needs {
    /// Zero if unknown.
    pub(super) fn of(&self, model: &ModelId) -> u64 {
        self.0.get(model).copied().unwrap_or(0)
    }
}

impl Unit {
    /// A unit as it is announced; what was known of it before stays, if it is the same kind of thing.
    pub(super) fn new(
        announced: Announced,
        models: Vec<ModelId>,
        class: &str,
        before: Option<Self>,
    ) -> Self {
        let Announced { id, kind, memory_bytes, class: own, models: offered, slots, cold, running } =
            announced;
        let mut counts = BTreeMap::<ModelId, u32>::new();
        let busy = u32::try_from(running.len()).unwrap_or(u32::MAX);
        for model in running {
            *counts.entry(model).or_default() += 1;
        }
        let class = own.unwrap_or_else(|| class.to_owned());
        let before = before.filter(|before| before.kind == kind);
        let (reserved, last_served, speeds, begins) = before.map_or_else(Default::default, |it| {
            (it.reserved, it.last_served, it.speeds, it.begins)
        });
        // What it does not serve any more, it need not be held free for, nor those beside it.
        let reserved = reserved.filter(|held| slots > 0 && models.contains(held));
        Self {
            id,
            kind,
            memory_bytes,
            class,
            models,
            offered,
            cold,
            slots,
            busy,
            running: counts,
            reserved,
            last_served,
            speeds,
            begins,
        }
    }

    /// The same as it was announced.
    pub(super) fn announced(&self) -> Announced {
        let times = |(model, count): (&ModelId, &u32)| vec![model.clone(); *count as usize];
        Announced {
            id: self.id,
            kind: self.kind.clone(),
            memory_bytes: self.memory_bytes,
            class: Some(self.class.clone()),
            models: self.offered.clone(),
            slots: self.slots,
            cold: self.cold,
            running: self.running.iter().flat_map(times).collect(),
        }
    }

    /// Whether it takes jobs on a model, now or when others have ended.
    pub(super) fn serves(&self, model: &ModelId) -> bool {
        self.slots > 0 && self.models.contains(model)
    }

    /// Whether a model is in its memory.
    pub(super) fn has_loaded(&self, model: &ModelId) -> bool {
        self.offered.first() == Some(model) && !self.cold
    }

    /// Memory that its jobs take, as far as the network knows.
    pub(super) fn held(&self, needs: &Needs) -> u64 {
        self.running.keys().map(|model| needs.of(model)).max().unwrap_or(0)
    }

    /// Takes a job.
    pub(super) fn take(&mut self, model: &ModelId, turn: u64) {
        self.busy += 1;
        *self.running.entry(model.clone()).or_default() += 1;
        self.last_served = turn;
    }

    /// A job of it has ended.
    pub(super) fn ended(&mut self, model: &ModelId) {
        self.busy = self.busy.saturating_sub(1);
        if let Some(count) = self.running.get_mut(model) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(model);
            }
        }
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
