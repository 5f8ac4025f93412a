//! A second node for a job whose node is late: the first one that delivers something goes on, and the other
//! one is told to stop and gets nothing.
//!
//! Only where it can be had for little: for a share of the jobs, while nobody waits for the model, and only
//! before anything of the answer was passed on, so that no stream is ever begun twice. In the books such a
//! job has two running attempts. It is leased by the fence of the first, and changes to the other's when
//! that one is left alone; whoever settles first ends both.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{JobId, LeaseId, NodeId};
use neurino_protocol::node::CoordinatorMessage;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use crate::config::Limits;
use crate::coordinator::{Coordinator, now_ms};
use crate::jobs::note_conduct;
use crate::router::{JobClass, Place, Waiting};
use crate::state::{LeasePhase, State};
use crate::store::{AttemptEnd, Outrun, Second};
use crate::terms::cost_units;

/// A job is late after this many times what its node usually needs.
const LATE_TIMES: f64 = 3.0;
/// Second leases that a quiet time saves up.
const SAVED_MAX: u64 = 5;

/// How many second leases may be given now, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budget(u64);

impl Budget {
    /// A job was leased.
    pub(crate) fn earn(&mut self, permille: u32) {
        self.0 = (self.0 + u64::from(permille)).min(SAVED_MAX * 1000);
    }

    fn spend(&mut self) -> bool {
        let left = self.0.checked_sub(1000);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    fn return_one(&mut self) {
        self.0 += 1000;
    }
}

/// What an attempt's end means for a job that has two.
pub(crate) enum Beside {
    /// The job has no other one that could go on.
    Alone,
    /// The other one's end is being written: this one is looked at again.
    Undecided,
    /// The other one goes on.
    Other(LeaseId, u32),
}

/// What the other attempt of a lease's job is.
pub(crate) fn beside(state: &State, id: LeaseId) -> Beside {
    let job = state.leases.get(&id).and_then(|lease| state.jobs.get(&lease.job));
    let Some(job) = job else { return Beside::Alone };
    let other = if job.hedge == Some(id) { job.lease } else { job.hedge };
    let Some((other, lease)) = other.and_then(|other| Some((other, state.leases.get(&other)?)))
    else {
        return Beside::Alone;
    };
    match lease.phase {
        LeasePhase::Running | LeasePhase::Settling => Beside::Other(other, lease.fence),
        // The first one is over: what becomes of the job is decided with it.
        _ if job.hedge == Some(id) => Beside::Undecided,
        LeasePhase::Granting(_) | LeasePhase::Releasing => Beside::Alone,
    }
}

/// The other attempt, if it is still at work while part of this one's text was passed on: it would go on
/// behind that text.
pub(crate) fn goes_on_behind(state: &State, id: LeaseId, other: &Beside) -> Option<LeaseId> {
    let Beside::Other(other, _) = other else { return None };
    let job = state.jobs.get(&state.leases.get(&id)?.job)?;
    let works = state.leases.get(other)?.phase == LeasePhase::Running;
    (works && job.speaker == Some(id) && !job.feed.is_silent()).then_some(*other)
}

impl Coordinator {
    /// Gives jobs whose node is late to a second one, too.
    pub(crate) fn hedge_late(self: &Arc<Self>) {
        if self.config.limits.hedge_permille == 0 {
            return;
        }
        let mut seconds = Vec::new();
        {
            let mut guard = self.state();
            let state = &mut *guard;
            for id in late(state, Instant::now(), &self.config.limits) {
                if !state.hedges.spend() {
                    break;
                }
                match self.second_lease(state, id) {
                    Some(second) => seconds.push(second),
                    None => state.hedges.return_one(),
                }
            }
        }
        for second in seconds {
            let this = Arc::clone(self);
            self.tasks.spawn(async move { this.grant_second(second).await });
        }
    }

