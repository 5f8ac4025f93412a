//! The most memory that a piece of work takes, looked at while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Pause between two looks: short beside a step, and a look takes microseconds.
const PAUSE: Duration = Duration::from_millis(4);

/// Does `work` while `used_bytes` is read again and again; how far it rose above what it was before,
/// at most. `None` where it is not told.
pub(super) fn rise_of<R>(
    used_bytes: impl Fn() -> Option<u64> + Sync,
    work: impl FnOnce() -> R,
) -> (R, Option<u64>) {
    let Some(before) = used_bytes() else { return (work(), None) };
    let (most, done) = (AtomicU64::new(before), AtomicBool::new(false));
    let look = || {
        if let Some(now) = used_bytes() {
            most.fetch_max(now, Ordering::Relaxed);
        }
    };
    let made = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                look();
                std::thread::park_timeout(PAUSE);
            }
        });
        // Also if the work panics: the scope waits for the thread.
        let _end = Ending(&done, watching.thread());
        work()
    });
    look();
    (made, Some(most.into_inner() - before))
}

struct Ending<'a>(&'a AtomicBool, &'a std::thread::Thread);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_in_between_is_seen() {
        let used = AtomicU64::new(100);
        let read = || Some(used.load(Ordering::Relaxed));
        let (made, rise) = rise_of(read, || {
            used.store(350, Ordering::Relaxed);
            std::thread::sleep(20 * PAUSE);
            used.store(50, Ordering::Relaxed);
            "made"
        });
        assert_eq!((made, rise), ("made", Some(250)));
        assert_eq!(rise_of(read, || used.store(20, Ordering::Relaxed)).1, Some(0));
        assert_eq!(rise_of(|| None, || 7), (7, None));
        let panicked = std::panic::catch_unwind(|| rise_of(|| Some(1), || panic!("on purpose")));
        assert!(panicked.is_err(), "and the thread has ended");
    }
}
