//! The official OpenAI clients for the tests of the gateway, what original miners use, and a fuzzer:
//! pinned, and kept in the target folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{Cmd, say};
use crate::ui;
use crate::workspace::Workspace;

/// Where the pinned versions are listed and the cases are.
const SOURCE: &str = "tests/openai";
/// The same for miners of the original protocol.
const MINERS: &str = "tests/original";
/// The same for the original miner's own programs, which are run only where somebody names them.
const UNMODIFIED: &str = "tests/original/unmodified";
/// Tells the tests where those programs' packages are.
pub(crate) const UNMODIFIED_PACKAGES: &str = "NEURINO_TEST_UNMODIFIED_PACKAGES";
/// Names a checkout of the original miner.
const CHECKOUT: &str = "NEURINO_ORIGINAL_MINER";
/// The same for the fuzzer that reads the OpenAPI documents.
const CONTRACT: &str = "tests/contract";

/// Where the clients are.
pub(crate) struct Clients {
    /// Folder of the Python client's packages.
    pub(crate) python: PathBuf,
    /// Folder whose `node_modules` holds the Node client.
    pub(crate) node: PathBuf,
    /// Folder of the packages that miners of the original protocol use.
    pub(crate) miners: PathBuf,
    /// Folder of what the original miner's own programs import, where somebody names a checkout of them.
    pub(crate) unmodified: Option<PathBuf>,
    /// Folder of Schemathesis' packages.
    pub(crate) contract: PathBuf,
}

/// The clients, fetched with pip and npm unless the pinned ones are there. Both programs use the
/// registries that this machine is configured for.
///
/// # Errors
/// When pip or npm fails.
pub(crate) fn kept(workspace: &Workspace) -> Result<Clients> {
    let (source, kept) = (workspace.path(SOURCE), workspace.kept().join("openai-clients"));
    let clients = Clients {
        python: kept.join("python"),
        node: kept.join("node"),
        miners: kept.join("miners"),
        unmodified: std::env::var_os(CHECKOUT).map(|_| kept.join("unmodified")),
        contract: kept.join("contract"),
    };
    install(&source, &["requirements.txt"], &clients.python, pip)?;
    install(&workspace.path(MINERS), &["requirements.txt"], &clients.miners, pip)?;
    if let Some(folder) = &clients.unmodified {
        install(&workspace.path(UNMODIFIED), &["requirements.txt"], folder, pip)?;
    }
    install(&workspace.path(CONTRACT), &["requirements.txt"], &clients.contract, pip)?;
    install(&source, &["package.json", "package-lock.json", ".npmrc"], &clients.node, |dir| {
        Cmd::new(dir, ui::npm()).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
    })?;
    Ok(clients)
}

/// Unpacks what a folder's `requirements.txt` lists into the folder.
pub(crate) fn pip(dir: &Path) -> Cmd {
    Cmd::new(dir, "python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        // Everything is listed, so nothing is resolved; and nothing is built here.
        .args(["--no-deps", "--only-binary=:all:", "--no-warn-conflicts"])
        .args(["--root-user-action=ignore", "--target", ".", "-r", "requirements.txt"])
}

/// Fills a folder by a command that reads these files, unless it was filled from the same ones.
pub(crate) fn install(
    source: &Path,
    files: &[&str],
    folder: &Path,
    command: impl FnOnce(&Path) -> Cmd,
) -> Result<()> {
    let paths: Vec<PathBuf> = files.iter().map(|file| source.join(file)).collect();
    let wanted = ui::hash(source, &paths)?;
    let stamp = folder.join(".xtask-packages");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    for (file, path) in files.iter().zip(&paths) {
        fs::copy(path, folder.join(file))?;
    }
    say(format!("fetching what {} lists", paths[0].display()));
    command(folder).run()?;
    fs::write(&stamp, wanted)?;
    Ok(())
}
