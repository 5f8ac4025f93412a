//! Many names of one program. Names are put together by what does not depend on the hours at which they ask:
//! equal jobs, or habits (model, size of jobs), and as many jobs each as chance gives to equal names. Then
//! their times are asked whether they are one program's: the gaps of all of them together are a clock's, or
//! the days of each are flat.
//!
//! Days are compared within each name, never across: people of all time zones fill a day together, and
//! each of them still sleeps.

use std::collections::{BTreeMap, BTreeSet};

use neurino_core::PointsKind;
use serde::Serialize;

use super::figures::{Gaps, Pairs};
use super::{BehaviourLimits, Entry, Reason, Template, Watched, counts};
use crate::epoch::rules::WHOLE;

/// By what the names of a group are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "alike", rename_all = "snake_case")]
pub enum Alike {
    /// Nearly all their jobs are the same ones.
    Template {
        /// The model of each.
        model: String,
        /// Which points.
        points: PointsKind,
        /// The points of each, in millionths.
        points_micro: i64,
        /// The fee of each, in micro-credits.
        fee_micro: i64,
    },
    /// They have the same habits, and about as many jobs each.
    Habit {
        /// The model that nearly all their jobs are for, if there is one.
        model: Option<String>,
        /// Whether most jobs cost nothing.
        free: bool,
        /// Jobs of the name in the middle.
        jobs: u64,
        /// Points of an average job of the name in the middle, in millionths.
        points_micro: u64,
    },
}

/// Names that together behave like one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupBehaviour {
    /// By what they are alike.
    #[serde(flatten)]
    pub alike: Alike,
    /// How many names.
    pub payers: u64,
    /// Their results.
    pub jobs: u64,
    /// What they counted, in micro-points.
    pub organic_micro: i64,
    /// Their share of all organic points, in millionths.
    pub organic_ppm: u64,
    /// How much the gaps between the results of all of them vary, in millionths.
    pub gap_cv_ppm: Option<u64>,
    /// How uneven the day of each is, weighed by pairs of jobs, in millionths.
    pub uneven_ppm: Option<i64>,
    /// Why they look like one.
    pub reasons: Vec<Reason>,
}

/// What names are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Template(Template<'a>),
    Habit { model: Option<&'a str>, free: bool },
}

/// Names are looked for in three ways, one after the other, each among those not found before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Equal jobs, however many each.
    Template,
    /// Equal jobs, and about as many, without those who plainly sleep: a usual picture is everybody's.
    WakefulTemplate,
    /// Equal habits, and about as many jobs, without those who plainly sleep.
    WakefulHabit,
}

/// Names that may be one program's.
struct Candidates<'a> {
    alike: Alike,
    names: BTreeSet<&'a str>,
}

type AllWatched<'a> = BTreeMap<&'a str, Watched<'a>>;

/// The groups, and which one a payer is in.
pub(super) fn found<'a>(
    entries: &'a [Entry],
    watched: &AllWatched<'a>,
    limits: &BehaviourLimits,
    share: impl Fn(i64) -> u64,
) -> (Vec<GroupBehaviour>, BTreeMap<&'a str, usize>) {
    let (mut groups, mut group_of) = (Vec::new(), BTreeMap::new());
    for way in [Way::Template, Way::WakefulTemplate, Way::WakefulHabit] {
        let mut by_key: BTreeMap<Key<'a>, BTreeSet<&'a str>> = BTreeMap::new();
        for (payer, own) in watched.iter().filter(|(payer, _)| !group_of.contains_key(*payer)) {
            if let Some(key) = key(way, own, limits) {
                by_key.entry(key).or_default().insert(payer);
            }
        }
        by_key.retain(|_, names| names.len() as u64 >= limits.group_names_min);
        let candidates: Vec<Candidates<'a>> = by_key
            .into_iter()
            .flat_map(|(key, names)| match way {
                Way::Template => vec![Candidates { alike: key.shown(0, 0), names }],
                _ => as_many(key, names, watched, limits),
            })
            .collect();
        let gaps = gaps_of(entries, &candidates);
        for (Candidates { alike, names }, gaps) in candidates.into_iter().zip(gaps) {
            let measured = Measured::of(&names, watched, Some(&gaps), limits);
            let reasons = measured.reasons(limits);
            if reasons.is_empty() {
                continue;
            }
            let own = names.iter().filter_map(|name| watched.get(name));
            let organic_micro = own.fold(0_i64, |sum, own| sum.saturating_add(own.organic_micro));
            group_of.extend(names.iter().map(|name| (*name, groups.len())));
            groups.push(GroupBehaviour {
                alike,
                payers: names.len() as u64,
                jobs: measured.jobs,
                organic_micro,
                organic_ppm: share(organic_micro),
                gap_cv_ppm: measured.cv_ppm,
                uneven_ppm: measured.pairs.uneven_ppm(),
                reasons,
            });
        }
    }
    (groups, group_of)
}

