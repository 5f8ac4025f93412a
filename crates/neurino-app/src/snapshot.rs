//! What the window shows, as one value: built from the owners of each part, pushed when it changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use neurino_control::{Decision, State, Why};
use neurino_core::Receipt;
use neurino_engine::EngineStatus;
use neurino_hardware::Sample;
use neurino_miner::{MinerState, MinerStatus, RunningJob, Stage};
use neurino_protocol::ErrorBody;
use neurino_protocol::app::{
    CurrentJob, Event, JobStage, MiningState, MiningStatus, NetworkStatus, PointsSummary, Snapshot,
};
use neurino_protocol::control::ControlStatus;
use neurino_protocol::node::Advice;
use neurino_protocol::saying::{MiningSaying, Preparing};

use crate::mining::Phase;
use crate::sentence::{Doing, saying, sentence};
use crate::{App, lock};

/// Receipts a snapshot carries.
pub(crate) const RECEIPTS_SHOWN: usize = 20;
/// Least time between two pushed snapshots.
const PUSH_PAUSE: Duration = Duration::from_millis(100);
/// How often figures that move by themselves (time, load) are looked at.
const TICK: Duration = Duration::from_millis(500);
/// The same while no window is open.
const GLANCE_TICK: Duration = Duration::from_secs(1);
/// How often the devices are sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// What the view keeps between two snapshots.
pub(crate) struct View {
    receipts: VecDeque<Receipt>,
    sample: Option<(Instant, Sample)>,
}

impl View {
    pub(crate) fn new(recent: Vec<Receipt>) -> Self {
        Self { receipts: recent.into(), sample: None }
    }

    /// The last sample of the devices, however old.
    pub(crate) fn last_sample(&self) -> Option<&Sample> {
        self.sample.as_ref().map(|(_, sample)| sample)
    }

    /// A receipt arrived; a repeated one changes nothing.
    pub(crate) fn settled(&mut self, receipt: &Receipt) {
        if self.receipts.iter().all(|r| r.event != receipt.event) {
            self.receipts.push_front(receipt.clone());
            self.receipts.truncate(RECEIPTS_SHOWN);
        }
    }
}

/// The part of a snapshot that is in memory.
pub(crate) struct MiningNow {
    pub(crate) mining: MiningStatus,
    pub(crate) control: ControlStatus,
    network: NetworkStatus,
    job: Option<CurrentJob>,
}

impl App {
    /// Pushes a snapshot to every viewer whenever it differs from the last one.
    pub(crate) fn spawn_publisher(self: &Arc<Self>) {
        let app = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut last = None;
            loop {
                let looked_at = app.events.receiver_count() > 0;
                tokio::select! {
                    () = app.end.cancelled() => return,
                    () = app.changed.notified() => {}
                    () = tokio::time::sleep(if looked_at { TICK } else { GLANCE_TICK }) => {}
                }
                app.push_glance();
                // Nobody looks: nothing more is computed.
                if app.events.receiver_count() > 0 {
                    let snapshot = app.snapshot().await;
                    if last.as_ref() != Some(&snapshot) {
                        let _ = app.events.send(Event::Snapshot(Box::new(snapshot.clone())));
                        last = Some(snapshot);
                    }
                }
                tokio::time::sleep(PUSH_PAUSE).await;
            }
        });
    }

    /// What the miner does and why, and where it works.
    pub(crate) fn mining_now(&self) -> MiningNow {
        let (phase, since_ms, again, miner) = {
            let mining = lock(&self.mining);
            (mining.phase.clone(), mining.since_ms, mining.start_again, mining.miner())
        };
        let status = miner.map(|handle| handle.status().borrow().clone());
        let job = status.as_ref().and_then(|s| Some(current_job(s.job.as_ref()?, s.jobs)));
        let network = NetworkStatus {
            name: self.network.name().to_owned(),
            practice: self.network.is_practice(),
            connected: status.as_ref().is_some_and(|s| s.connected),
            gateway_url: self.gateway_url(),
        };
        let engine = self.engine().status().borrow().clone();
        let now = (status.as_ref(), &engine);
        let mining = mining_status(&phase, since_ms, again, now, &network, job.as_ref());
        let control = self.control_status();
        let mining = decided(mining, &phase, &control.decision);
        MiningNow { mining, control, network, job }
    }

    /// Everything the window shows, now.
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Snapshot {
        let MiningNow { mining, control, network, job } = self.mining_now();
        let loaded = match &*self.engine().status().borrow() {
            EngineStatus::Ready(model) => Some(model.id.clone()),
            _ => None,
        };
        let alerts = lock(&self.alerts).current();
        let devices = self.devices().await;
        Snapshot {
            version: env!("CARGO_PKG_VERSION").into(),
            mining,
            control,
            alerts,
            update: self.updates.status(),
            points: self.points(),
            library: self.library_status(&devices).await,
            devices,
            job,
            models: self.model_statuses(loaded.as_ref()),
            receipts: lock(&self.view).receipts.iter().cloned().collect(),
            identity: self.identity().key.address_checksummed(),
            network,
        }
    }

    /// The machine's own record, added up: today counts from the local midnight.
    pub(crate) fn points(&self) -> PointsSummary {
        let midnight_ms = jiff::Zoned::now()
            .start_of_day()
            .map_or(i64::MAX, |day| day.timestamp().as_millisecond());
        let (today, total) = (self.receipts.totals(midnight_ms), self.receipts.totals(0));
        PointsSummary {
            llama_today: today.llama_micro,
            llama_total: total.llama_micro,
            waifu_today: today.waifu_micro,
            waifu_total: total.waifu_micro,
            jobs_today: today.jobs,
            jobs_total: total.jobs,
        }
    }

    pub(crate) async fn sample(&self) -> Sample {
        let fresh = lock(&self.view)
            .sample
            .as_ref()
            .filter(|(at, _)| at.elapsed() < SAMPLE_EVERY)
            .map(|(_, sample)| sample.clone());
        if let Some(sample) = fresh {
            return sample;
        }
        let hardware = self.hardware();
        let sample = tokio::task::spawn_blocking(move || hardware.sample())
            .await
            .expect("sampling does not panic");
        lock(&self.view).sample = Some((Instant::now(), sample.clone()));
        sample
    }
}

