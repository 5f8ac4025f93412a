//! What stands between this program and an NVIDIA card.
//!
//! Four layers, each of which can fail alone: the card on the bus, the kernel driver, the driver's
//! library (NVML), and the CUDA version the driver speaks. [`NvidiaReport::status`] names the first
//! that fails, in one sentence, with what to do.

use std::fmt;

use serde::Serialize;

use crate::pci::PciCard;

/// A CUDA version as the driver states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CudaVersion {
    /// The 12 of 12.4.
    pub major: u32,
    /// The 4 of 12.4.
    pub minor: u32,
}

impl CudaVersion {
    /// The oldest the engine runs with: drivers 525 (Linux) and 528 (Windows) or newer.
    pub const FLOOR: Self = Self { major: 12, minor: 0 };

    /// From the driver's own number, 1000 · major + 10 · minor.
    pub(crate) fn from_driver(number: i32) -> Option<Self> {
        let number = u32::try_from(number).ok().filter(|number| *number >= 1000)?;
        Some(Self { major: number / 1000, minor: number % 1000 / 10 })
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the driver's library answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum NvmlState {
    /// There is no such library.
    Absent,
    /// The library runs and the kernel driver does not answer it.
    DriverNotLoaded,
    /// Library and kernel driver are of different versions: updated, not restarted.
    VersionMismatch,
    /// It failed otherwise.
    Failed {
        /// In the library's words.
        message: String,
    },
    /// It works.
    Loaded {
        /// Version of the driver.
        driver: String,
        /// CUDA version the driver speaks; `None` if it does not say.
        cuda: Option<CudaVersion>,
        /// Cards it sees.
        cards: u32,
    },
}

/// Every layer, as found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NvidiaReport {
    /// Cards on the PCI bus; `None` where the bus cannot be seen (it can on Linux).
    pub cards: Option<Vec<PciCard>>,
    /// Version of the loaded kernel driver; `None` if none is loaded or it cannot be seen.
    pub kernel_driver: Option<String>,
    /// What the driver's library answered.
    pub nvml: NvmlState,
}

/// The outcome: ready, or the first layer that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum NvidiaStatus {
    /// Cards can be used.
    Ready {
        /// Version of the driver.
        driver: String,
        /// CUDA version it speaks.
        cuda: CudaVersion,
    },
    /// There is no NVIDIA card.
    NoCard,
    /// No NVIDIA driver runs.
    NoDriver {
        /// Cards that wait for one; `None` where the bus cannot be seen.
        cards: Option<u32>,
    },
    /// Another driver holds the card.
    OtherDriver {
        /// Its name, for example `nouveau`.
        driver: String,
    },
    /// The kernel driver runs, its library is not installed (or not visible in a container).
    LibraryMissing {
        /// Version of the kernel driver.
        driver: String,
    },
    /// The driver was updated and the machine not restarted.
    VersionMismatch,
    /// The driver is older than the engine needs.
    DriverTooOld {
        /// Version of the driver.
        driver: String,
        /// CUDA version it speaks, if it says so.
        cuda: Option<CudaVersion>,
    },
    /// The driver is there and fails.
    NotResponding {
        /// In its words.
        message: String,
    },
}

impl NvidiaReport {
    /// The first layer that fails, or ready.
    pub fn status(&self) -> NvidiaStatus {
        let on_bus = self.cards.as_deref();
        match &self.nvml {
            NvmlState::Loaded { cards: 0, .. } if on_bus.is_none_or(<[_]>::is_empty) => {
                NvidiaStatus::NoCard
            }
            NvmlState::Loaded { cards: 0, .. } => NvidiaStatus::NotResponding {
                message: "it sees no card although one is on the bus".to_owned(),
            },
            NvmlState::Loaded { driver, cuda: Some(cuda), .. } if *cuda >= CudaVersion::FLOOR => {
                NvidiaStatus::Ready { driver: driver.clone(), cuda: *cuda }
            }
            NvmlState::Loaded { driver, cuda, .. } => {
                NvidiaStatus::DriverTooOld { driver: driver.clone(), cuda: *cuda }
            }
            NvmlState::VersionMismatch => NvidiaStatus::VersionMismatch,
            NvmlState::Failed { message } => {
                NvidiaStatus::NotResponding { message: message.clone() }
            }
            NvmlState::Absent | NvmlState::DriverNotLoaded => self.without_library(),
        }
    }

