//! `neurino engine`: the engine's own process.

use std::process::ExitCode;

use anyhow::Context as _;
use neurino_config::DeviceSetting;
use neurino_engine::DeviceChoice;

use crate::args::EngineArgs;

pub(crate) fn run(args: &EngineArgs) -> anyhow::Result<ExitCode> {
    let device: DeviceSetting = args.device.parse().context("--device")?;
    Ok(neurino_engine::child::run_child(choice(device)))
}

/// The engine's word for a setting.
pub(crate) fn choice(device: DeviceSetting) -> DeviceChoice {
    match device {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    }
}
