//! Which node gets which job: in memory, pure, no clock.
//!
//! Each model has a queue that is fair between payers (turn by turn, first come first served within
//! one payer) and the set of nodes with a free slot. Among free nodes those that have the model
//! loaded come first; of those, the best of [`SAMPLE`] random ones is taken, so that work spreads
//! over a large network. A node that failed at a job gets it again only if no other serves it.

use std::collections::{HashMap, VecDeque};

use neurino_core::{JobId, ModelId, NodeId};
use neurino_ledger::PayerId;
use rand::Rng;

/// Free nodes looked at for one job.
pub(crate) const SAMPLE: usize = 3;

/// A job that waits.
#[derive(Debug, Clone)]
struct Waiting {
    job: JobId,
    /// Nodes that failed at it.
    tried: Vec<NodeId>,
    /// Order of arrival over all models; zero for a job that was leased before.
    arrival: u64,
}

/// Jobs of one model, fair between payers.
#[derive(Debug, Default)]
struct FairQueue {
    turns: VecDeque<PayerId>,
    jobs: HashMap<PayerId, VecDeque<Waiting>>,
}

impl FairQueue {
    fn push(&mut self, payer: &PayerId, waiting: Waiting, front: bool) {
        let jobs = self.jobs.entry(payer.clone()).or_default();
        if jobs.is_empty() {
            self.turns.push_back(payer.clone());
        }
        if front {
            jobs.push_front(waiting);
        } else {
            jobs.push_back(waiting);
        }
    }

    /// Takes the first job, in order of turns, that `place` finds a node for.
    fn take(
        &mut self,
        mut place: impl FnMut(&Waiting) -> Option<NodeId>,
    ) -> Option<(JobId, NodeId)> {
        for turn in 0..self.turns.len() {
            let jobs = self.jobs.get_mut(&self.turns[turn])?;
            let found = jobs
                .iter()
                .enumerate()
                .find_map(|(at, waiting)| Some((at, waiting.job, place(waiting)?)));
            let Some((at, job, node)) = found else { continue };
            jobs.remove(at);
            let done = jobs.is_empty();
            let payer = self.turns.remove(turn)?;
            if done {
                self.jobs.remove(&payer);
            } else {
                self.turns.push_back(payer);
            }
            return Some((job, node));
        }
        None
    }

    /// Arrival of the job whose turn it is.
    fn head(&self) -> Option<u64> {
        self.jobs.get(self.turns.front()?)?.front().map(|w| w.arrival)
    }

    fn remove(&mut self, payer: &PayerId, job: JobId) {
        let Some(jobs) = self.jobs.get_mut(payer) else { return };
        jobs.retain(|w| w.job != job);
        if jobs.is_empty() {
            self.jobs.remove(payer);
            self.turns.retain(|p| p != payer);
        }
    }
}

/// Node ids with random choice, insertion and removal in constant time.
#[derive(Debug, Default)]
struct IdSet {
    ids: Vec<NodeId>,
    places: HashMap<NodeId, usize>,
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
}

/// Nodes with a free slot for one model.
#[derive(Debug, Default)]
struct Free {
    /// Those that have it loaded.
    warm: IdSet,
    /// Those that have it on disk.
    cold: IdSet,
}

impl Free {
    fn any(&self) -> bool {
        !self.warm.ids.is_empty() || !self.cold.ids.is_empty()
    }
}

#[derive(Debug)]
struct Node {
    models: Vec<ModelId>,
    slots: u32,
    busy: u32,
    /// Turn in which it was last given a job.
    last_served: u64,
}

/// The router's memory.
#[derive(Debug, Default)]
pub(crate) struct Router {
    queues: HashMap<ModelId, FairQueue>,
    nodes: HashMap<NodeId, Node>,
    free: HashMap<ModelId, Free>,
    /// Connected nodes with at least one slot, per model.
    serving: HashMap<ModelId, usize>,
    turn: u64,
    arrivals: u64,
}

