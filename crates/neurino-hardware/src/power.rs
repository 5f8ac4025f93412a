//! The power limits of NVIDIA cards: what they may be, what they are, and changing them.
//!
//! [`CardPower`] is the door, which [`Hardware`] is in real life. A limit outlives the program that
//! set it (until the driver is unloaded), so nobody but `neurino-power` calls
//! [`CardPower::set_limit_mw`]: it writes down first what it has to restore.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

use crate::probe::Hardware;

/// Cards whose power can be limited.
pub trait CardPower: Send + Sync {
    /// The cards and what their limits may be. Takes milliseconds, as everything here does.
    fn cards(&self) -> Vec<PowerCard>;

    /// The limit in force, in milliwatts.
    ///
    /// # Errors
    /// [`PowerFault`].
    fn limit_mw(&self, uuid: &str) -> Result<u32, PowerFault>;

    /// Changes the limit, in milliwatts.
    ///
    /// # Errors
    /// [`PowerFault`]; then the limit is what it was.
    fn set_limit_mw(&self, uuid: &str, limit_mw: u32) -> Result<(), PowerFault>;

    /// Energy the card has used since some moment of its own, in millijoules; `None` where it does
    /// not count.
    fn energy_mj(&self, uuid: &str) -> Option<u64>;

    /// What the card draws now, in milliwatts.
    fn draw_mw(&self, uuid: &str) -> Option<u32>;

    /// Names this start of the machine, where the system tells: limits do not survive a restart.
    fn boot(&self) -> Option<String>;
}

/// A card and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerCard {
    /// Names this very card.
    pub uuid: String,
    /// Its number on this machine, as in `cuda:0`.
    pub index: u32,
    /// Its name, as its maker spells it.
    pub name: String,
    /// What its limit may be, or why it has none that could be changed.
    pub range: Result<PowerRange, PowerFault>,
    /// Whether this program may change it, where the system tells beforehand.
    pub may_set: Option<bool>,
}

/// What a limit may be, in milliwatts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRange {
    /// The least.
    pub least_mw: u32,
    /// The most.
    pub most_mw: u32,
    /// What the card comes with.
    pub usual_mw: u32,
}

/// Why a limit cannot be read or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerFault {
    /// The card or its driver has no such thing; common in notebooks.
    NotSupported,
    /// This program may not; the system's administrator may.
    NoPermission,
    /// The card is not there, or does not answer.
    Lost,
    /// Something else, in the driver's words.
    Failed(String),
}

impl std::fmt::Display for PowerFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the card does not let its power limit be changed"),
            Self::NoPermission => {
                f.write_str("the driver lets only the administrator change power limits")
            }
            Self::Lost => f.write_str("the card does not answer"),
            Self::Failed(message) => write!(f, "the driver refuses: {message}"),
        }
    }
}

impl std::error::Error for PowerFault {}

impl CardPower for Hardware {
    fn cards(&self) -> Vec<PowerCard> {
        let gpus = self.gpus().iter().filter_map(|gpu| Some((gpu, gpu.uuid.clone()?)));
        let may_set = may_set_limits();
        let card = |(gpu, uuid): (&crate::Gpu, String)| PowerCard {
            range: self.on_card(&uuid, |card| range_of(&card)),
            may_set,
            uuid,
            index: gpu.index,
            name: gpu.name.clone(),
        };
        gpus.map(card).collect()
    }

    fn limit_mw(&self, uuid: &str) -> Result<u32, PowerFault> {
        self.on_card(uuid, |card| card.power_management_limit())
    }

    fn set_limit_mw(&self, uuid: &str, limit_mw: u32) -> Result<(), PowerFault> {
        self.on_card(uuid, |mut card| card.set_power_management_limit(limit_mw))
    }

    fn energy_mj(&self, uuid: &str) -> Option<u64> {
        self.on_card(uuid, |card| card.total_energy_consumption()).ok()
    }

    fn draw_mw(&self, uuid: &str) -> Option<u32> {
        self.on_card(uuid, |card| card.power_usage()).ok()
    }

    fn boot(&self) -> Option<String> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }
}

impl Hardware {
    fn on_card<T>(
        &self,
        uuid: &str,
        ask: impl FnOnce(nvml_wrapper::Device<'_>) -> Result<T, NvmlError>,
    ) -> Result<T, PowerFault> {
        let nvml: &Nvml = self.nvml().ok_or(PowerFault::Lost)?;
        nvml.device_by_uuid(uuid).and_then(ask).map_err(|error| fault_of(&error))
    }
}

fn range_of(card: &nvml_wrapper::Device<'_>) -> Result<PowerRange, NvmlError> {
    let range = card.power_management_limit_constraints()?;
    Ok(PowerRange {
        least_mw: range.min_limit,
        most_mw: range.max_limit,
        usual_mw: card.power_management_limit_default()?,
    })
}

fn fault_of(error: &NvmlError) -> PowerFault {
    match error {
        NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) => PowerFault::NotSupported,
        NvmlError::NoPermission => PowerFault::NoPermission,
        NvmlError::GpuLost | NvmlError::NotFound | NvmlError::ResetRequired => PowerFault::Lost,
        other => PowerFault::Failed(other.to_string()),
    }
}

/// Whether this process may change limits, where the system tells beforehand: on Linux the kernel's
/// driver asks for the administrator's capability.
fn may_set_limits() -> Option<bool> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    capable(&status)
}

/// Whether a process with this status has `CAP_SYS_ADMIN`, which is bit 21.
fn capable(status: &str) -> Option<bool> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(bits >> 21 & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_administrator_is_known_by_the_capability() {
        let status = |bits: &str| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{bits}\n");
        assert_eq!(capable(&status("000001ffffffffff")), Some(true));
        assert_eq!(capable(&status("0000000000000000")), Some(false));
        // What a container gives to its root by default.
        assert_eq!(capable(&status("00000000a80425fb")), Some(false));
        assert_eq!(capable("Name:\tx\n"), None);
    }

    #[test]
    fn a_machine_without_cards_answers_like_one() {
        let hardware = Hardware::probe();
        for card in hardware.cards() {
            if let Ok(range) = card.range {
                assert!(range.least_mw <= range.usual_mw && range.usual_mw <= range.most_mw);
                assert!(hardware.limit_mw(&card.uuid).is_ok_and(|limit| limit <= range.most_mw));
            }
        }
        assert!(hardware.limit_mw("GPU-none").is_err());
        assert_eq!(hardware.energy_mj("GPU-none"), None);
    }
}