    /// The status when the library is absent or reaches no driver.
    fn without_library(&self) -> NvidiaStatus {
        if let Some(driver) = &self.kernel_driver {
            return if self.nvml == NvmlState::Absent {
                NvidiaStatus::LibraryMissing { driver: driver.clone() }
            } else {
                NvidiaStatus::NotResponding {
                    message: "its library does not reach the kernel driver".to_owned(),
                }
            };
        }
        let Some(cards) = &self.cards else { return NvidiaStatus::NoDriver { cards: None } };
        if cards.is_empty() {
            return NvidiaStatus::NoCard;
        }
        let foreign = cards
            .iter()
            .filter_map(|card| card.bound_driver.as_deref())
            .find(|driver| *driver != "nvidia");
        match foreign {
            Some(driver) => NvidiaStatus::OtherDriver { driver: driver.to_owned() },
            None => NvidiaStatus::NoDriver { cards: Some(u32::try_from(cards.len()).unwrap_or(1)) },
        }
    }

    /// Each layer on a line, for the doctor: its name and what was found.
    pub fn layers(&self) -> [(&'static str, String); 4] {
        let card = match self.cards.as_deref() {
            None => "cannot be seen on this system".to_owned(),
            Some([]) => "none on the PCI bus".to_owned(),
            Some(cards) => {
                let list = cards.iter().map(|card| {
                    let holder = card.bound_driver.as_deref().unwrap_or("no driver");
                    format!("10de:{} at {} ({holder})", card.device_id, card.address)
                });
                list.collect::<Vec<_>>().join(", ")
            }
        };
        let kernel = match (&self.kernel_driver, cfg!(target_os = "linux")) {
            (Some(version), _) => format!("version {version}"),
            (None, true) => "not loaded".to_owned(),
            (None, false) => "cannot be seen on this system".to_owned(),
        };
        let (library, cuda) = match &self.nvml {
            NvmlState::Absent => ("not installed".to_owned(), None),
            NvmlState::DriverNotLoaded => ("finds no driver".to_owned(), None),
            NvmlState::VersionMismatch => {
                ("of another version than the kernel driver".to_owned(), None)
            }
            NvmlState::Failed { message } => (format!("fails: {message}"), None),
            NvmlState::Loaded { driver, cuda, cards } => {
                (format!("version {driver}, sees {cards} card(s)"), *cuda)
            }
        };
        let cuda = cuda.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
        [
            ("card", card),
            ("kernel driver", kernel),
            ("driver library", library),
            ("CUDA version", format!("{cuda} (at least {} is needed)", CudaVersion::FLOOR)),
        ]
    }
}

impl NvidiaStatus {
    /// Whether jobs can run on a card, as far as the driver goes.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// How it stands, in one sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Ready { driver, cuda } => {
                format!("The NVIDIA driver {driver} is ready (CUDA {cuda}).")
            }
            Self::NoCard => {
                "This machine has no NVIDIA card, so jobs run on the processor.".to_owned()
            }
            Self::NoDriver { cards: Some(1) } => "There is an NVIDIA card in this machine, but no \
                 NVIDIA driver runs, so jobs run on the processor."
                .to_owned(),
            Self::NoDriver { cards: Some(cards) } => format!(
                "There are {cards} NVIDIA cards in this machine, but no NVIDIA driver runs, so \
                 jobs run on the processor."
            ),
            Self::NoDriver { cards: None } => {
                "No NVIDIA driver is installed, so jobs run on the processor.".to_owned()
            }
            Self::OtherDriver { driver } => format!(
                "There is an NVIDIA card in this machine, but the driver `{driver}` holds it, \
                 which cannot compute, so jobs run on the processor."
            ),
            Self::LibraryMissing { driver } => format!(
                "The NVIDIA kernel driver {driver} runs, but its library (libnvidia-ml) is \
                 missing, so jobs run on the processor."
            ),
            Self::VersionMismatch => "The NVIDIA driver was updated and the machine has not been \
                 restarted since, so jobs run on the processor."
                .to_owned(),
            Self::DriverTooOld { driver, cuda } => {
                let speaks = cuda.map_or_else(String::new, |cuda| format!(" (CUDA {cuda})"));
                format!(
                    "The NVIDIA driver {driver}{speaks} is too old: CUDA {} is needed, so jobs \
                     run on the processor.",
                    CudaVersion::FLOOR
                )
            }
            Self::NotResponding { message } => format!(
                "The NVIDIA driver does not work ({message}), so jobs run on the processor."
            ),
        }
    }

    /// What to do about it; `None` where nothing is wrong.
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Ready { .. } | Self::NoCard => None,
            Self::NoDriver { cards: None } => {
                Some("If this machine has an NVIDIA card, install NVIDIA's driver and restart.")
            }
            Self::NoDriver { .. } => {
                Some("Install NVIDIA's driver, version 525 or newer, and restart.")
            }
            Self::OtherDriver { .. } => Some(
                "Install NVIDIA's driver, version 525 or newer, in place of that one, and restart.",
            ),
            Self::LibraryMissing { .. } => Some(
                "Install the rest of the driver (on Debian the package libnvidia-ml1), or start \
                 the container with the NVIDIA runtime.",
            ),
            Self::VersionMismatch => Some("Restart the machine."),
            Self::DriverTooOld { .. } => Some("Install NVIDIA's driver, version 525 or newer."),
            Self::NotResponding { .. } => {
                Some("Restart the machine; if that does not help, install the driver anew.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(driver: Option<&str>) -> PciCard {
        PciCard {
            address: "0000:01:00.0".to_owned(),
            device_id: "2684".to_owned(),
            bound_driver: driver.map(str::to_owned),
        }
    }

    fn report(
        cards: Option<Vec<PciCard>>,
        kernel_driver: Option<&str>,
        nvml: NvmlState,
    ) -> NvidiaReport {
        NvidiaReport { cards, kernel_driver: kernel_driver.map(str::to_owned), nvml }
    }

    fn loaded(number: i32, cards: u32) -> NvmlState {
        NvmlState::Loaded {
            driver: "535.183.01".to_owned(),
            cuda: CudaVersion::from_driver(number),
            cards,
        }
    }

    #[test]
    fn no_card_and_no_driver_are_told_apart() {
        let none = report(Some(vec![]), None, NvmlState::Absent).status();
        assert_eq!(none, NvidiaStatus::NoCard);
        let waiting = report(Some(vec![card(None)]), None, NvmlState::Absent).status();
        assert_eq!(waiting, NvidiaStatus::NoDriver { cards: Some(1) });
        assert_ne!(none.sentence(), waiting.sentence());
        assert_eq!(none.fix(), None);
        assert!(waiting.fix().is_some());
        let blind = report(None, None, NvmlState::Absent).status();
        assert_eq!(blind, NvidiaStatus::NoDriver { cards: None });
    }

    #[test]
    fn each_layer_that_fails_is_named() {
        let cards = || Some(vec![card(Some("nvidia"))]);
        let cases = [
            (report(Some(vec![card(Some("nouveau"))]), None, NvmlState::Absent), "nouveau"),
            (report(cards(), Some("535.1"), NvmlState::Absent), "libnvidia-ml"),
            (report(cards(), Some("535.1"), NvmlState::DriverNotLoaded), "does not reach"),
            (report(cards(), Some("535.1"), NvmlState::VersionMismatch), "restarted"),
            (report(cards(), Some("470.1"), loaded(11_040, 1)), "CUDA 11.4"),
            (report(cards(), Some("535.1"), loaded(12_020, 0)), "sees no card"),
            (
                report(cards(), None, NvmlState::Failed { message: "GPU is lost".to_owned() }),
                "GPU is lost",
            ),
        ];
        for (report, word) in cases {
            let status = report.status();
            assert!(!status.is_ready(), "{status:?}");
            assert!(status.sentence().contains(word), "{} / {word}", status.sentence());
            assert!(status.fix().is_some(), "{status:?}");
        }
    }

    #[test]
    fn a_working_driver_is_ready_from_cuda_12_on() {
        let cards = Some(vec![card(Some("nvidia"))]);
        for (number, ready) in [(12_000, true), (12_080, true), (13_000, true), (11_080, false)] {
            let status = report(cards.clone(), Some("535.1"), loaded(number, 1)).status();
            assert_eq!(status.is_ready(), ready, "{number}");
        }
        // WSL shows no card on its bus, and NVML works all the same.
        assert!(report(Some(vec![]), None, loaded(12_040, 1)).status().is_ready());
        // A driver without a card.
        assert_eq!(report(Some(vec![]), None, loaded(12_040, 0)).status(), NvidiaStatus::NoCard);
    }

    #[test]
    fn driver_numbers_become_versions() {
        let version = |number| CudaVersion::from_driver(number).map(|v| v.to_string());
        assert_eq!(version(12_040).as_deref(), Some("12.4"));
        assert_eq!(version(13_000).as_deref(), Some("13.0"));
        assert_eq!(version(0), None);
        assert_eq!(version(-1), None);
    }

    #[test]
    fn the_layers_show_what_was_found() {
        let layers =
            report(Some(vec![card(Some("nvidia"))]), Some("535.1"), loaded(12_020, 1)).layers();
        assert_eq!(layers[0].1, "10de:2684 at 0000:01:00.0 (nvidia)");
        assert_eq!(layers[1].1, "version 535.1");
        assert!(layers[3].1.starts_with("12.2 "));
        let layers = report(Some(vec![]), None, NvmlState::Absent).layers();
        assert_eq!(layers[0].1, "none on the PCI bus");
        assert_eq!(layers[2].1, "not installed");
    }
}
