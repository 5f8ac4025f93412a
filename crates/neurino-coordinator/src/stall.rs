//! Streams that do not begin: a job whose node says nothing for far longer than nodes need for their first
//! words goes to another one, and does not wait for its deadline.
//!
//! Nodes send what they write at once, whether or not a client reads it, so the time to the first piece is
//! timed for every text. Only that of models that were loaded counts: loading is no hanging. It grows with
//! the prompt, so it is kept for a short one.

use std::sync::Arc;
use std::time::Duration;

use neurino_core::{JobSpec, LeaseId};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use crate::config::Limits;
use crate::coordinator::{Coordinator, prompt_bytes};
use crate::jobs::short;
use crate::state::{Begin, LeasePhase, State};
use crate::store::AttemptEnd;

/// A stream has stalled after this many times what its first piece usually takes.
const STALLED_TIMES: f64 = 8.0;
/// Bytes of a prompt that are read in about the time that everything else before the first word takes.
const PROMPT_BYTES: f64 = 4096.0;

/// How much longer than for an empty prompt it may take to the first word.
fn weight(spec: &JobSpec) -> Option<f64> {
    let JobSpec::Text(job) = spec else { return None };
    Some(1.0 + prompt_bytes(job) as f64 / PROMPT_BYTES)
}

/// Notes that a lease's node has something to say, and how long it took to begin.
pub(crate) fn heard(state: &mut State, id: LeaseId, now: Instant) {
    let Some(lease) = state.leases.get_mut(&id) else { return };
    // Who loads the model first says nothing of how long it takes otherwise.
    let timed = std::mem::replace(&mut lease.begin, Begin::Began) == Begin::Waits;
    let (after, place) = (now.saturating_duration_since(lease.assigned), lease.place());
    let Some(job) = state.jobs.get(&lease.job).filter(|_| timed) else { return };
    if let Some(weight) = weight(&job.spec) {
        let ms = after.as_secs_f64() * 1000.0 / weight;
        state.router.began(&place, job.spec.model(), ms);
    }
}

/// Leases of streams that have stalled, where another node could begin at once.
fn stalled(state: &State, now: Instant, limits: &Limits) -> Vec<LeaseId> {
    let least = Duration::from_millis(limits.first_piece_ms);
    let mut stalled = Vec::new();
    for (id, lease) in &state.leases {
        let waited = now.saturating_duration_since(lease.assigned);
        let works = lease.phase == LeasePhase::Running && lease.session.is_some();
        if !works || lease.begin != Begin::Waits || waited < least {
            continue;
        }
        let Some(job) = state.jobs.get(&lease.job) else { continue };
        let model = job.spec.model();
        let usual = state.router.begins_after(&lease.place(), model).zip(weight(&job.spec));
        let Some((usual_ms, weight)) = usual else { continue };
        if waited.as_secs_f64() * 1000.0 < STALLED_TIMES * usual_ms * weight {
            continue;
        }
        let may = job.hedge.is_none()
            && !job.closing
            && job.attempts_max != Some(1)
            && state.sessions.get(&lease.node).is_some_and(|session| !session.original);
        let asked =
            |node: &_| *node == lease.node || job.tried.contains(node) || job.unable.contains(node);
        if may && state.router.another_could_begin(model, asked, job.placement.as_deref()) {
            stalled.push(*id);
        }
    }
    stalled
}

impl Coordinator {
    /// Takes jobs from nodes that do not begin; such a node's pace is as slow as it was here.
    pub(crate) fn end_stalled(self: &Arc<Self>) {
        if self.config.limits.first_piece_ms == 0 {
            return;
        }
        let now = Instant::now();
        let stalled = {
            let mut guard = self.state();
            let state = &mut *guard;
            let stalled = stalled(state, now, &self.config.limits);
            for id in &stalled {
                if let Some(lease) = state.leases.get(id) {
                    let node = short(&lease.node);
                    tracing::info!(job.id = %lease.job, lease.id = %id, "{node} does not begin");
                }
                heard(state, *id, now);
            }
            stalled
        };
        for id in stalled {
            let words = "nothing of the answer came for far longer than usual";
            let error = ErrorBody::new(ErrorCode::DeadlinePassed, words);
            self.spawn_release(id, AttemptEnd::Expired, error);
        }
    }
}
