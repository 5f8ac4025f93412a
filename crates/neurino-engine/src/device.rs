//! Which device computes, and what it is called.
//!
//! `Device::default()` is never asked: it takes CUDA wherever it was compiled in, driver or not,
//! and then panics. A card is taken only after the driver listed it.

use burn::tensor::Device;
use neurino_hardware::{CardMemoryMeter, machine_memory, resident_memory_bytes};
use neurino_llm::models::decoder::Stores;

use crate::api::{DeviceChoice, EngineError, EngineErrorCode};
use crate::heap;
use crate::memory::DeviceMemory;
use crate::tuning::VISIBLE_CARDS;

/// A device that was taken.
pub(crate) struct OpenDevice {
    pub(crate) device: Device,
    /// For people.
    pub(crate) name: String,
    /// `None` for the CPU, and for a card whose driver does not tell.
    meter: Option<CardMemoryMeter>,
    is_cpu: bool,
    /// Instead of what it has.
    limit: Option<DeviceMemory>,
    /// Where it keeps keys and values.
    pub(crate) stores: Stores,
}

impl OpenDevice {
    pub(crate) fn is_cpu(&self) -> bool {
        self.is_cpu
    }

    /// Gives memory that nothing holds any more back to the system.
    pub(crate) fn clean_up(&self) {
        self.device.memory_cleanup();
        if self.is_cpu {
            heap::trim();
        }
    }

    /// Its memory now. A card that does not tell is taken for a small one.
    pub(crate) fn memory(&self) -> DeviceMemory {
        if let Some(memory) = self.limit {
            return memory;
        }
        if self.is_cpu {
            let memory = machine_memory();
            let (total_bytes, free_bytes) = (memory.total_bytes, memory.available_bytes);
            return DeviceMemory { total_bytes, free_bytes, is_cpu: true };
        }
        let (total_bytes, free_bytes) = match self.meter.as_ref().map(|meter| meter.read(None)) {
            Some(Ok(memory)) => (memory.total_bytes, memory.free_bytes),
            _ => (UNKNOWN_CARD_BYTES, UNKNOWN_CARD_BYTES),
        };
        DeviceMemory { total_bytes, free_bytes, is_cpu: false }
    }

    /// Memory in use: by this process on a CPU or where the driver tells, else by all; `None` where
    /// nobody tells.
    pub(crate) fn used_bytes(&self) -> Option<u64> {
        if self.is_cpu {
            return resident_memory_bytes();
        }
        let memory = self.meter.as_ref()?.read(Some(std::process::id())).ok()?;
        Some(memory.process_bytes.unwrap_or(memory.used_bytes))
    }
}

/// What a card has whose driver does not tell: the smallest that the network sees often.
const UNKNOWN_CARD_BYTES: u64 = 8 << 30;

/// Whether this build can compute on NVIDIA cards.
pub const fn computes_on_cards() -> bool {
    cfg!(feature = "cuda")
}

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
    Ok(open(choice)?.swap_remove(0).name)
}

/// The devices of a choice, at least one. `Auto` takes all cards: a model that one of them does not
/// hold is split.
///
/// # Errors
/// `NoSuchDevice`.
pub(crate) fn open(choice: DeviceChoice) -> Result<Vec<OpenDevice>, EngineError> {
    let mut cards = cards();
    let index = match choice {
        DeviceChoice::Cpu => return Ok(vec![cpu()]),
        DeviceChoice::Auto if cards.is_empty() => return Ok(vec![cpu()]),
        DeviceChoice::Cards if cards.is_empty() => return Err(no_card(0, 0)),
        DeviceChoice::Auto | DeviceChoice::Cards => {
            return Ok(cards.into_iter().enumerate().map(|(i, card)| open_card(card, i)).collect());
        }
        DeviceChoice::Cuda(index) => index as usize,
    };
    if index >= cards.len() {
        return Err(no_card(index, cards.len()));
    }
    Ok(vec![open_card(cards.swap_remove(index), index)])
}

fn no_card(index: usize, found: usize) -> EngineError {
    let found = match found {
        _ if !computes_on_cards() => "this build computes on the CPU only".into(),
        0 => "no NVIDIA card with a working driver was found".into(),
        n => format!("{n} were found"),
    };
    let message = format!("there is no NVIDIA card {index}: {found}");
    EngineError::new(EngineErrorCode::NoSuchDevice, message)
}

fn open_card(device: Device, index: usize) -> OpenDevice {
    let name = card_name(&device, index);
    let instance = std::env::var(VISIBLE_CARDS).ok().and_then(|visible| instance_in(&visible));
    let meter = match instance {
        // The address is that of the card it is a part of.
        Some(uuid) => CardMemoryMeter::of_instance(&uuid),
        None => CardMemoryMeter::open(pci_address(&device).as_deref(), index as u32),
    };
    OpenDevice { device, name, meter, is_cpu: false, limit: None, stores: Stores::default() }
}

/// The instance of a divided card that a process is let see; CUDA shows a process one at most.
fn instance_in(visible: &str) -> Option<String> {
    let first = visible.split(',').next()?.trim();
    first.starts_with("MIG-").then(|| first.to_owned())
}

fn cpu() -> OpenDevice {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let unit = if threads == 1 { "thread" } else { "threads" };
    let name = format!("CPU ({threads} {unit})");
    let (device, stores) = (Device::flex(), Stores::default());
    OpenDevice { device, name, meter: None, is_cpu: true, limit: None, stores }
}

/// A processor that claims to have so much memory and all of it free, for tests of what happens on
/// small devices.
#[cfg(test)]
pub(crate) fn small_cpu(memory_bytes: u64) -> OpenDevice {
    let memory = DeviceMemory { total_bytes: memory_bytes, free_bytes: memory_bytes, is_cpu: true };
    OpenDevice { limit: Some(memory), ..cpu() }
}

/// A processor that stands in for a card of so much memory: it is planned for, warmed up and given
/// up like one, and keeps keys and values in `stores`.
#[cfg(test)]
pub(crate) fn stand_in_card(memory_bytes: u64, stores: Stores) -> OpenDevice {
    let memory =
        DeviceMemory { total_bytes: memory_bytes, free_bytes: memory_bytes, is_cpu: false };
    let name = "a stand-in card".into();
    OpenDevice { limit: Some(memory), name, is_cpu: false, stores, ..cpu() }
}

/// The processor, with keys and values in `stores`.
#[cfg(test)]
pub(crate) fn cpu_with(stores: Stores) -> OpenDevice {
    OpenDevice { stores, ..cpu() }
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

/// Where the card sits, by which its driver's library finds it.
#[cfg(feature = "cuda")]
fn pci_address(card: &Device) -> Option<String> {
    Some(card.identity()?.physical?.pci_address?.to_string())
}

#[cfg(not(feature = "cuda"))]
fn pci_address(_card: &Device) -> Option<String> {
    None
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
    fn the_memory_of_an_instance_is_its_own() {
        assert_eq!(instance_in("MIG-a1, MIG-b2").as_deref(), Some("MIG-a1"));
        assert_eq!(instance_in("GPU-1,MIG-a1"), None);
        assert_eq!(instance_in(""), None);
    }

    #[test]
    fn a_card_that_is_not_there_is_a_typed_error() {
        let error = describe(DeviceChoice::Cuda(99)).map_err(|e| e.code);
        assert_eq!(error, Err(EngineErrorCode::NoSuchDevice));
        if available().len() == 1 {
            let none = describe(DeviceChoice::Cards).map_err(|e| e.code);
            assert_eq!(none, Err(EngineErrorCode::NoSuchDevice), "the CPU does not step in");
        }
    }
}
