//! Which results are computed again, and what the outcomes say of a node.
//!
//! Pure: keys, counts and times arrive as parameters. [`AuditRules`] are the numbers, read from
//! `data/audits.toml`; [`draw`] decides for one job, unknown to its node and open to check once the
//! key is published; [`Record`] is what is known of a node: how closely it is watched, when its
//! earnings are free, and the verdict of a sequential test over its audits. [`bounds`] says how much a
//! measured error rate is worth, [`economics`] when cheating pays, [`margins`] what a scored text says,
//! [`distribution`] whether two machines write alike, [`rank`] the same of one text after the other.

pub mod bounds;
pub mod distribution;
pub mod economics;
pub mod margins;
pub mod rank;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use ts_rs::TS;

use crate::ids::JobId;
use crate::job::SeedScore;
use margins::{MarginRules, MarginVerdict, Margins};
use rank::{Drawn, DrawnVerdict, RankRules, TextRank};

/// Millionths in one.
const MILLION: u64 = 1_000_000;

/// An edition of the numbers. Probabilities are in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRules {
    /// The edition's name.
    pub name: String,
    /// Results of a new node that are all computed again.
    pub first: u32,
    /// Least share of an established node's results.
    pub floor_ppm: u32,
    /// The same for a node that proves little of itself.
    pub probation_floor_ppm: u32,
    /// Share of audits that an honest node fails: noise of machines.
    pub honest_fails_ppm: u32,
    /// Share of audits that a cheater fails at least.
    pub cheater_fails_ppm: u32,
    /// Accepted share of honest nodes that are convicted.
    pub false_alarm_ppm: u32,
    /// Accepted share of cheaters that are cleared.
    pub miss_ppm: u32,
    /// Comparisons in a row that said nothing after which not all of a new node's results are computed
    /// again: what cannot be told need not be asked each time.
    pub unclear: u32,
    /// Least share of the results of such a node.
    pub unclear_floor_ppm: u32,
    /// How long earnings can be called back, in milliseconds.
    pub escrow_ms: i64,
    /// Share of a node's paid results after which its owner is given a job whose answer the network
    /// knows; 0 is none.
    pub honeypot_ppm: u32,
    /// Owners that one such job is given to at most: who compares notes recognises few.
    pub honeypot_owners: u32,
    /// Such jobs that are kept or made at the same time, of all models.
    pub honeypots_kept: u32,
    /// What the scores of a claimed text are held against.
    pub margins: MarginRules,
    /// How another engine's texts are compared with the network's own.
    pub rank: RankRules,
}

/// Editions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditRulesError {
    /// The text is not what this build reads.
    #[error("the audit rules cannot be read; take them from a whole copy of the program")]
    Unreadable(#[from] toml::de::Error),
    /// A number makes no sense.
    #[error("`{field}` of the audit rules `{name}` is out of range")]
    Senseless {
        /// The edition.
        name: String,
        /// The field.
        field: &'static str,
    },
}

impl AuditRules {
    /// The newest built-in edition.
    pub fn built_in() -> Self {
        Self::read(include_str!("../data/audits.toml")).expect("checked by a test")
    }

    /// Reads an edition from TOML.
    ///
    /// # Errors
    /// [`AuditRulesError`].
    pub fn read(text: &str) -> Result<Self, AuditRulesError> {
        let rules: Self = toml::from_str(text)?;
        let million = 1_000_000;
        let senseless = [
            ("floor_ppm", rules.floor_ppm == 0 || rules.floor_ppm > million),
            (
                "probation_floor_ppm",
                !(rules.floor_ppm..=million).contains(&rules.probation_floor_ppm),
            ),
            ("honest_fails_ppm", rules.honest_fails_ppm == 0),
            (
                "cheater_fails_ppm",
                !(rules.honest_fails_ppm + 1..million).contains(&rules.cheater_fails_ppm),
            ),
            ("false_alarm_ppm", !(1..million / 2).contains(&rules.false_alarm_ppm)),
            ("miss_ppm", !(1..million / 2).contains(&rules.miss_ppm)),
            ("unclear", rules.unclear < rules.first),
            ("unclear_floor_ppm", !(rules.floor_ppm..=million).contains(&rules.unclear_floor_ppm)),
            ("escrow_ms", rules.escrow_ms < 0),
            ("honeypot_ppm", rules.honeypot_ppm > million),
            ("honeypot_owners", rules.honeypot_owners == 0),
            ("honeypots_kept", !(1..=10_000).contains(&rules.honeypots_kept)),
        ];
        let own = senseless.iter().find(|(_, senseless)| *senseless).map(|(field, _)| *field);
        match own.or_else(|| rules.margins.senseless()).or_else(|| rules.rank.senseless()) {
            Some(field) => Err(AuditRulesError::Senseless { name: rules.name, field }),
            None => Ok(rules),
        }
    }

