//! The X server: idle time (the screen saver extension) and the window in front (EWMH).

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
        std::env::var_os("DISPLAY").filter(|name| !name.is_empty())?;
        let (connection, number) = x11rb::connect(None).ok()?;
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
