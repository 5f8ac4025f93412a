//! Growing pauses between attempts, with jitter so that many nodes do not return in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts attempts since the last success.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
    pause: Duration,
}

impl BackOff {
    /// Attempts since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the pause before the next attempt: doubling from half a second
    /// to thirty, each between half of it and all of it.
    pub(crate) fn failed(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.failures.min(6)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.pause = full.mul_f64(rand::random_range(0.5..=1.0));
        self.pause
    }

    /// The last pause in milliseconds.
    pub(crate) fn pause_ms(&self) -> u64 {
        u64::try_from(self.pause.as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts over.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_thirty_seconds_and_start_over() {
        let mut back_off = BackOff::default();
        let mut full = FIRST;
        for _ in 0..50 {
            let pause = back_off.failed();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(LONGEST);
        }
        assert_eq!(full, LONGEST);
        back_off.succeeded();
        assert!(back_off.failed() <= FIRST);
    }
}
