//! Graphics cards on the PCI bus, seen without any driver.

use std::fs;
use std::path::Path;

use serde::Serialize;

const NVIDIA: &str = "0x10de";
/// Display controllers: VGA, XGA, 3D, other.
const DISPLAY_CLASS: &str = "0x03";

/// An NVIDIA graphics card on the bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PciCard {
    /// Where it sits, for example `0000:01:00.0`.
    pub address: String,
    /// Its product number, for example `2684`.
    pub device_id: String,
    /// The kernel driver that holds it: `nvidia`, `nouveau`, `vfio-pci`; `None` if nobody does.
    pub bound_driver: Option<String>,
}

/// The NVIDIA cards of this machine; `None` where the bus cannot be seen.
pub(crate) fn nvidia_cards() -> Option<Vec<PciCard>> {
    if cfg!(target_os = "linux") {
        nvidia_cards_in(Path::new("/sys/bus/pci/devices"))
    } else {
        None
    }
}

fn nvidia_cards_in(devices: &Path) -> Option<Vec<PciCard>> {
    let mut cards: Vec<_> =
        fs::read_dir(devices).ok()?.flatten().filter_map(|entry| card(&entry.path())).collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    Some(cards)
}

fn card(folder: &Path) -> Option<PciCard> {
    let attribute = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        Some(text.trim().to_ascii_lowercase())
    };
    if attribute("vendor")? != NVIDIA || !attribute("class")?.starts_with(DISPLAY_CLASS) {
        return None;
    }
    let bound = fs::read_link(folder.join("driver")).ok();
    Some(PciCard {
        address: folder.file_name()?.to_str()?.to_owned(),
        device_id: attribute("device")?.trim_start_matches("0x").to_owned(),
        bound_driver: bound.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
    })
}

/// Version of the loaded NVIDIA kernel driver, for example `570.86.15`.
pub(crate) fn kernel_driver() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let banner = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let module = || fs::read_to_string("/sys/module/nvidia/version").ok();
    banner.as_deref().and_then(parse_version).or_else(|| parse_version(&module()?))
}

/// The first word that looks like a driver version: digits in two or three parts.
fn parse_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let parts: Vec<_> = word.split('.').collect();
        (2..=3).contains(&parts.len())
            && parts.iter().all(|part| {
                !part.is_empty()
                    && part.len() <= 4
                    && part.bytes().all(|byte| byte.is_ascii_digit())
            })
    };
    text.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn device(root: &Path, address: &str, vendor: &str, class: &str, driver: Option<&str>) {
        let folder = root.join(address);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
        fs::write(folder.join("device"), "0x2684\n").unwrap();
        fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        #[cfg(unix)]
        if let Some(driver) = driver {
            let target = Path::new("../../../bus/pci/drivers").join(driver);
            std::os::unix::fs::symlink(target, folder.join("driver")).unwrap();
        }
        #[cfg(not(unix))]
        let _ = driver;
    }

    #[test]
    fn only_nvidia_display_controllers_count() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "0000:41:00.0", "0x10de", "0x030200", Some("nvidia"));
        device(root.path(), "0000:01:00.0", "0x10DE", "0x030000", None);
        // The card's own sound function, an AMD card, a network card.
        device(root.path(), "0000:01:00.1", "0x10de", "0x040300", Some("snd_hda_intel"));
        device(root.path(), "0000:03:00.0", "0x1002", "0x030000", Some("amdgpu"));
        device(root.path(), "0000:04:00.0", "0x8086", "0x020000", None);
        fs::create_dir(root.path().join("0000:05:00.0")).unwrap();

        let cards = nvidia_cards_in(root.path()).unwrap();
        let seen: Vec<_> = cards.iter().map(|card| card.address.as_str()).collect();
        assert_eq!(seen, ["0000:01:00.0", "0000:41:00.0"]);
        assert_eq!(cards[0].device_id, "2684");
        assert_eq!(cards[0].bound_driver, None);
        #[cfg(unix)]
        assert_eq!(cards[1].bound_driver.as_deref(), Some("nvidia"));
        assert_eq!(nvidia_cards_in(&root.path().join("none")), None);
    }

    #[test]
    fn driver_banners_of_both_kinds_are_read() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 \
                      19:39:15 UTC 2024\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1)\n";
        assert_eq!(parse_version(closed).as_deref(), Some("535.183.01"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release \
                    Build  (dvs-builder@U22)\nGCC version:  gcc version 13.3.0\n";
        assert_eq!(parse_version(open).as_deref(), Some("580.95.05"));
        assert_eq!(parse_version("560.35.03\n").as_deref(), Some("560.35.03"));
        assert_eq!(parse_version("525.60\n").as_deref(), Some("525.60"));
        assert_eq!(parse_version("no version here. 12 . 1.2.3.4"), None);
    }
}
