//! API keys of the gateway: 256 random bits, shown once, stored as a digest, with what they are good
//! for. `admin` makes and changes them beside a running coordinator.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use neurino_core::{FrontendId, MicroCredits};
use neurino_ledger::PayerId;
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::SignedVoucher;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::admin_log::Act;
use crate::coordinator::{Coordinator, now_ms};
use crate::error::{CoordinatorError, StoreError};
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
    pub(crate) fn new(stored: &StoredKey, secret: String) -> Self {
        Self { info: ApiKeyInfo::of(stored), secret }
    }

    /// The bearer token itself, for the person who asked for it.
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }
}

/// What a key may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Text while it waits.
    Text,
    /// Pictures while it waits.
    Image,
    /// Durable jobs.
    Jobs,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Image, Self::Jobs];

    /// The name in storage and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Jobs => "jobs",
        }
    }

    /// The scope of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

pub(crate) fn scopes_text(scopes: &BTreeSet<Scope>) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(",")
}

pub(crate) fn scopes_of(text: &str) -> Result<BTreeSet<Scope>, StoreError> {
    let unreadable = StoreError::Unreadable { what: "key scopes" };
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(Scope::named).collect::<Option<_>>().ok_or(unreadable)
}

/// What a key is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTerms {
    /// Whose account it pays from, so that several keys share one; its own when absent.
    #[serde(default)]
    pub payer: Option<PayerId>,
    /// What it may ask for.
    #[serde(default = "all_scopes")]
    pub scopes: BTreeSet<Scope>,
    /// Whether its jobs are paid with credits; else they cost their sender nothing.
    #[serde(default)]
    pub prepaid: bool,
    /// Most that its jobs of one calendar month (UTC) may cost, if it is prepaid.
    #[serde(default)]
    pub budget: Option<MicroCredits>,
    /// Requests a minute.
    #[serde(default)]
    pub requests_per_min: Option<u32>,
    /// Work a minute, in tokens; a picture of 512 x 512 pixels and 20 steps counts as 1000.
    #[serde(default)]
    pub units_per_min: Option<u32>,
    /// The frontend that uses it.
    #[serde(default)]
    pub frontend: Option<FrontendId>,
}

fn all_scopes() -> BTreeSet<Scope> {
    Scope::ALL.into()
}

impl Default for KeyTerms {
    /// Everything, free, without limits.
    fn default() -> Self {
        Self {
            payer: None,
            scopes: all_scopes(),
            prepaid: false,
            budget: None,
            requests_per_min: None,
            units_per_min: None,
            frontend: None,
        }
    }
}

/// What may be shown of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKeyInfo {
    /// Its id, which names its payer account unless its terms name another.
    pub id: String,
    /// The name its owner gave it.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// What it is good for.
    pub terms: KeyTerms,
    /// When it was revoked, in milliseconds since the Unix epoch.
    pub revoked_at_ms: Option<i64>,
}

impl ApiKeyInfo {
    pub(crate) fn of(key: &StoredKey) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            created_at_ms: key.created_at_ms,
            terms: key.terms.clone(),
            revoked_at_ms: key.revoked_at_ms,
        }
    }

    /// Whose account it pays from.
    pub fn payer(&self) -> Option<PayerId> {
        payer_of(&self.id, &self.terms)
    }
}

impl fmt::Display for ApiKeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

fn payer_of(id: &str, terms: &KeyTerms) -> Option<PayerId> {
    terms.payer.clone().or_else(|| PayerId::new(format!("key-{id}")).ok())
}

/// Whoever sends a request.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) key: Arc<StoredKey>,
    pub(crate) payer: PayerId,
    /// The voucher it pays with, instead of a key.
    pub(crate) voucher: Option<Arc<SignedVoucher>>,
}

/// The keys in memory, so that a request without work touches no file.
pub(crate) struct Keys {
    all: RwLock<Vec<Arc<StoredKey>>>,
    /// When the books were last asked for a key that is not here.
    asked: Mutex<Option<Instant>>,
    /// Held from a look into the books until it is taken over, so that an older one never comes last: it
    /// would bring a revoked key back.
    order: tokio::sync::Mutex<()>,
}

