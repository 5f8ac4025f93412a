//! The coordinator: its parts, their life from `open` to `shutdown`, and its read side.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use neurino_core::{
    ImageDefaults, JobId, JobKind, JobSpec, LeaseId, ModelId, Multiplier, NodeId, PriceError,
    PriceList, PriceLists, Receipt, ResponseFormat, RuleSet, RuleSets, TextJob,
};
use neurino_ledger::epoch::EpochEditions;
use neurino_protocol::app::PointsSummary;
use neurino_protocol::node::CoordinatorMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::admin_log::Act;
use crate::advice::AdviceBook;
use crate::audits::Audits;
use crate::blobs::Bucket;
use crate::books::{JobsOverview, LedgerCheck};
use crate::clock::Clock;
pub(crate) use crate::clock::now_ms;
use crate::config::{CoordinatorConfig, Limits};
use crate::decoder::Decoder;
use crate::demand::Demand;
use crate::edge::{EpochReads, LinkKey, Newcomers, Polls, RateLimits};
use crate::error::{CoordinatorError, shutting_down};
use crate::files::Files;
use crate::introduction::Tokens;
use crate::keys::Keys;
use crate::local::LocalCoordinator;
use crate::metrics::Metrics;
use crate::original::Miners;
use crate::router::Router;
use crate::standing::Settings;
use crate::state::{Begin, Client, LeasePhase, LiveJob, LiveLease, Makes, State};
use crate::store::{KeyFile, OpenJob, Store};
use crate::watch::Feed;

/// Receipts a slow reader of [`Coordinator::events`] may fall behind.
const EVENTS: usize = 256;
/// Longest wait for links and running writes when shutting down.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// Models of the machine that the coordinator runs on.
struct OwnModels {
    models: Vec<ModelId>,
    /// Those that make pictures, and what suits them.
    pictures: BTreeMap<ModelId, ImageDefaults>,
}

/// A network's server. Shared as an `Arc`; [`Coordinator::shutdown`] ends it.
pub struct Coordinator {
    pub(crate) config: CoordinatorConfig,
    pub(crate) rules: RuleSets,
    pub(crate) prices: PriceLists,
    /// What whoever runs the network sets.
    pub(crate) settings: Settings,
    pub(crate) rates: RateLimits,
    pub(crate) metrics: Metrics,
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    state: Mutex<State>,
    pub(crate) settled: broadcast::Sender<Receipt>,
    /// Links and writes that must run to their end.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the coordinator stops.
    pub(crate) stop: CancellationToken,
    /// The time that goes into the books.
    pub(crate) clock: Clock,
    last_settled_ms: AtomicI64,
    /// Until when nodes of before may still be on their way, with models that they alone know; none in
    /// books that were never worked with.
    pub(crate) returning_until: Option<tokio::time::Instant>,
    /// Sessions that are open by long poll.
    pub(crate) polls: Arc<Polls>,
    /// How many read epochs at once.
    pub(crate) epoch_reads: EpochReads,
    /// Sessions that addresses opened lately.
    pub(crate) newcomers: Newcomers,
    /// Vouchers that did not pay, and channels, that addresses had looked up lately.
    pub(crate) voucher_lookups: Newcomers,
    /// How many look channels up at once.
    pub(crate) voucher_reads: EpochReads,
    /// Makes links to pictures.
    pub(crate) links: LinkKey,
    /// Makes tokens for sessions.
    pub(crate) tokens: Tokens,
    /// Miners of the original protocol.
    pub(crate) miners: Miners,
    /// Results that are computed again, and what came of it.
    pub(crate) audits: Audits,
    /// Reads strangers' pictures.
    pub(crate) decoder: Arc<dyn Decoder>,
    /// Whether nodes have the files of what they offer.
    pub(crate) files: Files,
    /// What the network was asked for in the last hour.
    pub(crate) demand: Demand,
    own_models: RwLock<Arc<OwnModels>>,
    /// Leases whose pictures are being read from the bucket.
    pub(crate) delivered: Mutex<HashSet<LeaseId>>,
    /// Which model nodes should load.
    pub(crate) advice: AdviceBook,
}

