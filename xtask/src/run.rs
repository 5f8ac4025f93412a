//! `cargo xtask run`: from a fresh machine to a mining window (or terminal) with one command.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::shell::{Cmd, say};
use crate::system::{self, Purpose};
use crate::workspace::{Engines, Workspace};
use crate::{cuda, resources, starter, ui};

/// Installs what a build, or the tests too, need on this machine.
pub(crate) fn set_up(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    system::install_missing(workspace, purpose)?;
    ui::install_packages(workspace)?;
    if workspace.engines == Engines::CpuAndCuda {
        cuda::prepare(&workspace.target, &workspace.path("Cargo.lock"))?;
    }
    Ok(())
}

/// Builds every program of the workspace.
pub(crate) fn build(workspace: &Workspace) -> Cmd {
    workspace.cargo_all("build").arg("--bins")
}

/// Sets up, builds, and turns into the program.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    set_up(workspace, Purpose::Run)?;
    ui::build(workspace)?;
    build(workspace).run()?;
    resources::beside_the_program(workspace)?;
    starter::for_the_user(&workspace.program())?;
    let mut program = Cmd::new(&std::env::current_dir()?, workspace.program());
    if workspace.engines == Engines::CpuAndCuda {
        program = program.env("CUDA_PATH", cuda::cuda_path(&workspace.target));
    }
    if has_display() {
        say("opening the window");
    } else {
        say("no display here: practising in the terminal");
        program = program.arg("practice");
    }
    become_program(&program.args(args))
}

/// Whether a window could be shown.
fn has_display() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(target_os = "linux") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Replaces this process, so that signals and the terminal belong to the program alone.
#[cfg(unix)]
fn become_program(program: &Cmd) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    Err(program.to_std().exec()).with_context(|| format!("could not start `{program}`"))
}

#[cfg(not(unix))]
fn become_program(program: &Cmd) -> Result<ExitCode> {
    let status =
        program.to_std().status().with_context(|| format!("could not start `{program}`"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
