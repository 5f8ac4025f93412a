//! Start and Stop: from the press of the button to a miner that works, and back.
//!
//! Every Start begins a *run*: a task that prepares, mines until the miner ends, and gives the
//! model's memory back. Runs follow one another; a Stop while one prepares lets the next Start
//! begin at once, and the new run waits for its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use neurino_core::{FrontendId, JobKind, ModelId, Receipt};
use neurino_engine::ModelRef;
use neurino_miner::{ContentFilter, Miner, MinerConfig, MinerHandle, MinerState};
use neurino_protocol::app::{Event, StopMode};
use neurino_protocol::cards::NoCard;
use neurino_protocol::earnings::JobRecord;
use neurino_protocol::node::Capabilities;
use neurino_protocol::saying::Preparing;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::demand::Demand;
use crate::wallet::node_of;
use crate::{App, filter, internal, lock, now_ms, told_with_causes};

/// Pause of the practice network's own demand between two jobs.
const DEMAND_PAUSE: Duration = Duration::from_secs(6);

/// Whether and how this machine mines.
pub(crate) struct Mining {
    pub(crate) phase: Phase,
    pub(crate) since_ms: i64,
    /// The last run that was begun.
    run: Run,
    /// Start was pressed while the miner was ending, or the cards changed.
    pub(crate) start_again: bool,
    /// What ended the last run may pass by itself: it is tried again after a while.
    may_pass: bool,
}

/// How long after a run that ended for a lack of memory the next one is tried.
const RETRY_AFTER_MS: i64 = 10 * 60_000;
const TRIED_AGAIN: &str = "close other programs that use the memory, or choose a smaller model; it is tried again every ten minutes";

/// What a run does.
#[derive(Clone)]
pub(crate) enum Phase {
    /// Not mining.
    Off,
    /// Getting a model.
    Preparing(Preparing),
    /// No card may be used; one is waited for.
    NoCard(NoCard),
    /// The miner works.
    Running(Arc<MinerHandle>),
    /// The miner finishes its job.
    Finishing(Arc<MinerHandle>),
    /// The miner hands its job back.
    Stopping(Arc<MinerHandle>),
    /// Ended by something the person must see to.
    Problem(ErrorBody),
}

/// One run.
#[derive(Clone)]
struct Run {
    /// Tells it from the others.
    number: u64,
    /// Ends it.
    stop: CancellationToken,
    /// Cancelled when its miner has ended and the phase says so.
    ended: CancellationToken,
}

impl Mining {
    pub(crate) fn new(now_ms: i64) -> Self {
        let run =
            Run { number: 0, stop: CancellationToken::new(), ended: CancellationToken::new() };
        Self { phase: Phase::Off, since_ms: now_ms, run, start_again: false, may_pass: false }
    }

    /// The miner, while there is one.
    pub(crate) fn miner(&self) -> Option<Arc<MinerHandle>> {
        match &self.phase {
            Phase::Running(handle) | Phase::Finishing(handle) | Phase::Stopping(handle) => {
                Some(Arc::clone(handle))
            }
            Phase::Off | Phase::Preparing(_) | Phase::NoCard(_) | Phase::Problem(_) => None,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since_ms = now_ms();
    }

    /// Whether a problem that may pass by itself has lasted so long that it is tried again.
    fn retry_is_due(&self, now_ms: i64) -> bool {
        let lasts = matches!(self.phase, Phase::Problem(_)) && self.may_pass;
        // A clock that was set back is not waited for.
        lasts && !(0..RETRY_AFTER_MS).contains(&(now_ms - self.since_ms))
    }

    /// Whether the phase is this run's to change: it is the last one and nobody stopped it while
    /// it prepared.
    fn belongs_to(&self, run: &Run) -> bool {
        self.run.number == run.number && !matches!(self.phase, Phase::Off | Phase::Problem(_))
    }
}

impl App {
    /// Whether mining was started, or is on its way to be.
    pub(crate) fn is_mining(&self) -> bool {
        !matches!(lock(&self.mining).phase, Phase::Off | Phase::Problem(_))
    }

