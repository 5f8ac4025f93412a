//! What the person is told about without asking: typed rules with thresholds, facts in, alerts out.
//!
//! Nothing here stops or starts mining. An alert begins when its condition has lasted as long as its
//! rule says, and ends when the condition has; what has ended is remembered.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::rules::RulesError;

/// Most alerts of the past that are remembered.
pub const PAST_MAX: usize = 100;
/// Degrees below its threshold at which a hot card counts as cool again.
const COOLER_C: i16 = 3;
const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;

/// When to alert. What is missing in a file has its default, what is unknown is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the settings")]
pub struct AlertRules {
    /// Whether a hot card is told.
    pub hot: bool,
    /// From this temperature, in degrees Celsius, 50 to 105.
    pub hot_c: i16,
    /// After so many minutes of it, 1 to 120.
    pub hot_minutes: u32,
    /// Whether mining without points is told.
    pub no_points: bool,
    /// After so many hours of it, 1 to 168.
    pub no_points_hours: u32,
    /// Whether a download that does not advance is told.
    pub stuck: bool,
    /// After so many minutes of it, 1 to 1440.
    pub stuck_minutes: u32,
    /// Whether a drive that is nearly full is told.
    pub low_disk: bool,
    /// Below so many gigabytes free, 1 to 1000.
    pub low_disk_gb: u32,
    /// Whether results without a reward are told.
    pub frozen: bool,
}

impl Default for AlertRules {
    fn default() -> Self {
        Self {
            hot: true,
            hot_c: 90,
            hot_minutes: 5,
            no_points: true,
            no_points_hours: 4,
            stuck: true,
            stuck_minutes: 30,
            low_disk: true,
            low_disk_gb: 5,
            frozen: true,
        }
    }
}

impl AlertRules {
    /// The rules, if they make sense.
    ///
    /// # Errors
    /// [`RulesError::Range`] names the first number that does not.
    pub fn checked(self) -> Result<Self, RulesError> {
        let range = |what, found: i64, least, most| match found {
            found if (least..=most).contains(&found) => Ok(()),
            found => Err(RulesError::Range { what, least, most, found }),
        };
        range("the temperature to alert at", i64::from(self.hot_c), 50, 105)?;
        range("the minutes of heat", i64::from(self.hot_minutes), 1, 120)?;
        range("the hours without points", i64::from(self.no_points_hours), 1, 168)?;
        range("the minutes without progress", i64::from(self.stuck_minutes), 1, 1440)?;
        range("the gigabytes that are free", i64::from(self.low_disk_gb), 1, 1000)?;
        Ok(self)
    }
}

/// What is the case at one moment; what is not known is `None` and alerts nobody.
#[derive(Debug, Clone, Default)]
pub struct AlertFacts {
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Whether the machine mines.
    pub mining: bool,
    /// Temperature of the card that computes, in degrees Celsius.
    pub card_c: Option<i16>,
    /// All points so far, in micro-points.
    pub points_micro: i64,
    /// The download that runs, and its bytes so far.
    pub download: Option<(String, u64)>,
    /// Bytes free on the drive of the models.
    pub free_bytes: Option<u64>,
    /// Jobs whose reward does not come, if the books say so.
    pub frozen_jobs: Option<u32>,
}

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// The card is hot.
    Hot,
    /// Mining earns nothing.
    NoPoints,
    /// A download does not advance.
    Stuck,
    /// The drive is nearly full.
    LowDisk,
    /// Results are not rewarded.
    Frozen,
}

/// Something the person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// What is the case and what helps, in two sentences.
    pub sentence: String,
    /// Since when, in milliseconds since the Unix epoch.
    #[ts(type = "number")]
    pub since_ms: i64,
    /// When it ended; none while it lasts.
    #[ts(type = "number | null")]
    pub until_ms: Option<i64>,
}

