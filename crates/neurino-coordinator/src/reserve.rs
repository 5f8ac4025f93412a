//! Units that are held free for a while: a job whose model takes most of a unit's memory cannot begin beside
//! others, nor one that needs several cards while any of them works, and either would wait for ever behind
//! small ones that keep each such unit busy.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Limits;
use crate::router::Place;
use crate::state::State;

/// Holds units free for jobs that waited long, and lets go of those that were held for long enough. Says
/// whether one came free.
pub(crate) fn renew(state: &mut State, now: Instant, limits: &Limits) -> bool {
    let State { router, jobs, reservations, .. } = state;
    let held_for = Duration::from_millis(limits.reserve_for_ms);
    let mut came_free = false;
    reservations.retain(|place, until| {
        let wanted = router.reserved(place).is_some_and(|model| router.is_asked_for(model));
        if now >= *until || !wanted {
            came_free |= router.reserved(place).is_some();
            router.unreserve(place);
        }
        // For as long again others have it.
        now < *until + held_for
    });
    let waited = Duration::from_millis(limits.reserve_after_ms);
    let mut seen = BTreeSet::new();
    for job in jobs.values() {
        let waits = job.lease.is_none() && job.admitted && !job.closing;
        if !waits || now.saturating_duration_since(job.queued_since) < waited {
            continue;
        }
        if !seen.insert(job.spec.model()) {
            continue;
        }
        let allowed =
            |place: &Place| !reservations.contains_key(place) && !job.unable.contains(&place.node);
        if let Some(place) = router.reserve(job.spec.model(), allowed) {
            tracing::debug!(
                "holding node {} free for {}",
                crate::jobs::short(&place.node),
                job.spec.model()
            );
            reservations.insert(place, now + held_for);
        }
    }
    came_free
}