fn current_job(job: &RunningJob, jobs: u32) -> CurrentJob {
    CurrentJob {
        job: job.job,
        kind: job.kind,
        model: job.model.clone(),
        stage: match job.stage {
            Stage::Loading => JobStage::Loading,
            Stage::Running => JobStage::Running,
            Stage::Sending => JobStage::Sending,
        },
        done: job.done,
        of: job.of,
        elapsed_ms: job.started.elapsed().as_millis() as u64,
        budget_ms: job.budget_ms,
        estimate_ms: job.estimate_ms,
        jobs,
    }
}

fn mining_status(
    phase: &Phase,
    since_ms: i64,
    again: bool,
    (status, engine): (Option<&MinerStatus>, &EngineStatus),
    network: &NetworkStatus,
    job: Option<&CurrentJob>,
) -> MiningStatus {
    let (state, doing, problem) = match (phase, status) {
        (Phase::Off, _) => (MiningState::Stopped, Doing::Nothing, None),
        (Phase::Preparing(what), _) => {
            (MiningState::Starting, Doing::Preparing(what.clone()), None)
        }
        (Phase::NoCard(why), _) => (MiningState::Paused, Doing::NoCard(why.clone()), None),
        (Phase::Problem(error), _) => (MiningState::NeedsYou, Doing::Nothing, Some(error.clone())),
        (Phase::Finishing(_), _) if again => (MiningState::Finishing, Doing::GoingOn, None),
        (Phase::Finishing(_), _) => (MiningState::Finishing, Doing::Nothing, None),
        (Phase::Stopping(_), _) => {
            let doing = job.map_or(Doing::Nothing, |job| Doing::HandingBack(job.jobs.max(1)));
            (MiningState::Finishing, doing, None)
        }
        (Phase::Running(_), None) => (MiningState::Starting, Doing::Nothing, None),
        (Phase::Running(_), Some(status)) => {
            let (state, preparing) = miner_state(&status.state);
            let idle = || status.no_job.as_ref().filter(|why| why.waiting > 0);
            let why = (status.state == MinerState::Waiting).then(idle).flatten();
            let advised = status.advice.as_ref().and_then(|advice| advised(&status.state, advice));
            let doing = match (advised, preparing, why) {
                (Some(doing), ..) => doing,
                (None, Some(what), _) => Doing::Preparing(with_progress(what, engine)),
                (None, None, Some(why)) => Doing::Idle(why.clone()),
                (None, None, None) => Doing::Nothing,
            };
            (state, doing, miner_problem(status))
        }
    };
    let said = saying(state, network.connected, doing, problem.as_ref());
    MiningStatus {
        state,
        sentence: sentence(&said, network, job),
        said,
        since_ms: status.map_or(since_ms, |s| s.since_ms),
        problem: shown_problem(state, network.connected, problem),
    }
}

/// How far the engine is with the model that is being loaded.
fn with_progress(what: Preparing, engine: &EngineStatus) -> Preparing {
    match (what, engine) {
        (
            Preparing::Loading { model, .. },
            EngineStatus::Loading { model: loaded, done_bytes, total_bytes, warm_percent },
        ) if model == *loaded => {
            let percent = (done_bytes * 100).checked_div(*total_bytes);
            Preparing::Loading {
                model,
                percent: percent.map(|percent| percent.min(100) as u8),
                warm_percent: (*warm_percent > 0).then_some(*warm_percent),
            }
        }
        (what, _) => what,
    }
}

