//! The library as a whole: moved, cleaned, read through, filled with what is on the machine already.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use neurino_model_store::{
    Catalog, Found, ModelState, ModelStore, MoveProgress, Pace, StoreError, WholeFile,
};
use tokio_util::sync::CancellationToken;

use crate::server::{Answer, Server};
use crate::{FILE, content, fetch, file, manifest, model, store, store_of};

const NESTED: &str = "unet/diffusion.safetensors";

async fn filled(folder: &Path) -> ModelStore {
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let other = Server::start(|_, request| Answer::file(request, b"{}")).await;
    let files = vec![
        file(NESTED, &content(), vec![server.source()]),
        file("model_index.json", b"{}", vec![other.source()]),
    ];
    let store = store_of(folder, files);
    fetch(&store).await.unwrap();
    store
}

#[tokio::test]
async fn a_model_of_folders_is_fetched_into_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path()).await;
    let place = store.folder(&model());
    assert_eq!(fs::read(place.join(NESTED)).unwrap(), content());
    assert_eq!(store.verified(&model()).await.unwrap(), place);
    let usage = store.usage();
    assert!(usage[0].disk_bytes >= 300_002 && usage[0].used.is_some() && !usage[0].own);
}

#[tokio::test]
async fn a_move_is_checked_and_nothing_is_left_behind() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path().join("models");
    let store = filled(&root).await;
    let target = other.path().join("big/drive");
    let last = Arc::new(Mutex::new(None));
    let seen = last.clone();
    let progress = move |now: MoveProgress| {
        let before: Option<MoveProgress> = seen.lock().unwrap().replace(now);
        assert!(before.is_none_or(|before| before.done_bytes <= now.done_bytes));
    };
    let noted = Arc::new(Mutex::new(None));
    let switch = {
        let noted = noted.clone();
        move |place: &Path| {
            *noted.lock().unwrap() = Some(place.to_owned());
            Ok(())
        }
    };
    store.relocate(&target, progress, switch, CancellationToken::new()).await.unwrap();
    assert_eq!(noted.lock().unwrap().as_deref(), Some(target.as_path()));
    let end = last.lock().unwrap().unwrap();
    assert_eq!(end.done_bytes, end.total_bytes);
    assert_eq!(store.root(), target);
    assert_eq!(store.state(&model()).unwrap(), ModelState::Verified, "no need to hash again");
    assert_eq!(fs::read(store.folder(&model()).join(NESTED)).unwrap(), content());
    assert!(!root.exists(), "the old folder is gone");
}

#[tokio::test]
async fn a_move_that_cannot_be_noted_or_is_cancelled_changes_nothing_and_goes_on() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path().join("models");
    let store = filled(&root).await;
    let target = other.path().join("models");
    let refuse = |path: &Path| {
        let path = path.to_owned();
        Err(StoreError::BadTarget { path, problem: "the settings cannot be written" })
    };
    let refused = store.relocate(&target, |_| {}, refuse, CancellationToken::new()).await;
    assert!(matches!(refused, Err(StoreError::BadTarget { .. })), "{refused:?}");
    assert_eq!(store.root(), root);
    store.verified(&model()).await.unwrap();

    let cancelled = CancellationToken::new();
    cancelled.cancel();
    fs::remove_dir_all(&target).unwrap();
    let stopped = store.relocate(&target, |_| {}, |_| Ok(()), cancelled).await;
    assert!(matches!(stopped, Err(StoreError::Cancelled)));
    store.verified(&model()).await.unwrap();

    // Half of it is there, and a wrong draft.
    let half = target.join("test--model");
    fs::create_dir_all(half.join("unet")).unwrap();
    fs::write(half.join(NESTED).with_extension("safetensors.moving"), b"half").unwrap();
    fs::write(half.join("model_index.json"), b"xx").unwrap();
    store.relocate(&target, |_| {}, |_| Ok(()), CancellationToken::new()).await.unwrap();
    store.verified(&model()).await.unwrap();
    assert!(!root.exists());
}

