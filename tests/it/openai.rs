//! The official OpenAI clients against the real program with the starter model.
//!
//! `cargo xtask test clients` fetches the clients and says where they are; without them these tests
//! are skipped.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::program::{Server, command, home_with_model};

/// Folder of the Python client's packages.
const PYTHON_PACKAGES: &str = "NEURINO_TEST_PYTHON_PACKAGES";
/// Folder whose `node_modules` holds the Node client.
const NODE_PACKAGES: &str = "NEURINO_TEST_NODE_PACKAGES";
/// The image model that the program must have, by its id.
const IMAGE_MODEL: &str = "NEURINO_TEST_IMAGE_MODEL";
/// Longest run of one client, in minutes.
const RUN_MINUTES_MAX: u64 = 10;

/// What an environment variable names, or `None` (said on stderr) where it is not set.
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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("openai").join(name)
}

/// Runs a client's cases against a practice network of its own. They say themselves what failed.
async fn cases_pass(mut client: Command) {
    let Some(home) = home_with_model() else { return };
    let mut program = command(home.path());
    program.args(["practice", "--serve", "--json", "--port", "0"]);
    let mut server = Server::start(program).await;
    let said = |field: &str| server.ready[field].as_str().unwrap().to_owned();
    client
        .env("NEURINO_BASE_URL", said("gateway_url"))
        .env("NEURINO_API_KEY", said("api_key"))
        .env("NEURINO_MODEL", "smollm2-135m-instruct")
        .kill_on_drop(true);
    if let Some(model) = std::env::var_os(IMAGE_MODEL) {
        // Demanded: without it the cases of pictures take what there is, and may be skipped.
        client.env("NEURINO_IMAGE_MODEL", model);
    }
    let run = tokio::time::timeout(Duration::from_mins(RUN_MINUTES_MAX), client.status());
    let status = run.await.expect("the cases end").unwrap();
    server.kill().await;
    assert!(status.success(), "the client's cases pass; see above");
}

#[tokio::test]
async fn python_client() {
    let Some(packages) = packages(PYTHON_PACKAGES) else { return };
    let mut client = Command::new("python3");
    client.arg("-B").arg(script("client.py")).env("PYTHONPATH", packages);
    cases_pass(client).await;
}

#[tokio::test]
async fn node_client() {
    let Some(packages) = packages(NODE_PACKAGES) else { return };
    let mut client = Command::new("node");
    client.arg(script("client.mjs")).env("NEURINO_NODE_PACKAGES", packages);
    cases_pass(client).await;
}
