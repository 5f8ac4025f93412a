//! `neurino engine`: the engine's own process.

use std::process::ExitCode;

use neurino_config::DeviceSetting;
use neurino_engine::DeviceChoice;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    neurino_engine::child::run_child()?;
    Ok(ExitCode::SUCCESS)
}

/// The engine's word for a setting.
pub(crate) fn choice(device: DeviceSetting) -> DeviceChoice {
    match device {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    }
}
