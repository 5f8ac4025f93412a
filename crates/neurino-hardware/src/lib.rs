//! GPU, CPU, memory and disk probing.
//!
//! Reading order: [`probe`] ([`Hardware`]: what is there, and how busy it is), [`live`] (looking
//! again while a program runs), [`nvidia`] (what
//! stands between this program and an NVIDIA card, layer by layer), [`bandwidth`] (how fast the
//! memory can be read), [`memory`] (how much is free, of the machine and of a card), [`process`]
//! (memory of a process), [`disk`], [`power`] (how much a card may draw).
//!
//! Nothing here needs an NVIDIA library to link or to start: NVML is loaded at run time.

pub mod bandwidth;
pub mod disk;
pub mod live;
pub mod memory;
pub mod nvidia;
pub mod power;
pub mod probe;
pub mod process;

mod cpu;
mod nvml;
mod pci;
mod script;

pub use bandwidth::{ReadBandwidth, measure_read_bandwidth};
pub use cpu::Cpu;
pub use disk::free_bytes as disk_free_bytes;
pub use live::LiveHardware;
pub use memory::{CardMemory, CardMemoryMeter, MachineMemory, machine_memory};
pub use nvidia::{CudaVersion, NvidiaReport, NvidiaStatus};
pub use nvml::Gpu;
pub use pci::PciCard;
pub use power::{CardPower, PowerCard, PowerFault, PowerRange};
pub use probe::{CpuSample, GpuSample, Hardware, Sample, nvidia_driver};
pub use process::{
    peak_memory_bytes, peak_memory_bytes_of, resident_memory_bytes, resident_memory_bytes_of,
};
