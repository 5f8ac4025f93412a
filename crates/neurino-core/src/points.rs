//! Points as integers: one point is a million micro-points, and no float ever holds one.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The two currencies of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum PointsKind {
    /// Paid for text.
    Llama,
    /// Paid for images.
    Waifu,
}

impl PointsKind {
    /// The name used in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Waifu => "waifu",
        }
    }
}

/// An amount in micro-points (1e-6 point); negative in the debiting half of a posting pair.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS,
)]
#[serde(transparent)]
#[ts(type = "number")]
pub struct MicroPoints(pub i64);

impl MicroPoints {
    /// Micro-points in a point.
    pub const PER_POINT: i64 = 1_000_000;

    /// Sum, or `None` past the range of `i64` (9.2 trillion points).
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
}

/// Points with six decimals, for example `0.024000`.
impl fmt::Display for MicroPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, n) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let per = Self::PER_POINT.unsigned_abs();
        write!(f, "{sign}{}.{:06}", n / per, n % per)
    }
}

impl Add for MicroPoints {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for MicroPoints {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Neg for MicroPoints {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Sum for MicroPoints {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self(0), Add::add)
    }
}

/// A factor in millionths: 1 000 000 is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(transparent)]
pub struct Multiplier(pub u32);

impl Multiplier {
    /// Times one.
    pub const ONE: Self = Self(1_000_000);
}

impl fmt::Display for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_print_as_points() {
        assert_eq!(MicroPoints(24_000).to_string(), "0.024000");
        assert_eq!(MicroPoints(-1_500_000).to_string(), "-1.500000");
        assert_eq!(Multiplier(1_150_000).to_string(), "1.15");
        assert_eq!(Multiplier::ONE.to_string(), "1");
    }
}
