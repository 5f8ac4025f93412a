//! The X server: a key grabbed on the root window. The thread that waits for it sleeps in the connection
//! until something comes, so that a hotkey costs nothing while nobody presses it.

use std::sync::Arc;
use std::thread::JoinHandle;

use neurino_control::Hotkey;
use neurino_control::hotkey::{Key, NamedKey};
use tracing::warn;
use x11rb::connection::Connection as _;
use x11rb::errors::ReplyError;
use x11rb::protocol::xproto::{
    ClientMessageEvent, ConnectionExt as _, CreateWindowAux, EventMask, GrabMode, Keycode, ModMask,
    Window, WindowClass,
};
use x11rb::protocol::{ErrorKind, Event};
use x11rb::rust_connection::RustConnection;

use crate::hotkey::{HeldKey, HotkeyError, Hotkeys, Pressed};

/// The person's session, as the environment tells it.
pub(crate) struct Session {
    /// The X server's name.
    display: Option<String>,
    wayland: bool,
}

impl Session {
    pub(crate) fn of_environment() -> Self {
        let named = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self { display: named("DISPLAY"), wayland: named("WAYLAND_DISPLAY").is_some() }
    }
}

impl Hotkeys for Session {
    fn given(&self) -> Result<(), HotkeyError> {
        // Beside a compositor the X server hears the keys of its own windows alone.
        if self.wayland {
            return Err(HotkeyError::Wayland);
        }
        self.display.as_ref().map(|_| ()).ok_or(HotkeyError::NotHere)
    }

    fn take(&self, keys: Hotkey, pressed: Pressed) -> Result<HeldKey, HotkeyError> {
        self.given()?;
        let grab = Grab::open(self.display.as_deref(), keys)?;
        Ok(HeldKey::new(Listener::start(grab, pressed)))
    }
}

/// A grabbed key.
struct Grab {
    connection: RustConnection,
    root: Window,
    /// Nobody sees it: what is sent to it wakes the thread that waits.
    waker: Window,
    keys: Hotkey,
}

impl Grab {
    fn open(display: Option<&str>, keys: Hotkey) -> Result<Self, HotkeyError> {
        let refused = |error: &dyn std::fmt::Display| HotkeyError::Refused(keys, error.to_string());
        let (connection, number) = x11rb::connect(display).map_err(|error| refused(&error))?;
        let Some(screen) = connection.setup().roots.get(number) else {
            return Err(refused(&"the X server has no such screen"));
        };
        let root = screen.root;
        let waker = connection.generate_id().map_err(|error| refused(&error))?;
        let (class, aux) = (WindowClass::INPUT_ONLY, CreateWindowAux::new());
        connection
            .create_window(0, waker, root, 0, 0, 1, 1, 0, class, 0, &aux)
            .map_err(|error| refused(&error))?;
        let grab = Self { connection, root, waker, keys };
        grab.grab(grab.code()?)?;
        Ok(grab)
    }

    fn grab(&self, code: Keycode) -> Result<(), HotkeyError> {
        let refused = |error: ReplyError| HotkeyError::Refused(self.keys, error.to_string());
        for locks in locks() {
            let cookie = self.connection.grab_key(
                false,
                self.root,
                modifiers(self.keys) | locks,
                code,
                GrabMode::ASYNC,
                GrabMode::ASYNC,
            );
            let outcome =
                cookie.map_err(ReplyError::from).and_then(x11rb::cookie::VoidCookie::check);
            if let Err(error) = outcome {
                self.give_back();
                return Err(match error {
                    ReplyError::X11Error(error) if error.error_kind == ErrorKind::Access => {
                        HotkeyError::Taken(self.keys)
                    }
                    other => refused(other),
                });
            }
        }
        Ok(())
    }

    /// Gives back every key of this connection, whatever the layout was.
    fn give_back(&self) {
        const ANY_KEY: Keycode = 0;
        if let Ok(cookie) = self.connection.ungrab_key(ANY_KEY, self.root, ModMask::ANY) {
            cookie.ignore_error();
        }
        let _ = self.connection.flush();
    }

    /// The key as the keyboard's layout has it now.
    fn code(&self) -> Result<Keycode, HotkeyError> {
        let found = self.look_up();
        let found = found.map_err(|e| HotkeyError::Refused(self.keys, e.to_string()))?;
        found.ok_or(HotkeyError::NoKey(self.keys))
    }

