//! The miner's one task: it owns all state, and everything else reports to it.
//!
//! Connecting, loading and jobs are tasks of their own that send [`Inside`]; the loop never waits
//! for them, so heartbeats and a stop always get through. What the messages mean is in `work`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use neurino_client::{ClientError, Coordinator, Session};
use neurino_core::{ImageStep, JobKind, LeaseId, ModelId, Receipt, TextDelta, UnitId};
use neurino_engine::{Engine, EngineError, EngineStatus, ModelRef};
use neurino_protocol::ErrorBody;
use neurino_protocol::earnings::{JobOutcome, JobRecord};
use neurino_protocol::node::files::FileProof;
use neurino_protocol::node::{
    CoordinatorMessage, HEARTBEAT_SECS, IDLE_HEARTBEAT_SECS, ModelOffer, NoJob, NodeMessage, Ready,
    UPLOAD_BYTES_PER_SEC,
};
use neurino_wallet::IdentityKey;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::advice::Advised;
use crate::backoff::BackOff;
use crate::ends::{Ends, Times};
use crate::faults::Faults;
use crate::filter::ContentFilter;
use crate::job::{JobUpdate, Loaded, LoadedAt};
use crate::miner::{MinerConfig, Offers, Pace};
use crate::outbox::Outbox;
use crate::predict::{Marks, Predictor, Work};
use crate::status::{Counters, MinerState, MinerStatus, RunningJob, Stage};
use crate::talk::Talk;
use crate::units::{Taken, Units};

/// How long text is collected before it is sent on.
const FLUSH: Duration = Duration::from_millis(50);
/// How long an unanswered result waits before it is sent again, beyond what sending takes.
pub(crate) const RESEND: Duration = Duration::from_secs(10);
/// How long a finishing miner waits for the receipt of its last result, beyond what sending takes.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// How long the last messages of a session may take to leave.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_200);
/// A session that lived so long was a success; shorter ones count as failed attempts.
pub(crate) const SESSION_PROVEN: Duration = Duration::from_secs(10);
/// Room for reports of tasks.
const INSIDE_EVENTS: usize = 256;
/// Messages waiting for the link beyond which heartbeats and progress wait their turn.
pub(crate) const QUEUE_BUSY: usize = 32;
/// Messages waiting for the link beyond which the coordinator is not listened to: each of its words may be
/// one more answer that it does not take.
const QUEUE_MAX: usize = 256;
/// How long a coordinator may take nothing of so many, until it is left.
const TAKES_NOTHING: Duration = Duration::from_secs(10);

/// What the miner's own tasks report.
pub(crate) enum Inside {
    /// An attempt to connect ended.
    Connected(Result<Session, ClientError>),
    /// An attempt to load a model ended.
    Loaded(ModelRef, Result<LoadedAt, EngineError>),
    /// The same into the place of a unit, because the network advised it.
    LoadedAt(UnitId, ModelRef, Result<LoadedAt, EngineError>),
    /// The engine was told to forget its models, or that of a unit; whether it did.
    Unloaded(Option<UnitId>, bool),
    /// A job advanced.
    Job(LeaseId, JobUpdate),
    /// Pieces of a file were read.
    FileShown(FileProof),
}

/// A job in work.
pub(crate) struct Job {
    pub(crate) shown: RunningJob,
    /// The place of the engine that is to compute it, if it was given to a unit.
    pub(crate) place: Option<usize>,
    pub(crate) cancel: CancellationToken,
    /// What was generated and not sent yet, one for each answer.
    pub(crate) pending: Vec<TextDelta>,
    /// The newest step of a picture, if it was not sent yet.
    pub(crate) pending_step: Option<ImageStep>,
    /// Tokens at the last progress message.
    pub(crate) tokens_sent: u32,
    /// Where its time went so far.
    pub(crate) times: Times,
    /// What there is to do.
    pub(crate) work: Work,
    /// When how much of it was done.
    pub(crate) marks: Marks,
}

