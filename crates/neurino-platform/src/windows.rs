//! Windows: documented calls of user32, shell32 and kernel32, and the Windows Runtime's word on what the
//! network costs.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::mem::size_of;
use std::time::Instant;

use neurino_control::{Program, games};
use windows::Networking::Connectivity::{NetworkCostType, NetworkInformation};
use windows::Win32::Foundation::{CloseHandle, HANDLE, HWND, RECT};
use windows::Win32::Globalization::GetUserDefaultLocaleName;
use windows::Win32::Graphics::Gdi::{
    GetMonitorInfoW, MONITOR_DEFAULTTONEAREST, MONITORINFO, MonitorFromWindow,
};
use windows::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows::Win32::System::Power::{GetSystemPowerStatus, SYSTEM_POWER_STATUS};
use windows::Win32::System::RemoteDesktop::{
    ProcessIdToSessionId, WTS_SESSION_INFOW, WTSActive, WTSEnumerateSessionsW, WTSFreeMemory,
    WTSGetActiveConsoleSessionId,
};
use windows::Win32::System::SystemInformation::GetTickCount;
use windows::Win32::System::Threading::{
    GetCurrentProcessId, OpenProcess, PROCESS_NAME_WIN32, PROCESS_QUERY_LIMITED_INFORMATION,
    QueryFullProcessImageNameW,
};
use windows::Win32::UI::Input::KeyboardAndMouse::{GetLastInputInfo, LASTINPUTINFO};
use windows::Win32::UI::Shell::{QUNS_RUNNING_D3D_FULL_SCREEN, SHQueryUserNotificationState};
use windows::Win32::UI::WindowsAndMessaging::{
    GWL_STYLE, GetClassNameW, GetForegroundWindow, GetWindowLongPtrW, GetWindowRect,
    GetWindowThreadProcessId, IsZoomed,
};
use windows::core::PWSTR;

use crate::full_screen::Shown;
use crate::libraries::GameFolders;
use crate::windows_load::CardLoad;
use crate::{Front, Surroundings, View, once_each};

/// Windows that fill the screen because they are the desktop.
const DESKTOP_CLASSES: [&str; 3] = ["Progman", "WorkerW", "Shell_TrayWnd"];
/// The longest path Windows gives.
const PATH_CHARS: usize = 32_768;

/// The longest name of a locale, its end included (`LOCALE_NAME_MAX_LENGTH`).
const LOCALE_CHARS: usize = 85;

/// The person's locale, for example `de-DE`.
pub(crate) fn locale_name() -> Option<String> {
    let mut name = [0_u16; LOCALE_CHARS];
    // SAFETY: the buffer lives through the call, which gets its length with it.
    let with_end = unsafe { GetUserDefaultLocaleName(&mut name) };
    let chars = usize::try_from(with_end).ok()?.checked_sub(1)?;
    String::from_utf16(name.get(..chars)?).ok()
}

/// Looks between two questions about the network, which changes seldom.
const NETWORK_EVERY: u32 = 15;

/// The surroundings under Windows.
#[derive(Default)]
pub(crate) struct Windows {
    looks: u32,
    metered: Option<bool>,
    /// Programs by process and the name in the process table, which tells a reused number.
    known: HashMap<(u32, String), Program>,
    folders: GameFolders,
    /// Opened at the first look; none where there are no such counters.
    load: OnceCell<Option<CardLoad>>,
}

impl Surroundings for Windows {
    fn look(&mut self) -> View {
        if self.looks.is_multiple_of(NETWORK_EVERY) {
            self.metered = metered();
        }
        self.looks = self.looks.wrapping_add(1);
        let programs = self.programs();
        let front = self.front();
        View {
            idle_secs: idle_secs(),
            other_user: other_user(),
            on_battery: on_battery(),
            metered: self.metered,
            programs,
            front_load_percent: self.load_of(&front),
            front,
        }
    }
}

