//! The processor and the memory beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use sysinfo::{Component, Components, System};

use crate::memory::memory_of;

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Its name, as its maker spells it.
    pub name: String,
    /// Cores; `None` if the system does not say.
    pub cores_physical: Option<usize>,
    /// Threads this process may use at once: what cores, affinity and container limits leave.
    pub threads: usize,
    /// Memory of the machine, or of the container if it has a limit, in bytes.
    pub memory_bytes: u64,
    /// Sum of the last-level caches in bytes; `None` if the system does not say.
    pub last_level_cache_bytes: Option<u64>,
}

pub(crate) fn describe(system: &System) -> Cpu {
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    Cpu {
        name: brand.filter(|name| !name.is_empty()).unwrap_or_else(System::cpu_arch),
        cores_physical: System::physical_core_count(),
        threads: threads(),
        memory_bytes: memory_of(system).total_bytes,
        last_level_cache_bytes: last_level_cache_bytes(),
    }
}

/// Threads this process may use at once, at least one.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The sensor that stands for the whole processor, among all of the machine.
pub(crate) fn sensor(components: &mut Components) -> Option<&mut Component> {
    let rank = |label: &str| {
        let label = label.to_ascii_lowercase();
        ["package id 0", "tctl", "tdie", "cpu"].iter().position(|name| label.contains(name))
    };
    components
        .list_mut()
        .iter_mut()
        .filter_map(|component| Some((rank(component.label())?, component)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, component)| component)
}

/// Sum of the caches of the highest level, each counted once however many cores share it.
pub(crate) fn last_level_cache_bytes() -> Option<u64> {
    if cfg!(target_os = "linux") { caches_in(Path::new("/sys/devices/system/cpu")) } else { None }
}

fn caches_in(root: &Path) -> Option<u64> {
    let mut caches: BTreeMap<(u32, String), u64> = BTreeMap::new();
    for core in fs::read_dir(root).ok()?.flatten() {
        let Ok(indices) = fs::read_dir(core.path().join("cache")) else { continue };
        for index in indices.flatten() {
            let attribute = |name: &str| {
                let text = fs::read_to_string(index.path().join(name)).ok()?;
                Some(text.trim().to_owned())
            };
            let Some(level) = attribute("level").and_then(|level| level.parse().ok()) else {
                continue;
            };
            let Some(size) = attribute("size").as_deref().and_then(parse_size) else { continue };
            caches.insert((level, attribute("shared_cpu_list").unwrap_or_default()), size);
        }
    }
    let top = caches.keys().map(|(level, _)| *level).max()?;
    Some(caches.iter().filter(|((level, _), _)| *level == top).map(|(_, size)| size).sum())
}

/// `32768K` or `32M` in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn shared_caches_count_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = |core: u32, index: u32, level: u32, size: &str, shared: &str| {
            let folder = root.path().join(format!("cpu{core}/cache/index{index}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("level"), format!("{level}\n")).unwrap();
            fs::write(folder.join("size"), format!("{size}\n")).unwrap();
            fs::write(folder.join("shared_cpu_list"), format!("{shared}\n")).unwrap();
        };
        for core in 0..4 {
            cache(core, 0, 1, "48K", &core.to_string());
            cache(core, 3, 3, "32768K", if core < 2 { "0-1" } else { "2-3" });
        }
        assert_eq!(caches_in(root.path()), Some(64 << 20));
        assert_eq!(caches_in(&root.path().join("none")), None);
    }

    #[test]
    fn cache_sizes_are_read() {
        assert_eq!(parse_size("48K"), Some(48 << 10));
        assert_eq!(parse_size("32M"), Some(32 << 20));
        assert_eq!(parse_size("512"), Some(512));
        assert_eq!(parse_size("K"), None);
        assert_eq!(parse_size(""), None);
    }
}
