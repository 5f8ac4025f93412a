//! Another key as the identity: the former one is never lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use neurino_wallet::{
    IdentityKey, KeyStoreChoice, OpenIdentity, SecretStore, WalletError, former_identities,
    replace_identity, restore_former,
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

#[tokio::test]
async fn every_identity_of_a_machine_can_be_gone_back_to_and_none_is_lost() {
    for in_file in [false, true] {
        let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
        os.locked.store(in_file, Ordering::Relaxed);
        let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await).key.address();
        assert_eq!(former_identities(dir.path()).unwrap(), Vec::<String>::new());
        let third = IdentityKey::from_phrase(
            "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
        );
        let third = third.map_err(|e| e.to_string()).unwrap();
        let (second_address, third_address) = (other().address(), third.address());
        ok(replace_identity(wanted(dir.path(), &os), other()).await);
        ok(replace_identity(wanted(dir.path(), &os), third).await);
        let listed = || former_identities(dir.path()).unwrap();
        assert_eq!(listed(), [second_address.clone(), first.clone()], "the last one first");

        // Back and forth, however the address is written; the one that goes is kept each time.
        let back = format!("  0x{} ", first[2..].to_uppercase());
        let opened = ok(restore_former(wanted(dir.path(), &os), &back).await);
        assert_eq!(opened.key.address(), first);
        assert_eq!(listed(), [third_address.clone(), second_address.clone()]);
        let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
        assert_eq!((again.key.address(), again.created), (first.clone(), false));
        for address in [&second_address, &third_address, &first] {
            let opened = ok(restore_former(wanted(dir.path(), &os), address).await);
            assert_eq!(&opened.key.address(), address);
            assert_eq!(listed().len(), 2);
        }
        let stranger = "0x000000000000000000000000000000000000dead";
        let refused = restore_former(wanted(dir.path(), &os), stranger).await.map(|_| ());
        assert!(matches!(refused, Err(WalletError::NoFormer { .. })));
    }
}

#[tokio::test]
async fn a_former_key_file_of_an_earlier_version_is_found() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    os.locked.store(true, Ordering::Relaxed);
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await).key.address();
    ok(replace_identity(wanted(dir.path(), &os), other()).await);
    // Its marker knew nothing of former identities.
    let marker = dir.path().join("identity.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().remove("former");
    std::fs::write(&marker, json.to_string()).unwrap();
    assert_eq!(former_identities(dir.path()).unwrap(), std::slice::from_ref(&first));
    let opened = ok(restore_former(wanted(dir.path(), &os), &first).await);
    assert_eq!(opened.key.address(), first);
    assert_eq!(former_identities(dir.path()).unwrap(), [other().address()]);
}

#[tokio::test]
async fn going_back_that_fails_leaves_the_identity_as_it_is() {
    let (dir, os) = (tempfile::tempdir().unwrap(), Arc::new(Lockable::default()));
    let first = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await).key.address();
    ok(replace_identity(wanted(dir.path(), &os), other()).await);
    os.forgets.store(true, Ordering::Relaxed);
    let refused = restore_former(wanted(dir.path(), &os), &first).await.map(|_| ());
    assert!(refused.is_err());
    os.forgets.store(false, Ordering::Relaxed);
    let again = ok(open(dir.path(), &os, KeyStoreChoice::Auto).await);
    assert_eq!(again.key.address(), other().address());
    assert_eq!(former_identities(dir.path()).unwrap(), [first]);
}