impl Router {
    /// Sets what a connected node can take. `busy` counts the leases it holds.
    pub(crate) fn set_node(&mut self, id: &NodeId, models: Vec<ModelId>, slots: u32, busy: u32) {
        let last_served = self.nodes.get(id).map_or(0, |n| n.last_served);
        self.remove_node(id);
        if slots > 0 {
            for model in &models {
                *self.serving.entry(model.clone()).or_default() += 1;
            }
        }
        self.nodes.insert(id.clone(), Node { models, slots, busy, last_served });
        self.refresh(id);
    }

    /// Forgets a node whose session ended.
    pub(crate) fn remove_node(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.remove(id) else { return };
        for model in &node.models {
            if let Some(free) = self.free.get_mut(model) {
                free.warm.remove(id);
                free.cold.remove(id);
            }
            if node.slots > 0
                && let Some(serving) = self.serving.get_mut(model)
            {
                *serving -= 1;
            }
        }
    }

    /// Frees a slot.
    pub(crate) fn lease_ended(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            self.refresh(id);
        }
    }

    /// Puts a job into its model's queue, at the front of its payer's jobs if it was there before.
    pub(crate) fn enqueue(
        &mut self,
        model: &ModelId,
        payer: &PayerId,
        job: JobId,
        tried: Vec<NodeId>,
        front: bool,
    ) {
        self.arrivals += 1;
        let arrival = if front { 0 } else { self.arrivals };
        let queue = self.queues.entry(model.clone()).or_default();
        queue.push(payer, Waiting { job, tried, arrival }, front);
    }

    /// Takes a job out of its queue.
    pub(crate) fn remove_job(&mut self, model: &ModelId, payer: &PayerId, job: JobId) {
        if let Some(queue) = self.queues.get_mut(model) {
            queue.remove(payer, job);
            if queue.turns.is_empty() {
                self.queues.remove(model);
            }
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

    /// Models that a connected node serves.
    pub(crate) fn served(&self) -> impl Iterator<Item = &ModelId> {
        self.serving.iter().filter(|(_, nodes)| **nodes > 0).map(|(model, _)| model)
    }

    /// The next job and its node; takes the job from its queue and a slot from the node.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Option<(JobId, NodeId)> {
        let Self { queues, nodes, free, .. } = self;
        let mut ready: Vec<_> = queues
            .iter_mut()
            .filter_map(|(model, queue)| {
                let free = free.get(model).filter(|f| f.any())?;
                Some((queue.head()?, model, queue, free))
            })
            .collect();
        // The job that came first goes first, whatever its model.
        ready.sort_by_key(|(arrival, ..)| *arrival);
        let (model, job, id) = ready.into_iter().find_map(|(_, model, queue, free)| {
            let (job, id) = queue.take(|waiting| place(nodes, free, model, waiting, rng))?;
            Some((model.clone(), job, id))
        })?;
        if self.queues.get(&model).is_some_and(|q| q.turns.is_empty()) {
            self.queues.remove(&model);
        }
        self.turn += 1;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.busy += 1;
            node.last_served = self.turn;
        }
        self.refresh(&id);
        Some((job, id))
    }

    /// Puts a node into, or takes it out of, the sets of free nodes.
    fn refresh(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        for (at, model) in node.models.iter().enumerate() {
            let free = self.free.entry(model.clone()).or_default();
            let set = if at == 0 { &mut free.warm } else { &mut free.cold };
            if node.busy < node.slots {
                set.insert(id);
            } else {
                set.remove(id);
            }
        }
    }
}

