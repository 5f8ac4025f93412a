//! Another key as the identity: the former one is never lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use neurino_wallet::{
    IdentityKey, KeyStoreChoice, OpenIdentity, SecretStore, WalletError, replace_identity,
};
use secrecy::ExposeSecret as _;

use crate::{Lockable, ok, open};

fn other() -> IdentityKey {
    let words = "legal winner thank year wave sausage worth useful legal winner thank yellow";
    IdentityKey::from_phrase(words).map_err(|e| e.to_string()).unwrap()
}

fn wanted(dir: &std::path::Path, os: &Arc<Lockable>) -> OpenIdentity {
    let os_store: Arc<dyn SecretStore> = os.clone();
    OpenIdentity { os_store: Some(os_store), ..OpenIdentity::new(dir) }
}

#[tokio::test]
async fn a_restored_key_takes_over_in_every_store_and_the_former_is_kept() {
    for in_file in [false, true] {
        let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
        os.locked.store(in_file, Ordering::Relaxed);
        let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
        let replaced = ok(replace_identity(wanted(dir.path(), &os), other()).await);
        assert_eq!(replaced.key.address(), other().address());
        assert_eq!(replaced.store, first.store);
        let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
        assert_eq!(again.key.address(), other().address());
        // The former words are beside it, under the former address.
        let former = format!("former-{}", &first.key.address()[2..]);
        let kept = if in_file {
            let files = neurino_wallet::EncryptedFileStore::open(dir.path(), None).unwrap();
            files.get(&former).await.unwrap()
        } else {
            let folder = dir.path().canonicalize().unwrap();
            let entry = format!("{former} of identity of {}", folder.display());
            os.get(&entry).await.unwrap()
        };
        assert_eq!(kept.unwrap().expose_secret(), first.key.phrase().expose_secret());
        // The same key again is no change.
        let same = ok(replace_identity(wanted(dir.path(), &os), other()).await);
        assert_eq!(same.key.address(), other().address());
    }
}

#[tokio::test]
async fn a_store_that_forgets_keeps_the_identity_it_has() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    os.forgets.store(true, Ordering::Relaxed);
    let refused = replace_identity(wanted(dir.path(), &os), other()).await.map(|_| ());
    assert!(matches!(refused, Err(WalletError::NotKept { .. })));
    let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert_eq!(again.key.address(), first.key.address());
}
