//! Why a rate changed: two windows beside each other, and what each cause added or took.
//!
//! Points are hours x jobs an hour x points a job, and points a job follow from the models asked for,
//! the owner's multiplier and the size of the jobs. Each factor is changed in turn from the earlier
//! window's value to the later one's; what that adds is its effect. The effects sum up to the
//! difference exactly: the last one takes what divisions left over. All integers.

use std::collections::BTreeMap;

use neurino_core::{MicroPoints, PointsKind};
use neurino_protocol::earnings::{RateCause, RateCauseKind, RateChange, RateWindow};

use crate::receipts::Entry;

/// Figures of one window, wide enough for every product below.
#[derive(Debug, Clone, Default)]
struct Window {
    points: i128,
    /// Points before the owner's multiplier.
    plain: i128,
    jobs: i128,
    mined_ms: i128,
    /// Points and jobs by model.
    models: BTreeMap<u16, (i128, i128)>,
}

impl Window {
    fn of(entries: &[Entry], kind: PointsKind, mined_ms: u64) -> Self {
        let mut window = Self { mined_ms: i128::from(mined_ms), ..Self::default() };
        for entry in entries.iter().filter(|e| e.kind == kind) {
            let amount = i128::from(entry.amount.0);
            window.points += amount;
            window.plain += amount * 1_000_000 / i128::from(entry.multiplier.max(1));
            window.jobs += 1;
            let model = window.models.entry(entry.model).or_default();
            model.0 += amount;
            model.1 += 1;
        }
        window
    }

    fn shown(&self) -> RateWindow {
        RateWindow {
            points: micro(self.points),
            jobs: u32::try_from(self.jobs).unwrap_or(u32::MAX),
            mined_ms: u64::try_from(self.mined_ms).unwrap_or(0),
        }
    }
}

/// Compares two windows for one kind of points; `None` where neither has any.
pub fn compare(
    kind: PointsKind,
    before: (&[Entry], u64),
    after: (&[Entry], u64),
) -> Option<RateChange> {
    let old = Window::of(before.0, kind, before.1);
    let new = Window::of(after.0, kind, after.1);
    if old.jobs == 0 && new.jobs == 0 {
        return None;
    }
    let mut causes: Vec<RateCause> = effects(&old, &new)
        .into_iter()
        .map(|(cause, effect)| RateCause { cause, effect: micro(effect) })
        .filter(|cause| cause.effect.0 != 0)
        .collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.effect.0.unsigned_abs()));
    Some(RateChange { kind, before: old.shown(), after: new.shown(), causes })
}

fn effects(old: &Window, new: &Window) -> Vec<(RateCauseKind, i128)> {
    use RateCauseKind::{HoursMined, JobSize, JobsPerHour, ModelMix, Multiplier};
    let whole = new.points - old.points;
    if old.jobs == 0 || (new.mined_ms == 0 && old.mined_ms > 0) {
        // There is no rate to compare with, or nothing was mined at all.
        return vec![(HoursMined, whole)];
    }
    // Where time was not metered, it is taken as unchanged.
    let timed = old.mined_ms > 0 && new.mined_ms > 0;
    let by_hours = if timed { old.points * new.mined_ms / old.mined_ms } else { old.points };
    let by_jobs = old.points * new.jobs / old.jobs;
    if new.jobs == 0 {
        return vec![(HoursMined, by_hours - old.points), (JobsPerHour, -by_hours)];
    }
    // What the new jobs would have paid at the old average of their model. Of a model that the
    // earlier window lacks, all is due to the mix.
    let by_mix: i128 = new
        .models
        .iter()
        .map(|(model, (points, jobs))| match old.models.get(model) {
            Some((old_points, old_jobs)) => jobs * old_points / old_jobs,
            None => *points,
        })
        .sum();
    let by_multiplier =
        if old.plain > 0 { new.points - new.plain * old.points / old.plain } else { 0 };
    let (hours, jobs, mix) = (by_hours - old.points, by_jobs - by_hours, by_mix - by_jobs);
    vec![
        (HoursMined, hours),
        (JobsPerHour, jobs),
        (ModelMix, mix),
        (Multiplier, by_multiplier),
        (JobSize, whole - hours - jobs - mix - by_multiplier),
    ]
}

fn micro(n: i128) -> MicroPoints {
    MicroPoints(i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::receipts::Verdict;

    const HOUR: u64 = 3_600_000;

    fn jobs(n: usize, model: u16, amount: i64, multiplier: u32) -> Vec<Entry> {
        let entry = Entry {
            settled_at_ms: 0,
            offset: 0,
            amount: MicroPoints(amount),
            length: 0,
            units: 1,
            factor: 1_000_000,
            multiplier,
            duration_ms: 1,
            model,
            rules: 0,
            kind: PointsKind::Llama,
            verdict: Verdict::Agrees,
        };
        vec![entry; n]
    }

    /// The causes of a change that are worth more than rounding.
    fn check(before: (&[Entry], u64), after: (&[Entry], u64), expect: &[(RateCauseKind, i64)]) {
        let change = compare(PointsKind::Llama, before, after).expect("something was earned");
        let found: Vec<_> = change
            .causes
            .iter()
            .filter(|c| c.effect.0.abs() > 100)
            .map(|c| (c.cause, c.effect.0))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn each_cause_is_found_alone() {
        use RateCauseKind::{HoursMined, JobSize, JobsPerHour, ModelMix, Multiplier};
        let ten = jobs(10, 0, 100_000, 1_000_000);
        let five = jobs(5, 0, 100_000, 1_000_000);
        let day = (&ten[..], 10 * HOUR);
        check(day, (&five, 5 * HOUR), &[(HoursMined, -500_000)]);
        check(day, (&five, 10 * HOUR), &[(JobsPerHour, -500_000)]);
        check(day, (&jobs(10, 0, 50_000, 1_000_000), 10 * HOUR), &[(JobSize, -500_000)]);
        check(day, (&jobs(10, 1, 50_000, 1_000_000), 10 * HOUR), &[(ModelMix, -500_000)]);
        check(day, (&jobs(10, 0, 110_000, 1_100_000), 10 * HOUR), &[(Multiplier, 100_000)]);
        check(day, (&[], 0), &[(HoursMined, -1_000_000)]);
        check(day, (&[], 10 * HOUR), &[(JobsPerHour, -1_000_000)]);
        check((&[], 0), day, &[(HoursMined, 1_000_000)]);
        assert_eq!(compare(PointsKind::Waifu, day, day), None);
    }

    proptest! {
        #[test]
        fn effects_sum_up_to_the_difference(
            (a, b, c, d) in (0usize..40, 0usize..40, 0usize..40, 0usize..40),
            (x, y) in (1i64..10_000_000, 1i64..10_000_000),
            (m, n) in (1u32..3_000_000, 1u32..3_000_000),
            (h, k) in (0u64..100 * HOUR, 0u64..100 * HOUR),
        ) {
            let before = [jobs(a, 0, x, m), jobs(b, 1, y, m)].concat();
            let after = [jobs(c, 0, y, n), jobs(d, 2, x, m)].concat();
            if let Some(change) = compare(PointsKind::Llama, (&before, h), (&after, k)) {
                let sum: i64 = change.causes.iter().map(|c| c.effect.0).sum();
                prop_assert_eq!(sum, change.after.points.0 - change.before.points.0);
            }
        }
    }
}
