//! Whatever ends the program, the limits that were found come back: the power is cut after every
//! single step, the process is killed at random moments, and somebody else may change a limit in
//! between.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "the child tells its parent when it is ready")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use neurino_hardware::{CardPower, PowerCard, PowerFault};
use neurino_power::{
    Entry, FileJournal, Held, Journal, JournalError, Keeper, Released, ScriptedCards,
};
use rand::Rng as _;

const CARD: &str = "GPU-1";
const FOUND_MW: u32 = 450_000;

fn cards_at(folder: &Path, limit_mw: u32, extra: &str) -> Arc<ScriptedCards> {
    let path = folder.join("cards.json");
    let text = format!(
        r#"[{{"uuid":"{CARD}","name":"Card","least_mw":100000,"most_mw":600000,
            "usual_mw":{FOUND_MW},"limit_mw":{limit_mw},"may_set":true{extra}}}]"#
    );
    std::fs::write(&path, text).unwrap();
    Arc::new(ScriptedCards::new(path))
}

fn journal_at(folder: &Path) -> FileJournal {
    FileJournal::new(folder.join("limits.json"))
}

fn keeper_at(folder: &Path) -> Keeper {
    let cards = Arc::new(ScriptedCards::new(folder.join("cards.json")));
    Keeper::open(cards, Box::new(journal_at(folder))).unwrap()
}

fn limit_at(folder: &Path) -> u32 {
    ScriptedCards::new(folder.join("cards.json")).limit_mw(CARD).unwrap()
}

/// Counts steps down; at nought the power is cut.
#[derive(Clone)]
struct Fuse(Arc<AtomicI64>);

impl Fuse {
    fn step(&self) {
        assert!(self.0.fetch_sub(1, Ordering::SeqCst) > 0, "the power is cut");
    }
}

struct Fused<T>(T, Fuse);

impl Journal for Fused<FileJournal> {
    fn load(&mut self) -> Result<Vec<Entry>, JournalError> {
        self.0.load()
    }

    fn save(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.1.step();
        self.0.save(entries)?;
        self.1.step();
        Ok(())
    }
}

impl CardPower for Fused<Arc<ScriptedCards>> {
    fn cards(&self) -> Vec<PowerCard> {
        self.0.cards()
    }

    fn limit_mw(&self, uuid: &str) -> Result<u32, PowerFault> {
        self.0.limit_mw(uuid)
    }

    fn set_limit_mw(&self, uuid: &str, limit_mw: u32) -> Result<(), PowerFault> {
        self.1.step();
        // Some drivers round.
        self.0.set_limit_mw(uuid, limit_mw / 1000 * 1000 + 7)?;
        self.1.step();
        Ok(())
    }

    fn energy_mj(&self, uuid: &str) -> Option<u64> {
        self.0.energy_mj(uuid)
    }

    fn draw_mw(&self, uuid: &str) -> Option<u32> {
        self.0.draw_mw(uuid)
    }

    fn boot(&self) -> Option<String> {
        None
    }
}

#[test]
fn a_power_cut_after_any_step_is_restored() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut cuts = 0;
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let cards = cards_at(folder.path(), FOUND_MW, "");
        let fuse = Fuse(Arc::new(AtomicI64::new(steps)));
        let fused = Arc::new(Fused(cards, fuse.clone()));
        let journal = Box::new(Fused(journal_at(folder.path()), fuse));
        let keeper = Mutex::new(Keeper::open(fused, journal).unwrap());
        let whole = std::panic::catch_unwind(|| {
            let mut keeper = keeper.lock().unwrap();
            for want_mw in [300_000, 225_000, 400_000, 449_500, 200_500] {
                keeper.hold(CARD, want_mw).unwrap();
            }
            assert!(matches!(keeper.release(CARD), Ok(Released::Restored { .. })));
            keeper.hold(CARD, 250_000).unwrap();
        });
        cuts += i32::from(whole.is_err());
        let mut next = keeper_at(folder.path());
        for (_, released) in next.release_all() {
            assert!(!matches!(released.unwrap(), Released::Theirs { .. }), "cut after {steps}");
        }
        let limit_mw = limit_at(folder.path());
        assert!(limit_mw.abs_diff(FOUND_MW) < 1000, "cut after {steps} steps: {limit_mw}");
        assert_eq!(keeper_at(folder.path()).changed().count(), 0);
        if whole.is_ok() {
            break;
        }
    }
    let _ = std::panic::take_hook();
    // Every change is three steps of the journal or the card at least, each cut before and after.
    assert!(cuts > 30, "{cuts}");
}

/// Runs as a process of its own, see `kills_at_random_moments_are_restored`.
#[test]
#[ignore = "it changes limits until it is killed"]
fn child_that_changes_limits_until_it_is_killed() {
    let Some(folder) = std::env::var_os("NEURINO_TEST_POWER_FOLDER") else { return };
    let mut keeper = keeper_at(Path::new(&folder));
    keeper.release_all();
    println!("ready");
    loop {
        let watts = rand::rng().random_range(100..600);
        keeper.hold(CARD, watts * 1000).unwrap();
        if watts % 5 == 0 {
            keeper.release(CARD).unwrap();
        }
    }
}