    /// Starts mining. A second press is no error; a press while the miner is ending takes effect
    /// when it has.
    pub(crate) fn mining_start(self: &Arc<Self>) -> Result<(), ErrorBody> {
        if self.end.is_cancelled() {
            return Err(ErrorBody::new(ErrorCode::Cancelled, "Neurino is closing."));
        }
        if self.library.is_moving() {
            // The decision says so, and mining begins when it has moved.
            return Ok(());
        }
        let run = {
            let mut mining = lock(&self.mining);
            match &mining.phase {
                Phase::Preparing(_) | Phase::NoCard(_) | Phase::Running(_) => return Ok(()),
                Phase::Finishing(_) | Phase::Stopping(_) => {
                    mining.start_again = true;
                    return Ok(());
                }
                Phase::Off | Phase::Problem(_) => {}
            }
            mining.run = Run {
                number: mining.run.number + 1,
                stop: self.end.child_token(),
                ended: CancellationToken::new(),
            };
            (mining.start_again, mining.may_pass) = (false, false);
            mining.enter(Phase::Preparing(Preparing::Looking));
            mining.run.clone()
        };
        self.changed.notify_one();
        let app = Arc::clone(self);
        self.tasks.spawn(async move { app.run(run).await });
        Ok(())
    }

    /// Stops mining. With [`StopMode::Now`] this returns when the running job has been handed
    /// back; with [`StopMode::Finish`] at once.
    pub(crate) async fn mining_stop(&self, mode: StopMode) {
        let ending = {
            let mut mining = lock(&self.mining);
            mining.start_again = false;
            match (mining.phase.clone(), mode) {
                (Phase::Preparing(_) | Phase::NoCard(_) | Phase::Problem(_), _) => {
                    mining.run.stop.cancel();
                    mining.enter(Phase::Off);
                    None
                }
                (Phase::Running(handle), StopMode::Finish) => {
                    handle.finish();
                    mining.enter(Phase::Finishing(handle));
                    None
                }
                (Phase::Running(handle) | Phase::Finishing(handle), StopMode::Now) => {
                    mining.enter(Phase::Stopping(Arc::clone(&handle)));
                    Some((handle, mining.run.ended.clone()))
                }
                (Phase::Stopping(handle), StopMode::Now) => {
                    Some((handle, mining.run.ended.clone()))
                }
                (Phase::Finishing(_) | Phase::Stopping(_), StopMode::Finish) | (Phase::Off, _) => {
                    None
                }
            }
        };
        self.changed.notify_one();
        if let Some((handle, ended)) = ending {
            handle.stop_now().await;
            ended.cancelled().await;
        }
    }

    /// One run: prepare, mine until the miner ends, tidy up.
    async fn run(self: Arc<Self>, run: Run) {
        // However this ends, nobody waits for it in vain.
        let _ended = run.ended.clone().drop_guard();
        let prepared = async {
            let turn = self.turn.lock().await;
            self.card_ready().await;
            (turn, self.prepare().await)
        };
        let (_turn, prepared) = tokio::select! {
            () = run.stop.cancelled() => return,
            prepared = prepared => prepared,
        };
        let outcome = match prepared {
            Ok(models) => self.mine(models, &run).await,
            Err(error) => Err(error),
        };
        if self.run_ended(&run, outcome) {
            // The new run waits until this one has tidied up.
            let _ = self.mining_start();
        }
        self.changed.notify_one();
        // Giving the memory back is part of stopping.
        match self.engine().unload().await {
            Ok(()) => self.forget_formers(true).await,
            Err(error) => warn!("the model could not be unloaded: {error}"),
        }
        self.changed.notify_one();
    }

