//! The queue of downloads, the drive, and the verdicts of the window.

use std::time::Duration;

use neurino_app::AppOptions;
use neurino_config::{Dirs, LibraryFile};
use neurino_core::ModelId;
use neurino_model_store::{Catalog, Source};
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, MiningState, ModelState, Reply, Snapshot};
use neurino_protocol::library::{
    DayWindow, FitVerdict, LibraryAction, LibrarySettings, QueueState, Task,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{Viewer, WEIGHTS, World};

async fn library(viewer: &Viewer, action: LibraryAction) -> Result<Reply, ErrorCode> {
    viewer.command(Command::Library(action)).await.map_err(|error| error.code)
}

/// A web server that answers with `status` so many times, then gives the file; slowly if asked to.
async fn web(status: &'static str, times: usize, slow: bool) -> Source {
    web_with(WEIGHTS, status, times, slow).await
}

/// A web server that takes more than a second for this file.
pub(crate) async fn slow_web(weights: &'static [u8]) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/weights.gguf", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let length = weights.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&weights[..length / 2]).await;
                // Longer than a look at the desktop and what follows from it.
                tokio::time::sleep(Duration::from_secs(4)).await;
                let _ = stream.write_all(&weights[length / 2..]).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    Source::Http { url }
}

/// [`web`] with another file.
pub(crate) async fn web_with(
    weights: &'static [u8],
    status: &'static str,
    times: usize,
    slow: bool,
) -> Source {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/weights.gguf", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let good = n >= times;
                let status = if good { "200 OK" } else { status };
                let length = if good { weights.len() } else { 0 };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                for byte in weights.iter().filter(|_| good) {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    if slow {
                        tokio::time::sleep(Duration::from_millis(40)).await;
                    }
                }
            });
        }
    });
    Source::Http { url }
}

