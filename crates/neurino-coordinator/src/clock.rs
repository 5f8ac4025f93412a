//! The time that goes into the books.
//!
//! The system's clock may be set while the coordinator runs, by a year if somebody slips. What is written
//! under such a time stays: a later receipt is never earlier, a shredded request does not come back, and a
//! published week stays published. So a clock that jumps is not believed for a while. A machine that slept
//! jumps as well, and rightly: until that is clear, receipts go on where the time was, and what cannot be
//! undone waits.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::coordinator::Coordinator;

/// By how much the clock may be set between two looks at it, in milliseconds.
const TOLERATED_MS: u64 = 60_000;
/// A clock that jumped and goes on evenly for so long is right.
const BELIEVED: Duration = Duration::from_mins(10);

/// Milliseconds since the Unix epoch, by the system's clock.
pub(crate) fn now_ms() -> i64 {
    let now = Timestamp::now().as_millisecond();
    #[cfg(test)]
    let now = now + SET_BY.get();
    now
}

#[cfg(test)]
thread_local! {
    /// By how much a test has set the clock of its thread.
    pub(crate) static SET_BY: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// A look at the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Milliseconds since the Unix epoch, as far as they are believed.
    pub(crate) ms: i64,
    /// Whether the clock jumped lately.
    pub(crate) doubtful: bool,
}

/// The system's clock beside one that nobody sets.
pub(crate) struct Clock(Mutex<Believed>);

struct Believed {
    ms: i64,
    at: Instant,
    /// By how much the clock is off, and since when.
    off: Option<(i64, Instant)>,
}

impl Clock {
    pub(crate) fn new(ms: i64, at: Instant) -> Self {
        Self(Mutex::new(Believed { ms, at, off: None }))
    }

    /// What is believed of a time that the system's clock shows.
    pub(crate) fn read(&self, shown_ms: i64, at: Instant) -> Reading {
        let mut believed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = at.saturating_duration_since(believed.at).as_millis();
        let ms = believed.ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        let off_ms = shown_ms.saturating_sub(ms);
        let begun = match believed.off {
            _ if off_ms.unsigned_abs() <= TOLERATED_MS => None,
            Some((known, since)) if off_ms.abs_diff(known) <= TOLERATED_MS => Some(since),
            _ => {
                tracing::warn!(
                    off.ms = off_ms,
                    "the system's clock jumped by {} seconds; until it has gone on evenly for ten \
                     minutes, receipts go on where the time was, and nothing is shredded or published",
                    off_ms / 1000,
                );
                believed.off = Some((off_ms, at));
                Some(at)
            }
        };
        if begun.is_some_and(|since| at.saturating_duration_since(since) < BELIEVED) {
            return Reading { ms, doubtful: true };
        }
        *believed = Believed { ms: shown_ms, at, off: None };
        Reading { ms: shown_ms, doubtful: false }
    }
}

impl Coordinator {
    /// The time, as far as it is believed.
    pub(crate) fn time(&self) -> Reading {
        self.clock.read(now_ms(), Instant::now())
    }

    /// The same, to ask which edition of the rules holds.
    pub(crate) fn instant(&self) -> Timestamp {
        Timestamp::from_millisecond(self.time().ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

    #[test]
    fn a_clock_that_jumps_is_believed_once_it_has_gone_on_evenly() {
        for jump_ms in [YEAR_MS, -YEAR_MS, 61_000] {
            let begin = Instant::now();
            let clock = Clock::new(0, begin);
            let read = |secs: u64, set_by_ms: i64| {
                let shown_ms = i64::try_from(secs * 1000).expect("small") + set_by_ms;
                let read = clock.read(shown_ms, begin + Duration::from_secs(secs));
                (read.ms, read.doubtful)
            };
            assert_eq!(read(1, 0), (1_000, false));
            // A second is set, as time servers do, or a little more.
            assert_eq!(read(2, -1_000), (1_000, false));
            assert_eq!(read(3, 0), (3_000, false));
            assert_eq!(read(4, jump_ms), (4_000, true), "{jump_ms}");
            assert_eq!(read(600, jump_ms), (600_000, true));
            assert_eq!(read(605, jump_ms), (605_000 + jump_ms, false), "it is right");
            assert_eq!(read(606, jump_ms), (606_000 + jump_ms, false));
        }
    }

    #[test]
    fn a_clock_that_is_set_right_again_was_never_believed() {
        let begin = Instant::now();
        let clock = Clock::new(0, begin);
        let read = |secs: u64, set_by_ms: i64| {
            let shown_ms = i64::try_from(secs * 1000).expect("small") + set_by_ms;
            let read = clock.read(shown_ms, begin + Duration::from_secs(secs));
            (read.ms, read.doubtful)
        };
        assert_eq!(read(10, YEAR_MS), (10_000, true));
        assert_eq!(read(300, 0), (300_000, false));
        // It jumps on and on: each jump is looked at anew.
        assert_eq!(read(301, YEAR_MS), (301_000, true));
        assert_eq!(read(800, 2 * YEAR_MS), (800_000, true));
        assert_eq!(read(1_000, 2 * YEAR_MS), (1_000_000, true));
        assert_eq!(read(1_400, 2 * YEAR_MS), (1_400_000 + 2 * YEAR_MS, false));
    }
}
