//! What of some work reaches the card: launches, and how long the card computes. For measurements.

use std::sync::{Arc, Mutex, PoisonError};

use cubecl::future::block_on;
use cubecl::logging::{
    Duration, LaunchObservation, LaunchObserver, ProfileDuration, TimingMethod, TimingRequest,
};

/// Kernels that some work launched.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Launches {
    /// How many.
    pub count: u64,
    /// How long the card computed them, in seconds. `None` where it did not tell that of each of them.
    pub busy_s: Option<f64>,
}

/// Counts the kernels that `work` launches, on any device and from any thread of this process; so
/// nothing else may compute meanwhile, and `work` has to wait for the card itself. With `timed`, each is
/// measured too, which costs the host time: then only the count and `busy_s` mean anything.
pub fn watched<T>(timed: bool, work: impl FnOnce() -> T) -> (T, Launches) {
    let ledger = Arc::new(Ledger { timed, entries: Mutex::default() });
    let observation = LaunchObservation::new(Arc::clone(&ledger) as Arc<dyn LaunchObserver>);
    let result = work();
    drop(observation);
    (result, ledger.close())
}

/// What was launched so far.
struct Ledger {
    timed: bool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    count: u64,
    /// Measured on the device, not read back yet.
    profiles: Vec<ProfileDuration>,
    read: u64,
    read_s: f64,
}

impl Ledger {
    fn write(&self, note: impl FnOnce(&mut Entries)) {
        note(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn close(&self) -> Launches {
        let entries =
            std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        let Entries { count, profiles, mut read, mut read_s } = entries;
        for profile in profiles {
            if let Some(ticks) = block_on(profile.resolve()) {
                (read, read_s) = (read + 1, read_s + ticks.duration().as_secs_f64());
            }
        }
        Launches { count, busy_s: (self.timed && read == count).then_some(read_s) }
    }
}

impl LaunchObserver for Ledger {
    fn launched(&self, _kernel: &'static str) {
        self.write(|entries| entries.count += 1);
    }

    fn timing(&self) -> TimingRequest {
        if self.timed { TimingRequest::Deferred } else { TimingRequest::None }
    }

    fn profiled(&self, _kernel: &'static str, profile: ProfileDuration) {
        // The host's clock around a launch says nothing about the card.
        if profile.timing_method() == TimingMethod::Device {
            self.write(|entries| entries.profiles.push(profile));
        }
    }

    fn timed(&self, _kernel: &'static str, duration: Duration, method: TimingMethod) {
        if method == TimingMethod::Device {
            self.write(|entries| {
                entries.read += 1;
                entries.read_s += duration.as_secs_f64();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use cubecl::logging::ProfileTicks;

    use super::*;

    #[test]
    fn a_time_is_told_only_if_the_card_told_it_of_every_launch() {
        let ledger = |timed| Ledger { timed, entries: Mutex::default() };
        let (start, length) = (Instant::now(), Duration::from_micros(30));
        let of_card = || {
            let ticks = ProfileTicks::from_start_end(start, start + length);
            ProfileDuration::new_device_time(async move { ticks })
        };
        let all = ledger(true);
        all.launched("a");
        all.profiled("a", of_card());
        all.launched("b");
        all.timed("b", length, TimingMethod::Device);
        let found = all.close();
        assert_eq!(found.count, 2);
        assert!(found.busy_s.is_some_and(|busy_s| (busy_s - 60e-6).abs() < 1e-9), "{found:?}");
        assert_eq!(all.close(), Launches { count: 0, busy_s: Some(0.0) }, "closed once");

        let not_all = ledger(true);
        not_all.launched("a");
        not_all.profiled("a", of_card());
        not_all.launched("b");
        not_all.timed("b", length, TimingMethod::System);
        assert_eq!(not_all.close(), Launches { count: 2, busy_s: None });
        let untimed = ledger(false);
        untimed.launched("a");
        assert_eq!(untimed.close(), Launches { count: 1, busy_s: None });
    }
}
