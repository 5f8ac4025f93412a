//! Typed identifiers: one newtype each, so that a lease can never be passed where a job is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ts_rs::TS;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS,
        )]
        #[serde(transparent)]
        #[ts(type = "string")]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

uuid_id!(
    /// A job: one request of one payer, from admission to its terminal state. Version 7, so ids
    /// sort by time of admission.
    JobId
);
uuid_id!(
    /// One attempt of one node at one job. Also the idempotency key of its result and payment.
    LeaseId
);
uuid_id!(
    /// One event of the ledger: the postings that share it sum to zero.
    EventId
);

/// Names a unit of a node: a card, a group of cards, or a part of a card. Each node numbers its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS)]
#[serde(transparent)]
#[ts(type = "number")]
pub struct UnitId(pub u8);

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A string id was empty, too long or held a character that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a valid {what}: {rule}")]
pub struct InvalidId {
    /// What the id names, in words.
    pub what: &'static str,
    /// The rejected text, cut to 80 characters.
    pub value: String,
    /// The rule it broke.
    pub rule: &'static str,
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, TS)]
        #[serde(try_from = "String", into = "String")]
        #[ts(type = "string")]
        pub struct $name(String);

        impl $name {
            /// Longest accepted length in bytes.
            pub const MAX_LEN: usize = $max;

            /// Checks and wraps a text.
            ///
            /// # Errors
            /// [`InvalidId`] with the rule that was broken.
            pub fn new(value: impl Into<String>) -> Result<Self, InvalidId> {
                let value = value.into();
                let ok: fn(char) -> bool = $ok;
                if value.is_empty() || value.len() > Self::MAX_LEN || !value.chars().all(ok) {
                    let value = value.chars().take(80).collect();
                    return Err(InvalidId { what: $what, value, rule: $rule });
                }
                Ok(Self(value))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

string_id!(
    /// A model of the catalogue, for example `smollm2-135m-instruct`.
    ModelId,
    "model id",
    96,
    "1 to 96 letters, digits, `.`, `_`, `-` or `/`",
    |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/')
);
string_id!(
    /// A node of the network: the lower-case `0x…` address of its identity key, optionally with a
    /// `-tag` behind it so that several machines can share one key.
    NodeId,
    "node id",
    96,
    "1 to 96 lower-case letters, digits, `_` or `-`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-')
);
string_id!(
    /// A frontend: a program or site through which people use the network. It is named by the keys it
    /// pays with and by the nodes whose owners came through it.
    FrontendId,
    "frontend id",
    64,
    "1 to 64 lower-case letters, digits, `_`, `-` or `.`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.')
);
string_id!(
    /// What makes a repeated request the same request: the caller chooses it once and repeats it.
    IdempotencyKey,
    "idempotency key",
    200,
    "1 to 200 visible ASCII characters",
    |c| c.is_ascii_graphic()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_ids_refuse_what_their_rule_says() {
        assert!(ModelId::new("smollm2-135m-instruct").is_ok());
        assert!(ModelId::new("../etc passwd").is_err());
        assert!(ModelId::new("").is_err());
        assert!(NodeId::new("0xABC").is_err());
        assert!(IdempotencyKey::new("x".repeat(201)).is_err());
        assert!(serde_json::from_str::<ModelId>("\"a b\"").is_err());
    }

    #[test]
    fn uuid_ids_are_plain_strings_on_the_wire() {
        let id = JobId(Uuid::nil());
        assert_eq!(
            serde_json::to_string(&id).expect("a uuid serialises"),
            "\"00000000-0000-0000-0000-000000000000\""
        );
    }
}