impl Windows {
    fn programs(&mut self) -> Option<Vec<Program>> {
        if self.folders.refresh(Instant::now()) {
            // What is known was judged by the folders of before.
            self.known.clear();
        }
        let mut now = HashMap::with_capacity(self.known.len());
        for (id, name) in process_table()? {
            let key = (id, name);
            let program = self.known.remove(&key).unwrap_or_else(|| {
                image_path(id)
                    .map_or_else(|| Program::at(&key.1), |path| self.folders.program(&path))
            });
            now.insert(key, program);
        }
        self.known = now;
        Some(once_each(self.known.values().cloned().collect()))
    }

    /// How busy the program in front keeps the card.
    fn load_of(&mut self, front: &Front) -> Option<u8> {
        self.load.get_or_init(CardLoad::open);
        let counters = self.load.get_mut()?.as_mut()?;
        match front {
            Front::Window { process: Some(process), .. } => counters.of(*process),
            _ => None,
        }
    }

    fn front(&self) -> Front {
        // SAFETY: no arguments; null means that no window is in front.
        let window = unsafe { GetForegroundWindow() };
        if window.is_invalid() || DESKTOP_CLASSES.contains(&class_name(window).as_str()) {
            return Front::Nothing;
        }
        let mut process = 0;
        // SAFETY: the pointer is to a local that outlives the call; a stale window writes nothing.
        unsafe { GetWindowThreadProcessId(window, Some(&raw mut process)) };
        if process == 0 {
            return Front::Nothing;
        }
        let known = self.known.iter().find(|((id, _), _)| *id == process);
        let program = known.map(|(_, program)| program.name.clone());
        let program = program.or_else(|| Some(games::program_name(&image_path(process)?)));
        let full_screen = fills_its_screen(window) || direct3d_full_screen();
        match program {
            Some(program) => Front::Window { program, process: Some(process), full_screen },
            None => Front::Unknown,
        }
    }
}

fn idle_secs() -> Option<u32> {
    let mut info = LASTINPUTINFO { cbSize: size_of::<LASTINPUTINFO>() as u32, dwTime: 0 };
    // SAFETY: the structure is a local and carries its size, as the call demands.
    let known = unsafe { GetLastInputInfo(&raw mut info) }.as_bool();
    // SAFETY: no arguments.
    let now_ms = unsafe { GetTickCount() };
    // Both count milliseconds since start and wrap together.
    known.then(|| now_ms.wrapping_sub(info.dwTime) / 1000)
}

/// Whether another person's session is on the screen of this machine. One in which nobody has signed in
/// yet is nobody's.
fn other_user() -> Option<bool> {
    let mut own = 0;
    // SAFETY: the pointer is to a local that outlives the calls.
    unsafe { ProcessIdToSessionId(GetCurrentProcessId(), &raw mut own) }.ok()?;
    // SAFETY: no arguments.
    let shown = unsafe { WTSGetActiveConsoleSessionId() };
    if shown == own {
        return Some(false);
    }
    let mut sessions: *mut WTS_SESSION_INFOW = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: both pointers are to locals; no handle means this machine, 0 and 1 are what the call wants.
    unsafe { WTSEnumerateSessionsW(None, 0, 1, &raw mut sessions, &raw mut count) }.ok()?;
    if sessions.is_null() {
        return None;
    }
    // SAFETY: the call filled so many entries, which live until they are freed below.
    let all = unsafe { std::slice::from_raw_parts(sessions, count as usize) };
    let signed_in = all.iter().any(|one| one.SessionId == shown && one.State == WTSActive);
    // SAFETY: what the call gave is freed once, and nothing refers to it any more.
    unsafe { WTSFreeMemory(sessions.cast()) };
    Some(signed_in)
}

fn on_battery() -> Option<bool> {
    let mut status = SYSTEM_POWER_STATUS::default();
    // SAFETY: the structure is a local that the call fills.
    unsafe { GetSystemPowerStatus(&raw mut status) }.ok()?;
    match status.ACLineStatus {
        0 => Some(true),
        1 => Some(false),
        _ => None,
    }
}

