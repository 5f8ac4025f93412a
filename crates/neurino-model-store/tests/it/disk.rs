//! What lies on the drive: damage, space, locks, bundled and imported files.

use std::fs;
use std::path::Path;

use neurino_core::ModelId;
use neurino_model_store::{
    Catalog, FetchOptions, ModelState, ModelStore, Source, SourceError, SourceKind, StoreError,
};

use crate::server::{Answer, Server};
use crate::{
    FILE, content, failures, fetch, fetch_with, file, left, manifest, model, options, store,
};

fn put(store: &ModelStore, bytes: &[u8]) {
    fs::create_dir_all(store.folder(&model())).unwrap();
    fs::write(store.folder(&model()).join(FILE), bytes).unwrap();
}

#[tokio::test]
async fn one_wrong_bit_is_found_and_the_file_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    put(&store, &content());
    store.verified(&model()).await.unwrap();
    let mut damaged = content();
    damaged[123_456] ^= 1;
    put(&store, &damaged);

    let error = store.verified(&model()).await.unwrap_err();
    let text = error.to_string();
    let StoreError::WrongDigest { expected, found, set_aside: Some(aside), .. } = error else {
        panic!("{text}");
    };
    assert!(text.contains(&expected.to_string()) && text.contains(&found.to_string()), "{text}");
    assert!(text.contains("get the model again"), "{text}");
    assert_eq!(fs::read(aside).unwrap(), damaged);
    assert!(matches!(store.verified(&model()).await, Err(StoreError::Absent { .. })));
    assert_eq!(store.state(&model()).unwrap(), ModelState::Absent);
}

#[tokio::test]
async fn a_truncated_file_is_found_and_a_fetch_repairs_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    put(&store, &content()[..1000]);
    match store.verified(&model()).await.unwrap_err() {
        StoreError::WrongSize { expected_bytes, found_bytes, set_aside, .. } => {
            assert_eq!((expected_bytes, found_bytes), (300_000, 1000));
            assert!(set_aside.is_some());
        }
        other => panic!("{other:?}"),
    }
    fetch(&store).await.unwrap();
    assert_eq!(left(&store), [FILE], "the damaged file takes no space any more");
}

#[tokio::test]
async fn a_full_drive_is_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let catalog = Catalog::of(vec![manifest(vec![file(FILE, &content(), vec![server.source()])])]);
    let store = ModelStore::open_with(folder.path(), catalog, Box::new(|_| Ok(1_000_000))).unwrap();
    let error = fetch(&store).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("64.3 MB") && text.contains("1.0 MB are free"), "{text}");
    assert!(matches!(error, StoreError::NoSpace { free_bytes: 1_000_000, .. }));
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_drive_that_does_not_tell_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let catalog = Catalog::of(vec![manifest(vec![file(FILE, &content(), vec![server.source()])])]);
    let silent = Box::new(|_: &Path| Err(std::io::Error::other("no answer")));
    let store = ModelStore::open_with(folder.path(), catalog, silent).unwrap();
    fetch(&store).await.unwrap();
}

#[tokio::test]
async fn the_bundled_copy_comes_first_and_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let resources = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let bundled = Source::Bundled { path: "models/w.gguf".to_owned() };
    let store = store(folder.path(), vec![bundled, server.source()]);
    let options = FetchOptions { resources: Some(resources.path().to_owned()), ..options() };
    fs::create_dir(resources.path().join("models")).unwrap();
    fs::write(resources.path().join("models/w.gguf"), content()).unwrap();
    fetch_with(&store, &options).await.unwrap();
    assert_eq!(server.requests().len(), 0);

    store.remove(&model()).await.unwrap();
    fs::write(resources.path().join("models/w.gguf"), vec![7; 300_000]).unwrap();
    let only = FetchOptions { sources: Some(vec![SourceKind::Bundled]), ..options.clone() };
    let failed = failures(fetch_with(&store, &only).await.unwrap_err());
    assert!(matches!(failed[0].error, SourceError::WrongDigest { .. }), "{failed:?}");
    assert_eq!(left(&store), [""; 0]);

    fetch_with(&store, &options).await.unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn one_change_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    fs::create_dir_all(store.folder(&model())).unwrap();
    let lock = fs::File::create(store.folder(&model()).join(".lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(matches!(fetch(&store).await, Err(StoreError::Busy { .. })));
    assert!(matches!(store.remove(&model()).await, Err(StoreError::Busy { .. })));
    drop(lock);
    store.remove(&model()).await.unwrap();
    store.remove(&model()).await.unwrap();
    assert!(!store.folder(&model()).exists());
}

#[tokio::test]
async fn an_own_file_is_imported_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    let own = folder.path().join("my download (1).bin");
    fs::write(&own, content()).unwrap();
    assert_eq!(store.import(None, &own).await.unwrap(), model());
    let path = store.verified(&model()).await.unwrap();
    fs::remove_file(&own).unwrap();
    assert_eq!(fs::read(path).unwrap(), content(), "it does not need the original");
    assert_eq!(store.state(&model()).unwrap(), ModelState::Verified);

    let wrong = folder.path().join("other.gguf");
    fs::write(&wrong, b"something else").unwrap();
    for named in [None, Some(model())] {
        let error = store.import(named.as_ref(), &wrong).await.unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert!(matches!(error, StoreError::NotTheModel { .. }));
    }
    let missing = store.import(None, &folder.path().join("none")).await.unwrap_err();
    assert!(matches!(missing, StoreError::Io { .. }));
    let is_folder = store.import(None, folder.path()).await.unwrap_err();
    assert!(matches!(is_folder, StoreError::NotAFile { .. }), "{is_folder}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_device_is_not_read_forever_and_a_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    let endless = store.import(None, std::path::Path::new("/dev/zero")).await.unwrap_err();
    assert!(matches!(endless, StoreError::NotAFile { .. }), "{endless}");

    let own = folder.path().join("own.bin");
    fs::write(&own, content()).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("own.bin", &link).unwrap();
    assert_eq!(store.import(None, &link).await.unwrap(), model());
    fs::remove_file(&own).unwrap();
    let path = store.verified(&model()).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), content(), "the file was taken, not the link to it");
}

#[tokio::test]
async fn unknown_models_are_refused_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    let unknown = ModelId::new("no/such").unwrap();
    let refused = |error: StoreError| assert!(matches!(error, StoreError::UnknownModel { .. }));
    refused(store.state(&unknown).unwrap_err());
    refused(store.verified(&unknown).await.unwrap_err());
    refused(store.remove(&unknown).await.unwrap_err());
    refused(store.import(Some(&unknown), folder.path()).await.unwrap_err());
    let cancel = tokio_util::sync::CancellationToken::new();
    refused(store.fetch(&unknown, &options(), |_| {}, cancel).await.unwrap_err());
    assert!(!store.folder(&unknown).exists());
}

#[tokio::test]
async fn without_a_source_the_error_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), vec![]);
    let error = fetch(&store).await.unwrap_err();
    assert!(error.to_string().contains("names no source"), "{error}");
}
