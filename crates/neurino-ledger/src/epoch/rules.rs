//! The rules of epochs, by dated editions read from data. A file carries the whole edition that it was
//! made by, so that it can be checked without this build.

use jiff::Timestamp;
use neurino_core::PointsKind;
use neurino_core::boost::BoostTable;
use neurino_core::editions::{self, Edition};
use serde::{Deserialize, Serialize};

use super::{EpochError, PerKind, Tokens};

const BUILT_IN: &str = include_str!("../../data/epochs.toml");
/// What factors are parts of.
pub(super) const WHOLE: u32 = 1_000_000;
/// No factor may exceed this, in millionths; with three of them a score still fits 128 bits.
const FACTOR_MAX: u32 = 10 * WHOLE;

/// What one kind of points shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRules {
    /// Shared by all points of the week.
    pub base: Tokens,
    /// Most that is shared by organic points.
    pub dynamic_max: Tokens,
    /// Organic micro-points at which the dynamic part is full; below, it is in proportion.
    pub dynamic_full_micro: i64,
    /// Micro-credits that stand for a point when a fee is turned into points.
    pub price_micro: i64,
}

/// One published edition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRules {
    /// Its name.
    pub name: String,
    /// First instant it holds.
    pub from: Timestamp,
    /// In words, for a person who asks.
    pub note: String,
    /// What is shared.
    pub pools: PerKind<PoolRules>,
    /// Stake that earns the whole extra; none if zero.
    pub stake_target: Tokens,
    /// The extra, in millionths.
    pub stake_extra_ppm: u32,
    /// Votes for a node that earn it the whole extra; none if zero.
    pub vote_target: u64,
    /// The extra, in millionths.
    pub vote_extra_ppm: u32,
    /// Whether pieces of the collection boost cards.
    pub boost_by_nft: bool,
    /// What they are worth; filled in from its own data.
    #[serde(default)]
    pub boost: Option<BoostTable>,
    /// How much of a fee counts as organic points, in millionths.
    pub kappa_ppm: u32,
    /// How much work that cost nothing counts, in millionths.
    pub free_ppm: u32,
    /// Most that free work may count, for what the same payer paid for, in millionths.
    pub free_per_paid_ppm: u32,
    /// How long after its end an epoch is made, in milliseconds: what was being settled is in.
    pub settle_wait_ms: i64,
}

impl Edition for EpochRules {
    fn name(&self) -> &str {
        &self.name
    }

    fn from(&self) -> Timestamp {
        self.from
    }
}

/// By which rules the epochs of a network are made: always the same, or the edition of the day on which
/// each begins.
#[derive(Debug, Clone)]
pub struct EpochEditions {
    all: Vec<EpochRules>,
    name: String,
}

impl EpochEditions {
    /// What a name means among the editions of this build: an edition, or a family of them.
    ///
    /// # Errors
    /// `UnknownRules`.
    pub fn named(name: &str) -> Result<Self, EpochError> {
        Self::among(EpochRules::parse(BUILT_IN)?, name)
    }

    /// What a name means among some editions.
    ///
    /// # Errors
    /// `UnknownRules`.
    pub fn among(all: Vec<EpochRules>, name: &str) -> Result<Self, EpochError> {
        if editions::in_force(&all, name, Timestamp::MAX).is_none() {
            return Err(EpochError::UnknownRules(name.to_owned()));
        }
        Ok(Self { all, name: name.to_owned() })
    }

    /// The edition that holds at a time in milliseconds since the Unix epoch.
    pub fn at(&self, ms: i64) -> &EpochRules {
        let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        let found = editions::in_force(&self.all, &self.name, at);
        found.expect("rules of epochs have no end, and the name was looked up")
    }
}

impl EpochRules {
    /// The edition of that name.
    ///
    /// # Errors
    /// `UnknownRules`.
    pub fn named(name: &str) -> Result<Self, EpochError> {
        let all = Self::parse(BUILT_IN)?;
        let found = all.into_iter().find(|rules| rules.name == name);
        found.ok_or_else(|| EpochError::UnknownRules(name.to_owned()))
    }

    /// Reads editions from TOML.
    ///
    /// # Errors
    /// `Rules`.
    pub fn parse(toml: &str) -> Result<Vec<Self>, EpochError> {
        #[derive(Deserialize)]
        struct File {
            epoch_rules: Vec<EpochRules>,
        }
        let file: File = toml::from_str(toml).map_err(|e| EpochError::Rules(e.to_string()))?;
        let mut all = file.epoch_rules;
        for rules in &mut all {
            if rules.boost_by_nft && rules.boost.is_none() {
                rules.boost = Some(BoostTable::built_in());
            }
            rules.check()?;
        }
        Ok(all)
    }

    /// Refuses rules that would overflow, or pay for nothing.
    pub(super) fn check(&self) -> Result<(), EpochError> {
        let wrong = |what: &str| Err(EpochError::Rules(format!("`{}`: {what}", self.name)));
        for pool in [&self.pools.llama, &self.pools.waifu] {
            if pool.dynamic_full_micro <= 0 || pool.price_micro <= 0 {
                return wrong("a pool's `dynamic_full_micro` and `price_micro` are above zero");
            }
            if pool.base.checked_add(pool.dynamic_max).is_none_or(|sum| sum.0 > u128::MAX >> 32) {
                return wrong("a pool is too large");
            }
        }
        let parts = [self.kappa_ppm, self.free_ppm, self.free_per_paid_ppm];
        if parts.iter().any(|part| *part > WHOLE) {
            return wrong("kappa and the parts of free work are at most a whole");
        }
        let boosts = self.boost.iter().flat_map(|table| &table.steps);
        // Basis points to millionths.
        let boosts = boosts.map(|step| step.basis_points.saturating_mul(WHOLE / 10_000));
        let extras = [self.stake_extra_ppm, self.vote_extra_ppm];
        let extras = extras.iter().map(|extra| extra.saturating_add(WHOLE));
        if boosts.chain(extras).any(|factor| !(WHOLE..=FACTOR_MAX).contains(&factor)) {
            return wrong("a multiplier is from one to ten");
        }
        if self.settle_wait_ms < 0 {
            return wrong("`settle_wait_ms` is negative");
        }
        Ok(())
    }

    /// What a stake multiplies with, in millionths.
    pub fn stake_ppm(&self, stake: Tokens) -> u32 {
        extra(self.stake_extra_ppm, stake.0, self.stake_target.0)
    }

    /// What votes multiply with, in millionths.
    pub fn vote_ppm(&self, votes: u64) -> u32 {
        extra(self.vote_extra_ppm, votes.into(), self.vote_target.into())
    }

    /// What shares of a kind of points.
    pub fn pool(&self, kind: PointsKind) -> &PoolRules {
        self.pools.of(kind)
    }
}

/// One, and an extra in proportion to what there is of what is wanted.
fn extra(most_ppm: u32, has: u128, wanted: u128) -> u32 {
    if wanted == 0 {
        return WHOLE;
    }
    let part = Tokens(most_ppm.into()).share(has.min(wanted), wanted).unwrap_or_default();
    WHOLE + u32::try_from(part.0).unwrap_or(0)
}