    /// Share of a node's results that are computed again, in millionths: all of the first ones, then
    /// fewer the longer its results have held, down to a floor that leaves no sleeper unwatched.
    pub fn rate_ppm(&self, held: u32, probation: bool) -> u32 {
        if held < self.first {
            return 1_000_000;
        }
        let floor = if probation { self.probation_floor_ppm } else { self.floor_ppm };
        floor.max(1_000_000 / held.max(1))
    }

    /// Evidence of one audit for cheating, in nats.
    fn evidence(&self, held: bool) -> f64 {
        let (h0, h1) = (share(self.honest_fails_ppm), share(self.cheater_fails_ppm));
        if held { ((1.0 - h1) / (1.0 - h0)).ln() } else { (h1 / h0).ln() }
    }

    /// Evidence at which a node is cleared, and at which it is convicted.
    fn bounds(&self) -> (f64, f64) {
        let (alpha, beta) = (share(self.false_alarm_ppm), share(self.miss_ppm));
        ((beta / (1.0 - alpha)).ln(), ((1.0 - beta) / alpha).ln())
    }
}

fn share(ppm: u32) -> f64 {
    f64::from(ppm) / 1e6
}

/// Whether a job's result is computed again, under the secret key of its epoch. The same for every
/// replica; nobody without the key can tell before, and everybody with it afterwards.
pub fn draw(key: &[u8; 32], job: JobId, rate_ppm: u32) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length fits");
    mac.update(b"neurino audit v1");
    mac.update(job.0.as_bytes());
    let bytes = mac.finalize().into_bytes();
    let drawn = u64::from_be_bytes(bytes[..8].try_into().expect("eight of thirty-two bytes"));
    // Compared without rounding: a rate of one always holds, a rate of zero never.
    u128::from(drawn) * u128::from(MILLION) < u128::from(rate_ppm) << 64
}

/// What the audits of a node came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing can be said yet.
    Open,
    /// It does what it is paid for.
    Honest,
    /// It does not.
    Cheating,
}

/// What an audit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The result was the same.
    Held,
    /// It was another one, and a third run sided with the auditor.
    Failed,
    /// Somebody computed it again, and the two cannot be told apart or held to be the same.
    Unclear,
    /// Nobody else could compute it again who is not of the same owner: says nothing either way.
    NoIndependentAuditor,
}

/// Audits of a sequential test that has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// That held.
    pub held: u32,
    /// That failed.
    pub failed: u32,
}

impl Tally {
    /// The test after one more audit; what says nothing changes nothing.
    #[must_use]
    fn with(self, outcome: Outcome) -> Self {
        let Self { held, failed } = self;
        match outcome {
            Outcome::Held => Self { held: held.saturating_add(1), failed },
            Outcome::Failed => Self { held, failed: failed.saturating_add(1) },
            Outcome::Unclear | Outcome::NoIndependentAuditor => self,
        }
    }

    /// Wald's sequential test.
    fn verdict(self, rules: &AuditRules) -> Verdict {
        let evidence = f64::from(self.held) * rules.evidence(true)
            + f64::from(self.failed) * rules.evidence(false);
        let (honest, cheating) = rules.bounds();
        if evidence >= cheating {
            Verdict::Cheating
        } else if evidence <= honest {
            Verdict::Honest
        } else {
            Verdict::Open
        }
    }
}

/// What is known of a node by its audits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Audits that held since the last one that did not.
    pub held: u32,
    /// Audits of the running test that held.
    pub test_held: u32,
    /// Audits of the running test that failed.
    pub test_failed: u32,
    /// Whether a test ever cleared it.
    pub cleared: bool,
    /// Whether a test convicted it; stays until an appeal is granted.
    pub convicted: bool,
    /// Comparisons that said nothing since the last audit that failed.
    #[serde(default)]
    pub unclear: u32,
    /// Scores of texts that were too short to say anything alone.
    #[serde(default)]
    pub pooled: Margins,
    /// Where texts of another engine stood among the network's own.
    #[serde(default)]
    pub drawn: Drawn,
    /// Whether they were found to be of another distribution, and not since to be of one.
    #[serde(default)]
    pub apart: bool,
    /// The running test of what it said of others' results, which its own results say nothing of.
    #[serde(default)]
    pub words: Tally,
}