    fn second_lease(&self, state: &mut State, first: LeaseId) -> Option<Second> {
        let lease = state.leases.get(&first)?;
        let (job, beside, near) = (lease.job, lease.fence, lease.node.clone());
        let live = state.jobs.get(&job)?;
        let mut tried = live.tried.clone();
        tried.push(near);
        let waiting = Waiting {
            job,
            model: live.spec.model().clone(),
            payer: live.payer.clone(),
            class: live.class,
            cost: cost_units(&live.spec),
            frontend: live.frontend.clone(),
            unable: [live.unable.as_slice(), &tried].concat(),
            tried,
            again: false,
            placement: None,
        };
        let place = second_place(state, &waiting)?;
        let grant = self.new_lease(state, &waiting, place)?;
        self.metrics.hedged();
        Some(Second { grant, beside })
    }

    async fn grant_second(self: Arc<Self>, second: Second) {
        let (id, job, node) = (second.grant.lease, second.grant.job, second.grant.node.clone());
        if let Ok(true) = self.store.grant_second(second).await {
            if let Some((end, error)) = self.assign(id, job, &node) {
                self.release(id, end, error).await;
            }
        } else {
            // The first one ended meanwhile; or it is not known, and what the books have of it ends with
            // the job.
            drop(self.state().end_lease(id));
            self.reconcile(job).await;
        }
        self.dispatch();
    }

    /// An attempt delivers something of its answer. The first one of a job's attempts to do so is heard, and
    /// the other one ends. Says whether this one is heard.
    pub(crate) fn is_heard(self: &Arc<Self>, state: &mut State, id: LeaseId) -> bool {
        let State { jobs, leases, .. } = state;
        let Some(lease) = leases.get(&id) else { return false };
        let Some(job) = jobs.get_mut(&lease.job) else { return false };
        let speaker = job.speaker.filter(|speaker| leases.contains_key(speaker));
        if let Some(speaker) = speaker.filter(|speaker| *speaker != id) {
            tracing::debug!(lease.id = %id, "{speaker} speaks already");
            if let Some(lease) = leases.get_mut(&id) {
                // Its pieces no longer join; should it be the one that is left, the rest comes at once.
                lease.unheard = true;
            }
            return false;
        }
        job.speaker = Some(id);
        let other = if job.hedge == Some(id) { job.lease } else { job.hedge };
        if let Some(other) = other {
            self.spawn_release(other, AttemptEnd::Outrun, slower());
        }
        true
    }

