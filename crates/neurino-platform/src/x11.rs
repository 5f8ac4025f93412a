//! The X server: idle time (the screen saver extension) and the window in front (EWMH).
#![expect(clippy::struct_field_names, reason = "the names are EWMH's own")]

use x11rb::connection::Connection as _;
use x11rb::errors::ReplyError;
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
        _NET_WM_WINDOW_TYPE,
        _NET_WM_WINDOW_TYPE_DESKTOP,
    }
}

/// A connection to the X server of this session.
pub(crate) struct Display {
    connection: RustConnection,
    atoms: Atoms,
    root: WindowId,
    /// Of the whole desktop, in pixels.
    size: (u16, u16),
    saver: bool,
}

/// The window in front.
pub(crate) struct Window {
    pub(crate) process: Option<u32>,
    /// The program's name as the window has it, for want of a process.
    pub(crate) class: String,
    pub(crate) full_screen: bool,
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
        let (root, size) = (screen.root, (screen.width_in_pixels, screen.height_in_pixels));
        let atoms = Atoms::new(&connection).ok()?.reply().ok()?;
        let version = connection.screensaver_query_version(1, 0);
        let saver = version.is_ok_and(|cookie| cookie.reply().is_ok());
        Some(Self { connection, atoms, root, size, saver })
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
        // Games without a border do not say that they fill the screen.
        let geometry = self.connection.get_geometry(id)?.reply()?;
        let fills = geometry.width >= self.size.0 && geometry.height >= self.size.1;
        let full_screen = fills || states.contains(&self.atoms._NET_WM_STATE_FULLSCREEN);
        let process =
            self.numbers(id, self.atoms._NET_WM_PID, AtomEnum::CARDINAL)?.first().copied();
        Ok(Some(Window { process, class: self.class(id)?, full_screen }))
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
        let (c, atoms) = (&display.connection, &display.atoms);
        let id = c.generate_id().unwrap();
        let aux = CreateWindowAux::new();
        let class = WindowClass::INPUT_OUTPUT;
        c.create_window(0, id, display.root, 0, 0, width, height, 0, class, 0, &aux).unwrap();
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
}