/// All of the miner's state.
pub(crate) struct Run {
    pub(crate) config: MinerConfig,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) outbox: Outbox,
    pub(crate) receipts: broadcast::Sender<Receipt>,
    pub(crate) ends: Ends,
    status: watch::Sender<MinerStatus>,
    /// How many further jobs are taken though the miner stays ready.
    pub(crate) pace: watch::Receiver<Pace>,
    /// What is served from now on, once that changed.
    offers: watch::Receiver<Option<Offers>>,
    /// Which jobs are refused.
    pub(crate) filter: watch::Receiver<ContentFilter>,
    /// How long jobs take here.
    pub(crate) predictor: Predictor,
    /// The cards one by one.
    pub(crate) units: Units,
    /// Which model the network would like to be loaded.
    pub(crate) advised: Advised,
    /// Whether pieces of a file are being read.
    pub(crate) showing: bool,

    pub(crate) session: Option<Session>,
    pub(crate) opened_at: Instant,
    /// How much the coordinator may still say.
    pub(crate) talk: Talk,
    pub(crate) network: Option<String>,
    /// When each unsettled result was last handed to this session.
    pub(crate) sent_at: HashMap<LeaseId, Instant>,
    /// Messages waiting for room on the link.
    pub(crate) queue: VecDeque<NodeMessage>,
    announced: Option<Ready>,
    /// In order of arrival, which lease ids do not have; keyed by a rising number.
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) jobs_seen: u64,
    /// The model in the engine while it is fit for work.
    pub(crate) ready: Option<ModelId>,
    /// Jobs it takes at once.
    pub(crate) engine_slots: u32,
    /// The model being loaded, or to be loaded at `load_at`.
    pub(crate) loading: ModelRef,
    pub(crate) engine_status: watch::Receiver<EngineStatus>,
    /// Set when no model can be loaded without the person; nothing is announced then.
    pub(crate) engine_needs_you: Option<ErrorBody>,
    /// Set while the coordinator refuses this node.
    pub(crate) link_needs_you: Option<ErrorBody>,
    pub(crate) problem: Option<ErrorBody>,
    /// Why the network has no job for this node.
    pub(crate) no_job: Option<NoJob>,
    pub(crate) connect_error: Option<ErrorBody>,
    pub(crate) load_error: Option<ErrorBody>,
    pub(crate) counters: Counters,
    pub(crate) finishing: bool,

    pub(crate) link_back_off: BackOff,
    pub(crate) engine_back_off: BackOff,
    /// Failures of the engine, by model.
    pub(crate) faults: Faults,
    /// What was given up because the engine kept failing; said until mining starts anew.
    pub(crate) stepped_down: Option<ErrorBody>,
    /// Next attempts; `None` while one is under way or none is due.
    pub(crate) connect_at: Option<Instant>,
    pub(crate) load_at: Option<Instant>,
    beat_at: Option<Instant>,
    flush_at: Option<Instant>,
    resend_at: Option<Instant>,
    settle_by: Option<Instant>,
    /// When a coordinator is left that takes nothing.
    stuck_by: Option<Instant>,

    pub(crate) inside: mpsc::Sender<Inside>,
    events: mpsc::Receiver<Inside>,
    pub(crate) tasks: JoinSet<()>,
}

/// What its handle tells a miner: pace, offers, filter.
type Told =
    (watch::Receiver<Pace>, watch::Receiver<Option<Offers>>, watch::Receiver<ContentFilter>);

/// Why the loop woke up.
enum Wake {
    Stop,
    Finish,
    Link(Option<CoordinatorMessage>),
    Inside(Inside),
    Engine,
    /// Other models are served.
    Offers,
    /// A timer, or a message left.
    Tick,
}

