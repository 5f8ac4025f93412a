//! Waiting jobs, fair twice over: between classes by weight, between payers by what their jobs cost.
//!
//! Both levels are the same deficit rule. Whoever is served is charged the job's cost, and whoever was
//! charged least goes next. Who was away does not save up: a newcomer starts where the last one served
//! stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use neurino_core::{FrontendId, JobId, ModelId, NodeId};
use neurino_ledger::PayerId;
use serde::{Deserialize, Serialize};

/// How urgent a job is. Served 16 : 4 : 1 by cost while all of them wait.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum JobClass {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// It may take a while. One that has waited long becomes interactive.
    Batch,
    /// Work that checks other work.
    Audit,
}

impl JobClass {
    /// All of them, most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Batch, Self::Audit];

    /// The name in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::Audit => "audit",
        }
    }

    /// Share of the service while every class waits: 16 : 4 : 1.
    pub fn weight(self) -> u64 {
        match self {
            Self::Interactive => 16,
            Self::Batch => 4,
            Self::Audit => 1,
        }
    }
}

/// A job that waits, as the router sees it.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) job: JobId,
    pub(crate) model: ModelId,
    pub(crate) payer: PayerId,
    pub(crate) class: JobClass,
    /// What it costs at most, in thousandths of a point before factors; at least one.
    pub(crate) cost: u64,
    pub(crate) frontend: Option<FrontendId>,
    /// Nodes that failed at it; asked again only if there is no other.
    pub(crate) tried: Vec<NodeId>,
    /// Nodes that cannot read its model; never asked again.
    pub(crate) unable: Vec<NodeId>,
    /// Whether it was leased before: it goes before its payer's other jobs.
    pub(crate) again: bool,
    /// Who may compute it, if not everybody.
    pub(crate) placement: Option<Arc<Placement>>,
}

/// Who may compute a job that checks another one's result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Placement {
    /// Whose machines may not: addresses.
    pub(crate) not_owners: Vec<String>,
    /// The numeric class it must be of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// The only nodes that may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Vec<NodeId>>,
    /// Whether nodes of other engines may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) own_engine: bool,
    /// Whether only nodes may that score claimed texts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) scores: bool,
    /// The job that has the answer, if the network knows it already. The node hears nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) known: Option<KnownAnswer>,
}

/// Where the answer of a job stands that the network asks for though it knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownAnswer {
    /// The job that was asked before.
    pub(crate) job: JobId,
    /// The numeric class of the node that answered it, if nodes are compared by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
}

/// What the numeric class of a node begins with that computes with another engine.
pub(crate) const OTHER_ENGINE: &str = "og_";

/// Whether a numeric class is another engine's: the original protocol's miners have their own.
pub(crate) fn is_other_engine(class: &str) -> bool {
    class.starts_with(OTHER_ENGINE)
}

impl Placement {
    /// Whether a node may on a unit of a numeric class; `scores` says whether it scores texts.
    pub(crate) fn allows(&self, node: &NodeId, class: &str, scores: bool) -> bool {
        let owner = owner_of(node);
        self.not_owners.iter().all(|other| other != owner)
            && self.class.as_deref().is_none_or(|wanted| wanted == class)
            && self.only.as_ref().is_none_or(|only| only.contains(node))
            && !(self.own_engine && is_other_engine(class))
            && (scores || !self.scores)
    }
}

/// The address that is paid for a node's work: ids begin with it.
pub(crate) fn owner_of(node: &NodeId) -> &str {
    let id = node.as_str();
    id.split_at_checked(42).map_or(id, |(address, _)| address)
}

/// Whom the record of a node's audits is of: its owner, under the id of a node without a tag. Tags cost
/// nothing, so a record of one machine alone would be as good as none.
pub(crate) fn party_of(node: &NodeId) -> NodeId {
    NodeId::new(owner_of(node)).unwrap_or_else(|_| node.clone())
}

