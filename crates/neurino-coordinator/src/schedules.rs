//! Schedules that no network would dare: the real coordinator and its real books, driven step by step
//! from a seed. Messages are lost, doubled, delayed and reordered; nodes and the coordinator lose
//! power; the books fail before a commit, or after it with the answer lost.
//!
//! However it goes: a job that was accepted ends, exactly one result of it is paid if it succeeds and
//! none if it does not, and the books balance. A seed that breaks this is printed; with
//! `NEURINO_SCHEDULE_SEED=<seed>` it is run alone, with `NEURINO_SCHEDULES=<n>` so many are.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{
    ChatMessage, FinishReason, IdempotencyKey, JobId, JobOutput, JobSpec, Lease, LeaseId,
    MicroCredits, ModelId, NodeId, ResultStatement, Role, TextJob, TextOutput, Usage,
};
use neurino_ledger::PayerId;
use neurino_protocol::node::{
    Capabilities, CoordinatorMessage, Hello, ModelOffer, NodeMessage, PROTOCOL_VERSION, Ready,
    Submission,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::session::{NodeSession, Outbox};
use crate::{Coordinator, CoordinatorConfig, JobTerms, Limits, Prepaid, admin};

thread_local! {
    /// Seed and number of the next id, while a schedule runs on this thread.
    static IDS: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// The next id of the schedule that runs on this thread, if one does: ids decide orders.
pub(crate) fn next_id() -> Option<Uuid> {
    IDS.with(|ids| {
        let (seed, n) = ids.get()?;
        ids.set(Some((seed, n + 1)));
        Some(Uuid::from_u64_pair(seed, n))
    })
}

const MODELS: [&str; 2] = ["smollm2-135m-instruct", "hermes-3-llama3.1-8b"];
const STEPS: usize = 60;

/// A node and both directions of its network.
struct Node {
    key: IdentityKey,
    id: NodeId,
    session: Option<(NodeSession, Outbox)>,
    inbound: Vec<CoordinatorMessage>,
    to_coordinator: Vec<NodeMessage>,
    working: BTreeMap<LeaseId, Lease>,
    /// Its outbox on disk, which survives a power cut.
    unsettled: BTreeMap<LeaseId, Submission>,
}

/// A request whose sender repeats it until it hears yes or no.
struct Request {
    key: IdempotencyKey,
    payer: PayerId,
    terms: JobTerms,
    text: String,
    model: &'static str,
}

struct Schedule {
    rng: StdRng,
    folder: TempDir,
    runtime: Option<Runtime>,
    coordinator: Option<Arc<Coordinator>>,
    key: Arc<IdentityKey>,
    nodes: Vec<Node>,
    doubtful: Vec<Request>,
    accepted: BTreeSet<JobId>,
    requests: u32,
    crashes: u64,
    /// Set at the end: no more power cuts, which would mend what else is broken.
    is_calm: bool,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        IDS.with(|ids| ids.set(Some((seed, 1))));
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = (0..3).map(|n| {
            let key = IdentityKey::generate(&mut rng);
            let id = NodeId::new(format!("{}-n{n}", key.address())).expect("valid");
            Node {
                key,
                id,
                session: None,
                inbound: Vec::new(),
                to_coordinator: Vec::new(),
                working: BTreeMap::new(),
                unsettled: BTreeMap::new(),
            }
        });
        let nodes = nodes.collect();
        let key = Arc::new(IdentityKey::generate(&mut rng));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut schedule = Self {
            rng,
            folder,
            runtime: None,
            coordinator: None,
            key,
            nodes,
            doubtful: Vec::new(),
            accepted: BTreeSet::new(),
            requests: 0,
            crashes: 0,
            is_calm: false,
        };
        schedule.boot();
        let (database, runtime) = (schedule.database(), schedule.runtime());
        let lab = PayerId::new("lab").expect("valid");
        runtime
            .block_on(admin::deposit(&database, &lab, MicroCredits(60), "start"))
            .expect("a deposit");
        schedule
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("books.sqlite")
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is booted")
    }

    fn coordinator(&self) -> Arc<Coordinator> {
        Arc::clone(self.coordinator.as_ref().expect("it is booted"))
    }

    fn boot(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut config = CoordinatorConfig::practice(self.database(), Arc::clone(&self.key));
        config.limits = Limits { failures_max: 3, losses_max: 8, ..Limits::default() };
        config.seed = Some(self.rng.random());
        let coordinator = runtime.block_on(Coordinator::open_without_timers(config));
        self.coordinator = Some(coordinator.expect("the books open"));
        self.runtime = Some(runtime);
    }

    /// Cuts the coordinator's power: whatever was under way is gone, the books are as they are.
    fn crash(&mut self) {
        self.crashes += 1;
        for node in &mut self.nodes {
            // Sessions end with the process; dropping them must not reach a living coordinator.
            node.inbound.clear();
            node.to_coordinator.clear();
        }
        let coordinator = self.coordinator.take();
        let runtime = self.runtime.take();
        if let Some(coordinator) = &coordinator {
            coordinator.state().stopping = true;
            coordinator.store.cut_off();
        }
        drop(runtime);
        for node in &mut self.nodes {
            node.session = None;
        }
        drop(coordinator);
        self.boot();
    }

    /// Runs a step, and everything it set off, to its end; or, now and then, only for a moment, and
    /// then the power goes.
    fn run(&mut self, step: impl Future<Output = ()> + Send + 'static) {
        let coordinator = self.coordinator();
        if !self.is_calm && self.rng.random_ratio(1, 40) {
            let polls = self.rng.random_range(0..12);
            self.runtime().spawn(step);
            self.runtime().block_on(async {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
            });
            drop(coordinator);
            self.crash();
            return;
        }
        self.runtime().block_on(async {
            step.await;
            settle_down(&coordinator).await;
        });
        self.hear();
    }

    /// What the coordinator said goes on its way.
    fn hear(&mut self) {
        for node in &mut self.nodes {
            let Some((_, outbox)) = &mut node.session else { continue };
            while let Ok(message) = outbox.try_recv() {
                node.inbound.push(message);
            }
        }
    }

    fn step(&mut self) {
        let at = self.rng.random_range(0..self.nodes.len());
        match self.rng.random_range(0..100) {
            0..14 => self.ask(),
            14..17 => self.repeat(),
            17..20 => self.withdraw(),
            20..28 => self.connect(at),
            28..31 => self.disconnect(at),
            31..33 => self.power_cut(at),
            33..53 => self.deliver_to_node(at),
            53..73 => self.deliver_to_coordinator(at),
            73..87 => self.work(at),
            87..93 => self.pass_time(),
            93..95 => {
                let often = self.rng.random_range(0..300);
                let faults = StdRng::seed_from_u64(self.rng.random());
                self.coordinator().store.fail_at_random(faults, often);
            }
            95..97 => self.coordinator().store.fail_no_more(),
            _ => self.crash(),
        }
    }

    fn ask(&mut self) {
        self.requests += 1;
        let prepaid = self.rng.random_bool(0.4);
        let payer = if prepaid { "lab" } else { ["a", "b"][self.rng.random_range(0..2)] };
        let attempts_max = self.rng.random_bool(0.2).then_some(1);
        let terms = JobTerms {
            attempts_max,
            prepaid: prepaid.then(|| Prepaid { key: "k".into(), budget: None }),
            ..JobTerms::default()
        };
        self.doubtful.push(Request {
            key: IdempotencyKey::new(format!("r{}", self.requests)).expect("valid"),
            payer: PayerId::new(payer).expect("valid"),
            terms,
            text: format!("request {}", self.requests),
            model: MODELS[usize::from(self.rng.random_bool(0.3))],
        });
        self.repeat();
    }

    /// Sends a request that has no answer yet.
    fn repeat(&mut self) {
        let Some(at) = (0..self.doubtful.len()).choose(&mut self.rng) else { return };
        let request = self.doubtful.swap_remove(at);
        let coordinator = self.coordinator();
        let messages = vec![ChatMessage::new(Role::User, request.text.clone())];
        let mut job = TextJob::new(ModelId::new(request.model).expect("valid"), messages, 64);
        job.sampling.seed = 1;
        let (key, payer, terms) =
            (Some(request.key.clone()), request.payer.clone(), request.terms.clone());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.run(async move {
            let spec = JobSpec::Text(job);
            // Nobody listens after a crash.
            let _ = tell.send(coordinator.submit_on(payer, key, spec, terms).await);
        });
        match told.try_recv() {
            Ok(Ok(id)) => drop(self.accepted.insert(id)),
            Ok(Err(error)) if error.code == ErrorCode::InsufficientCredits => {}
            // Not known whether it was accepted: it is sent again.
            Ok(Err(_)) | Err(_) => self.doubtful.push(request),
        }
    }

    fn withdraw(&mut self) {
        let Some(job) = self.accepted.iter().choose(&mut self.rng).copied() else { return };
        let coordinator = self.coordinator();
        self.run(async move {
            // A failed withdrawal is one that did not happen, as far as its sender knows.
            let _ = coordinator.cancel_job(job).await;
        });
    }

    fn connect(&mut self, at: usize) {
        let coordinator = self.coordinator();
        let node = &mut self.nodes[at];
        let Ok(CoordinatorMessage::Challenge { network, nonce, .. }) = coordinator.challenge()
        else {
            return;
        };
        let message = Hello::message(&network, &node.id, &nonce);
        let hello = Hello {
            version: PROTOCOL_VERSION,
            node: node.id.clone(),
            nonce,
            signature: node.key.sign(&message),
            agent: "schedule".into(),
            capabilities: Capabilities {
                device: "none".into(),
                memory_bytes: 0,
                gpu: false,
                referred_by: None,
            },
        };
        let _inside = self.runtime.as_ref().expect("it is booted").enter();
        let opened = coordinator.open_session(&hello).expect("a good hello opens a session");
        node.session = Some(opened);
        // A new link: what was on the old one's way is gone.
        node.inbound.clear();
        node.to_coordinator.clear();
        let models = if at == 0 { &MODELS[..1] } else { &MODELS[..] };
        let models = models.iter().map(|m| ModelOffer::text(ModelId::new(*m).expect("valid")));
        let slots = 1 + u32::try_from(at).unwrap_or(0);
        node.to_coordinator.push(NodeMessage::Ready(Ready { models: models.collect(), slots }));
        node.beat();
        node.resend();
    }

    fn disconnect(&mut self, at: usize) {
        let session = self.nodes[at].session.take();
        self.run(async move { drop(session) });
        self.nodes[at].inbound.clear();
        self.nodes[at].to_coordinator.clear();
    }

    fn power_cut(&mut self, at: usize) {
        self.disconnect(at);
        self.nodes[at].working.clear();
    }

    /// One message, any of those on the way, arrives, arrives and comes again, or is lost.
    fn drawn<T: Clone>(rng: &mut StdRng, way: &mut Vec<T>) -> Option<T> {
        let at = (0..way.len()).choose(rng)?;
        match rng.random_range(0..10) {
            0 => {
                way.swap_remove(at);
                None
            }
            1 => Some(way[at].clone()),
            _ => Some(way.remove(at)),
        }
    }

    fn deliver_to_node(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(message) = Self::drawn(&mut self.rng, &mut node.inbound) else { return };
        match message {
            CoordinatorMessage::Assign(lease) => match node.unsettled.get(&lease.id) {
                Some(done) => node.to_coordinator.push(NodeMessage::Submit(done.clone())),
                None => drop(node.working.insert(lease.id, lease)),
            },
            CoordinatorMessage::Cancel { lease, .. } => drop(node.working.remove(&lease)),
            CoordinatorMessage::Settled(receipt) => drop(node.unsettled.remove(&receipt.lease)),
            CoordinatorMessage::Rejected { lease, .. } => drop(node.unsettled.remove(&lease)),
            _ => {}
        }
    }

    fn deliver_to_coordinator(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(message) = Self::drawn(&mut self.rng, &mut node.to_coordinator) else { return };
        // The session moves into the step and comes back, unless the power goes meanwhile.
        let Some((session, outbox)) = node.session.take() else { return };
        let (back, came) = std::sync::mpsc::sync_channel(1);
        self.run(async move {
            session.handle(message).await;
            let _ = back.send(session);
        });
        if let Ok(session) = came.try_recv()
            && self.coordinator().knows_session(&session)
        {
            self.nodes[at].session = Some((session, outbox));
            self.hear();
        }
    }

    fn work(&mut self, at: usize) {
        let what = self.rng.random_range(0..10);
        let node = &mut self.nodes[at];
        let lease = node.working.values().choose(&mut self.rng).cloned();
        match (what, lease) {
            (0..6, Some(lease)) => {
                node.working.remove(&lease.id);
                node.finish(&lease);
            }
            (6, Some(lease)) => {
                node.working.remove(&lease.id);
                let codes = [
                    ErrorCode::EngineFailed,
                    ErrorCode::ModelUnreadable,
                    ErrorCode::ContextTooLong,
                ];
                let code = codes[self.rng.random_range(0..3)];
                let error = ErrorBody::new(code, "so the schedule has it");
                node.to_coordinator.push(NodeMessage::Failed { lease: lease.id, error });
            }
            (7, Some(lease)) => {
                node.working.remove(&lease.id);
                let reason = "so the schedule has it".into();
                node.to_coordinator.push(NodeMessage::HandBack { lease: lease.id, reason });
            }
            (8, _) => node.resend(),
            _ => node.beat(),
        }
    }

    /// Moves everything that waits for a time closer to it, and lets the timers look.
    fn pass_time(&mut self) {
        let by = Duration::from_millis([50, 1_200, 12_000, 200_000][self.rng.random_range(0..4)]);
        let coordinator = self.coordinator();
        {
            let mut state = coordinator.state();
            for lease in state.leases.values_mut() {
                lease.deadline -= by;
                lease.assigned -= by;
                lease.kept_until = lease.kept_until.map(|until| until - by);
            }
            for job in state.jobs.values_mut() {
                job.queued_since -= by;
            }
            for served in state.last_served.values_mut() {
                *served -= by;
            }
        }
        self.run(async move { coordinator.tick() });
    }

    /// Everything works again, for as long as it takes: every accepted job must end.
    fn calm(&mut self) {
        self.is_calm = true;
        self.coordinator().store.fail_no_more();
        while !self.doubtful.is_empty() {
            self.repeat();
        }
        for round in 0..400 {
            // Crashes of the last steps are over; there are no new faults.
            self.coordinator().store.fail_no_more();
            let open: Vec<JobId> = self.coordinator().state().jobs.keys().copied().collect();
            if open.is_empty() && self.nodes.iter().all(|node| node.unsettled.is_empty()) {
                return;
            }
            for at in 0..self.nodes.len() {
                if self.nodes[at].session.is_none() {
                    self.connect(at);
                }
                for lease in std::mem::take(&mut self.nodes[at].working).into_values() {
                    self.nodes[at].finish(&lease);
                }
                self.nodes[at].resend();
                if round % 4 == 0 {
                    self.nodes[at].beat();
                }
                while !self.nodes[at].to_coordinator.is_empty() {
                    self.deliver_to_coordinator(at);
                    if self.nodes[at].session.is_none() {
                        break;
                    }
                }
                while !self.nodes[at].inbound.is_empty() {
                    self.deliver_to_node(at);
                }
            }
            if round % 3 == 2 {
                self.pass_time();
            }
        }
        let state = self.coordinator();
        let state = state.state();
        let open: Vec<_> =
            state.jobs.iter().map(|(id, job)| (*id, job.lease, job.closing)).collect();
        panic!("these jobs never end: {open:?}");
    }

    fn check(&mut self) {
        let coordinator = self.coordinator();
        let accepted = self.accepted.clone();
        self.runtime().block_on(async {
            settle_down(&coordinator).await;
            for id in accepted {
                let job = coordinator.store.job(id).await.expect("the books are read");
                let job =
                    job.unwrap_or_else(|| panic!("{id} was accepted and is not in the books"));
                assert!(job.state.is_terminal(), "{id} was accepted and is {:?}", job.state);
                let paid = job.receipt.is_some();
                let succeeded = job.state == neurino_core::JobState::Succeeded;
                assert_eq!(paid, succeeded, "{id} is {:?}", job.state);
            }
            let check = coordinator.store.ledger_check().await.expect("the books are read");
            assert!(check.holds(), "{check:#?}");
        });
        let state = coordinator.state();
        assert!(state.leases.is_empty(), "{} leases without a job", state.leases.len());
    }
}

impl Node {
    fn finish(&mut self, lease: &Lease) {
        let usage = Usage { prompt_tokens: 5, completion_tokens: 3 };
        let output = JobOutput::Text(TextOutput::single("done", FinishReason::Stop, usage));
        let statement = ResultStatement {
            job: lease.job,
            lease: lease.id,
            fence: lease.fence,
            node: self.id.clone(),
            digest: output.digest(),
        };
        let signature = self.key.sign(&statement.message());
        let submission = Submission { statement, signature, output };
        self.unsettled.insert(lease.id, submission.clone());
        self.to_coordinator.push(NodeMessage::Submit(submission));
    }

    fn resend(&mut self) {
        let all = self.unsettled.values().cloned();
        self.to_coordinator.extend(all.map(NodeMessage::Submit));
    }

    fn beat(&mut self) {
        let leases = self.working.keys().chain(self.unsettled.keys()).copied().collect();
        self.to_coordinator.push(NodeMessage::Heartbeat { leases });
    }
}

/// Waits until nothing is under way.
async fn settle_down(coordinator: &Arc<Coordinator>) {
    coordinator.tasks.close();
    coordinator.tasks.wait().await;
    coordinator.tasks.reopen();
}

fn run(seed: u64) {
    let done = std::panic::catch_unwind(|| {
        let mut schedule = Schedule::new(seed);
        for _ in 0..STEPS {
            schedule.step();
        }
        schedule.calm();
        schedule.check();
    });
    IDS.with(|ids| ids.set(None));
    if let Err(cause) = done {
        #[expect(clippy::print_stderr, reason = "whoever reads the failure needs the seed")]
        {
            eprintln!(
                "the schedule of seed {seed} fails; NEURINO_SCHEDULE_SEED={seed} runs it alone"
            );
        }
        std::panic::resume_unwind(cause);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_schedule_loses_a_job_or_pays_it_twice() {
    /// Seeds of an ordinary test run.
    const USUAL: u64 = 1_000;
    if let Some(seed) = number("NEURINO_SCHEDULE_SEED") {
        return run(seed);
    }
    let seeds = number("NEURINO_SCHEDULES").unwrap_or(USUAL);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || (first..seeds).step_by(threads as usize).for_each(run));
        }
    });
}