#[tokio::test]
async fn a_move_takes_nothing_of_others_along_and_deletes_nothing_of_theirs() {
    let place = tempfile::tempdir().unwrap();
    let games = place.path().join("games");
    fs::create_dir_all(games.join("Doom/empty")).unwrap();
    let others = [("save.dat", "level 7"), ("Doom/.lock", ""), ("test--model/notes.txt", "mine")];
    let store = filled(&games).await;
    for (name, text) in others {
        fs::write(games.join(name), text).unwrap();
    }
    let stays = || {
        assert!(
            others
                .iter()
                .all(|(name, text)| fs::read_to_string(games.join(name)).unwrap() == *text)
        );
        assert!(games.join("Doom/empty").is_dir());
    };
    // The second folder holds something too: the library gets one of its own in there.
    let second = place.path().join("second");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("photo.jpg"), b"a cat").unwrap();
    let moved = store.relocate(&second, |_| {}, |_| Ok(()), CancellationToken::new());
    assert_eq!(moved.await.unwrap(), second.join("neurino-models"));
    assert_eq!(store.root(), second.join("neurino-models"));
    store.verified(&model()).await.unwrap();
    stays();
    assert!(!games.join("test--model/unet").exists() && !games.join("test--model/.lock").exists());
    let mut there: Vec<_> =
        fs::read_dir(&second).unwrap().map(|e| e.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["neurino-models", "photo.jpg"]);
    // And back, beside what was there before.
    let moved = store.relocate(&games, |_| {}, |_| Ok(()), CancellationToken::new());
    assert_eq!(moved.await.unwrap(), games.join("neurino-models"));
    store.verified(&model()).await.unwrap();
    stays();
    let left: Vec<_> = fs::read_dir(&second).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["photo.jpg"]);
}

#[tokio::test]
async fn what_is_written_between_copy_and_deletion_is_not_lost() {
    let place = tempfile::tempdir().unwrap();
    let (root, target) = (place.path().join("models"), place.path().join("target"));
    let store = filled(&root).await;
    let late = root.join("test--model/model_index.json");
    let switch = {
        let late = late.clone();
        move |_: &Path| {
            fs::write(&late, b"{ \"new\": 1 }").unwrap();
            Ok(())
        }
    };
    store.relocate(&target, |_| {}, switch, CancellationToken::new()).await.unwrap();
    assert_eq!(fs::read(&late).unwrap(), b"{ \"new\": 1 }");
    assert!(!root.join("test--model").join(NESTED).exists());
}

#[tokio::test]
async fn the_space_for_a_move_counts_the_library_and_nothing_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let (root, target) = (place.path().join("models"), place.path().join("target"));
    drop(filled(&root).await);
    fs::create_dir_all(&target).unwrap();
    // Somebody's large file at the target saves no byte of the library.
    fs::write(target.join("film.mkv"), vec![0; 400_000]).unwrap();
    let files = vec![file(NESTED, &content(), vec![]), file("model_index.json", b"{}", vec![])];
    let catalog = Catalog::of(vec![manifest(files)]);
    let reserve_bytes = 64_000_000;
    let free = move |_: &Path| Ok(reserve_bytes + 200_000);
    let store = ModelStore::open_with(&root, catalog, Box::new(free)).unwrap();
    let refused = store.relocate(&target, |_| {}, |_| Ok(()), CancellationToken::new()).await;
    let Err(StoreError::NoSpace { needed_bytes, .. }) = refused else { panic!("{refused:?}") };
    assert!(needed_bytes >= reserve_bytes + 300_002, "{needed_bytes}");
}

