//! An exchange stopped after every step, trials, and ways back, with programs that are scripts.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::release::Edition;

pub(crate) const OLD: Version = Version::new(0, 1, 0);
pub(crate) const NEW: Version = Version::new(0, 2, 0);

/// An installation of 0.1.0, and a package of 0.2.0 that changes a resource and brings another.
pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) place: Place,
    package: PathBuf,
}

fn script(version: &str) -> String {
    format!("#!/bin/sh\necho neurino {version}\n")
}

impl World {
    fn new() -> Self {
        Self::with(&script("0.2.0"))
    }

    pub(crate) fn with(program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("neurino");
        fs::create_dir_all(home.join("resources/models")).unwrap();
        let old = home.join("neurino");
        fs::write(&old, script("0.1.0")).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(home.join("resources/models/a"), "old a").unwrap();
        fs::write(home.join("mine.txt"), "the person's own").unwrap();
        let package = folder.path().join("new.zip");
        zipped(
            &package,
            &[
                ("neurino", program, 0o755),
                ("resources/models/a", "new a", 0o644),
                ("resources/models/b", "new b", 0o644),
            ],
        );
        let place = Place::of(old, None, Edition::Server);
        Self { _folder: folder, place, package }
    }

    pub(crate) fn stage(&self) -> Result<Staged, UpdateError> {
        stage(&self.place, &self.package, NEW)
    }

    /// The version in place, once everything that belongs to it was found to be there.
    pub(crate) fn version(&self) -> Version {
        let said = said_version(&self.place.program).unwrap();
        let version = said.strip_prefix("neurino ").unwrap().parse().unwrap();
        let a = fs::read_to_string(self.place.folder.join("resources/models/a")).unwrap();
        let b = self.place.folder.join("resources/models/b").exists();
        let expect = if version == NEW { ("new a", true) } else { ("old a", false) };
        assert_eq!((a.as_str(), b), expect, "beside {version}");
        let mine = fs::read_to_string(self.place.folder.join("mine.txt")).unwrap();
        assert_eq!(mine, "the person's own");
        version
    }

    fn program_version(&self) -> Version {
        let said = said_version(&self.place.program).unwrap();
        said.strip_prefix("neurino ").unwrap().parse().unwrap()
    }
}

fn zipped(path: &Path, files: &[(&str, &str, u32)]) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, text, mode) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        zip.start_file(*name, options).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn an_update_is_put_in_place_comes_up_and_can_be_taken_back() {
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    assert_eq!(world.version(), NEW);
    assert_eq!(at_start(place, NEW).unwrap().then, AtStart::GoOn);
    came_up(place, NEW).unwrap();
    for _ in 0..5 {
        assert_eq!(at_start(place, NEW).unwrap().then, AtStart::GoOn, "its trial is over");
    }
    assert_eq!(take_back(place, true).unwrap(), OLD);
    assert_eq!(world.version(), OLD);
    assert!(matches!(take_back(place, true), Err(UpdateError::NoWayBack)));
}

#[test]
fn a_version_that_never_comes_up_is_taken_back_at_its_third_start() {
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    assert_eq!(at_start(place, NEW).unwrap().then, AtStart::GoOn);
    assert_eq!(at_start(place, NEW).unwrap().then, AtStart::GoOn);
    assert_eq!(world.version(), NEW);
    assert_eq!(at_start(place, NEW).unwrap().then, AtStart::StartAgain);
    assert_eq!(world.version(), OLD);
    assert_eq!(state(place).unwrap().phase, Phase::RolledBack);
    assert_eq!(at_start(place, OLD).unwrap().then, AtStart::GoOn);
}

#[test]
fn a_kill_after_any_step_leaves_one_whole_version() {
    let mut seen = Vec::new();
    for steps in 0.. {
        let world = World::new();
        let place = &world.place;
        let staged = world.stage().unwrap();
        let mut plan = Plan::make(place, &staged, OLD).unwrap();
        let mut done = 0;
        while done < steps
            && let Some(step) = plan.next_step()
        {
            step.unwrap();
            done += 1;
        }
        // The kill. Whatever is there starts, and puts right what is half done.
        let own = world.program_version();
        assert_eq!(at_start(place, own).unwrap().then, AtStart::GoOn, "after {steps} steps");
        assert_eq!(world.version(), own, "after {steps} steps");
        // What was undone can be tried again.
        if own == OLD {
            put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
            assert_eq!(world.version(), NEW, "again after {steps} steps");
        }
        seen.push(own);
        if done < steps {
            break;
        }
    }
    assert!(seen.contains(&OLD) && seen.contains(&NEW) && seen.len() > 5, "{seen:?}");
}

