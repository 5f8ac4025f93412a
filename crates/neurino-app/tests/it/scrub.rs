//! The library is read through in the background: what the drive changed is found, told and fetched
//! again, slowly, and only where nobody is in the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use neurino_app::{AppOptions, ScrubPace};
use neurino_config::{Scrubbed, ScrubbedFile};
use neurino_model_store::{Catalog, Source};
use neurino_platform::{Surroundings, View};
use neurino_protocol::app::{Command, MiningState, ModelState, Snapshot};
use neurino_protocol::library::{DayWindow, LibraryAction, LibrarySettings};

use crate::mining::hanging;
use crate::world::{PATIENCE, Viewer, WEIGHTS, World};

/// Long enough for many looks of [`quick`].
const A_WHILE: Duration = Duration::from_millis(400);
const MONTH: Duration = Duration::from_hours(30 * 24);

/// Looks all the time; files are due a month after they were written.
fn quick() -> ScrubPace {
    let look_every = Duration::from_millis(10);
    ScrubPace { look_every, again_after: MONTH, ..ScrubPace::default() }
}

/// A home with the starter model, and the installation has a copy of it.
fn world() -> World {
    let world = World::without_model(vec![Source::Bundled { path: "models/weights.gguf".into() }]);
    for path in [world.dirs().resources.join("models/weights.gguf"), world.model_file()] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, WEIGHTS).unwrap();
    }
    world
}

/// The drive flips a bit of a file that was written two months ago: neither size nor time tells.
fn flip_a_bit(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[7] ^= 8;
    std::fs::write(path, bytes).unwrap();
    age(path);
}

fn age(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - 2 * MONTH).unwrap();
}

async fn start(world: &World, scrub: ScrubPace) -> Viewer {
    Viewer::start(AppOptions { scrub, ..world.options() }).await.unwrap()
}

async fn set(viewer: &Viewer, settings: LibrarySettings) {
    viewer.command(Command::Library(LibraryAction::Set { settings })).await.unwrap();
}

/// Hours of the day that are not now.
fn not_now() -> DayWindow {
    let now = jiff::Zoned::now();
    let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
    let later = |hours: u16| (minute + hours * 60) % (24 * 60);
    DayWindow { from_minute: later(2), until_minute: later(4) }
}

fn damaged(snapshot: &Snapshot) -> Option<&str> {
    snapshot.library.models[0].damaged.as_deref()
}

fn noted(world: &World) -> Scrubbed {
    ScrubbedFile::new(&world.dirs()).load()
}

