//! What this machine has, and how busy it is.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper::Nvml;
use serde::Serialize;
use sysinfo::{Components, MINIMUM_CPU_UPDATE_INTERVAL, System};

use crate::cpu::{self, Cpu};
use crate::memory::memory_of;
use crate::nvidia::{NvidiaReport, NvidiaStatus};
use crate::nvml::{self, Gpu};
use crate::pci;
use crate::script::CardScript;

/// Sensors are read through slow firmware on some machines; nobody needs them more often.
const SENSOR_INTERVAL: Duration = Duration::from_secs(2);

/// This machine. Probing again finds cards and drivers that came or went; it costs milliseconds
/// without an NVIDIA driver and up to a second with one, so keep it off async threads.
pub struct Hardware {
    cpu: Cpu,
    gpus: Vec<Gpu>,
    nvidia: NvidiaReport,
    nvml: Option<Nvml>,
    /// Plays the cards instead of a driver.
    script: Option<CardScript>,
    live: Mutex<Live>,
}

struct Live {
    system: System,
    sensors: Components,
    cpu_read: Instant,
    cpu_reads: u32,
    sensors_read: Option<Instant>,
    temperature_c: Option<f32>,
}

/// How busy the machine is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The processor.
    pub cpu: CpuSample,
    /// The cards, in the order of [`Hardware::gpus`].
    pub gpus: Vec<GpuSample>,
}

/// How busy the processor is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CpuSample {
    /// 0 to 100 over all cores since the last sample; `None` in the first fifth of a second.
    pub load_percent: Option<f32>,
    /// Memory in use by anybody, in bytes; caches that would be given up do not count.
    pub memory_used_bytes: u64,
    /// Degrees Celsius; `None` without a sensor.
    pub temperature_c: Option<f32>,
}

/// How busy a card is; what its driver does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GpuSample {
    /// Its number on this machine.
    pub index: u32,
    /// 0 to 100.
    pub load_percent: Option<f32>,
    /// Memory in use by anybody, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Degrees Celsius.
    pub temperature_c: Option<f32>,
    /// The hottest place of its memory, in degrees Celsius; drivers of most cards for games do not tell.
    pub memory_temperature_c: Option<f32>,
    /// Watts.
    pub power_w: Option<f32>,
    /// Why the card no longer answers, in its driver's words.
    pub lost: Option<String>,
}

impl GpuSample {
    /// The hottest place that the driver tells of, in degrees Celsius.
    pub fn hottest_c(&self) -> Option<f32> {
        self.temperature_c.into_iter().chain(self.memory_temperature_c).reduce(f32::max)
    }
}

impl Hardware {
    /// Looks at everything once.
    pub fn probe() -> Self {
        let (nvml, state) = nvml::open();
        let nvidia = NvidiaReport {
            cards: pci::nvidia_cards(),
            kernel_driver: pci::kernel_driver(),
            nvml: state,
        };
        let gpus = nvml.as_ref().map(nvml::gpus).unwrap_or_default();
        Self { nvml, ..Self::with_cards(gpus, nvidia) }
    }

    /// This machine with the cards that a file plays.
    pub(crate) fn scripted(path: &Path) -> Self {
        let script = CardScript::new(path);
        let (gpus, nvidia) = script.probe();
        Self { script: Some(script), ..Self::with_cards(gpus, nvidia) }
    }

    /// Looks at everything once more, with a new handle of the driver's library.
    pub(crate) fn again(&self) -> Self {
        let Some(script) = &self.script else { return Self::probe() };
        let (gpus, nvidia) = script.probe();
        Self { script: Some(script.clone()), ..Self::with_cards(gpus, nvidia) }
    }

    fn with_cards(gpus: Vec<Gpu>, nvidia: NvidiaReport) -> Self {
        let mut system = System::new();
        system.refresh_memory();
        system.refresh_cpu_all();
        let cpu = cpu::describe(&system);
        let live = Live {
            system,
            sensors: Components::new_with_refreshed_list(),
            cpu_read: Instant::now(),
            cpu_reads: 0,
            sensors_read: None,
            temperature_c: None,
        };
        Self { cpu, gpus, nvidia, nvml: None, script: None, live: Mutex::new(live) }
    }

    /// Whether something says that cards or driver are others than when this was probed: a card does
    /// not answer, the bus shows other cards, the kernel driver changed. Costs less than a millisecond;
    /// where the bus cannot be seen, a card that comes is not noticed.
    pub fn is_outdated(&self) -> bool {
        if let Some(script) = &self.script {
            let (gpus, nvidia) = script.probe();
            return gpus != self.gpus || nvidia != self.nvidia;
        }
        let lost = |gpu: &Gpu| self.nvml.as_ref().is_some_and(|nvml| nvml::is_lost(nvml, gpu));
        pci::nvidia_cards() != self.nvidia.cards
            || pci::kernel_driver() != self.nvidia.kernel_driver
            || self.gpus.iter().any(lost)
    }

