//! Where what was tuned for a card is kept, so that only the first start of a build pays for it.
//!
//! The product of matrices that prompts go through on a card is tried out in several forms for each size
//! while a model is warmed up, never inside a job. What was found is written into a file of CubeCL's, in
//! a folder of the program's data: one for each card, driver and build, since another of these may do
//! better with another form. The files of earlier drivers and builds go when the next one begins. Beside it
//! lies what was warmed up with it ([`Warmed`]).

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use neurino_hardware::{Gpu, Hardware, NvidiaStatus};

use crate::api::DeviceChoice;
use crate::warmed::Warmed;

/// Says which cards CUDA shows to a process, and in which order.
pub(crate) const VISIBLE_CARDS: &str = "CUDA_VISIBLE_DEVICES";

/// What a file of tunings is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuningKey {
    /// The cards that a process computes on: a name and a number that tells them apart.
    card: String,
    /// The version of their driver.
    driver: String,
    /// This program's build.
    build: String,
}

impl TuningKey {
    /// The key of a process that computes on `choice`; `None` where no card works.
    pub fn of_this_machine(choice: DeviceChoice) -> Option<Self> {
        if choice == DeviceChoice::Cpu {
            return None;
        }
        let hardware = Hardware::probe();
        let NvidiaStatus::Ready { driver, .. } = hardware.nvidia().status() else { return None };
        let visible = std::env::var(VISIBLE_CARDS).unwrap_or_default();
        let seat = format!("{} {visible}", seat(choice, hardware.gpus().len()));
        Some(Self::new(hardware.gpus(), &seat, &driver, &build()))
    }

    /// - `seat`: which of the cards a process computes on
    fn new(cards: &[Gpu], seat: &str, driver: &str, build: &str) -> Self {
        let each = cards.iter().map(|card| format!("{}{:?}", card.name, card.uuid));
        let number = fingerprint(each.chain([seat.to_owned()]));
        let name = cards.first().map_or("card", |card| card.name.as_str());
        Self {
            card: format!("{}-{number:08x}", plain(name)),
            driver: plain(driver),
            build: plain(build),
        }
    }

    /// The name of its file, without the ending.
    pub fn name(&self) -> String {
        format!("{}_{}_{}", self.card, self.driver, self.build)
    }

    /// Whether a file belongs to the same cards with another driver or build.
    fn outdates(&self, file: &str) -> bool {
        let own = self.name();
        // Beside the file itself lie what its database notes on the way.
        let is_own = file.strip_prefix(&own).is_some_and(|rest| rest.starts_with('.'));
        file.starts_with(&format!("{}_", self.card)) && !is_own
    }
}

/// Which of a machine's cards a process computes on: the same words for every choice that comes to the
/// same cards, so that what the window, the benchmark and `neurino tune` find out is one another's.
fn seat(choice: DeviceChoice, cards: usize) -> String {
    match choice {
        DeviceChoice::Cuda(index) if cards > 1 => format!("card {index}"),
        _ => "all".into(),
    }
}

/// Keeps tunings of this process below `folder` from now on, and tells what was warmed up with those that are
/// there. To be called before anything is asked of a card. Where the folder cannot be used, or in a build
/// for the CPU, each start tunes anew.
pub fn keep_in(folder: &Path, choice: DeviceChoice) -> Warmed {
    if !crate::device::computes_on_cards() {
        return Warmed::default();
    }
    let Some(key) = TuningKey::of_this_machine(choice) else { return Warmed::default() };
    let warmed = match prepare(folder, &key) {
        Ok(warmed) => warmed,
        Err(error) => {
            tracing::warn!(%error, "the folder for tunings cannot be used");
            return Warmed::default();
        }
    };
    if !neurino_nn::device::keep_tunings(folder, &key.name()) {
        tracing::warn!("tunings are kept elsewhere, because a card is in use already");
        return Warmed::default();
    }
    warmed
}

/// Makes the folder, removes what nobody will read again, and reads what was warmed up.
fn prepare(folder: &Path, key: &TuningKey) -> std::io::Result<Warmed> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| key.outdates(file)) {
            fs::remove_file(entry.path())?;
        }
    }
    let file = |ending: &str| folder.join(format!("{}.{ending}", key.name()));
    Warmed::kept_in(file("warm"), &file("db"))
}

