//! Start and Stop: from the press of the button to a miner that works, and back.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::ModelId;
use neurino_engine::ModelRef;
use neurino_miner::{Miner, MinerConfig, MinerHandle, MinerState};
use neurino_protocol::app::{Event, StopMode};
use neurino_protocol::node::Capabilities;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{App, demand, internal, lock, now_ms};

/// Jobs that one engine takes at once.
const SLOTS: u32 = 1;
/// Pause of the practice network's own demand between two jobs.
const DEMAND_PAUSE: Duration = Duration::from_secs(6);

/// Whether and how this machine mines.
pub(crate) struct Mining {
    pub(crate) phase: Phase,
    pub(crate) since_ms: i64,
    /// Ends whatever the present run started.
    run: CancellationToken,
    /// Start was pressed while the last job was being finished.
    start_again: bool,
}

/// A step of one run.
#[derive(Clone)]
pub(crate) enum Phase {
    /// Not mining.
    Off,
    /// Getting a model; the words say what is happening.
    Preparing(String),
    /// The miner works.
    Running(Arc<MinerHandle>),
    /// The miner finishes its job.
    Finishing(Arc<MinerHandle>),
    /// Ended by something the person must see to.
    Problem(ErrorBody),
}

impl Mining {
    pub(crate) fn new(now_ms: i64) -> Self {
        Self {
            phase: Phase::Off,
            since_ms: now_ms,
            run: CancellationToken::new(),
            start_again: false,
        }
    }

    /// The miner, while there is one.
    pub(crate) fn miner(&self) -> Option<Arc<MinerHandle>> {
        match &self.phase {
            Phase::Running(handle) | Phase::Finishing(handle) => Some(Arc::clone(handle)),
            Phase::Off | Phase::Preparing(_) | Phase::Problem(_) => None,
        }
    }
}

impl App {
    /// Starts mining. A second press is no error; a press while the last job is being finished
    /// takes effect when it is.
    pub(crate) fn mining_start(self: &Arc<Self>) -> Result<(), ErrorBody> {
        if self.end.is_cancelled() {
            return Err(ErrorBody::new(ErrorCode::Cancelled, "Neurino is closing."));
        }
        let run = {
            let mut mining = lock(&self.mining);
            match &mining.phase {
                Phase::Preparing(_) | Phase::Running(_) => return Ok(()),
                Phase::Finishing(_) => {
                    mining.start_again = true;
                    return Ok(());
                }
                Phase::Off | Phase::Problem(_) => {}
            }
            mining.run = self.end.child_token();
            mining.start_again = false;
            mining.phase = Phase::Preparing("looking at the models on this machine".into());
            mining.since_ms = now_ms();
            mining.run.clone()
        };
        self.changed.notify_one();
        let app = Arc::clone(self);
        self.tasks.spawn(async move { app.run(run).await });
        Ok(())
    }

    /// Stops mining. With [`StopMode::Now`] this returns when the running job has been handed
    /// back; with [`StopMode::Finish`] at once.
    pub(crate) async fn mining_stop(self: &Arc<Self>, mode: StopMode) {
        let handle = {
            let mut mining = lock(&self.mining);
            mining.start_again = false;
            match (mining.phase.clone(), mode) {
                (Phase::Off, _) => return,
                (Phase::Preparing(_) | Phase::Problem(_), _) => {
                    mining.run.cancel();
                    mining.phase = Phase::Off;
                    mining.since_ms = now_ms();
                    None
                }
                (Phase::Running(handle), StopMode::Finish) => {
                    mining.phase = Phase::Finishing(Arc::clone(&handle));
                    mining.since_ms = now_ms();
                    Some(handle)
                }
                (Phase::Finishing(_), StopMode::Finish) => return,
                (Phase::Running(handle) | Phase::Finishing(handle), StopMode::Now) => Some(handle),
            }
        };
        self.changed.notify_one();
        let Some(handle) = handle else { return };
        match mode {
            StopMode::Now => handle.stop_now().await,
            // The run's own task sees the miner end.
            StopMode::Finish => handle.finish(),
        }
    }

    /// One run: prepare, mine until the miner ends, tidy up.
    async fn run(self: Arc<Self>, run: CancellationToken) {
        let outcome = tokio::select! {
            () = run.cancelled() => return,
            prepared = self.prepare() => prepared,
        };
        let outcome = match outcome {
            Ok(models) => self.mine(models, &run).await,
            Err(error) => Err(error),
        };
        let again = {
            let mut mining = lock(&self.mining);
            // Somebody stopped this run and perhaps began another: its state is theirs.
            if run.is_cancelled() && matches!(mining.phase, Phase::Off | Phase::Preparing(_)) {
                return;
            }
            run.cancel();
            mining.since_ms = now_ms();
            mining.phase = match outcome {
                Ok(()) => Phase::Off,
                Err(error) => {
                    warn!(code = ?error.code, "mining ended: {error}");
                    Phase::Problem(error)
                }
            };
            mining.start_again
        };
        // Giving the memory back is part of stopping.
        if let Err(error) = self.engine.unload().await {
            warn!("the model could not be unloaded: {error}");
        }
        self.changed.notify_one();
        if again {
            let _ = self.mining_start();
        }
    }