fn get() -> Command {
    Command::ModelFetch { model: Catalog::starter() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_can_be_paused_goes_on_after_a_restart_and_leaves_the_queue() {
    let world = World::without_model(vec![web("", 0, true).await]);
    let viewer = world.start().await;
    let model = Catalog::starter();
    viewer.command(get()).await.unwrap();
    viewer
        .until("running", |s| {
            s.library.queue.first().is_some_and(|item| item.state == QueueState::Running)
        })
        .await;
    library(&viewer, LibraryAction::Pause { model: model.clone() }).await.unwrap();
    viewer
        .until("paused", |s| {
            s.library.queue[0].state == QueueState::Paused
                && !matches!(s.models[0].state, ModelState::Fetching { .. })
        })
        .await;
    viewer.end().await;

    let viewer = world.start().await;
    let snapshot = viewer.snapshot().await;
    assert_eq!(snapshot.library.queue[0].state, QueueState::Paused, "it was not forgotten");
    library(&viewer, LibraryAction::Resume { model }).await.unwrap();
    viewer
        .until("here", |s| s.models[0].state == ModelState::Ready && s.library.queue.is_empty())
        .await;
    let size = WEIGHTS.len() as u64;
    viewer.until("counted", |s| s.library.used_bytes >= size).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mining_waits_for_a_download_that_the_person_paused_and_gives_up_with_it() {
    let world = World::without_model(vec![slow_web(WEIGHTS).await]);
    let viewer = world.start().await;
    let model = Catalog::starter();
    viewer.command(get()).await.unwrap();
    viewer.mine().await;
    let fetches = |s: &Snapshot| matches!(s.models[0].state, ModelState::Fetching { .. });
    viewer.until("joined", |s| s.mining.sentence.contains("fetching") && fetches(s)).await;

    library(&viewer, LibraryAction::Pause { model: model.clone() }).await.unwrap();
    let waits = |s: &Snapshot| s.mining.sentence.contains("the download that you paused");
    viewer.until("waiting", |s| waits(s) && !fetches(s)).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    let paused = viewer.snapshot().await;
    assert!(waits(&paused) && !fetches(&paused), "no byte flows: {}", paused.mining.sentence);
    assert_eq!(paused.library.queue[0].state, QueueState::Paused);

    library(&viewer, LibraryAction::Resume { model: model.clone() }).await.unwrap();
    viewer.until("going on", fetches).await;
    assert!(library(&viewer, LibraryAction::Cancel { model }).await.is_ok(), "nothing is busy");
    let over = viewer.until_state(MiningState::NeedsYou).await;
    assert!(over.mining.sentence.contains("was cancelled"), "{}", over.mining.sentence);
    assert!(over.library.queue.is_empty() && !fetches(&over));
    assert!(!world.model_file().parent().unwrap().exists(), "what had arrived is deleted");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_file_needs_the_person_and_says_what_helps() {
    let world = World::without_model(vec![web("403 Forbidden", 1, false).await]);
    let viewer = world.start().await;
    viewer.command(get()).await.unwrap();
    let failed = viewer
        .until("failed", |s| {
            s.library.queue.first().is_some_and(|item| item.state == QueueState::Failed)
        })
        .await;
    let problem = failed.library.queue[0].problem.clone().unwrap();
    assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("sign in")), "{problem:?}");
    library(&viewer, LibraryAction::Resume { model: Catalog::starter() }).await.unwrap();
    viewer.until("here", |s| s.models[0].state == ModelState::Ready).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_deletes_what_has_arrived_and_strangers_are_refused() {
    let world = World::without_model(vec![web("", 0, true).await]);
    let viewer = world.start().await;
    viewer.command(get()).await.unwrap();
    viewer.until("running", |s| matches!(s.models[0].state, ModelState::Fetching { .. })).await;
    library(&viewer, LibraryAction::Cancel { model: Catalog::starter() }).await.unwrap();
    let after = viewer.until("gone", |s| s.models[0].state == ModelState::Absent).await;
    assert!(after.library.queue.is_empty() && after.models[0].problem.is_none());
    assert!(!world.model_file().parent().unwrap().exists());
    let stranger = ModelId::new("no/such").unwrap();
    let refused = library(&viewer, LibraryAction::Resume { model: stranger.clone() }).await;
    assert_eq!(refused, Err(ErrorCode::UnknownModel));
    let refused = library(&viewer, LibraryAction::Remove { models: vec![stranger] }).await;
    assert_eq!(refused, Err(ErrorCode::UnknownModel));
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_kept_and_hold_the_queue_back() {
    let world = World::without_model(vec![web("", 0, false).await]);
    let viewer = world.start().await;
    let minute_of = |hours: i64| {
        let then = jiff::Zoned::now() + jiff::SignedDuration::from_hours(hours);
        u16::try_from(then.hour()).unwrap() * 60
    };
    // From in two hours until in four: not now, whatever the hour.
    let window = Some(DayWindow { from_minute: minute_of(2), until_minute: minute_of(4) });
    let good = LibrarySettings { window, cap_bytes: Some(1), ..LibrarySettings::default() };
    let bad = [
        LibrarySettings { connections: 0, ..good.clone() },
        LibrarySettings { bytes_per_s_max: Some(1), ..good.clone() },
        LibrarySettings {
            window: Some(DayWindow { from_minute: 1440, until_minute: 0 }),
            ..good.clone()
        },
    ];
    for settings in bad {
        let refused = library(&viewer, LibraryAction::Set { settings }).await;
        assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    }
    library(&viewer, LibraryAction::Set { settings: good.clone() }).await.unwrap();
    viewer.command(get()).await.unwrap();
    let resting = viewer.until("resting", |s| s.library.resting.is_some()).await;
    assert_eq!(resting.library.queue[0].state, QueueState::Waiting);
    assert_eq!(resting.library.settings, good);
    viewer.end().await;

    let viewer = world.start().await;
    assert_eq!(viewer.snapshot().await.library.settings, good);
    let settings = LibrarySettings { window: None, ..good };
    library(&viewer, LibraryAction::Set { settings }).await.unwrap();
    viewer.until("here", |s| s.models[0].state == ModelState::Ready).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_moves_is_checked_and_knows_what_fits() {
    let world = World::answering("fine");
    let viewer = world.start().await;
    let before = viewer.snapshot().await.library;
    assert!(before.models[0].fits.iter().all(|fit| fit.verdict == FitVerdict::Runs), "{before:?}");
    assert_eq!(before.models[0].factor, Some(1_000_000), "the practice network has said");
    let refused = library(&viewer, LibraryAction::Move { folder: "here".into() }).await;
    assert_eq!(refused, Err(ErrorCode::InvalidRequest));
    let target = world.home.path().join("big drive/models");
    let folder = target.display().to_string();
    library(&viewer, LibraryAction::Move { folder: folder.clone() }).await.unwrap();
    let moved = viewer.until("moved", |s| s.library.outcome.is_some()).await;
    let outcome = moved.library.outcome.unwrap();
    assert_eq!((outcome.task, outcome.problem), (Task::Move, None));
    assert_eq!(moved.library.folder, folder);
    assert!(!world.model_file().exists());
    viewer.mine_until_ready().await;
    let busy = library(&viewer, LibraryAction::Move { folder }).await;
    assert_eq!(busy, Err(ErrorCode::InvalidRequest), "models are in use");
    let remove = LibraryAction::Remove { models: vec![Catalog::starter()] };
    assert_eq!(library(&viewer, remove).await, Err(ErrorCode::InvalidRequest));
    library(&viewer, LibraryAction::Scrub).await.unwrap();
    let read = viewer.until("read", |s| {
        s.library.outcome.as_ref().is_some_and(|outcome| outcome.task == Task::Scrub)
    });
    let sentence = read.await.library.outcome.unwrap().sentence.unwrap();
    assert!(sentence.contains("as it should be"), "{sentence}");
    library(&viewer, LibraryAction::Dismiss).await.unwrap();
    assert_eq!(viewer.snapshot().await.library.outcome, None);
    viewer.end().await;
    // The next start finds it where it is now.
    let dirs = Dirs::discover(Some(world.home.path().to_owned())).unwrap();
    assert_eq!(dirs.models, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_whose_drive_is_gone_keeps_nothing_from_starting() {
    let world = World::without_model(vec![]);
    let dirs = world.dirs();
    dirs.create().unwrap();
    let drive = world.home.path().join("drive/neurino-models");
    LibraryFile::new(&dirs).set_folder(&drive).unwrap();
    let dirs = Dirs { models: drive.clone(), ..dirs };
    let options = AppOptions { dirs, store: None, ..world.options() };
    let viewer = Viewer::start(options).await.unwrap();
    let away = viewer.snapshot().await.library.away.unwrap();
    assert!(away.message.contains("neurino-models") && away.message.contains("drive"), "{away:?}");
    assert_eq!(library(&viewer, LibraryAction::LookAgain).await, Err(ErrorCode::ModelNotReady));
    viewer.command(Command::ModelFetch { model: Catalog::starter() }).await.unwrap();
    viewer.until("failed", |s| s.library.queue.iter().any(|i| i.problem.is_some())).await;
    assert!(!drive.exists(), "it would be fetched to another drive");
    let Ok(Reply::Doctor(checks)) = viewer.command(Command::Doctor).await else { panic!() };
    assert!(checks.iter().any(|check| check.finding.ends_with("is not there.")), "{checks:?}");
    std::fs::create_dir_all(&drive).unwrap();
    library(&viewer, LibraryAction::LookAgain).await.unwrap();
    assert_eq!(viewer.snapshot().await.library.away, None);
    std::fs::remove_dir_all(&drive).unwrap();
    let other = world.home.path().join("other drive");
    let folder = other.display().to_string();
    library(&viewer, LibraryAction::Move { folder: folder.clone() }).await.unwrap();
    let chosen = viewer.until("chosen", |s| s.library.outcome.is_some()).await.library;
    assert_eq!((chosen.folder, chosen.away), (folder, None));
    viewer.end().await;
    let dirs = Dirs::discover(Some(world.home.path().to_owned())).unwrap();
    assert_eq!(dirs.models, other);
}
