//! What the coordinator holds in memory: open jobs, leases, sessions. A cache of the books plus
//! what only lives as long as a link. Guarded by one mutex that is never held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{
    FrontendId, ImageDefaults, JobId, JobKind, JobOutput, JobSpec, LeaseId, ModelId, NodeId,
    Receipt, UnitId,
};
use neurino_ledger::PayerId;
use neurino_protocol::node::upload::StoredPicture;
use neurino_protocol::node::{Capabilities, CoordinatorMessage, ModelOffer, NoJob};
use neurino_protocol::{ErrorBody, ErrorCode};
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::challenge::Challenges;
use crate::hedge::Budget;
use crate::router::{Announced, JobClass, Place, Placement, Router, Standing, Waiting, owner_of};
use crate::store::AttemptEnd;
use crate::talk::Talk;
use crate::terms::{Payment, cost_units};
use crate::watch::Feed;

/// What a model makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Makes {
    Text,
    /// Pictures, and what suits it.
    Pictures(ImageDefaults),
}

impl Makes {
    pub(crate) fn of(offer: &ModelOffer) -> Self {
        offer.image.clone().map_or(Self::Text, Self::Pictures)
    }

    pub(crate) fn kind(&self) -> JobKind {
        match self {
            Self::Text => JobKind::Text,
            Self::Pictures(_) => JobKind::Image,
        }
    }
}

/// How far the client of a job is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Nothing of the answer reached it.
    Waits,
    /// It has part of the answer.
    Reads,
    /// It left with part of a prepaid answer: only the attempt that it heard is worth an end.
    Left,
}

/// A job that has not ended.
pub(crate) struct LiveJob {
    pub(crate) payer: PayerId,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) rule_set: String,
    pub(crate) fence: u32,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    /// Nodes that failed at it or handed it back.
    pub(crate) tried: Vec<NodeId>,
    /// Nodes that could not read its model, and what the last of them said.
    pub(crate) unable: Vec<NodeId>,
    pub(crate) fault: Option<ErrorBody>,
    /// Nodes that say that it is wrong.
    pub(crate) objections: Vec<NodeId>,
    /// How often it was handed back. Not in the books: after a restart it counts anew.
    pub(crate) hand_backs: u32,
    pub(crate) class: JobClass,
    /// Who may compute it, if not everybody.
    pub(crate) placement: Option<Arc<Placement>>,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) frontend: Option<FrontendId>,
    /// Set if it is prepaid.
    pub(crate) payment: Option<Payment>,
    pub(crate) lease: Option<LeaseId>,
    /// A second lease, of a node that works on it, too, because the first one is late.
    pub(crate) hedge: Option<LeaseId>,
    /// The lease whose text was passed on first.
    pub(crate) speaker: Option<LeaseId>,
    pub(crate) queued_since: Instant,
    pub(crate) no_node_wait_ms: u64,
    pub(crate) feed: Feed,
    pub(crate) client: Client,
    /// How long it goes on while nobody waits for it; none if that is nobody's concern.
    pub(crate) patience: Option<Duration>,
    /// Since when nobody waits for it.
    pub(crate) unwatched_since: Option<Instant>,
    /// Whether the books have it; before that nobody but its payer's call knows it.
    pub(crate) admitted: bool,
    /// Whether its end is being written.
    pub(crate) closing: bool,
}

/// What happens to a lease.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LeasePhase {
    /// Being written; its end may have been asked for already.
    Granting(Option<(AttemptEnd, ErrorBody)>),
    /// The node works on it.
    Running,
    /// Its result is being written.
    Settling,
    /// Its end is being written.
    Releasing,
}

