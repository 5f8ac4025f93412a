//! Each signal by examples that can be checked by hand, and all of them by weeks whose payers are known.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::{JobId, LeaseId, ModelId, NodeId};
use proptest::prelude::*;
use uuid::Uuid;

use super::figures::{Commonest, Gaps, Hours, Pairs};
use super::labelled::{Chance, WEEK, Who, people_only, week};
use super::*;
use crate::epoch::EPOCH_MS;

const HOUR_MS: i64 = 3_600_000;

fn limits() -> BehaviourLimits {
    BehaviourLimits::at("behaviour", WEEK * EPOCH_MS).unwrap()
}

/// A paid text at a time of the week.
fn job(n: u128, payer: &str, in_week_ms: i64, points_micro: i64) -> Entry {
    Entry {
        at_ms: WEEK * EPOCH_MS + in_week_ms,
        lease: LeaseId(Uuid::from_u128(n)),
        movement: Movement::Reward,
        job: JobId(Uuid::from_u128(n)),
        node: NodeId::new("rig").unwrap(),
        model: ModelId::new("m").unwrap(),
        points: PointsKind::Llama,
        points_micro,
        organic_micro: points_micro,
        payer: payer.into(),
        source: Source::Paid,
        fee_micro: points_micro / 2_500,
    }
}

/// Jobs of one payer at such times, each of another size.
fn jobs(payer: &str, times_ms: impl IntoIterator<Item = i64>) -> Vec<Entry> {
    let times = times_ms.into_iter().enumerate();
    times.map(|(n, at)| job(n as u128, payer, at, 1_000 + n as i64)).collect()
}

fn only(entries: &[Entry]) -> PayerBehaviour {
    let all = behaviour(entries, &limits()).unwrap();
    assert_eq!(all.payers.len(), 1);
    all.payers[0].clone()
}

#[test]
fn gaps_by_hand() {
    let cv = |times: &[i64], trim_ppm| {
        let mut gaps = Gaps::default();
        for at in times {
            gaps.add(*at);
        }
        gaps.cv_ppm(trim_ppm)
    };
    assert_eq!(cv(&[0, 10, 20, 30], 0), Some(0), "a clock");
    // Gaps 1 and 3: mean 2, deviation 1.
    assert_eq!(cv(&[0, 1, 4], 0), Some(500_000));
    // Gaps 3, 4, 5: variance 2/3, mean 4.
    assert_eq!(cv(&[0, 3, 7, 12], 0), Some(204_124));
    // One gap of ten is left out, and it is the longest.
    let outage: Vec<i64> = (0..10).map(|n| 100 * n).chain([100_000]).collect();
    assert_eq!(cv(&outage, 100_000), Some(0));
    assert!(cv(&outage, 0).unwrap() > 2_000_000);
    assert_eq!(cv(&[0, 5], 0), None, "one gap is no rhythm");
    assert_eq!(cv(&[7, 7, 7], 0), None, "nor is one instant");
    assert_eq!(cv(&[i64::MIN, 0, i64::MAX], 0), Some(0), "a gap counts as a week at most");
}

#[test]
fn days_by_hand() {
    let hours = |times: &[i64]| {
        let mut hours = Hours::default();
        for hour in times {
            hours.add(hour * HOUR_MS);
        }
        hours
    };
    // Two jobs in the same hour of two days: one pair of one, 24 times as often as by chance.
    let same = hours(&[9, 33]);
    assert_eq!((same.used(), same.span()), (1, 25));
    assert_eq!(same.pairs().uneven_ppm(), Some(23_000_000));
    assert_eq!(hours(&[9, 10]).pairs().uneven_ppm(), Some(-1_000_000));
    assert_eq!(hours(&[9]).pairs().uneven_ppm(), None);
    // Each hour of five days once: 24 x 10 pairs share an hour, of 120 x 119 / 2.
    let flat = hours(&(0..120).collect::<Vec<_>>());
    assert_eq!(flat.pairs().uneven_ppm(), Some(806_722 - 1_000_000));
    assert_eq!(flat.dispersion_ppm(), Some(0));
    // Counts 2, 0, 0, 1: mean 3/4, variance (25 + 9 + 9 + 1) / 16 / 3.
    assert_eq!(hours(&[0, 0, 3]).dispersion_ppm(), Some(1_222_222));
    assert_eq!(hours(&[5, 5]).dispersion_ppm(), None, "one hour says nothing of others");
    // 24 / 1500 pairs: a deviation of an eighth.
    assert_eq!(Pairs { all: 1_536, same_hour: 0 }.chance_ppm(), 125_000);
}

