//! Who can own points.

use std::fmt;
use std::str::FromStr;

use neurino_core::{FrontendId, ModelId, NodeId};
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

impl FromStr for PayerId {
    type Err = InvalidAccount;
    fn from_str(name: &str) -> Result<Self, InvalidAccount> {
        Self::new(name)
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
#[error(
    "`{0}` names no account; accounts are `pool`, `issuance`, `protocol`, and `payer:`, `held:`, \
     `node:`, `deployer:`, `frontend:` or `voters:` with a name"
)]
pub struct InvalidAccount(pub String);

/// An owner of points or credits. As text: `pool`, `issuance`, `protocol`, `payer:<name>`,
/// `held:<name>`, `node:<id>`, `deployer:<name>`, `frontend:<id>`, `voters:<model>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Account {
    /// Where points are emitted from; its balance is minus everything ever paid out.
    Pool,
    /// Where credits come from when they are bought; its balance is minus all that were.
    Issuance,
    /// The network's own share.
    Protocol,
    /// Someone who asks for work.
    Payer(PayerId),
    /// What a payer's open jobs may cost, set aside.
    Held(PayerId),
    /// Whoever brought a model to the network.
    Deployer(PayerId),
    /// A program or site through which people use the network.
    Frontend(FrontendId),
    /// Those who voted for a model, together.
    Voters(ModelId),
    /// A node that computes.
    Node(NodeId),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool => f.write_str("pool"),
            Self::Issuance => f.write_str("issuance"),
            Self::Protocol => f.write_str("protocol"),
            Self::Payer(payer) => write!(f, "payer:{payer}"),
            Self::Held(payer) => write!(f, "held:{payer}"),
            Self::Deployer(deployer) => write!(f, "deployer:{deployer}"),
            Self::Frontend(frontend) => write!(f, "frontend:{frontend}"),
            Self::Voters(model) => write!(f, "voters:{model}"),
            Self::Node(node) => write!(f, "node:{node}"),
        }
    }
}

impl FromStr for Account {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, InvalidAccount> {
        let invalid = || InvalidAccount(text.chars().take(80).collect());
        let Some((owner, name)) = text.split_once(':') else {
            return match text {
                "pool" => Ok(Self::Pool),
                "issuance" => Ok(Self::Issuance),
                "protocol" => Ok(Self::Protocol),
                _ => Err(invalid()),
            };
        };
        let payer = || PayerId::new(name).map_err(|_| invalid());
        match owner {
            "payer" => payer().map(Self::Payer),
            "held" => payer().map(Self::Held),
            "deployer" => payer().map(Self::Deployer),
            "node" => NodeId::new(name).map(Self::Node).map_err(|_| invalid()),
            "frontend" => FrontendId::new(name).map(Self::Frontend).map_err(|_| invalid()),
            "voters" => ModelId::new(name).map(Self::Voters).map_err(|_| invalid()),
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
        check("issuance", true);
        check("held:local", true);
        check("deployer:lab", true);
        check("frontend:chat.example", true);
        check("voters:sd-1.5", true);
        check("voters:a b", false);
        check("node:", false);
        check("payer:A b", false);
        check("bank", false);
        check("pool:x", false);
    }
}