/// Watches over facts.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Since when each condition holds.
    since: BTreeMap<AlertKind, i64>,
    current: BTreeMap<AlertKind, Alert>,
    past: VecDeque<Alert>,
    points_micro: i64,
    download: Option<(String, u64)>,
    /// The last look: when, and whether it mined then.
    looked: Option<(i64, bool)>,
    /// Mining since the last points: when it began, and how long it was without the pauses.
    unpaid: Option<(i64, i64)>,
}

impl Watch {
    /// A watch that remembers these alerts, oldest first. What lasted when the program ended is
    /// taken for ended then.
    pub fn new(past: impl IntoIterator<Item = Alert>) -> Self {
        let ended =
            |alert: Alert| Alert { until_ms: alert.until_ms.or(Some(alert.since_ms)), ..alert };
        let mut past: VecDeque<Alert> = past.into_iter().map(ended).collect();
        past.drain(..past.len().saturating_sub(PAST_MAX));
        Self { past, ..Self::default() }
    }

    /// What lasts now, most urgent first.
    pub fn current(&self) -> impl Iterator<Item = &Alert> {
        self.current.values()
    }

    /// What is over, oldest first.
    pub fn past(&self) -> &VecDeque<Alert> {
        &self.past
    }

    /// Takes in what is the case; says whether an alert began or ended.
    pub fn observe(&mut self, rules: &AlertRules, facts: &AlertFacts) -> bool {
        let now_ms = facts.now_ms;
        let earned = std::mem::replace(&mut self.points_micro, facts.points_micro);
        let moved = std::mem::replace(&mut self.download, facts.download.clone());
        let looked = self.looked.replace((now_ms, facts.mining));
        if earned != facts.points_micro {
            self.unpaid = None;
        }
        if facts.mining {
            // A clock that was set back makes nothing last longer.
            let (since_ms, mined_ms) = self.unpaid.unwrap_or((now_ms, 0));
            let passed_ms = match looked {
                Some((at_ms, true)) if self.unpaid.is_some() => (now_ms - at_ms).max(0),
                _ => 0,
            };
            self.unpaid = Some((since_ms.min(now_ms), mined_ms + passed_ms));
        }
        if moved != facts.download {
            self.since.remove(&AlertKind::Stuck);
        }
        let least_c =
            rules.hot_c - if self.current.contains_key(&AlertKind::Hot) { COOLER_C } else { 0 };
        let hot_c = facts.card_c.filter(|c| rules.hot && *c >= least_c);
        let free_gb = facts.free_bytes.map(|bytes| bytes / 1_000_000_000);
        let low_gb = free_gb.filter(|gb| rules.low_disk && *gb < u64::from(rules.low_disk_gb));
        let stuck = facts.download.as_ref().filter(|_| rules.stuck).map(|(name, _)| name.clone());
        let frozen = facts.frozen_jobs.filter(|_| rules.frozen);
        let minutes = |n: u32| i64::from(n) * MINUTE_MS;
        let no_points_ms = i64::from(rules.no_points_hours) * HOUR_MS;
        let mut told = Vec::new();
        let mut look = |kind, holds: bool, after_ms| {
            if !holds {
                self.since.remove(&kind);
                return;
            }
            let since_ms = self.since.entry(kind).or_insert(now_ms);
            // A clock that was set back makes nothing last longer.
            *since_ms = (*since_ms).min(now_ms);
            if now_ms - *since_ms >= after_ms {
                told.push((kind, *since_ms));
            }
        };
        look(AlertKind::Hot, hot_c.is_some(), minutes(rules.hot_minutes));
        look(AlertKind::Stuck, stuck.is_some(), minutes(rules.stuck_minutes));
        look(AlertKind::LowDisk, low_gb.is_some(), 0);
        look(AlertKind::Frozen, frozen.is_some(), 0);
        // Pauses do not count, and begin nothing anew: with a game an hour it would never be told.
        if let Some((since_ms, mined_ms)) = self.unpaid
            && (rules.no_points && facts.mining && mined_ms >= no_points_ms)
        {
            told.push((AlertKind::NoPoints, since_ms));
        }
        let sentence = |kind| match kind {
            AlertKind::Hot => format!(
                "The graphics card has been at {} °C or more for {} minutes. Give it air, or limit \
                 its power.",
                rules.hot_c, rules.hot_minutes
            ),
            AlertKind::NoPoints => format!(
                "Nothing was earned in {} hours of mining. The check of this machine in the \
                 settings may say why.",
                rules.no_points_hours
            ),
            AlertKind::Stuck => format!(
                "The download of {} has not moved for {} minutes. Pause and resume it, or check \
                 the line.",
                stuck.as_deref().unwrap_or_default(),
                rules.stuck_minutes
            ),
            AlertKind::LowDisk => format!(
                "Less than {} GB are free on the drive of the models. Clean the library up, or \
                 move it.",
                rules.low_disk_gb
            ),
            AlertKind::Frozen => format!(
                "The rewards of {} finished jobs have not come. Earnings shows which.",
                frozen.unwrap_or_default()
            ),
        };
        let now: BTreeMap<AlertKind, Alert> = told
            .into_iter()
            .map(|(kind, since_ms)| {
                (kind, Alert { kind, sentence: sentence(kind), since_ms, until_ms: None })
            })
            .collect();
        self.replace(now, now_ms)
    }