#[test]
fn the_commonest_is_never_said_to_come_oftener() {
    let mut few = Commonest::default();
    for key in [3, 1, 3, 2, 3, 1] {
        few.add(key);
    }
    assert_eq!(few.top(), Some((3, 3)), "exact");
    let mut tie = Commonest::default();
    for key in [2, 1] {
        tie.add(key);
    }
    assert_eq!(tie.top(), Some((1, 1)), "the first of several");
    // 500 equal ones among 500 that differ, 40 of which come first and fill it: less by at most 1000 / 33.
    let mut many = Commonest::default();
    for key in 0..40 {
        many.add(1_000 + key);
    }
    for n in 0..500 {
        many.add(7);
        if n >= 40 {
            many.add(1_000 + n);
        }
    }
    let (key, count) = many.top().unwrap();
    assert_eq!(key, 7);
    assert!((470..=500).contains(&count), "{count}");
}

#[test]
fn a_clock_looks_automatic() {
    let times = |n: i64| (0..n).map(|n| n * 60_000 + n % 7 * 1_000);
    let found = only(&jobs("a", times(50)));
    assert_eq!(found.verdict, Verdict::LooksAutomatic);
    let [Reason::RegularGaps { cv_ppm, at_most_ppm: 200_000 }] = found.reasons[..] else {
        panic!("{:?}", found.reasons)
    };
    assert!((20_000..60_000).contains(&cv_ppm), "{cv_ppm}");
    let little = only(&jobs("a", times(19)));
    assert_eq!((little.verdict, little.reasons.len()), (Verdict::SaysLittle, 0));
    // Gaps of 10 and 110 seconds: a deviation of five sixths.
    let uneven = only(&jobs("a", (0..50).map(|n| n * 60_000 + n % 2 * 50_000)));
    assert_eq!(uneven.verdict, Verdict::LooksHuman, "{uneven:?}");
}

#[test]
fn around_the_clock_looks_automatic() {
    // Gaps of 10 and 110 minutes, so no clock: a job in each hour for five days.
    let time = |n: i64| n * HOUR_MS + n % 2 * 50 * 60_000;
    let found = only(&jobs("a", (0..120).map(time)));
    assert_eq!(found.verdict, Verdict::LooksAutomatic);
    assert!(matches!(found.reasons[..], [Reason::FlatDay { dispersion_ppm: 0, .. }]));
    assert_eq!(found.figures.day_hours, 24);
    assert_eq!(only(&jobs("a", (0..99).map(time))).verdict, Verdict::LooksHuman, "too few");
    // The same in a day: too short.
    let minute = |n: i64| n * 12 * 60_000 + n % 2 * 10 * 60_000;
    assert_eq!(only(&jobs("a", (0..120).map(minute))).verdict, Verdict::LooksHuman);
    // The same with eight hours of sleep.
    let awake = (0..180).filter(|hour| hour % 24 < 16).map(time);
    let awake = only(&jobs("a", awake));
    assert_eq!((awake.verdict, awake.figures.day_hours), (Verdict::LooksHuman, 16));
    // The same number of hours, each with ten jobs at once or none: no chance does that.
    let bursts = (0..168)
        .filter(|hour| hour % 7 == 0)
        .flat_map(|hour| (0..10).map(move |n| hour * HOUR_MS + n * n * 20_000));
    let bursts = only(&jobs("a", bursts));
    assert!(bursts.figures.uneven_ppm.unwrap() < 200_000, "{bursts:?}");
    assert_eq!(bursts.verdict, Verdict::LooksHuman, "{bursts:?}");
}

