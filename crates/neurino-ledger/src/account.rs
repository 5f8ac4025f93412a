//! Who can own points.

use std::fmt;
use std::str::FromStr;

use neurino_core::NodeId;
use serde::{Deserialize, Serialize};

/// Whoever asks for work: the window of this machine, or an API key. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PayerId(String);

impl PayerId {
    /// Longest accepted length in bytes.
    pub const MAX_LEN: usize = 96;

    /// Checks and wraps a name: 1 to 96 lower-case letters, digits, `_`, `-` or `.`.
    ///
    /// # Errors
    /// [`InvalidAccount`] with the rejected text.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidAccount> {
        let name = name.into();
        let ok =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.chars().all(ok) {
            return Err(InvalidAccount(name.chars().take(80).collect()));
        }
        Ok(Self(name))
    }

    /// The program itself, asking on behalf of the person in front of it.
    pub fn local() -> Self {
        Self("local".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PayerId {
    type Error = InvalidAccount;
    fn try_from(name: String) -> Result<Self, InvalidAccount> {
        Self::new(name)
    }
}

impl From<PayerId> for String {
    fn from(payer: PayerId) -> Self {
        payer.0
    }
}

/// A text names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no account; accounts are `pool`, `protocol`, `payer:<name>` and `node:<id>`")]
pub struct InvalidAccount(pub String);

/// An owner of points. As text: `pool`, `protocol`, `payer:<name>`, `node:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Account {
    /// Where points are emitted from; its balance is minus everything ever paid out.
    Pool,
    /// The network's own share.
    Protocol,
    /// Someone who asks for work.
    Payer(PayerId),
    /// A node that computes.
    Node(NodeId),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool => f.write_str("pool"),
            Self::Protocol => f.write_str("protocol"),
            Self::Payer(payer) => write!(f, "payer:{payer}"),
            Self::Node(node) => write!(f, "node:{node}"),
        }
    }
}

impl FromStr for Account {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let invalid = || InvalidAccount(text.chars().take(80).collect());
        match text.split_once(':') {
            None if text == "pool" => Ok(Self::Pool),
            None if text == "protocol" => Ok(Self::Protocol),
            Some(("payer", name)) => PayerId::new(name).map(Self::Payer).map_err(|_| invalid()),
            Some(("node", id)) => NodeId::new(id).map(Self::Node).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for Account {
    type Error = InvalidAccount;
    fn try_from(text: String) -> Result<Self, InvalidAccount> {
        text.parse()
    }
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        account.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, valid: bool) {
        let parsed = text.parse::<Account>();
        assert_eq!(parsed.is_ok(), valid, "{text}");
        if let Ok(account) = parsed {
            assert_eq!(account.to_string(), text);
        }
    }

    #[test]
    fn accounts_are_read_as_they_are_written() {
        check("pool", true);
        check("protocol", true);
        check("payer:local", true);
        check("node:0xab-rig1", true);
        check("node:", false);
        check("payer:A b", false);
        check("bank", false);
        check("pool:x", false);
    }
}
