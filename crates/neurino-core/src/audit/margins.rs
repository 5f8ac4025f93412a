//! What the scores of a claimed text say: whether a model, a seed and a sampler wrote it that round a
//! little differently, or others did.
//!
//! Pure counts in, a verdict out. The numbers are those of `data/audits.toml`, which
//! `neurino audit calibrate` measures. Source of the idea: Token-DiFR, arXiv 2511.20621 (differs: the
//! sampler here inverts the cumulated distribution, so a margin is a share of probability and not of
//! Gumbel noise; and the auditor scores several seeds without knowing which one was asked for).

use serde::{Deserialize, Serialize};

use crate::job::{ClaimScore, SeedScore};

/// What margins are held against. Shares are in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarginRules {
    /// Seeds that are scored beside the right one where an auditor is not taken at its word.
    pub decoys: u32,
    /// What a single token's margin counts at most.
    pub clip_ppm: u32,
    /// Fewer tokens say nothing, unless all of them are the sampler's own.
    pub tokens_min: u32,
    /// Mean margin up to which a text holds.
    pub holds_ppm: u32,
    /// Mean margin above which it is another one.
    pub fails_ppm: u32,
    /// The same where the two say that they keep their weights otherwise.
    pub fails_precision_ppm: u32,
}

/// What scores say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarginVerdict {
    /// The text is this seed's.
    Holds,
    /// It is not.
    Fails,
    /// It could be or not.
    Unclear,
}

/// Scores of all answers of a job for one seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Margins {
    /// Tokens looked at.
    pub tokens: u32,
    /// As [`SeedScore`].
    pub score: SeedScore,
}

impl Margins {
    /// The sum over answers for the `at`-th of a claim's seeds; none if one of them has no such score, or a
    /// score that cannot be.
    pub fn of<'a>(
        scores: impl IntoIterator<Item = &'a ClaimScore>,
        at: usize,
        clip_ppm: u32,
    ) -> Option<Self> {
        scores.into_iter().try_fold(Self::default(), |sum, answer| {
            let score = *answer.seeds.get(at)?;
            let others = u64::from(answer.tokens.checked_sub(score.exact)?);
            (score.margin_ppm <= others * u64::from(clip_ppm)).then_some(())?;
            Some(Self {
                tokens: sum.tokens.checked_add(answer.tokens)?,
                score: SeedScore {
                    exact: sum.score.exact.checked_add(score.exact)?,
                    margin_ppm: sum.score.margin_ppm.checked_add(score.margin_ppm)?,
                },
            })
        })
    }

    /// Share of tokens that the sampler would have chosen, 0 to 1; 1 of none.
    pub fn exact_share(&self) -> f64 {
        if self.tokens == 0 { 1.0 } else { f64::from(self.score.exact) / f64::from(self.tokens) }
    }

    /// Mean clipped margin, 0 to 1; 0 of none.
    pub fn mean(&self) -> f64 {
        self.score.margin_ppm as f64 / 1e6 / f64::from(self.tokens.max(1))
    }
}

