//! The network's books and pictures on real servers, and its gateways over a real one: the pinned packages of
//! PostgreSQL, of an S3 server and of NATS, kept in the target folder, and the tests that run on them. The
//! simulator starts the servers, on loopback and in folders of their own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::clients::{install, pip};
use crate::shell::Cmd;
use crate::workspace::Workspace;

/// Where the pinned version is listed.
const SOURCE: &str = "tests/stores";

/// Fetches the servers unless they are there, builds the tests, and returns the commands that run them.
///
/// # Errors
/// When pip or the build fails.
pub(crate) fn commands(workspace: &Workspace) -> Result<Vec<Cmd>> {
    let packages = workspace.kept().join("stores");
    install(&workspace.path(SOURCE), &["requirements.txt"], &packages, pip)?;
    let build = workspace.cargo_all("test").args(["--no-run", "--message-format=json"]);
    let built = build.args(["--lib", "--test", "it"]).output()?;
    let messages: Vec<Value> =
        built.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |package: &str, kind: &str| program_of(&messages, package, kind);
    // One server for many databases, each of a test.
    let simulator = workspace.target.join("release").join("neurino-sim");
    let on_server = |program: PathBuf| {
        let dir = workspace.path("crates/neurino-coordinator");
        let server = Cmd::new(&dir, &simulator).arg("with-postgres").arg(&packages);
        server.arg("--").arg(program)
    };
    let books = on_server(program("neurino-coordinator", "lib")?);
    let schedules = books.clone().env("NEURINO_SCHEDULES", "40");
    let gateways = books.clone();
    let network = on_server(program("neurino-coordinator", "test")?);
    let on_s3 = |program: PathBuf| {
        let dir = workspace.path("crates/neurino-coordinator");
        Cmd::new(&dir, &simulator).arg("with-s3").arg(&packages).arg("--").arg(program)
    };
    let files = on_s3(program("neurino-coordinator", "lib")?);
    let pictures = on_s3(program("neurino-coordinator", "test")?);
    let processes =
        Cmd::new(&workspace.path("crates/neurino-sim"), program("neurino-sim", "test")?);
    Ok(vec![
        books.args(["store::contract::", "--include-ignored"]),
        schedules.arg("schedules::no_schedule"),
        network.clone(),
        network.args(["fabric::", "--include-ignored"]),
        gateways.args(["fabric::", "--include-ignored"]),
        files.args(["blobs::", "--include-ignored"]),
        pictures.args(["bucket::", "--include-ignored"]),
        processes.env("NEURINO_TEST_POSTGRES", &packages).env("NEURINO_TEST_S3", &packages).args([
            "postgres::",
            "s3::",
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ]),
    ])
}

/// The test program that cargo built of a package's library or of its tests.
fn program_of(messages: &[Value], package: &str, kind: &str) -> Result<PathBuf> {
    let path = messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| {
            message["profile"]["test"] == true && message["target"]["kind"][0] == kind
        })
        .filter(|message| {
            let manifest = message["manifest_path"].as_str().unwrap_or_default();
            manifest.ends_with(&format!("/{package}/Cargo.toml"))
        })
        .find_map(|message| message["executable"].as_str());
    Ok(path.with_context(|| format!("cargo built no {kind} of {package}"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_program_is_found() -> Result<()> {
        let message = |test: bool, kind: &str, package: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "profile": { "test": test },
                "target": { "kind": [kind] }, "executable": format!("/t/{package}-{kind}"),
                "manifest_path": format!("/w/crates/{package}/Cargo.toml"),
            })
        };
        let messages =
            [message(false, "lib", "a"), message(true, "test", "b"), message(true, "lib", "a")];
        assert_eq!(program_of(&messages, "a", "lib")?, PathBuf::from("/t/a-lib"));
        assert_eq!(program_of(&messages, "b", "test")?, PathBuf::from("/t/b-test"));
        assert!(program_of(&messages, "a", "test").is_err());
        Ok(())
    }
}