/// What a payer is put together with others by, if it may be one of many names.
fn key<'a>(way: Way, own: &Watched<'a>, limits: &BehaviourLimits) -> Option<Key<'a>> {
    if way != Way::Template && !is_wakeful(own, limits) {
        return None;
    }
    if way == Way::WakefulHabit {
        let (model, count) = own.models.top()?;
        let model = (own.share_ppm(count) >= limits.group_model_ppm).then_some(model);
        let free = own.free * 2 > own.jobs;
        return (own.jobs >= limits.group_habit_jobs_min).then_some(Key::Habit { model, free });
    }
    let (template, count) = own.templates.top()?;
    let is_one =
        own.jobs >= limits.group_template_jobs_min && own.share_ppm(count) >= limits.template_ppm;
    is_one.then_some(Key::Template(template))
}

/// Of names with the same key, those of about as many and as large jobs whose days are flat. It begins
/// where most names are, counted by powers of two, and takes those within three standard deviations of
/// the jobs of the name in the middle, twice, because the first middle is one between powers.
fn as_many<'a>(
    key: Key<'a>,
    mut names: BTreeSet<&'a str>,
    watched: &AllWatched<'a>,
    limits: &BehaviourLimits,
) -> Vec<Candidates<'a>> {
    let size = |name: &str| {
        let own = watched.get(name).map(|own| (own.jobs, own.points_micro.unsigned_abs()));
        own.map_or((0, 0), |(jobs, points)| (jobs, points / jobs.max(1)))
    };
    let log = |n: u64| n.checked_ilog2().unwrap_or(0);
    let mut cells: BTreeMap<(u32, u32), BTreeSet<&'a str>> = BTreeMap::new();
    for name in &names {
        let (jobs, points) = size(name);
        cells.entry((log(jobs), log(points))).or_default().insert(name);
    }
    let mut cells: Vec<_> = cells.into_values().collect();
    // Stable: of as many names, by their size.
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.len()));
    let mut found = Vec::new();
    for cell in cells {
        let mut own: BTreeSet<&'a str> = cell.intersection(&names).copied().collect();
        let mut centre = (0, 0);
        for _ in 0..2 {
            if (own.len() as u64) < limits.group_names_min {
                break;
            }
            let sizes = own.iter().map(|name| size(name));
            let (jobs, points): (Vec<u64>, Vec<u64>) = sizes.unzip();
            centre = (middle(jobs).unwrap_or(0), middle(points).unwrap_or(0));
            let fits = |name: &&&str| {
                let (jobs, points) = size(name);
                let apart = u128::from(jobs.abs_diff(centre.0));
                let (small, large) = (points.min(centre.1), points.max(centre.1));
                let most = u128::from(small) * u128::from(limits.group_points_ppm);
                apart * apart <= 9 * u128::from(centre.0)
                    && u128::from(large) * u128::from(WHOLE) <= most
            };
            own = names.iter().filter(fits).copied().collect();
        }
        let is_group = own.len() as u64 >= limits.group_names_min
            && Measured::of(&own, watched, None, limits).flat_day(limits).is_some();
        if is_group {
            names.retain(|name| !own.contains(name));
            found.push(Candidates { alike: key.shown(centre.0, centre.1), names: own });
        }
    }
    found
}