impl MarginRules {
    /// The field that makes no sense, if one does not.
    pub(super) fn senseless(&self) -> Option<&'static str> {
        let bad = [
            ("margins.decoys", !(1..=7).contains(&self.decoys)),
            ("margins.clip_ppm", !(1..=1_000_000).contains(&self.clip_ppm)),
            ("margins.tokens_min", self.tokens_min == 0),
            ("margins.fails_ppm", !(self.holds_ppm + 1..self.clip_ppm).contains(&self.fails_ppm)),
            (
                "margins.fails_precision_ppm",
                !(self.fails_ppm..self.clip_ppm).contains(&self.fails_precision_ppm),
            ),
        ];
        bad.iter().find(|(_, bad)| *bad).map(|(field, _)| *field)
    }

    /// What the margins of one seed say; `precision_alike` is whether writer and auditor say that they keep
    /// the weights alike.
    pub fn judge(&self, margins: &Margins, precision_alike: bool) -> MarginVerdict {
        let fails_ppm = if precision_alike { self.fails_ppm } else { self.fails_precision_ppm };
        let sum_ppm = margins.score.margin_ppm;
        let reaches = |mean_ppm: u32| u64::from(mean_ppm) * u64::from(margins.tokens);
        if margins.tokens > 0 && margins.score.exact == margins.tokens {
            MarginVerdict::Holds
        } else if margins.tokens < self.tokens_min {
            MarginVerdict::Unclear
        } else if sum_ppm <= reaches(self.holds_ppm) {
            MarginVerdict::Holds
        } else if sum_ppm > reaches(fails_ppm) {
            MarginVerdict::Fails
        } else {
            MarginVerdict::Unclear
        }
    }

    /// What an auditor's scores say that was not told which seed is the right one, the `right`-th. That a
    /// text holds is taken from it only if it told the right seed from every other: an auditor that
    /// looked at nothing cannot, and of a text that every seed writes nobody can.
    pub fn judge_blind(
        &self,
        margins: &[Margins],
        right: usize,
        precision_alike: bool,
    ) -> MarginVerdict {
        let Some(own) = margins.get(right) else { return MarginVerdict::Unclear };
        let told_apart = || {
            let others = margins.iter().enumerate().filter(|(at, _)| *at != right);
            others.map(|(_, other)| self.judge(other, true)).all(|v| v == MarginVerdict::Fails)
        };
        match self.judge(own, precision_alike) {
            MarginVerdict::Holds if margins.len() < 2 || !told_apart() => MarginVerdict::Unclear,
            verdict => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditRules;

    fn rules() -> MarginRules {
        AuditRules::built_in().margins
    }

    fn margins(tokens: u32, exact: u32, mean_ppm: u64) -> Margins {
        let margin_ppm = mean_ppm * u64::from(tokens);
        Margins { tokens, score: SeedScore { exact, margin_ppm } }
    }

    #[test]
    fn a_verdict_needs_tokens_and_a_margin() {
        use MarginVerdict::{Fails, Holds, Unclear};
        let rules = rules();
        let (holds, fails) = (u64::from(rules.holds_ppm), u64::from(rules.fails_ppm));
        for (found, alike, expected) in [
            (margins(400, 395, holds), true, Holds),
            (margins(400, 380, holds + 1), true, Unclear),
            (margins(400, 300, fails), true, Unclear),
            (margins(400, 300, fails + 1), true, Fails),
            (margins(400, 300, fails + 1), false, Unclear),
            (margins(400, 100, u64::from(rules.fails_precision_ppm) + 1), false, Fails),
            (margins(rules.tokens_min - 1, 2, 200_000), true, Unclear),
            (margins(3, 3, 0), true, Holds),
            (margins(0, 0, 0), true, Unclear),
        ] {
            assert_eq!(rules.judge(&found, alike), expected, "{found:?} {alike}");
        }
    }

    #[test]
    fn whoever_looked_at_nothing_confirms_nothing() {
        use MarginVerdict::{Fails, Holds, Unclear};
        let rules = rules();
        let (good, bad) = (margins(200, 200, 0), margins(200, 90, 90_000));
        assert_eq!(rules.judge_blind(&[bad, good, bad, bad], 1, true), Holds);
        assert_eq!(rules.judge_blind(&[bad, good, bad, bad], 0, true), Fails);
        assert_eq!(rules.judge_blind(&[good, good, good, good], 1, true), Unclear, "all the same");
        assert_eq!(rules.judge_blind(&[good], 0, true), Unclear, "no other to tell it from");
        assert_eq!(rules.judge_blind(&[bad; 4], 2, true), Fails, "nobody's");
        assert_eq!(rules.judge_blind(&[], 0, true), Unclear);
    }

    #[test]
    fn scores_that_cannot_be_are_none() {
        let answer = |tokens, exact, margin_ppm| ClaimScore {
            tokens,
            whole: true,
            seeds: vec![SeedScore { exact, margin_ppm }],
        };
        let of = |scores: &[ClaimScore]| Margins::of(scores, 0, 250_000);
        let sum = of(&[answer(10, 8, 300_000), answer(5, 5, 0)]).expect("sound");
        assert_eq!((sum.tokens, sum.score.exact, sum.score.margin_ppm), (15, 13, 300_000));
        assert!((sum.mean() - 0.02).abs() < 1e-9 && (sum.exact_share() - 13.0 / 15.0).abs() < 1e-9);
        assert_eq!(of(&[answer(5, 6, 0)]), None, "more exact than there are");
        assert_eq!(of(&[answer(5, 4, 250_001)]), None, "one token beyond the clip");
        assert_eq!(Margins::of(&[answer(5, 5, 0)], 1, 250_000), None, "a seed that was not scored");
    }
}
