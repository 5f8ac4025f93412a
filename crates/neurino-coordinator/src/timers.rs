//! What happens because time passes: deadlines, silence, waits, forgetting. Reads memory only; the
//! books are touched when something is due.

use std::sync::{Arc, Weak};
use std::time::Duration;

use neurino_core::{JobId, JobSpec, JobState, LeaseId, NodeId};
use neurino_protocol::node::{
    CoordinatorMessage, HEARTBEAT_SECS, IDLE_HEARTBEAT_SECS, UPLOAD_BYTES_PER_SEC,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::Limits;
use crate::coordinator::Coordinator;
use crate::error::CoordinatorError;
use crate::router::JobClass;
use crate::state::{Client, LeasePhase, LiveJob, State};
use crate::store::AttemptEnd;

/// How often the memory is looked through.
const TICK: Duration = Duration::from_millis(100);
/// How many times longer than one with leases a node may be silent that holds none.
const IDLE_PATIENCE: u32 = (IDLE_HEARTBEAT_SECS / HEARTBEAT_SECS) as u32;
/// How long a model that nobody serves any more is remembered; longer than any job waits for it.
const SERVED_LATELY: Duration = Duration::from_hours(1);
/// How often the books are asked whether somebody changed keys, models or votes.
const LOOK_UP: Duration = Duration::from_secs(1);
/// The machines of each model are counted every so many rounds.
const DEMAND_ROUNDS: u64 = 10;
/// Every how manieth time speeds and uptimes are looked at.
const STANDING_ROUNDS: u64 = 30;
/// Every how manieth time half of what nodes failed at is forgotten.
const FORGIVE_ROUNDS: u64 = 300;
/// How often payloads past their keeping time are shredded.
pub(crate) const PRUNE: Duration = Duration::from_hours(1);

/// How often it is looked whether a week is over.
const EPOCHS: Duration = Duration::from_mins(1);

/// When the end of a job for which nobody waits is asked for again.
const ABANDONED_AGAIN: Duration = Duration::from_secs(5);

/// What is due at one tick.
#[derive(Default)]
struct Due {
    expired: Vec<LeaseId>,
    lost: Vec<LeaseId>,
    unserved: Vec<(JobId, ErrorBody)>,
    /// Nobody waits for them any more.
    abandoned: Vec<JobId>,
}

impl Coordinator {
    pub(crate) fn spawn_timers(self: &Arc<Self>) {
        let stop = self.stop.clone();
        let round_ms = self.config.limits.audit_round_ms;
        let advice_ms = self.config.limits.advice_round_ms;
        let files_ms = self.config.limits.files_round_ms;
        // Weak: a coordinator that its owner drops without `shutdown` must not live on in here.
        let this = Arc::downgrade(self);
        self.tasks.spawn(async move {
            let tick = async {
                let mut ticks = tokio::time::interval(TICK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.tick();
                }
            };
            let prune = async {
                let mut ticks = tokio::time::interval(PRUNE);
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.prune().await;
                }
            };
            let look_up = async {
                let mut ticks = tokio::time::interval(LOOK_UP);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for round in 0u64.. {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.look_up_settings().await;
                    if round % DEMAND_ROUNDS == 0 {
                        coordinator.count_served();
                    }
                    if round % FORGIVE_ROUNDS == 0 {
                        coordinator.state().router.forgive(Instant::now());
                    }
                    if round % STANDING_ROUNDS == 0 {
                        coordinator.state().router.band_all();
                        coordinator.count_uptime().await;
                    }
                }
            };
            let audits = async {
                let round = Duration::from_millis(round_ms.max(1));
                let mut ticks = tokio::time::interval_at(Instant::now() + round, round);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.sweep_audits().await;
                    coordinator.sweep_honeypots().await;
                }
            };
            let advice = async {
                if advice_ms == 0 {
                    return std::future::pending().await;
                }
                let round = Duration::from_millis(advice_ms);
                let mut ticks = tokio::time::interval_at(Instant::now() + round, round);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.advise();
                }
            };
            let files = async {
                if files_ms == 0 {
                    return std::future::pending().await;
                }
                let round = Duration::from_millis(files_ms);
                let mut ticks = tokio::time::interval_at(Instant::now() + round, round);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    coordinator.sweep_files();
                }
            };
            let epochs = async {
                let mut ticks = tokio::time::interval(EPOCHS);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut looked_at = None;
                loop {
                    ticks.tick().await;
                    let Some(coordinator) = Weak::upgrade(&this) else { return };
                    let time = coordinator.time();
                    let over = coordinator.epoch_over(time.ms);
                    if time.doubtful || looked_at == over {
                        continue;
                    }
                    match coordinator.make_epochs(time.ms).await {
                        Ok(_) => looked_at = over,
                        Err(error @ CoordinatorError::EpochUnderWay) => {
                            tracing::info!("no epoch was made: {error}");
                        }
                        Err(error) => tracing::error!(?error, "no epoch was made: {error}"),
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tick => {}
                () = epochs => {}
                () = advice => {}
                () = files => {}
                () = audits => {}
                () = prune => {}
                () = look_up => {}
            }
        });
    }

    pub(crate) fn tick(self: &Arc<Self>) {
        // A look often enough to notice when it jumps.
        self.time();
        let now = Instant::now();
        let (due, came_free) = {
            let mut state = self.state();
            if state.stopping {
                return;
            }
            state.challenges.expire(now);
            if now >= state.silence_looked_at {
                // Often enough for what is counted in seconds; it looks at every node.
                let silence = Duration::from_millis(self.config.limits.silence_ms);
                state.silence_looked_at = now + (silence / 8).min(Duration::from_secs(1));
                self.end_silent_sessions(&state, now);
            }
            let rested = state.router.end_rests(now);
            let came_free = crate::reserve::renew(&mut state, now, &self.config.limits) || rested;
            (due(&mut state, now, &self.config.limits), came_free)
        };
        if came_free {
            self.dispatch();
        }
        self.hedge_late();
        self.end_stalled();
        for lease in due.expired {
            let error =
                ErrorBody::new(ErrorCode::DeadlinePassed, "no result arrived before the deadline");
            self.spawn_release(lease, AttemptEnd::Expired, error);
        }
        for lease in due.lost {
            let error = ErrorBody::new(ErrorCode::NoNodeAvailable, "the node vanished");
            self.spawn_release(lease, AttemptEnd::Lost, error);
        }
        let unserved = due.unserved.into_iter().map(|(job, error)| (job, JobState::Failed, error));
        let abandoned =
            due.abandoned.into_iter().map(|job| (job, JobState::Cancelled, abandoned()));
        for (job, state, error) in unserved.chain(abandoned) {
            let this = Arc::clone(self);
            self.tasks.spawn(async move {
                if let Err(error) = this.end_unpaid(job, state, error).await {
                    tracing::error!(job.id = %job, code = ?error.code, "job {job} could not be ended");
                }
            });
        }
    }

    /// Ends links on which nothing arrived for three heartbeats. A node that holds leases beats as often as
    /// one that does, counted from when it was given the first of them, others less often.
    fn end_silent_sessions(&self, state: &State, now: Instant) {
        let silence = Duration::from_millis(self.config.limits.silence_ms);
        let silent: Vec<NodeId> = state
            .sessions
            .iter()
            .filter(|(_, s)| s.polls == 0)
            .filter(|(_, s)| now.duration_since(s.last_seen) > silence)
            .filter(|(node, s)| now.duration_since(s.last_seen) > silence + upload(state, node))
            .filter(|(node, s)| match leased_at(state, node) {
                Some(leased) => now.saturating_duration_since(leased) > silence,
                None => now.duration_since(s.last_seen) > silence * IDLE_PATIENCE,
            })
            .map(|(node, _)| node.clone())
            .collect();
        for node in silent {
            let error = ErrorBody::new(ErrorCode::Unreachable, "three heartbeats were missed");
            state.send(&node, CoordinatorMessage::Bye(error));
            if let Some(session) = state.sessions.get(&node) {
                session.end.cancel();
            }
        }
    }

    pub(crate) async fn prune(&self) {
        let time = self.time();
        if time.doubtful {
            tracing::warn!("nothing is shredded while the clock is in doubt");
            return;
        }
        let limits = &self.config.limits;
        let before = |keep_ms: u64| time.ms.saturating_sub_unsigned(keep_ms);
        let disputed_ms = limits.disputed_keep_ms.max(limits.payload_keep_ms);
        match self.store.prune(before(limits.payload_keep_ms), before(disputed_ms)).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "shredded prompts and outputs of {jobs} old jobs"),
            Err(error) => tracing::error!(?error, "old prompts could not be shredded: {error}"),
        }
    }
}