impl Run {
    #[expect(clippy::too_many_arguments, reason = "each is a part that its caller made")]
    pub(crate) fn new(
        config: MinerConfig,
        coordinator: Arc<dyn Coordinator>,
        engine: Arc<dyn Engine>,
        key: Arc<IdentityKey>,
        outbox: Outbox,
        status: watch::Sender<MinerStatus>,
        (receipts, ends): (broadcast::Sender<Receipt>, broadcast::Sender<JobRecord>),
        (pace, offers, filter): Told,
    ) -> Self {
        let (inside, events) = mpsc::channel(INSIDE_EVENTS);
        let loading = config.models[0].clone();
        let now = Instant::now();
        Self {
            config,
            coordinator,
            key,
            engine_status: engine.status(),
            units: Units::of(&*engine),
            loaded: Arc::new(Loaded::new(engine)),
            outbox,
            receipts,
            ends: Ends::new(ends),
            status,
            pace,
            offers,
            filter,
            predictor: Predictor::default(),
            advised: Advised::default(),
            showing: false,
            session: None,
            opened_at: now,
            talk: Talk::new(now),
            network: None,
            sent_at: HashMap::new(),
            queue: VecDeque::new(),
            announced: None,
            jobs: BTreeMap::new(),
            jobs_seen: 0,
            ready: None,
            engine_slots: 1,
            loading,
            engine_needs_you: None,
            link_needs_you: None,
            problem: None,
            no_job: None,
            connect_error: None,
            load_error: None,
            counters: Counters::default(),
            finishing: false,
            link_back_off: BackOff::default(),
            engine_back_off: BackOff::default(),
            faults: Faults::default(),
            stepped_down: None,
            connect_at: Some(now),
            load_at: Some(now),
            beat_at: None,
            flush_at: None,
            resend_at: None,
            settle_by: None,
            stuck_by: None,
            inside,
            events,
            tasks: JoinSet::new(),
        }
    }

    /// Works until told to stop, or to finish and everything is finished.
    pub(crate) async fn until_stopped(
        mut self,
        stop: CancellationToken,
        finish: CancellationToken,
    ) {
        self.engine_status.mark_unchanged();
        loop {
            self.follow_advice();
            self.on_timers();
            self.announce();
            self.publish();
            if self.finishing && self.is_finished() {
                break;
            }
            match self.wake(&stop, &finish).await {
                Wake::Stop => break,
                Wake::Finish => self.finishing = true,
                Wake::Link(Some(message)) => self.on_message(message).await,
                Wake::Link(None) => self.on_link_closed(),
                Wake::Inside(Inside::Connected(result)) => self.on_connected(result),
                Wake::Inside(Inside::Loaded(model, result)) => self.on_loaded(&model, result),
                Wake::Inside(Inside::LoadedAt(unit, model, result)) => {
                    self.on_loaded_at(unit, &model, result);
                }
                Wake::Inside(Inside::Unloaded(unit, done)) => self.on_unloaded(unit, done),
                Wake::Inside(Inside::FileShown(proof)) => self.on_file_shown(proof),
                Wake::Inside(Inside::Job(lease, update)) => self.on_job(lease, update),
                Wake::Engine => self.on_engine_status(),
                Wake::Offers => self.on_offers(),
                Wake::Tick => {}
            }
        }
        self.close().await;
    }

