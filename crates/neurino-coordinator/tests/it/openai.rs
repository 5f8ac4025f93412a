//! The official OpenAI clients' cases of pictures, with a node that paints by rule.
//!
//! `cargo xtask test clients` fetches the clients and says where they are; without them these tests
//! are skipped. The same cases run against the real program in the workspace's own tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use neurino_coordinator::Limits;
use neurino_core::{ImageJob, Lease};
use neurino_protocol::node::{CoordinatorMessage, NodeMessage};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::node::{Identity, Node};
use crate::pictures::{PAINTER, asked, painter, picture, png_of, progress};
use crate::world::{MODEL, World, short_limits};

/// Folder of the Python client's packages.
const PYTHON_PACKAGES: &str = "NEURINO_TEST_PYTHON_PACKAGES";
/// Folder whose `node_modules` holds the Node client.
const NODE_PACKAGES: &str = "NEURINO_TEST_NODE_PACKAGES";
/// Longest run of one client.
const RUN_MAX: Duration = Duration::from_mins(5);
/// How long a step takes.
const STEP: Duration = Duration::from_millis(20);

fn packages(name: &str) -> Option<OsString> {
    let found = std::env::var_os(name);
    if found.is_none() {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: {name} is not set; `cargo xtask test clients` sets it");
        }
    }
    found
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/openai").join(name)
}

/// Paints a picture that depends on its seed and prompt, with a preview at each step.
async fn paint(identity: Identity, outbox: tokio::sync::mpsc::Sender<NodeMessage>, lease: Lease) {
    let job = asked(&lease).clone();
    let prompt: u64 = job.prompt.bytes().map(u64::from).sum();
    for step in 1..=job.steps {
        tokio::time::sleep(STEP).await;
        let preview = job.preview.then(|| png_of(8, 8, png::ColorType::Rgb, step as u8));
        if outbox.send(progress(&lease, step, preview)).await.is_err() {
            return;
        }
    }
    let painted = picture(&ImageJob { seed: job.seed.wrapping_add(prompt), ..job });
    let submission = identity.submission(&lease, painted);
    let _ = outbox.send(NodeMessage::Submit(submission)).await;
}

async fn work(mut node: Node) {
    while let Some(message) = node.session.messages.recv().await {
        if let CoordinatorMessage::Assign(lease) = message {
            let (identity, outbox) = (node.identity.clone(), node.session.outbox.clone());
            tokio::spawn(paint(identity, outbox, lease));
        }
    }
}

/// Runs a client's cases against a gateway of its own. They say themselves what failed.
async fn cases_pass(mut client: Command, cases: &[&str]) {
    // The node says nothing while the client starts.
    let world = World::with(Limits { silence_ms: 600_000, ..short_limits() }).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let (coordinator, stopping) = (world.coordinator.clone(), stop.clone());
    let server = tokio::spawn(async move { coordinator.serve(listener, stopping).await });
    let working = tokio::spawn(work(painter(&world.coordinator, 4).await));
    client
        .args(cases)
        .env("NEURINO_BASE_URL", url)
        .env("NEURINO_API_KEY", &world.api_key)
        .env("NEURINO_MODEL", MODEL)
        .env("NEURINO_IMAGE_MODEL", PAINTER)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let status = tokio::time::timeout(RUN_MAX, client.status()).await.expect("the cases end");
    assert!(status.unwrap().success(), "the client's cases pass; see above");
    stop.cancel();
    server.await.unwrap().unwrap();
    working.abort();
    world.assert_books_hold().await;
}

#[tokio::test]
async fn python_client_gets_pictures() {
    let Some(packages) = packages(PYTHON_PACKAGES) else { return };
    let mut client = Command::new("python3");
    client.arg("-B").arg(script("client.py")).env("PYTHONPATH", packages);
    let cases = [
        "image_answer",
        "image_url",
        "image_several",
        "image_stream",
        "image_async",
        "image_errors",
        "image_closed",
    ];
    cases_pass(client, &cases).await;
}

#[tokio::test]
async fn node_client_gets_pictures() {
    let Some(packages) = packages(NODE_PACKAGES) else { return };
    let mut client = Command::new("node");
    client.arg(script("client.mjs")).env("NEURINO_NODE_PACKAGES", packages);
    let cases = ["image_answer", "image_url", "image_stream", "image_errors", "image_closed"];
    cases_pass(client, &cases).await;
}
