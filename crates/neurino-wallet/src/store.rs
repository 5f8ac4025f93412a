//! Where secrets are kept: one trait, and the store that tests use.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use crate::error::WalletError;

/// Keeps secrets under names.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Reads an entry; `None` when there is none.
    ///
    /// # Errors
    /// [`WalletError`]; a store that cannot say whether the entry exists is an error, never `None`.
    async fn get(&self, entry: &str) -> Result<Option<SecretString>, WalletError>;

    /// Writes an entry, replacing one of the same name.
    ///
    /// # Errors
    /// [`WalletError`]; an older entry is then still there.
    async fn set(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError>;

    /// Removes an entry; fine when there is none.
    ///
    /// # Errors
    /// [`WalletError`].
    async fn delete(&self, entry: &str) -> Result<(), WalletError>;

    /// What the store is, for people.
    fn name(&self) -> &'static str;
}

/// A store that forgets everything with the process. For tests.
#[derive(Default)]
pub struct MemoryStore {
    entries: Mutex<HashMap<String, SecretString>>,
}

impl MemoryStore {
    fn with<T>(&self, use_it: impl FnOnce(&mut HashMap<String, SecretString>) -> T) -> T {
        // A map is whole after a panic elsewhere.
        use_it(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl SecretStore for MemoryStore {
    async fn get(&self, entry: &str) -> Result<Option<SecretString>, WalletError> {
        Ok(self.with(|entries| entries.get(entry).cloned()))
    }

    async fn set(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError> {
        let secret = SecretString::from(secret.expose_secret());
        self.with(|entries| entries.insert(entry.to_owned(), secret));
        Ok(())
    }

    async fn delete(&self, entry: &str) -> Result<(), WalletError> {
        self.with(|entries| entries.remove(entry));
        Ok(())
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}