    async fn wake(&mut self, stop: &CancellationToken, finish: &CancellationToken) -> Wake {
        while self.tasks.try_join_next().is_some() {}
        let timer = [self.connect_at, self.load_at, self.beat_at, self.flush_at, self.resend_at]
            .into_iter()
            .chain([self.settle_by, self.stuck_by])
            .flatten()
            .min();
        let listens = self.queue.len() < QUEUE_MAX;
        let (messages, outbox) = match &mut self.session {
            Some(session) => {
                (Some(&mut session.messages).filter(|_| listens), Some(&session.outbox))
            }
            None => (None, None),
        };
        let received = async {
            match messages {
                Some(messages) => messages.recv().await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match outbox {
                Some(outbox) if !self.queue.is_empty() => outbox.reserve().await,
                _ => std::future::pending().await,
            }
        };
        let due = async {
            match timer {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            () = finish.cancelled(), if !self.finishing => Wake::Finish,
            message = received => Wake::Link(message),
            room = room => match room {
                Ok(room) => {
                    if let Some(message) = self.queue.pop_front() {
                        room.send(message);
                        self.stuck_by = None;
                    }
                    Wake::Tick
                }
                Err(_) => Wake::Link(None),
            },
            Some(event) = self.events.recv() => Wake::Inside(event),
            Ok(()) = self.engine_status.changed() => Wake::Engine,
            Ok(()) = self.pace.changed() => Wake::Tick,
            Ok(()) = self.offers.changed() => Wake::Offers,
            () = due => Wake::Tick,
        }
    }

    /// Takes over what is served from now on.
    fn on_offers(&mut self) {
        let Some(Offers { models, image_models }) = self.offers.borrow_and_update().clone() else {
            return;
        };
        // A job may have brought another model into memory than the one that was loaded first.
        let held = self.ready.as_ref().unwrap_or(&self.loading.id);
        let stays = models.iter().find(|model| model.id == *held).cloned();
        let stays = stays.filter(|model| !self.faults.dropped(&model.id));
        self.config.models = self.faults.without_dropped(models);
        self.config.image_models = image_models;
        // A model that came may be one that can be loaded.
        let stuck = self.engine_needs_you.take().is_some();
        match stays {
            Some(held) if !stuck => self.loading = held,
            _ => {
                self.ready = None;
                self.loading = self.config.models[0].clone();
                self.load_at = Some(Instant::now());
            }
        }
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.connect_at) {
            self.connect();
        }
        if due(&mut self.load_at) {
            self.load();
        }
        if due(&mut self.beat_at) {
            self.beat();
        }
        if due(&mut self.flush_at) {
            self.flush();
        }
        if due(&mut self.resend_at) {
            self.submit_all();
        }
        if self.session.is_none() || self.queue.len() < QUEUE_MAX {
            self.stuck_by = None;
        } else if now >= *self.stuck_by.get_or_insert(now + TAKES_NOTHING) {
            self.leave(crate::talk::takes_nothing());
        }
    }

    fn connect(&mut self) {
        let (coordinator, key) = (self.coordinator.clone(), self.key.clone());
        let (node, capabilities) = (self.config.node.clone(), self.config.capabilities.clone());
        let inside = self.inside.clone();
        self.tasks.spawn(async move {
            let result = coordinator.connect(&key, &node, &capabilities).await;
            // Refused only when the miner is gone; the session then closes as it is dropped.
            let _ = inside.send(Inside::Connected(result)).await;
        });
    }

    fn load(&mut self) {
        let (loaded, model) = (self.loaded.clone(), self.loading.clone());
        let inside = self.inside.clone();
        self.tasks.spawn(async move {
            let result = loaded.load(&model).await;
            let _ = inside.send(Inside::Loaded(model, result)).await;
        });
    }

    /// Names the leases in work, so that the coordinator gives none of them to somebody else.
    pub(crate) fn beat(&mut self) {
        if self.session.is_none() {
            return;
        }
        if self.queue.len() < QUEUE_BUSY {
            let leases = self.jobs.values().map(|job| job.shown.lease).collect();
            self.queue.push_back(NodeMessage::Heartbeat { leases });
        }
        self.beat_at = Some(Instant::now() + self.pause_of_beats());
    }

    /// How long until the coordinator expects the next heartbeat.
    fn pause_of_beats(&self) -> Duration {
        let idle = self.jobs.is_empty() && self.resend_at.is_none();
        let secs = if idle { IDLE_HEARTBEAT_SECS } else { HEARTBEAT_SECS };
        Duration::from_secs(secs)
    }

    /// Has the next heartbeat come as soon as one is expected of a node with leases.
    pub(crate) fn beat_as_busy(&mut self) {
        let due = Instant::now() + Duration::from_secs(HEARTBEAT_SECS);
        self.beat_at = self.beat_at.map(|at| at.min(due));
    }

    /// Has the pending text sent within [`FLUSH`].
    pub(crate) fn flush_soon(&mut self) {
        self.flush_at.get_or_insert(Instant::now() + FLUSH);
    }

    /// Sends the pending text of all jobs; without a session it waits for the next one.
    fn flush(&mut self) {
        if self.session.is_none() {
            return;
        }
        if self.queue.len() >= QUEUE_BUSY {
            return self.flush_soon();
        }
        for job in self.jobs.values_mut() {
            self.queue.extend(job.progress());
        }
    }

    /// Sends every unsettled result of this session's network that is not just on its way.
    pub(crate) fn submit_all(&mut self) {
        let Some(session) = &self.session else { return };
        let (now, again) = (Instant::now(), RESEND + self.upload(&session.network));
        let waiting = self.outbox.of_network(&session.network);
        if waiting.is_empty() {
            self.resend_at = None;
            return;
        }
        if self.queue.len() < QUEUE_BUSY {
            for finished in waiting {
                let sent = self.sent_at.get(&finished.lease());
                if sent.is_none_or(|sent| now.duration_since(*sent) >= again) {
                    self.sent_at.insert(finished.lease(), now);
                    self.talk.answered();
                    self.queue.push_back(NodeMessage::Submit(finished.submission.clone()));
                }
            }
        }
        self.resend_at = Some(now + RESEND);
    }

    /// How long the unsettled results may take on a slow line.
    fn upload(&self, network: &str) -> Duration {
        let seconds = self.outbox.upload_bytes(network) / UPLOAD_BYTES_PER_SEC;
        Duration::from_secs(seconds as u64)
    }

    /// Has unanswered results sent again after a while.
    pub(crate) fn resend_later(&mut self) {
        self.resend_at.get_or_insert(Instant::now() + RESEND);
    }

    /// Tells the coordinator what this node takes, when that changed.
    fn announce(&mut self) {
        if self.session.is_none() {
            self.announced = None;
            return;
        }
        let Some(first) = self.ready.as_ref().or(self.announced.as_ref().map(|_| &self.loading.id))
        else {
            // Nothing was promised yet, so there is nothing to take back.
            return;
        };
        let others = self.config.models.iter().map(|m| &m.id).filter(|id| *id != first);
        let offer = |id: &ModelId| ModelOffer {
            id: id.clone(),
            image: self.config.image_models.get(id).cloned(),
        };
        let models: Vec<ModelOffer> = std::iter::once(first).chain(others).map(offer).collect();
        let pace = *self.pace.borrow();
        let held = self.finishing || pace.held || self.advised.holds_jobs();
        let open = self.ready.is_some() && !held && self.engine_needs_you.is_none();
        let most = if pace.alone { 1 } else { u32::MAX };
        let slots = if open { self.slots().min(most) } else { 0 };
        let (cold, advised) = (self.advised.cold, self.config.follow_advice);
        let shows_files = self.config.files.is_some();
        let taken = Taken {
            open,
            most: if self.engine_back_off.failures() > 0 { 1 } else { u32::MAX },
            alone: pace.alone,
            held: &self.advised.held_units(),
            models: &self.config.models,
            needs: &self.config.needs,
        };
        let units = self.units.announced(&*self.loaded.engine, &taken);
        let ready = Ready { models, slots, cold, advised, scores: true, shows_files, units };
        if self.announced.as_ref() != Some(&ready) {
            self.queue.push_back(NodeMessage::Ready(ready.clone()));
            self.announced = Some(ready);
        }
    }

    /// Jobs this node takes at once: what the engine takes. After a failure that is the engine's,
    /// one at a time until one succeeds: a job that makes the engine fail takes no others along.
    pub(crate) fn slots(&self) -> u32 {
        let careful = self.engine_back_off.failures() > 0 || self.faults.is_gentle();
        if careful { 1 } else { self.engine_slots.max(1) }
    }

    /// The same of a place.
    pub(crate) fn slots_at(&self, place: usize) -> u32 {
        if self.engine_back_off.failures() > 0 { 1 } else { self.units.slots(place) }
    }

    fn publish(&self) {
        let shown = || self.jobs.values().map(|job| &job.shown);
        let computed = shown().find(|job| job.stage != Stage::Sending);
        let oldest = computed.or_else(|| shown().next()).cloned();
        self.show(self.state(), oldest, self.jobs.len());
    }

    fn state(&self) -> MinerState {
        if self.finishing {
            return MinerState::Finishing;
        }
        if let Some(error) = self.engine_needs_you.as_ref().or(self.link_needs_you.as_ref()) {
            return MinerState::NeedsYou { error: error.clone() };
        }
        // Waits are shown as they were set, not as they shrink, so that the state stays the same.
        if !self.jobs.is_empty() {
            MinerState::Working
        } else if self.session.is_none() && (self.ready.is_some() || self.connect_error.is_some()) {
            MinerState::Connecting {
                attempt: self.link_back_off.failures() + 1,
                wait_ms: self.connect_at.map_or(0, |_| self.link_back_off.pause_ms()),
                error: self.connect_error.clone(),
            }
        } else if self.ready.is_none() {
            MinerState::LoadingModel {
                model: self.loading.id.clone(),
                wait_ms: self.load_at.map_or(0, |_| self.engine_back_off.pause_ms()),
                error: self.load_error.clone(),
            }
        } else {
            MinerState::Waiting
        }
    }

    fn show(&self, state: MinerState, job: Option<RunningJob>, jobs: usize) {
        let before = self.status.borrow();
        let since_ms = if before.state == state { before.since_ms } else { now_ms() };
        drop(before);
        let status = MinerStatus {
            state,
            since_ms,
            connected: self.session.is_some(),
            network: self.network.clone(),
            job,
            jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
            unsettled: u32::try_from(self.outbox.len()).unwrap_or(u32::MAX),
            unsettled_since_ms: self.outbox.oldest_ms(),
            problem: self.problem.clone().or_else(|| self.stepped_down.clone()),
            no_job: self.no_job.clone(),
            advice: self.advised.followed.clone(),
            counters: self.counters,
        };
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    /// Whether a finishing miner has nothing left to wait for.
    fn is_finished(&mut self) -> bool {
        if self.jobs.values().any(|job| job.shown.stage != Stage::Sending) {
            self.settle_by = None;
            return false;
        }
        let upload = self.network.as_deref().map_or(Duration::ZERO, |n| self.upload(n));
        let by = *self.settle_by.get_or_insert(Instant::now() + SETTLE_LIMIT + upload);
        self.jobs.is_empty() || Instant::now() >= by
    }

    /// Hands back what is unfinished, says goodbye, and lets the link take both.
    async fn close(mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        for job in jobs.values().filter(|job| job.shown.stage != Stage::Sending) {
            job.cancel.cancel();
            self.counters.handed_back += 1;
            let reason = "the miner was stopped".to_owned();
            self.ends.unpaid(job, JobOutcome::HandedBack, Some(reason.clone()));
            self.queue.push_back(NodeMessage::HandBack { lease: job.shown.lease, reason });
        }
        self.queue.push_back(NodeMessage::Goodbye);
        if let Some(session) = self.session.take() {
            let closing = self.say_goodbye(session);
            if tokio::time::timeout(CLOSE_LIMIT, closing).await.is_err() {
                tracing::warn!("the coordinator did not take the last messages in time");
            }
        }
        self.tasks.abort_all();
        self.show(MinerState::Stopped, None, 0);
    }

    async fn say_goodbye(&mut self, session: Session) {
        let Session { network, coordinator, outbox, mut messages } = session;
        // Text nobody waits for any more would only delay what matters.
        self.queue.retain(|message| !matches!(message, NodeMessage::Progress { .. }));
        for message in std::mem::take(&mut self.queue) {
            if outbox.send(message).await.is_err() {
                return;
            }
        }
        // With the sender gone the link sends what it holds and ends, and so do the messages.
        drop(outbox);
        while let Some(message) = messages.recv().await {
            match message {
                CoordinatorMessage::Settled(receipt) => {
                    self.on_settled(receipt, &coordinator, &network).await;
                }
                CoordinatorMessage::Accepted { lease } => self.on_accepted(lease),
                _ => {}
            }
        }
    }
}

impl Job {
    /// The progress message for what was generated since the last one, if anything was.
    pub(crate) fn progress(&mut self) -> Option<NodeMessage> {
        let (lease, step) = (self.shown.lease, self.pending_step.take());
        let tokens = if self.shown.kind == JobKind::Text { self.shown.done } else { 0 };
        if self.pending.is_empty() && self.tokens_sent == tokens && step.is_none() {
            return None;
        }
        self.tokens_sent = tokens;
        let deltas = std::mem::take(&mut self.pending);
        Some(NodeMessage::Progress { lease, deltas, tokens, step })
    }

    /// Keeps a picture's step until the next progress message, with the newest preview that waits.
    pub(crate) fn step(&mut self, mut step: ImageStep) {
        if step.preview.is_none() {
            step.preview = self.pending_step.take().and_then(|waiting| waiting.preview);
        }
        self.pending_step = Some(step);
    }

    /// Keeps a piece until the next progress message, joined with what waits of its answer.
    pub(crate) fn add(&mut self, delta: TextDelta) {
        match self.pending.iter_mut().find(|waiting| waiting.choice == delta.choice) {
            Some(waiting) => waiting.append(delta),
            None => self.pending.push(delta),
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