    /// The processor.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The NVIDIA cards that a working driver shows. A card without one is in
    /// [`NvidiaReport::cards`].
    pub fn gpus(&self) -> &[Gpu] {
        &self.gpus
    }

    /// The driver's library, where it works.
    pub(crate) fn nvml(&self) -> Option<&Nvml> {
        self.nvml.as_ref()
    }

    /// What stands between this program and an NVIDIA card, layer by layer.
    pub fn nvidia(&self) -> &NvidiaReport {
        &self.nvidia
    }

    /// How busy a process keeps the card it uses most, in per cent over the last moments; `None`
    /// where no driver tells.
    pub fn card_load_of(&self, process: u32) -> Option<u8> {
        let nvml = self.nvml.as_ref()?;
        self.gpus.iter().filter_map(|gpu| nvml::load_of(nvml, gpu, process)).max()
    }

    /// How busy the machine is now. Usually under a millisecond; a driver that resets a card can
    /// hold the caller, so keep it off async threads.
    pub fn sample(&self) -> Sample {
        let cpu = {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.sample()
        };
        let gpus = match (&self.script, &self.nvml) {
            (Some(script), _) => self.gpus.iter().map(|gpu| script.sample(gpu)).collect(),
            (None, Some(nvml)) => self.gpus.iter().map(|gpu| nvml::sample(nvml, gpu)).collect(),
            (None, None) => Vec::new(),
        };
        Sample { cpu, gpus }
    }
}

impl Live {
    fn sample(&mut self) -> CpuSample {
        self.system.refresh_memory();
        // The load is a difference between two readings; closer ones would be noise.
        if self.cpu_read.elapsed() >= MINIMUM_CPU_UPDATE_INTERVAL {
            self.system.refresh_cpu_usage();
            self.cpu_read = Instant::now();
            self.cpu_reads = self.cpu_reads.saturating_add(1);
        }
        if self.sensors_read.is_none_or(|read| read.elapsed() >= SENSOR_INTERVAL) {
            self.temperature_c = cpu::sensor(&mut self.sensors).and_then(|sensor| {
                sensor.refresh();
                sensor.temperature().filter(|degrees| degrees.is_finite())
            });
            self.sensors_read = Some(Instant::now());
        }
        let load = self.system.global_cpu_usage().clamp(0.0, 100.0);
        CpuSample {
            load_percent: (self.cpu_reads > 0).then_some(load),
            memory_used_bytes: memory_of(&self.system).used_bytes(),
            temperature_c: self.temperature_c,
        }
    }
}

/// How the NVIDIA driver stands, without probing the rest of the machine. Ask this before the
/// engine touches CUDA: burn panics where the driver is missing.
pub fn nvidia_driver() -> NvidiaStatus {
    let (_nvml, state) = nvml::open();
    let report = NvidiaReport {
        cards: pci::nvidia_cards(),
        kernel_driver: pci::kernel_driver(),
        nvml: state,
    };
    report.status()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_holds_together_on_any_machine() {
        let hardware = Hardware::probe();
        let cpu = hardware.cpu();
        assert!(!cpu.name.is_empty());
        assert!(cpu.threads >= 1);
        assert!(cpu.memory_bytes > 64 << 20, "{cpu:?}");
        let status = hardware.nvidia().status();
        assert!(hardware.gpus().is_empty() || !matches!(status, NvidiaStatus::NoCard));
        assert_eq!(status, nvidia_driver());
        assert!(!status.is_ready() || !hardware.gpus().is_empty(), "ready means there is a card");
    }

    #[test]
    fn samples_stay_within_their_ranges() {
        let hardware = Hardware::probe();
        assert_eq!(hardware.sample().cpu.load_percent, None, "two readings make a load");
        std::thread::sleep(MINIMUM_CPU_UPDATE_INTERVAL);
        let sample = hardware.sample();
        let load = sample.cpu.load_percent.expect("time has passed");
        assert!((0.0..=100.0).contains(&load), "{load}");
        assert!((1..=hardware.cpu().memory_bytes).contains(&sample.cpu.memory_used_bytes));
        assert!(sample.cpu.temperature_c.is_none_or(|degrees| (-40.0..150.0).contains(&degrees)));
        assert_eq!(sample.gpus.len(), hardware.gpus().len());
    }
}