/// Bursts of three by day.
fn by_day(n: i64) -> i64 {
    (n / 12) * 24 * HOUR_MS + (n % 12 / 3) * 3 * HOUR_MS + (n % 3) * 40_000
}

#[test]
fn equal_texts_look_automatic_and_equal_pictures_do_not() {
    let mut equal = jobs("a", (0..50).map(by_day));
    assert_eq!(only(&equal).verdict, Verdict::LooksHuman);
    for entry in &mut equal[..40] {
        (entry.points_micro, entry.fee_micro) = (5_000, 2);
    }
    let found = only(&equal);
    let templated = Reason::Templated { share_ppm: 800_000, at_least_ppm: 800_000 };
    assert_eq!((found.verdict, &found.reasons[..]), (Verdict::LooksAutomatic, &[templated][..]));
    // One more that differs, in what it cost.
    equal[0].fee_micro = 1;
    assert_eq!(only(&equal).verdict, Verdict::LooksHuman);
    equal[0].fee_micro = 2;
    for entry in &mut equal {
        entry.points = PointsKind::Waifu;
    }
    assert_eq!(only(&equal).verdict, Verdict::LooksHuman, "a usual picture, in bursts");
    // The same pictures without bursts: gaps of 20 and 100 minutes.
    for (n, entry) in (0..).zip(&mut equal) {
        entry.at_ms = WEEK * EPOCH_MS + n * HOUR_MS + n % 2 * 40 * 60_000;
    }
    assert_eq!(only(&equal).reasons, [templated]);
}

/// Names of a bot that asks about every seven minutes, each time under the name that `pick` says.
fn split(names: u64, seed: u64, equal: bool, gap_ms: impl Fn(&mut Chance) -> i64) -> Vec<Entry> {
    let mut chance = Chance(seed);
    let (mut at_ms, mut n, mut all) = (0, 0, Vec::new());
    while at_ms < EPOCH_MS {
        let size =
            if equal { 5_000 } else { 4_200 + i64::try_from(chance.next() % 3_500).unwrap() };
        all.push(job(n, &format!("name{}", chance.next() % names), at_ms, size));
        n += 1;
        at_ms += gap_ms(&mut chance);
    }
    all
}

fn minutes(from: u64, to: u64) -> impl Fn(&mut Chance) -> i64 {
    move |chance| i64::try_from(60_000 * from + chance.next() % (60_000 * (to - from))).unwrap()
}

#[test]
fn many_names_of_one_bot_are_found_together() {
    let found = |entries: &[Entry]| behaviour(entries, &limits()).unwrap();
    // By a clock, equal jobs: ten minutes give 1008 jobs, some 20 for each of 50 names.
    let clock = found(&split(50, 1, true, |_| 600_000));
    let [group] = &clock.groups[..] else { panic!("{:?}", clock.groups) };
    assert!(matches!(&group.alike, Alike::Template { points_micro: 5_000, .. }));
    assert!(matches!(group.reasons[..], [Reason::RegularGaps { cv_ppm: 0, .. }, ..]));
    assert_eq!((group.payers, group.jobs, group.organic_ppm), (50, 1_008, 1_000_000));
    assert_eq!(clock.automatic.payers, 50, "also those with fewer than twenty jobs");
    assert!(clock.payers.iter().any(|own| own.jobs < 20));
    let reason = Reason::OneOfGroup { group: 0 };
    assert!(clock.payers.iter().all(|own| own.reasons.contains(&reason)));
    // By chance, of all sizes.
    let chance = found(&split(50, 2, false, minutes(1, 14)));
    assert!(matches!(chance.groups[..], [GroupBehaviour { alike: Alike::Habit { .. }, .. }, ..]));
    assert!(chance.automatic.payers >= 45, "{:?}", chance.automatic);
    // Nine names are too few, whatever they do.
    assert!(found(&split(9, 3, true, |_| 600_000)).groups.is_empty());
}