/// Chooses a free node for a job: warm before cold, untried before tried, the best of a sample.
fn place(
    nodes: &HashMap<NodeId, Node>,
    free: &Free,
    model: &ModelId,
    waiting: &Waiting,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    let tried = |id: &NodeId| waiting.tried.contains(id);
    let rank = |id: &NodeId| nodes.get(id).map(|n| (n.busy, n.last_served));
    let best = |ids: &[NodeId], allowed: &dyn Fn(&NodeId) -> bool, rng: &mut _| {
        if ids.is_empty() {
            return None;
        }
        let sample = (0..SAMPLE).map(|_| &ids[Rng::random_range(rng, 0..ids.len())]);
        let sampled = sample.filter(|id| allowed(id)).min_by_key(|id| rank(id));
        sampled.or_else(|| ids.iter().filter(|id| allowed(id)).min_by_key(|id| rank(id))).cloned()
    };
    let untried = |id: &NodeId| !tried(id);
    if let Some(id) =
        best(&free.warm.ids, &untried, rng).or_else(|| best(&free.cold.ids, &untried, rng))
    {
        return Some(id);
    }
    // Only nodes that failed at it are free: worth waiting if another one serves the model.
    let another =
        |(id, node): (&NodeId, &Node)| node.slots > 0 && !tried(id) && node.models.contains(model);
    if nodes.iter().any(another) {
        return None;
    }
    let any = |_: &NodeId| true;
    best(&free.warm.ids, &any, rng).or_else(|| best(&free.cold.ids, &any, rng))
}

#[cfg(test)]
mod tests {
    use std::collections::btree_map::Entry;
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use uuid::Uuid;

    use super::*;

    fn model(name: &str) -> ModelId {
        ModelId::new(name).expect("valid")
    }

    fn node(n: u8) -> NodeId {
        NodeId::new(format!("0x{n:02x}")).expect("valid")
    }

    fn job(n: u16) -> JobId {
        JobId(Uuid::from_u128(u128::from(n)))
    }