impl Coordinator {
    /// Opens the books, brings open jobs back and starts the timers. Jobs that were leased keep
    /// their lease for a while, so that a node that comes back can still hand its result in.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn open(config: CoordinatorConfig) -> Result<Arc<Self>, CoordinatorError> {
        let coordinator = Box::pin(Self::open_without_timers(config)).await?;
        coordinator.spawn_timers();
        let this = Arc::clone(&coordinator);
        coordinator.tasks.spawn(async move {
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.store.superseded().cancelled() => this.step_down(),
            }
        });
        if coordinator.config.original {
            coordinator.spawn_original_sweep();
        }
        coordinator.note("started").await;
        Ok(coordinator)
    }

    /// The same, and nothing happens because time passes.
    pub(crate) async fn open_without_timers(
        config: CoordinatorConfig,
    ) -> Result<Arc<Self>, CoordinatorError> {
        let rules = RuleSets::built_in();
        let now = Timestamp::now();
        rules.at(&config.rule_set, now)?;
        let prices = PriceLists::built_in();
        prices.at(&config.price_list, now)?;
        if let Some(rules) = &config.epoch_rules {
            EpochEditions::named(rules)?;
        }
        let own = config.key.address();
        if let Some(bucket) = &config.bucket {
            bucket.check().await?;
        }
        let key_file = KeyFile { path: config.payload_key.clone(), renew: config.new_payload_key };
        let store = Store::open(&config.database, &config.network, &own, &key_file).await?;
        let store = store.with_bucket(config.bucket.clone());
        store.end_shredded().await?;
        let keys = Keys::new(store.keys().await?);
        let settings = Settings::read(&store).await?;
        let last_settled_ms = store.last_settled_ms().await?;
        let open = store.open_jobs().await?;
        let rng = config.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
        let mut router = Router::new(config.sample, config.model_memory_bytes.clone());
        if !config.practice {
            router = router.with_new_owners_holding(config.limits.new_owner_leases_max);
        }
        router.set_shareable(settings.shareable());
        let mut state = State::new(rng, router);
        let count = open.len();
        for job in open {
            restore(&mut state, job, &config.limits);
        }
        let audits =
            Audits::read(&store, &config.key, &config.network, config.audits.clone()).await?;
        let files = Files::read(&store).await?;
        let links = LinkKey::of(&config.key, &config.network);
        let tokens = Tokens::of(&config.key, &config.network);
        let miners = Miners::new(store.bindings().await?, &config.key, &config.network);
        let own_models = RwLock::new(Arc::new(OwnModels {
            models: config.own_models.clone(),
            pictures: config.image_models.clone(),
        }));
        let decoder = crate::decoder::of(config.decoder.as_ref());
        let returning = Duration::from_millis(config.limits.reconnect_grace_ms);
        let returning_until =
            (last_settled_ms > 0).then(|| tokio::time::Instant::now() + returning);
        let coordinator = Arc::new(Self {
            returning_until,
            own_models,
            decoder,
            config,
            rules,
            prices,
            settings,
            rates: RateLimits::default(),
            metrics: Metrics::default(),
            store,
            keys,
            state: Mutex::new(state),
            settled: broadcast::Sender::new(EVENTS),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            clock: Clock::new(now_ms(), std::time::Instant::now()),
            last_settled_ms: AtomicI64::new(last_settled_ms),
            polls: Arc::default(),
            epoch_reads: EpochReads::default(),
            newcomers: Newcomers::default(),
            voucher_lookups: Newcomers::default(),
            voucher_reads: EpochReads::default(),
            links,
            tokens,
            miners,
            audits,
            files,
            demand: Demand::default(),
            delivered: Mutex::default(),
            advice: AdviceBook::new(Instant::now()),
        });
        tracing::info!(
            network = %coordinator.config.network,
            jobs.open = count,
            "opened the books of network {}: {count} open jobs",
            coordinator.config.network,
        );
        Ok(coordinator)
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.config.network
    }

    /// Whether it is the built-in practice network.
    pub fn is_practice(&self) -> bool {
        self.config.practice
    }

    /// Where pictures are kept instead of a folder.
    pub fn bucket(&self) -> Option<&Bucket> {
        self.config.bucket.as_ref()
    }

    /// Address of the key that signs receipts.
    pub fn address(&self) -> String {
        self.config.key.address()
    }

    /// A node's way to this coordinator without a socket.
    pub fn local(self: &Arc<Self>) -> LocalCoordinator {
        LocalCoordinator::new(Arc::clone(self))
    }

    /// Receipts, newest first: of one node or of all, settled before a time in milliseconds since
    /// the Unix epoch, at most `limit` (up to 200). No two receipts share a time, so the last one's
    /// time asks for the next page.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn receipts(
        &self,
        node: Option<&NodeId>,
        before_ms: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Receipt>, ErrorBody> {
        let before_ms = before_ms.unwrap_or(i64::MAX);
        self.store.receipts(node, before_ms, limit.min(200)).await.map_err(|e| e.body())
    }

    /// Points of a node: in all, and as "today" since `since_ms` (milliseconds since the Unix
    /// epoch; the caller knows the local midnight).
    ///
    /// # Errors
    /// `Internal`.
    pub async fn points(&self, node: &NodeId, since_ms: i64) -> Result<PointsSummary, ErrorBody> {
        self.store.points(node, since_ms).await.map_err(|e| e.body())
    }

    /// Adds the books up.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn ledger_check(&self) -> Result<LedgerCheck, ErrorBody> {
        self.store.ledger_check().await.map_err(|e| e.body())
    }

    /// Jobs and nodes at this moment, from memory.
    pub fn jobs_overview(&self) -> JobsOverview {
        let state = self.state();
        let leased = state.jobs.values().filter(|j| j.lease.is_some()).count();
        JobsOverview {
            queued: state.jobs.len() - leased,
            leased,
            nodes: state.sessions.len(),
            models: self
                .known_models(&state)
                .into_iter()
                .map(|model| {
                    let nodes = state.router.serving(&model);
                    (model, nodes)
                })
                .collect(),
            units: state.router.units_by_kind(),
        }
    }

    /// How often the books were read or written since the start; for whoever measures what costs.
    pub fn store_calls(&self) -> u64 {
        self.store.calls()
    }

    /// Receipts as they are settled. A reader that falls 256 behind misses some; the books do not.
    pub fn events(&self) -> broadcast::Receiver<Receipt> {
        self.settled.subscribe()
    }

    /// Ends sessions, timers and the writer; everything acknowledged is on disk. Open jobs go on
    /// after the next `open`. Repeating it is free.
    pub async fn shutdown(&self) {
        self.step_down();
        self.count_uptime().await;
        self.note("stopped").await;
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some links did not end in time; closing the books anyway");
        }
        self.store.close().await;
        // Ends the watches: their feeds go with the jobs.
        self.state().jobs.clear();
    }

    /// Writes down that the coordinator starts or stops. The practice network is one person's own, and
    /// comes and goes with the window.
    async fn note(&self, what: &'static str) {
        if self.config.practice || self.is_superseded() {
            return;
        }
        let about =
            serde_json::json!({ "program": concat!("neurino/", env!("CARGO_PKG_VERSION")) });
        if let Err(error) = self.store.note(Act::done(what, about)).await {
            tracing::warn!(?error, "the log of acts does not know that this coordinator {what}");
        }
    }

    /// Whether another coordinator has taken the books over. Nothing is accepted, leased or paid here
    /// any more; `serve` has ended, and what is left to do is to shut this one down.
    pub fn is_superseded(&self) -> bool {
        self.store.superseded().is_cancelled()
    }

    /// Takes nothing new on, and says goodbye.
    fn step_down(&self) {
        {
            let mut state = self.state();
            state.stopping = true;
            for node in state.sessions.keys().cloned().collect::<Vec<_>>() {
                state.send(&node, CoordinatorMessage::Bye(shutting_down()));
            }
        }
        self.stop.cancel();
    }

    /// The memory. Sections are short and never await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst a stale cache: the books decide.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rule set that prices jobs now.
    pub(crate) fn rules_now(&self) -> Result<&RuleSet, PriceError> {
        self.rules.at(&self.config.rule_set, self.instant())
    }

    /// The price list that prices prepaid jobs now.
    pub(crate) fn prices_now(&self) -> Result<&PriceList, PriceError> {
        self.prices.at(&self.config.price_list, self.instant())
    }

    /// What a unit of work on a model counts by the network's rule set; `None` if it has no price.
    pub fn factor(&self, model: &ModelId, kind: JobKind) -> Option<Multiplier> {
        let rules = self.rules_now().ok()?;
        rules.quote(model, kind, 1, Multiplier::ONE).ok().map(|quote| quote.factor)
    }

    /// Whether the network's rule set has a price for such work on a model.
    pub(crate) fn prices(&self, model: &ModelId, kind: JobKind) -> bool {
        let rules = self.rules_now();
        rules.is_ok_and(|rules| match kind {
            JobKind::Text => rules.other_text.is_some() || rules.text.contains_key(model),
            JobKind::Image => rules.other_image.is_some() || rules.image.contains_key(model),
        })
    }

    /// What a model makes, as far as that is known.
    pub(crate) fn makes(&self, state: &State, model: &ModelId) -> Option<Makes> {
        self.listed(model).or_else(|| state.offered.get(model).cloned())
    }

    /// The same, of a model that this coordinator or a rule set lists.
    pub(crate) fn listed(&self, model: &ModelId) -> Option<Makes> {
        if let Some(usual) = self.of_this_machine().pictures.get(model) {
            return Some(Makes::Pictures(usual.clone()));
        }
        let writes = self.rules.rule_set.iter().any(|rules| rules.text.contains_key(model));
        writes.then_some(Makes::Text)
    }

    /// Models that somebody may ask for: those the rule set lists. Where it prices every model, also
    /// those any rule set lists, those of this machine, and those that a node serves or served
    /// lately.
    pub(crate) fn known_models(&self, state: &State) -> BTreeSet<ModelId> {
        let Ok(rules) = self.rules_now() else { return BTreeSet::new() };
        let here = self.of_this_machine();
        let mut known: BTreeSet<&ModelId> = rules.text.keys().chain(rules.image.keys()).collect();
        if rules.other_text.is_some() {
            known.extend(self.rules.rule_set.iter().flat_map(|rules| rules.text.keys()));
        }
        if rules.other_image.is_some() {
            known.extend(here.pictures.keys());
        }
        if rules.other_text.is_some() || rules.other_image.is_some() {
            known.extend(state.router.served().chain(state.last_served.keys()));
            known.extend(&here.models);
        }
        known.into_iter().cloned().collect()
    }

    /// Other models are on this machine now: takes the place of what [`CoordinatorConfig`] said of them.
    pub fn set_own_models(&self, models: Vec<ModelId>, pictures: BTreeMap<ModelId, ImageDefaults>) {
        let now = Arc::new(OwnModels { models, pictures });
        *self.own_models.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn of_this_machine(&self) -> Arc<OwnModels> {
        Arc::clone(&self.own_models.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time of a new receipt: now, but after every other receipt.
    pub(crate) fn settling_time_ms(&self) -> i64 {
        let now = self.time().ms;
        let before =
            self.last_settled_ms
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1)));
        let (Ok(last) | Err(last)) = before;
        now.max(last + 1)
    }

    /// Runs a future to its end even if the caller goes away: what it changes in the books must
    /// also reach the memory.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ErrorBody>> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        self.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a step ended badly");
            Err(ErrorBody::new(ErrorCode::Internal, "something broke inside the coordinator")
                .with_hint("its log has the cause"))
        })
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A fresh id that sorts by time.
pub(crate) fn fresh_id() -> Uuid {
    #[cfg(test)]
    if let Some(id) = crate::schedules::next_id() {
        return id;
    }
    Uuid::now_v7()
}