/// A lease that has not ended.
pub(crate) struct LiveLease {
    pub(crate) job: JobId,
    pub(crate) node: NodeId,
    /// The unit of the node that has it; absent for a node that announced none.
    pub(crate) unit: Option<UnitId>,
    pub(crate) model: ModelId,
    /// What its results can be compared with bit by bit; absent if that was not noted when it was given.
    pub(crate) numeric_class: Option<String>,
    pub(crate) fence: u32,
    pub(crate) phase: LeasePhase,
    pub(crate) deadline: Instant,
    pub(crate) granted_at_ms: i64,
    /// The session it was assigned on or named on; absent while its node is away.
    pub(crate) session: Option<u64>,
    pub(crate) assigned: Instant,
    /// Whether that was in another life of the coordinator, so that nobody knows how long it took.
    pub(crate) restored: bool,
    /// Until when an absent node may come back to it.
    pub(crate) kept_until: Option<Instant>,
    /// Whether streamed text may have been lost with a link.
    pub(crate) gap: bool,
    /// Whether streamed text was left out, because another lease of the job spoke first.
    pub(crate) unheard: bool,
    /// The picture that its node was given a link for; there is one for a lease.
    pub(crate) picture: Option<StoredPicture>,
    /// How far its node is with the answer.
    pub(crate) begin: Begin,
}

impl LiveLease {
    /// Where it is computed.
    pub(crate) fn place(&self) -> Place {
        Place::new(&self.node, self.unit)
    }
}

/// How far a lease's node is with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It has the model loaded and has said nothing yet.
    Waits,
    /// Nor has it, and it loads the model first.
    Loads,
    /// It has said something, or may have.
    Began,
}

/// A node's open session.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) outbox: mpsc::Sender<Box<CoordinatorMessage>>,
    /// Names its program and device, see `JobWatch::fingerprint`.
    pub(crate) fingerprint: String,
    pub(crate) last_seen: Instant,
    /// What it may still say.
    pub(crate) talk: Talk,
    /// What the order of nodes looks at.
    pub(crate) standing: Standing,
    /// Why there is no job for it, as it was told last.
    pub(crate) told: NoJob,
    /// Until when its uptime is counted.
    pub(crate) counted: Instant,
    /// Long polls that wait at this moment; a waiting poll is a sign of life.
    pub(crate) polls: u32,
    /// Whether it is told which model to load.
    pub(crate) advised: bool,
    /// Whether it is asked to show its files.
    pub(crate) shows_files: bool,
    /// Whether it speaks the original protocol, which has deadlines of its own.
    pub(crate) original: bool,
    /// Its program and device, as its hello named them, for what its units can be compared with.
    pub(crate) machine: Option<(String, Capabilities)>,
    /// The neighbourhood of the internet that it comes from, where that is known: in memory alone.
    pub(crate) neighbourhood: Option<IpAddr>,
    /// Ends the link's task.
    pub(crate) end: CancellationToken,
}

/// Most owners that are counted as neighbours of one node.
const NEIGHBOURS_MAX: usize = 256;

/// All of it.
pub(crate) struct State {
    pub(crate) router: Router,
    pub(crate) jobs: BTreeMap<JobId, LiveJob>,
    /// How many of them each payer has.
    open_of: BTreeMap<PayerId, usize>,
    pub(crate) leases: BTreeMap<LeaseId, LiveLease>,
    pub(crate) node_leases: BTreeMap<NodeId, BTreeSet<LeaseId>>,
    pub(crate) sessions: BTreeMap<NodeId, Session>,
    pub(crate) last_session: u64,
    /// When it is looked next who fell silent.
    pub(crate) silence_looked_at: Instant,
    pub(crate) challenges: Challenges,
    /// When a connected node last served a model.
    pub(crate) last_served: BTreeMap<ModelId, Instant>,
    /// What nodes said of models that no list of this network names. Kept as long as `last_served`.
    pub(crate) offered: BTreeMap<ModelId, Makes>,
    /// Seconds that nodes were connected and that are not in the books yet.
    pub(crate) uptime: BTreeMap<NodeId, u64>,
    /// Units that are, or were a moment ago, held free for a large job, and until when they are.
    pub(crate) reservations: BTreeMap<Place, Instant>,
    /// How many jobs may have a second lease now.
    pub(crate) hedges: Budget,
    pub(crate) rng: StdRng,
    pub(crate) stopping: bool,
}

impl State {
    /// The owners of other nodes that come from a node's neighbourhood of the internet.
    pub(crate) fn neighbours_of(&self, node: &NodeId) -> BTreeSet<String> {
        let of = |session: &Session| session.neighbourhood;
        let Some(here) = self.sessions.get(node).and_then(of) else { return BTreeSet::new() };
        let near = self.sessions.iter().filter(|(_, session)| of(session) == Some(here));
        near.map(|(other, _)| owner_of(other)).take(NEIGHBOURS_MAX).map(str::to_owned).collect()
    }