    fn payer(n: u8) -> PayerId {
        PayerId::new(format!("p{n}")).expect("valid")
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    #[test]
    fn a_loaded_model_is_preferred() {
        let mut router = Router::default();
        router.set_node(&node(1), vec![model("b"), model("a")], 5, 0);
        router.set_node(&node(2), vec![model("a"), model("b")], 5, 0);
        for n in 0..5 {
            router.enqueue(&model("a"), &payer(1), job(n), vec![], false);
            assert_eq!(router.next(&mut rng()), Some((job(n), node(2))));
        }
        router.enqueue(&model("a"), &payer(1), job(9), vec![], false);
        assert_eq!(router.next(&mut rng()), Some((job(9), node(1))), "the loaded node is full");
    }

    #[test]
    fn payers_take_turns() {
        let mut router = Router::default();
        for n in 0..4 {
            router.enqueue(&model("a"), &payer(1), job(n), vec![], false);
        }
        router.enqueue(&model("a"), &payer(2), job(10), vec![], false);
        router.set_node(&node(1), vec![model("a")], 9, 0);
        let mut rng = rng();
        let order: Vec<_> =
            std::iter::from_fn(|| router.next(&mut rng)).map(|(job, _)| job).collect();
        assert_eq!(order, [job(0), job(10), job(1), job(2), job(3)]);
    }

    #[test]
    fn a_node_that_failed_is_tried_again_only_alone() {
        let mut router = Router::default();
        router.set_node(&node(1), vec![model("a")], 1, 0);
        router.set_node(&node(2), vec![model("a")], 1, 1);
        router.enqueue(&model("a"), &payer(1), job(1), vec![node(1)], false);
        assert_eq!(router.next(&mut rng()), None, "waits for the other, busy one");
        router.enqueue(&model("a"), &payer(1), job(2), vec![], false);
        assert_eq!(router.next(&mut rng()), Some((job(2), node(1))), "others pass by");
        router.lease_ended(&node(1));
        router.remove_node(&node(2));
        assert_eq!(router.next(&mut rng()), Some((job(1), node(1))), "nobody else is left");
    }

    #[test]
    fn work_spreads_over_free_nodes() {
        let mut router = Router::default();
        for n in 0..30 {
            router.set_node(&node(n), vec![model("a")], 1, 0);
        }
        let (mut rng, mut served) = (rng(), BTreeSet::new());
        for n in 0..300 {
            router.enqueue(&model("a"), &payer(1), job(n), vec![], false);
            let (_, id) = router.next(&mut rng).expect("thirty nodes are free");
            router.lease_ended(&id);
            served.insert(id);
        }
        assert_eq!(served.len(), 30);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enqueue(u16, u8, u8, Option<u8>),
        Remove(u16),
        Node(u8, Vec<u8>, u32),
        Leave(u8),
        Next,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u16..1000, 0u8..3, 0u8..3, prop::option::of(0u8..4))
                .prop_map(|(j, p, m, t)| Step::Enqueue(j, p, m, t)),
            (0u16..1000).prop_map(Step::Remove),
            (0u8..4, prop::collection::vec(0u8..3, 0..3), 0u32..3)
                .prop_map(|(n, m, s)| Step::Node(n, m, s)),
            (0u8..4).prop_map(Step::Leave),
            Just(Step::Next),
            Just(Step::Next),
            Just(Step::End),
        ]
    }

    proptest! {
        /// Against a naive model: no job is lost or given twice, no slot is overfilled, a job goes
        /// only to a node that serves its model, and nothing waits while an untried node is free.
        #[test]
        fn never_loses_doubles_or_overfills(steps in prop::collection::vec(step(), 0..200), seed: u64) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut router = Router::default();
            let mut waiting = BTreeMap::<JobId, (u8, u8, Option<u8>)>::new();
            let mut nodes = BTreeMap::<u8, (BTreeSet<u8>, u32)>::new();
            let mut held = Vec::<NodeId>::new();
            let busy = |held: &[NodeId], n: u8| {
                u32::try_from(held.iter().filter(|h| **h == node(n)).count()).expect("small")
            };
            for step in steps {
                match step {
                    Step::Enqueue(j, p, m, t) => {
                        if let Entry::Vacant(free) = waiting.entry(job(j)) {
                            free.insert((p, m, t));
                            let tried = t.map(node).into_iter().collect();
                            router.enqueue(&model(&format!("m{m}")), &payer(p), job(j), tried, j % 2 == 0);
                        }
                    }
                    Step::Remove(j) => {
                        if let Some((p, m, _)) = waiting.remove(&job(j)) {
                            router.remove_job(&model(&format!("m{m}")), &payer(p), job(j));
                        }
                    }
                    Step::Node(n, m, s) => {
                        let set: BTreeSet<u8> = m.into_iter().collect();
                        let models = set.iter().map(|m| model(&format!("m{m}"))).collect();
                        router.set_node(&node(n), models, s, busy(&held, n));
                        nodes.insert(n, (set, s));
                    }
                    Step::Leave(n) => {
                        router.remove_node(&node(n));
                        nodes.remove(&n);
                    }
                    Step::Next => match router.next(&mut rng) {
                        Some((j, id)) => {
                            let (_, m, _) = waiting.remove(&j).expect("it waited");
                            let n = (0..4).find(|n| node(*n) == id).expect("known");
                            let (models, slots) = nodes.get(&n).expect("connected");
                            prop_assert!(models.contains(&m));
                            prop_assert!(busy(&held, n) < *slots);
                            held.push(id);
                        }
                        None => for (j, (_, m, t)) in &waiting {
                            let free = nodes.iter().any(|(n, (models, slots))| {
                                models.contains(m) && busy(&held, *n) < *slots && *t != Some(*n)
                            });
                            prop_assert!(!free, "{j} waits beside a free node");
                        },
                    },
                    Step::End => {
                        if let Some(id) = held.pop() {
                            router.lease_ended(&id);
                        }
                    }
                }
            }
        }
    }
}
