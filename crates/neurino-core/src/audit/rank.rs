//! Whether an engine whose random numbers and tokens nobody else can repeat draws its texts as the network's
//! own engine does: the test of distributions as it runs over months, one text at a time.
//!
//! For a prompt that no customer sent the network's engine writes several texts, and the other engine one,
//! which is all that it is asked: who were asked for ten would know. If all of them are of one distribution,
//! each is as likely as any other to be the one that is least like the rest ([`TextRank`]). What each prompt
//! says is multiplied up ([`Drawn`]): a bet that pays `n / (k H_n)` where the text is the k-th least alike of
//! `n` can be expected to win nothing from an honest engine, however long it goes on, and by Ville's
//! inequality is worth `1 / p` for a share `p` of honest engines at most. Texts are compared as
//! [`super::distribution`] does, which tests two engines at once and needs several texts of both.
//!
//! It says that distributions differ, not why: other weights, another template, other settings of the sampler.
//! So it marks an owner for whoever runs the network, and convicts nobody.

use serde::{Deserialize, Serialize};

use super::distribution::likeness;

/// Nats in millionths.
const MICRO: f64 = 1e6;
/// Fewest texts of the network's own beside which one says anything.
pub const OTHERS_MIN: usize = 3;

/// The numbers of the test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankRules {
    /// Texts that the network's own engine writes for a prompt; 0 is none, and no test.
    pub texts: u32,
    /// Prompts after which an engine against which nothing speaks holds.
    pub prompts: u32,
    /// Accepted share of engines of one distribution that are marked, in millionths.
    pub false_alarm_ppm: u32,
}

impl RankRules {
    /// A field that makes no sense.
    pub(super) fn senseless(&self) -> Option<&'static str> {
        let texts = self.texts != 0 && !(OTHERS_MIN as u32..=32).contains(&self.texts);
        [
            ("rank.texts", texts),
            ("rank.prompts", self.prompts == 0),
            ("rank.false_alarm_ppm", !(1..500_000).contains(&self.false_alarm_ppm)),
        ]
        .into_iter()
        .find_map(|(field, senseless)| senseless.then_some(field))
    }

    /// Evidence from which on an engine draws otherwise, in micro-nats.
    fn limit_micro(&self) -> i64 {
        (-(f64::from(self.false_alarm_ppm) / 1e6).ln() * MICRO) as i64
    }
}

/// Where a text stands among several of the same prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRank {
    /// How many of all are no more like the rest than it is, itself counted: 1 is the least alike.
    pub place: u32,
    /// How many there are, itself counted.
    pub of: u32,
}

impl TextRank {
    /// Of a text among others, all as symbols; none beside fewer than [`OTHERS_MIN`].
    pub fn of(text: &[u32], others: &[Vec<u32>]) -> Option<Self> {
        if others.len() < OTHERS_MIN {
            return None;
        }
        let all: Vec<&[u32]> =
            std::iter::once(text).chain(others.iter().map(|other| &other[..])).collect();
        let to_rest = |at: usize| -> f64 {
            let rest = all.iter().enumerate().filter(|(other, _)| *other != at);
            rest.map(|(_, other)| likeness(all[at], other)).sum()
        };
        let own = to_rest(0);
        // Sums in another order may round differently; a tie speaks for it.
        let below = (1..all.len()).filter(|at| to_rest(*at) <= own + 1e-9).count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Self { place: count(below + 1), of: count(all.len()) })
    }

    /// Share of the texts that are no more like the rest.
    pub fn share(self) -> f64 {
        f64::from(self.place) / f64::from(self.of.max(1))
    }

    /// What it says against one distribution, in micro-nats: below zero for it.
    fn evidence_micro(self) -> i64 {
        let (place, of) = (self.place.clamp(1, self.of.max(1)), self.of.max(1));
        let harmonic: f64 = (1..=of).map(|k| 1.0 / f64::from(k)).sum();
        ((f64::from(of) / (f64::from(place) * harmonic)).ln() * MICRO).floor() as i64
    }
}

/// What the prompts of an owner came to since the last verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// How many.
    pub prompts: u32,
    /// What they say together against one distribution, in micro-nats.
    pub evidence_micro: i64,
}

/// What they came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawnVerdict {
    /// Nothing can be said yet.
    Open,
    /// Nothing speaks against one distribution.
    Alike,
    /// They are of another one.
    Apart,
}