    /// Whether a node is connected that has not said yet what it takes.
    pub(crate) fn is_node_preparing(&self) -> bool {
        self.sessions.keys().any(|node| !self.router.knows(node))
    }

    pub(crate) fn new(rng: StdRng, router: Router) -> Self {
        Self {
            router,
            jobs: BTreeMap::new(),
            open_of: BTreeMap::new(),
            leases: BTreeMap::new(),
            node_leases: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            silence_looked_at: Instant::now(),
            challenges: Challenges::new(rand::random(), Instant::now()),
            last_served: BTreeMap::new(),
            offered: BTreeMap::new(),
            uptime: BTreeMap::new(),
            reservations: BTreeMap::new(),
            hedges: Budget::default(),
            rng,
            stopping: false,
        }
    }

    /// Takes a job into memory.
    pub(crate) fn add_job(&mut self, id: JobId, job: LiveJob) {
        *self.open_of.entry(job.payer.clone()).or_default() += 1;
        if let Some(before) = self.jobs.insert(id, job) {
            self.one_less(&before.payer);
        }
    }

    /// Forgets a job, and nothing else that belongs to it.
    pub(crate) fn forget_job(&mut self, id: JobId) -> Option<LiveJob> {
        let job = self.jobs.remove(&id)?;
        self.one_less(&job.payer);
        Some(job)
    }

    fn one_less(&mut self, payer: &PayerId) {
        if let Some(open) = self.open_of.get_mut(payer) {
            *open -= 1;
            if *open == 0 {
                self.open_of.remove(payer);
            }
        }
    }

    /// How many open jobs a payer has.
    pub(crate) fn open_of(&self, payer: &PayerId) -> usize {
        self.open_of.get(payer).copied().unwrap_or(0)
    }

    /// Leases a node holds.
    pub(crate) fn busy(&self, node: &NodeId) -> u32 {
        let held = self.node_leases.get(node).map_or(0, BTreeSet::len);
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    pub(crate) fn add_lease(&mut self, id: LeaseId, lease: LiveLease) {
        self.node_leases.entry(lease.node.clone()).or_default().insert(id);
        if let Some(job) = self.jobs.get_mut(&lease.job) {
            if job.lease.is_none() {
                job.lease = Some(id);
            } else {
                job.hedge = Some(id);
            }
        }
        self.leases.insert(id, lease);
    }

    /// Forgets a lease and frees its slot.
    pub(crate) fn end_lease(&mut self, id: LeaseId) -> Option<LiveLease> {
        let lease = self.leases.remove(&id)?;
        if let Some(held) = self.node_leases.get_mut(&lease.node) {
            held.remove(&id);
            if held.is_empty() {
                self.node_leases.remove(&lease.node);
            }
        }
        if let Some(job) = self.jobs.get_mut(&lease.job) {
            if job.lease == Some(id) {
                job.lease = None;
            }
            if job.hedge == Some(id) {
                job.hedge = None;
            }
        }
        self.router.lease_ended(&lease.place(), &lease.model);
        Some(lease)
    }

    /// Forgets a job that ended, with its lease, and returns it for its last update. A second node that
    /// works on it hears that it need not.
    pub(crate) fn end_job(&mut self, id: JobId) -> Option<(LiveJob, Option<LiveLease>)> {
        let job = self.jobs.get(&id)?;
        let (lease, hedge) = (job.lease, job.hedge);
        if let Some(hedge) = hedge {
            self.outrun(hedge);
        }
        let lease = lease.and_then(|lease| self.end_lease(lease));
        let job = self.forget_job(id)?;
        self.router.remove_job(job.spec.model(), &job.payer, id);
        Some((job, lease))
    }

    /// Forgets a lease and has its node stop: another one was faster.
    fn outrun(&mut self, id: LeaseId) {
        if let Some(lease) = self.end_lease(id) {
            let code = ErrorCode::StaleLease;
            self.send(&lease.node, CoordinatorMessage::Cancel { lease: id, code });
        }
    }

    pub(crate) fn finish_job(&mut self, id: JobId, output: JobOutput, receipt: Receipt) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (first, hedge) = (job.lease, job.hedge);
        if hedge == Some(receipt.lease) {
            // It ends as every lease does that is paid.
            self.end_lease(receipt.lease);
            if let Some(first) = first {
                self.outrun(first);
            }
        }
        if let Some((job, _)) = self.end_job(id) {
            job.feed.finished(output, receipt);
        }
    }

