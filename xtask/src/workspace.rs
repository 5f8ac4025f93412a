//! Where the workspace and its build are, and which engines this machine can use.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cuda;
use crate::shell::{Cmd, say};

/// The engines that a build contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engines {
    /// The CPU engine only.
    Cpu,
    /// Both; the program chooses at run time.
    CpuAndCuda,
}

/// The checkout and its target directory.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, wherever the user keeps it.
    pub(crate) target: PathBuf,
    /// What to build.
    pub(crate) engines: Engines,
    metadata: Value,
}

impl Workspace {
    /// Finds the workspace; `engines` overrides what the machine suggests.
    pub(crate) fn discover(engines: Option<Engines>) -> Result<Self> {
        let start = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(std::env::current_dir, |dir| Ok(PathBuf::from(dir)))?;
        let text = Cmd::new(&start, "cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .output()?;
        let metadata: Value =
            serde_json::from_str(&text).context("`cargo metadata` gave no JSON")?;
        let path = |key: &str| -> Result<PathBuf> {
            let text = metadata[key].as_str().with_context(|| format!("metadata lacks `{key}`"))?;
            Ok(PathBuf::from(text))
        };
        let (root, target) = (path("workspace_root")?, path("target_directory")?);
        let engines = match engines {
            Some(engines) => engines,
            None => match cuda::driver() {
                Some(sign) => {
                    say(format!("NVIDIA driver found ({sign}): building the CUDA engine too"));
                    Engines::CpuAndCuda
                }
                None => Engines::Cpu,
            },
        };
        Ok(Self { root, target, engines, metadata })
    }

    /// The members as `cargo metadata` lists them.
    pub(crate) fn packages(&self) -> &[Value] {
        self.metadata["packages"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Where xtask keeps what it fetched or made, apart from cargo's own files.
    pub(crate) fn kept(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// A cargo command in the workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Cmd {
        let cmd = Cmd::new(&self.root, "cargo").arg(subcommand);
        // A relative value would mean another place here than where the user typed the command.
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(given) if Path::new(&given).is_relative() => {
                cmd.env("CARGO_TARGET_DIR", &self.target)
            }
            _ => cmd,
        }
    }

    /// A cargo command over every member in the one profile, with this machine's engines.
    ///
    /// Every build and test uses this same selection: cargo unifies features over what is
    /// selected, and another selection (`-p neurino`) would compile dependencies a second time.
    pub(crate) fn cargo_all(&self, subcommand: &str) -> Cmd {
        let cmd = self.cargo(subcommand).args(["--release", "--workspace"]);
        match self.engines {
            Engines::Cpu => cmd,
            Engines::CpuAndCuda => self.with_cuda(cmd),
        }
    }

    /// The command with the CUDA engine, its LLVM at hand.
    pub(crate) fn with_cuda(&self, cmd: Cmd) -> Cmd {
        cmd.args(["--features", "neurino/cuda"])
            .env("XDG_DATA_HOME", cuda::llvm_data_home(&self.target))
    }

    /// The program that [`Self::cargo_all`] builds.
    pub(crate) fn program(&self) -> PathBuf {
        self.target.join("release").join(program_name())
    }

    /// A path inside the checkout.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }
}

/// The file name of the program on this system.
pub(crate) fn program_name() -> String {
    format!("neurino{}", std::env::consts::EXE_SUFFIX)
}