#[test]
fn kills_at_random_moments_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    cards_at(folder.path(), FOUND_MW, "");
    let mut changed = 0;
    for _ in 0..60 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_changes_limits_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env("NEURINO_TEST_POWER_FOLDER", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let ready = std::io::BufRead::lines(out).any(|line| line.unwrap().contains("ready"));
        assert!(ready, "the child is under way");
        std::thread::sleep(Duration::from_micros(rand::rng().random_range(0..20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        changed += u32::from(limit_at(folder.path()) != FOUND_MW);
        // Every third time the program itself restores at its next start.
        if rand::rng().random_range(0..3) > 0 {
            for (_, released) in keeper_at(folder.path()).release_all() {
                released.unwrap();
            }
            assert_eq!(limit_at(folder.path()), FOUND_MW);
        }
    }
    keeper_at(folder.path()).release_all();
    assert_eq!(limit_at(folder.path()), FOUND_MW);
    assert!(changed > 5, "the kills hit changes: {changed}");
}

#[test]
fn what_somebody_else_set_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let cards = cards_at(folder.path(), FOUND_MW, "");
    let mut keeper = keeper_at(folder.path());
    assert_eq!(keeper.hold(CARD, 300_000).unwrap(), Held::Here { limit_mw: 300_000 });
    cards.set_limit_mw(CARD, 350_000).unwrap();
    // While it is held …
    for want_mw in [300_000, 250_000] {
        assert_eq!(keeper.hold(CARD, want_mw).unwrap(), Held::Theirs { limit_mw: 350_000 });
    }
    // … unless the person chooses anew: then theirs is what comes back.
    keeper.insist(CARD);
    assert_eq!(keeper.hold(CARD, 250_000).unwrap(), Held::Here { limit_mw: 250_000 });
    assert_eq!(keeper.release(CARD).unwrap(), Released::Restored { limit_mw: 350_000 });
    assert_eq!(keeper.release(CARD).unwrap(), Released::Nothing);
    assert_eq!(limit_at(folder.path()), 350_000);
    // … and between a crash and the next start. What was found is what they set.
    assert_eq!(keeper.hold(CARD, 200_000).unwrap(), Held::Here { limit_mw: 200_000 });
    drop(keeper);
    cards.set_limit_mw(CARD, 275_000).unwrap();
    let mut next = keeper_at(folder.path());
    assert_eq!(next.release(CARD).unwrap(), Released::Theirs { limit_mw: 275_000 });
    assert_eq!(limit_at(folder.path()), 275_000);
    assert_eq!(next.changed().count(), 0);
}

#[test]
fn refusals_change_nothing_and_leave_no_record() {
    let folder = tempfile::tempdir().unwrap();
    cards_at(folder.path(), FOUND_MW, "");
    let mut keeper = keeper_at(folder.path());
    assert!(keeper.hold(CARD, 50_000).is_err(), "below what the card allows");
    let forbidden = std::fs::read_to_string(folder.path().join("cards.json")).unwrap();
    let forbidden = forbidden.replace("\"may_set\":true", "\"may_set\":false");
    std::fs::write(folder.path().join("cards.json"), forbidden).unwrap();
    let error = keeper.hold(CARD, 300_000).unwrap_err().to_string();
    assert!(error.contains("administrator"), "{error}");
    assert_eq!((keeper.changed().count(), limit_at(folder.path())), (0, FOUND_MW));
    assert!(!folder.path().join("limits.json").exists());
    // A limit that is there anyway needs no record.
    assert_eq!(keeper.hold(CARD, FOUND_MW).unwrap(), Held::Here { limit_mw: FOUND_MW });
    assert_eq!(keeper.changed().count(), 0);
    // Without a journal nothing is changed.
    let mut blind = Keeper::open(
        cards_at(folder.path(), FOUND_MW, ""),
        Box::new(FileJournal::new(folder.path().join("no/limits.json"))),
    )
    .unwrap();
    assert!(blind.hold(CARD, 300_000).is_err());
    assert_eq!(limit_at(folder.path()), FOUND_MW);
}

#[test]
fn a_card_that_is_away_is_restored_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    cards_at(folder.path(), FOUND_MW, "");
    let mut keeper = keeper_at(folder.path());
    keeper.hold(CARD, 300_000).unwrap();
    cards_at(folder.path(), 300_000, r#","lost":true"#);
    assert!(keeper.release(CARD).is_err());
    assert!(keeper.release_all()[0].1.is_err());
    assert_eq!(keeper.changed().count(), 1, "it stays on record");
    cards_at(folder.path(), 300_000, "");
    assert_eq!(keeper.release(CARD).unwrap(), Released::Restored { limit_mw: FOUND_MW });
    assert_eq!(limit_at(folder.path()), FOUND_MW);
}