/// Whether nothing says that somebody sleeps, or asks in bursts. Of few jobs little can be said, so it
/// takes more than two standard deviations to be left out.
fn is_wakeful(own: &Watched<'_>, limits: &BehaviourLimits) -> bool {
    let pairs = own.hours.pairs();
    let most = limits.uneven_ppm.saturating_add(pairs.chance_ppm().saturating_mul(2));
    own.hours.span() >= limits.flat_hours_min
        && own.hours.dispersion_ppm().is_some_and(|ppm| ppm <= limits.group_dispersion_ppm)
        && pairs.uneven_ppm().is_some_and(|uneven| uneven <= most)
}

/// The gaps between the jobs of all names of each group.
fn gaps_of(entries: &[Entry], groups: &[Candidates<'_>]) -> Vec<Gaps> {
    let mut gaps = vec![Gaps::default(); groups.len()];
    let names = groups.iter().enumerate();
    let places: BTreeMap<&str, usize> =
        names.flat_map(|(at, group)| group.names.iter().map(move |name| (*name, at))).collect();
    if places.is_empty() {
        return gaps;
    }
    for entry in entries.iter().filter(|entry| counts(entry)) {
        let gaps = places.get(entry.payer.as_str()).and_then(|at| gaps.get_mut(*at));
        if let Some(gaps) = gaps {
            gaps.add(entry.at_ms);
        }
    }
    gaps
}

/// The middle one, the lower of two.
fn middle(mut figures: Vec<u64>) -> Option<u64> {
    figures.sort_unstable();
    figures.get(figures.len().saturating_sub(1) / 2).copied()
}

/// What a group's names come to together.
#[derive(Debug, Clone, Copy)]
struct Measured {
    jobs: u64,
    cv_ppm: Option<u64>,
    pairs: Pairs,
    /// That of the name in the middle.
    dispersion_ppm: Option<u64>,
}

impl Measured {
    fn of(
        names: &BTreeSet<&str>,
        watched: &AllWatched<'_>,
        gaps: Option<&Gaps>,
        limits: &BehaviourLimits,
    ) -> Self {
        let own = || names.iter().filter_map(|name| watched.get(name));
        let dispersions = own().filter_map(|own| own.hours.dispersion_ppm()).collect();
        Self {
            jobs: own().map(|own| own.jobs).sum(),
            cv_ppm: gaps.and_then(|gaps| gaps.cv_ppm(limits.gap_trim_ppm)),
            pairs: own().fold(Pairs::default(), |sum, own| sum.and(own.hours.pairs())),
            dispersion_ppm: middle(dispersions),
        }
    }

    fn reasons(&self, limits: &BehaviourLimits) -> Vec<Reason> {
        let at_most_ppm = limits.gap_cv_ppm;
        let cv_ppm = self.cv_ppm.filter(|cv_ppm| *cv_ppm <= at_most_ppm);
        let cv_ppm = cv_ppm.filter(|_| self.jobs >= limits.group_clock_jobs_min);
        let clock = cv_ppm.map(|cv_ppm| Reason::RegularGaps { cv_ppm, at_most_ppm });
        clock.into_iter().chain(self.flat_day(limits)).collect()
    }

    fn flat_day(&self, limits: &BehaviourLimits) -> Option<Reason> {
        let (uneven_ppm, dispersion_ppm) = self.pairs.uneven_ppm().zip(self.dispersion_ppm)?;
        let is_flat = self.pairs.all >= limits.group_pairs_min.into()
            && uneven_ppm <= limits.uneven_ppm
            && dispersion_ppm <= limits.dispersion_ppm;
        is_flat.then_some(Reason::FlatDay {
            uneven_ppm,
            uneven_at_most_ppm: limits.uneven_ppm,
            dispersion_ppm,
            dispersion_at_most_ppm: limits.dispersion_ppm,
        })
    }
}

impl Key<'_> {
    fn shown(&self, jobs: u64, points_micro: u64) -> Alike {
        match *self {
            Self::Template(of) => Alike::Template {
                model: of.model.to_owned(),
                points: of.points,
                points_micro: of.points_micro,
                fee_micro: of.fee_micro,
            },
            Self::Habit { model, free } => {
                Alike::Habit { model: model.map(str::to_owned), free, jobs, points_micro }
            }
        }
    }
}
