//! `cargo xtask parity FOLDER`: the reference cases of a folder, run and measured.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::shell::Cmd;
use crate::workspace::{Engines, Workspace};
use crate::{cuda, starter};

/// The program that runs the cases; see `crates/neurino-parity`.
const PROGRAM: &str = "neurino-parity";

/// Builds the program and runs it where the user stands, with what the user wrote.
pub(crate) fn parity(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let asks_for_cuda = args.windows(2).any(|pair| {
        pair[0] == "--device" && pair[1].split(':').next().is_some_and(|kind| kind == "cuda")
    });
    if asks_for_cuda && workspace.engines == Engines::Cpu {
        bail!("no NVIDIA driver answers on this machine, so there is no card to hold to the cases");
    }
    if workspace.engines == Engines::CpuAndCuda {
        cuda::prepare(&workspace.target, &workspace.path("Cargo.lock"))?;
    }
    build(workspace).run()?;
    let here = std::env::current_dir().context("cannot tell which folder this is")?;
    let program = equipped(workspace, Cmd::new(&here, program_path(workspace))).args(args);
    let status =
        program.to_std().status().with_context(|| format!("could not start `{program}`"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the program.
pub(crate) fn build(workspace: &Workspace) -> Cmd {
    let build = workspace.cargo_all("build").args(["--bin", PROGRAM]);
    match workspace.engines {
        Engines::Cpu => build,
        Engines::CpuAndCuda => build.args(["--features", "neurino-parity/cuda"]),
    }
}

/// Runs this repository's own cases on a device.
pub(crate) fn own_cases(workspace: &Workspace, device: &str) -> Cmd {
    let program = Cmd::new(&workspace.root, program_path(workspace));
    equipped(workspace, program).args(["tests/fixtures", "--device", device])
}

fn program_path(workspace: &Workspace) -> PathBuf {
    workspace.target.join("release").join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX))
}

/// The program with what it needs of this machine.
fn equipped(workspace: &Workspace, program: Cmd) -> Cmd {
    let program = match starter::if_here(workspace) {
        Some(file) => program.arg("--starter-model").arg(file),
        None => program,
    };
    match workspace.engines {
        Engines::Cpu => program,
        Engines::CpuAndCuda => program.env("CUDA_PATH", cuda::cuda_path(&workspace.target)),
    }
}
