//! A newer version: offered on Home, put off, and put in place only when the running job has ended. It does
//! not come up, so that the one before is back.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use neurino_update::making::{self, Terms};
use neurino_update::{Version, release};
use serde_json::Value;

use crate::desk::{OWN_PROGRAM, in_the_window_among, program};
use crate::page::Page;

const SOON: Duration = Duration::from_secs(10);
/// A model is loaded and a job computed, on two cores that others may share.
const A_WHILE: Duration = Duration::from_mins(3);
/// Signs this test's releases and nothing else.
const SEED: [u8; 32] = [7; 32];
const NEWER: Version = Version::new(99, 0, 0);

#[test]
fn a_newer_version_waits_for_the_job_and_one_that_fails_goes_back() {
    in_the_window_among("update", with_a_release, async |page: Page| {
        look_for_it(&page).await;
        page.go_to("home").await;
        let offer = page.read("update-notice").await;
        assert!(offer.contains("99.0.0") && offer.contains("Fewer words."), "{offer}");
        page.picture("offered").await;

        // Put off: it is told no more, and nothing happens by itself while somebody looks.
        page.press("update-later").await;
        page.until("it is put off", SOON, async |page| page.find("update-notice").await.is_none())
            .await;
        page.press("start-button").await;
        page.until_state(&["working"], A_WHILE).await;
        let before = paid(&page);
        page.picture("put-off").await;

        // Asked for while jobs run: they are finished and paid first.
        page.go_to("settings").await;
        page.press("settings-install").await;
        page.go_to("home").await;
        page.until("it is waited for the job", SOON, async |page| {
            page.find("update-notice").await.is_none()
                || page.read("update-notice").await.contains("99.0.0")
        })
        .await;
        let tried = page.desk.home().join("../newer-was-started");
        let begin = Instant::now();
        while !tried.exists() {
            assert!(begin.elapsed() < A_WHILE, "it is put in place between two jobs");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let ended = outcomes(&page);
        assert!(ended.len() > before, "the job that ran was finished: {ended:?}");
        assert!(ended.iter().all(|one| one == "paid"), "and none was handed back: {ended:?}");

        // It ended at once, so the one before is in its place and runs.
        let own = page.desk.home().join("../program/neurino");
        let is_back = || {
            let same_size = fs::metadata(&own).ok().map(|of| of.len())
                == fs::metadata(program()).ok().map(|of| of.len());
            same_size && fs::read(&own).unwrap() == fs::read(program()).unwrap()
        };
        let begin = Instant::now();
        while page.desk.program().is_none() || !is_back() {
            assert!(begin.elapsed() < A_WHILE, "the version before is back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// A copy of the program, and a folder with a release of a newer one.
fn with_a_release(person: &Path) -> Vec<(&'static str, OsString)> {
    let at = |name: &str| person.join(name);
    fs::create_dir_all(at("program")).unwrap();
    fs::copy(program(), at("program/neurino")).unwrap();
    fs::create_dir_all(at("tree")).unwrap();
    fs::create_dir_all(at("releases")).unwrap();
    // It says its version, and when it is to run it leaves a trace and ends.
    let trace = at("newer-was-started");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo neurino {NEWER}; exit 0; }}\n\
         touch '{}'\nexit 1\n",
        trace.display()
    );
    fs::write(at("tree/neurino"), script).unwrap();
    fs::set_permissions(at("tree/neurino"), fs::Permissions::from_mode(0o755)).unwrap();
    let name = format!("neurino-{NEWER}-{}.zip", release::platform());
    making::pack(&at("tree"), &at("releases").join(name)).unwrap();
    let terms = Terms {
        version: NEWER,
        minimum: Version::new(0, 0, 0),
        expires: "2100-01-01T00:00:00Z".parse().unwrap(),
        notes: [("en".to_owned(), "Fewer words.".to_owned())].into(),
    };
    making::sign(&at("releases"), terms, &SEED).unwrap();
    let key = release::public_key(&SEED).unwrap();
    let key = key.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    vec![
        (OWN_PROGRAM, at("program/neurino").into()),
        ("NEURINO_UPDATE_SOURCE", at("releases").into()),
        ("NEURINO_UPDATE_KEY", key.into()),
    ]
}

/// Has the window look at once instead of in its time.
async fn look_for_it(page: &Page) {
    page.go_to("settings").await;
    page.press("settings-advanced").await;
    page.wait_for("update-check", SOON).await;
    page.press("update-check").await;
    page.until("it is found and fetched", A_WHILE, async |page| {
        page.find("settings-install").await.is_some()
    })
    .await;
}

/// How the jobs so far ended.
fn outcomes(page: &Page) -> Vec<String> {
    let file = page.desk.home().join("data/practice/jobs.jsonl");
    let jobs = fs::read_to_string(file).unwrap_or_default();
    let outcome =
        |line: &str| -> Value { serde_json::from_str::<Value>(line).unwrap()["outcome"].take() };
    jobs.lines().map(|line| outcome(line).as_str().unwrap().to_owned()).collect()
}

fn paid(page: &Page) -> usize {
    outcomes(page).iter().filter(|one| *one == "paid").count()
}
