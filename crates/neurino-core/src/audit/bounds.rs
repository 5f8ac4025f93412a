//! What a count of failures says of the rate behind it: the exact interval of Clopper and Pearson.

use serde::{Deserialize, Serialize};

/// A measured share with the interval that holds the true one, given a confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredShare {
    /// How often it happened.
    pub hits: u32,
    /// Out of so many.
    pub of: u32,
    /// The share, 0 to 1; 0 of nothing.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl MeasuredShare {
    /// The share and its interval at a two-sided confidence, for example 0.95. Of nothing, all is
    /// possible: 0 to 1. Hits beyond `of` count as `of`.
    pub fn of(hits: u32, of: u32, confidence: f64) -> Self {
        let hits = hits.min(of);
        let tail = ((1.0 - confidence) / 2.0).clamp(1e-12, 0.5);
        let share = if of == 0 { 0.0 } else { f64::from(hits) / f64::from(of) };
        // At the ends the whole of the error is on one side, as the rule of three has it.
        let one_sided = 2.0 * tail;
        let low = match hits {
            0 => 0.0,
            _ if hits == of => one_sided.powf(1.0 / f64::from(of)),
            // P(X >= hits) equals the tail.
            _ => bisect(|p| 1.0 - cumulative(hits - 1, of, p) < tail),
        };
        let high = match hits {
            _ if of == 0 || hits == of => 1.0,
            0 => 1.0 - one_sided.powf(1.0 / f64::from(of)),
            // P(X <= hits) equals the tail.
            _ => bisect(|p| cumulative(hits, of, p) > tail),
        };
        Self { hits, of, share, low, high }
    }
}

/// The border in 0 to 1 up to which something holds.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if holds(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Probability of at most so many hits.
fn cumulative(hits: u32, of: u32, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return if hits >= of { 1.0 } else { 0.0 };
    }
    let (ln_p, ln_q) = (p.ln(), (-p).ln_1p());
    let mut ln_choose = 0.0;
    let mut sum = 0.0;
    for k in 0..=hits {
        if k > 0 {
            ln_choose += f64::from(of - k + 1).ln() - f64::from(k).ln();
        }
        sum += (ln_choose + f64::from(k) * ln_p + f64::from(of - k) * ln_q).exp();
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hits: u32, of: u32, low: f64, high: f64) {
        let found = MeasuredShare::of(hits, of, 0.95);
        assert!((found.low - low).abs() < 5e-4, "{hits} of {of}: {found:?}");
        assert!((found.high - high).abs() < 5e-4, "{hits} of {of}: {found:?}");
        assert!(found.low <= found.share && found.share <= found.high);
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        check(5, 10, 0.1871, 0.8129);
        check(1, 20, 0.0013, 0.2487);
        check(90, 100, 0.8238, 0.9510);
        // One-sided at the ends: nothing in 3000 leaves less than one in a thousand.
        check(0, 3000, 0.0, 0.000_998);
        check(20, 20, 0.8609, 1.0);
        check(0, 0, 0.0, 1.0);
    }
}
