//! What the cards and bars show, computed from receipts and meter.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use neurino_core::{MicroPoints, ModelId, Multiplier, PointsKind};
use neurino_protocol::earnings::{
    BothPoints, Checked, ModelTotal, MultiplierLine, Rate, RateChange, SeriesBar, SeriesStep,
    SpanKind, SpanTotal, WeekTotal,
};

use crate::calendar::{self, steps};
use crate::change;
use crate::meter::Meter;
use crate::receipts::{Entries, Entry, ReceiptTotals, Verdict};
use crate::tariff::Prices;

/// The window of the rate.
pub const RATE_WINDOW_MS: i64 = 15 * 60 * 1000;
/// Mining in it before a rate is told.
pub const WARM_UP_MS: u64 = 5 * 60 * 1000;
const MINUTE_MS: i64 = 60 * 1000;
const QUARTER_MS: i64 = 15 * MINUTE_MS;
const HOUR_MS: i128 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What prices a job: model, kind, rule set, the model's factor and the owner's multiplier.
type Factors = (u16, PointsKind, u16, u32, u32);

/// Bars that are computed at once.
const BARS_MAX: u32 = 400;
/// Past weeks that are listed.
const WEEKS_MAX: u32 = 60;

/// Points an hour in the last fifteen minutes of confirmed receipts, per hour mined.
pub fn rate(receipts: Entries<'_>, meter: &Meter, now_ms: i64) -> Rate {
    // The meter counts in minutes, so the receipts are counted from the same instant.
    let from_ms = (now_ms - RATE_WINDOW_MS).div_euclid(MINUTE_MS) * MINUTE_MS;
    let mined_ms = meter.recent(from_ms).mined_ms;
    if mined_ms == 0 {
        return Rate::Idle;
    }
    if mined_ms < WARM_UP_MS {
        return Rate::Estimating { ready_in_ms: WARM_UP_MS - mined_ms };
    }
    let paid = ReceiptTotals::of(receipts.between(from_ms, i64::MAX));
    let per = |points: MicroPoints, hours: i128| {
        let micro = i128::from(points.0) * HOUR_MS * hours / i128::from(mined_ms);
        MicroPoints(i64::try_from(micro).unwrap_or(i64::MAX))
    };
    let both = |hours| BothPoints {
        llama: per(paid.llama_micro, hours),
        waifu: per(paid.waifu_micro, hours),
    };
    Rate::Known { hour: both(1), day: both(24), mined_ms }
}

/// Today, 7 days, 30 days, lifetime; with what the energy cost where prices are known.
pub fn spans(
    receipts: Entries<'_>,
    meter: &Meter,
    now_ms: i64,
    zone: &TimeZone,
    prices: Option<&Prices<'_>>,
) -> Vec<SpanTotal> {
    let first = receipts.all().first().map(|e| e.settled_at_ms);
    let begin = first.into_iter().chain(meter.since_ms()).min().unwrap_or(now_ms);
    let since = |days| calendar::midnight(now_ms, days, zone);
    [
        (SpanKind::Today, since(0)),
        (SpanKind::Week, since(6)),
        (SpanKind::Month, since(29)),
        (SpanKind::Lifetime, begin),
    ]
    .into_iter()
    .map(|(span, since_ms)| {
        let totals = match span {
            SpanKind::Lifetime => receipts.totals(),
            _ => ReceiptTotals::of(receipts.between(since_ms, i64::MAX)),
        };
        let from_ms = if span == SpanKind::Lifetime { 0 } else { since_ms };
        let metered = meter.between(from_ms, i64::MAX);
        SpanTotal {
            span,
            since_ms,
            points: totals.points(),
            jobs: totals.jobs,
            mined_ms: metered.mined_ms,
            energy: metered.energy,
            cost_micro: prices.map(|prices| prices.cost_micro(meter.spent(from_ms, i64::MAX))),
        }
    })
    .collect()
}

