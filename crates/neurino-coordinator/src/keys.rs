//! API keys of the gateway: 256 random bits, shown once, stored as a digest.

use std::fmt;

/// A new key. The secret is shown once; only its digest is stored.
pub struct ApiKey {
    /// What logs and lists call it.
    pub info: ApiKeyInfo,
    secret: String,
}

impl ApiKey {
    /// The bearer token itself, for the person who asked for it.
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }
}

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInfo {
    /// Its id, which names its payer account.
    pub id: String,
    /// The name its owner gave it.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

impl fmt::Display for ApiKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}