    fn replace(&mut self, now: BTreeMap<AlertKind, Alert>, now_ms: i64) -> bool {
        let before = std::mem::replace(&mut self.current, now);
        let mut news = false;
        for (kind, alert) in self.current.iter().filter(|(kind, _)| !before.contains_key(kind)) {
            news = true;
            // One that another rule had ended while its cause went on is the same alert.
            self.past.retain(|past| past.kind != *kind || past.since_ms != alert.since_ms);
        }
        for (kind, alert) in before {
            if !self.current.contains_key(&kind) {
                news = true;
                self.past.push_back(Alert { until_ms: Some(now_ms), ..alert });
            }
        }
        self.past.drain(..self.past.len().saturating_sub(PAST_MAX));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(minute: i64) -> AlertFacts {
        AlertFacts { now_ms: minute * MINUTE_MS, ..AlertFacts::default() }
    }

    fn kinds(watch: &Watch) -> Vec<AlertKind> {
        watch.current().map(|alert| alert.kind).collect()
    }

    #[test]
    fn heat_must_last_and_ends_a_little_below() {
        let (mut watch, rules) = (Watch::default(), AlertRules::default());
        let hot = |minute, c| AlertFacts { card_c: Some(c), ..facts(minute) };
        for (minute, c, news, alerts) in [
            (0, 92, false, false),
            (3, 91, false, false),
            (4, 80, false, false),
            (5, 90, false, false),
            (9, 95, false, false),
            (10, 95, true, true),
            (11, 88, false, true),
            (12, 86, true, false),
        ] {
            assert_eq!(watch.observe(&rules, &hot(minute, c)), news, "minute {minute}");
            assert_eq!(!kinds(&watch).is_empty(), alerts, "minute {minute}");
        }
        let past = &watch.past()[0];
        assert_eq!((past.since_ms, past.until_ms), (5 * MINUTE_MS, Some(12 * MINUTE_MS)));
        assert!(past.sentence.contains("90 °C or more for 5 minutes"));
    }

    #[test]
    fn hours_without_points_count_while_it_mines() {
        let (mut watch, rules) = (Watch::default(), AlertRules::default());
        let mined =
            |hour: i64, points_micro| AlertFacts { mining: true, points_micro, ..facts(hour * 60) };
        watch.observe(&rules, &mined(0, 7));
        watch.observe(&rules, &mined(3, 8));
        watch.observe(&rules, &mined(6, 8));
        assert_eq!(kinds(&watch), []);
        let paused = |hour, points_micro| AlertFacts { mining: false, ..mined(hour, points_micro) };
        watch.observe(&rules, &paused(6, 8));
        watch.observe(&rules, &mined(20, 8));
        assert_eq!(kinds(&watch), [], "the pause does not count");
        watch.observe(&rules, &mined(21, 8));
        assert_eq!(kinds(&watch), [AlertKind::NoPoints], "nor does it begin anew");
        let since_ms = watch.current().next().expect("one").since_ms;
        watch.observe(&rules, &paused(22, 8));
        assert_eq!(kinds(&watch), []);
        watch.observe(&rules, &mined(23, 8));
        assert_eq!(watch.current().next().expect("the same").since_ms, since_ms);
        watch.observe(&rules, &mined(24, 9));
        assert_eq!(kinds(&watch), []);
    }

    #[test]
    fn an_alert_that_another_rule_ended_is_taken_up_again() {
        let (mut watch, rules) = (Watch::default(), AlertRules::default());
        let mined = |hour: i64| AlertFacts { mining: true, points_micro: 7, ..facts(hour * 60) };
        let patient = AlertRules { no_points_hours: 8, ..rules.clone() };
        watch.observe(&rules, &AlertFacts { mining: false, ..mined(0) });
        watch.observe(&rules, &mined(1));
        assert!(watch.observe(&rules, &mined(6)));
        assert!(watch.observe(&patient, &mined(7)));
        assert_eq!((kinds(&watch), watch.past().len()), (vec![], 1));
        assert!(watch.observe(&patient, &mined(10)));
        assert_eq!(kinds(&watch), [AlertKind::NoPoints]);
        watch.observe(&patient, &facts(11 * 60));
        let past: Vec<_> = watch.past().iter().map(|alert| (alert.kind, alert.since_ms)).collect();
        assert_eq!(past, [(AlertKind::NoPoints, HOUR_MS)]);
    }

    #[test]
    fn a_download_that_moves_is_not_stuck() {
        let (mut watch, rules) = (Watch::default(), AlertRules::default());
        let at =
            |minute, bytes| AlertFacts { download: Some(("llama".into(), bytes)), ..facts(minute) };
        watch.observe(&rules, &at(0, 1));
        watch.observe(&rules, &at(29, 2));
        watch.observe(&rules, &at(58, 2));
        assert_eq!(kinds(&watch), []);
        watch.observe(&rules, &at(59, 2));
        assert_eq!(kinds(&watch), [AlertKind::Stuck]);
        watch.observe(&rules, &facts(60));
        assert_eq!(kinds(&watch), []);
    }

    #[test]
    fn disk_and_rewards_are_told_at_once_and_switches_are_obeyed() {
        let mut watch = Watch::default();
        let bad = AlertFacts { free_bytes: Some(4_900_000_000), frozen_jobs: Some(3), ..facts(0) };
        watch.observe(&AlertRules::default(), &bad);
        assert_eq!(kinds(&watch), [AlertKind::LowDisk, AlertKind::Frozen]);
        let quiet = AlertRules { low_disk: false, frozen: false, ..AlertRules::default() };
        assert!(watch.observe(&quiet, &bad));
        assert_eq!((kinds(&watch).len(), watch.past().len()), (0, 2));
    }

    #[test]
    fn the_past_is_bounded_and_an_end_without_a_word_is_an_end() {
        let alert = |n| Alert {
            kind: AlertKind::Hot,
            sentence: String::new(),
            since_ms: n,
            until_ms: None,
        };
        let watch = Watch::new((0..500).map(alert));
        assert_eq!(watch.past().len(), PAST_MAX);
        assert_eq!(watch.past()[0].until_ms, Some(400));
        let wrong = AlertRules { hot_c: 20, ..AlertRules::default() }.checked();
        let words = wrong.expect_err("refused").to_string();
        assert_eq!(words, "the temperature to alert at must be between 50 and 105, not 20");
        assert!(AlertRules::default().checked().is_ok());
    }
}