    /// Enters the phase after a run; says whether to start again.
    fn run_ended(&self, run: &Run, outcome: Result<(), ErrorBody>) -> bool {
        let has_rules = lock(&self.guard).has_rules();
        let mut mining = lock(&self.mining);
        let again = mining.belongs_to(run) && std::mem::take(&mut mining.start_again);
        if mining.belongs_to(run) {
            match outcome {
                Ok(()) => mining.enter(Phase::Off),
                Err(error) => {
                    warn!(code = ?error.code, "mining ended: {error}");
                    // Its card may be gone.
                    self.cards_look();
                    mining.may_pass = has_rules && neurino_miner::lacks_memory(&error);
                    let error = if mining.may_pass { error.with_hint(TRIED_AGAIN) } else { error };
                    mining.enter(Phase::Problem(error));
                }
            }
        }
        run.ended.cancel();
        again
    }

    /// Finds verified models for the miner; fetches the starter models if there is none. The
    /// practice network asks for pictures too: its image model comes with the program.
    async fn prepare(self: &Arc<Self>) -> Result<Vec<ModelRef>, ErrorBody> {
        self.preparing(Preparing::Checking);
        let mut models = self.servable().await;
        if models.is_empty() && self.computes(JobKind::Text) {
            // A damaged one that comes back is what the person chose.
            let starter = self.being_repaired().unwrap_or_else(Self::starter_model);
            self.fetch_and_wait(&starter, |what| self.preparing(what)).await?;
            models.push(self.model_ref(&starter).await?);
        }
        let pictures = self.computes(JobKind::Image)
            && (self.network.is_practice() || !self.computes(JobKind::Text));
        if pictures && !models.iter().any(|m| self.makes_pictures(&m.id)) {
            let starter = Self::image_starter_model();
            self.preparing(Preparing::Unpacking);
            // Text is served without it; the list of models names what went wrong.
            let tell = |what| match what {
                Preparing::Paused { .. } => self.preparing(what),
                _ => self.preparing(Preparing::Unpacking),
            };
            match self.fetch_and_wait(&starter, tell).await {
                Ok(()) => models.extend(self.model_ref(&starter).await),
                Err(error) if error.code == ErrorCode::Cancelled || models.is_empty() => {
                    return Err(error);
                }
                Err(error) => warn!("the practice network makes no pictures: {error}"),
            }
        }
        Ok(models)
    }

    /// The verified models that the cards in use may compute.
    pub(crate) async fn servable(&self) -> Vec<ModelRef> {
        let mut models = Vec::new();
        for id in self.models_here() {
            // A card that is kept for pictures is not offered models that write, and so on.
            if !self.computes(self.kind_of(&id)) {
                continue;
            }
            // A damaged one is named in the list of models.
            models.extend(self.model_ref(&id).await);
        }
        models
    }

    /// Says that no card may be used and why, or that one may again.
    pub(crate) fn no_card(&self, why: Option<NoCard>) {
        {
            let mut mining = lock(&self.mining);
            match (&mining.phase, why) {
                (Phase::NoCard(now), Some(why)) if *now == why => return,
                (Phase::Preparing(_) | Phase::NoCard(_), Some(why)) => {
                    mining.enter(Phase::NoCard(why));
                }
                (Phase::NoCard(_), None) => mining.enter(Phase::Preparing(Preparing::Looking)),
                _ => return,
            }
        }
        self.changed.notify_one();
    }

    /// Other cards are to be used: running jobs are finished first, unless their cards are `lost`;
    /// then mining goes on with the new ones. Nothing happens where it does not mine.
    pub(crate) fn mine_anew(self: &Arc<Self>, lost: bool) {
        let mut again = false;
        {
            let mut mining = lock(&self.mining);
            match mining.phase.clone() {
                Phase::Running(handle) if lost => {
                    mining.start_again = true;
                    mining.enter(Phase::Stopping(Arc::clone(&handle)));
                    self.tasks.spawn(async move { handle.stop_now().await });
                }
                Phase::Running(handle) => {
                    handle.finish();
                    mining.start_again = true;
                    mining.enter(Phase::Finishing(handle));
                }
                Phase::Preparing(_) | Phase::Problem(_) => {
                    mining.run.stop.cancel();
                    mining.enter(Phase::Off);
                    again = true;
                }
                // Who waits for a card is told by the change itself.
                Phase::NoCard(_) | Phase::Off | Phase::Finishing(_) | Phase::Stopping(_) => {}
            }
        }
        if again {
            // Refused only while the application ends.
            let _ = self.mining_start();
        }
    }

