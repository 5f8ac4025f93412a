//! Which device computes, and what it is called.
//!
//! `Device::default()` is never asked: it takes CUDA wherever it was compiled in, driver or not,
//! and then panics. A card is taken only after the driver listed it.

use burn::tensor::Device;

use crate::api::{DeviceChoice, EngineError, EngineErrorCode};

/// The devices this build and this machine have, best first. The CPU is always among them.
pub fn available() -> Vec<DeviceChoice> {
    let cards = (0..).zip(cards()).map(|(index, _)| DeviceChoice::Cuda(index));
    cards.chain([DeviceChoice::Cpu]).collect()
}

/// A choice in words, for example `CPU (8 threads)`.
///
/// # Errors
/// `NoSuchDevice`.
pub fn describe(choice: DeviceChoice) -> Result<String, EngineError> {
    open(choice).map(|(_, name)| name)
}

/// The device of a choice, and its name.
///
/// # Errors
/// `NoSuchDevice`.
pub(crate) fn open(choice: DeviceChoice) -> Result<(Device, String), EngineError> {
    let mut cards = cards();
    let index = match choice {
        DeviceChoice::Cpu => return Ok(cpu()),
        DeviceChoice::Auto if cards.is_empty() => return Ok(cpu()),
        DeviceChoice::Auto => 0,
        DeviceChoice::Cuda(index) => index as usize,
    };
    if index >= cards.len() {
        let found = match cards.len() {
            _ if cfg!(not(feature = "cuda")) => "this build computes on the CPU only".into(),
            0 => "no NVIDIA card with a working driver was found".into(),
            n => format!("{n} were found"),
        };
        let message = format!("there is no NVIDIA card {index}: {found}");
        return Err(EngineError::new(EngineErrorCode::NoSuchDevice, message));
    }
    let card = cards.swap_remove(index);
    let name = card_name(&card, index);
    Ok((card, name))
}

fn cpu() -> (Device, String) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let unit = if threads == 1 { "thread" } else { "threads" };
    (Device::flex(), format!("CPU ({threads} {unit})"))
}

#[cfg(feature = "cuda")]
fn cards() -> Vec<Device> {
    Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec()
}

#[cfg(not(feature = "cuda"))]
fn cards() -> Vec<Device> {
    Vec::new()
}

#[cfg(feature = "cuda")]
fn card_name(card: &Device, index: usize) -> String {
    match card.identity() {
        Some(identity) => format!("{} (card {index})", identity.name),
        None => format!("NVIDIA card {index}"),
    }
}

#[cfg(not(feature = "cuda"))]
fn card_name(_card: &Device, index: usize) -> String {
    format!("NVIDIA card {index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_has_a_name() {
        assert_eq!(available().last(), Some(&DeviceChoice::Cpu));
        assert!(describe(DeviceChoice::Cpu).is_ok_and(|name| name.starts_with("CPU (")));
        assert!(describe(DeviceChoice::Auto).is_ok());
    }

    #[test]
    fn a_card_that_is_not_there_is_a_typed_error() {
        let error = describe(DeviceChoice::Cuda(99)).map_err(|e| e.code);
        assert_eq!(error, Err(EngineErrorCode::NoSuchDevice));
    }
}
