//! The runs at a tenth of their size and for a few seconds. What depends on the machine is measured by
//! hand (`neurino-sim run`); here only what must hold on any machine, however busy, counts: nothing
//! accepted is lost, nothing is paid twice, the books balance.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod s3;

use neurino_sim::runs::{Ground, Run, Size, run};

async fn check(name: Run, size: Size) {
    check_on(name, size, &Ground::plain(env!("CARGO_BIN_EXE_neurino-sim").into())).await;
}

async fn check_on(name: Run, size: Size, ground: &Ground) {
    let report = run(name, size, ground).await.unwrap();
    assert!(report.invariants_hold(), "{report}");
    let accepted = report.figures.iter().find(|figure| figure.name == "jobs accepted");
    assert!(accepted.is_none_or(|figure| figure.value != "0"), "nothing happened:\n{report}");
}

#[tokio::test]
async fn idle_miners() {
    check(Run::L1, Size { part: 10, shorter: 100 }).await;
}

#[tokio::test]
async fn miners_that_poll() {
    check(Run::L2, Size { part: 10, shorter: 15 }).await;
}

#[tokio::test]
async fn steady_load() {
    check(Run::L3, Size { part: 10, shorter: 120 }).await;
}

#[tokio::test]
async fn heavy_load() {
    check(Run::L4, Size { part: 10, shorter: 20 }).await;
}

#[tokio::test]
async fn a_burst() {
    check(Run::L5, Size { part: 10, shorter: 1 }).await;
}

#[tokio::test]
async fn a_coordinator_that_is_killed() {
    check(Run::L6, Size { part: 20, shorter: 12 }).await;
}

#[tokio::test]
async fn miners_that_are_killed_or_late() {
    check(Run::L7, Size { part: 20, shorter: 60 }).await;
}

#[tokio::test]
async fn answers_that_are_read_as_they_grow() {
    check(Run::L9, Size { part: 10, shorter: 300 }).await;
}
