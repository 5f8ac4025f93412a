//! Newer versions: found beside the running program, and put in place only when no job runs.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use neurino_app::{AppOptions, UpdateOptions};
use neurino_protocol::ErrorCode;
use neurino_protocol::app::{Command, MiningState, Reply};
use neurino_protocol::update::{
    UpdateCommand, UpdateKeeper, UpdatePreferences, UpdateStatus, UpdateView,
};
use neurino_update::making::{self, Terms};
use neurino_update::{Edition, Exchange, Keeper, Place, Source, Updater, Version, release, swap};

use crate::mining::hanging;
use crate::world::{Viewer, World};

const OWN: Version = Version::new(0, 1, 0);
const SEED: [u8; 32] = [3; 32];

/// An installation of 0.1.0, and a folder with a signed release.
struct Shelf {
    _folder: tempfile::TempDir,
    place: Place,
    releases: PathBuf,
    packages: PathBuf,
}

fn program(path: &Path, version: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\necho neurino {version}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        program(&at("here/neurino"), "0.1.0");
        let place = Place::of(at("here/neurino"), None, Edition::Server);
        let (releases, packages) = (at("releases"), at("packages"));
        fs::create_dir_all(&releases).unwrap();
        Self { place, releases, packages, _folder: folder }
    }

    fn publish(&self, version: &str, seed: &[u8; 32]) {
        let tree = self.releases.join("../tree");
        program(&tree.join("neurino"), version);
        let machine = release::platform();
        let name = format!("neurino-server-{version}-{machine}.zip");
        making::pack(&tree, &self.releases.join(name)).unwrap();
        let terms = Terms {
            version: version.parse().unwrap(),
            minimum: OWN,
            expires: "2100-01-01T00:00:00Z".parse().unwrap(),
            notes: [("en".to_owned(), "Faster.".to_owned())].into(),
        };
        making::sign(&self.releases, terms, seed).unwrap();
    }

    fn options(&self, world: &World) -> AppOptions {
        let updater = Updater {
            source: Source::Folder(self.releases.clone()),
            key: release::public_key(&SEED).unwrap(),
            own: OWN,
            place: self.place.clone(),
            packages: self.packages.clone(),
        };
        let updates = UpdateOptions {
            own: OWN,
            place: self.place.clone(),
            updater: Some(updater),
            first_look_after: Duration::from_millis(100),
            came_up_after: Duration::from_millis(100),
            unseen_after: Duration::from_secs(2),
        };
        AppOptions { updates: Some(updates), ..world.options() }
    }
}

async fn ask(viewer: &Viewer, command: UpdateCommand) -> UpdateView {
    match viewer.command(Command::Update(command)).await {
        Ok(Reply::Update(view)) => *view,
        other => panic!("{other:?}"),
    }
}

/// Leaves the installing to the person.
async fn by_hand(viewer: &Viewer) {
    let preferences = UpdatePreferences { check: true, by_itself: false };
    ask(viewer, UpdateCommand::Set { preferences }).await;
}

