//! One identity, whatever happens: stores that fail, files that rot, processes that die.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod processes;
mod replacing;
mod vectors;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use neurino_wallet::{
    IdentityKey, KeyStoreChoice, MemoryStore, OpenIdentity, OpenedIdentity, SecretStore, StoreKind,
    WalletError, load_named, load_or_create_named, open_identity,
};
use secrecy::SecretString;

/// A key store that can be locked.
#[derive(Default)]
struct Lockable {
    inner: MemoryStore,
    locked: AtomicBool,
    forgets: AtomicBool,
}

impl Lockable {
    fn check(&self) -> Result<(), WalletError> {
        if self.locked.load(Ordering::Relaxed) {
            return Err(WalletError::OsStore { reason: "it is locked", source: None });
        }
        Ok(())
    }
}

#[async_trait]
impl SecretStore for Lockable {
    async fn get(&self, entry: &str) -> Result<Option<SecretString>, WalletError> {
        self.check()?;
        self.inner.get(entry).await
    }

    async fn set(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError> {
        self.check()?;
        if self.forgets.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.inner.set(entry, secret).await
    }

    async fn delete(&self, entry: &str) -> Result<(), WalletError> {
        self.check()?;
        self.inner.delete(entry).await
    }

    fn name(&self) -> &'static str {
        "the test's key store"
    }
}

async fn open(
    dir: &Path,
    os: &Arc<Lockable>,
    preference: KeyStoreChoice,
) -> Result<OpenedIdentity, WalletError> {
    let os_store: Arc<dyn SecretStore> = os.clone();
    open_identity(OpenIdentity { preference, os_store: Some(os_store), ..OpenIdentity::new(dir) })
        .await
}

/// Opens, expecting an error.
async fn refused(dir: &Path, os: &Arc<Lockable>, preference: KeyStoreChoice) -> WalletError {
    open(dir, os, preference).await.map(|_| ()).unwrap_err()
}

fn ok(result: Result<OpenedIdentity, WalletError>) -> OpenedIdentity {
    result.map_err(|e| e.to_string()).unwrap()
}

#[tokio::test]
async fn the_key_store_is_preferred_and_the_key_found_again() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert!(first.created && first.store == StoreKind::OsKeyStore);
    for choice in [KeyStoreChoice::Auto, KeyStoreChoice::Os, KeyStoreChoice::File] {
        let again = ok(open(dir.path(), &os, choice).await);
        assert!(!again.created && again.store == StoreKind::OsKeyStore, "{choice:?}");
        assert_eq!(again.key.address(), first.key.address());
    }
    assert!(!dir.path().join("identity.key").exists());
    // A data folder that was removed finds its key; another folder does not.
    std::fs::remove_file(dir.path().join("identity.json")).unwrap();
    let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert_eq!(again.key.address(), first.key.address());
    let other = tempfile::tempdir().unwrap();
    let other = ok(open(other.path(), &os, KeyStoreChoice::Auto).await);
    assert_ne!(other.key.address(), first.key.address());
}

#[tokio::test]
async fn without_a_key_store_a_file_serves_and_stays_in_charge() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    os.locked.store(true, Ordering::Relaxed);
    assert!(matches!(
        refused(dir.path(), &os, KeyStoreChoice::Os).await,
        WalletError::OsStore { .. }
    ));
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert!(first.created && first.store == StoreKind::InstallSecretFile);
    assert!(first.os_store_problem.unwrap().contains("locked"));
    os.locked.store(false, Ordering::Relaxed);
    for choice in [KeyStoreChoice::Auto, KeyStoreChoice::Os, KeyStoreChoice::File] {
        let again = ok(open(dir.path(), &os, choice).await);
        assert!(!again.created && again.store == StoreKind::InstallSecretFile, "{choice:?}");
        assert_eq!(again.key.address(), first.key.address());
    }
}

#[tokio::test]
async fn a_store_that_forgets_is_not_trusted() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    os.forgets.store(true, Ordering::Relaxed);
    let opened = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert_eq!(opened.store, StoreKind::InstallSecretFile);
}

#[tokio::test]
async fn a_locked_or_emptied_key_store_is_an_error_and_not_a_new_identity() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    os.locked.store(true, Ordering::Relaxed);
    for choice in [KeyStoreChoice::Auto, KeyStoreChoice::Os, KeyStoreChoice::File] {
        let error = refused(dir.path(), &os, choice).await;
        assert!(matches!(error, WalletError::OsStore { .. }), "{choice:?}: {error}");
    }
    assert!(!dir.path().join("identity.key").exists());
    os.locked.store(false, Ordering::Relaxed);
    let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert_eq!(again.key.address(), first.key.address());

    let emptied = Arc::new(Lockable::default());
    let error = refused(dir.path(), &emptied, KeyStoreChoice::Auto).await;
    assert!(matches!(error, WalletError::IdentityGone { .. }), "{error}");
    assert!(error.to_string().contains("identity.json"), "the way out is named: {error}");
    std::fs::remove_file(dir.path().join("identity.json")).unwrap();
    assert!(ok(open(dir.path(), &emptied, KeyStoreChoice::Auto).await).created);
}