/// Whether the way to the internet costs by what is sent; `None` without one, and where Windows does not
/// say. Roaming and a plan that is used up count too.
fn metered() -> Option<bool> {
    let profile = NetworkInformation::GetInternetConnectionProfile().ok()?;
    let cost = profile.GetConnectionCost().ok()?;
    let kind = cost.NetworkCostType().ok()?;
    let by_plan = matches!(kind, NetworkCostType::Fixed | NetworkCostType::Variable);
    let known = kind != NetworkCostType::Unknown;
    known.then(|| {
        by_plan || cost.Roaming().unwrap_or(false) || cost.OverDataLimit().unwrap_or(false)
    })
}

fn class_name(window: HWND) -> String {
    let mut name = [0_u16; 64];
    // SAFETY: the call writes at most the slice's length and returns how much that was.
    let chars = unsafe { GetClassNameW(window, &mut name) };
    String::from_utf16_lossy(&name[..usize::try_from(chars).unwrap_or(0)])
}

fn fills_its_screen(window: HWND) -> bool {
    let mut place = RECT::default();
    let mut screen =
        MONITORINFO { cbSize: size_of::<MONITORINFO>() as u32, ..MONITORINFO::default() };
    // SAFETY: both structures are locals, and the second carries its size.
    let known = unsafe {
        let monitor = MonitorFromWindow(window, MONITOR_DEFAULTTONEAREST);
        GetWindowRect(window, &raw mut place).is_ok()
            && GetMonitorInfoW(monitor, &raw mut screen).as_bool()
    };
    // SAFETY: both calls only read; of a window that is gone they say no.
    let (zoomed, style) =
        unsafe { (IsZoomed(window).as_bool(), GetWindowLongPtrW(window, GWL_STYLE)) };
    let edges = |rect: RECT| [rect.left, rect.top, rect.right, rect.bottom];
    let seen = Shown { place: edges(place), screen: edges(screen.rcMonitor), zoomed, style };
    known && seen.is_full_screen()
}

fn direct3d_full_screen() -> bool {
    // SAFETY: no arguments; the state comes back by value.
    unsafe { SHQueryUserNotificationState() }.is_ok_and(|s| s == QUNS_RUNNING_D3D_FULL_SCREEN)
}

/// Ids and file names of all processes.
fn process_table() -> Option<Vec<(u32, String)>> {
    // SAFETY: takes a snapshot of all processes; the handle is closed by its owner.
    let table = Handle(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) }.ok()?);
    let mut entry = PROCESSENTRY32W {
        dwSize: size_of::<PROCESSENTRY32W>() as u32,
        ..PROCESSENTRY32W::default()
    };
    let mut processes = Vec::new();
    // SAFETY: the entry is a local and carries its size; the handle is a snapshot of processes.
    let mut more = unsafe { Process32FirstW(table.0, &raw mut entry) }.is_ok();
    while more {
        let name = entry.szExeFile.split(|&unit| unit == 0).next().unwrap_or_default();
        processes.push((entry.th32ProcessID, String::from_utf16_lossy(name)));
        // SAFETY: as above.
        more = unsafe { Process32NextW(table.0, &raw mut entry) }.is_ok();
    }
    Some(processes)
}

/// Where a process's program lies; `None` for those of the system.
fn image_path(id: u32) -> Option<String> {
    // SAFETY: asks for the right to read the name alone; the handle is closed by its owner.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, false, id) };
    let process = Handle(process.ok()?);
    let mut path = vec![0_u16; PATH_CHARS];
    let mut chars = path.len() as u32;
    let text = PWSTR(path.as_mut_ptr());
    // SAFETY: the buffer has room for `chars` units, and the call says how many it wrote.
    unsafe { QueryFullProcessImageNameW(process.0, PROCESS_NAME_WIN32, text, &raw mut chars) }
        .ok()?;
    Some(String::from_utf16_lossy(path.get(..chars as usize)?))
}

/// A handle that is closed with its owner.
struct Handle(HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was opened by us, is closed once, and nobody uses it afterwards.
        let _ = unsafe { CloseHandle(self.0) };
    }
}
