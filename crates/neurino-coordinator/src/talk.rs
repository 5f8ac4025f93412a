//! How much a node may say. Whatever it says is handled under one lock that all others wait for, so a node
//! that only talks is ended; one that works has more to say.

use std::time::Duration;

use tokio::time::Instant;

/// Messages that may come at once: a long poll carries half of them, a reconnect what was not settled.
const AT_ONCE: f64 = 512.0;
/// Messages a second of a node that has nothing to do.
const PER_SEC: f64 = 50.0;
/// Messages a second more for each lease that it holds: pieces of its answer.
const PER_LEASE_SEC: f64 = 60.0;
/// Messages more for each lease that it is given, however soon it is done.
const PER_LEASE: f64 = 20.0;

/// What a node may still say, as a bucket that fills steadily.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    left: f64,
    at: Instant,
}

impl Talk {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, at: now }
    }

    /// It was given a lease.
    pub(crate) fn leased(&mut self) {
        self.left = (self.left + PER_LEASE).min(AT_ONCE);
    }

    /// Takes one message of a node that holds so many leases; `false` if it is one too many.
    pub(crate) fn take(&mut self, now: Instant, leases: u32) -> bool {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.at = now;
        let rate = PER_SEC + PER_LEASE_SEC * f64::from(leases);
        let most = AT_ONCE + PER_LEASE_SEC * f64::from(leases);
        self.left = (self.left + passed.as_secs_f64() * rate).min(most) - 1.0;
        self.left >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many messages, evenly spread over so many seconds, are taken until one is not.
    fn taken(messages: u32, secs: u32, leases: u32) -> u32 {
        let begin = Instant::now();
        let mut talk = Talk::new(begin);
        let pause = Duration::from_secs(secs.into()) / messages.max(1);
        (0..messages).take_while(|n| talk.take(begin + pause * *n, leases)).count() as u32
    }

    #[test]
    fn a_node_says_what_its_work_needs_and_no_more() {
        assert_eq!(taken(10_000, 0, 0), 512, "all at once");
        assert_eq!(taken(40 * 600, 600, 0), 24_000, "steadily below the limit");
        assert!(taken(200 * 600, 600, 0) < 1_000, "steadily above");
        // Eight answers at once, each told twenty times a second.
        assert_eq!(taken(8 * 20 * 600, 600, 8), 96_000);
        let mut talk = Talk::new(Instant::now());
        let now = Instant::now();
        for _ in 0..10_000 {
            // Short jobs, one after the other: the piece and the result of each.
            talk.leased();
            assert!(talk.take(now, 1) && talk.take(now, 1));
        }
    }
}
