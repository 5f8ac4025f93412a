//! Linux: put together from the X server, the session bus, `/proc` and `/sys`.

use std::path::Path;
use std::time::Instant;

use crate::bus::Bus;
use crate::proc::Processes;
use crate::x11::{self, Display};
use crate::{Front, Surroundings, View};

/// Looks between two questions about the network, which changes seldom.
const NETWORK_EVERY: u32 = 15;
/// Looks between two questions about who sits at the machine.
const SEAT_EVERY: u32 = 3;
/// Looks between two attempts to reach an X server.
const DISPLAY_EVERY: u32 = 15;

/// The surroundings under Linux.
pub(crate) struct Linux {
    looks: u32,
    /// A Wayland compositor knows better than its X server when input was last seen.
    wayland: bool,
    display: Option<Display>,
    bus: Bus,
    processes: Processes,
    metered: Option<bool>,
    other_user: Option<bool>,
}

impl Linux {
    pub(crate) fn open() -> Self {
        let wayland = std::env::var_os("WAYLAND_DISPLAY").is_some_and(|name| !name.is_empty());
        Self {
            looks: 0,
            wayland,
            display: None,
            bus: Bus::default(),
            processes: Processes::default(),
            metered: None,
            other_user: None,
        }
    }

    fn front(&mut self) -> Front {
        let window = match self.display.as_ref().map(Display::active_window) {
            None => return Front::Unknown,
            Some(Err(_)) => {
                self.display = None;
                return Front::Unknown;
            }
            // Under Wayland most windows are none of the X server's.
            Some(Ok(None)) if self.wayland => return Front::Unknown,
            Some(Ok(None)) => return Front::Nothing,
            Some(Ok(Some(window))) => window,
        };
        let x11::Window { process, class, full_screen } = window;
        let program = process.and_then(|id| self.processes.name(id)).unwrap_or(class);
        if program.is_empty() {
            return Front::Nothing;
        }
        Front::Window { program, process, full_screen }
    }

    fn idle_secs(&mut self) -> Option<u32> {
        let now = Instant::now();
        if self.wayland {
            return self.bus.idle_secs(now);
        }
        self.display.as_ref().and_then(Display::idle_secs).or_else(|| self.bus.idle_secs(now))
    }
}

impl Surroundings for Linux {
    fn look(&mut self) -> View {
        if self.display.is_none() && self.looks.is_multiple_of(DISPLAY_EVERY) {
            self.display = Display::open();
        }
        if self.looks.is_multiple_of(NETWORK_EVERY) {
            self.metered = self.bus.metered(Instant::now());
        }
        if self.looks.is_multiple_of(SEAT_EVERY) {
            self.other_user = self.bus.other_user(Instant::now());
        }
        self.looks = self.looks.wrapping_add(1);
        let programs = self.processes.programs();
        View {
            idle_secs: self.idle_secs(),
            other_user: self.other_user,
            on_battery: on_battery(Path::new("/sys/class/power_supply")),
            metered: self.metered,
            programs,
            front: self.front(),
            front_load_percent: None,
        }
    }
}

/// Whether the machine runs on its battery: it has one that is being emptied, and no mains supply
/// is plugged in. Batteries of mice and the like have the scope `Device`.
fn on_battery(supplies: &Path) -> Option<bool> {
    let (mut plugged, mut emptied) = (false, false);
    for supply in std::fs::read_dir(supplies).ok()?.flatten() {
        let read = |name: &str| {
            let text = std::fs::read_to_string(supply.path().join(name)).unwrap_or_default();
            text.trim().to_owned()
        };
        if read("scope") == "Device" {
            continue;
        }
        match read("type").as_str() {
            "Battery" => emptied |= read("status") == "Discharging",
            "Mains" | "USB" => plugged |= read("online") == "1",
            _ => {}
        }
    }
    Some(emptied && !plugged)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn check(supplies: &[&[(&str, &str)]], expect: bool) {
        let folder = tempfile::tempdir().unwrap();
        for (index, files) in supplies.iter().enumerate() {
            let supply = folder.path().join(index.to_string());
            std::fs::create_dir(&supply).unwrap();
            for (name, text) in *files {
                std::fs::write(supply.join(name), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(on_battery(folder.path()), Some(expect), "{supplies:?}");
    }

    #[test]
    fn a_battery_counts_while_it_is_emptied_and_nothing_is_plugged_in() {
        check(&[], false);
        let empties = [("type", "Battery"), ("status", "Discharging")];
        let charges = [("type", "Battery"), ("status", "Charging")];
        let mains = |online| [("type", "Mains"), ("online", online)];
        check(&[&empties], true);
        check(&[&empties, &mains("0")], true);
        check(&[&empties, &mains("1")], false);
        check(&[&charges, &mains("1")], false);
        let mouse = [("type", "Battery"), ("status", "Discharging"), ("scope", "Device")];
        check(&[&mouse], false);
        assert_eq!(on_battery(Path::new("/nowhere")), None);
    }

    #[test]
    fn this_machine_can_be_looked_at_again_and_again() {
        let mut linux = Linux::open();
        let begin = std::time::Instant::now();
        for _ in 0..20 {
            let view = linux.look();
            let programs = view.programs.unwrap();
            assert!(!programs.is_empty() && programs.is_sorted_by(|a, b| a.name < b.name));
        }
        // Once a second, so that this is far from half a per cent of a core.
        assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
    }
}