#[tokio::test]
async fn a_move_to_a_drive_with_coarse_times_goes_on_where_it_was() {
    let place = tempfile::tempdir().unwrap();
    let (root, target) = (place.path().join("models"), place.path().join("target"));
    drop(filled(&root).await);
    // The large file arrived at the first attempt; the drive keeps every second second.
    let (from, to) =
        (root.join("test--model").join(NESTED), target.join("test--model").join(NESTED));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(&from, &to).unwrap();
    let since = fs::metadata(&from).unwrap().modified().unwrap();
    let since = since.duration_since(std::time::UNIX_EPOCH).unwrap();
    let coarse = std::time::UNIX_EPOCH + Duration::from_secs(since.as_secs() / 2 * 2);
    fs::File::options().write(true).open(&to).unwrap().set_modified(coarse).unwrap();
    let files = vec![file(NESTED, &content(), vec![]), file("model_index.json", b"{}", vec![])];
    let catalog = Catalog::of(vec![manifest(files)]);
    let free = |_: &Path| Ok(64_000_000 + 100_000);
    let store = ModelStore::open_with(&root, catalog, Box::new(free)).unwrap();
    store.relocate(&target, |_| {}, |_| Ok(()), CancellationToken::new()).await.unwrap();
    assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), coarse, "it was not copied again");
    store.verified(&model()).await.unwrap();
    assert!(!from.exists());
}

#[tokio::test]
async fn a_library_whose_drive_has_another_name_is_found_there_and_nothing_is_made_meanwhile() {
    let place = tempfile::tempdir().unwrap();
    let (root, renamed) = (place.path().join("drive/neurino-models"), place.path().join("renamed"));
    let store = filled(&root).await;
    fs::rename(place.path().join("drive"), &renamed).unwrap();
    assert!(!store.is_there());
    assert_eq!(store.state(&model()).unwrap(), ModelState::Absent);
    assert!(matches!(fetch(&store).await, Err(StoreError::Away { .. })));
    assert!(matches!(store.remove(&model()).await, Err(StoreError::Away { .. })));
    assert!(!root.exists() && !place.path().join("drive").exists());
    let found = store.relocate(&renamed, |_| {}, |_| Ok(()), CancellationToken::new());
    assert_eq!(found.await.unwrap(), renamed.join("neurino-models"));
    assert_eq!(store.state(&model()).unwrap(), ModelState::Verified);
    // Where none lies, one begins: beside what others have there.
    fs::rename(&renamed, place.path().join("away")).unwrap();
    let other = place.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("photo.jpg"), b"a cat").unwrap();
    let made = store.relocate(&other, |_| {}, |_| Ok(()), CancellationToken::new());
    assert_eq!(made.await.unwrap(), other.join("neurino-models"));
    assert!(store.is_there());
}

#[tokio::test]
async fn a_folder_in_itself_is_no_target_and_a_busy_model_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("models");
    let store = filled(&root).await;
    for target in [root.clone(), root.join("inside"), folder.path().to_owned(), "relative".into()] {
        let refused = store.relocate(&target, |_| {}, |_| Ok(()), CancellationToken::new()).await;
        assert!(matches!(refused, Err(StoreError::BadTarget { .. })), "{refused:?}");
    }
    let lock = fs::File::create(store.folder(&model()).join(".lock")).unwrap();
    lock.try_lock().unwrap();
    let target = folder.path().join("elsewhere");
    let busy = store.relocate(&target, |_| {}, |_| Ok(()), CancellationToken::new()).await;
    assert!(matches!(busy, Err(StoreError::Busy { .. })), "{busy:?}");
}

#[tokio::test]
async fn a_scrub_finds_a_flipped_bit_and_the_fetch_repairs_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    let path = fetch(&store).await.unwrap();
    let clean = store.scrub(None, |_| {}, CancellationToken::new()).await.unwrap();
    assert_eq!((clean.files, clean.damaged.len()), (1, 0));

    // The drive flips a bit: neither size nor time tells.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = content();
    bytes[200_000] ^= 8;
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let stopped = CancellationToken::new();
    stopped.cancel();
    assert!(store.scrub(None, |_| {}, stopped).await.is_err());
    let found = store.scrub(Some(50_000_000), |_| {}, CancellationToken::new()).await.unwrap();
    assert_eq!(found.damaged, [(model(), FILE.to_owned())]);
    assert!(matches!(store.verified(&model()).await, Err(StoreError::Absent { .. })));
    fetch(&store).await.unwrap();
    let asked = server.requests().last().unwrap().range.unwrap();
    assert_eq!(asked.1 - asked.0 + 1, 16 << 10, "one chunk came again");
}