    /// The key that has this symbol, first those that have it without Shift in the first layout.
    fn look_up(&self) -> Result<Option<Keycode>, ReplyError> {
        let setup = self.connection.setup();
        let (first, last) = (setup.min_keycode, setup.max_keycode);
        let mapping = self.connection.get_keyboard_mapping(first, last - first + 1)?.reply()?;
        let columns = usize::from(mapping.keysyms_per_keycode).max(1);
        let wanted = symbol(self.keys.key);
        let keys = || mapping.keysyms.chunks(columns).zip(first..=last);
        let plain = keys().find(|(symbols, _)| symbols.first() == Some(&wanted));
        let found = plain.or_else(|| keys().find(|(symbols, _)| symbols.contains(&wanted)));
        Ok(found.map(|(_, code)| code))
    }

    /// Waits for presses until it is told to end, or the server is gone.
    fn listen(&self, mut code: Option<Keycode>, pressed: &Pressed) {
        // A key that is held down is released and pressed again at the same moment.
        let mut released_at = None;
        loop {
            match self.connection.wait_for_event() {
                Ok(Event::KeyPress(event)) => {
                    if released_at != Some(event.time) {
                        pressed();
                    }
                }
                Ok(Event::KeyRelease(event)) => released_at = Some(event.time),
                // Another keyboard of the same layout is told in the same way, and its first press must
                // not be lost to a key that is taken anew without need.
                Ok(Event::MappingNotify(_)) => match self.code() {
                    Ok(now) if code == Some(now) => {}
                    found => {
                        self.give_back();
                        code = found.as_ref().ok().copied();
                        if let Err(error) = found.and_then(|now| self.grab(now)) {
                            code = None;
                            warn!("the hotkey is lost with the keyboard's layout: {error}");
                        }
                    }
                },
                Ok(Event::ClientMessage(event)) if event.window == self.waker => return,
                Ok(_) => {}
                Err(error) => return warn!("the hotkey is lost with the X server: {error}"),
            }
        }
    }
}

