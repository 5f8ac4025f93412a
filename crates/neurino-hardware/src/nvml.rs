//! NVIDIA's management library: loaded at run time, absent on most machines.

use std::ffi::OsStr;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};
use serde::Serialize;
use tracing::debug;

use crate::nvidia::{CudaVersion, NvmlState};
use crate::probe::GpuSample;

/// `NVML_FI_DEV_MEMORY_TEMP`.
const MEMORY_TEMPERATURE: u32 = 82;

/// An NVIDIA card as its driver describes it, or an instance of one that is divided (MIG).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its number on this machine, as in `cuda:0`. Instances are counted after the cards.
    pub index: u32,
    /// Its name, as its maker spells it.
    pub name: String,
    /// Names this very card, across restarts and slots.
    pub uuid: Option<String>,
    /// Where it sits, for example `00000000:01:00.0`.
    pub pci_address: Option<String>,
    /// Its memory in bytes; `None` if the driver does not say.
    pub memory_bytes: Option<u64>,
    /// The 8 and 9 of compute capability 8.9.
    pub compute_capability: Option<(i32, i32)>,
    /// For an instance, which is a device of its own: the number of its card, which is none then.
    pub instance_of: Option<u32>,
}

impl Gpu {
    /// The number of the card, its own or that which it is an instance of.
    pub fn card(&self) -> u32 {
        self.instance_of.unwrap_or(self.index)
    }
}

/// Loads the library. `None` in the first place where it cannot be used.
pub(crate) fn open() -> (Option<Nvml>, NvmlState) {
    // Drivers install `.so.1`; the bare name comes with development packages only.
    let names: &[&str] =
        if cfg!(target_os = "linux") { &["libnvidia-ml.so.1", "libnvidia-ml.so"] } else { &[] };
    let mut outcome = Err(NvmlError::LibraryNotFound);
    for name in names {
        outcome = Nvml::builder().lib_path(OsStr::new(name)).init();
        if !matches!(outcome, Err(NvmlError::LibloadingError(_))) {
            break;
        }
    }
    if names.is_empty() {
        outcome = Nvml::init();
    }
    match outcome {
        Ok(nvml) => {
            let state = describe(&nvml);
            (Some(nvml), state)
        }
        Err(error) => {
            debug!(%error, "NVML is not usable");
            (None, state_of(&error))
        }
    }
}

fn state_of(error: &NvmlError) -> NvmlState {
    match error {
        NvmlError::LibloadingError(_)
        | NvmlError::LibraryNotFound
        | NvmlError::FailedToLoadSymbol(_) => NvmlState::Absent,
        NvmlError::DriverNotLoaded => NvmlState::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => NvmlState::VersionMismatch,
        other => NvmlState::Failed { message: other.to_string() },
    }
}

fn describe(nvml: &Nvml) -> NvmlState {
    match (nvml.sys_driver_version(), nvml.device_count()) {
        (Ok(driver), Ok(cards)) => {
            let cuda = nvml.sys_cuda_driver_version().ok().and_then(CudaVersion::from_driver);
            NvmlState::Loaded { driver, cuda, cards }
        }
        (Err(error), _) | (_, Err(error)) => state_of(&error),
    }
}

/// The cards the library sees, each that is divided by its instances. One that fails is left out, with a
/// line in the log.
pub(crate) fn gpus(nvml: &Nvml) -> Vec<Gpu> {
    let count = nvml.device_count().unwrap_or(0);
    let (mut gpus, mut instances) = (Vec::new(), Vec::new());
    for index in 0..count {
        let found = nvml.device_by_index(index).and_then(|device| {
            let gpu = describe_card(&device, index)?;
            Ok((gpu, instances_of(&device)))
        });
        match found {
            Ok((gpu, None)) => gpus.push(gpu),
            Ok((gpu, Some(parts))) => instances.push((gpu, parts)),
            Err(error) => {
                tracing::warn!(%error, index, "NVIDIA card {index} cannot be described: {error}");
            }
        }
    }
    gpus.extend(numbered(count, instances));
    gpus
}

