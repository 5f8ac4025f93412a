//! What the program looks for in its resource folder (`neurino_config::Dirs::resources`): the weights
//! that are ours and that no registry has.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// Weights of the repository, below `models/weights/`, and where the catalogue looks for them below
/// the resource folder.
const OWN_WEIGHTS: [&str; 1] = ["neurino-toybox-64.safetensors"];

/// Copies our own weights to `folder`, unless they are there.
pub(crate) fn copy_own_weights(workspace: &Workspace, folder: &Path) -> Result<()> {
    for name in OWN_WEIGHTS {
        let (from, to) =
            (workspace.path("models/weights").join(name), folder.join("models").join(name));
        if same(&from, &to) {
            continue;
        }
        fs::create_dir_all(folder.join("models"))?;
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Puts the resources beside the program that was built, where it looks for them.
pub(crate) fn beside_the_program(workspace: &Workspace) -> Result<()> {
    let program = workspace.program();
    let folder = program.parent().context("the program's path has no folder")?;
    copy_own_weights(workspace, &folder.join("resources"))
}

fn same(from: &Path, to: &Path) -> bool {
    let facts = |path| fs::metadata(path).and_then(|m| Ok((m.len(), m.modified()?)));
    match (facts(from), facts(to)) {
        (Ok((size, changed)), Ok((there, copied))) => size == there && copied >= changed,
        _ => false,
    }
}
