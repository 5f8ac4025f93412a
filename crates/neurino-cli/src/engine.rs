//! `neurino engine`: the engine's own process.

use std::process::ExitCode;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    neurino_engine::child::run_child()?;
    Ok(ExitCode::SUCCESS)
}
