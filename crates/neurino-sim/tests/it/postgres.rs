//! The same on PostgreSQL, whose server each test starts, kills and ends itself.

use std::path::PathBuf;
use std::time::Duration;

use neurino_coordinator::books;
use neurino_sim::child::{Process, Terms};
use neurino_sim::postgres::Server;
use neurino_sim::runs::{Ground, Run, Size};

use crate::check_on;

/// Names the folder of PostgreSQL's package.
const PACKAGES: &str = "NEURINO_TEST_POSTGRES";

fn packages() -> PathBuf {
    std::env::var_os(PACKAGES).expect("`cargo xtask test stores` fetches PostgreSQL").into()
}

fn ground() -> Ground {
    let plain = Ground::plain(env!("CARGO_BIN_EXE_neurino-sim").into());
    Ground { postgres: Some(packages()), ..plain }
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test stores` fetches them"]
async fn a_database_and_then_a_coordinator_that_are_killed() {
    check_on(Run::L8, Size { part: 20, shorter: 8 }, &ground()).await;
}

#[tokio::test]
#[ignore = "needs NATS: cargo xtask test stores"]
async fn nats_a_gateway_and_then_a_coordinator_that_are_killed() {
    check_on(Run::L8Gateways, Size { part: 20, shorter: 6 }, &ground()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test stores` fetches them"]
async fn a_coordinator_that_is_killed_again_and_again() {
    check_on(Run::L6, Size { part: 20, shorter: 12 }, &ground()).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL's programs; `cargo xtask test stores` fetches them"]
async fn a_coordinator_that_slept_through_its_succession_steps_down() {
    let server = Server::start(&packages(), &[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let database = Some(format!("{}/postgres", server.url()));
    let terms = Terms { database, ..Terms::usual(5_000) };
    let program = ground().program;
    let mut first = Process::start(&program, folder.path(), terms).await.unwrap();
    let standby = first.stand_by(0).unwrap();
    let mut standby = Box::pin(standby.listens());
    let early = tokio::time::timeout(Duration::from_secs(9), &mut standby).await;
    assert!(early.is_err(), "the first one renews its ownership, and nobody else routes");
    first.freeze(true).await.unwrap();
    let second = standby.await.unwrap();
    first.freeze(false).await.unwrap();
    let well = first.ended(Duration::from_secs(15)).await.unwrap();
    assert!(!well, "it says that another one took over");
    assert!(books::ledger_check(&second.database().unwrap()).await.unwrap().holds());
}
