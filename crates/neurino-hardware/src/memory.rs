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
    memory_of(&system)
}

/// The same from what was read just now.
///
/// A container's own count of what is free leaves out the files that are merely cached, and a system
/// without a limit answers with the whole machine as its limit: only a true limit is looked at, and
/// only what programs hold counts against it.
pub(crate) fn memory_of(system: &System) -> MachineMemory {
    let whole = MachineMemory {
        total_bytes: system.total_memory(),
        available_bytes: system.available_memory(),
    };
    match system.cgroup_limits() {
        Some(limits) => whole.within(limits.total_memory, limits.rss),
        None => whole,
    }
}

impl MachineMemory {
    /// What a container with this limit has of it, where its programs hold `held_bytes`.
    fn within(self, limit_bytes: u64, held_bytes: u64) -> Self {
        if !(1..self.total_bytes).contains(&limit_bytes) {
            return self;
        }
        let free_bytes = limit_bytes.saturating_sub(held_bytes);
        Self { total_bytes: limit_bytes, available_bytes: free_bytes.min(self.available_bytes) }
    }

    /// What is taken, in bytes.
    pub fn used_bytes(self) -> u64 {
        self.total_bytes.saturating_sub(self.available_bytes)
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
    /// An instance of a divided card, which has memory of its own.
    Instance(String),
}

impl CardMemoryMeter {
    /// A meter of the card at a PCI address (`0000:01:00.0`), or of the card with an index where
    /// the address is not known: the driver's order need not be CUDA's. `None` without a driver.
    pub fn open(pci_address: Option<&str>, index: u32) -> Option<Self> {
        let card = pci_address.map_or(Card::Index(index), |address| Card::Pci(address.into()));
        let meter = Self { nvml: nvml::open().0?, card };
        meter.read(None).ok().map(|_| meter)
    }

    /// A meter of the instance of a divided card, by its UUID. `None` where no driver knows it.
    pub fn of_instance(uuid: &str) -> Option<Self> {
        let meter = Self { nvml: nvml::open().0?, card: Card::Instance(uuid.to_owned()) };
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
            Card::Instance(uuid) => self.nvml.device_by_uuid(uuid.as_str())?,
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
    fn only_a_true_limit_counts_and_cached_files_are_free() {
        let whole = MachineMemory { total_bytes: 24_000, available_bytes: 15_000 };
        // Without a limit the machine itself is answered, or nothing.
        assert_eq!(whole.within(24_000, 8_000), whole);
        assert_eq!(whole.within(u64::MAX, 8_000), whole);
        assert_eq!(whole.within(0, 0), whole);
        let limited = whole.within(10_000, 4_000);
        assert_eq!(limited, MachineMemory { total_bytes: 10_000, available_bytes: 6_000 });
        assert_eq!(limited.used_bytes(), 4_000);
        // Others on the machine may have taken what the limit would still allow.
        assert_eq!(whole.within(20_000, 1_000).available_bytes, 15_000);
        assert_eq!(whole.within(10_000, 11_000).available_bytes, 0);
    }

    #[test]
    fn a_card_that_is_not_there_has_no_meter() {
        assert!(CardMemoryMeter::open(None, 99).is_none());
        assert!(CardMemoryMeter::open(Some("ffff:ff:1f.7"), 0).is_none());
        assert!(CardMemoryMeter::of_instance("MIG-none").is_none());
    }
}