#[tokio::test]
async fn one_file_is_read_through_at_its_pace_and_waits_while_it_is_held() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| Answer::file(request, &content())).await;
    let store = store(folder.path(), vec![server.source()]);
    assert_eq!(store.whole_files(), []);
    let path = fetch(&store).await.unwrap();
    let files = store.whole_files();
    let modified = fs::metadata(&path).unwrap().modified().ok();
    assert_eq!(files, [WholeFile { model: model(), name: FILE.to_owned(), modified }]);
    let read = |pace: Pace, cancel: CancellationToken| {
        let store = store.clone();
        async move { store.read_through(&model(), FILE, pace, cancel).await }
    };

    let begin = Instant::now();
    let slow = Pace { bytes_per_s: Some(1_000_000), hold: None };
    let found = read(slow, CancellationToken::new()).await.unwrap();
    assert_eq!(found, Found::Sound);
    assert!(begin.elapsed() >= Duration::from_millis(300), "300 kB at 1 MB/s");

    let hold = Arc::new(AtomicBool::new(true));
    let held = Pace { bytes_per_s: None, hold: Some(Arc::clone(&hold)) };
    let stop = CancellationToken::new();
    let reading = tokio::spawn(read(held.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!reading.is_finished(), "nothing is read while it is held");
    hold.store(false, Ordering::Relaxed);
    assert_eq!(reading.await.unwrap().unwrap(), Found::Sound);
    hold.store(true, Ordering::Relaxed);
    let reading = tokio::spawn(read(held, stop.clone()));
    stop.cancel();
    assert!(matches!(reading.await.unwrap(), Err(StoreError::Cancelled)));

    let mut bytes = content();
    bytes[200_000] ^= 8;
    fs::write(&path, bytes).unwrap();
    let lock = fs::File::create(store.folder(&model()).join(".lock")).unwrap();
    lock.try_lock().unwrap();
    let busy = read(Pace::default(), CancellationToken::new()).await;
    assert!(matches!(busy, Err(StoreError::Busy { .. })), "{busy:?}");
    assert!(path.exists(), "a model that is being fetched is left alone");
    drop(lock);
    let found = read(Pace::default(), CancellationToken::new()).await.unwrap();
    assert_eq!((found, path.exists()), (Found::Damaged, false));
    let gone = read(Pace::default(), CancellationToken::new()).await.unwrap();
    assert_eq!(gone, Found::Gone);
    assert!(store.read_through(&model(), "no.such", Pace::default(), stop).await.is_err());
}

#[tokio::test]
async fn files_of_other_programs_are_taken_over_by_their_content() {
    let (folder, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(|_, _| Answer::status("404 Not Found")).await;
    let store = store(folder.path(), vec![server.source()]);
    let deep = others.path().join("hub/blobs");
    fs::create_dir_all(&deep).unwrap();
    let mut wrong = content();
    wrong[0] ^= 1;
    fs::write(deep.join("same-size"), wrong).unwrap();
    fs::write(deep.join("small.txt"), b"no").unwrap();
    fs::write(deep.join("0a1b2c"), content()).unwrap();
    let found = store.reuse(others.path(), |_| {}, CancellationToken::new()).await.unwrap();
    assert_eq!((found.files, found.bytes, found.models), (1, 300_000, vec![model()]));
    store.verified(&model()).await.unwrap();
    assert_eq!(fs::read(deep.join("0a1b2c")).unwrap(), content(), "it stays where it was");
    let again = store.reuse(others.path(), |_| {}, CancellationToken::new()).await.unwrap();
    assert_eq!(again.files, 0);
    assert!(store.reuse(Path::new("/no/such"), |_| {}, CancellationToken::new()).await.is_err());
}
