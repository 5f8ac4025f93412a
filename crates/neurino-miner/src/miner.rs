//! Starting, watching and stopping a miner.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use neurino_client::Coordinator;
use neurino_core::{ImageDefaults, ModelId, NodeId, Receipt};
use neurino_earnings::ReceiptLog;
use neurino_engine::{Engine, ModelRef};
use neurino_protocol::earnings::JobRecord;
use neurino_protocol::node::Capabilities;
use neurino_wallet::IdentityKey;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::error::MinerError;
use crate::files::ModelFiles;
use crate::filter::ContentFilter;
use crate::outbox::Outbox;
use crate::run::{Run, now_ms};
use crate::status::{Counters, MinerState, MinerStatus};

/// How long [`MinerHandle::stop_now`] leaves the miner to hand its jobs back by itself.
const STOP_LIMIT: Duration = Duration::from_millis(1_800);
/// Receipts and ended jobs a slow listener may lag behind.
const RECEIPTS_KEPT: usize = 256;

/// What a miner works with.
#[derive(Debug, Clone)]
pub struct MinerConfig {
    /// Who it is; starts with the lower-case address of the key.
    pub node: NodeId,
    /// The machine.
    pub capabilities: Capabilities,
    /// Verified models it may serve, the one to load first at the front.
    pub models: Vec<ModelRef>,
    /// Those among them that make pictures, and what suits them; the others write text.
    pub image_models: BTreeMap<ModelId, ImageDefaults>,
    /// Folder of finished results that are not settled yet. It holds other people's answers in
    /// clear, each file readable by this user alone and removed once settled. One miner at a time.
    pub outbox_dir: PathBuf,
    /// Where receipts are kept; one log for each network.
    pub receipts: Arc<ReceiptLog>,
    /// What it does not compute.
    pub filter: ContentFilter,
    /// Whether the network may say which of the models is loaded, or that none needs to be.
    pub follow_advice: bool,
    /// Who shows the network that the models' files are there, if anybody can.
    pub files: Option<Arc<dyn ModelFiles>>,
    /// Memory that its models need at least, in bytes, where that is known: which of them go to several
    /// cards together.
    pub needs: BTreeMap<ModelId, u64>,
}

/// The loop: connects, loads, computes, submits, until it is stopped.
pub struct Miner;

impl Miner {
    /// Starts a miner on the current tokio runtime and returns at once; [`MinerHandle::status`]
    /// tells the rest. Blocks for the few files an earlier run may have left in the outbox.
    ///
    /// # Errors
    /// [`MinerError::NoModel`] without a model, [`MinerError::Io`] when the outbox cannot be used.
    pub fn start(
        config: MinerConfig,
        coordinator: Arc<dyn Coordinator>,
        engine: Arc<dyn Engine>,
        key: Arc<IdentityKey>,
    ) -> Result<MinerHandle, MinerError> {
        let Some(first) = config.models.first() else { return Err(MinerError::NoModel) };
        let outbox = Outbox::open(&config.outbox_dir)?;
        let status = watch::Sender::new(MinerStatus {
            state: MinerState::LoadingModel { model: first.id.clone(), wait_ms: 0, error: None },
            since_ms: now_ms(),
            connected: false,
            network: None,
            job: None,
            jobs: 0,
            unsettled: u32::try_from(outbox.len()).unwrap_or(u32::MAX),
            unsettled_since_ms: outbox.oldest_ms(),
            problem: None,
            no_job: None,
            advice: None,
            counters: Counters::default(),
        });
        let receipts = broadcast::Sender::new(RECEIPTS_KEPT);
        let ends = broadcast::Sender::new(RECEIPTS_KEPT);
        let (stop, finish) = (CancellationToken::new(), CancellationToken::new());
        let pace = watch::Sender::new(Pace::default());
        let outlets = (receipts.clone(), ends.clone());
        let offers = watch::Sender::new(None);
        let filter = watch::Sender::new(config.filter.clone());
        let told = (pace.subscribe(), offers.subscribe(), filter.subscribe());
        let run = Run::new(config, coordinator, engine, key, outbox, status.clone(), outlets, told);
        let task = tokio::spawn(run.until_stopped(stop.clone(), finish.clone()));
        let task = task.abort_handle();
        Ok(MinerHandle { status, receipts, ends, pace, offers, filter, stop, finish, task })
    }
}