/// When a job was accepted, in seconds since the Unix epoch, as its id tells: a repeat of a request says the same.
pub(crate) fn accepted_s(job: JobId) -> i64 {
    let told = job.0.get_timestamp().and_then(|at| i64::try_from(at.to_unix().0).ok());
    told.unwrap_or_else(|| now_ms() / 1000)
}

/// Longest prompt, in tokens, that a job's messages can amount to: every token covers at least one
/// byte, and chat templates add a few words per message and an own introduction.
pub(crate) fn prompt_tokens_bound(spec: &JobSpec) -> u32 {
    let JobSpec::Text(job) = spec else { return 0 };
    // Templates introduce the model themselves only where the job does not.
    let introduced = job.messages.iter().any(|message| message.role == neurino_core::Role::System);
    let frames = if introduced { 64 } else { 256 } + 16 * job.messages.len();
    // Templates explain tools in words of their own, and some indent their schemas.
    let tools = if job.tools.is_empty() { 0 } else { 2048 + tool_bytes(job) };
    u32::try_from(prompt_bytes(job) + frames + tools).unwrap_or(u32::MAX)
}

/// Bytes of everything in a job that becomes part of its prompt.
pub(crate) fn prompt_bytes(job: &TextJob) -> usize {
    let said = job.messages.iter().map(|message| {
        let calls = message.tool_calls.iter();
        let calls = calls.map(|c| 32 + c.id.len() + c.name.len() + c.arguments.len());
        let about = message.tool_call_id.iter().chain(&message.name).map(String::len);
        message.content.len() + calls.sum::<usize>() + about.sum::<usize>()
    });
    said.sum::<usize>() + tool_bytes(job)
}

