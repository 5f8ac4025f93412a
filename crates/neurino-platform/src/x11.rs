//! The X server: idle time (the screen saver extension) and the window in front (EWMH).
#![expect(clippy::struct_field_names, reason = "the names are EWMH's own")]

use x11rb::connection::Connection as _;
use x11rb::errors::ReplyError;
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::screensaver::ConnectionExt as _;
use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt as _, Window as WindowId};
use x11rb::rust_connection::RustConnection;

use neurino_control::games;

x11rb::atom_manager! {
    /// The names of EWMH that are read.
    Atoms: AtomsCookie {
        _NET_ACTIVE_WINDOW,
        _NET_WM_PID,
        _NET_WM_STATE,
        _NET_WM_STATE_FULLSCREEN,
        _NET_WM_STATE_MAXIMIZED_HORZ,
        _NET_WM_STATE_MAXIMIZED_VERT,
        _NET_WM_WINDOW_TYPE,
        _NET_WM_WINDOW_TYPE_DESKTOP,
    }
}

/// A connection to the X server of this session.
pub(crate) struct Display {
    connection: RustConnection,
    atoms: Atoms,
    root: WindowId,
    saver: bool,
    /// The server knows monitors (RandR 1.5).
    monitors: bool,
}

/// The window in front.
pub(crate) struct Window {
    pub(crate) process: Option<u32>,
    /// The program's name as the window has it, for want of a process.
    pub(crate) class: String,
    pub(crate) full_screen: bool,
}

/// A rectangle on the desktop, in pixels; right and bottom are just outside.
#[derive(Clone, Copy)]
struct Area {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Area {
    fn new(at: (i16, i16), size: (u16, u16)) -> Self {
        let (left, top) = (i32::from(at.0), i32::from(at.1));
        Self { left, top, right: left + i32::from(size.0), bottom: top + i32::from(size.1) }
    }

    fn covers(self, other: Self) -> bool {
        self.left <= other.left
            && self.top <= other.top
            && self.right >= other.right
            && self.bottom >= other.bottom
    }
}

impl Display {
    /// The server that `DISPLAY` names; `None` without one.
    pub(crate) fn open() -> Option<Self> {
        let name = std::env::var("DISPLAY").ok().filter(|name| !name.is_empty())?;
        Self::named(&name)
    }

    fn named(name: &str) -> Option<Self> {
        let (connection, number) = x11rb::connect(Some(name)).ok()?;
        let screen = connection.setup().roots.get(number)?;
        let root = screen.root;
        let atoms = Atoms::new(&connection).ok()?.reply().ok()?;
        let version = connection.screensaver_query_version(1, 0);
        let saver = version.is_ok_and(|cookie| cookie.reply().is_ok());
        let version = connection.randr_query_version(1, 5).ok().and_then(|c| c.reply().ok());
        let known = version.map(|version| (version.major_version, version.minor_version));
        let monitors = known.is_some_and(|known| known >= (1, 5));
        Some(Self { connection, atoms, root, saver, monitors })
    }

    /// Seconds since the last input.
    pub(crate) fn idle_secs(&self) -> Option<u32> {
        if !self.saver {
            return None;
        }
        let info = self.connection.screensaver_query_info(self.root).ok()?.reply().ok()?;
        Some(info.ms_since_user_input / 1000)
    }

    /// The window that the window manager calls active; `None` where it names none.
    ///
    /// # Errors
    /// When the server is gone. A window that vanishes meanwhile is none.
    pub(crate) fn active_window(&self) -> Result<Option<Window>, ReplyError> {
        let active = self.numbers(self.root, self.atoms._NET_ACTIVE_WINDOW, AtomEnum::WINDOW)?;
        let Some(&id) = active.first().filter(|&&id| id != 0) else { return Ok(None) };
        match self.window(id) {
            Err(ReplyError::X11Error(_)) => Ok(None),
            other => other,
        }
    }