    /// Finds verified models for the miner; fetches the starter model if there is none.
    async fn prepare(self: &Arc<Self>) -> Result<Vec<ModelRef>, ErrorBody> {
        let mut wanted = self.models_here();
        if wanted.is_empty() {
            let starter = Self::starter_model();
            self.fetch_and_wait(&starter, |percent| {
                self.preparing(format!("fetching the starter model ({percent} %)"));
            })
            .await?;
            wanted.push(starter);
        }
        self.preparing("checking the model's files".into());
        let mut models = Vec::new();
        let mut problem = None;
        for id in wanted {
            match self.model_ref(&id).await {
                Ok(model) => models.push(model),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(error) if models.is_empty() => Err(error),
            _ => Ok(models),
        }
    }

    /// Says what the preparation does, if it still runs.
    fn preparing(&self, what: String) {
        let mut mining = lock(&self.mining);
        if let Phase::Preparing(words) = &mut mining.phase {
            *words = what;
        }
        drop(mining);
        self.changed.notify_one();
    }

    /// Runs the miner until it ends.
    async fn mine(
        self: &Arc<Self>,
        models: Vec<ModelRef>,
        run: &CancellationToken,
    ) -> Result<(), ErrorBody> {
        let demanded = models[0].id.clone();
        let config = MinerConfig {
            node: self.node.clone(),
            capabilities: self.capabilities(),
            models,
            slots: SLOTS,
            outbox_dir: self.dirs.outbox.join(self.network.folder()),
            receipts: Arc::clone(&self.receipts),
        };
        let handle = Miner::start(
            config,
            self.network.for_miner(),
            Arc::clone(&self.engine),
            Arc::clone(&self.identity.key),
        )
        .map_err(|e| internal(format!("mining cannot start: {e}")))?;
        let handle = Arc::new(handle);
        let stopped_meanwhile = {
            let mut mining = lock(&self.mining);
            if matches!(mining.phase, Phase::Preparing(_)) && !run.is_cancelled() {
                mining.phase = Phase::Running(Arc::clone(&handle));
                mining.since_ms = now_ms();
                false
            } else {
                true
            }
        };
        if stopped_meanwhile {
            handle.stop_now().await;
            return Ok(());
        }
        info!("mining for {}", self.network.name());
        let stop_demand = run.child_token();
        if self.practice_demand && self.network.is_practice() {
            let app = Arc::clone(self);
            let (handle, stop) = (Arc::clone(&handle), stop_demand.clone());
            self.tasks.spawn(async move { app.make_demand(&demanded, &handle, &stop).await });
        }
        let outcome = self.follow(&handle).await;
        stop_demand.cancel();
        outcome
    }

    /// Passes the miner's news on until it ends.
    async fn follow(&self, handle: &MinerHandle) -> Result<(), ErrorBody> {
        let mut status = handle.status();
        let mut receipts = handle.receipts();
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
                changed = status.changed() => if changed.is_err() { break },
                receipt = receipts.recv() => if let Ok(receipt) = receipt {
                    lock(&self.view).settled(&receipt);
                    let _ = self.events.send(Event::Settled(Box::new(receipt)));
                },
            }
        }
        while let Ok(receipt) = receipts.try_recv() {
            lock(&self.view).settled(&receipt);
            let _ = self.events.send(Event::Settled(Box::new(receipt)));
        }
        problem.map_or(Ok(()), Err)
    }

    /// The practice network's own payer: one job, a pause, the next.
    async fn make_demand(&self, model: &ModelId, handle: &MinerHandle, stop: &CancellationToken) {
        let Some(coordinator) = self.network.practice() else { return };
        let mut status = handle.status();
        let mut n = u64::from(self.receipts.totals(0).jobs);
        loop {
            let ready = status.wait_for(|s| matches!(s.state, MinerState::Waiting));
            tokio::select! {
                () = stop.cancelled() => return,
                ready = ready => if ready.is_err() { return },
            }
            let job = demand::practice_job(model, n);
            n += 1;
            let payer = neurino_coordinator::PayerId::local();
            let watched = match coordinator.submit_job(payer, None, job).await {
                Ok(id) => coordinator.watch_job(id).await.map(|watch| (id, watch)),
                Err(error) => Err(error),
            };
            match watched {
                Ok((id, watch)) => tokio::select! {
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

    fn capabilities(&self) -> Capabilities {
        match self.used_gpu() {
            Some(gpu) => Capabilities {
                device: gpu.name.clone(),
                memory_bytes: gpu.memory_bytes.unwrap_or(0),
                gpu: true,
            },
            None => Capabilities {
                device: self.hardware.cpu().name.clone(),
                memory_bytes: self.hardware.cpu().memory_bytes,
                gpu: false,
            },
        }
    }
}