/// Bytes of the tools and of the answer's schema.
fn tool_bytes(job: &TextJob) -> usize {
    let json_bytes = |schema: &serde_json::Value| schema.to_string().len();
    let tools = job.tools.iter().map(|tool| {
        let description = tool.description.as_ref().map_or(0, String::len);
        64 + tool.name.len() + description + tool.parameters.as_ref().map_or(0, json_bytes)
    });
    let answer = match &job.response_format {
        ResponseFormat::Text => 0,
        ResponseFormat::JsonObject => 64,
        ResponseFormat::JsonSchema { schema } => 64 + json_bytes(schema),
    };
    tools.sum::<usize>() + answer
}

/// Brings a job back from the books.
pub(crate) fn restore(state: &mut State, job: OpenJob, limits: &Limits) {
    let now = Instant::now();
    let live = LiveJob {
        payer: job.payer,
        spec: Arc::new(job.spec),
        rule_set: job.rule_set,
        fence: job.last_fence,
        failures: job.failures,
        losses: job.losses,
        tried: Vec::new(),
        unable: Vec::new(),
        fault: None,
        objections: Vec::new(),
        hand_backs: 0,
        class: job.class,
        placement: job.placement.map(Arc::new),
        attempts_max: job.attempts_max,
        frontend: job.frontend,
        payment: job.payment,
        lease: None,
        hedge: None,
        speaker: None,
        queued_since: now,
        no_node_wait_ms: job.no_node_wait_ms,
        feed: Feed::new(),
        client: Client::Waits,
        patience: job.attended.then(|| limits.patience(job.has_key, true)),
        unwatched_since: None,
        admitted: true,
        closing: false,
    };
    if let Some(attempt) = &job.running {
        live.feed.leased(attempt.node.clone(), None);
    }
    let model = live.spec.model().clone();
    state.add_job(job.id, live);
    match job.running {
        None => state.enqueue(job.id, false),
        Some(attempt) => {
            // The wall clock decides how much is left; it may have jumped, so bound it.
            let left = u64::try_from(attempt.deadline_ms - now_ms()).unwrap_or(0);
            let budget = u64::try_from(attempt.deadline_ms - attempt.granted_at_ms).unwrap_or(0);
            let lease = LiveLease {
                job: job.id,
                node: attempt.node,
                unit: attempt.unit,
                model,
                numeric_class: None,
                fence: job.fence,
                phase: LeasePhase::Running,
                deadline: now + Duration::from_millis(left.min(budget)),
                granted_at_ms: attempt.granted_at_ms,
                session: None,
                assigned: now,
                restored: true,
                kept_until: Some(now + Duration::from_millis(limits.recovery_grace_ms)),
                gap: true,
                unheard: false,
                picture: None,
                // Whatever it said was said to another process.
                begin: Begin::Began,
            };
            state.add_lease(attempt.lease, lease);
        }
    }
}