/// Bars up to now, oldest first.
pub fn series(
    receipts: Entries<'_>,
    meter: &Meter,
    (by, count): (SeriesStep, u32),
    now_ms: i64,
    zone: &TimeZone,
) -> Vec<SeriesBar> {
    let bar = |(from_ms, until_ms)| {
        let totals = ReceiptTotals::of(receipts.between(from_ms, until_ms));
        let metered = meter.between(from_ms, until_ms);
        SeriesBar {
            from_ms,
            until_ms,
            points: totals.points(),
            jobs: totals.jobs,
            mined_ms: metered.mined_ms,
            energy: metered.energy,
        }
    };
    steps(now_ms, by, count.clamp(1, BARS_MAX), zone).into_iter().map(bar).collect()
}

/// The week that runs, and past ones in which something was earned, newest first.
pub fn weeks(receipts: Entries<'_>, meter: &Meter, now_ms: i64) -> (WeekTotal, Vec<WeekTotal>) {
    let total = |number| {
        let (from_ms, until_ms) = calendar::week(number);
        let totals = ReceiptTotals::of(receipts.between(from_ms, until_ms));
        let metered = meter.between(from_ms, until_ms);
        WeekTotal {
            number,
            from_ms,
            until_ms,
            points: totals.points(),
            jobs: totals.jobs,
            mined_ms: metered.mined_ms,
            energy: metered.energy,
        }
    };
    let this = calendar::week_of(now_ms);
    let past = (1..=WEEKS_MAX).filter_map(|n| this.checked_sub(n)).map(total);
    (total(this), past.filter(|week| week.jobs > 0).collect())
}

/// Models of the last 30 days, and the factors that priced their jobs; the best paid first.
pub fn models(
    receipts: Entries<'_>,
    now_ms: i64,
    zone: &TimeZone,
) -> (Vec<ModelTotal>, Vec<MultiplierLine>) {
    let month = receipts.between(calendar::midnight(now_ms, 29, zone), i64::MAX);
    let mut by_model: HashMap<(u16, PointsKind), (i64, u32)> = HashMap::new();
    let mut by_factor: HashMap<Factors, (i64, u32)> = HashMap::new();
    for e in month {
        for (points, jobs) in [
            by_model.entry((e.model, e.kind)).or_default(),
            by_factor.entry((e.model, e.kind, e.rules, e.factor, e.multiplier)).or_default(),
        ]
        .map(|sum| (&mut sum.0, &mut sum.1))
        {
            *points = points.saturating_add(e.amount.0);
            *jobs += 1;
        }
    }
    let id = |number| ModelId::new(receipts.name(number)).ok();
    let mut models: Vec<ModelTotal> = by_model
        .into_iter()
        .filter_map(|((model, kind), (points, jobs))| {
            Some(ModelTotal { model: id(model)?, kind, points: MicroPoints(points), jobs })
        })
        .collect();
    models.sort_by(|a, b| (b.points, &a.model).cmp(&(a.points, &b.model)));
    let mut lines: Vec<MultiplierLine> = by_factor
        .into_iter()
        .filter_map(|((model, kind, rules, factor, multiplier), (points, jobs))| {
            Some(MultiplierLine {
                model: id(model)?,
                kind,
                rule_set: receipts.name(rules).to_owned(),
                factor: Multiplier(factor),
                multiplier: Multiplier(multiplier),
                jobs,
                points: MicroPoints(points),
            })
        })
        .collect();
    lines.sort_by(|a, b| (b.points, &a.model, &a.rule_set).cmp(&(a.points, &b.model, &b.rule_set)));
    (models, lines)
}

/// Why the last 24 hours differ from the 24 before. Nothing while the record is too young for two
/// whole windows.
pub fn changes(receipts: Entries<'_>, meter: &Meter, now_ms: i64) -> Vec<RateChange> {
    let end = now_ms.div_euclid(QUARTER_MS) * QUARTER_MS + QUARTER_MS;
    let (middle, begin) = (end - DAY_MS, end - 2 * DAY_MS);
    if receipts.all().first().is_none_or(|first| first.settled_at_ms > middle - DAY_MS / 2) {
        return Vec::new();
    }
    let window = |from: i64, until: i64| {
        (receipts.between(from, until), meter.between(from, until).mined_ms)
    };
    [PointsKind::Llama, PointsKind::Waifu]
        .into_iter()
        .filter_map(|kind| change::compare(kind, window(begin, middle), window(middle, end)))
        .collect()
}