#[test]
fn a_kill_on_the_way_back_is_finished_by_the_next_start() {
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    // As far as the program alone.
    fs::copy(previous(place).join("neurino"), place.folder.join("x")).unwrap();
    fs::rename(place.folder.join("x"), &place.program).unwrap();
    assert_eq!(at_start(place, OLD).unwrap().then, AtStart::GoOn);
    assert_eq!(world.version(), OLD);
}

/// An installation whose update came up.
fn settled() -> World {
    let world = World::new();
    put_in_place(&world.place, &world.stage().unwrap(), OLD).unwrap();
    came_up(&world.place, NEW).unwrap();
    world
}

#[test]
fn a_way_back_that_is_killed_after_any_step_is_finished_by_the_next_start() {
    let mut seen = Vec::new();
    for steps in 0.. {
        let world = settled();
        let place = &world.place;
        let mut way = back::WayBack::make(place, true).unwrap();
        let mut done = 0;
        while done < steps
            && let Some(step) = way.next_step()
        {
            step.unwrap();
            done += 1;
        }
        let own = world.program_version();
        let begun = state(place).unwrap().phase != Phase::Settled;
        let then = at_start(place, own).unwrap().then;
        let expect = if begun && own == NEW { AtStart::StartAgain } else { AtStart::GoOn };
        assert_eq!(then, expect, "after {steps} steps");
        assert_eq!(world.version(), if begun { OLD } else { NEW }, "after {steps} steps");
        if begun {
            let trial = state(place).unwrap();
            assert_eq!((trial.phase, trial.by_person), (Phase::RolledBack, true));
        }
        seen.push((begun, own));
        if done < steps {
            break;
        }
    }
    let expect = [(false, NEW), (true, NEW), (true, OLD)];
    assert!(expect.iter().all(|one| seen.contains(one)) && seen.len() > 5, "{seen:?}");
}

#[test]
fn half_a_copy_of_the_old_program_never_takes_its_place() {
    let world = World::new();
    let place = &world.place;
    let staged_files = world.stage().unwrap();
    let mut plan = Plan::make(place, &staged_files, OLD).unwrap();
    while !previous(place).join("resources/models/a").exists() {
        plan.next_step().unwrap().unwrap();
    }
    // Where a drive has no second names: killed while the program was copied.
    fs::write(previous(place).join("neurino"), "#!/bin").unwrap();
    assert_eq!(at_start(place, OLD).unwrap().then, AtStart::GoOn);
    assert_eq!(world.version(), OLD);
    // A kept program that rotted is not put back either.
    let world = settled();
    let place = &world.place;
    fs::write(previous(place).join("neurino"), "#!/bin").unwrap();
    assert!(matches!(take_back(place, true), Err(UpdateError::KeptDamaged { .. })));
    assert_eq!(world.version(), NEW);
    assert_eq!(at_start(place, NEW).unwrap().then, AtStart::GoOn);
}

#[test]
fn a_copy_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (file, copy) = (folder.path().join("a"), folder.path().join("b"));
    fs::write(&file, "all of it").unwrap();
    fs::create_dir(folder.path().join("b.part")).unwrap();
    assert!(files::copy_whole(&file, &copy).is_err() && !copy.exists());
    fs::remove_dir(folder.path().join("b.part")).unwrap();
    files::copy_whole(&file, &copy).unwrap();
    assert_eq!(fs::read_to_string(&copy).unwrap(), "all of it");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn starts_beside_a_program_that_runs_are_not_counted() {
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    let first = at_start(place, NEW).unwrap();
    for _ in 0..5 {
        let click = at_start(place, NEW).unwrap();
        assert_eq!(click.then, AtStart::GoOn);
        assert!(click.running.is_none());
    }
    assert_eq!(state(place).unwrap().phase, Phase::Trial { starts: 1 });
    assert_eq!(world.version(), NEW);
    drop(first);
}