    fn window(&self, id: WindowId) -> Result<Option<Window>, ReplyError> {
        let types = self.numbers(id, self.atoms._NET_WM_WINDOW_TYPE, AtomEnum::ATOM)?;
        if types.contains(&self.atoms._NET_WM_WINDOW_TYPE_DESKTOP) {
            return Ok(None);
        }
        let states = self.numbers(id, self.atoms._NET_WM_STATE, AtomEnum::ATOM)?;
        let full_screen = states.contains(&self.atoms._NET_WM_STATE_FULLSCREEN)
            || (!self.is_maximised(&states) && self.fills_a_monitor(id)?);
        let process =
            self.numbers(id, self.atoms._NET_WM_PID, AtomEnum::CARDINAL)?.first().copied();
        Ok(Some(Window { process, class: self.class(id)?, full_screen }))
    }

    /// A maximised window without a title bar fills a monitor too, and is a browser, not a game.
    fn is_maximised(&self, states: &[Atom]) -> bool {
        let atoms = &self.atoms;
        let both = [atoms._NET_WM_STATE_MAXIMIZED_HORZ, atoms._NET_WM_STATE_MAXIMIZED_VERT];
        both.iter().all(|state| states.contains(state))
    }

    /// Games without a border do not say that they fill a monitor.
    fn fills_a_monitor(&self, id: WindowId) -> Result<bool, ReplyError> {
        let size = self.connection.get_geometry(id)?.reply()?;
        let at = self.connection.translate_coordinates(id, self.root, 0, 0)?.reply()?;
        let window = Area::new((at.dst_x, at.dst_y), (size.width, size.height));
        Ok(self.monitors()?.into_iter().any(|monitor| window.covers(monitor)))
    }

    /// Where the monitors are now: one may be plugged in at any time.
    fn monitors(&self) -> Result<Vec<Area>, ReplyError> {
        let mut areas = Vec::new();
        if self.monitors {
            let reply = self.connection.randr_get_monitors(self.root, true)?.reply()?;
            let all = reply.monitors.iter().filter(|one| one.width > 0 && one.height > 0);
            areas.extend(all.map(|one| Area::new((one.x, one.y), (one.width, one.height))));
        }
        if areas.is_empty() {
            let root = self.connection.get_geometry(self.root)?.reply()?;
            areas.push(Area::new((0, 0), (root.width, root.height)));
        }
        Ok(areas)
    }

    /// The class part of `WM_CLASS`, as rules write programs.
    fn class(&self, id: WindowId) -> Result<String, ReplyError> {
        let (name, text) = (AtomEnum::WM_CLASS, AtomEnum::STRING);
        let reply = self.connection.get_property(false, id, name, text, 0, 64)?.reply()?;
        let last = reply.value.split(|&byte| byte == 0).rfind(|part| !part.is_empty());
        Ok(games::program_name(&String::from_utf8_lossy(last.unwrap_or_default())))
    }

