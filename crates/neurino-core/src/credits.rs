//! What a job costs in prepaid credits, by dated price lists read from data, and who gets which part.
//!
//! As with rule sets, a list never changes once published, and a job is charged by the list it was
//! accepted under. All sums are integers; what division leaves over goes to the node.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::editions::Edition;
use crate::ids::ModelId;
use crate::job::{JobKind, JobSpec, Usage};
use crate::pricing::{PriceError, edition_at};

const BUILT_IN: &str = include_str!("../data/prices.toml");
/// Pixels times steps of the picture that an image price is for.
const PICTURE_PIXEL_STEPS: i128 = 512 * 512 * 20;
/// Tokens that a text price is for.
const TOKENS: i128 = 1000;
/// What shares are parts of.
const WHOLE: u32 = 1_000_000;

/// An amount of prepaid credits in millionths.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MicroCredits(pub i64);

impl MicroCredits {
    /// Micro-credits in a credit.
    pub const PER_CREDIT: i64 = 1_000_000;
}

/// Credits with six decimals, for example `0.024000`.
impl fmt::Display for MicroCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, n) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let per = Self::PER_CREDIT.unsigned_abs();
        write!(f, "{sign}{}.{:06}", n / per, n % per)
    }
}

/// Reads what [`fmt::Display`] writes, with up to six decimals.
impl std::str::FromStr for MicroCredits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no amount of credits; write it like 12 or 0.25");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let part: i64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
        let sum = whole.checked_mul(Self::PER_CREDIT).and_then(|micro| micro.checked_add(part));
        sum.map(|micro| Self(sign * micro)).ok_or_else(wrong)
    }
}

/// Price of 1000 tokens of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextPrice {
    /// Tokens read.
    pub prompt: MicroCredits,
    /// Tokens written.
    pub completion: MicroCredits,
}

/// Parts of a payment in millionths; the rest of 1 000 000 is the network's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The node that computed, which also gets the parts of roles that nobody has.
    pub node: u32,
    /// Whoever brought the model.
    pub deployer: u32,
    /// Whoever brought the payer.
    pub frontend: u32,
    /// Those who voted for the model.
    pub voters: u32,
}

/// Which roles somebody has in a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles {
    /// The model has a deployer.
    pub deployer: bool,
    /// The payer came through a frontend.
    pub frontend: bool,
    /// Somebody voted for the model.
    pub voters: bool,
}

/// A payment in parts, which sum to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// The node's.
    pub node: MicroCredits,
    /// The deployer's.
    pub deployer: MicroCredits,
    /// The frontend's.
    pub frontend: MicroCredits,
    /// The voters'.
    pub voters: MicroCredits,
    /// The network's own.
    pub protocol: MicroCredits,
}

impl Split {
    /// Divides an amount. Each part is rounded down; the node gets what that leaves over, and the parts
    /// of roles that nobody has.
    pub fn shares(&self, amount: MicroCredits, roles: Roles) -> Shares {
        let part = |share: u32, present: bool| {
            let part = i128::from(amount.0) * i128::from(share) / i128::from(WHOLE);
            // A part is never larger than the whole.
            let part = i64::try_from(part).unwrap_or(amount.0);
            MicroCredits(if present { part } else { 0 })
        };
        let own = WHOLE - self.node - self.deployer - self.frontend - self.voters;
        let deployer = part(self.deployer, roles.deployer);
        let frontend = part(self.frontend, roles.frontend);
        let voters = part(self.voters, roles.voters);
        let protocol = part(own, true);
        let node = MicroCredits(amount.0 - deployer.0 - frontend.0 - voters.0 - protocol.0);
        Shares { node, deployer, frontend, voters, protocol }
    }
}

/// One published edition of the prices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// The name jobs keep, for example `credits1`.
    pub name: String,
    /// First instant it prices.
    pub from: Timestamp,
    /// In words, for a person who asks.
    pub note: String,
    /// Prices of text models.
    #[serde(default)]
    pub text: BTreeMap<ModelId, TextPrice>,
    /// Price of every text model that is not listed; without it they have none.
    #[serde(default)]
    pub other_text: Option<TextPrice>,
    /// Prices of image models, for 512 x 512 pixels x 20 steps.
    #[serde(default)]
    pub image: BTreeMap<ModelId, MicroCredits>,
    /// Price of every image model that is not listed; without it they have none.
    #[serde(default)]
    pub other_image: Option<MicroCredits>,
    /// Who gets which part.
    pub split: Split,
}

impl Edition for PriceList {
    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Timestamp {
        self.from
    }
}

impl PriceList {
    /// What finished work costs, rounded up. `usage` counts for text; what a picture costs is in its
    /// job.
    ///
    /// # Errors
    /// [`PriceError::UnknownModel`], [`PriceError::Overflow`].
    pub fn price(&self, spec: &JobSpec, usage: Usage) -> Result<MicroCredits, PriceError> {
        let model = spec.model();
        let unknown =
            || PriceError::UnknownModel { rule_set: self.name.clone(), model: model.clone() };
        let (amount, per) = match spec {
            JobSpec::Text(_) => {
                let price = self.text.get(model).or(self.other_text.as_ref());
                let price = price.ok_or_else(unknown)?;
                let part =
                    |tokens: u32, price: MicroCredits| i128::from(tokens) * i128::from(price.0);
                let sum = part(usage.prompt_tokens, price.prompt)
                    + part(usage.completion_tokens, price.completion);
                (sum, TOKENS)
            }
            JobSpec::Image(job) => {
                let price = self.image.get(model).or(self.other_image.as_ref());
                let price = price.ok_or_else(unknown)?;
                (i128::from(job.pixel_steps()) * i128::from(price.0), PICTURE_PIXEL_STEPS)
            }
        };
        let rounded_up = (amount + per - 1) / per;
        i64::try_from(rounded_up).map(MicroCredits).map_err(|_| PriceError::Overflow)
    }