impl Keys {
    pub(crate) fn new(keys: Vec<StoredKey>) -> Self {
        let all = keys.into_iter().map(Arc::new).collect();
        Self {
            all: RwLock::new(all),
            asked: Mutex::new(None),
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over what the books have now.
    pub(crate) fn replace(&self, keys: Vec<StoredKey>) {
        let keys = keys.into_iter().map(Arc::new).collect();
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whom a bearer token belongs to. Looks at every key, each in constant time.
    fn caller(&self, token: &str, now_ms: i64) -> Option<Caller> {
        let digest = digest(token);
        let keys = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for key in keys.iter() {
            let is_current = same(&key.sha256, &digest);
            let is_old = key.old.is_some_and(|(old, until_ms)| {
                // Not lazily: the time it takes tells nothing.
                same(&old, &digest) && (now_ms < until_ms)
            });
            if (is_current | is_old) && key.revoked_at_ms.is_none() {
                found = Some(key);
            }
        }
        let key = Arc::clone(found?);
        let payer = payer_of(&key.id, &key.terms)?;
        Some(Caller { key, payer, voucher: None })
    }
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0u8, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Draws a secret, with its digest.
pub(crate) fn draw_secret() -> (String, [u8; 32]) {
    let secret = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()));
    let digest = digest(&secret);
    (secret, digest)
}

/// Draws a key.
pub(crate) fn draw(name: &str, terms: KeyTerms) -> Result<(ApiKey, StoredKey), CoordinatorError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(CoordinatorError::KeyName);
    }
    if terms.scopes.is_empty() {
        return Err(CoordinatorError::KeyTerms("a key without a scope is good for nothing"));
    }
    if terms.budget.is_some() && !terms.prepaid {
        return Err(CoordinatorError::KeyTerms("only a prepaid key has a budget"));
    }
    if terms.budget.is_some_and(|budget| budget.0 <= 0)
        || terms.requests_per_min == Some(0)
        || terms.units_per_min == Some(0)
    {
        return Err(CoordinatorError::KeyTerms("a limit of nothing; revoke the key instead"));
    }
    let (secret, sha256) = draw_secret();
    let stored = StoredKey {
        id: Uuid::new_v4().simple().to_string(),
        name: name.to_owned(),
        sha256,
        created_at_ms: now_ms(),
        terms,
        revoked_at_ms: None,
        old: None,
    };
    Ok((ApiKey::new(&stored, secret), stored))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Coordinator {
    /// Makes a gateway key that may ask for everything and costs nothing. Its secret is shown once.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty or overlong name, `Internal`.
    pub async fn create_api_key(self: &Arc<Self>, name: &str) -> Result<ApiKey, ErrorBody> {
        self.create_api_key_with(name, KeyTerms::default()).await
    }

    /// Makes a gateway key on some terms. Its secret is shown once.
    ///
    /// # Errors
    /// `InvalidRequest` for a bad name or terms that make no sense, `Internal`.
    pub async fn create_api_key_with(
        self: &Arc<Self>,
        name: &str,
        terms: KeyTerms,
    ) -> Result<ApiKey, ErrorBody> {
        let (key, stored) = draw(name, terms)
            .map_err(|e| ErrorBody::new(ErrorCode::InvalidRequest, e.to_string()))?;
        let this = Arc::clone(self);
        let act = Act::key_made(&key.info);
        self.to_the_end(async move {
            this.store.add_key(stored.clone(), act).await.map_err(|e| e.body())?;
            let mut all = this.keys.all.write().unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::new(stored));
            Ok(())
        })
        .await?;
        tracing::info!(key.id = %key.info.id, "made gateway key {}", key.info.id);
        Ok(key)
    }

    /// Whom a bearer token belongs to. A token that is not in memory may have been made by another
    /// process, so the books are asked too, but rarely: made-up tokens must cost nothing.
    pub(crate) async fn caller(&self, token: &str) -> Option<Caller> {
        if let Some(caller) = self.keys.caller(token, now_ms()) {
            return Some(caller);
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
        self.read_keys().await.ok()?;
        self.keys.caller(token, now_ms())
    }

    /// Takes over the keys that the books have now.
    pub(crate) async fn read_keys(&self) -> Result<(), StoreError> {
        let _order = self.keys.order.lock().await;
        self.keys.replace(self.store.keys().await?);
        Ok(())
    }

    /// Whether a secret opens the gateway, as far as this process knows its keys.
    pub fn knows_api_key(&self, secret: &str) -> bool {
        self.keys.caller(secret, now_ms()).is_some()
    }

    /// The gateway keys, without their secrets.
    pub fn api_keys(&self) -> Vec<ApiKeyInfo> {
        let keys = self.keys.all.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| ApiKeyInfo::of(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(secret: &str) -> StoredKey {
        StoredKey {
            id: "k1".into(),
            name: "test".into(),
            sha256: digest(secret),
            created_at_ms: 0,
            terms: KeyTerms::default(),
            revoked_at_ms: None,
            old: None,
        }
    }

    fn check(key: StoredKey, token: &str, payer: Option<&str>) {
        let found = Keys::new(vec![key]).caller(token, 1000);
        assert_eq!(found.as_ref().map(|caller| caller.payer.as_str()), payer);
    }

    #[test]
    fn only_the_whole_secret_opens() {
        let secret = format!("{PREFIX}{}", "ab".repeat(32));
        check(stored(&secret), &secret, Some("key-k1"));
        check(stored(&secret), &secret[1..], None);
        check(stored(&secret), "", None);
        check(stored(&secret), &hex::encode(digest(&secret)), None);
        let payer = PayerId::new("lab").ok();
        let terms = KeyTerms { payer, ..KeyTerms::default() };
        check(StoredKey { terms, ..stored(&secret) }, &secret, Some("lab"));
    }

    #[test]
    fn a_revoked_key_is_closed_and_a_rotated_one_opens_for_a_while() {
        let (secret, before) = ("nrn-new", digest("nrn-old"));
        check(StoredKey { revoked_at_ms: Some(1), ..stored(secret) }, secret, None);
        let rotated = |until_ms| StoredKey { old: Some((before, until_ms)), ..stored(secret) };
        check(rotated(1001), "nrn-old", Some("key-k1"));
        check(rotated(1001), secret, Some("key-k1"));
        check(rotated(1000), "nrn-old", None);
    }

    #[test]
    fn terms_that_make_no_sense_are_refused() {
        let check = |terms: KeyTerms, fits: bool| assert_eq!(draw("k", terms).is_ok(), fits);
        check(KeyTerms::default(), true);
        check(KeyTerms { scopes: BTreeSet::new(), ..KeyTerms::default() }, false);
        let budget = Some(MicroCredits(1));
        check(KeyTerms { budget, ..KeyTerms::default() }, false);
        check(KeyTerms { budget, prepaid: true, ..KeyTerms::default() }, true);
        check(KeyTerms { requests_per_min: Some(0), ..KeyTerms::default() }, false);
    }
}