    /// Whether a lack of memory is to be tried again.
    pub(crate) fn retry_is_due(&self) -> bool {
        lock(&self.mining).retry_is_due(now_ms())
    }

    /// Cards or driver changed: what the engine failed at may work now.
    pub(crate) fn mine_after_engine_problem(self: &Arc<Self>) {
        let failed = matches!(
            &lock(&self.mining).phase,
            Phase::Problem(error) if error.code == ErrorCode::EngineFailed
        );
        if failed {
            let _ = self.mining_start();
        }
    }

    /// Says what the preparation does, if it still runs.
    fn preparing(&self, what: Preparing) {
        if let Phase::Preparing(now) = &mut lock(&self.mining).phase {
            *now = what;
        }
        self.changed.notify_one();
    }

    /// Runs the miner until it ends.
    async fn mine(self: &Arc<Self>, models: Vec<ModelRef>, run: &Run) -> Result<(), ErrorBody> {
        let identity = self.identity();
        let mut config = MinerConfig {
            node: node_of(&identity),
            capabilities: self.capabilities(),
            models,
            image_models: self.image_models(),
            outbox_dir: self.dirs.outbox.join(self.network.folder()),
            receipts: Arc::clone(&self.receipts),
            filter: ContentFilter::default(),
            follow_advice: self.settings.jobs.follow_network,
            files: Some(Arc::new(crate::files::Library(self.store.clone()))),
            needs: self.needs(),
        };
        // News is listened to before anybody sees that the miner is ready and asks it for something.
        let (handle, receipts, ended) = {
            let mut mining = lock(&self.mining);
            if !mining.belongs_to(run) || run.stop.is_cancelled() {
                return Ok(());
            }
            // Under the lock that a change of it takes, so that none is missed.
            config.filter = filter::for_miner(&lock(&self.filter));
            let handle = Miner::start(
                config,
                self.network.for_miner(),
                self.engine(),
                Arc::clone(&identity.key),
            )
            .map_err(|e| internal(format!("mining cannot start: {}", told_with_causes(&e))))?;
            let handle = Arc::new(handle);
            let (receipts, ended) = (handle.receipts(), handle.ended());
            mining.enter(Phase::Running(Arc::clone(&handle)));
            (handle, receipts, ended)
        };
        info!("mining for {}", self.network.name());
        let stop_demand = run.stop.child_token();
        let demand = (self.practice_demand && self.network.is_practice()).then(|| {
            let (app, handle, stop) = (Arc::clone(self), Arc::clone(&handle), stop_demand.clone());
            self.tasks.spawn(async move { app.make_demand(&handle, &stop).await })
        });
        let outcome = self.follow(&handle, receipts, ended, &run.stop).await;
        stop_demand.cancel();
        if let Some(demand) = demand {
            // Its last job is withdrawn before the next run makes demand of its own.
            let _ = demand.await;
        }
        outcome
    }

