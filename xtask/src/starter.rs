//! The starter model: small, real, and the first thing a new miner serves.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell::{Cmd, say};
use crate::workspace::Workspace;

/// Its id in the catalogue.
pub(crate) const STARTER: &str = "smollm2-135m-instruct";

/// Makes sure the model is in the user's own library; prints progress.
pub(crate) fn for_the_user(program: &Path) -> Result<()> {
    get(program).run()
}

/// Makes sure the model is in a library below the target directory, apart from the user's, and
/// returns its verified file.
pub(crate) fn kept(workspace: &Workspace, program: &Path) -> Result<PathBuf> {
    let home = workspace.kept().join("home");
    if !home.join("models").join(STARTER).is_dir() {
        say("fetching the starter model for the tests (93 MB)");
    }
    let answer = get(program).arg("--json").env("NEURINO_HOME", &home).output()?;
    let answer: Value = serde_json::from_str(&answer)?;
    let path = answer["ready"].as_str();
    Ok(path.with_context(|| format!("`neurino models get` answered {answer}"))?.into())
}

/// The model's file if [`kept`] has fetched it already, or if the environment names one.
pub(crate) fn if_here(workspace: &Workspace) -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("NEURINO_TEST_STARTER_MODEL") {
        return Some(given.into());
    }
    let folder = workspace.kept().join("home").join("models").join(STARTER);
    let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    files.filter(|path| path.is_file()).find(|path| path.extension().is_some_and(|e| e == "gguf"))
}

fn get(program: &Path) -> Cmd {
    Cmd::new(Path::new("."), program).args(["models", "get", STARTER])
}
