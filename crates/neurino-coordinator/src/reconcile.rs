//! When the fate of a write is not known: the books decide, and the memory is brought in line.
//!
//! A write can be committed although its answer was lost, and a step that lost a race finds its job
//! changed. Each step that is answered "not so" or not at all ends here.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{JobId, JobState, LeaseId};
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::coordinator::{Coordinator, now_ms, restore};
use crate::error::StoreError;
use crate::hedge::keep_only;
use crate::jobs::end_in_memory;
use crate::state::{LeasePhase, State};
use crate::store::{AttemptEnd, Close, NewJob, OpenJob, Release, StoredJob};

/// How long to wait for books that cannot be read or written.
pub(crate) const WRITE_RETRY: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

/// What is to be done besides the memory.
enum Next {
    Nothing,
    /// The books have a lease that nobody was told of.
    Release(Release),
}

impl Coordinator {
    /// Brings the memory of a job in line with the books.
    pub(crate) async fn reconcile(self: &Arc<Self>, id: JobId) {
        while !self.stop.is_cancelled() {
            match self.try_reconcile(id).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(?error, job.id = %id, "a job's fate cannot be read: {error}");
                    tokio::time::sleep(WRITE_RETRY).await;
                }
            }
        }
        self.dispatch();
    }

    async fn try_reconcile(self: &Arc<Self>, id: JobId) -> Result<(), StoreError> {
        let Some(open) = self.store.open_job(id).await? else {
            if let Some(ended) = self.store.job(id).await? {
                ended_in_books(&mut self.state(), id, ended);
            }
            return Ok(());
        };
        let next = open_in_books(&mut self.state(), id, &open);
        if let Next::Release(release) = next {
            let released = self.store.release(release).await?;
            let mut state = self.state();
            if released && let Some(live) = state.jobs.get_mut(&id) {
                live.losses += 1;
                state.enqueue(id, true);
            }
        }
        Ok(())
    }

    /// Takes up a job that the books have and the memory lacks.
    pub(crate) async fn adopt(self: &Arc<Self>, id: JobId) -> Result<(), StoreError> {
        if self.state().jobs.contains_key(&id) {
            return Ok(());
        }
        let Some(open) = self.store.open_job(id).await? else { return Ok(()) };
        {
            let mut state = self.state();
            if !state.jobs.contains_key(&id) {
                restore(&mut state, open, &self.config.limits);
            }
        }
        self.dispatch();
        Ok(())
    }

    /// Sees to a job whose admission was not answered. Its sender was told that it was not accepted: it
    /// may repeat itself under its key, and without one nobody would ever come for the result.
    pub(crate) async fn after_doubtful_admission(self: &Arc<Self>, job: NewJob) {
        while !self.stop.is_cancelled() {
            let seen_to = if job.key.is_some() {
                // Its commit may still be under way: only behind it the books say whether it is there.
                match self.store.after_doubts().await {
                    Ok(()) => self.adopt(job.id).await,
                    Err(error) => Err(error),
                }
            } else {
                let words = "its admission could not be confirmed";
                let error = ErrorBody::new(ErrorCode::Cancelled, words);
                let state = JobState::Cancelled;
                let close = Close { job: job.id, state, error, at_ms: now_ms() };
                self.store.end(close).await.map(drop)
            };
            match seen_to {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(WRITE_RETRY).await,
            }
        }
    }
}

fn ended_in_books(state: &mut State, id: JobId, ended: StoredJob) {
    match (ended.output, ended.receipt, ended.error) {
        (Some(output), Some(receipt), _) => state.finish_job(id, output, receipt),
        (_, _, Some(error)) => end_in_memory(state, id, error),
        // Deleted after its keeping time; nobody watches it any more.
        _ => drop(state.end_job(id)),
    }
}

/// Of two leases, forgets what the books do not know the job to be leased by, where one of them was about
/// to end.
fn keep_books(state: &mut State, id: JobId, open: &OpenJob) {
    let Some(live) = state.jobs.get(&id) else { return };
    let leases = [live.lease, live.hedge].into_iter().flatten();
    let ends = |lease: LeaseId| {
        state.leases.get(&lease).is_some_and(|lease| lease.phase == LeasePhase::Releasing)
    };
    let ends = leases.filter(|lease| ends(*lease)).count() > 0;
    let by = open.running.as_ref().map(|running| running.lease);
    let changed = by.is_some() && by == live.hedge;
    if live.hedge.is_some() && (ends || changed || by.is_none()) {
        keep_only(state, id, by.or(live.lease));
    }
}

fn open_in_books(state: &mut State, id: JobId, open: &OpenJob) -> Next {
    let Some(live) = state.jobs.get_mut(&id) else { return Next::Nothing };
    live.fence = live.fence.max(open.last_fence);
    keep_books(state, id, open);
    let Some(live) = state.jobs.get(&id) else { return Next::Nothing };
    let held = live.lease;
    let phase = held.and_then(|lease| state.leases.get(&lease)).map(|lease| lease.phase.clone());
    match (&open.running, held) {
        (Some(running), Some(held)) if running.lease == held => {
            // Its end was not written after all.
            if phase == Some(LeasePhase::Releasing)
                && let Some(lease) = state.leases.get_mut(&held)
            {
                lease.phase = LeasePhase::Running;
            }
            Next::Nothing
        }
        (Some(running), None) => Next::Release(Release {
            job: id,
            lease: running.lease,
            fence: open.fence,
            end: AttemptEnd::Lost,
            give_up: None,
            at_ms: now_ms(),
        }),
        (None, Some(held)) if phase == Some(LeasePhase::Releasing) => {
            let lease = state.end_lease(held);
            if let Some(live) = state.jobs.get_mut(&id) {
                (live.failures, live.losses) = (open.failures, open.losses);
                live.tried.extend(lease.map(|lease| lease.node));
                live.feed.queued();
            }
            state.enqueue(id, true);
            Next::Nothing
        }
        // Another step is under way and will end here itself if it must.
        (_, Some(_)) => Next::Nothing,
        (None, None) => {
            let model = live.spec.model().clone();
            let payer = live.payer.clone();
            // It may wait already; nobody waits twice.
            state.router.remove_job(&model, &payer, id);
            if state.jobs.get(&id).is_some_and(|live| live.admitted && !live.closing) {
                state.enqueue(id, true);
            }
            Next::Nothing
        }
    }
}
