//! What the desktop around the program tells: whether somebody uses it, what is in front, which
//! programs run, where power and network come from.
//!
//! [`Surroundings`] is the door; [`open`] gives the one of this system, and [`script`] one that
//! reads a file, for tests. What a system does not tell is `None`: nothing here guesses. Reading
//! order: this file, `awake` (keeping the computer from sleep), `notify`, `hotkey`, `libraries` (where games lie), then the module of the system (`linux` with `x11`, `bus` and `proc`, or
//! `windows`), then `script`.

mod awake;
#[cfg(any(windows, test))]
mod full_screen;
mod hotkey;
mod language;
#[cfg(any(target_os = "linux", windows))]
mod libraries;
mod notify;
mod script;

#[cfg(target_os = "linux")]
mod bus;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod logind;
#[cfg(all(test, target_os = "linux"))]
mod private_bus;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(windows)]
#[expect(unsafe_code, reason = "the calls of Windows are unsafe; each says why it is sound")]
mod windows;
#[cfg(windows)]
#[expect(unsafe_code, reason = "the calls of Windows are unsafe; each says why it is sound")]
mod windows_awake;
#[cfg(windows)]
#[expect(unsafe_code, reason = "the calls of Windows are unsafe; each says why it is sound")]
mod windows_hotkey;
#[cfg(windows)]
#[expect(unsafe_code, reason = "the calls of Windows are unsafe; each says why it is sound")]
mod windows_load;
#[cfg(windows)]
mod windows_notify;
#[cfg(target_os = "linux")]
mod x11;
#[cfg(target_os = "linux")]
mod x11_hotkey;

use neurino_control::Program;

pub use awake::{Awake, AwakeError, open_awake};
pub use hotkey::{HeldKey, HotkeyError, Hotkeys, Pressed, open_hotkeys};
pub use language::language;
pub use notify::{NotifyError, notify};
pub use script::Script;

/// A source of [`View`]s.
pub trait Surroundings: Send {
    /// Looks once. Takes milliseconds, and a second where a service of the desktop hangs: keep it
    /// off async threads. Call it about once a second.
    fn look(&mut self) -> View;
}

/// What the desktop tells at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Seconds since mouse or keyboard was last used.
    pub idle_secs: Option<u32>,
    /// Whether another person's session is the one in front of this machine: their programs may not be
    /// looked at.
    pub other_user: Option<bool>,
    /// Whether the machine runs on its battery; a machine without one does not.
    pub on_battery: Option<bool>,
    /// Whether the network is metered.
    pub metered: Option<bool>,
    /// The running programs, each once, by name.
    pub programs: Option<Vec<Program>>,
    /// The window in front.
    pub front: Front,
    /// How busy the program in front keeps the card, in per cent, where the system tells; a driver may
    /// know it where the system does not.
    pub front_load_percent: Option<u8>,
}

/// The window in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Front {
    /// The system does not tell.
    #[default]
    Unknown,
    /// There is none, or it is the desktop itself.
    Nothing,
    /// A program's window.
    Window {
        /// The program's name, as rules write it.
        program: String,
        /// Its process, where the system tells.
        process: Option<u32>,
        /// Whether it fills a screen.
        full_screen: bool,
    },
}

/// The surroundings of this process; on a system without a module of its own nothing is known.
pub fn open() -> Box<dyn Surroundings> {
    #[cfg(target_os = "linux")]
    return Box::new(linux::Linux::open());
    #[cfg(windows)]
    return Box::new(windows::Windows::default());
    #[cfg(not(any(target_os = "linux", windows)))]
    return Box::new(Nothing);
}

#[cfg(not(any(target_os = "linux", windows)))]
struct Nothing;

#[cfg(not(any(target_os = "linux", windows)))]
impl Surroundings for Nothing {
    fn look(&mut self) -> View {
        View::default()
    }
}

/// Each program once, by name; of two with one name the game of a store.
#[cfg(any(target_os = "linux", windows))]
fn once_each(mut programs: Vec<Program>) -> Vec<Program> {
    programs.retain(|program| !program.name.is_empty());
    programs.sort_by(|a, b| (&a.name, b.in_library).cmp(&(&b.name, a.in_library)));
    programs.dedup_by(|later, first| later.name == first.name);
    programs
}