/// This program's version, and a number that changes whenever it is built or installed anew.
fn build() -> String {
    let program = std::env::current_exe().and_then(fs::metadata);
    let facts = program.map(|metadata| {
        let changed =
            metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        format!("{} {changed:?}", metadata.len())
    });
    let number = fingerprint([facts.unwrap_or_default()]);
    format!("{}-{number:08x}", env!("CARGO_PKG_VERSION"))
}

/// FNV-1a, which is the same in every build.
fn fingerprint(texts: impl IntoIterator<Item = String>) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let bytes = texts.into_iter().flat_map(|text| (text + "\n").into_bytes());
    bytes.fold(0x811c_9dc5, step)
}

/// A text as part of a file's name.
fn plain(text: &str) -> String {
    let keep =
        |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    text.chars().map(keep).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn card(name: &str, uuid: &str) -> Gpu {
        Gpu {
            index: 0,
            name: name.into(),
            uuid: Some(uuid.into()),
            pci_address: None,
            memory_bytes: None,
            compute_capability: None,
            instance_of: None,
        }
    }

    #[test]
    fn every_card_driver_and_build_has_a_file_of_its_own() {
        let new = |card: Gpu, seat: &str, driver: &str, build: &str| {
            TuningKey::new(&[card], seat, driver, build).name()
        };
        let one = || card("NVIDIA GeForce RTX 4070 Ti", "GPU-1");
        let first = new(one(), "Cuda(0)", "550.54.14", "0.1.0-12");
        assert_eq!(first, new(one(), "Cuda(0)", "550.54.14", "0.1.0-12"));
        assert!(first.starts_with("nvidia-geforce-rtx-4070-ti-"), "{first}");
        assert!(first.ends_with("_550.54.14_0.1.0-12"), "{first}");
        let others = [
            new(card("NVIDIA GeForce RTX 4070 Ti", "GPU-2"), "Cuda(0)", "550.54.14", "0.1.0-12"),
            new(card("NVIDIA H200", "GPU-1"), "Cuda(0)", "550.54.14", "0.1.0-12"),
            new(one(), "Cuda(1)", "550.54.14", "0.1.0-12"),
            new(one(), "Cuda(0)", "551.0", "0.1.0-12"),
            new(one(), "Cuda(0)", "550.54.14", "0.1.0-13"),
            new(one(), "Cuda(0)", "550.54.14", "0.2.0-12"),
        ];
        for other in others {
            assert_ne!(first, other);
        }
        let strange = new(card("../Weird\\Card:*", "x"), "", "1/2", "3 4");
        assert!(
            strange.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
            "{strange}"
        );
    }

    #[test]
    fn what_an_earlier_driver_or_build_left_goes_and_other_cards_keep_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("data/tuning");
        let key = |uuid: &str, driver: &str, build: &str| {
            TuningKey::new(&[card("A", uuid)], "Cuda(0)", driver, build)
        };
        let now = key("GPU-1", "551", "0.2.0-aa");
        prepare(&below, &now).unwrap();
        let old = [key("GPU-1", "550", "0.2.0-aa"), key("GPU-1", "551", "0.2.0-ab")];
        let kept = [now.clone(), key("GPU-2", "550", "0.1.0-bb")];
        for key in old.iter().chain(&kept) {
            for ending in ["db", "db-wal", "warm"] {
                fs::write(below.join(format!("{}.{ending}", key.name())), "x").unwrap();
            }
        }
        assert!(prepare(&below, &now).unwrap().has("x"));
        let left = |key: &TuningKey| below.join(format!("{}.db", key.name())).exists();
        assert!(!old.iter().any(left) && kept.iter().all(left));
        assert_eq!(fs::read_dir(&below).unwrap().count(), 6);
    }

    #[test]
    fn choices_of_the_same_cards_share_a_file() {
        let one = [DeviceChoice::Auto, DeviceChoice::Cards, DeviceChoice::Cuda(0)];
        assert!(one.iter().all(|choice| seat(*choice, 1) == "all"));
        let several = [DeviceChoice::Auto, DeviceChoice::Cuda(0), DeviceChoice::Cuda(1)];
        assert_eq!(several.map(|choice| seat(choice, 2)), ["all", "card 0", "card 1"]);
    }

    #[test]
    fn a_processor_has_nothing_to_tune() {
        assert_eq!(TuningKey::of_this_machine(DeviceChoice::Cpu), None);
        assert_eq!(build(), build());
    }
}