    /// Whether it has a price for such work on a model.
    pub fn prices(&self, model: &ModelId, kind: JobKind) -> bool {
        match kind {
            JobKind::Text => self.other_text.is_some() || self.text.contains_key(model),
            JobKind::Image => self.other_image.is_some() || self.image.contains_key(model),
        }
    }
}

/// All published editions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceLists {
    /// The editions; their order has no meaning.
    pub price_list: Vec<PriceList>,
}

impl PriceLists {
    /// The editions this build carries.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).expect("the built-in price lists parse; a test holds this")
    }

    /// Reads editions from TOML.
    ///
    /// # Errors
    /// [`PriceError::Malformed`] with the parser's words, for shares of more than a whole, or for a
    /// negative price.
    pub fn parse(toml: &str) -> Result<Self, PriceError> {
        let lists: Self = toml::from_str(toml).map_err(|e| PriceError::Malformed(e.to_string()))?;
        for list in &lists.price_list {
            let Split { node, deployer, frontend, voters } = list.split;
            let parts = [node, deployer, frontend, voters];
            if parts.iter().map(|part| u64::from(*part)).sum::<u64>() > u64::from(WHOLE) {
                let words = format!("the shares of `{}` are more than a whole", list.name);
                return Err(PriceError::Malformed(words));
            }
            let texts = list.text.values().chain(&list.other_text);
            let texts = texts.flat_map(|price| [price.prompt, price.completion]);
            let mut prices = texts.chain(list.image.values().chain(&list.other_image).copied());
            if prices.any(|price| price.0 < 0) {
                let words = format!("a price of `{}` is negative", list.name);
                return Err(PriceError::Malformed(words));
            }
        }
        Ok(lists)
    }

    /// The edition of that name.
    ///
    /// # Errors
    /// [`PriceError::UnknownRuleSet`].
    pub fn named(&self, name: &str) -> Result<&PriceList, PriceError> {
        let found = self.price_list.iter().find(|list| list.name == name);
        found.ok_or_else(|| PriceError::UnknownRuleSet {
            name: name.into(),
            known: self.price_list.iter().map(|list| list.name.clone()).collect(),
        })
    }

    /// The edition that a name means at a time: see [`crate::editions`].
    ///
    /// # Errors
    /// [`PriceError::UnknownRuleSet`].
    pub fn at(&self, name: &str, at: Timestamp) -> Result<&PriceList, PriceError> {
        edition_at(&self.price_list, name, at)
    }
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

    #[test]
    fn prices_are_the_lists_and_rounded_up() {
        let lists = PriceLists::built_in();
        let list = lists.named("credits1").expect("built in");
        let check = |spec: &JobSpec, prompt_tokens, completion_tokens, expect| {
            let usage = Usage { prompt_tokens, completion_tokens };
            assert_eq!(list.price(spec, usage), Ok(MicroCredits(expect)));
        };
        check(&text("hermes-3-llama3.1-8b"), 1000, 500, 400);
        check(&text("hermes-3-llama3.1-8b"), 1, 0, 1);
        check(&text("my-own-model"), 10, 20, 6);
        let picture = ImageJob::new(ModelId::new("sd").expect("valid"), "", 1024);
        check(&JobSpec::Image(picture), 0, 0, 4000);
    }

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let check = |text: &str, micro: Option<i64>| {
            assert_eq!(text.parse::<MicroCredits>().ok(), micro.map(MicroCredits), "{text}");
        };
        check("12", Some(12_000_000));
        check("0.25", Some(250_000));
        check("-1.5", Some(-1_500_000));
        check("0.0000001", None);
        check("1.", None);
        check("", None);
        check("1e3", None);
        check("99999999999999", None);
        assert_eq!(MicroCredits(250_000).to_string(), "0.250000");
    }

    #[test]
    fn a_list_that_gives_away_more_than_there_is_is_refused() {
        let list = |node: &str, price: &str| {
            format!(
                "[[price_list]]\nname = 'x'\nfrom = '2026-11-01T00:00:00Z'\nnote = ''\n\
                 other_image = {price}\nsplit = {{ node = {node}, deployer = 100000, \
                 frontend = 0, voters = 0 }}"
            )
        };
        assert!(PriceLists::parse(&list("900000", "1")).is_ok());
        assert!(PriceLists::parse(&list("900001", "1")).is_err());
        assert!(PriceLists::parse(&list("900000", "-1")).is_err());
    }

    proptest! {
        /// Whatever the shares, nothing is lost or made, and nobody gets less than nothing.
        #[test]
        fn shares_sum_to_the_payment(
            amount in 0i64..=i64::MAX,
            parts in prop::array::uniform4(0u32..=250_000),
            deployer: bool, frontend: bool, voters: bool,
        ) {
            let [node, a, b, c] = parts;
            let split = Split { node, deployer: a, frontend: b, voters: c };
            let roles = Roles { deployer, frontend, voters };
            let shares = split.shares(MicroCredits(amount), roles);
            let all = [shares.node, shares.deployer, shares.frontend, shares.voters, shares.protocol];
            prop_assert!(all.iter().all(|share| share.0 >= 0));
            prop_assert_eq!(all.iter().map(|share| i128::from(share.0)).sum::<i128>(), i128::from(amount));
            prop_assert!(deployer || shares.deployer.0 == 0);
            prop_assert!(frontend || shares.frontend.0 == 0);
            prop_assert!(voters || shares.voters.0 == 0);
        }
    }
}