/// How many receipts agree with their rules.
pub fn checked(receipts: Entries<'_>) -> Checked {
    let count = |verdict| {
        let same = |e: &&Entry| e.verdict == verdict;
        u32::try_from(receipts.all().iter().filter(same).count()).unwrap_or(u32::MAX)
    };
    Checked {
        agree: count(Verdict::Agrees),
        differ: count(Verdict::Differs),
        unknown: count(Verdict::Unknown),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{EventId, JobId, LeaseId, NodeId, Quote, Receipt, ResultDigest, Usage};
    use neurino_protocol::earnings::Tariff;
    use uuid::Uuid;

    use super::*;
    use crate::meter::Watts;
    use crate::receipts::ReceiptLog;

    /// Saturday, 24 October 2026, noon in Berlin; the clock goes back that night.
    const NOON: i64 = 1_792_836_000_000;
    const HOUR: i64 = 3_600_000;

    struct Bench {
        _dir: tempfile::TempDir,
        log: ReceiptLog,
        meter: Meter,
        zone: TimeZone,
        paid: u128,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let log = ReceiptLog::open(&dir.path().join("receipts.jsonl")).unwrap();
            let meter = Meter::open(&dir.path().join("meter.bin")).unwrap();
            let zone = TimeZone::get("Europe/Berlin").unwrap();
            Self { _dir: dir, log, meter, zone, paid: 0 }
        }

        fn pay(&mut self, at_ms: i64, kind: PointsKind, amount: i64) {
            self.paid += 1;
            let id = Uuid::from_u128(self.paid);
            let receipt = Receipt {
                event: EventId(id),
                job: JobId(id),
                lease: LeaseId(id),
                node: NodeId::new("0xab").unwrap(),
                model: ModelId::new(kind.as_str()).unwrap(),
                usage: Usage::default(),
                rule_set: "r".into(),
                quote: Quote {
                    points: kind,
                    units: 1,
                    base_micro: MicroPoints(amount),
                    factor: Multiplier::ONE,
                    multiplier: Multiplier::ONE,
                    amount_micro: MicroPoints(amount),
                },
                digest: ResultDigest([0; 32]),
                duration_ms: 1,
                settled_at_ms: at_ms,
                network: "n".into(),
                coordinator: "0x".into(),
                signature: "0x".into(),
            };
            assert!(self.log.append(&receipt).unwrap());
        }

        fn mine(&mut self, from_ms: i64, minutes: i64) {
            for n in 1..=minutes * 6 {
                self.meter.add(from_ms + n * 10_000 - 1, 10_000, Watts::Measured(100.0)).unwrap();
            }
        }
    }

    #[test]
    fn the_rate_is_hidden_until_warm_and_counts_only_mined_time() {
        let mut bench = Bench::new();
        let rate_at = |b: &Bench, now: i64| b.log.view(|receipts| rate(receipts, &b.meter, now));
        assert_eq!(rate_at(&bench, NOON), Rate::Idle);
        bench.mine(NOON, 3);
        bench.pay(NOON + 1, PointsKind::Llama, 1_000_000);
        assert_eq!(rate_at(&bench, NOON + 3 * 60_000), Rate::Estimating { ready_in_ms: 120_000 });
        bench.mine(NOON + 3 * 60_000, 3);
        let Rate::Known { hour, day, mined_ms } = rate_at(&bench, NOON + 6 * 60_000) else {
            panic!("warm")
        };
        assert_eq!(mined_ms, 360_000);
        assert_eq!((hour.llama.0, day.llama.0), (10_000_000, 240_000_000));
        assert_eq!(rate_at(&bench, NOON + HOUR), Rate::Idle, "long ago");
    }

    #[test]
    fn spans_and_bars_follow_local_days_across_a_change_of_the_clock() {
        let mut bench = Bench::new();
        // 24 October 23:30, 25 October 00:30 and 23:30 (after the change), all local.
        let evening = NOON + 11 * HOUR + HOUR / 2;
        for (at, amount) in [(evening, 1), (evening + HOUR, 2), (evening + 25 * HOUR, 4)] {
            bench.pay(at, PointsKind::Llama, amount);
        }
        bench.pay(evening, PointsKind::Waifu, 100);
        bench.mine(evening + HOUR, 15);
        let now = evening + 25 * HOUR + 60_000;
        let Bench { log, meter, zone, .. } = &bench;
        let days = log.view(|r| series(r, meter, (SeriesStep::Day, 3), now, zone));
        assert_eq!(days.iter().map(|d| d.points.llama.0).collect::<Vec<_>>(), [0, 1, 6]);
        assert_eq!(days.iter().map(|d| d.points.waifu.0).collect::<Vec<_>>(), [0, 100, 0]);
        assert_eq!(days[2].until_ms - days[2].from_ms, 25 * HOUR);
        assert_eq!((days[1].mined_ms, days[2].mined_ms), (0, 15 * 60_000));
        let totals = log.view(|r| spans(r, meter, now, zone, None));
        assert_eq!(totals.iter().map(|s| s.points.llama.0).collect::<Vec<_>>(), [6, 7, 7, 7]);
        assert_eq!(totals[0].jobs, 2);
        assert_eq!(totals[3].since_ms, evening);
        assert_eq!(totals[3].energy.used_mj, 100 * 15 * 60_000);
        assert_eq!(totals[3].cost_micro, None);
        // 25 watt hours at half past midnight, in a cheap hour.
        let tariff =
            Tariff { kwh_micro: 320_000, cheap_kwh_micro: Some(200_000), currency: "EUR".into() };
        let week = neurino_control::Week::default();
        let prices = Prices { tariff: &tariff, week: &week, zone };
        let totals = log.view(|r| spans(r, meter, now, zone, Some(&prices)));
        assert_eq!(totals.iter().map(|s| s.cost_micro).collect::<Vec<_>>(), [Some(5_000); 4]);
        let hours = log.view(|r| series(r, meter, (SeriesStep::Hour, 48), now, zone));
        assert_eq!(hours.iter().map(|h| h.points.llama.0).sum::<i64>(), 7, "no hour is lost");
        let (models, factors) = log.view(|r| models(r, now, zone));
        assert_eq!(models.len(), 2);
        assert_eq!((models[0].points.0, models[0].kind), (100, PointsKind::Waifu));
        assert_eq!(factors[1].jobs, 3);
        assert_eq!(log.view(checked).unknown, 4);
    }

    #[test]
    fn weeks_are_cut_at_the_snapshot_and_kept() {
        let mut bench = Bench::new();
        let (from, until) = calendar::week(calendar::week_of(NOON));
        bench.pay(from, PointsKind::Llama, 1);
        bench.pay(until - 1, PointsKind::Llama, 2);
        bench.pay(until, PointsKind::Llama, 4);
        let look = |now| bench.log.view(|r| weeks(r, &bench.meter, now));
        let (this, past) = look(until + 3 * calendar::WEEK_MS);
        assert_eq!((this.jobs, past.len()), (0, 2), "weeks without work are left out");
        assert_eq!((past[0].points.llama.0, past[1].points.llama.0), (4, 3));
        assert_eq!(look(until - 1).0.points.llama.0, 3);
    }

    #[test]
    fn a_young_record_has_no_change_to_explain() {
        let mut bench = Bench::new();
        bench.pay(NOON - HOUR, PointsKind::Llama, 5);
        assert_eq!(bench.log.view(|r| changes(r, &bench.meter, NOON)), []);
        bench.pay(NOON - 40 * HOUR, PointsKind::Llama, 3);
        let found = bench.log.view(|r| changes(r, &bench.meter, NOON));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].before.points.0, found[0].after.points.0), (3, 5));
    }
}