impl Record {
    /// The record after one more audit.
    #[must_use]
    pub fn with(mut self, outcome: Outcome, rules: &AuditRules) -> Self {
        match outcome {
            Outcome::Held => {
                self.held = self.held.saturating_add(1);
                self.test_held = self.test_held.saturating_add(1);
            }
            Outcome::Failed => {
                (self.held, self.unclear) = (0, 0);
                self.test_failed = self.test_failed.saturating_add(1);
            }
            Outcome::Unclear => {
                self.unclear = self.unclear.saturating_add(1);
                return self;
            }
            Outcome::NoIndependentAuditor => return self,
        }
        match self.test(rules) {
            Verdict::Open => {}
            // The next test begins anew, so that a good past does not cover a bad present.
            Verdict::Honest => (self.test_held, self.test_failed, self.cleared) = (0, 0, true),
            Verdict::Cheating => self.convicted = true,
        }
        self
    }

    /// The record with the scores of one more text that says nothing alone, and what they all say together once
    /// they are enough. Whoever writes briefly is not beyond doubt for ever.
    #[must_use]
    pub fn pool(mut self, margins: Margins, rules: &AuditRules) -> (Self, Outcome) {
        let score = SeedScore {
            exact: self.pooled.score.exact.saturating_add(margins.score.exact),
            margin_ppm: self.pooled.score.margin_ppm.saturating_add(margins.score.margin_ppm),
        };
        let tokens = self.pooled.tokens.saturating_add(margins.tokens);
        self.pooled = Margins { tokens, score };
        if tokens < rules.margins.tokens_min {
            return (self, Outcome::Unclear);
        }
        // Some of them may be of auditors that keep the weights otherwise.
        let verdict = rules.margins.judge(&std::mem::take(&mut self.pooled), false);
        let outcome = match verdict {
            MarginVerdict::Holds => Outcome::Held,
            MarginVerdict::Fails => Outcome::Failed,
            MarginVerdict::Unclear => Outcome::Unclear,
        };
        (self, outcome)
    }

    /// The record with where one more text of another engine stood among the network's own, and what that
    /// comes to: an engine that draws otherwise is watched closely from there on until it does no more.
    #[must_use]
    pub fn stood(mut self, rank: TextRank, rules: &AuditRules) -> (Self, Outcome) {
        let verdict;
        (self.drawn, verdict) = self.drawn.with(rank, &rules.rank);
        match verdict {
            DrawnVerdict::Open => (self, Outcome::Unclear),
            DrawnVerdict::Alike => (Self { apart: false, ..self }, Outcome::Held),
            // No trust that was earned otherwise outlasts it.
            DrawnVerdict::Apart => (Self { apart: true, held: 0, ..self }, Outcome::Unclear),
        }
    }

    /// Share of the node's results that are computed again, in millionths. Results that another
    /// machine can neither confirm nor refute earn no trust; they only stop being all computed again.
    pub fn rate_ppm(&self, rules: &AuditRules, probation: bool) -> u32 {
        if self.apart {
            return 1_000_000;
        }
        let rate_ppm = rules.rate_ppm(self.held, probation);
        if self.held < rules.first && self.unclear >= rules.unclear {
            rules.unclear_floor_ppm
        } else {
            rate_ppm
        }
    }

    /// The verdict so far.
    pub fn verdict(&self, rules: &AuditRules) -> Verdict {
        match (self.convicted, self.cleared) {
            (true, _) => Verdict::Cheating,
            (false, true) => Verdict::Honest,
            (false, false) => self.test(rules),
        }
    }

    /// Wald's sequential test over the audits since it began.
    fn test(&self, rules: &AuditRules) -> Verdict {
        Tally { held: self.test_held, failed: self.test_failed }.verdict(rules)
    }

    /// The record after its word on another's result was held against a third one's. What it said of others
    /// counts as its own results do, and is a test of its own besides: an owner whose results hold, which are
    /// many, could guess of others', which are few, for ever.
    #[must_use]
    pub fn with_word(self, outcome: Outcome, rules: &AuditRules) -> Self {
        let mut record = match outcome {
            Outcome::Failed => self.with(outcome, rules),
            // That somebody reads carefully does not show how it writes.
            Outcome::Held | Outcome::Unclear | Outcome::NoIndependentAuditor => self,
        };
        record.words = record.words.with(outcome);
        match record.words.verdict(rules) {
            Verdict::Open => {}
            Verdict::Honest => record.words = Tally::default(),
            Verdict::Cheating => record.convicted = true,
        }
        record
    }