fn ready(status: &UpdateStatus) -> bool {
    matches!(status, UpdateStatus::Ready { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_ready_waits_for_the_job_and_mining_goes_on_after_it() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    by_hand(&viewer).await;
    let found = viewer.until("ready", |s| ready(&s.update)).await;
    let UpdateStatus::Ready { version, notes, .. } = found.update else { unreachable!() };
    assert_eq!((version.as_str(), notes["en"].as_str()), ("0.2.0", "Faster."));
    viewer.mine_until_ready().await;
    let due = viewer.app.update_due();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!due.is_cancelled(), "it was not asked for");
    let view = ask(&viewer, UpdateCommand::Install).await;
    assert_eq!(view.status, UpdateStatus::Installing { version: "0.2.0".into() });
    let held = viewer.until_state(MiningState::Paused).await;
    assert!(held.mining.sentence.contains("another version"), "{}", held.mining.sentence);
    tokio::time::timeout(Duration::from_secs(10), due.cancelled()).await.unwrap();
    assert_eq!(viewer.app.exchange_due(), Some(Exchange::Install(Version::new(0, 2, 0))));
    // What the shell does then.
    viewer.app.shutdown().await;
    let staged = swap::Staged { version: Version::new(0, 2, 0) };
    swap::put_in_place(&shelf.place, &staged, OWN).unwrap();
    let text = fs::read_to_string(&shelf.place.program).unwrap();
    assert!(text.contains("0.2.0"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_puts_an_update_off_for_a_day() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let mut viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    // Somebody looks at the window, so it does not install itself either.
    viewer.app.watched(true);
    viewer.until("ready", |s| ready(&s.update)).await;
    viewer.mine_until_ready().await;
    // Without a job that it waits for, it would be due at once.
    world.engine.queue(hanging());
    viewer.ask("c").await.unwrap();
    viewer.until_state(MiningState::Working).await;
    ask(&viewer, UpdateCommand::Install).await;
    viewer.command(Command::MiningStart).await.unwrap();
    let off = viewer.until("put off", |s| ready(&s.update)).await;
    let UpdateStatus::Ready { later_until_ms: Some(_), .. } = off.update else {
        panic!("{:?}", off.update)
    };
    viewer.command(Command::ChatCancel { chat: "c".into() }).await.unwrap();
    assert_eq!(viewer.answer("c").await.unwrap_err().code, ErrorCode::Cancelled);
    viewer.app.watched(false);
    viewer.until("mining", |s| matches!(s.mining.state, MiningState::Waiting)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!viewer.app.update_due().is_cancelled());
    // Once nothing holds it, it is due, and nobody can begin to mine any more.
    ask(&viewer, UpdateCommand::Install).await;
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(10), due.cancelled()).await.unwrap();
    let late = viewer.command(Command::MiningStart).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::Cancelled);
    assert!(matches!(viewer.snapshot().await.update, UpdateStatus::Installing { .. }));
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_installs_itself_only_while_nobody_looks() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    viewer.app.watched(true);
    viewer.until("ready", |s| ready(&s.update)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!viewer.app.update_due().is_cancelled());
    viewer.app.watched(false);
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(10), due.cancelled()).await.unwrap();
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_lists_older_ones_and_none_at_all_change_nothing() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    by_hand(&viewer).await;
    let told = |view: UpdateView| view.problem.map(|problem| problem.message).unwrap_or_default();
    let check = async |expect: &str| {
        let begin = std::time::Instant::now();
        ask(&viewer, UpdateCommand::Check).await;
        loop {
            let view = ask(&viewer, UpdateCommand::Look).await;
            if told(view.clone()).contains(expect) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{expect}: {view:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    check("cannot be read").await;
    shelf.publish("0.2.0", &[4; 32]);
    check("its signature is not the network's").await;
    shelf.publish("0.3.0", &SEED);
    viewer.command(Command::Update(UpdateCommand::Check)).await.unwrap();
    viewer.until("ready", |s| ready(&s.update)).await;
    // Somebody brings the former list back.
    shelf.publish("0.2.0", &SEED);
    check("version 0.3.0 was offered before").await;
    assert!(ready(&viewer.snapshot().await.update), "what was ready stays so");
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_package_tool_keeps_the_program_the_person_gets_the_command() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    let deb = shelf.releases.join("neurino-server_0.2.0_amd64.deb");
    fs::write(&deb, "a package").unwrap();
    shelf.publish("0.2.0", &SEED);
    let mut options = shelf.options(&world);
    let updates = options.updates.as_mut().unwrap();
    updates.place.keeper = Keeper::Dpkg("neurino-server".into());
    updates.updater.as_mut().unwrap().place = updates.place.clone();
    let viewer = Viewer::start(options).await.unwrap();
    let found =
        |s: &neurino_protocol::app::Snapshot| matches!(s.update, UpdateStatus::ByHand { .. });
    if release::platform() != "linux-x86_64" {
        return;
    }
    let UpdateStatus::ByHand { command, .. } = viewer.until("by hand", found).await.update else {
        unreachable!()
    };
    assert!(command.starts_with("sudo apt install /"), "{command}");
    let file = command.strip_prefix("sudo apt install ").unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "a package", "verified and here");
    let view = ask(&viewer, UpdateCommand::Look).await;
    assert_eq!(view.keeper, UpdateKeeper::Person);
    let refused = viewer.command(Command::Update(UpdateCommand::Install)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(fs::read_to_string(&shelf.place.program).unwrap().contains("0.1.0"));
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_did_not_come_up_is_told_and_not_tried_again_by_itself() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    failed(&shelf);
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    // Read, and not told again.
    ask(&viewer, UpdateCommand::Later).await;
    let expect = UpdateStatus::TakenBack { version: "0.2.0".into(), dismissed: true };
    assert_eq!(viewer.snapshot().await.update, expect);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(viewer.snapshot().await.update, expect, "it was fetched again, and waits");
    assert!(!viewer.app.update_due().is_cancelled());
    shelf.publish("0.3.0", &SEED);
    ask(&viewer, UpdateCommand::Check).await;
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(20), due.cancelled()).await.unwrap();
    assert_eq!(viewer.app.exchange_due(), Some(Exchange::Install(Version::new(0, 3, 0))));
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_taken_back_is_fetched_again_when_it_is_asked_for() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    failed(&shelf);
    let mut options = shelf.options(&world);
    options.updates.as_mut().unwrap().first_look_after = Duration::from_hours(1);
    let viewer = Viewer::start(options).await.unwrap();
    ask(&viewer, UpdateCommand::Install).await;
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(20), due.cancelled()).await.unwrap();
    let expect = Exchange::Install(Version::new(0, 2, 0));
    assert_eq!(viewer.app.exchange_due(), Some(expect));
    viewer.app.shutdown().await;
}

/// The package that is published, put in place as an update of `OWN`.
fn put_in_place(shelf: &Shelf) -> Version {
    let package = fs::read_dir(&shelf.releases)
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(".zip"))
        .unwrap();
    let new = Version::new(0, 2, 0);
    let staged = swap::stage(&shelf.place, &package.path(), new).unwrap();
    swap::put_in_place(&shelf.place, &staged, OWN).unwrap();
    new
}

