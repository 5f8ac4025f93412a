//! Values of an epoch file that JSON has no type for. Each has one spelling alone, so that two files
//! that say the same are the same.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;
use serde::{Deserialize, Serialize};

/// A text is not the value that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it should be {0}")]
pub struct Misspelt(&'static str);

macro_rules! by_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = Misspelt;
            fn try_from(text: String) -> Result<Self, Misspelt> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; $bytes]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "0x{}", hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = Misspelt;
            fn from_str(text: &str) -> Result<Self, Misspelt> {
                let digits = text.strip_prefix("0x").unwrap_or("");
                let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                let mut bytes = [0; $bytes];
                if digits.len() != 2 * $bytes
                    || !digits.bytes().all(lower)
                    || hex::decode_to_slice(digits, &mut bytes).is_err()
                {
                    return Err(Misspelt($what));
                }
                Ok(Self(bytes))
            }
        }

        by_text!($name);
    };
}

hex_bytes!(
    /// Who is paid: twenty bytes, in lower-case digits.
    Address,
    20,
    "`0x` and 40 lower-case hex digits"
);
impl Address {
    /// Reads one as wallets show it, with letters of both cases. Whether their case is a checksum that holds is
    /// not asked.
    ///
    /// # Errors
    /// [`Misspelt`].
    pub fn of_wallet(text: &str) -> Result<Self, Misspelt> {
        text.to_ascii_lowercase().parse()
    }
}

hex_bytes!(
    /// A digest of 32 bytes, in lower-case digits.
    Hash,
    32,
    "`0x` and 64 lower-case hex digits"
);

impl Hash {
    /// The root of a tree without leaves.
    pub const ZERO: Self = Self([0; 32]);
}

/// An amount in units of 1e-18, or a score, which is counted alike. As text: it does not fit what most
/// readers of JSON take for a number.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Tokens(pub u128);

impl Tokens {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Sum, if it fits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self` x `part` / `whole`, rounded down; `None` for a whole of nothing, or a result that does
    /// not fit.
    pub fn share(self, part: u128, whole: u128) -> Option<Self> {
        if whole == 0 {
            return None;
        }
        // Two factors of 128 bits fit 256.
        let share = U256::from(self.0) * U256::from(part) / U256::from(whole);
        u128::try_from(share).ok().map(Self)
    }

    /// Whole tokens with up to eighteen decimals, for people.
    pub fn shown(self) -> String {
        const UNIT: u128 = 1_000_000_000_000_000_000;
        let text = format!("{}.{:018}", self.0 / UNIT, self.0 % UNIT);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Tokens {
    type Err = Misspelt;
    fn from_str(text: &str) -> Result<Self, Misspelt> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let canonical = text == "0" || !text.starts_with('0');
        let value = (digits && canonical).then(|| text.parse().ok()).flatten();
        value
            .map(Self)
            .ok_or(Misspelt("a whole number below 2^128 without a sign or leading zeros"))
    }
}

by_text!(Tokens);