/// What a miner serves.
#[derive(Debug, Clone)]
pub(crate) struct Offers {
    /// Verified models, at least one.
    pub(crate) models: Vec<ModelRef>,
    /// Those that make pictures, and what suits them.
    pub(crate) image_models: BTreeMap<ModelId, ImageDefaults>,
}

/// How many further jobs are taken.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// None.
    pub(crate) held: bool,
    /// One at a time.
    pub(crate) alone: bool,
}

/// A running miner. Dropping it stops the miner as [`MinerHandle::stop_now`] does, without waiting.
pub struct MinerHandle {
    status: watch::Sender<MinerStatus>,
    receipts: broadcast::Sender<Receipt>,
    ends: broadcast::Sender<JobRecord>,
    pace: watch::Sender<Pace>,
    offers: watch::Sender<Option<Offers>>,
    filter: watch::Sender<ContentFilter>,
    stop: CancellationToken,
    finish: CancellationToken,
    task: AbortHandle,
}

impl MinerHandle {
    /// What the miner does, now and later.
    pub fn status(&self) -> watch::Receiver<MinerStatus> {
        self.status.subscribe()
    }

    /// Receipts of jobs paid from now on, each once, already in the [`ReceiptLog`].
    pub fn receipts(&self) -> broadcast::Receiver<Receipt> {
        self.receipts.subscribe()
    }

    /// Jobs that end from now on, each once, however they end. Results of an earlier run that are
    /// paid now are among them, without times.
    pub fn ended(&self) -> broadcast::Receiver<JobRecord> {
        self.ends.subscribe()
    }

    /// Takes no further jobs while `held`; running ones go on, and the model stays loaded.
    pub fn hold(&self, held: bool) {
        self.pace.send_if_modified(|pace| std::mem::replace(&mut pace.held, held) != held);
    }

    /// Takes one job at a time while `alone`; running ones go on.
    pub fn one_at_a_time(&self, alone: bool) {
        self.pace.send_if_modified(|pace| std::mem::replace(&mut pace.alone, alone) != alone);
    }

    /// Serves other models from now on, as [`MinerConfig::models`] and [`MinerConfig::image_models`]
    /// say it. Running jobs go on, and the model in memory stays there while it is among them. Without
    /// a model nothing changes: whoever has none left stops the miner.
    pub fn serve(&self, models: Vec<ModelRef>, image_models: BTreeMap<ModelId, ImageDefaults>) {
        if !models.is_empty() {
            self.offers.send_replace(Some(Offers { models, image_models }));
        }
    }

    /// Refuses other jobs from now on than [`MinerConfig::filter`] says. Running ones go on.
    pub fn refuse(&self, filter: ContentFilter) {
        self.filter.send_replace(filter);
    }

    /// Finishes the running jobs, takes no others, says goodbye and stops. Returns at once;
    /// [`MinerHandle::stopped`] waits.
    pub fn finish(&self) {
        self.finish.cancel();
    }

    /// Stops now: running jobs are handed back, results on disk stay for the next start. Returns
    /// within two seconds, also when the engine or the network hangs.
    pub async fn stop_now(&self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_LIMIT, self.stopped()).await.is_err() {
            tracing::warn!("the miner did not stop in time and is ended");
            self.task.abort();
            self.status.send_modify(|status| {
                status.state = MinerState::Stopped;
                status.since_ms = now_ms();
                status.connected = false;
                (status.job, status.jobs) = (None, 0);
            });
        }
    }

    /// Waits until the miner has stopped.
    pub async fn stopped(&self) {
        let mut status = self.status.subscribe();
        // The handle holds a sender, so the channel cannot close while this waits.
        let _ = status.wait_for(|status| status.state == MinerState::Stopped).await;
    }
}

impl Drop for MinerHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