#[tokio::test]
async fn a_key_file_that_is_gone_is_an_error_and_not_a_new_identity() {
    for with_passphrase in [false, true] {
        let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
        let secrets = tempfile::tempdir().unwrap();
        let passphrase_file = with_passphrase.then(|| secrets.path().join("passphrase"));
        if let Some(path) = &passphrase_file {
            std::fs::write(path, "correct horse").unwrap();
        }
        let open = |preference| {
            let os_store: Arc<dyn SecretStore> = os.clone();
            open_identity(OpenIdentity {
                preference,
                os_store: Some(os_store),
                passphrase_file: passphrase_file.clone(),
                ..OpenIdentity::new(dir.path())
            })
        };
        let first = ok(open(KeyStoreChoice::File).await).key.address();
        let (path, kept) = (dir.path().join("identity.key"), dir.path().join("kept"));
        std::fs::rename(&path, &kept).unwrap();
        for choice in [KeyStoreChoice::Auto, KeyStoreChoice::Os, KeyStoreChoice::File] {
            let error = open(choice).await.map(|_| ()).unwrap_err();
            assert!(matches!(error, WalletError::KeyFileGone { .. }), "{choice:?}: {error}");
            assert!(error.to_string().contains("identity.json"), "the way out is named: {error}");
            assert!(!path.exists());
        }
        std::fs::rename(&kept, &path).unwrap();
        let again = ok(open(KeyStoreChoice::File).await);
        assert_eq!((again.key.address(), again.created), (first, false));
    }
}

#[tokio::test]
async fn damage_is_an_error_and_stays_as_it_is() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    ok(open(dir.path(), &os, KeyStoreChoice::File).await);
    let path = dir.path().join("identity.key");
    std::fs::write(&path, "rot").unwrap();
    for choice in [KeyStoreChoice::Auto, KeyStoreChoice::Os, KeyStoreChoice::File] {
        let error = refused(dir.path(), &os, choice).await;
        assert!(matches!(error, WalletError::DamagedFile { .. }), "{choice:?}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"rot");
    }
    std::fs::rename(&path, dir.path().join("kept")).unwrap();
    std::fs::remove_file(dir.path().join("identity.json")).unwrap();
    assert!(ok(open(dir.path(), &os, KeyStoreChoice::File).await).created, "the way out works");

    std::fs::write(dir.path().join("identity.json"), "rot").unwrap();
    let error = refused(dir.path(), &os, KeyStoreChoice::Auto).await;
    assert!(matches!(error, WalletError::DamagedMarker { .. }), "{error}");
}

#[tokio::test]
async fn many_at_once_end_with_one_key() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let (dir, os) = (dir.path().to_owned(), os.clone());
            tokio::spawn(async move { ok(open(&dir, &os, KeyStoreChoice::File).await) })
        })
        .collect();
    let mut addresses = Vec::new();
    let mut created = 0;
    for opened in opening {
        let opened = opened.await.unwrap();
        created += u32::from(opened.created);
        addresses.push(opened.key.address());
    }
    addresses.dedup();
    assert_eq!((addresses.len(), created), (1, 1));
}

#[tokio::test]
async fn a_named_key_that_is_looked_for_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    assert!(load_named(&nowhere, "coordinator", None).await.ok().unwrap().is_none());
    assert!(!nowhere.exists());
    assert!(load_named(dir.path(), "coordinator", None).await.ok().unwrap().is_none());
    assert!(!dir.path().join("coordinator.key").exists());
    let made = load_or_create_named(dir.path(), "coordinator", None).await.ok().unwrap();
    let found = load_named(dir.path(), "coordinator", None).await.ok().unwrap().unwrap();
    assert_eq!(found.address(), made.address());
}

#[tokio::test]
async fn named_keys_are_their_own_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let address = |key: Result<Arc<IdentityKey>, WalletError>| {
        key.map(|key| key.address()).map_err(|e| e.to_string()).unwrap()
    };
    let first = address(load_or_create_named(dir.path(), "coordinator", None).await);
    assert_eq!(first, address(load_or_create_named(dir.path(), "coordinator", None).await));
    assert_ne!(first, address(load_or_create_named(dir.path(), "other", None).await));
    assert!(load_or_create_named(dir.path(), "../x", None).await.is_err());
}