/// An update that never came up.
fn failed(shelf: &Shelf) {
    let new = put_in_place(shelf);
    for _ in 0..3 {
        swap::at_start(&shelf.place, new).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_waits_for_jobs_and_what_was_left_does_not_come_back_by_itself() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let new = put_in_place(&shelf);
    let mut options = shelf.options(&world);
    let updates = options.updates.as_mut().unwrap();
    updates.own = new;
    updates.updater.as_mut().unwrap().own = new;
    let viewer = Viewer::start(options).await.unwrap();
    viewer.mine_until_ready().await;
    assert_eq!(ask(&viewer, UpdateCommand::Look).await.back_to.as_deref(), Some("0.1.0"));
    let view = ask(&viewer, UpdateCommand::Back).await;
    assert_eq!(view.status, UpdateStatus::Installing { version: "0.1.0".into() });
    viewer.until_state(MiningState::Paused).await;
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(10), due.cancelled()).await.unwrap();
    assert_eq!(viewer.app.exchange_due(), Some(Exchange::Back));
    let text = fs::read_to_string(&shelf.place.program).unwrap();
    assert!(text.contains("0.2.0"), "the process that follows exchanges the files: {text}");
    viewer.app.shutdown().await;
    drop(viewer);
    assert_eq!(swap::take_back(&shelf.place, true).unwrap(), OWN);
    // The earlier version finds the other one again, and the person lets it install by itself.
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    let preferences = UpdatePreferences { check: true, by_itself: true };
    assert!(!ask(&viewer, UpdateCommand::Look).await.preferences.by_itself);
    ask(&viewer, UpdateCommand::Set { preferences }).await;
    viewer.until("ready", |s| ready(&s.update)).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!viewer.app.update_due().is_cancelled(), "it was left");
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_leaves_a_version_alone_that_is_being_installed() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    by_hand(&viewer).await;
    viewer.until("ready", |s| ready(&s.update)).await;
    // A newer one, whose package does not arrive.
    shelf.publish("0.3.0", &SEED);
    for entry in fs::read_dir(&shelf.releases).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains("0.3.0") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    ask(&viewer, UpdateCommand::Check).await;
    let begin = std::time::Instant::now();
    while ask(&viewer, UpdateCommand::Look).await.problem.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let found = viewer.snapshot().await.update;
    assert!(
        matches!(&found, UpdateStatus::Ready { version, .. } if version == "0.2.0"),
        "{found:?}"
    );
    // While it is installed, nothing is fetched.
    viewer.app.watched(true);
    viewer.mine_until_ready().await;
    ask(&viewer, UpdateCommand::Install).await;
    ask(&viewer, UpdateCommand::Check).await;
    let due = viewer.app.update_due();
    tokio::time::timeout(Duration::from_secs(20), due.cancelled()).await.unwrap();
    let expect = Exchange::Install(Version::new(0, 2, 0));
    assert_eq!(viewer.app.exchange_due(), Some(expect));
    viewer.app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_end_the_data_folder_is_free_whoever_still_holds_the_application() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    let held = std::sync::Arc::clone(&viewer.app);
    viewer.app.shutdown().await;
    let next = Viewer::start(shelf.options(&world)).await.unwrap();
    next.app.shutdown().await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_nobody_has_in_front_holds_no_update_back_for_ever() {
    let (world, shelf) = (World::answering("fine"), Shelf::new());
    shelf.publish("0.2.0", &SEED);
    let viewer = Viewer::start(shelf.options(&world)).await.unwrap();
    viewer.app.watched(true);
    viewer.until("ready", |s| ready(&s.update)).await;
    let due = viewer.app.update_due();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!due.is_cancelled(), "somebody looks");
    // A look at another window is none at all.
    viewer.app.in_front(false);
    tokio::time::sleep(Duration::from_millis(500)).await;
    viewer.app.in_front(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!due.is_cancelled(), "it is in front again");
    viewer.app.in_front(false);
    let begin = std::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(10), due.cancelled()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    viewer.end().await;
}
