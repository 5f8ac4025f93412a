//! A model whose files are others now: the ones that are here serve until the new ones are verified.

use std::path::Path;

use neurino_model_store::{Catalog, ModelManifest, ModelState, ModelStore, StoreError};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server};
use crate::{FILE, content, fetch, file, manifest, model, options, store_of};

/// The weights as they are now.
fn newer() -> Vec<u8> {
    content().iter().map(|byte| byte.wrapping_add(1)).collect()
}

/// Gives the file within a second, so that there is time to stop half-way.
async fn serving(content: Vec<u8>) -> Server {
    let answer =
        move |_, request: &_| Answer { bytes_per_ms: 300, ..Answer::file(request, &content) };
    Server::start(answer).await
}

/// Puts a manifest into the library's folder, as a person or an update of the catalogue would.
fn publish(folder: &Path, manifest: &ModelManifest) {
    let catalog = folder.join("catalog");
    std::fs::create_dir_all(&catalog).unwrap();
    std::fs::write(catalog.join("model.toml"), toml::to_string(manifest).unwrap()).unwrap();
}

fn empty(folder: &Path) -> ModelStore {
    let catalog = Catalog::of(vec![]);
    ModelStore::open_with(folder, catalog, Box::new(|_| Ok(u64::MAX))).unwrap()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn the_old_version_serves_until_the_new_one_is_verified_and_then_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (old_server, new_server) = (serving(content()).await, serving(newer()).await);
    publish(folder.path(), &manifest(vec![file(FILE, &content(), vec![old_server.source()])]));
    let store = empty(folder.path());
    fetch(&store).await.unwrap();
    assert_eq!((store.newer_bytes(&model()), store.is_usable(&model())), (None, true));

    // Same name, same size, other content.
    publish(folder.path(), &manifest(vec![file(FILE, &newer(), vec![new_server.source()])]));
    assert!(store.refresh());
    let bytes = newer().len() as u64;
    assert_eq!(store.newer_bytes(&model()), Some(bytes));
    assert!(store.is_usable(&model()));
    let path = store.verified(&model()).await.unwrap();
    assert_eq!(read(&path), content(), "the old one, unharmed");
    let digests = store.digests(&model(), &path);
    assert_eq!(digests[FILE], neurino_model_store::Digest::of(&content()));
    assert!(matches!(store.forget_former(&model()), Ok(false)), "nothing newer is here");

    // The same after a restart, and while the new one is half here.
    let store = empty(folder.path());
    assert_eq!(read(&store.verified(&model()).await.unwrap()), content());
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let tell = move |now: neurino_model_store::Progress| {
        if now.done_bytes > 100_000 {
            stop.cancel();
        }
    };
    let cancelled = store.fetch(&model(), &options(), tell, cancel).await;
    assert!(matches!(cancelled, Err(StoreError::Cancelled)), "{cancelled:?}");
    assert!(matches!(store.state(&model()), Ok(ModelState::Partial { .. })));
    assert_eq!(read(&store.verified(&model()).await.unwrap()), content());

    let path = store.fetch(&model(), &options(), |_| {}, CancellationToken::new()).await.unwrap();
    assert_eq!(read(&path), newer());
    assert_eq!(store.verified(&model()).await.unwrap(), path);
    assert_eq!(store.newer_bytes(&model()), None);
    assert!(store.keeps_needless_former(&model()), "until nobody has it in memory");
    assert!(store.forget_former(&model()).unwrap());
    assert!(!store.folder(&model()).join(".former").exists());
    assert_eq!(read(&store.verified(&model()).await.unwrap()), newer());
}

#[tokio::test]
async fn a_version_that_came_with_another_program_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = serving(content()).await;
    let old = vec![file(FILE, &content(), vec![server.source()]), file("b.json", b"{}", vec![])];
    let folder_of = |store: &ModelStore| store.folder(&model());
    let store = store_of(folder.path(), old);
    std::fs::create_dir_all(folder_of(&store)).unwrap();
    std::fs::write(folder_of(&store).join("b.json"), b"{}").unwrap();
    fetch(&store).await.unwrap();
    drop(store);
    // The program is another one, and so is its catalogue: one file is as it was.
    let server = serving(newer()).await;
    let new = vec![file(FILE, &newer(), vec![server.source()]), file("b.json", b"{}", vec![])];
    let store = store_of(folder.path(), new);
    assert_eq!(store.newer_bytes(&model()), Some(newer().len() as u64), "the other file is here");
    let path = store.verified(&model()).await.unwrap();
    assert_eq!(read(&path.join(FILE)), content());
    assert_eq!(read(&path.join("b.json")), b"{}");
    fetch(&store).await.unwrap();
    assert!(store.forget_former(&model()).unwrap());
    assert_eq!(read(&store.folder(&model()).join("b.json")), b"{}");
}

#[tokio::test]
async fn a_new_version_that_does_not_come_leaves_the_old_one_and_cancelling_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = serving(content()).await;
    let store = store_of(folder.path(), vec![file(FILE, &content(), vec![server.source()])]);
    fetch(&store).await.unwrap();
    drop(store);
    // The server lies: it has the old file under the new one's name.
    let store = store_of(folder.path(), vec![file(FILE, &newer(), vec![server.source()])]);
    assert!(fetch(&store).await.is_err());
    assert_eq!(read(&store.verified(&model()).await.unwrap()), content());
    store.forget_newer(&model()).unwrap();
    assert!(matches!(store.state(&model()), Ok(ModelState::Absent)));
    assert!(store.is_usable(&model()));
    // What the drive changes of the old one is found out as ever.
    let path = store.verified(&model()).await.unwrap();
    std::fs::write(&path, newer()).unwrap();
    assert!(store.verified(&model()).await.is_err());
    assert!(!store.is_usable(&model()));
}