    /// Passes the miner's news on until it ends, by itself or because of `stop`.
    async fn follow(
        &self,
        handle: &MinerHandle,
        mut receipts: broadcast::Receiver<Receipt>,
        mut ended: broadcast::Receiver<JobRecord>,
        stop: &CancellationToken,
    ) -> Result<(), ErrorBody> {
        let mut status = handle.status();
        let mut problem = None;
        loop {
            self.changed.notify_one();
            match &status.borrow_and_update().state {
                MinerState::Stopped => break,
                MinerState::NeedsYou { error } => problem = Some(error.clone()),
                _ => problem = None,
            }
            if problem.is_some() {
                handle.stop_now().await;
            }
            tokio::select! {
                () = stop.cancelled() => handle.stop_now().await,
                changed = status.changed() => if changed.is_err() { break },
                receipt = receipts.recv() => if let Ok(receipt) = receipt { self.settled(receipt) },
                job = ended.recv() => if let Ok(job) = job { self.records.job_ended(job) },
            }
        }
        while let Ok(receipt) = receipts.try_recv() {
            self.settled(receipt);
        }
        while let Ok(job) = ended.try_recv() {
            self.records.job_ended(job);
        }
        problem.map_or(Ok(()), Err)
    }

    fn settled(&self, receipt: Receipt) {
        lock(&self.view).settled(&receipt);
        // Refused only when nobody listens.
        let _ = self.events.send(Event::Settled(Box::new(receipt)));
    }

    /// The practice network's own payer: one job, a pause, the next.
    async fn make_demand(&self, handle: &MinerHandle, stop: &CancellationToken) {
        let Some(coordinator) = self.network.practice() else { return };
        let mut status = handle.status();
        let mut n = u64::from(self.receipts.totals(0).jobs);
        loop {
            let ready = status.wait_for(|s| matches!(s.state, MinerState::Waiting));
            tokio::select! {
                () = stop.cancelled() => return,
                ready = ready => if ready.is_err() { return },
            }
            let Some(demand) = Demand::of(&self.model_statuses(None)) else { return };
            let job = demand.job(n);
            n += 1;
            let payer = neurino_coordinator::PayerId::local();
            let watched = match coordinator.submit_job(payer, None, job).await {
                Ok(id) => coordinator.watch_job(id).await.map(|watch| (id, watch)),
                Err(error) => Err(error),
            };
            match watched {
                Ok((id, mut watch)) => tokio::select! {
                    () = stop.cancelled() => {
                        // Nobody would serve it any more; nothing is owed for it.
                        let _ = coordinator.cancel_job(id).await;
                        return;
                    }
                    _ = watch.finished() => {}
                },
                Err(error) => warn!("the practice network's own job was refused: {error}"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DEMAND_PAUSE) => {}
            }
        }
    }

    /// Memory that the models of the catalogue need at least.
    fn needs(&self) -> BTreeMap<ModelId, u64> {
        let catalog = self.store.catalog();
        catalog.models().iter().map(|model| (model.id.clone(), model.memory_bytes_min)).collect()
    }

    fn capabilities(&self) -> Capabilities {
        let named = self.settings.network.referred_by.as_deref();
        // A name that is no id names no frontend.
        let referred_by = || named.and_then(|name| FrontendId::new(name).ok());
        match self.used_gpu() {
            Some(gpu) => Capabilities {
                device: gpu.name.clone(),
                memory_bytes: gpu.memory_bytes.unwrap_or(0),
                gpu: true,
                referred_by: referred_by(),
            },
            None => Capabilities {
                device: self.hardware().cpu().name.clone(),
                memory_bytes: self.hardware().cpu().memory_bytes,
                gpu: false,
                referred_by: referred_by(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_tried_again_and_nothing_else_is() {
        let mut mining = Mining::new(0);
        let error = ErrorBody::new(ErrorCode::EngineFailed, "no room");
        mining.enter(Phase::Problem(error));
        mining.since_ms = 0;
        assert!(!mining.retry_is_due(RETRY_AFTER_MS), "the person must see to it");
        mining.may_pass = true;
        assert!(!mining.retry_is_due(RETRY_AFTER_MS - 1));
        assert!(mining.retry_is_due(RETRY_AFTER_MS));
        assert!(mining.retry_is_due(-1), "the clock was set back");
        mining.phase = Phase::Off;
        assert!(!mining.retry_is_due(RETRY_AFTER_MS));
    }
}