#[test]
fn a_start_waits_for_an_exchange_and_then_is_the_new_program() {
    let world = World::new();
    let staged_files = world.stage().unwrap();
    let alone = Exchange::begin(&world.place).unwrap();
    let mut plan = Plan::make(&world.place, &staged_files, OLD).unwrap();
    for _ in 0..3 {
        plan.next_step().unwrap().unwrap();
    }
    // A click, still on the old program.
    let place = world.place.clone();
    let click = std::thread::spawn(move || at_start(&place, OLD).unwrap().then);
    std::thread::sleep(Duration::from_millis(200));
    while let Some(step) = plan.next_step() {
        step.unwrap();
    }
    drop(alone);
    assert_eq!(click.join().unwrap(), AtStart::StartAgain);
    assert_eq!(world.version(), NEW);
}

#[test]
fn a_version_installed_by_hand_is_left_alone() {
    let other = Version::new(0, 3, 0);
    for phase in [Phase::Swapping, Phase::Trial { starts: 2 }, Phase::GoingBack, Phase::Settled] {
        let world = settled();
        let place = &world.place;
        let trial = state(place).unwrap();
        save(place, &Trial { phase, ..trial }).unwrap();
        fs::write(&place.program, script("0.3.0")).unwrap();
        assert_eq!(at_start(place, other).unwrap().then, AtStart::GoOn);
        assert_eq!(world.program_version(), other);
        assert_eq!((state(place), previous(place).exists()), (None, false));
        assert_eq!(way_back(place, other), None);
    }
    // The version before, in other bytes than those kept, does not start itself without end.
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    fs::write(&place.program, format!("{}# by hand\n", script("0.1.0"))).unwrap();
    assert_eq!(at_start(place, OLD).unwrap().then, AtStart::GoOn);
    assert_eq!(state(place), None);
}

#[test]
fn only_the_version_that_came_of_an_update_has_a_way_back() {
    let world = settled();
    assert_eq!(way_back(&world.place, NEW), Some(OLD));
    assert_eq!(way_back(&world.place, OLD), None);
    remove_folder(&previous(&world.place)).unwrap();
    assert_eq!(way_back(&world.place, NEW), None);
}

#[test]
fn a_version_on_trial_is_not_replaced_by_a_third_one() {
    let world = World::new();
    let place = &world.place;
    put_in_place(place, &world.stage().unwrap(), OLD).unwrap();
    let again = put_in_place(place, &world.stage().unwrap(), NEW);
    assert!(matches!(again, Err(UpdateError::OnTrial { .. })), "{again:?}");
    assert_eq!(take_back(place, false).unwrap(), OLD, "the way back is still there");
    assert_eq!(world.version(), OLD);
}

#[test]
fn a_program_that_does_not_start_or_says_another_version_is_never_put_in_place() {
    let check = |program: &str, expect: &str| {
        let world = World::with(program);
        let told = world.stage().unwrap_err().to_string();
        assert!(told.contains(expect), "{told}");
        assert_eq!(world.version(), OLD);
        assert_eq!(state(&world.place), None);
    };
    check("#!/bin/sh\necho missing library >&2\nexit 127\n", "missing library");
    check(&script("0.1.5"), "its program says `neurino 0.1.5`");
    check("no program at all", "does not start on this machine");
}

#[test]
fn a_package_may_not_write_outside_its_folder() {
    let world = World::new();
    for name in ["../outside", "/tmp/neurino-outside", "a/../../outside"] {
        zipped(&world.package, &[("neurino", &script("0.2.0"), 0o755), (name, "x", 0o644)]);
        match world.stage() {
            Err(UpdateError::Package { .. }) => {}
            // The name was taken as one inside.
            Ok(_) => assert!(!world.place.folder.parent().unwrap().join("outside").exists()),
            Err(other) => panic!("{other}"),
        }
        assert!(!Path::new("/tmp/neurino-outside").exists());
    }
    fs::write(&world.package, "no zip").unwrap();
    assert!(matches!(world.stage(), Err(UpdateError::Package { .. })));
}

#[test]
fn a_damaged_record_keeps_nothing_from_starting() {
    let world = World::new();
    fs::create_dir_all(world.place.updates()).unwrap();
    fs::write(record::state_path(&world.place), "{").unwrap();
    assert_eq!(at_start(&world.place, OLD).unwrap().then, AtStart::GoOn);
}

#[test]
fn a_folder_that_turns_read_only_leaves_the_old_version() {
    let world = World::new();
    let staged = world.stage().unwrap();
    let folder = world.place.folder.join("resources/models");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let outcome = put_in_place(&world.place, &staged, OLD);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    // The administrator may write everywhere.
    if outcome.is_err() {
        assert_eq!(world.version(), OLD);
    }
}