    /// Ends one of a job's two attempts; the other one goes on.
    pub(crate) async fn end_one(self: &Arc<Self>, outrun: Outrun, error: ErrorBody) {
        let (job, id, end) = (outrun.job, outrun.lease, outrun.end);
        let written = self.store.outrun(outrun).await;
        if matches!(written, Ok(true)) {
            self.metrics.attempt_ended(end);
            one_ended(&mut self.state(), job, id, end, &error);
        } else {
            self.reconcile(job).await;
        }
        self.dispatch();
    }
}

/// What the node of an attempt hears whose job another one answers.
pub(crate) fn slower() -> ErrorBody {
    ErrorBody::new(ErrorCode::StaleLease, "another node was faster")
}

/// What is to be written when one of two attempts ends.
pub(crate) fn outrun(
    job: JobId,
    (lease, fence): (LeaseId, u32),
    (stays, stays_fence): (LeaseId, u32),
    end: AttemptEnd,
) -> Outrun {
    Outrun { job, lease, fence, stays, stays_fence, end, at_ms: now_ms() }
}

fn one_ended(state: &mut State, job: JobId, id: LeaseId, end: AttemptEnd, error: &ErrorBody) {
    let given = state.leases.get(&id).map(|lease| lease.assigned);
    let Some(lease) = drop_lease(state, job, id) else { return };
    if let Some(given) = given {
        note_conduct(state, &lease, given, end, error);
    }
    let code = match end {
        AttemptEnd::Expired => Some(ErrorCode::DeadlinePassed),
        AttemptEnd::Outrun => Some(ErrorCode::StaleLease),
        _ => None,
    };
    if let Some(code) = code {
        state.send(&lease, CoordinatorMessage::Cancel { lease: id, code });
    }
    let Some(live) = state.jobs.get_mut(&job) else { return };
    let failed = end.is_failure() || end == AttemptEnd::HandedBack;
    if failed && !live.tried.contains(&lease) {
        live.tried.push(lease.clone());
    }
    if end == AttemptEnd::Failed
        && crate::jobs::is_unable(error.code)
        && !live.unable.contains(&lease)
    {
        live.unable.push(lease);
    }
}

/// Forgets one of two leases; the other one is the job's from now on.
fn drop_lease(state: &mut State, job: JobId, id: LeaseId) -> Option<NodeId> {
    let live = state.jobs.get_mut(&job)?;
    let changes = live.lease == Some(id);
    let stays = if changes { live.hedge } else { live.lease };
    let lease = state.end_lease(id)?;
    let class = stays.and_then(|stays| state.class_of(stays));
    let live = state.jobs.get_mut(&job)?;
    (live.lease, live.hedge) = (stays, None);
    if let Some(stays) = stays.filter(|_| changes).and_then(|stays| state.leases.get(&stays)) {
        live.feed.leased(stays.node.clone(), class);
    }
    Some(lease.node)
}

/// Brings a job with two leases in line with the books, which know one attempt that it is leased by. The
/// other one is forgotten; its node hears so.
pub(crate) fn keep_only(state: &mut State, job: JobId, kept: Option<LeaseId>) {
    let Some(live) = state.jobs.get(&job) else { return };
    let Some(second) = live.hedge else { return };
    let gone = if kept == Some(second) { live.lease } else { Some(second) };
    let Some(gone) = gone else { return };
    if let Some(node) = drop_lease(state, job, gone) {
        let code = ErrorCode::StaleLease;
        state.send(&node, CoordinatorMessage::Cancel { lease: gone, code });
    }
}

/// Leases whose node is late by its own measure, the latest first.
fn late(state: &State, now: Instant, limits: &Limits) -> Vec<LeaseId> {
    let floor = Duration::from_millis(limits.hedge_after_ms);
    let mut late = Vec::new();
    for (id, lease) in &state.leases {
        let ran = now.saturating_duration_since(lease.assigned);
        if lease.phase != LeasePhase::Running || lease.session.is_none() || ran < floor {
            continue;
        }
        let Some(job) = state.jobs.get(&lease.job) else { continue };
        let may = job.lease == Some(*id)
            && job.hedge.is_none()
            && !job.closing
            && job.class == JobClass::Interactive
            && job.placement.is_none()
            && job.attempts_max != Some(1)
            && job.feed.is_silent()
            && state.sessions.get(&lease.node).is_some_and(|session| !session.original)
            && !state.router.is_asked_for(job.spec.model());
        if !may {
            continue;
        }
        let speed = state.router.speed(&lease.place(), job.spec.model());
        let usual = speed.map(|speed| cost_units(&job.spec) as f64 / speed);
        if let Some(usual) = usual
            && ran.as_secs_f64() > LATE_TIMES * usual
        {
            late.push((ran, *id));
        }
    }
    late.sort_by_key(|(ran, id)| (std::cmp::Reverse(*ran), *id));
    late.into_iter().map(|(_, id)| id).collect()
}

/// A free unit that has the model loaded, of a node that can be told to stop.
fn second_place(state: &mut State, waiting: &Waiting) -> Option<Place> {
    let State { router, sessions, rng, .. } = state;
    router.second(waiting, rng, |node| sessions.get(node).is_some_and(|session| !session.original))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_jobs_have_a_second_lease() {
        let mut budget = Budget::default();
        let mut given = 0;
        for _ in 0..10_000 {
            budget.earn(20);
            given += u32::from(budget.spend());
        }
        assert_eq!(given, 200);
        // A quiet time saves up a few.
        for _ in 0..10_000 {
            budget.earn(20);
        }
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 5);
    }
}