/// Whose days together are flat, while each of them sleeps: two pictures of the usual size a day, in the
/// same two waking hours of each of 48 time zones.
#[test]
fn people_of_all_zones_are_no_group() {
    let mut all = Vec::new();
    for (n, zone) in (0..48).enumerate() {
        for day in 0..7 {
            for half in 0..2 {
                let at_ms = (day * 24 + half * 3) * HOUR_MS + zone * HOUR_MS / 2;
                let id = (n * 100 + all.len() * 10_000) as u128;
                let wobble = i64::try_from(Chance(id as u64).next() % 1_800_000).unwrap();
                let mut entry = job(id, &format!("p{n}"), at_ms + wobble, 1_000_000);
                entry.points = PointsKind::Waifu;
                all.push(entry);
            }
        }
    }
    all.sort_by_key(Entry::place);
    let found = behaviour(&all, &limits()).unwrap();
    assert_eq!((found.groups.len(), found.automatic.payers), (0, 0), "{:?}", found.groups);
}

#[test]
fn only_what_somebody_asked_for_counts() {
    let mut entries = jobs("a", (0..30).map(|n| n * 60_000));
    entries[0].source = Source::Audit;
    entries[1].source = Source::Own;
    entries[2].movement = Movement::Clawback;
    entries[3].source = Source::Free;
    let found = only(&entries);
    assert_eq!(found.jobs, 27);
    assert_eq!(found.first_ms, entries[3].at_ms);
    let nothing = behaviour(&[], &limits()).unwrap();
    assert_eq!((nothing.all, nothing.payers.len()), (BehaviourPart::default(), 0));
}

#[test]
fn entries_that_cannot_be_are_named() {
    let refused = |entries: &[Entry]| behaviour(entries, &limits()).unwrap_err().to_string();
    let good = jobs("a", [0, 5, 5, 9]);
    behaviour(&good, &limits()).unwrap();
    let mut older = good.clone();
    older[3].at_ms -= 5;
    assert!(refused(&older).starts_with("entry 4 is older"), "{}", refused(&older));
    let mut twice = good.clone();
    twice[2].lease = twice[1].lease;
    assert!(refused(&twice).starts_with("entry 3 is there twice"), "{}", refused(&twice));
    twice[2].movement = Movement::Clawback;
    behaviour(&twice, &limits()).unwrap();
    let mut negative = good;
    negative[2].organic_micro = -1;
    assert_eq!(refused(&negative), "entry 3 has a negative amount");
}

