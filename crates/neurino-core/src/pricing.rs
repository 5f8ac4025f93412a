//! What a job is worth, by dated rule sets read from data.
//!
//! A rule set never changes once published: an old receipt can always be recomputed from the rule
//! set it names. Source of the season figures: the network's mining rules (Season 1 and 2).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use crate::editions::{self, Edition};
use crate::ids::ModelId;
use crate::job::{JobKind, JobSpec, Usage};
use crate::points::{MicroPoints, Multiplier, PointsKind};

const BUILT_IN: &str = include_str!("../data/rules.toml");

/// Why a job cannot be priced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The rule set does not list the model.
    #[error("rule set `{rule_set}` has no price for model `{model}`")]
    UnknownModel {
        /// The rule set asked.
        rule_set: String,
        /// The model it lacks.
        model: ModelId,
    },
    /// No rule set of that name.
    #[error("there is no rule set `{name}`; there are {}", known.join(", "))]
    UnknownRuleSet {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The family has editions, but the last one has ended.
    #[error("no rule set of `{name}` is in force any more; update Neurino, or name another one")]
    Ended {
        /// The name asked for.
        name: String,
    },
    /// The amount does not fit 64 bits.
    #[error("the amount is too large")]
    Overflow,
    /// The data file is malformed.
    #[error("the rule sets cannot be read: {0}")]
    Malformed(String),
}

/// One published edition of the rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSet {
    /// The name receipts carry, for example `season2`.
    pub name: String,
    /// First instant it prices.
    pub from: Timestamp,
    /// First instant it no longer prices; open when absent.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// In words, for a person who asks how points are computed.
    pub note: String,
    /// Factor of each text model in millionths; a text job's base is (tokens in + out) / 1000.
    #[serde(default)]
    pub text: BTreeMap<ModelId, Multiplier>,
    /// Factor of every text model that is not listed; without it they have no price.
    #[serde(default)]
    pub other_text: Option<Multiplier>,
    /// Factor of each image model in millionths; a picture's base is pixels x steps / (512 x 512 x
    /// 20).
    #[serde(default)]
    pub image: BTreeMap<ModelId, Multiplier>,
    /// Factor of every image model that is not listed; without it they have no price.
    #[serde(default)]
    pub other_image: Option<Multiplier>,
}

/// Pixels times steps of the picture that one Waifu point pays.
const POINT_PIXEL_STEPS: i128 = 512 * 512 * 20;
/// Tokens that one Llama point pays.
const POINT_TOKENS: i128 = 1000;

/// How an amount came about; every step of the formula as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Quote {
    /// Which points.
    pub points: PointsKind,
    /// Tokens in and out (text), or pixels times steps (images).
    pub units: u32,
    /// Base before factors: 1000 micro-points a token; of a picture pixels x steps / (512 x 512 x 20)
    /// points, rounded down.
    pub base_micro: MicroPoints,
    /// The model's factor.
    pub factor: Multiplier,
    /// The owner's multiplier.
    pub multiplier: Multiplier,
    /// base x factor x multiplier, rounded down once, at the end.
    pub amount_micro: MicroPoints,
}

impl Edition for RuleSet {
    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Timestamp {
        self.from
    }

    fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

impl RuleSet {
    /// Prices finished work. `usage` counts for text; what a picture costs is in its job.
    ///
    /// # Errors
    /// [`PriceError::UnknownModel`], [`PriceError::Overflow`].
    pub fn price(
        &self,
        spec: &JobSpec,
        usage: Usage,
        multiplier: Multiplier,
    ) -> Result<Quote, PriceError> {
        let units = match spec {
            JobSpec::Text(_) => usage.total(),
            JobSpec::Image(job) => job.pixel_steps(),
        };
        self.quote(spec.model(), spec.kind(), units, multiplier)
    }

