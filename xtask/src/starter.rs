//! The starter model: small, real, and the first thing a new miner serves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::Cmd;
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
    get(program).env("NEURINO_HOME", &home).run()?;
    weights(&home.join("models")).with_context(|| {
        format!("`neurino models get {STARTER}` left no file in {}", home.display())
    })
}

fn get(program: &Path) -> Cmd {
    Cmd::new(Path::new("."), program).args(["models", "get", STARTER])
}

/// The first GGUF file at or below a folder.
fn weights(folder: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().find_map(|path| {
        if path.is_dir() {
            weights(path)
        } else {
            path.extension().is_some_and(|ext| ext == "gguf").then(|| path.clone())
        }
    })
}
