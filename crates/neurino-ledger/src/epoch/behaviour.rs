//! How the payers of an epoch behave, read from its published entries alone, so that anybody gets the same
//! figures: the rhythm of their results, the evenness of their days, how equal their jobs are, and names
//! that behave like one. What was asked is not in the entries and is not looked at.
//!
//! Evidence, and no more: it moves no points, and no file says it. A limit that everybody can read can be
//! kept below, and a company's nightly batch is automatic and honest. Times are those at which results
//! were paid, so a node's queue and the length of the work are in every gap.
//!
//! Entries are read one after the other: for their order, for the figures of payers, and once more for each
//! of three kinds of group that may be there. Beside them, memory is about six kilobytes at most for each
//! payer of a week, however much it asked.
//!
//! Reading order: `limits` (dated, from data), `figures` (what is counted), `groups` (many names of one).

mod figures;
mod groups;
#[cfg(test)]
mod labelled;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use neurino_core::{JobId, PointsKind};
use serde::Serialize;

use self::figures::{Commonest, Gaps, Hours, ppm};
use super::{Entry, Movement, Source};

pub use groups::{Alike, GroupBehaviour};
pub use limits::BehaviourLimits;

/// Why behaviour cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BehaviourError {
    /// A name of limits is unknown to this build.
    #[error("the limits `{name}` are unknown to this version, which has `{known}`")]
    Unknown {
        /// Which.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The data of limits does not parse, or makes no sense.
    #[error("the limits of behaviour cannot be used: {0}")]
    Limits(String),
    /// An entry cannot stand where it stands.
    #[error("entry {entry} {fault}")]
    Entry {
        /// Counted from one.
        entry: usize,
        /// Why.
        fault: &'static str,
    },
}

/// What a payer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// For the reasons beside it.
    LooksAutomatic,
    /// Nothing in its figures says otherwise.
    LooksHuman,
    /// It asked too seldom to be told.
    SaysLittle,
}

/// Why somebody looks automatic: which signal, its figures and their limits, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "signal", rename_all = "snake_case")]
pub enum Reason {
    /// The gaps between its results are a clock's.
    RegularGaps {
        /// How much they vary.
        cv_ppm: u64,
        /// The limit.
        at_most_ppm: u64,
    },
    /// All hours are alike, of the day and one by one.
    FlatDay {
        /// How uneven the hours of the day are.
        uneven_ppm: i64,
        /// The limit.
        uneven_at_most_ppm: i64,
        /// How much single hours vary.
        dispersion_ppm: u64,
        /// The limit.
        dispersion_at_most_ppm: u64,
    },
    /// Nearly all its jobs are equal.
    Templated {
        /// Their share.
        share_ppm: u64,
        /// The limit.
        at_least_ppm: u64,
    },
    /// It is one of many names that together behave like one program.
    OneOfGroup {
        /// Its place among the groups.
        group: usize,
    },
}

/// What can be measured of a payer; nothing where there is too little to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Standard deviation of its gaps over their mean, without the longest, in millionths.
    pub gap_cv_ppm: Option<u64>,
    /// Hours of the day (UTC) in which it asked, of 24.
    pub day_hours: u32,
    /// How much oftener two of its jobs share an hour of the day than by chance, in millionths.
    pub uneven_ppm: Option<i64>,
    /// Variance over mean of its jobs in single hours, in millionths.
    pub dispersion_ppm: Option<u64>,
    /// Share of its commonest equal jobs (model, points, fee), at least, in millionths.
    pub template_ppm: u64,
    /// Share of its commonest model, at least, in millionths.
    pub model_ppm: u64,
}

/// One payer of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayerBehaviour {
    /// Its name in this epoch.
    pub payer: String,
    /// Its results.
    pub jobs: u64,
    /// What they counted when they were paid, in micro-points.
    pub organic_micro: i64,
    /// Its share of all organic points, in millionths.
    pub organic_ppm: u64,
    /// The job of its first result: whoever has the books finds there who it is.
    pub job: JobId,
    /// Its first result, in milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// Its last result.
    pub last_ms: i64,
    /// What was measured.
    pub figures: Figures,
    /// What it looks like.
    pub verdict: Verdict,
    /// Why, where it looks automatic.
    pub reasons: Vec<Reason>,
}

/// A part of an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BehaviourPart {
    /// Names.
    pub payers: u64,
    /// Their results.
    pub jobs: u64,
    /// What they counted, in micro-points.
    pub organic_micro: i64,
    /// Their share of all organic points, in millionths.
    pub organic_ppm: u64,
}