impl Drawn {
    /// With one more; and what they come to, after which they begin anew.
    #[must_use]
    pub fn with(self, rank: TextRank, rules: &RankRules) -> (Self, DrawnVerdict) {
        let prompts = self.prompts.saturating_add(1);
        let evidence_micro = self.evidence_micro.saturating_add(rank.evidence_micro());
        if evidence_micro >= rules.limit_micro() {
            (Self::default(), DrawnVerdict::Apart)
        } else if prompts >= rules.prompts && evidence_micro <= 0 {
            (Self::default(), DrawnVerdict::Alike)
        } else {
            (Self { prompts, evidence_micro }, DrawnVerdict::Open)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> RankRules {
        RankRules { texts: 8, prompts: 25, false_alarm_ppm: 100 }
    }

    /// A small generator, so that a failing run repeats.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % n
        }

        /// A text of a chain that leaves its usual way now and then, and does not come back to it.
        fn text(&mut self, prompt: u32, model: u32) -> Vec<u32> {
            let mut state = prompt;
            let step = |state: u32| (state * 7 + prompt + model) % 61;
            (0..80)
                .map(|_| {
                    state = if self.below(100) < 3 { self.below(61) as u32 } else { step(state) };
                    state
                })
                .collect()
        }

        fn rank(&mut self, prompt: u32, model: u32) -> TextRank {
            let others: Vec<Vec<u32>> = (0..8).map(|_| self.text(prompt, 0)).collect();
            TextRank::of(&self.text(prompt, model), &others).expect("enough")
        }
    }

    #[test]
    fn the_least_alike_stands_first_and_a_tie_speaks_for_it() {
        let others = [vec![1, 2, 3, 4], vec![1, 2, 3, 5], vec![1, 2, 6, 7]];
        for (text, place) in [
            (&[9, 9, 9, 9][..], 1),
            // Two of four places in common with each, as the third has.
            (&[1, 2, 8, 8], 2),
            (&[1, 2, 3, 4], 4),
        ] {
            assert_eq!(TextRank::of(text, &others), Some(TextRank { place, of: 4 }), "{text:?}");
        }
        // A prompt that has one answer says nothing against who gives it.
        let same = vec![vec![5, 6]; 4];
        assert_eq!(TextRank::of(&[5, 6], &same), Some(TextRank { place: 5, of: 5 }));
        assert_eq!(TextRank::of(&[5, 7], &same), Some(TextRank { place: 1, of: 5 }));
        assert_eq!(TextRank::of(&[5, 6], &same[..2]), None, "too few");
    }

    #[test]
    fn the_bet_is_fair() {
        for of in 4..=33 {
            let mean: f64 = (1..=of)
                .map(|place| TextRank { place, of }.evidence_micro() as f64 / MICRO)
                .map(f64::exp)
                .sum::<f64>()
                / f64::from(of);
            assert!(mean <= 1.0 && mean > 0.99, "{of}: {mean}");
        }
    }

    #[test]
    fn one_distribution_holds_and_another_model_is_told_apart() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut run = |model: u32| {
            let mut drawn = Drawn::default();
            for prompt in 1..=400 {
                let verdict;
                (drawn, verdict) = drawn.with(dice.rank(prompt, model), &rules());
                if verdict != DrawnVerdict::Open {
                    return (verdict, prompt);
                }
            }
            (DrawnVerdict::Open, 400)
        };
        let mut late = 0;
        for _ in 0..300 {
            let (verdict, prompts) = run(0);
            assert_ne!(verdict, DrawnVerdict::Apart, "honest, after {prompts}");
            late += u32::from(verdict == DrawnVerdict::Open);
        }
        assert!(late < 10, "honest engines that wait for ever: {late} of 300");
        for _ in 0..100 {
            let (verdict, prompts) = run(1);
            assert_eq!(verdict, DrawnVerdict::Apart, "another model");
            assert!(prompts < 60, "told apart after {prompts}");
        }
    }

    #[test]
    fn rules_that_make_no_sense_are_named() {
        assert_eq!(rules().senseless(), None);
        assert_eq!(RankRules { texts: 0, ..rules() }.senseless(), None, "no test");
        for (wrong, field) in [
            (RankRules { texts: 2, ..rules() }, "rank.texts"),
            (RankRules { texts: 33, ..rules() }, "rank.texts"),
            (RankRules { prompts: 0, ..rules() }, "rank.prompts"),
            (RankRules { false_alarm_ppm: 0, ..rules() }, "rank.false_alarm_ppm"),
        ] {
            assert_eq!(wrong.senseless(), Some(field));
        }
    }
}
