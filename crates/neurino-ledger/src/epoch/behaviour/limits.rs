//! From which figures on a payer looks automatic, by dated editions read from data.

use jiff::Timestamp;
use neurino_core::editions::{self, Edition};
use serde::{Deserialize, Serialize};

use super::BehaviourError;
use crate::epoch::rules::WHOLE;

const BUILT_IN: &str = include_str!("../../../data/behaviour.toml");

/// One published edition. Shares, variations and unevenness are in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehaviourLimits {
    /// Its name.
    pub name: String,
    /// First instant it holds.
    pub from: Timestamp,
    /// In words, for a person who asks.
    pub note: String,
    /// A payer with fewer jobs says little.
    pub jobs_min: u64,
    /// Gaps that vary at most so much are a clock's.
    pub gap_cv_ppm: u64,
    /// The part of the longest gaps that is left out.
    pub gap_trim_ppm: u64,
    /// Jobs from which a day can be called flat.
    pub flat_jobs_min: u64,
    /// Hours from the first to the last job from which a day can be called flat.
    pub flat_hours_min: u64,
    /// A flat day is at most so uneven.
    pub uneven_ppm: i64,
    /// And its single hours vary at most so much, where chance alone is a whole.
    pub dispersion_ppm: u64,
    /// The share of equal jobs from which a form is being filled in.
    pub template_ppm: u64,
    /// Where they are pictures, their gaps also vary at most so much.
    pub template_image_cv_ppm: u64,
    /// Names from which there is a group.
    pub group_names_min: u64,
    /// Jobs of each name that is alike in its equal jobs.
    pub group_template_jobs_min: u64,
    /// Jobs of each name that is alike in its habits.
    pub group_habit_jobs_min: u64,
    /// Jobs of all names from which their gaps can be a clock's.
    pub group_clock_jobs_min: u64,
    /// Pairs of jobs of the same name from which a group's day can be called flat.
    pub group_pairs_min: u64,
    /// The share of one model from which it is the habit of a name.
    pub group_model_ppm: u64,
    /// How many times as large the average jobs of two names alike in habit are at most.
    pub group_points_ppm: u64,
    /// How much the single hours of a name vary at most for its day to be held against others.
    pub group_dispersion_ppm: u64,
}

impl Edition for BehaviourLimits {
    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Timestamp {
        self.from
    }
}

impl BehaviourLimits {
    /// The edition that a name means at a time in milliseconds since the Unix epoch: that of the name, or
    /// the one of its family that holds then.
    ///
    /// # Errors
    /// `Unknown`.
    pub fn at(name: &str, ms: i64) -> Result<Self, BehaviourError> {
        let all = Self::parse(BUILT_IN)?;
        let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        editions::in_force(&all, name, at).cloned().ok_or_else(|| BehaviourError::Unknown {
            name: name.to_owned(),
            known: editions::names(&all).join("`, `"),
        })
    }

    /// Reads editions from TOML.
    ///
    /// # Errors
    /// `Limits`.
    pub fn parse(toml: &str) -> Result<Vec<Self>, BehaviourError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            behaviour_limits: Vec<BehaviourLimits>,
        }
        let file: File =
            toml::from_str(toml).map_err(|error| BehaviourError::Limits(error.to_string()))?;
        for limits in &file.behaviour_limits {
            limits.check()?;
        }
        Ok(file.behaviour_limits)
    }

    /// Refuses limits by which a few jobs, or everybody, would look automatic.
    fn check(&self) -> Result<(), BehaviourError> {
        let wrong = |what: &str| Err(BehaviourError::Limits(format!("`{}`: {what}", self.name)));
        if self.jobs_min < 3 || self.flat_jobs_min < self.jobs_min {
            return wrong("`jobs_min` is at least 3, and `flat_jobs_min` no smaller");
        }
        if self.group_names_min < 2
            || self.group_template_jobs_min < 2
            || self.group_habit_jobs_min < 2
        {
            return wrong("a group has at least two names, each with at least two jobs");
        }
        let whole = u64::from(WHOLE);
        let shares = [self.template_ppm, self.group_model_ppm];
        if shares.iter().any(|share| *share > whole || *share <= whole / 2) {
            return wrong("the share of a template or a model is over a half and at most a whole");
        }
        if self.group_points_ppm < whole {
            return wrong("`group_points_ppm` is at least a whole");
        }
        if self.gap_trim_ppm > whole / 2 {
            return wrong("at most half of the gaps can be left out");
        }
        if self.uneven_ppm < 0 || self.flat_hours_min < 24 || self.group_pairs_min == 0 {
            return wrong(
                "`uneven_ppm` is not negative, `flat_hours_min` a day, `group_pairs_min` above zero",
            );
        }
        Ok(())
    }
}