fn describe_card(device: &Device<'_>, index: u32) -> Result<Gpu, NvmlError> {
    let capability = device.cuda_compute_capability().ok();
    Ok(Gpu {
        index,
        name: device.name()?,
        uuid: device.uuid().ok(),
        pci_address: device.pci_info().ok().map(|pci| pci.bus_id),
        memory_bytes: device.memory_info().ok().map(|memory| memory.total),
        compute_capability: capability.map(|version| (version.major, version.minor)),
        instance_of: None,
    })
}

/// An instance of a card, as the library tells.
#[derive(Debug, Clone)]
struct Instance {
    name: Option<String>,
    uuid: String,
    memory_bytes: Option<u64>,
}

/// What the library calls a card that is divided.
const MIG_ENABLED: u32 = 1;

/// The instances of a card that is divided; `None` for one that is not.
fn instances_of(device: &Device<'_>) -> Option<Vec<Instance>> {
    // Most cards cannot be divided, and say so with an error.
    let divided = device.mig_mode().is_ok_and(|mode| mode.current == MIG_ENABLED);
    let most = if divided { device.mig_device_count().unwrap_or(0) } else { return None };
    let instance = |index| {
        let part = device.mig_device_by_index(index).ok()?;
        Some(Instance {
            name: part.name().ok(),
            // Without it no process could be told to use it.
            uuid: part.uuid().ok()?,
            memory_bytes: part.memory_info().ok().map(|memory| memory.total),
        })
    };
    Some((0..most).filter_map(instance).collect())
}

/// Instances as devices of their own, with the numbers that follow those of the cards.
fn numbered(cards: u32, divided: Vec<(Gpu, Vec<Instance>)>) -> Vec<Gpu> {
    let parts = divided
        .into_iter()
        .flat_map(|(card, parts)| parts.into_iter().map(move |part| (card.clone(), part)));
    let device = |(index, (card, part)): (u32, (Gpu, Instance))| Gpu {
        index,
        name: part.name.unwrap_or_else(|| format!("{} (instance)", card.name)),
        uuid: Some(part.uuid),
        memory_bytes: part.memory_bytes,
        instance_of: Some(card.index),
        ..card
    };
    (cards..).zip(parts).map(device).collect()
}

/// The library's handle of a card or instance.
fn handle<'a>(nvml: &'a Nvml, gpu: &Gpu) -> Result<Device<'a>, NvmlError> {
    match (&gpu.uuid, gpu.instance_of) {
        (Some(uuid), Some(_)) => nvml.device_by_uuid(uuid.as_str()),
        _ => nvml.device_by_index(gpu.index),
    }
}

/// How busy a process keeps a card, in per cent, in the newest of the driver's samples; 0 for one
/// that has none.
pub(crate) fn load_of(nvml: &Nvml, gpu: &Gpu, process: u32) -> Option<u8> {
    let samples = match handle(nvml, gpu).ok()?.process_utilization_stats(None) {
        Ok(samples) => samples,
        // The driver's word for "nobody used it lately".
        Err(NvmlError::NotFound) => return Some(0),
        Err(_) => return None,
    };
    let own = samples.iter().filter(|sample| sample.pid == process);
    let newest = own.max_by_key(|sample| sample.timestamp);
    Some(newest.map_or(0, |sample| sample.sm_util.min(100) as u8))
}

/// Whether a card does not answer any more, or its driver is gone.
pub(crate) fn is_lost(nvml: &Nvml, gpu: &Gpu) -> bool {
    let memory = handle(nvml, gpu).and_then(|card| card.memory_info());
    // A card that never tells its memory is there all the same.
    memory.is_err_and(|error| !matches!(error, NvmlError::NotSupported | NvmlError::NoPermission))
}

/// The hottest place of a card's memory (`NVML_FI_DEV_MEMORY_TEMP`), where the driver tells it.
fn memory_temperature_c(device: &Device<'_>) -> Option<f32> {
    let fields = device.field_values_for(&[FieldId(MEMORY_TEMPERATURE)]).ok()?;
    let value = fields.into_iter().next()?.ok()?.value.ok()?;
    memory_degrees(&value)
}

/// Some drivers answer with 0 for "not told".
fn memory_degrees(value: &SampleValue) -> Option<f32> {
    let degrees = match *value {
        SampleValue::F64(degrees) => degrees as f32,
        SampleValue::U32(degrees) => degrees as f32,
        SampleValue::U64(degrees) => degrees as f32,
        SampleValue::I64(degrees) => degrees as f32,
    };
    (degrees > 0.0 && degrees < 200.0).then_some(degrees)
}

