//! What programs update themselves from: a package of the folder that holds a program, and the signed
//! list of a release's packages (ADR 18). The program itself does both, so that nothing is written
//! twice.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::shell::Cmd;
use crate::workspace::Workspace;

/// Packs the folder that holds a program; `maker` is a program of this machine.
pub(crate) fn folder_package(
    maker: &Path,
    folder: &Path,
    packages: &Path,
    name: &str,
) -> Result<PathBuf> {
    let package = packages.join(format!("{name}.zip"));
    Cmd::new(packages, maker).args(["update", "pack"]).args([folder, &package]).run()?;
    Ok(package)
}

/// Signs the list of the packages in a folder.
///
/// # Errors
/// Without a built program, a folder or a key.
pub(crate) fn sign(workspace: &Workspace, words: &[String]) -> Result<()> {
    let program = workspace.program();
    if !program.is_file() {
        bail!("build the program first (`cargo xtask run` or `cargo xtask dist`)");
    }
    if words.is_empty() {
        bail!("sign wants a folder and `--key FILE`; `neurino update sign --help` tells the rest");
    }
    Cmd::new(&workspace.root, &program).args(["update", "sign"]).args(words).run()
}