    /// Prices so many units of work: tokens in and out, or pixels times steps. What a receipt says can
    /// be computed again with it.
    ///
    /// # Errors
    /// As [`RuleSet::price`].
    pub fn quote(
        &self,
        model: &ModelId,
        kind: JobKind,
        units: u32,
        multiplier: Multiplier,
    ) -> Result<Quote, PriceError> {
        let (listed, other, per_point) = match kind {
            JobKind::Text => (&self.text, self.other_text, POINT_TOKENS),
            JobKind::Image => (&self.image, self.other_image, POINT_PIXEL_STEPS),
        };
        let factor = listed.get(model).copied().or(other).ok_or_else(|| {
            PriceError::UnknownModel { rule_set: self.name.clone(), model: model.clone() }
        })?;
        // Every step multiplies before the one division, so that nothing is rounded twice. No
        // overflow: the factors have 32 bits each, a point 20.
        let whole = i128::from(units) * i128::from(MicroPoints::PER_POINT);
        let base = whole / per_point;
        let amount = whole * i128::from(factor.0) * i128::from(multiplier.0)
            / (per_point * 1_000_000_000_000);
        let narrow = |n: i128| i64::try_from(n).map(MicroPoints).map_err(|_| PriceError::Overflow);
        Ok(Quote {
            points: kind.points(),
            units,
            base_micro: narrow(base)?,
            factor,
            multiplier,
            amount_micro: narrow(amount)?,
        })
    }
}

/// All published editions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSets {
    /// The editions; their order has no meaning.
    pub rule_set: Vec<RuleSet>,
}

impl RuleSets {
    /// The editions this build carries.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("the built-in rule sets parse; a test holds this")
    }

    /// Reads editions from TOML.
    ///
    /// # Errors
    /// [`PriceError::Malformed`] with the parser's words.
    pub fn parse(toml: &str) -> Result<Self, PriceError> {
        toml::from_str(toml).map_err(|e| PriceError::Malformed(e.to_string()))
    }

    /// The edition of that name.
    ///
    /// # Errors
    /// [`PriceError::UnknownRuleSet`].
    pub fn named(&self, name: &str) -> Result<&RuleSet, PriceError> {
        let found = self.rule_set.iter().find(|rules| rules.name == name);
        found.ok_or_else(|| PriceError::UnknownRuleSet {
            name: name.into(),
            known: self.rule_set.iter().map(|rules| rules.name.clone()).collect(),
        })
    }

    /// The edition that a name means at a time: see [`editions`].
    ///
    /// # Errors
    /// [`PriceError::UnknownRuleSet`], [`PriceError::Ended`].
    pub fn at(&self, name: &str, at: Timestamp) -> Result<&RuleSet, PriceError> {
        edition_at(&self.rule_set, name, at)
    }

    /// The edition of a family that will take its place, if one is published.
    pub fn next(&self, name: &str, at: Timestamp) -> Option<&RuleSet> {
        editions::next(&self.rule_set, name, at)
    }
}

