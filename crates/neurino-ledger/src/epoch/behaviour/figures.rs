//! Figures that are added up job by job. All of them are integers, so that everybody gets the same ones,
//! and none depends on the order of jobs at the same time.

use std::collections::BTreeMap;

use crate::epoch::EPOCH_MS;
use crate::epoch::rules::WHOLE;

const HOUR_MS: i64 = 3_600_000;
const HOURS_A_DAY: i64 = 24;
/// Keys that [`Commonest`] keeps.
const KEPT: usize = 32;

/// `top / bottom` in millionths.
pub(super) fn ppm(top: u128, bottom: u128) -> u64 {
    let whole = u128::from(WHOLE);
    u64::try_from(ratio(top, bottom, whole)).unwrap_or(u64::MAX)
}

/// `top x times / bottom`, rounded down; where that does not fit, the divisor is rounded instead.
fn ratio(top: u128, bottom: u128, times: u128) -> u128 {
    let bottom = bottom.max(1);
    top.checked_mul(times).map_or_else(|| top / (bottom / times).max(1), |top| top / bottom)
}

/// Gaps between jobs, summed in octaves of their length: at most 31 sums, however many gaps.
#[derive(Debug, Clone, Default)]
pub(super) struct Gaps {
    last_ms: Option<i64>,
    octaves: BTreeMap<u32, Octave>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Octave {
    count: u128,
    sum: u128,
    squares: u128,
}

impl Gaps {
    /// The next job, not before the last one. A gap counts as a week at most.
    pub(super) fn add(&mut self, at_ms: i64) {
        if let Some(last_ms) = self.last_ms.replace(at_ms) {
            let gap = last_ms.abs_diff(at_ms).min(EPOCH_MS.unsigned_abs());
            let octave = self.octaves.entry(gap.checked_ilog2().map_or(0, |log| log + 1));
            let octave = octave.or_default();
            octave.count += 1;
            octave.sum += u128::from(gap);
            octave.squares += u128::from(gap) * u128::from(gap);
        }
    }

    /// Standard deviation over mean, in millionths, without that part of the longest gaps; `None` of fewer
    /// than two gaps, or if all jobs were at once.
    pub(super) fn cv_ppm(&self, trim_ppm: u64) -> Option<u64> {
        let gaps: u128 = self.octaves.values().map(|octave| octave.count).sum();
        let mut trim = gaps * u128::from(trim_ppm) / u128::from(WHOLE);
        let mut kept = Octave::default();
        for octave in self.octaves.values().rev() {
            let out = trim.min(octave.count);
            trim -= out;
            // Of an octave that stays in part, that part of its sums stays.
            let stays = |sum: u128| sum - sum / octave.count * out;
            kept.count += octave.count - out;
            if out < octave.count {
                kept.sum += stays(octave.sum);
                kept.squares += stays(octave.squares);
            }
        }
        if kept.count < 2 || kept.sum == 0 {
            return None;
        }
        let mean_square = kept.sum.saturating_mul(kept.sum);
        let spread = kept.count.saturating_mul(kept.squares).saturating_sub(mean_square);
        let whole = u128::from(WHOLE);
        let cv = ratio(spread, mean_square, whole * whole).isqrt();
        Some(u64::try_from(cv).unwrap_or(u64::MAX))
    }
}

/// Jobs of each hour in which there were any: in a week at most 168 counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Hours(BTreeMap<i64, u32>);

/// Pairs of jobs, and how many of them fell in the same hour of the day.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pairs {
    pub(super) all: u128,
    pub(super) same_hour: u128,
}

impl Pairs {
    /// How much more often pairs fall in the same hour of the day than if all hours were alike: zero on
    /// average of a flat day, a half of one with eight quiet hours, in millionths.
    pub(super) fn uneven_ppm(self) -> Option<i64> {
        let hours: u128 = HOURS_A_DAY.unsigned_abs().into();
        let over = ppm(self.same_hour * hours, self.all);
        let over = i64::try_from(over).unwrap_or(i64::MAX);
        (self.all > 0).then(|| over - i64::from(WHOLE))
    }

    /// The standard deviation of `uneven_ppm` of a flat day, in millionths.
    pub(super) fn chance_ppm(self) -> i64 {
        let whole = u128::from(WHOLE);
        let hours: u128 = HOURS_A_DAY.unsigned_abs().into();
        i64::try_from((hours * whole * whole / self.all.max(1)).isqrt()).unwrap_or(i64::MAX)
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            all: self.all.saturating_add(other.all),
            same_hour: self.same_hour.saturating_add(other.same_hour),
        }
    }
}

impl Hours {
    pub(super) fn add(&mut self, at_ms: i64) {
        *self.0.entry(at_ms.div_euclid(HOUR_MS)).or_default() += 1;
    }

    /// Hours from the first to the last one with a job.
    pub(super) fn span(&self) -> u64 {
        let ends = self.0.first_key_value().zip(self.0.last_key_value());
        ends.map_or(0, |((first, _), (last, _))| first.abs_diff(*last) + 1)
    }

    fn jobs(&self) -> u128 {
        self.0.values().map(|count| u128::from(*count)).sum()
    }

    fn of_day(&self) -> [u128; 24] {
        let mut of_day = [0; 24];
        for (hour, count) in &self.0 {
            let at = usize::try_from(hour.rem_euclid(HOURS_A_DAY)).unwrap_or(0);
            of_day[at] += u128::from(*count);
        }
        of_day
    }

    /// Hours of the day (UTC) with a job, of 24.
    pub(super) fn used(&self) -> u32 {
        self.of_day().iter().map(|count| u32::from(*count > 0)).sum()
    }

    pub(super) fn pairs(&self) -> Pairs {
        let pairs = |n: u128| n * n.saturating_sub(1) / 2;
        Pairs { all: pairs(self.jobs()), same_hour: self.of_day().map(pairs).iter().sum() }
    }

    /// Variance of the counts of all hours from the first to the last one, over their mean, in millionths:
    /// a whole if jobs come by chance alone, more in bursts, less by a clock. `None` within one hour.
    pub(super) fn dispersion_ppm(&self) -> Option<u64> {
        let (hours, jobs) = (u128::from(self.span()), self.jobs());
        if hours < 2 {
            return None;
        }
        let squares: u128 = self.0.values().map(|count| u128::from(*count).pow(2)).sum();
        Some(ppm(hours * squares - jobs * jobs, (hours - 1) * jobs))
    }
}

/// How often the commonest of many keys came (Misra and Gries): never more than it did, and less by at
/// most a thirty-third of all. Exact while there were at most 32 different ones.
#[derive(Debug, Clone)]
pub(super) struct Commonest<K>(BTreeMap<K, u64>);

impl<K> Default for Commonest<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Commonest<K> {
    /// Keys of the same time come in their own order.
    pub(super) fn add(&mut self, key: K) {
        if let Some(count) = self.0.get_mut(&key) {
            *count += 1;
        } else if self.0.len() < KEPT {
            self.0.insert(key, 1);
        } else {
            self.0.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The commonest key, the first of several, and how often it came at least.
    pub(super) fn top(&self) -> Option<(K, u64)> {
        let counts = self.0.iter().rev().map(|(key, count)| (*key, *count));
        counts.max_by_key(|(_, count)| *count)
    }
}