/// How the payers of an epoch behave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Behaviour {
    /// The limits they are held against.
    pub limits: BehaviourLimits,
    /// All of them.
    pub all: BehaviourPart,
    /// Those that look automatic.
    pub automatic: BehaviourPart,
    /// Those that brought most organic points first.
    pub payers: Vec<PayerBehaviour>,
    /// Names that together behave like one.
    pub groups: Vec<GroupBehaviour>,
}

/// What makes two jobs equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Template<'a> {
    model: &'a str,
    points: PointsKind,
    points_micro: i64,
    fee_micro: i64,
}

/// What is added up of one payer.
#[derive(Debug)]
struct Watched<'a> {
    /// That of the first job.
    job: JobId,
    jobs: u64,
    free: u64,
    points_micro: i64,
    organic_micro: i64,
    first_ms: i64,
    last_ms: i64,
    gaps: Gaps,
    hours: Hours,
    templates: Commonest<Template<'a>>,
    models: Commonest<&'a str>,
}

impl<'a> Watched<'a> {
    /// Of a payer whose first job is that.
    fn from(first: &Entry) -> Self {
        Self {
            job: first.job,
            jobs: 0,
            free: 0,
            points_micro: 0,
            organic_micro: 0,
            first_ms: first.at_ms,
            last_ms: first.at_ms,
            gaps: Gaps::default(),
            hours: Hours::default(),
            templates: Commonest::default(),
            models: Commonest::default(),
        }
    }

    fn add(&mut self, entry: &'a Entry) {
        self.last_ms = entry.at_ms;
        self.jobs += 1;
        self.free += u64::from(entry.source == Source::Free);
        self.points_micro = self.points_micro.saturating_add(entry.points_micro);
        self.organic_micro = self.organic_micro.saturating_add(entry.organic_micro);
        self.gaps.add(entry.at_ms);
        self.hours.add(entry.at_ms);
        self.templates.add(template(entry));
        self.models.add(entry.model.as_str());
    }

    fn share_ppm(&self, count: u64) -> u64 {
        ppm(count.into(), self.jobs.into())
    }

    fn figures(&self, limits: &BehaviourLimits) -> Figures {
        let top = |count: Option<u64>| self.share_ppm(count.unwrap_or(0));
        Figures {
            gap_cv_ppm: self.gaps.cv_ppm(limits.gap_trim_ppm),
            day_hours: self.hours.used(),
            uneven_ppm: self.hours.pairs().uneven_ppm(),
            dispersion_ppm: self.hours.dispersion_ppm(),
            template_ppm: top(self.templates.top().map(|(_, count)| count)),
            model_ppm: top(self.models.top().map(|(_, count)| count)),
        }
    }

    /// The signals of this payer alone.
    fn reasons(&self, figures: &Figures, limits: &BehaviourLimits) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.jobs < limits.jobs_min {
            return reasons;
        }
        let cv_ppm = figures.gap_cv_ppm;
        let at_most = |limit: u64| cv_ppm.is_some_and(|cv_ppm| cv_ppm <= limit);
        if let Some(cv_ppm) = cv_ppm.filter(|_| at_most(limits.gap_cv_ppm)) {
            reasons.push(Reason::RegularGaps { cv_ppm, at_most_ppm: limits.gap_cv_ppm });
        }
        let is_long =
            self.jobs >= limits.flat_jobs_min && self.hours.span() >= limits.flat_hours_min;
        let day = figures.uneven_ppm.zip(figures.dispersion_ppm);
        if let Some((uneven_ppm, dispersion_ppm)) = day
            && is_long
            && uneven_ppm <= limits.uneven_ppm
            && dispersion_ppm <= limits.dispersion_ppm
        {
            reasons.push(Reason::FlatDay {
                uneven_ppm,
                uneven_at_most_ppm: limits.uneven_ppm,
                dispersion_ppm,
                dispersion_at_most_ppm: limits.dispersion_ppm,
            });
        }
        let kind = self.templates.top().map(|(template, _)| template.points);
        let tells = kind == Some(PointsKind::Llama) || at_most(limits.template_image_cv_ppm);
        if tells && figures.template_ppm >= limits.template_ppm {
            let (share_ppm, at_least_ppm) = (figures.template_ppm, limits.template_ppm);
            reasons.push(Reason::Templated { share_ppm, at_least_ppm });
        }
        reasons
    }
}

fn template(entry: &Entry) -> Template<'_> {
    Template {
        model: entry.model.as_str(),
        points: entry.points,
        points_micro: entry.points_micro,
        fee_micro: entry.fee_micro,
    }
}

