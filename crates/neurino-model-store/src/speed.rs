//! How fast a download is and when it will be done, from what has arrived so far.

use std::time::{Duration, Instant};

/// The speed follows changes within about so long.
const MEMORY: Duration = Duration::from_secs(8);
/// Before that nothing is told: the first bytes say little.
const WARM_UP: Duration = Duration::from_secs(1);

/// Follows the bytes of one download.
#[derive(Debug, Clone, Default)]
pub struct SpeedMeter {
    first: Option<Instant>,
    last: Option<(Instant, u64)>,
    bytes_per_s: f64,
}

impl SpeedMeter {
    /// So many bytes are there at `now`. Those of the first call were there before.
    pub fn note(&mut self, now: Instant, done_bytes: u64) {
        let Some((before, before_bytes)) = self.last else {
            self.first = Some(now);
            self.last = Some((now, done_bytes));
            return;
        };
        let seconds = now.saturating_duration_since(before).as_secs_f64();
        if seconds < 0.05 {
            return;
        }
        let rate = done_bytes.saturating_sub(before_bytes) as f64 / seconds;
        let age = self.first.map_or(0.0, |first| (now - first).as_secs_f64());
        // At first an average over all, later over the memory.
        let weight = 1.0 - (-seconds / age.min(MEMORY.as_secs_f64()).max(seconds)).exp();
        let fresh = if age <= seconds { 1.0 } else { weight };
        self.bytes_per_s += (rate - self.bytes_per_s) * fresh;
        self.last = Some((now, done_bytes));
    }

    /// Bytes in a second; `None` while too little is known.
    pub fn bytes_per_s(&self) -> Option<u64> {
        let (first, (last, _)) = (self.first?, self.last?);
        (last - first >= WARM_UP).then_some(self.bytes_per_s as u64)
    }

    /// Seconds until `total_bytes` are there; `None` while too little is known, or nothing comes.
    pub fn seconds_left(&self, total_bytes: u64) -> Option<u64> {
        let speed = self.bytes_per_s().filter(|speed| *speed > 0)?;
        let (_, done_bytes) = self.last?;
        Some(total_bytes.saturating_sub(done_bytes).div_ceil(speed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_line_is_measured_and_a_resumed_begin_does_not_count() {
        let (mut meter, begin) = (SpeedMeter::default(), Instant::now());
        for step in 0..100_u64 {
            meter.note(begin + Duration::from_millis(100 * step), 5_000_000 + 200_000 * step);
            assert_eq!(meter.bytes_per_s().is_some(), step >= 10, "{step}");
        }
        let speed = meter.bytes_per_s().unwrap_or(0);
        assert!((1_990_000..2_010_000).contains(&speed), "{speed}");
        let left = meter.seconds_left(5_000_000 + 99 * 200_000 + 20_000_000);
        assert!(left.is_some_and(|left| (9..=11).contains(&left)), "{left:?}");
    }

    #[test]
    fn a_stall_is_seen_and_gives_no_estimate() {
        let (mut meter, begin) = (SpeedMeter::default(), Instant::now());
        for step in 0..2000_u64 {
            meter.note(begin + Duration::from_millis(100 * step), (step * 100_000).min(1_000_000));
        }
        assert!(meter.bytes_per_s().is_some_and(|speed| speed < 1000));
        assert_eq!(SpeedMeter::default().seconds_left(1), None);
    }
}
