//! A cap on the bandwidth that downloads take together, which can be changed while they run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far the line may be paid in arrears: a burst of so long goes through at once.
const BURST: Duration = Duration::from_millis(200);
/// The longest single wait, after which a changed cap is looked at.
const NAP_MAX: Duration = Duration::from_millis(500);

/// Lets so many bytes through in a second, over all who share it.
#[derive(Debug, Default)]
pub struct Throttle {
    /// 0 for no cap.
    bytes_per_s: AtomicU64,
    /// When the line is free again.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// A cap; `None` for none.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        let throttle = Self::default();
        throttle.set(bytes_per_s);
        throttle
    }

    /// Changes the cap; running downloads follow within half a second.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        self.bytes_per_s.store(bytes_per_s.unwrap_or(0), Ordering::Relaxed);
        *self.free_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until `bytes` that have arrived are paid for.
    pub(crate) async fn take(&self, bytes: u64) {
        let rate = self.bytes_per_s.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let free_at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begin = free_at.map_or(now, |at| at.max(now));
            let next = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at = Some(next);
            next
        };
        loop {
            let wait = free_at.saturating_duration_since(Instant::now()).saturating_sub(BURST);
            if wait.is_zero() || self.bytes_per_s.load(Ordering::Relaxed) != rate {
                return;
            }
            tokio::time::sleep(wait.min(NAP_MAX)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_share_the_cap_and_a_changed_one_holds_soon() {
        let throttle = std::sync::Arc::new(Throttle::new(Some(1_000_000)));
        let begin = Instant::now();
        let pay = |throttle: std::sync::Arc<Throttle>| async move {
            for _ in 0..5 {
                throttle.take(50_000).await;
            }
        };
        tokio::join!(pay(throttle.clone()), pay(throttle.clone()));
        let took = begin.elapsed().as_secs_f64();
        assert!(took > 0.25, "0.5 MB at 1 MB/s took {took} s");

        throttle.set(Some(1));
        let slow = tokio::spawn({
            let throttle = throttle.clone();
            async move { throttle.take(1_000_000).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!slow.is_finished());
        throttle.set(None);
        tokio::time::timeout(10 * NAP_MAX, slow).await.expect("it ends soon").expect("and well");
        throttle.take(u64::MAX).await;
    }
}
