//! The web UI: its packages and its build, each done again only when what it depends on changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::shell::{Cmd, on_path, say};
use crate::workspace::Workspace;

/// Below `ui/`, what a build reads beside `src/`.
const BUILD_FILES: [&str; 6] = [
    "index.html",
    "package.json",
    "package-lock.json",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];

/// A script of `ui/package.json`.
pub(crate) fn script(workspace: &Workspace, name: &str) -> Cmd {
    Cmd::new(&workspace.root, npm()).args(["--prefix", "ui", "run", "--silent", name])
}

/// Installs the UI's packages unless the lock file's are there.
pub(crate) fn install_packages(workspace: &Workspace) -> Result<()> {
    let ui = workspace.path("ui");
    if !on_path("node") || !on_path("npm") {
        bail!(
            "Node.js 20.19 or newer with npm is needed for the window's pages, and is not on PATH"
        );
    }
    let wanted = hash(&ui, &[ui.join("package.json"), ui.join("package-lock.json")])?;
    let stamp = ui.join("node_modules/.xtask-packages");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    say("installing the web UI's packages (npm ci)");
    Cmd::new(&ui, npm()).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).run()?;
    fs::write(&stamp, wanted)?;
    Ok(())
}

/// Builds `ui/dist` unless it was made from these very sources.
///
/// The window's crate embeds the files, so an unneeded build here would recompile it too.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    install_packages(workspace)?;
    let ui = workspace.path("ui");
    let mut sources: Vec<PathBuf> = BUILD_FILES.iter().map(|name| ui.join(name)).collect();
    for folder in ["src", "public"] {
        collect(&ui.join(folder), &mut sources)?;
    }
    sources.retain(|path| path.is_file());
    sources.sort();
    let wanted = hash(&ui, &sources)?;
    // Not in dist/: everything there becomes part of the program.
    let stamp = ui.join("node_modules/.xtask-dist");
    let built = ui.join("dist/index.html").is_file();
    if built && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    say("building the web UI");
    script(workspace, "build").run()?;
    fs::write(&stamp, wanted)?;
    Ok(())
}

pub(crate) fn npm() -> &'static str {
    if cfg!(windows) { "npm.cmd" } else { "npm" }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A digest over names and contents.
pub(crate) fn hash(base: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(base).unwrap_or(path);
        hash.update(name.to_string_lossy().as_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_names_contents_and_boundaries() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("xtask-ui-hash-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let (a, b) = (dir.join("a"), dir.join("b"));
        fs::write(&a, "xy")?;
        fs::write(&b, "z")?;
        let first = hash(&dir, &[a.clone(), b.clone()])?;
        assert_eq!(first, hash(&dir, &[a.clone(), b.clone()])?);
        fs::write(&a, "x")?;
        fs::write(&b, "yz")?;
        assert_ne!(first, hash(&dir, &[a, b])?);
        fs::remove_dir_all(&dir)?;
        Ok(())
    }
}