    fn numbers(
        &self,
        id: WindowId,
        name: Atom,
        of: impl Into<Atom>,
    ) -> Result<Vec<u32>, ReplyError> {
        let reply = self.connection.get_property(false, id, name, of, 0, 64)?.reply()?;
        Ok(reply.value32().map(Iterator::collect).unwrap_or_default())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#[expect(clippy::print_stderr, reason = "a test says what it skipped")]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    use x11rb::protocol::randr::MonitorInfo;
    use x11rb::protocol::xproto::{CreateWindowAux, PropMode, WindowClass};
    use x11rb::wrapper::ConnectionExt as _;

    use super::*;

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A server of 800 x 600 pixels; `None` where the program for it is missing.
    fn server() -> Option<(Server, Display)> {
        let mut xvfb = Command::new("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]);
        let mut child = xvfb.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut number = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let server = Server(child);
        let display = Display::named(&format!(":{}", number.trim())).unwrap();
        Some((server, display))
    }

    /// A window of this size that is the active one, as a window manager would have it.
    fn put_in_front(display: &Display, width: u16, height: u16, states: &[Atom]) {
        put_at(display, (0, 0), (width, height), states);
    }

    fn put_at(display: &Display, at: (i16, i16), size: (u16, u16), states: &[Atom]) {
        let (c, atoms) = (&display.connection, &display.atoms);
        let id = c.generate_id().unwrap();
        let aux = CreateWindowAux::new();
        let class = WindowClass::INPUT_OUTPUT;
        let ((x, y), (width, height)) = (at, size);
        c.create_window(0, id, display.root, x, y, width, height, 0, class, 0, &aux).unwrap();
        let set = |id, name, of: AtomEnum, values: &[u32]| {
            c.change_property32(PropMode::REPLACE, id, name, of, values).unwrap();
        };
        set(id, atoms._NET_WM_PID, AtomEnum::CARDINAL, &[4711]);
        set(id, atoms._NET_WM_STATE, AtomEnum::ATOM, states);
        let (name, text) = (AtomEnum::WM_CLASS, AtomEnum::STRING);
        c.change_property8(PropMode::REPLACE, id, name, text, b"doom\0Doom.exe\0").unwrap();
        set(display.root, atoms._NET_ACTIVE_WINDOW, AtomEnum::WINDOW, &[id]);
        c.sync().unwrap();
    }

    #[test]
    fn the_window_in_front_is_seen_with_its_size_and_program() {
        let Some((server, display)) = server() else {
            eprintln!("skipped: `Xvfb` is missing");
            return;
        };
        assert!(display.idle_secs().is_some_and(|secs| secs < 600));
        assert!(display.active_window().unwrap().is_none());
        put_in_front(&display, 640, 480, &[]);
        let window = display.active_window().unwrap().unwrap();
        assert_eq!((window.process, window.full_screen), (Some(4711), false));
        assert_eq!(window.class, "doom");
        put_in_front(&display, 800, 600, &[]);
        assert!(display.active_window().unwrap().unwrap().full_screen, "without a border");
        put_in_front(&display, 640, 480, &[display.atoms._NET_WM_STATE_FULLSCREEN]);
        assert!(display.active_window().unwrap().unwrap().full_screen, "as it says itself");
        // A window that is gone is none, and a server that is gone is an error.
        let (c, nowhere) = (&display.connection, [12_345_u32]);
        let active = display.atoms._NET_ACTIVE_WINDOW;
        let of = AtomEnum::WINDOW;
        c.change_property32(PropMode::REPLACE, display.root, active, of, &nowhere).unwrap();
        assert!(display.active_window().unwrap().is_none());
        drop(server);
        assert!(display.active_window().is_err());
    }

    #[test]
    fn a_window_that_fills_one_of_two_monitors_fills_a_screen() {
        let Some((_server, display)) = server() else {
            eprintln!("skipped: `Xvfb` is missing");
            return;
        };
        let fills = || display.active_window().unwrap().unwrap().full_screen;
        put_at(&display, (400, 0), (400, 600), &[]);
        assert!(!fills(), "half of the one monitor");
        // Now the desktop has two, side by side.
        for (name, x) in [(b"left", 0), (b"rite", 400)] {
            let c = &display.connection;
            let name = c.intern_atom(false, name).unwrap().reply().unwrap().atom;
            let info = MonitorInfo {
                name,
                primary: false,
                automatic: false,
                x,
                y: 0,
                width: 400,
                height: 600,
                width_in_millimeters: 100,
                height_in_millimeters: 150,
                outputs: vec![],
            };
            c.randr_set_monitor(display.root, info).unwrap().check().unwrap();
        }
        assert!(fills(), "all of the second");
        put_at(&display, (380, 0), (400, 600), &[]);
        assert!(!fills(), "across both");
        let atoms = &display.atoms;
        let maximised = [atoms._NET_WM_STATE_MAXIMIZED_HORZ, atoms._NET_WM_STATE_MAXIMIZED_VERT];
        put_at(&display, (400, 0), (400, 600), &maximised);
        assert!(!fills(), "a maximised window is no game");
    }
}