#[test]
fn limits_are_data() {
    let at = |name: &str| BehaviourLimits::at(name, WEEK * EPOCH_MS);
    assert_eq!(at("behaviour").unwrap(), at("behaviour1").unwrap());
    let unknown = at("behaviour9").unwrap_err().to_string();
    assert!(unknown.contains("`behaviour9`") && unknown.contains("`behaviour1`"), "{unknown}");
    let text = include_str!("../../../data/behaviour.toml");
    for (from, to) in [
        ("\njobs_min = 20", "\njobs_min = 2"),
        ("template_ppm = 800000", "template_ppm = 500000"),
        ("group_names_min = 10", "group_names_min = 1"),
        ("group_points_ppm = 1600000", "group_points_ppm = 999999"),
        ("gap_trim_ppm = 20000", "gap_trim_ppm = 500001"),
        ("uneven_ppm = 200000", "uneven_ppm = -1"),
        ("flat_hours_min = 48", "flat_hours_min = 48\nother = 1"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        assert!(BehaviourLimits::parse(&changed).is_err(), "{to}");
    }
}

/// How a number of weeks were read.
#[derive(Debug, Default)]
struct Score {
    /// By who is behind it: names, those that look automatic, those that say little.
    of: BTreeMap<Who, [u64; 3]>,
}

impl Score {
    fn add(&mut self, entries: &[Entry], labels: Vec<(String, Who)>) {
        let found = behaviour(entries, &limits()).unwrap();
        let labels: BTreeMap<String, Who> = labels.into_iter().collect();
        for own in &found.payers {
            let sums = self.of.entry(labels[&own.payer]).or_default();
            sums[0] += 1;
            sums[1] += u64::from(own.verdict == Verdict::LooksAutomatic);
            sums[2] += u64::from(own.verdict == Verdict::SaysLittle);
        }
    }

    fn sum(&self, is_program: bool, at: usize) -> f64 {
        let of = self.of.iter().filter(|(who, _)| who.is_program() == is_program);
        of.map(|(_, sums)| sums[at]).sum::<u64>() as f64
    }
}

#[test]
fn programs_are_told_from_people() {
    let mut score = Score::default();
    for seed in 0..40 {
        let (entries, labels) = week(seed).entries();
        score.add(&entries, labels);
    }
    let (right, wrong) = (score.sum(true, 1), score.sum(false, 1));
    let (precision, recall) = (right / (right + wrong), right / score.sum(true, 0));
    let honest = wrong / score.sum(false, 0);
    assert!(precision >= 0.98, "precision {precision}: {score:?}");
    assert!(recall >= 0.90, "recall {recall}: {score:?}");
    assert!(honest <= 0.002, "{honest} of those who are no programs: {score:?}");
    for (who, [names, automatic, _]) in &score.of {
        let part = *automatic as f64 / *names as f64;
        assert!(!who.is_program() || part >= 0.90, "{who:?} {part}: {score:?}");
    }
}

/// Where nobody is a program, nearly nobody looks like one: no share of programs hides mistakes.
#[test]
fn a_week_of_people_has_no_programs() {
    let mut score = Score::default();
    for seed in 1_000..1_040 {
        let (entries, labels) = people_only(seed).entries();
        score.add(&entries, labels);
    }
    let flagged = score.sum(false, 1) / score.sum(false, 0);
    assert!(flagged <= 0.002, "{flagged}: {score:?}");
    // Most of them are told to be people, and not by saying nothing.
    assert!(
        score.of[&Who::Crowd][2] == 0 && score.of[&Who::Person][2] * 2 < score.of[&Who::Person][0]
    );
}

/// What is said of each payer, without names, in one order.
fn said(found: &Behaviour) -> BTreeSet<String> {
    found
        .payers
        .iter()
        .map(|own| {
            let PayerBehaviour { payer: _, reasons, .. } = own;
            format!(
                "{:?} {:?} {reasons:?}",
                (own.job, own.jobs, own.first_ms, own.last_ms),
                own.figures
            )
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn neither_names_nor_the_order_within_a_millisecond_matter(
        seed in any::<u64>(),
        salt in any::<u64>(),
        coarse_ms in prop::sample::select(vec![1_i64, 600_000, 7_200_000]),
    ) {
        // Times rounded, so that many are equal; more sizes than are kept.
        let mut entries = split(12, seed, seed % 2 == 0, minutes(1, 14));
        for (n, entry) in (0_i64..).zip(&mut entries) {
            entry.at_ms = entry.at_ms.div_euclid(coarse_ms) * coarse_ms;
            if n % 3 == 0 {
                entry.points_micro = 1_000 + n % 64;
            }
        }
        let before = behaviour(&entries, &limits()).unwrap();
        let mut chance = Chance(salt);
        let mut changed: Vec<(u64, Entry)> =
            entries.into_iter().map(|entry| (chance.next(), entry)).collect();
        changed.sort_by_key(|(at, entry)| (entry.at_ms, *at));
        let changed: Vec<Entry> = changed.into_iter().map(|(_, mut entry)| {
            let name = entry.payer.bytes().fold(salt, |sum, byte| sum.rotate_left(9) ^ u64::from(byte));
            entry.payer = format!("{:x}", Chance(name).next());
            entry
        }).collect();
        let after = behaviour(&changed, &limits()).unwrap();
        prop_assert_eq!(said(&before), said(&after));
        prop_assert_eq!((before.all, before.automatic), (after.all, after.automatic));
        prop_assert_eq!(before.groups, after.groups);
    }
}