/// Who was charged how much, among those that wait.
#[derive(Debug)]
struct Shares<K> {
    /// By charge, then by arrival.
    order: BTreeSet<(u64, u64, K)>,
    places: BTreeMap<K, (u64, u64)>,
    /// Charges of some that do not wait now and are ahead of the rest.
    away: BTreeMap<K, u64>,
    /// Where the last one served stood before it was charged.
    now: u64,
    arrivals: u64,
}

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self {
            order: BTreeSet::new(),
            places: BTreeMap::new(),
            away: BTreeMap::new(),
            now: 0,
            arrivals: 0,
        }
    }
}

impl<K: Ord + Clone> Shares<K> {
    /// Begins to wait; nothing if it waits already.
    fn join(&mut self, who: &K) {
        if self.places.contains_key(who) {
            return;
        }
        let charged = self.away.remove(who).unwrap_or(0).max(self.now);
        self.put(who, charged);
    }

    /// Waits no longer.
    fn leave(&mut self, who: &K) {
        let Some((charged, arrival)) = self.places.remove(who) else { return };
        self.order.remove(&(charged, arrival, who.clone()));
        let now = self.now;
        self.away.retain(|_, charged| *charged > now);
        if charged > now {
            self.away.insert(who.clone(), charged);
        }
    }

    /// Charges whoever is served; it goes behind those that were charged as much.
    fn charge(&mut self, who: &K, cost: u64) {
        let Some((charged, arrival)) = self.places.remove(who) else { return };
        self.order.remove(&(charged, arrival, who.clone()));
        self.now = self.now.max(charged);
        self.put(who, charged.saturating_add(cost));
    }

    fn put(&mut self, who: &K, charged: u64) {
        self.arrivals += 1;
        self.places.insert(who.clone(), (charged, self.arrivals));
        self.order.insert((charged, self.arrivals, who.clone()));
    }

    /// Those that wait, next one first.
    fn turns(&self) -> impl Iterator<Item = &K> {
        self.order.iter().map(|(_, _, who)| who)
    }
}

/// A waiting job with the order of its arrival over all models; zero if it was leased before.
#[derive(Debug)]
struct Entry {
    waiting: Waiting,
    arrival: u64,
}

/// Jobs of one class for one model.
#[derive(Debug, Default)]
struct Queue {
    shares: Shares<PayerId>,
    jobs: BTreeMap<PayerId, VecDeque<Entry>>,
    count: usize,
}

impl Queue {
    fn push(&mut self, entry: Entry) {
        let payer = entry.waiting.payer.clone();
        self.shares.join(&payer);
        self.count += 1;
        let jobs = self.jobs.entry(payer).or_default();
        if entry.waiting.again {
            jobs.push_front(entry);
        } else {
            jobs.push_back(entry);
        }
    }

    /// Takes the first job, in order of turns, that `place` finds a node for.
    fn take<N>(&mut self, mut place: impl FnMut(&Waiting) -> Option<N>) -> Option<(Waiting, N)> {
        let (payer, at, node) = self.shares.turns().find_map(|payer| {
            let jobs = self.jobs.get(payer)?;
            let mut places = jobs.iter().enumerate();
            places.find_map(|(at, e)| Some((payer.clone(), at, place(&e.waiting)?)))
        })?;
        let jobs = self.jobs.get_mut(&payer)?;
        let entry = jobs.remove(at)?;
        self.count -= 1;
        self.shares.charge(&payer, entry.waiting.cost);
        if jobs.is_empty() {
            self.jobs.remove(&payer);
            self.shares.leave(&payer);
        }
        Some((entry.waiting, node))
    }

    fn remove(&mut self, payer: &PayerId, job: JobId) -> Option<Waiting> {
        let jobs = self.jobs.get_mut(payer)?;
        let at = jobs.iter().position(|e| e.waiting.job == job)?;
        let entry = jobs.remove(at)?;
        self.count -= 1;
        if jobs.is_empty() {
            self.jobs.remove(payer);
            self.shares.leave(payer);
        }
        Some(entry.waiting)
    }

