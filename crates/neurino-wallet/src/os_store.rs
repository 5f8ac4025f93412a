//! The key store of the operating system: Secret Service on Linux, Keychain on macOS, Credential
//! Manager on Windows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keyring_core::api::CredentialStore;
use keyring_core::{Entry, Error};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use crate::error::WalletError;
use crate::store::SecretStore;

const NAME: &str = "the key store of the operating system";
/// How long a call may take. Stores answer within half a second, unless they ask the person first.
const LIMIT: Duration = Duration::from_secs(5);

/// The key store of the operating system, for the signed-in user.
pub struct OsKeyStore {
    service: String,
}

impl OsKeyStore {
    /// Entries are kept under this service's name. Touches nothing yet.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into() }
    }

    /// Runs a call on a thread of its own: it may block on a question to the person for as long as
    /// they like, and a thread of the runtime would keep the program from ending meanwhile.
    async fn call<T: Send + 'static>(
        &self,
        entry: &str,
        work: impl FnOnce(&Entry) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, WalletError> {
        let (service, user) = (self.service.clone(), entry.to_owned());
        let (tell, told) = oneshot::channel();
        let run = move || {
            let result = platform_store()
                .and_then(|store| store.build(&service, &user, None))
                .and_then(|entry| work(&entry));
            // Refused only when the caller stopped waiting.
            let _ = tell.send(result);
        };
        let spawned = std::thread::Builder::new().name("key-store".into()).spawn(run);
        if let Err(error) = spawned {
            let source = Some(error.into());
            return Err(WalletError::OsStore { reason: "no thread can be started", source });
        }
        match tokio::time::timeout(LIMIT, told).await {
            Ok(Ok(result)) => result.map_err(typed),
            Ok(Err(_)) => Err(WalletError::OsStore { reason: "it failed inside", source: None }),
            Err(_) => {
                let wait_ms = u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX);
                Err(WalletError::OsStoreTimeout { wait_ms })
            }
        }
    }
}

#[async_trait]
impl SecretStore for OsKeyStore {
    async fn get(&self, entry: &str) -> Result<Option<SecretString>, WalletError> {
        let read = |entry: &Entry| match entry.get_password() {
            Ok(secret) => Ok(Some(SecretString::from(secret))),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(error),
        };
        self.call(entry, read).await
    }

    async fn set(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError> {
        let secret = secret.clone();
        self.call(entry, move |entry| entry.set_password(secret.expose_secret())).await
    }

    async fn delete(&self, entry: &str) -> Result<(), WalletError> {
        let remove = |entry: &Entry| match entry.delete_credential() {
            Err(Error::NoEntry) => Ok(()),
            result => result,
        };
        self.call(entry, remove).await
    }

    fn name(&self) -> &'static str {
        NAME
    }
}

#[cfg(target_os = "linux")]
fn platform_store() -> Result<Arc<CredentialStore>, Error> {
    let store: Arc<CredentialStore> = zbus_secret_service_keyring_store::Store::new()?;
    Ok(store)
}

#[cfg(target_os = "macos")]
fn platform_store() -> Result<Arc<CredentialStore>, Error> {
    let store: Arc<CredentialStore> = apple_native_keyring_store::keychain::Store::new()?;
    Ok(store)
}

#[cfg(target_os = "windows")]
fn platform_store() -> Result<Arc<CredentialStore>, Error> {
    let store: Arc<CredentialStore> = windows_native_keyring_store::Store::new()?;
    Ok(store)
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
fn platform_store() -> Result<Arc<CredentialStore>, Error> {
    Err(Error::NoDefaultStore)
}

fn typed(error: Error) -> WalletError {
    let reason = match &error {
        Error::NoStorageAccess(_) => "it is locked, or nobody answered its question",
        Error::PlatformFailure(_) => "no such service answers in this session",
        Error::NoDefaultStore => "this system has none",
        Error::Ambiguous(_) => "it holds more than one entry of this name",
        // These carry the secret's bytes, which must not travel in an error.
        Error::BadEncoding(_) | Error::BadDataFormat(..) => {
            return WalletError::DamagedEntry { store: NAME };
        }
        _ => "it refuses the entry",
    };
    WalletError::OsStore { reason, source: Some(Box::new(error)) }
}
