//! How much memory there is and how much is free: of the machine, and of an NVIDIA card.

use std::io;

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use serde::Serialize;
use sysinfo::System;

use crate::nvml;

/// Ordinary memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MachineMemory {
    /// Of the machine, or of the container if it has a limit, in bytes.
    pub total_bytes: u64,
    /// What a program could still take without pushing others out, in bytes.
    pub available_bytes: u64,
}

/// Looks at the machine's memory.
pub fn machine_memory() -> MachineMemory {
    let mut system = System::new();
    system.refresh_memory();
    let whole = MachineMemory {
        total_bytes: system.total_memory(),
        available_bytes: system.available_memory(),
    };
    match system.cgroup_limits() {
        Some(limits) if (1..whole.total_bytes).contains(&limits.total_memory) => MachineMemory {
            total_bytes: limits.total_memory,
            available_bytes: limits.free_memory.min(whole.available_bytes),
        },
        _ => whole,
    }
}

/// Memory of a card at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CardMemory {
    /// All of it.
    pub total_bytes: u64,
    /// Nobody's.
    pub free_bytes: u64,
    /// Somebody's.
    pub used_bytes: u64,
    /// The asked process's; `None` where the driver does not tell (Windows, containers).
    pub process_bytes: Option<u64>,
}

/// Reads the memory of one card through its driver, again and again.
pub struct CardMemoryMeter {
    nvml: Nvml,
    card: Card,
}

enum Card {
    Index(u32),
    Pci(String),
}

impl CardMemoryMeter {
    /// A meter of the card at a PCI address (`0000:01:00.0`), or of the card with an index where
    /// the address is not known: the driver's order need not be CUDA's. `None` without a driver.
    pub fn open(pci_address: Option<&str>, index: u32) -> Option<Self> {
        let card = pci_address.map_or(Card::Index(index), |address| Card::Pci(address.into()));
        let meter = Self { nvml: nvml::open().0?, card };
        meter.read(None).ok().map(|_| meter)
    }

    /// The card's memory now, and what `process` has of it.
    ///
    /// # Errors
    /// What the driver says; most often that the card is lost.
    pub fn read(&self, process: Option<u32>) -> io::Result<CardMemory> {
        self.ask(process).map_err(io::Error::other)
    }

    fn ask(&self, process: Option<u32>) -> Result<CardMemory, NvmlError> {
        let card = match &self.card {
            Card::Index(index) => self.nvml.device_by_index(*index)?,
            Card::Pci(address) => self.nvml.device_by_pci_bus_id(address.as_str())?,
        };
        let memory = card.memory_info()?;
        let process_bytes = process.and_then(|pid| {
            let all = card.running_compute_processes().ok()?;
            match all.into_iter().find(|info| info.pid == pid)?.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            }
        });
        Ok(CardMemory {
            total_bytes: memory.total,
            free_bytes: memory.free,
            used_bytes: memory.used,
            process_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_part_of_the_whole() {
        let memory = machine_memory();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
    }

    #[test]
    fn a_card_that_is_not_there_has_no_meter() {
        assert!(CardMemoryMeter::open(None, 99).is_none());
        assert!(CardMemoryMeter::open(Some("ffff:ff:1f.7"), 0).is_none());
    }
}