async fn until_noted(world: &World, holds: impl Fn(&Scrubbed) -> bool) {
    let begin = std::time::Instant::now();
    while !holds(&noted(world)) {
        assert!(begin.elapsed() < PATIENCE, "{:?}", noted(world));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_told_and_fetched_again_when_downloads_may_run() {
    let world = world();
    let viewer = start(&world, ScrubPace { look_every: PATIENCE, ..quick() }).await;
    let window = Some(not_now());
    set(&viewer, LibrarySettings { window, ..LibrarySettings::default() }).await;
    viewer.end().await;

    flip_a_bit(&world.model_file());
    let viewer = start(&world, quick()).await;
    let found = viewer.until("found", |s| damaged(s) == Some("weights.gguf")).await;
    assert_eq!(found.models[0].state, ModelState::Absent);
    assert_eq!(found.library.queue.len(), 1);
    viewer.until("it waits for its hours", |s| s.library.resting.is_some()).await;
    viewer.end().await;

    let viewer = start(&world, quick()).await;
    let snapshot = viewer.snapshot().await;
    assert_eq!(damaged(&snapshot), Some("weights.gguf"), "it is told until it is repaired");
    set(&viewer, LibrarySettings::default()).await;
    let whole = |s: &Snapshot| s.models[0].state == ModelState::Ready && damaged(s).is_none();
    viewer.until("whole again", whole).await;
    assert_eq!(std::fs::read(world.model_file()).unwrap(), WEIGHTS);
    until_noted(&world, |scrubbed| scrubbed.damaged.is_empty()).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_could_bring_back_is_told_and_not_fetched() {
    let world = World::answering("fine");
    flip_a_bit(&world.model_file());
    let viewer = start(&world, quick()).await;
    let found = viewer.until("found", |s| damaged(s).is_some()).await;
    assert!(found.library.queue.is_empty(), "no source has it");
    assert!(world.model_file().with_file_name("weights.gguf.damaged").exists(), "it is kept");
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_once_in_a_month() {
    let world = world();
    age(&world.model_file());
    let viewer = start(&world, quick()).await;
    let name = format!("{}/weights.gguf", Catalog::starter());
    until_noted(&world, |scrubbed| scrubbed.read_ms.contains_key(&name)).await;
    viewer.end().await;

    // Neither soon after that, nor after another start, nor where it was just written.
    flip_a_bit(&world.model_file());
    let viewer = start(&world, quick()).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(damaged(&viewer.snapshot().await), None);
    viewer.end().await;
    let read_ms = noted(&world).read_ms[&name];
    let long_ago = Scrubbed { read_ms: [(name.clone(), 1)].into(), ..Scrubbed::default() };
    ScrubbedFile::new(&world.dirs()).save(&long_ago).unwrap();
    std::fs::write(world.model_file(), WEIGHTS).unwrap();
    let viewer = start(&world, quick()).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(noted(&world).read_ms[&name], 1, "it was read at {read_ms} and written since");
    viewer.end().await;
}

/// A desktop that says since when nobody used it.
#[derive(Clone)]
struct Desk(Arc<Mutex<View>>);

impl Surroundings for Desk {
    fn look(&mut self) -> View {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_somebody_uses_the_machine_or_on_its_battery() {
    let world = world();
    flip_a_bit(&world.model_file());
    let view = |idle_secs, on_battery| View {
        idle_secs: Some(idle_secs),
        on_battery: Some(on_battery),
        ..View::default()
    };
    let desk = Desk(Arc::new(Mutex::new(view(3, false))));
    let surroundings: Option<Box<dyn Surroundings>> = Some(Box::new(desk.clone()));
    let options = AppOptions { surroundings, scrub: quick(), ..world.options() };
    let viewer = Viewer::start(options).await.unwrap();
    tokio::time::sleep(A_WHILE).await;
    *desk.0.lock().unwrap() = view(3600, true);
    // The desktop is looked at every second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(noted(&world).read_ms.is_empty());
    assert_eq!(damaged(&viewer.snapshot().await), None);
    *desk.0.lock().unwrap() = view(3600, false);
    until_noted(&world, |scrubbed| !scrubbed.read_ms.is_empty()).await;
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_all_files_tells_and_fetches_the_same() {
    let world = world();
    let viewer = start(&world, ScrubPace { look_every: PATIENCE, ..quick() }).await;
    let window = Some(not_now());
    set(&viewer, LibrarySettings { window, ..LibrarySettings::default() }).await;
    flip_a_bit(&world.model_file());
    viewer.command(Command::Library(LibraryAction::Scrub)).await.unwrap();
    let found = viewer.until("found", |s| s.library.outcome.is_some()).await;
    let sentence = found.library.outcome.clone().unwrap().sentence.unwrap();
    assert!(sentence.ends_with("Only its damaged pieces are fetched again."), "{sentence}");
    assert_eq!((damaged(&found), found.library.queue.len()), (Some("weights.gguf"), 1));
    viewer.end().await;
}

/// A drive that does not give the model's file while `fails` says so.
fn failing(world: &World, fails: &Arc<AtomicBool>) -> AppOptions {
    let (fails, options) = (Arc::clone(fails), world.options());
    let open = move |path: &Path| -> std::io::Result<Box<dyn std::io::Read>> {
        if fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        Ok(Box::new(std::fs::File::open(path)?))
    };
    let store = options.store.map(|store| store.read_by(Box::new(open)));
    AppOptions { store, scrub: quick(), ..options }
}

fn unreadable(snapshot: &Snapshot) -> Option<(&str, &str)> {
    let found = snapshot.library.models[0].unreadable.as_ref()?;
    Some((&found.file, &found.why))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_fails_is_told_until_it_gives_the_file_again_or_that_is_replaced() {
    let (world, fails) = (world(), Arc::new(AtomicBool::new(true)));
    age(&world.model_file());
    let viewer = Viewer::start(failing(&world, &fails)).await.unwrap();
    let told = viewer.until("told", |s| unreadable(s).is_some()).await;
    let (file, why) = unreadable(&told).unwrap();
    assert_eq!(file, "weights.gguf");
    assert!(why.contains("os error 5"), "{why}");
    assert_eq!((damaged(&told), told.library.queue.len()), (None, 0), "nothing is fetched unasked");
    assert!(world.model_file().exists());
    viewer.end().await;

    // It outlives the program; the check of all files finds the drive well again.
    let viewer = Viewer::start(failing(&world, &fails)).await.unwrap();
    assert!(unreadable(&viewer.snapshot().await).is_some());
    viewer.command(Command::Library(LibraryAction::Scrub)).await.unwrap();
    let ended = viewer.until("checked", |s| s.library.outcome.is_some()).await;
    let sentence = ended.library.outcome.unwrap().sentence.unwrap();
    assert!(sentence.starts_with("The drive could not read weights.gguf of "), "{sentence}");
    fails.store(false, Ordering::SeqCst);
    viewer.command(Command::Library(LibraryAction::Scrub)).await.unwrap();
    viewer.until("well again", |s| unreadable(s).is_none()).await;
    let replace = Command::Library(LibraryAction::Replace { model: Catalog::starter() });
    assert!(viewer.command(replace.clone()).await.is_err(), "there is nothing to replace");
    viewer.end().await;

    // Once more, and the person has it replaced.
    fails.store(true, Ordering::SeqCst);
    age(&world.model_file());
    ScrubbedFile::new(&world.dirs()).save(&Scrubbed::default()).unwrap();
    let viewer = Viewer::start(failing(&world, &fails)).await.unwrap();
    viewer.until("told", |s| unreadable(s).is_some()).await;
    viewer.command(replace).await.unwrap();
    let whole = |s: &Snapshot| {
        s.models[0].state == ModelState::Ready && unreadable(s).is_none() && damaged(s).is_none()
    };
    viewer.until("replaced", whole).await;
    assert_eq!(std::fs::read(world.model_file()).unwrap(), WEIGHTS);
    viewer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_in_memory_whose_file_is_damaged_ends_its_jobs_and_is_loaded_again() {
    let world = world();
    let mut viewer = start(&world, ScrubPace { look_every: PATIENCE, ..quick() }).await;
    viewer.mine_until_ready().await;
    viewer.earn("before").await;
    world.engine.queue(hanging());
    viewer.ask("long").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    flip_a_bit(&world.model_file());
    viewer.command(Command::Library(LibraryAction::Scrub)).await.unwrap();
    viewer.until("the job goes on", |s| s.mining.state == MiningState::Finishing).await;
    assert_eq!(world.engine.loads(), 1);
    viewer.command(Command::ChatCancel { chat: "long".into() }).await.unwrap();
    let again = viewer.until_ready().await;
    assert_eq!((world.engine.loads(), damaged(&again)), (2, None));
    assert_eq!(std::fs::read(world.model_file()).unwrap(), WEIGHTS);
    viewer.earn("after").await;
    viewer.end().await;
}
