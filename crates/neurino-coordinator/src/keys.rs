//! API keys of the gateway: 256 random bits, shown once, stored as a digest.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use neurino_ledger::PayerId;
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::coordinator::{Coordinator, now_ms};
use crate::error::CoordinatorError;
use crate::store::StoredKey;

/// What every key starts with, so that a leaked one is recognised.
const PREFIX: &str = "nrn-";
/// How often the books are asked for unknown keys, at most.
const ASK_PAUSE: Duration = Duration::from_millis(500);

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

/// The keys in memory, so that a request without work touches no file.
pub(crate) struct Keys {
    all: RwLock<Vec<StoredKey>>,
    /// When the books were last asked for a key that is not here.
    asked: Mutex<Option<Instant>>,
}

impl Keys {
    pub(crate) fn new(keys: Vec<StoredKey>) -> Self {
        Self { all: RwLock::new(keys), asked: Mutex::new(None) }
    }

    /// The payer a bearer token belongs to. Looks at every key, each in constant time.
    fn payer_of(&self, token: &str) -> Option<PayerId> {
        let digest = digest(token);
        let keys = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for key in keys.iter() {
            let difference = key.sha256.iter().zip(&digest).fold(0u8, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(&key.id);
            }
        }
        found.and_then(|id| PayerId::new(format!("key-{id}")).ok())
    }
}

/// Draws a key.
fn draw(name: &str) -> Result<(ApiKey, StoredKey), CoordinatorError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(CoordinatorError::KeyName);
    }
    let secret = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let info = ApiKeyInfo {
        id: Uuid::new_v4().simple().to_string(),
        name: name.to_owned(),
        created_at_ms: now_ms(),
    };
    let stored = StoredKey {
        id: info.id.clone(),
        name: info.name.clone(),
        sha256: digest(&secret),
        created_at_ms: info.created_at_ms,
    };
    Ok((ApiKey { info, secret }, stored))
}

/// Makes a gateway key in the books at `database`, also while a coordinator serves from them: it
/// finds the key when the key is first used.
///
/// # Errors
/// `KeyName`, `NoBooks`, `Store`.
pub async fn create_api_key(database: &Path, name: &str) -> Result<ApiKey, CoordinatorError> {
    let (key, stored) = draw(name)?;
    if !database.is_file() {
        return Err(CoordinatorError::NoBooks(database.to_owned()));
    }
    crate::store::add_key_beside(database, &stored).await?;
    Ok(key)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Coordinator {
    /// Makes a gateway key. Its secret is shown once.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty or overlong name, `Internal`.
    pub async fn create_api_key(self: &Arc<Self>, name: &str) -> Result<ApiKey, ErrorBody> {
        let (key, stored) =
            draw(name).map_err(|e| ErrorBody::new(ErrorCode::InvalidRequest, e.to_string()))?;
        let this = Arc::clone(self);
        self.to_the_end(async move {
            this.store.add_key(stored.clone()).await.map_err(|e| e.body())?;
            this.keys.all.write().unwrap_or_else(PoisonError::into_inner).push(stored);
            Ok(())
        })
        .await?;
        tracing::info!(key.id = %key.info.id, "made gateway key {}", key.info.id);
        Ok(key)
    }

    /// The payer a bearer token belongs to. A token that is not in memory may have been made by
    /// another process, so the books are asked too, but rarely: made-up tokens must cost nothing.
    pub(crate) async fn payer_of(&self, token: &str) -> Option<PayerId> {
        if let Some(payer) = self.keys.payer_of(token) {
            return Some(payer);
        }
        {
            let mut asked = self.keys.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let lately = asked.is_some_and(|at| now.duration_since(at) < ASK_PAUSE);
            if lately || !token.starts_with(PREFIX) {
                return None;
            }
            *asked = Some(now);
        }
        let mut stored = self.store.keys().await.ok()?;
        {
            let mut all = self.keys.all.write().unwrap_or_else(PoisonError::into_inner);
            stored.retain(|key| all.iter().all(|known| known.id != key.id));
            all.append(&mut stored);
        }
        self.keys.payer_of(token)
    }

    /// Whether a secret opens the gateway, as far as this process knows its keys.
    pub fn knows_api_key(&self, secret: &str) -> bool {
        self.keys.payer_of(secret).is_some()
    }

    /// The gateway keys, without their secrets.
    pub fn api_keys(&self) -> Vec<ApiKeyInfo> {
        let keys = self.keys.all.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter()
            .map(|k| ApiKeyInfo {
                id: k.id.clone(),
                name: k.name.clone(),
                created_at_ms: k.created_at_ms,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_opens() {
        let secret = format!("{PREFIX}{}", "ab".repeat(32));
        let stored = StoredKey {
            id: "k1".into(),
            name: "test".into(),
            sha256: digest(&secret),
            created_at_ms: 0,
        };
        let keys = Keys::new(vec![stored]);
        assert_eq!(keys.payer_of(&secret).map(String::from), Some("key-k1".into()));
        assert_eq!(keys.payer_of(&secret[1..]), None);
        assert_eq!(keys.payer_of(""), None);
        assert_eq!(keys.payer_of(&hex::encode(digest(&secret))), None);
    }
}
