//! Limits by key, on requests and on work, as a bucket that fills steadily.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use neurino_protocol::{ErrorBody, ErrorCode};

use crate::keys::Caller;

/// The buckets of one key, and the limits they were made for.
struct Buckets {
    limits: (Option<u32>, Option<u32>),
    requests: Option<DefaultDirectRateLimiter>,
    units: Option<DefaultDirectRateLimiter>,
}

fn bucket(per_min: Option<u32>) -> Option<DefaultDirectRateLimiter> {
    per_min.and_then(NonZeroU32::new).map(|most| RateLimiter::direct(Quota::per_minute(most)))
}

/// The buckets of all keys with limits.
#[derive(Default)]
pub(crate) struct RateLimits(Mutex<HashMap<String, Arc<Buckets>>>);

/// A request came too soon; another try is worth it after this.
pub(crate) type TooSoon = (ErrorBody, Option<Duration>);

impl RateLimits {
    /// Counts one request.
    pub(crate) fn request(&self, caller: &Caller) -> Result<(), TooSoon> {
        let Some(buckets) = self.of(caller) else { return Ok(()) };
        take(buckets.requests.as_ref(), NonZeroU32::MIN, "requests")
    }

    /// Counts work, in units of a token.
    pub(crate) fn work(&self, caller: &Caller, units: u64) -> Result<(), TooSoon> {
        let Some(buckets) = self.of(caller) else { return Ok(()) };
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        take(buckets.units.as_ref(), NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN), "tokens")
    }

    fn of(&self, caller: &Caller) -> Option<Arc<Buckets>> {
        let terms = &caller.key.terms;
        let limits = (terms.requests_per_min, terms.units_per_min);
        if limits == (None, None) {
            return None;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&caller.key.id).filter(|known| known.limits == limits) {
            return Some(Arc::clone(known));
        }
        let (requests, units) = (bucket(limits.0), bucket(limits.1));
        let made = Arc::new(Buckets { limits, requests, units });
        all.insert(caller.key.id.clone(), Arc::clone(&made));
        Some(made)
    }
}

fn take(
    bucket: Option<&DefaultDirectRateLimiter>,
    many: NonZeroU32,
    what: &str,
) -> Result<(), TooSoon> {
    let Some(bucket) = bucket else { return Ok(()) };
    let error = |message: String| ErrorBody::new(ErrorCode::RateLimited, message);
    match bucket.check_n(many) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(not_yet)) => {
            let wait = not_yet.wait_time_from(DefaultClock::default().now());
            let message = format!("this API key's {what} of the minute are used up");
            let wait = wait.max(Duration::from_secs(1));
            let hint = format!("try again in {} s", wait.as_secs_f64().ceil());
            Err((error(message).with_hint(hint), Some(wait)))
        }
        Err(_) => {
            let message =
                format!("this request alone is more {what} than the API key has a minute");
            Err((error(message).with_hint("ask for less at once"), None))
        }
    }
}