/// The thread that waits for a key; dropped, it ends and the key is free.
struct Listener {
    grab: Arc<Grab>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(grab: Grab, pressed: Pressed) -> Self {
        let grab = Arc::new(grab);
        let listening = Arc::clone(&grab);
        let code = grab.code().ok();
        let work = move || listening.listen(code, &pressed);
        let thread = std::thread::Builder::new().name("hotkey".into()).spawn(work);
        let thread = thread.inspect_err(|error| warn!("no thread for the hotkey: {error}")).ok();
        Self { grab, thread }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Grab { connection, waker, .. } = &*self.grab;
        self.grab.give_back();
        let end = ClientMessageEvent::new(8, *waker, x11rb::NONE, [0_u8; 20]);
        // With no mask it goes to whoever made the window: to ourselves.
        let _ = connection.send_event(false, *waker, EventMask::NO_EVENT, end);
        let _ = connection.flush();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A grab means exactly its modifiers, and the locks are modifiers too: Caps Lock and Num Lock.
fn locks() -> [ModMask; 4] {
    [ModMask::default(), ModMask::LOCK, ModMask::M2, ModMask::LOCK | ModMask::M2]
}

fn modifiers(keys: Hotkey) -> ModMask {
    let all = [
        (keys.ctrl, ModMask::CONTROL),
        (keys.alt, ModMask::M1),
        (keys.shift, ModMask::SHIFT),
        (keys.logo, ModMask::M4),
    ];
    all.iter().filter(|(held, _)| *held).fold(ModMask::default(), |mask, (_, one)| mask | *one)
}

/// The key's symbol, as keysymdef.h numbers them.
fn symbol(key: Key) -> u32 {
    match key {
        Key::Letter(letter) => u32::from(letter.to_ascii_lowercase()),
        Key::Digit(digit) => u32::from(b'0' + digit),
        Key::Function(number) => 0xffbd + u32::from(number),
        Key::Named(named) => match named {
            NamedKey::Space => 0x20,
            NamedKey::Pause => 0xff13,
            NamedKey::Home => 0xff50,
            NamedKey::Left => 0xff51,
            NamedKey::Up => 0xff52,
            NamedKey::Right => 0xff53,
            NamedKey::Down => 0xff54,
            NamedKey::PageUp => 0xff55,
            NamedKey::PageDown => 0xff56,
            NamedKey::End => 0xff57,
            NamedKey::Insert => 0xff63,
        },
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#[expect(clippy::print_stderr, reason = "a test says what it skipped")]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use x11rb::protocol::xproto::{KEY_PRESS_EVENT, KEY_RELEASE_EVENT};
    use x11rb::protocol::xtest::ConnectionExt as _;

    use super::*;

    struct Server(Child, Session);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn server() -> Option<Server> {
        let mut xvfb = Command::new("Xvfb");
        xvfb.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"]);
        let mut child = xvfb.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut number = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut number).unwrap();
        let display = Some(format!(":{}", number.trim()));
        Some(Server(child, Session { display, wayland: false }))
    }

    /// Another program on the same server, whose person presses keys.
    struct Person(Grab);

    impl Person {
        fn at(server: &Server) -> Self {
            let unused = keys("Ctrl+Alt+Shift+Super+F24");
            let display = server.1.display.as_deref();
            let (connection, _) = x11rb::connect(display).unwrap();
            let root = connection.setup().roots[0].root;
            Self(Grab { connection, root, waker: 0, keys: unused })
        }

        fn send(&self, symbols: &[u32], event: u8) {
            let c = &self.0.connection;
            let (first, last) = (c.setup().min_keycode, c.setup().max_keycode);
            let map = c.get_keyboard_mapping(first, last - first + 1).unwrap().reply().unwrap();
            let columns = usize::from(map.keysyms_per_keycode);
            for symbol in symbols {
                let at = map.keysyms.chunks(columns).position(|s| s.contains(symbol)).unwrap();
                let code = first + u8::try_from(at).unwrap();
                c.xtest_fake_input(event, code, 0, x11rb::NONE, 0, 0, 0).unwrap().check().unwrap();
            }
        }

        fn presses(&self, symbols: &[u32]) {
            self.send(symbols, KEY_PRESS_EVENT);
            let back: Vec<u32> = symbols.iter().rev().copied().collect();
            self.send(&back, KEY_RELEASE_EVENT);
        }
    }

    const CTRL: u32 = 0xffe3;
    const ALT: u32 = 0xffe9;
    const CAPS_LOCK: u32 = 0xffe5;
    const M: u32 = 0x6d;

    fn keys(text: &str) -> Hotkey {
        text.parse().unwrap()
    }

    fn counting() -> (Arc<AtomicU32>, Pressed) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let press = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        (count, Box::new(press))
    }

    fn until(count: &AtomicU32, wanted: u32) {
        let begin = Instant::now();
        while count.load(Ordering::SeqCst) < wanted {
            assert!(begin.elapsed() < Duration::from_secs(5), "pressed {wanted} times");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(count.load(Ordering::SeqCst), wanted);
    }

    #[test]
    fn a_key_reaches_whoever_took_it_and_nobody_after() {
        let Some(server) = server() else {
            eprintln!("skipped: `Xvfb` is missing");
            return;
        };
        let person = Person::at(&server);
        let (count, pressed) = counting();
        let held = server.1.take(keys("Ctrl+Alt+M"), pressed).unwrap();
        person.presses(&[CTRL, ALT, M]);
        until(&count, 1);
        person.presses(&[CTRL, M]);
        person.presses(&[ALT, M]);
        person.presses(&[M]);
        // A lock is no other key.
        person.presses(&[CAPS_LOCK]);
        person.presses(&[CTRL, ALT, M]);
        until(&count, 2);

        let again = server.1.take(keys("Ctrl+Alt+M"), counting().1).map(|_| ());
        assert_eq!(again, Err(HotkeyError::Taken(keys("Ctrl+Alt+M"))));
        drop(held);
        person.presses(&[CTRL, ALT, M]);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(count.load(Ordering::SeqCst), 2, "given back");
        let (count, pressed) = counting();
        let _held = server.1.take(keys("Ctrl+Alt+M"), pressed).unwrap();
        person.presses(&[CTRL, ALT, M]);
        until(&count, 1);
    }

    #[test]
    fn a_key_that_is_held_down_is_pressed_once() {
        let Some(server) = server() else {
            eprintln!("skipped: `Xvfb` is missing");
            return;
        };
        let person = Person::at(&server);
        let (count, pressed) = counting();
        let _held = server.1.take(keys("Ctrl+Alt+M"), pressed).unwrap();
        person.send(&[CTRL, ALT, M], KEY_PRESS_EVENT);
        // Keys repeat after 660 ms, every 40.
        std::thread::sleep(Duration::from_millis(1_200));
        person.send(&[M, ALT, CTRL], KEY_RELEASE_EVENT);
        until(&count, 1);
    }

    #[test]
    fn where_no_key_can_be_had_that_is_said() {
        let wayland = Session { display: Some(":0".into()), wayland: true };
        assert_eq!(wayland.given(), Err(HotkeyError::Wayland));
        let taken = wayland.take(keys("Ctrl+Alt+M"), counting().1).map(|_| ());
        assert_eq!(taken, Err(HotkeyError::Wayland));
        assert_eq!(Session { display: None, wayland: false }.given(), Err(HotkeyError::NotHere));
        let nobody = Session { display: Some(":4711".into()), wayland: false };
        let taken = nobody.take(keys("Ctrl+Alt+M"), counting().1).map(|_| ());
        assert!(matches!(taken, Err(HotkeyError::Refused(..))), "{taken:?}");
    }
}