/// How busy a card is now; what the driver does not tell stays `None`.
pub(crate) fn sample(nvml: &Nvml, gpu: &Gpu) -> GpuSample {
    let mut sample = GpuSample { index: gpu.index, ..GpuSample::default() };
    let device = match handle(nvml, gpu) {
        Ok(device) => device,
        Err(error) => {
            sample.lost = Some(error.to_string());
            return sample;
        }
    };
    match device.memory_info() {
        Ok(memory) => sample.memory_used_bytes = Some(memory.used),
        Err(error @ (NvmlError::GpuLost | NvmlError::ResetRequired)) => {
            sample.lost = Some(error.to_string());
            return sample;
        }
        Err(_) => {}
    }
    sample.load_percent = device.utilization_rates().ok().map(|rates| rates.gpu as f32);
    sample.temperature_c =
        device.temperature(TemperatureSensor::Gpu).ok().map(|degrees| degrees as f32);
    sample.memory_temperature_c = memory_temperature_c(&device);
    sample.power_w = device.power_usage().ok().map(|milliwatts| milliwatts as f32 / 1000.0);
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divided_card_is_its_instances() {
        let card = |index: u32| Gpu {
            index,
            name: format!("Card {index}"),
            uuid: Some(format!("GPU-{index}")),
            pci_address: Some(format!("0000:0{index}:00.0")),
            memory_bytes: Some(80 << 30),
            compute_capability: Some((9, 0)),
            instance_of: None,
        };
        let part = |n: u32, name: Option<&str>| Instance {
            name: name.map(str::to_owned),
            uuid: format!("MIG-{n}"),
            memory_bytes: Some(10 << 30),
        };
        let divided = vec![
            (card(0), vec![part(1, Some("Card 0 MIG 1g.10gb")), part(2, None)]),
            (card(2), vec![]),
            (card(3), vec![part(3, None)]),
        ];
        let parts = numbered(4, divided);
        let told = parts.iter().map(|gpu| (gpu.index, gpu.card(), gpu.uuid.as_deref()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [(4, 0, Some("MIG-1")), (5, 0, Some("MIG-2")), (6, 3, Some("MIG-3"))]
        );
        assert_eq!(parts[0].name, "Card 0 MIG 1g.10gb");
        assert_eq!(parts[1].name, "Card 0 (instance)");
        assert_eq!(
            (parts[2].memory_bytes, parts[2].compute_capability),
            (Some(10 << 30), Some((9, 0)))
        );
        assert_eq!(card(1).card(), 1);
    }

    #[test]
    fn library_errors_become_layers() {
        assert_eq!(state_of(&NvmlError::LibraryNotFound), NvmlState::Absent);
        assert_eq!(state_of(&NvmlError::DriverNotLoaded), NvmlState::DriverNotLoaded);
        assert_eq!(state_of(&NvmlError::LibRmVersionMismatch), NvmlState::VersionMismatch);
        assert!(matches!(state_of(&NvmlError::GpuLost), NvmlState::Failed { .. }));
    }

    #[test]
    fn a_memory_temperature_that_is_not_told_is_none() {
        assert_eq!(memory_degrees(&SampleValue::U32(94)), Some(94.0));
        assert_eq!(memory_degrees(&SampleValue::I64(71)), Some(71.0));
        assert_eq!(memory_degrees(&SampleValue::U32(0)), None);
        assert_eq!(memory_degrees(&SampleValue::U64(u64::MAX)), None);
        let sample = |card, memory| GpuSample {
            temperature_c: card,
            memory_temperature_c: memory,
            ..GpuSample::default()
        };
        assert_eq!(sample(Some(60.0), Some(88.0)).hottest_c(), Some(88.0));
        assert_eq!(sample(Some(60.0), None).hottest_c(), Some(60.0));
        assert_eq!(sample(None, None).hottest_c(), None);
    }

    #[test]
    fn opening_never_panics_and_tells_the_truth_about_the_handle() {
        let (nvml, state) = open();
        assert!(nvml.is_some() || !matches!(state, NvmlState::Loaded { .. }), "{state:?}");
    }
}