/// Whether somebody asked for it: results that were paid, and neither the network's own nor audits.
fn counts(entry: &Entry) -> bool {
    entry.movement == Movement::Reward && matches!(entry.source, Source::Paid | Source::Free)
}

/// Reads how the payers of some entries behave. The entries come by time; the order of those of the same
/// millisecond does not matter, nor what payers are called.
///
/// # Errors
/// `Entry` if one is before the one above it, there twice, or negative.
pub fn behaviour(entries: &[Entry], limits: &BehaviourLimits) -> Result<Behaviour, BehaviourError> {
    check_order(entries)?;
    let mut watched: BTreeMap<&str, Watched<'_>> = BTreeMap::new();
    for same_time in entries.chunk_by(|a, b| a.at_ms == b.at_ms) {
        let mut jobs: Vec<&Entry> = same_time.iter().filter(|entry| counts(entry)).collect();
        jobs.sort_unstable_by_key(|entry| (template(entry), entry.lease));
        for entry in jobs {
            let own = watched.entry(entry.payer.as_str());
            own.or_insert_with(|| Watched::from(entry)).add(entry);
        }
    }
    let all_micro = watched.values().fold(0_i64, |sum, own| sum.saturating_add(own.organic_micro));
    let share = |micro: i64| ppm(micro.unsigned_abs().into(), all_micro.unsigned_abs().into());
    let (groups, group_of) = groups::found(entries, &watched, limits, share);
    let mut payers: Vec<PayerBehaviour> = Vec::with_capacity(watched.len());
    for (payer, own) in &watched {
        let figures = own.figures(limits);
        let mut reasons = own.reasons(&figures, limits);
        reasons.extend(group_of.get(payer).map(|group| Reason::OneOfGroup { group: *group }));
        let verdict = if !reasons.is_empty() {
            Verdict::LooksAutomatic
        } else if own.jobs < limits.jobs_min {
            Verdict::SaysLittle
        } else {
            Verdict::LooksHuman
        };
        payers.push(PayerBehaviour {
            payer: (*payer).to_owned(),
            jobs: own.jobs,
            organic_micro: own.organic_micro,
            organic_ppm: share(own.organic_micro),
            job: own.job,
            first_ms: own.first_ms,
            last_ms: own.last_ms,
            figures,
            verdict,
            reasons,
        });
    }
    // Stable: of the same figures, by name.
    payers.sort_by_key(|own| std::cmp::Reverse((own.organic_micro, own.jobs)));
    let part = |own: &mut dyn Iterator<Item = &PayerBehaviour>| {
        own.fold(BehaviourPart::default(), |part, own| {
            let organic_micro = part.organic_micro.saturating_add(own.organic_micro);
            let (payers, jobs) = (part.payers + 1, part.jobs + own.jobs);
            BehaviourPart { payers, jobs, organic_micro, organic_ppm: share(organic_micro) }
        })
    };
    let is_automatic = |own: &&PayerBehaviour| own.verdict == Verdict::LooksAutomatic;
    Ok(Behaviour {
        limits: limits.clone(),
        all: part(&mut payers.iter()),
        automatic: part(&mut payers.iter().filter(is_automatic)),
        payers,
        groups,
    })
}

fn check_order(entries: &[Entry]) -> Result<(), BehaviourError> {
    let mut at = 0;
    let mut last_ms = i64::MIN;
    for same_time in entries.chunk_by(|a, b| a.at_ms == b.at_ms) {
        let fault = |at: usize, fault| Err(BehaviourError::Entry { entry: at + 1, fault });
        let now_ms = same_time.first().map_or(last_ms, |entry| entry.at_ms);
        if now_ms < last_ms {
            return fault(at, "is older than the one before it; entries come by time, as served");
        }
        last_ms = now_ms;
        let mut places: Vec<_> =
            same_time.iter().enumerate().map(|(n, e)| (e.lease, e.movement, at + n)).collect();
        places.sort_unstable();
        let twice = places.windows(2).find(|two| (two[0].0, two[0].1) == (two[1].0, two[1].1));
        if let Some(two) = twice {
            return fault(two[1].2, "is there twice; pages of entries follow each other");
        }
        let amounts = |e: &Entry| e.points_micro.min(e.organic_micro).min(e.fee_micro);
        if let Some(n) = same_time.iter().position(|entry| amounts(entry) < 0) {
            return fault(at + n, "has a negative amount");
        }
        at += same_time.len();
    }
    Ok(())
}