    /// When earnings of a time can no longer be called back, in milliseconds since the Unix epoch:
    /// never for a node that was convicted.
    pub fn free_at_ms(&self, earned_at_ms: i64, rules: &AuditRules) -> Option<i64> {
        (!self.convicted).then(|| earned_at_ms.saturating_add(rules.escrow_ms))
    }
}

/// How closely a node is watched, for its owner to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum TrustStage {
    /// All of its results are computed again.
    New,
    /// Some are, fewer the longer they hold.
    Watched,
    /// The least share is.
    Established,
    /// It gets no work.
    Convicted,
}

impl TrustStage {
    /// The name in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Watched => "watched",
            Self::Established => "established",
            Self::Convicted => "convicted",
        }
    }
}

impl Record {
    /// How closely the node is watched.
    pub fn stage(&self, rules: &AuditRules, probation: bool) -> TrustStage {
        let floor = if probation { rules.probation_floor_ppm } else { rules.floor_ppm };
        if self.convicted {
            TrustStage::Convicted
        } else if self.held < rules.first && self.unclear < rules.unclear {
            TrustStage::New
        } else if self.apart
            || self.held < rules.first
            || rules.rate_ppm(self.held, probation) > floor
        {
            TrustStage::Watched
        } else {
            TrustStage::Established
        }
    }

    /// The record once an appeal was granted: as of a newcomer, whose results are all looked at.
    #[must_use]
    pub fn pardoned() -> Self {
        Self::default()
    }
}

/// Who computes a result again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Whose machine it is: the address that is paid.
    pub owner: &'a str,
    /// What makes results comparable bit by bit: device, engine, model files.
    pub numeric_class: &'a str,
}