    /// Arrival of the job whose turn it is.
    fn head(&self) -> Option<u64> {
        self.jobs.get(self.shares.turns().next()?)?.front().map(|e| e.arrival)
    }
}

/// Jobs of one class.
#[derive(Debug, Default)]
struct Class {
    queues: BTreeMap<ModelId, Queue>,
    count: usize,
}

/// All waiting jobs.
#[derive(Debug, Default)]
pub(super) struct Queues {
    classes: BTreeMap<JobClass, Class>,
    shares: Shares<JobClass>,
    arrivals: u64,
}

impl Queues {
    pub(super) fn push(&mut self, waiting: Waiting) {
        self.arrivals += 1;
        let arrival = if waiting.again { 0 } else { self.arrivals };
        let class = self.classes.entry(waiting.class).or_default();
        self.shares.join(&waiting.class);
        class.count += 1;
        class.queues.entry(waiting.model.clone()).or_default().push(Entry { waiting, arrival });
    }

    /// Takes the next job that `place` finds a node for. Of one class, the job that came first goes
    /// first, whatever its model; `open` says whether a model has a free node at all.
    pub(super) fn take<N>(
        &mut self,
        open: impl Fn(&ModelId) -> bool,
        mut place: impl FnMut(&Waiting) -> Option<N>,
    ) -> Option<(Waiting, N)> {
        let turns: Vec<JobClass> = self.shares.turns().copied().collect();
        for name in turns {
            let class = self.classes.get_mut(&name)?;
            let ready = class.queues.iter_mut().filter(|(model, _)| open(model));
            let mut ready: Vec<_> =
                ready.filter_map(|(_, queue)| Some((queue.head()?, queue))).collect();
            ready.sort_by_key(|(arrival, _)| *arrival);
            let taken = ready.into_iter().find_map(|(_, queue)| queue.take(&mut place));
            let Some((waiting, node)) = taken else { continue };
            let most = JobClass::Interactive.weight();
            self.shares.charge(&name, waiting.cost.saturating_mul(most / name.weight()));
            self.taken(name, &waiting.model);
            return Some((waiting, node));
        }
        None
    }

    /// Takes a job out without serving it.
    pub(super) fn remove(
        &mut self,
        class: JobClass,
        model: &ModelId,
        payer: &PayerId,
        job: JobId,
    ) -> Option<Waiting> {
        let queue = self.classes.get_mut(&class)?.queues.get_mut(model)?;
        let waiting = queue.remove(payer, job)?;
        self.taken(class, model);
        Some(waiting)
    }

    fn taken(&mut self, name: JobClass, model: &ModelId) {
        let Some(class) = self.classes.get_mut(&name) else { return };
        class.count -= 1;
        // What payers were charged for a model is kept while anything of the class waits, and within
        // the queue while it is ahead.
        if class.queues.get(model).is_some_and(|q| q.count == 0 && q.shares.away.is_empty()) {
            class.queues.remove(model);
        }
        if class.count == 0 {
            self.shares.leave(&name);
        }
    }

    /// How many jobs wait for each model.
    pub(super) fn waiting(&self) -> BTreeMap<&ModelId, usize> {
        let mut all = BTreeMap::new();
        for (model, queue) in self.classes.values().flat_map(|class| &class.queues) {
            if queue.count > 0 {
                *all.entry(model).or_default() += queue.count;
            }
        }
        all
    }

    /// How many jobs of each class wait.
    pub(super) fn depth(&self, class: JobClass) -> usize {
        self.classes.get(&class).map_or(0, |class| class.count)
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.values().all(|class| class.count == 0)
    }

    /// Every waiting job for a model.
    pub(super) fn of_model<'a>(
        &'a self,
        model: &'a ModelId,
    ) -> impl Iterator<Item = &'a Waiting> + 'a {
        let queues = self.classes.values().filter_map(|class| class.queues.get(model));
        queues.flat_map(|queue| queue.jobs.values().flatten().map(|entry| &entry.waiting))
    }
}
