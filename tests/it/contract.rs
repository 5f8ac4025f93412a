//! Schemathesis against the real program: it reads `/openapi.json` and asks everything that the
//! document allows, and much that it does not. No answer may be a fault of the server, and each must
//! be one that the document tells of.
//!
//! `cargo xtask test clients` fetches Schemathesis and says where it is; without it these tests are
//! skipped.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::program::{Server, command, home_with_model};

/// Folder of Schemathesis' packages.
const PACKAGES: &str = "NEURINO_TEST_CONTRACT_PACKAGES";
/// Longest run, in minutes.
const RUN_MINUTES_MAX: u64 = 10;

/// What is held against every answer. Left out is that whatever the document allows is accepted (a
/// field may be right and its model unknown), and that whatever it does not is refused (it counts
/// headers that the document does not tell of).
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method,ignored_auth";

fn schemathesis() -> Option<Command> {
    let Some(packages) = std::env::var_os(PACKAGES) else {
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: {PACKAGES} is not set; `cargo xtask test clients` sets it");
        }
        return None;
    };
    let mut command = Command::new("python3");
    command
        .args(["-B", "-m", "schemathesis.cli", "--config-file"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/schemathesis.toml"))
        .arg("run")
        .env("PYTHONPATH", packages)
        .kill_on_drop(true);
    Some(command)
}

/// Runs it on the document at `origin`. It says itself what it found.
async fn answers_keep_to_the_document(mut command: Command, origin: &str, token: &str) {
    command
        .arg(format!("{origin}/openapi.json"))
        .args(["--checks", CHECKS, "--max-examples", "60", "--seed", "7"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        // A job that is done takes its time; an answer that never comes is a fault.
        .args(["--request-timeout", "60", "--suppress-health-check", "all", "--no-color"])
        // A WebSocket is no request and answer. What it warns of is that ids are guessed.
        .args(["--exclude-path", "/v1/node/link", "--warnings", "off"])
        // It keeps examples of what failed beside where it runs.
        .current_dir(std::env::temp_dir());
    let run = tokio::time::timeout(Duration::from_mins(RUN_MINUTES_MAX), command.status());
    let status = run.await.expect("the run ends").unwrap();
    assert!(status.success(), "every answer keeps to the document; see above");
}

#[tokio::test]
async fn the_gateway_keeps_to_its_document() {
    let Some(schemathesis) = schemathesis() else { return };
    let Some(home) = home_with_model() else { return };
    let mut program = command(home.path());
    program.args(["practice", "--serve", "--json", "--port", "0"]);
    let mut server = Server::start(program).await;
    let said = |field: &str| server.ready[field].as_str().unwrap().to_owned();
    let (url, key) = (said("gateway_url"), said("api_key"));
    let origin = url.trim_end_matches('/').trim_end_matches("/v1");
    answers_keep_to_the_document(schemathesis, origin, &key).await;
    server.kill().await;
}

#[tokio::test]
async fn the_administration_keeps_to_its_document() {
    let Some(schemathesis) = schemathesis() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut program = command(home.path());
    program.args(["coordinator", "--json", "--network", "test", "--rules", "practice1"]);
    program.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut server = Server::start(program).await;
    let origin = format!("http://{}", server.ready["admin"].as_str().unwrap());
    let token = std::fs::read_to_string(home.path().join("data/coordinator/admin.token")).unwrap();
    answers_keep_to_the_document(schemathesis, &origin, token.trim()).await;
    server.kill().await;
}
