//! How much a coordinator may say. Every word costs a look at the engine, the jobs and what is shown, so one
//! that only talks is left for a while; one that gives work has more to say.

use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

/// Messages that may come at once: after a reconnect, answers to all that was not settled.
const AT_ONCE: f64 = 512.0;
/// Messages a second when there is nothing to do.
const PER_SEC: f64 = 50.0;
/// Messages more for each result that it is sent: the job, its receipt, and why there is no other one.
const PER_RESULT: f64 = 8.0;
/// Longest text of its errors that is kept and shown, in characters.
const WORDS_MAX: usize = 500;

/// What a coordinator may still say, as a bucket that fills steadily.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    left: f64,
    at: Instant,
}

impl Talk {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, at: now }
    }

    /// It is sent a result.
    pub(crate) fn answered(&mut self) {
        self.left += PER_RESULT;
    }

    /// Takes one message; `false` if it is one too many.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        let filled = (self.left + passed.as_secs_f64() * PER_SEC).min(AT_ONCE);
        // What it may say of many results, it may say at once.
        self.left = self.left.max(filled) - 1.0;
        self.left >= 0.0
    }
}

/// Why a coordinator that only talks is left.
pub(crate) fn too_much() -> ErrorBody {
    ErrorBody::new(ErrorCode::RateLimited, "the coordinator says too much at once")
}

/// Why one is left that takes nothing.
pub(crate) fn takes_nothing() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "the coordinator takes no messages")
}

/// A coordinator's error as it may be shown, logged and kept: short, and in one line.
pub(crate) fn shown(error: ErrorBody) -> ErrorBody {
    let plain = |text: String| -> String {
        if text.chars().take(WORDS_MAX + 1).count() <= WORDS_MAX
            && !text.chars().any(char::is_control)
        {
            return text;
        }
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        text.chars().take(WORDS_MAX).map(plain).collect()
    };
    ErrorBody { code: error.code, message: plain(error.message), hint: error.hint.map(plain) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_coordinator_says_what_work_needs_and_no_more() {
        let begin = Instant::now();
        let mut talk = Talk::new(begin);
        assert_eq!((0..10_000).take_while(|_| talk.take(begin)).count(), 512, "all at once");
        let mut talk = Talk::new(begin);
        let steadily = |n: u32, pause: u64| begin + Duration::from_millis(pause) * n;
        assert!((0..10_000).all(|n| talk.take(steadily(n, 25))), "steadily below the limit");
        let mut talk = Talk::new(begin);
        assert!(!(0..10_000).all(|n| talk.take(steadily(n, 5))), "steadily above");
        let mut talk = Talk::new(begin);
        for _ in 0..10_000 {
            // Instant jobs: the job, why there is no other one, and the receipt.
            assert!((0..3).all(|_| talk.take(begin)));
            talk.answered();
        }
        let mut talk = Talk::new(begin);
        (0..2_000).for_each(|_| talk.answered());
        assert!((0..4_000).all(|_| talk.take(begin)), "all that waited is answered at once");
    }

    #[test]
    fn what_is_shown_of_an_error_is_short_and_in_one_line() {
        let long = "x".repeat(100_000);
        let error = ErrorBody::new(ErrorCode::Internal, long.clone()).with_hint(long);
        let shown = shown(error);
        assert_eq!((shown.message.len(), shown.hint.map(|hint| hint.len())), (500, Some(500)));
        let two_lines = ErrorBody::new(ErrorCode::Internal, "a\n\u{1b}[31mb");
        assert_eq!(super::shown(two_lines).message, "a  [31mb");
        let honest = ErrorBody::new(ErrorCode::Internal, "die Straße ist nass");
        assert_eq!(super::shown(honest.clone()), honest);
    }
}