/// What the miner does because the network advised it.
fn advised(state: &MinerState, advice: &Advice) -> Option<Doing> {
    match (state, &advice.model) {
        // After a failed attempt that attempt is what there is to tell.
        (MinerState::LoadingModel { model, error: None, .. }, Some(asked)) if model == asked => {
            Some(Doing::Advised(asked.clone(), advice.waiting))
        }
        (MinerState::Waiting, None) => Some(Doing::Resting),
        _ => None,
    }
}

/// The miner's status as the decision has it: its sentence is the one that counts where a rule or
/// a pause keeps the miner from running.
fn decided(miner: MiningStatus, phase: &Phase, decision: &Decision) -> MiningStatus {
    let told = |miner: MiningStatus| MiningStatus {
        sentence: decision.sentence.clone(),
        said: MiningSaying::Decided,
        ..miner
    };
    match decision.state {
        State::Paused | State::Snoozed | State::Cooling => {
            let state = MiningState::Paused;
            MiningStatus { state, problem: None, ..told(miner) }
        }
        // By a rule; the person's own wish is told with the job's progress.
        State::Finishing if matches!(decision.why, Why::Rule { .. }) => told(miner),
        State::Stopped if matches!(phase, Phase::Off) => told(miner),
        State::Running if decision.gentle && earns(miner.state) => {
            let sentence = format!("{} Going easy while you use the computer.", miner.sentence);
            MiningStatus { sentence, ..miner }
        }
        State::Stopped | State::Running | State::Finishing => miner,
    }
}

/// Whether the miner works or could.
fn earns(state: MiningState) -> bool {
    matches!(state, MiningState::Waiting | MiningState::Working)
}

/// A problem stays in sight while it keeps the machine from earning, and no longer.
fn shown_problem(
    state: MiningState,
    connected: bool,
    problem: Option<ErrorBody>,
) -> Option<ErrorBody> {
    let earns = match state {
        MiningState::Working | MiningState::Stopped | MiningState::Paused => true,
        MiningState::Waiting | MiningState::Finishing => connected,
        MiningState::Starting | MiningState::NeedsYou => false,
    };
    problem.filter(|_| !earns)
}

/// What keeps the miner from working, or went wrong last.
fn miner_problem(status: &MinerStatus) -> Option<ErrorBody> {
    match &status.state {
        MinerState::NeedsYou { error } => Some(error.clone()),
        MinerState::Connecting { error, .. } | MinerState::LoadingModel { error, .. } => {
            error.clone().or_else(|| status.problem.clone())
        }
        _ => status.problem.clone(),
    }
}

fn miner_state(state: &MinerState) -> (MiningState, Option<Preparing>) {
    match state {
        MinerState::Connecting { attempt: 0 | 1, .. } | MinerState::Waiting => {
            (MiningState::Waiting, None)
        }
        MinerState::Connecting { attempt, .. } => {
            (MiningState::Starting, Some(Preparing::Connecting { attempt: *attempt }))
        }
        MinerState::LoadingModel { model, .. } => {
            let (model, percent, warm_percent) = (model.clone(), None, None);
            (MiningState::Starting, Some(Preparing::Loading { model, percent, warm_percent }))
        }
        MinerState::Working => (MiningState::Working, None),
        MinerState::Finishing => (MiningState::Finishing, None),
        MinerState::NeedsYou { .. } => (MiningState::NeedsYou, None),
        MinerState::Stopped => (MiningState::Stopped, None),
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::ModelId;

    use super::*;

    #[test]
    fn a_load_takes_its_progress_from_the_engine() {
        let id = |id: &str| ModelId::new(id).expect("valid");
        let loading = |percent, warm_percent| Preparing::Loading {
            model: id("a-model"),
            percent,
            warm_percent,
        };
        let engine = |name: &str, done_bytes, total_bytes, warm_percent| EngineStatus::Loading {
            model: id(name),
            done_bytes,
            total_bytes,
            warm_percent,
        };
        let told = |engine| with_progress(loading(None, None), &engine);
        assert_eq!(told(engine("a-model", 1, 4, 0)), loading(Some(25), None));
        assert_eq!(told(engine("a-model", 4, 4, 60)), loading(Some(100), Some(60)));
        assert_eq!(told(engine("a-model", 0, 0, 0)), loading(None, None), "not counted yet");
        assert_eq!(told(engine("another", 1, 4, 0)), loading(None, None));
        assert_eq!(told(EngineStatus::Idle), loading(None, None));
        let what = with_progress(Preparing::Looking, &engine("a-model", 1, 4, 0));
        assert_eq!(what, Preparing::Looking);
    }
}
