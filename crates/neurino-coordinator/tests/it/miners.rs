//! Miners of the original protocol in Python, with the libraries that the original uses.
//!
//! `cargo xtask test clients` fetches the libraries and says where they are; without them these tests
//! are skipped. The cases are in tests/original/miner.py.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use neurino_coordinator::PayerId;
use neurino_core::{JobSpec, ModelId};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::pictures::job as picture_job;
use crate::world::{MODEL, World, short_limits, spec};

/// Folder of the Python packages.
const PACKAGES: &str = "NEURINO_TEST_MINER_PACKAGES";
const RUN_MAX: Duration = Duration::from_mins(5);
/// A model that nobody lists: its miner says what it makes.
const PAINTER: &str = "my-painter";

/// Runs a miner's cases against a coordinator that always has work.
async fn cases_pass(cases: &[&str], pictures: bool) {
    let Some(packages) = std::env::var_os(PACKAGES) else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: {PACKAGES} is not set; `cargo xtask test clients` sets it");
        }
        return;
    };
    let world = World::original(short_limits()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let asking = tokio::spawn(keep_asking(world.coordinator.clone(), pictures));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/original/miner.py");
    let mut miner = Command::new("python3");
    miner
        .arg("-B")
        .arg(script)
        .args(cases)
        .env("PYTHONPATH", packages)
        .env("NEURINO_BASE_URL", &url)
        .env("NEURINO_MODEL", MODEL)
        .env("NEURINO_IMAGE_MODEL", PAINTER)
        // What an unmodified miner is told apart from its configuration's URLs.
        .env("AWS_ENDPOINT_URL", &url)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let status = tokio::time::timeout(RUN_MAX, miner.status()).await.expect("the cases end");
    assert!(status.unwrap().success(), "the miner's cases pass; see above");
    asking.abort();
    stop.cancel();
    server.await.unwrap().unwrap();
    let check = world.coordinator.ledger_check().await.unwrap();
    assert!(check.holds() && check.receipts > 0, "{check:#?}");
}

/// Keeps two jobs waiting, and follows the texts.
async fn keep_asking(
    coordinator: std::sync::Arc<neurino_coordinator::Coordinator>,
    pictures: bool,
) {
    let picture = |seed| {
        let model = ModelId::new(PAINTER).unwrap();
        JobSpec::Image(neurino_core::ImageJob { model, ..picture_job(seed) })
    };
    let mut watches = Vec::new();
    for seed in 0.. {
        if coordinator.jobs_overview().queued < 2 {
            let asked = if pictures { picture(seed) } else { spec(MODEL, "hi") };
            // A picture is refused until a miner has said that it paints.
            if let Ok(job) = coordinator.submit_job(PayerId::local(), None, asked).await {
                watches.push(coordinator.watch_job(job).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_miners_are_served() {
    cases_pass(&["text", "stream"], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn picture_miners_are_served() {
    cases_pass(&["picture", "credentials", "signal"], true).await;
}