/// The edition that a name means at a time, with an error that says which names there are.
pub(crate) fn edition_at<'a, E: Edition>(
    all: &'a [E],
    name: &str,
    at: Timestamp,
) -> Result<&'a E, PriceError> {
    editions::in_force(all, name, at).ok_or_else(|| {
        let (name, known) = (name.to_owned(), editions::names(all));
        if known.contains(&name) {
            PriceError::Ended { name }
        } else {
            PriceError::UnknownRuleSet { name, known }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{ChatMessage, ImageJob, Role, TextJob};

    fn text(model: &str) -> JobSpec {
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        JobSpec::Text(TextJob::new(ModelId::new(model).expect("valid"), messages, 8))
    }

    fn check(rules: &str, model: &str, tokens: u32, expect_micro: i64) {
        let sets = RuleSets::built_in();
        let usage = Usage { prompt_tokens: tokens / 2, completion_tokens: tokens - tokens / 2 };
        let quote = sets
            .named(rules)
            .and_then(|r| r.price(&text(model), usage, Multiplier::ONE))
            .expect("the built-in sets price it");
        assert_eq!(quote.amount_micro, MicroPoints(expect_micro));
    }

    #[test]
    fn published_factors_hold() {
        check("season2", "openhermes-mixtral-8x7b-gptq", 1000, 1_000_000);
        check("season2", "dolphin-2.9-llama3-8b", 1000, 240_000);
        check("season2", "hermes-3-llama3.1-8b", 3, 1_500);
        check("practice1", "smollm2-135m-instruct", 105, 105_000);
        check("practice2", "smollm2-135m-instruct", 105, 105_000);
        check("practice2", "my-own-model", 105, 105_000);
        check("club1", "smollm2-135m-instruct", 1000, 10_000);
        check("club2", "smollm2-135m-instruct", 1000, 10_000);
    }

    #[test]
    fn an_unlisted_model_has_no_price() {
        let sets = RuleSets::built_in();
        let rules = sets.named("season2").expect("exists");
        assert!(matches!(
            rules.price(&text("nobody"), Usage::default(), Multiplier::ONE),
            Err(PriceError::UnknownModel { .. })
        ));
        let error = sets.named("season9").expect_err("there is none");
        assert!(matches!(error, PriceError::UnknownRuleSet { .. }));
        let told = error.to_string();
        assert!(sets.rule_set.iter().all(|rules| told.contains(&rules.name)), "{told}");
    }

    #[test]
    fn a_family_is_the_edition_of_the_day() {
        let sets = RuleSets::built_in();
        let at = |name: &str, day: &str| {
            let time = format!("{day}T12:00:00Z").parse().expect("a time");
            sets.at(name, time).map(|rules| rules.name.clone())
        };
        assert_eq!(at("season", "2024-07-18").as_deref(), Ok("season1"));
        assert_eq!(at("season", "2024-07-19").as_deref(), Ok("season2"));
        assert_eq!(at("club", "2026-11-21").as_deref(), Ok("club1"));
        assert_eq!(at("club", "2026-11-23").as_deref(), Ok("club2"));
        assert_eq!(at("club1", "2026-11-23").as_deref(), Ok("club1"), "held on to");
        let Err(PriceError::UnknownRuleSet { known, .. }) = at("clubs", "2026-11-23") else {
            panic!("there are no `clubs`");
        };
        assert!(known.contains(&"club".into()) && known.contains(&"club2".into()), "{known:?}");
    }

    #[test]
    fn a_family_whose_last_edition_ended_prices_nothing() {
        let ended = "[[rule_set]]\nname = \"trial1\"\nfrom = \"2024-01-01T00:00:00Z\"\n\
                     until = \"2024-02-01T00:00:00Z\"\nnote = \"\"";
        let sets = RuleSets::parse(ended).expect("it reads");
        let at = |day: &str| sets.at("trial", day.parse().expect("a time"));
        assert!(at("2024-01-31T23:59:59Z").is_ok());
        let told = at("2024-02-01T00:00:00Z").expect_err("it ended");
        assert_eq!(told, PriceError::Ended { name: "trial".into() });
    }

    fn picture(width: u32, height: u32, steps: u32) -> JobSpec {
        let model = ModelId::new("my-pictures").expect("valid");
        JobSpec::Image(ImageJob { width, height, steps, ..ImageJob::new(model, "x", 512) })
    }

    #[test]
    fn a_picture_is_paid_by_pixels_and_steps() {
        let sets = RuleSets::built_in();
        let rules = sets.named("practice3").expect("exists");
        let micro = |spec: &JobSpec| {
            let quote = rules.price(spec, Usage::default(), Multiplier::ONE).expect("prices");
            assert_eq!(quote.points, PointsKind::Waifu);
            quote.amount_micro.0
        };
        assert_eq!(micro(&picture(512, 512, 20)), 1_000_000);
        assert_eq!(micro(&picture(1024, 1024, 25)), 5_000_000);
        assert_eq!(micro(&picture(64, 64, 20)), 15_625);
        assert_eq!(micro(&picture(680, 1024, 35)), 4_648_437);
        assert_eq!(micro(&picture(2048, 2048, 35)), 28_000_000);
        assert!(matches!(
            sets.named("practice2").expect("exists").price(
                &picture(64, 64, 1),
                Usage::default(),
                Multiplier::ONE
            ),
            Err(PriceError::UnknownModel { .. })
        ));
    }

    proptest! {
        #[test]
        fn more_tokens_never_pay_less(a in 0u32..1 << 20, b in 0u32..1 << 20, m in 0u32..5_000_000) {
            let sets = RuleSets::built_in();
            let rules = sets.named("season2").expect("exists");
            let price = |n| {
                let usage = Usage { prompt_tokens: n, completion_tokens: 0 };
                rules
                    .price(&text("dolphin-2.9-llama3-8b"), usage, Multiplier(m))
                    .expect("prices")
                    .amount_micro
            };
            prop_assert!(price(a.min(b)) <= price(a.max(b)));
            prop_assert!(price(a) >= MicroPoints(0));
        }
    }
}