/// Whether one may audit the other: only another owner can, and only in the same class can pictures
/// be compared bit by bit.
pub fn may_audit(auditor: &Candidate<'_>, audited: &Candidate<'_>) -> bool {
    auditor.owner != audited.owner && auditor.numeric_class == audited.numeric_class
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// A small generator, so that a failing simulation repeats.
    struct Dice(u64);

    impl Dice {
        fn ppm(&mut self) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            u32::try_from((self.0 >> 11) % MILLION).expect("below a million")
        }
    }

    /// Audits until a verdict for a node that fails so often; the share convicted and the mean length.
    fn simulate(fails_ppm: u32, nodes: u32) -> (f64, f64) {
        let rules = AuditRules::built_in();
        let (mut convicted, mut audits) = (0_u32, 0_u32);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..nodes {
            let mut record = Record::default();
            while record.verdict(&rules) == Verdict::Open {
                let failed = dice.ppm() < fails_ppm;
                let outcome = if failed { Outcome::Failed } else { Outcome::Held };
                record = record.with(outcome, &rules);
                audits += 1;
            }
            convicted += u32::from(record.convicted);
        }
        let nodes = f64::from(nodes);
        (f64::from(convicted) / nodes, f64::from(audits) / nodes)
    }

    #[test]
    fn the_test_errs_as_seldom_as_its_rules_say() {
        let (flagged, length) = simulate(5_000, 40_000);
        assert!(flagged < 6e-4, "honest nodes convicted: {flagged}");
        assert!((45.0..70.0).contains(&length), "audits to clear: {length}");
        let (caught, length) = simulate(100_000, 20_000);
        assert!(caught > 0.98, "one in ten cheated, caught: {caught}");
        assert!((35.0..65.0).contains(&length), "audits to convict: {length}");
        let (caught, length) = simulate(1_000_000, 100);
        assert_eq!((caught, length), (1.0, 4.0), "always cheated");
    }

    #[test]
    fn a_good_past_does_not_cover_a_bad_present() {
        let rules = AuditRules::built_in();
        let mut record = Record::default();
        for _ in 0..10_000 {
            record = record.with(Outcome::Held, &rules);
        }
        assert_eq!(record.verdict(&rules), Verdict::Honest);
        assert_eq!(rules.rate_ppm(record.held, false), 20_000);
        let mut audits = 0;
        while !record.convicted {
            record = record.with(Outcome::Failed, &rules);
            audits += 1;
        }
        assert!(audits <= 6, "{audits}");
        assert_eq!(rules.rate_ppm(record.held, false), 1_000_000, "watched from the start again");
        assert_eq!(record.free_at_ms(5, &rules), None);
        record = record.with(Outcome::Held, &rules);
        assert_eq!(record.verdict(&rules), Verdict::Cheating, "nothing wipes a conviction");
    }

    #[test]
    fn honest_work_does_not_cover_what_is_guessed_of_others() {
        let rules = AuditRules::built_in();
        let works = |record, audits| {
            (0..audits).fold(record, |record: Record, _| record.with(Outcome::Held, &rules))
        };
        // Four of its words were wrong, with so much honest work between them that its own test forgot them.
        let mut record = Record::default();
        for n in 1..=4 {
            assert!(!record.convicted, "{n}");
            record = works(record, 60).with_word(Outcome::Failed, &rules);
        }
        assert!(record.convicted, "{record:?}");
        // Words that hold earn no trust for what it writes, and clear what an unlucky one said.
        let before = works(Record::default(), 3).with_word(Outcome::Failed, &rules);
        let after = (0..100).fold(before, |record, _| record.with_word(Outcome::Held, &rules));
        assert_eq!((after.held, after.test_failed, after.convicted), (0, 1, false));
        assert_eq!(after.words.failed, 0);
        let same = after.with_word(Outcome::Unclear, &rules);
        assert_eq!(same, after);
    }

    #[test]
    fn the_first_are_all_watched_and_the_later_ones_less_and_less() {
        let rules = AuditRules::built_in();
        let rates: Vec<u32> = [0, 9, 10, 20, 49, 50, 1_000_000]
            .iter()
            .map(|held| rules.rate_ppm(*held, false))
            .collect();
        assert_eq!(rates, [1_000_000, 1_000_000, 100_000, 50_000, 20_408, 20_000, 20_000]);
        assert_eq!(rules.rate_ppm(1_000, true), 100_000);
    }

    #[test]
    fn a_node_rises_through_the_stages_and_falls_at_once() {
        use TrustStage::{Established, New, Watched};
        let rules = AuditRules::built_in();
        let at = |held| Record { held, ..Record::default() }.stage(&rules, false);
        let stages = [0, 9, 10, 49, 50].map(at);
        assert_eq!(stages, [New, New, Watched, Watched, Established]);
        let fallen = Record { held: 50, convicted: true, ..Record::default() };
        assert_eq!(fallen.stage(&rules, false), TrustStage::Convicted);
        assert_eq!(Record::pardoned().stage(&rules, false), New);
    }

    #[test]
    fn an_engine_that_draws_otherwise_is_watched_until_it_does_no_more() {
        let rules = AuditRules::built_in();
        let [last, first] = [1, 9].map(|place| TextRank { place, of: 9 });
        let trusted = Record { held: 400, unclear: 30, ..Record::default() };
        assert_eq!(trusted.rate_ppm(&rules, false), 20_000);
        let (mut record, mut prompts) = (trusted, 0);
        while !record.apart {
            let outcome;
            (record, outcome) = record.stood(last, &rules);
            assert_eq!(outcome, Outcome::Unclear, "it convicts nobody");
            prompts += 1;
        }
        assert_eq!((prompts, record.held, record.drawn), (8, 0, Drawn::default()));
        let watched =
            |record: &Record| (record.rate_ppm(&rules, false), record.stage(&rules, false));
        assert_eq!(watched(&record), (1_000_000, TrustStage::Watched));
        // Other audits that hold say nothing of how it draws.
        let held = (0..400).fold(record, |record, _| record.with(Outcome::Held, &rules));
        assert_eq!(watched(&held), (1_000_000, TrustStage::Watched));
        for n in 1..=rules.rank.prompts {
            let outcome;
            (record, outcome) = record.stood(first, &rules);
            let done = n == rules.rank.prompts;
            assert_eq!((record.apart, outcome == Outcome::Held), (!done, done), "{n}");
        }
        assert_eq!(record.with(Outcome::Held, &rules).held, 1);
        let old: Record = serde_json::from_str(
            r#"{"held":3,"test_held":3,"test_failed":0,"cleared":false,"convicted":false}"#,
        )
        .expect("it reads");
        assert_eq!((old.drawn, old.apart), (Drawn::default(), false), "records of before");
        assert_eq!(old.words, Tally::default());
    }

    #[test]
    fn comparisons_that_say_nothing_earn_no_trust_and_need_not_go_on_for_ever() {
        let rules = AuditRules::built_in();
        let mut record = Record::default();
        for n in 0..rules.unclear {
            assert_eq!(record.rate_ppm(&rules, true), 1_000_000, "{n}");
            record = record.with(Outcome::Unclear, &rules);
        }
        assert_eq!((record.rate_ppm(&rules, false), record.held), (100_000, 0));
        assert_eq!(record.stage(&rules, false), TrustStage::Watched);
        assert_eq!(record.verdict(&rules), Verdict::Open);
        let caught = record.with(Outcome::Failed, &rules);
        assert_eq!(caught.rate_ppm(&rules, false), 1_000_000, "all of them again");
    }

    #[test]
    fn short_texts_say_together_what_each_of_them_does_not() {
        let rules = AuditRules::built_in();
        let text =
            |tokens, exact, margin_ppm| Margins { tokens, score: SeedScore { exact, margin_ppm } };
        let ends = |text: Margins| {
            let mut record = Record::default();
            for n in 1.. {
                let (after, outcome) = record.pool(text, &rules);
                if outcome != Outcome::Unclear || n == 20 {
                    assert_eq!(after.pooled.tokens, 0, "twenty times nine are five times 36");
                    return (n, outcome);
                }
                record = after;
            }
            unreachable!("it returns")
        };
        assert_eq!(ends(text(9, 8, 9_000)), (4, Outcome::Held));
        assert_eq!(ends(text(9, 4, 900_000)), (4, Outcome::Failed));
        assert_eq!(ends(text(9, 8, 90_000)), (20, Outcome::Unclear));
    }

    #[test]
    fn nobody_audits_himself_and_only_equals_compare_bits() {
        let of = |owner, numeric_class| Candidate { owner, numeric_class };
        assert!(may_audit(&of("a", "x"), &of("b", "x")));
        assert!(!may_audit(&of("a", "x"), &of("a", "x")));
        assert!(!may_audit(&of("a", "x"), &of("b", "y")));
        let rules = AuditRules::built_in();
        let before = Record { held: 3, test_held: 3, ..Record::default() };
        assert_eq!(before.with(Outcome::NoIndependentAuditor, &rules), before);
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let good = include_str!("../data/audits.toml");
        for (from, to) in [
            ("floor_ppm = 20000", "floor_ppm = 0"),
            ("probation_floor_ppm = 100000", "probation_floor_ppm = 10"),
            ("cheater_fails_ppm = 100000", "cheater_fails_ppm = 5000"),
            ("miss_ppm = 10000", "miss_ppm = 900000"),
            ("unclear_floor_ppm = 100000", "unclear_floor_ppm = 10"),
            ("escrow_ms = 604800000", "escrow_ms = -1"),
            ("first = 10", "last = 10"),
            ("fails_ppm = 20000", "fails_ppm = 4000"),
            ("clip_ppm = 250000", "clip_ppm = 0"),
            ("fails_precision_ppm = 60000", "fails_precision_ppm = 10000"),
            ("decoys = 3", "decoys = 0"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(AuditRules::read(&good.replace(from, to)).is_err(), "{to}");
        }
    }

    proptest! {
        /// A job drawn at a rate is drawn at every higher one, and another key draws others.
        #[test]
        fn a_draw_is_of_its_key_and_grows_with_the_rate(job: u128, low in 0_u32..1_000_000, more in 0_u32..1_000_000) {
            let job = JobId(Uuid::from_u128(job));
            let high = low.saturating_add(more).min(1_000_000);
            prop_assert!(!draw(&[1; 32], job, low) || draw(&[1; 32], job, high));
            prop_assert!(draw(&[1; 32], job, 1_000_000));
            prop_assert!(!draw(&[1; 32], job, 0));
        }
    }

    #[test]
    fn draws_come_as_often_as_the_rate_says() {
        let drawn = |key: u8| {
            (0..100_000_u128)
                .filter(|n| draw(&[key; 32], JobId(Uuid::from_u128(*n)), 20_000))
                .count()
        };
        let both = (0..100_000_u128)
            .map(|n| JobId(Uuid::from_u128(n)))
            .filter(|job| draw(&[1; 32], *job, 20_000) && draw(&[2; 32], *job, 20_000))
            .count();
        for key in [1, 2] {
            assert!((1_800..2_200).contains(&drawn(key)), "{}", drawn(key));
        }
        assert!(both < 100, "two keys draw independently: {both}");
    }
}