/// How long the largest picture that a node works on may be on its way. Nothing else of the node gets
/// through meanwhile.
/// When the oldest of the leases was given that a node holds.
fn leased_at(state: &State, node: &NodeId) -> Option<Instant> {
    let held = state.node_leases.get(node).into_iter().flatten();
    held.filter_map(|lease| Some(state.leases.get(lease)?.assigned)).min()
}

fn upload(state: &State, node: &NodeId) -> Duration {
    let held = state.node_leases.get(node).into_iter().flatten();
    let pixels = held.filter_map(|lease| state.jobs.get(&state.leases.get(lease)?.job)).map(
        |job| match &*job.spec {
            JobSpec::Image(picture) => u64::from(picture.width) * u64::from(picture.height),
            JobSpec::Text(_) => 0,
        },
    );
    // Three bytes a pixel at most, and base64 makes four of them.
    let bytes = 4 * pixels.max().unwrap_or(0);
    Duration::from_millis(1000 * bytes / UPLOAD_BYTES_PER_SEC as u64)
}

fn due(state: &mut State, now: Instant, limits: &Limits) -> Due {
    let mut due = Due::default();
    for (id, lease) in &state.leases {
        if lease.phase != LeasePhase::Running {
            continue;
        }
        if now >= lease.deadline {
            due.expired.push(*id);
        } else if lease.kept_until.is_some_and(|until| now >= until) {
            due.lost.push(*id);
        }
    }
    let State { router, jobs, last_served, offered, .. } = state;
    for model in router.served() {
        last_served.insert(model.clone(), now);
    }
    last_served.retain(|_, served| now.duration_since(*served) < SERVED_LATELY);
    offered.retain(|model, _| last_served.contains_key(model));
    for (id, job) in jobs {
        if is_abandoned(job, now) {
            // Asked again after a while, should the books be away.
            job.patience = job.patience.map(|patience| patience.max(ABANDONED_AGAIN));
            job.unwatched_since = Some(now);
            due.abandoned.push(*id);
            continue;
        }
        if job.lease.is_some() || !job.admitted || job.closing {
            continue;
        }
        let waited = now.duration_since(job.queued_since);
        let age = Duration::from_millis(limits.batch_age_ms);
        if job.class == JobClass::Batch && waited > age {
            job.class = JobClass::Interactive;
            router.promote(job.spec.model(), &job.payer, *id);
        }
        if let Some(fault) = &job.fault
            && waited > Duration::from_millis(limits.unreadable_wait_ms)
            && !router.serves_besides(job.spec.model(), &job.unable)
        {
            due.unserved.push((*id, fault.clone()));
            continue;
        }
        let wait = Duration::from_millis(job.no_node_wait_ms);
        // That others serve the model is no help to a job that they may not compute. Its audit may be
        // over and unable to withdraw it, so that nothing else would ever end it.
        let alone = if let Some(placement) = &job.placement {
            waited > wait && !router.serves_placed(job.spec.model(), placement)
        } else {
            let served = last_served.get(job.spec.model());
            let alone_since =
                served.map_or(job.queued_since, |served| job.queued_since.max(*served));
            now.duration_since(alone_since) > wait
        };
        if alone {
            due.unserved.push((*id, unserved()));
        }
    }
    due
}

/// Whether nobody waits any more for a job that is for somebody who waits. What the client that left had of
/// a prepaid answer is seen to elsewhere.
fn is_abandoned(job: &mut LiveJob, now: Instant) -> bool {
    let Some(patience) = job.patience else { return false };
    if job.feed.is_watched() || job.client == Client::Left || !job.admitted || job.closing {
        job.unwatched_since = None;
        return false;
    }
    let since = *job.unwatched_since.get_or_insert(now);
    now.duration_since(since) >= patience
}

/// Whoever comes back after all under the same key means another try.
fn abandoned() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "nobody waited for the answer any more")
        .with_hint("send the request again")
}

fn unserved() -> ErrorBody {
    let message = "nobody on the network serves this model right now";
    ErrorBody::new(ErrorCode::NoNodeAvailable, message)
        .with_hint("try again later, or start mining with this model on your own machine")
}