    /// Queues a job (again).
    pub(crate) fn enqueue(&mut self, id: JobId, again: bool) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.queued_since = Instant::now();
            self.router.enqueue(Waiting {
                job: id,
                model: job.spec.model().clone(),
                payer: job.payer.clone(),
                class: job.class,
                cost: cost_units(&job.spec),
                frontend: job.frontend.clone(),
                tried: job.tried.clone(),
                unable: job.unable.clone(),
                again,
                placement: job.placement.clone(),
            });
        }
    }

    /// Sets what a connected node can take, as one.
    pub(crate) fn set_node(&mut self, node: &NodeId, models: Vec<ModelId>, slots: u32) {
        let standing = self.sessions.get(node).map(|session| &session.standing);
        let memory_bytes = standing.map_or(0, |standing| standing.memory_bytes);
        self.set_units(node, vec![Announced::node(models, slots, memory_bytes)]);
    }

    /// Sets what the units of a connected node can take; which leases they hold is known here. A lease of
    /// a unit that is none any more counts for one that serves its model, or for the first.
    pub(crate) fn set_units(&mut self, node: &NodeId, mut units: Vec<Announced>) {
        for id in self.node_leases.get(node).into_iter().flatten() {
            let Some(lease) = self.leases.get_mut(id) else { continue };
            let same = units.iter().position(|unit| unit.id == lease.unit);
            let serves = |unit: &Announced| unit.models.contains(&lease.model);
            let at = same.or_else(|| units.iter().position(serves));
            if let Some(unit) = units.get_mut(at.unwrap_or(0)) {
                lease.unit = unit.id;
                unit.running.push(lease.model.clone());
            }
        }
        let standing = self.sessions.get(node).map(|session| session.standing.clone());
        self.router.set_node(node, units, standing.unwrap_or_default());
    }

    /// Whether the router counts every lease of a connected node where the lease says that it is.
    #[cfg(test)]
    pub(crate) fn units_agree(&self) -> bool {
        let known = self.sessions.keys().filter(|node| self.router.knows(node));
        known.into_iter().all(|node| {
            let mut held = BTreeMap::<Option<UnitId>, u32>::new();
            for id in self.node_leases.get(node).into_iter().flatten() {
                *held.entry(self.leases[id].unit).or_default() += 1;
            }
            let mut busy = self.router.busy_units(node);
            busy.retain(|_, busy| *busy > 0);
            busy == held
        })
    }

    /// What the results of a lease can be compared with bit by bit, and what its payer is told of where it
    /// was computed.
    pub(crate) fn class_of(&self, id: LeaseId) -> Option<String> {
        let lease = self.leases.get(&id)?;
        let session = || self.sessions.get(&lease.node).map(|session| session.fingerprint.clone());
        match (&lease.numeric_class, lease.unit) {
            (Some(class), _) => Some(class.clone()),
            (None, None) => session(),
            // Given before a restart: it is of the class of its unit, once that is announced again.
            (None, Some(_)) => self.router.class_of(&lease.place()).map(ToOwned::to_owned),
        }
    }

    /// Tells a node with a free slot why it has no job, if that changed.
    pub(crate) fn tell_no_job(&mut self, node: &NodeId) {
        let Some(why) = self.router.no_job(node) else { return };
        let Some(session) = self.sessions.get_mut(node).filter(|s| s.told != why) else { return };
        session.told = why.clone();
        self.send(node, CoordinatorMessage::NoJob(why));
    }

    /// Sends to a node's link; one that is too slow to take it is ended.
    pub(crate) fn send(&self, node: &NodeId, message: CoordinatorMessage) {
        let Some(session) = self.sessions.get(node) else { return };
        if session.outbox.try_send(Box::new(message)).is_err() {
            session.end.cancel();
        }
    }
}
