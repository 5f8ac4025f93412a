//! What a model tells while it computes: that it goes on, and where it may be stopped.
//!
//! A step of a large network takes minutes on a slow processor. Each of its blocks beats once when it
//! begins, which waits for no device: whoever watches takes it for alive, and a picture that nobody wants
//! any more ends there. The networks' functions return tensors and no errors, so that a pass is left by
//! unwinding, as a fault would leave it; [`Pulse::during`] makes an error of that.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::DiffusionError;

/// Asks whether what is computed is still wanted.
type Unwanted = Box<dyn Fn() -> bool + Send>;

/// The beats of all networks of a model.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Inner>);

#[derive(Default)]
struct Inner {
    beats: Arc<AtomicU64>,
    unwanted: Mutex<Option<Unwanted>>,
}

/// What a pass is left with that nobody wants any more.
struct GivenUp;

impl Pulse {
    /// One that adds its beats to a count.
    pub fn counting(beats: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Inner { beats, unwanted: Mutex::default() }))
    }

    /// Beats so far.
    pub fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// Does `work`, and leaves it at the next block once `unwanted` says so.
    ///
    /// # Errors
    /// Those of `work`; `Cancelled` if it was left.
    pub fn during<T>(
        &self,
        unwanted: impl Fn() -> bool + Send + 'static,
        work: impl FnOnce() -> Result<T, DiffusionError>,
    ) -> Result<T, DiffusionError> {
        *self.unwanted() = Some(Box::new(unwanted));
        // Whoever gets the error drops the picture; the networks keep nothing of a pass.
        let done = catch_unwind(AssertUnwindSafe(work));
        *self.unwanted() = None;
        done.unwrap_or_else(|panic| {
            if panic.is::<GivenUp>() {
                Err(DiffusionError::Cancelled)
            } else {
                resume_unwind(panic)
            }
        })
    }

    /// A block begins.
    pub(crate) fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        let is_unwanted = self.unwanted().as_ref().is_some_and(|unwanted| unwanted());
        if is_unwanted {
            resume_unwind(Box::new(GivenUp));
        }
    }

    fn unwanted(&self) -> MutexGuard<'_, Option<Unwanted>> {
        self.0.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulse").field(&self.beats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_left_at_the_beat_that_nobody_wants() {
        let (pulse, left) = (Pulse::default(), Arc::new(AtomicU64::new(3)));
        let wanted = Arc::clone(&left);
        let unwanted = move || wanted.fetch_sub(1, Ordering::Relaxed) == 0;
        let done = pulse.during(unwanted, || {
            (0..10).for_each(|_| pulse.beat());
            Ok(())
        });
        assert!(matches!(done, Err(DiffusionError::Cancelled)), "{done:?}");
        assert_eq!(pulse.beats(), 4);
        // Behind it nobody asks any more, and a fault stays one.
        pulse.beat();
        let fault = catch_unwind(AssertUnwindSafe(|| {
            pulse.during(
                || false,
                || -> Result<(), DiffusionError> { resume_unwind(Box::new("fault")) },
            )
        }));
        assert_eq!(
            fault.err().and_then(|panic| panic.downcast::<&str>().ok()).as_deref(),
            Some(&"fault")
        );
    }
}
