//! Windows: `RegisterHotKey`. The key belongs to the thread that took it, and so that thread waits for it.

use std::sync::mpsc;
use std::thread::JoinHandle;

use neurino_control::Hotkey;
use neurino_control::hotkey::{Key, NamedKey};
use windows::Win32::Foundation::{ERROR_HOTKEY_ALREADY_REGISTERED, LPARAM, WPARAM};
use windows::Win32::System::Threading::GetCurrentThreadId;
use windows::Win32::UI::Input::KeyboardAndMouse::{
    HOT_KEY_MODIFIERS, MOD_ALT, MOD_CONTROL, MOD_NOREPEAT, MOD_SHIFT, MOD_WIN, RegisterHotKey,
    UnregisterHotKey,
};
use windows::Win32::UI::WindowsAndMessaging::{
    GetMessageW, MSG, PM_NOREMOVE, PeekMessageW, PostThreadMessageW, WM_HOTKEY, WM_QUIT,
};

use crate::hotkey::{HeldKey, HotkeyError, Hotkeys, Pressed};

/// Names the one key of a thread.
const ID: i32 = 1;

pub(crate) struct Windows;

impl Hotkeys for Windows {
    fn given(&self) -> Result<(), HotkeyError> {
        Ok(())
    }

    fn take(&self, keys: Hotkey, pressed: Pressed) -> Result<HeldKey, HotkeyError> {
        let (tell, told) = mpsc::channel();
        let work = move || listen(keys, &pressed, &tell);
        let refused = |error: &dyn std::fmt::Display| HotkeyError::Refused(keys, error.to_string());
        let spawned = std::thread::Builder::new().name("hotkey".into()).spawn(work);
        let thread = spawned.map_err(|error| refused(&error))?;
        let id = told.recv().map_err(|error| refused(&error))??;
        Ok(HeldKey::new(Listener { id, thread: Some(thread) }))
    }
}

/// Takes the keys, says so with the thread's number, and waits for them until `WM_QUIT`.
fn listen(keys: Hotkey, pressed: &Pressed, tell: &mpsc::Sender<Result<u32, HotkeyError>>) {
    let mut message = MSG::default();
    // SAFETY: the message is a local. A thread has a queue, to which others can post, once it looked.
    let _ = unsafe { PeekMessageW(&raw mut message, None, 0, 0, PM_NOREMOVE) };
    // SAFETY: takes plain values; without a window the key is this thread's.
    let taken = unsafe { RegisterHotKey(None, ID, modifiers(keys), virtual_key(keys.key)) };
    if let Err(error) = taken {
        let known = error.code() == ERROR_HOTKEY_ALREADY_REGISTERED.to_hresult();
        let refused = || HotkeyError::Refused(keys, error.message());
        let _ = tell.send(Err(if known { HotkeyError::Taken(keys) } else { refused() }));
        return;
    }
    // SAFETY: takes nothing.
    let _ = tell.send(Ok(unsafe { GetCurrentThreadId() }));
    // SAFETY: the message is a local. 0 stands for WM_QUIT and -1 for an error.
    while unsafe { GetMessageW(&raw mut message, None, 0, 0) }.0 > 0 {
        if message.message == WM_HOTKEY {
            pressed();
        }
    }
    // SAFETY: takes plain values, on the thread that took the key.
    let _ = unsafe { UnregisterHotKey(None, ID) };
}

/// The thread that waits for a key; dropped, it ends and the key is free.
struct Listener {
    id: u32,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: takes plain values; the thread runs until it gets this.
        let _ = unsafe { PostThreadMessageW(self.id, WM_QUIT, WPARAM(0), LPARAM(0)) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn modifiers(keys: Hotkey) -> HOT_KEY_MODIFIERS {
    let all = [
        (keys.ctrl, MOD_CONTROL),
        (keys.alt, MOD_ALT),
        (keys.shift, MOD_SHIFT),
        (keys.logo, MOD_WIN),
    ];
    all.iter().filter(|(held, _)| *held).fold(MOD_NOREPEAT, |mask, (_, one)| mask | *one)
}

/// The key's number, as winuser.h has it.
fn virtual_key(key: Key) -> u32 {
    match key {
        Key::Letter(letter) => u32::from(letter),
        Key::Digit(digit) => u32::from(b'0' + digit),
        Key::Function(number) => 0x6f + u32::from(number),
        Key::Named(named) => match named {
            NamedKey::Pause => 0x13,
            NamedKey::Space => 0x20,
            NamedKey::PageUp => 0x21,
            NamedKey::PageDown => 0x22,
            NamedKey::End => 0x23,
            NamedKey::Home => 0x24,
            NamedKey::Left => 0x25,
            NamedKey::Up => 0x26,
            NamedKey::Right => 0x27,
            NamedKey::Down => 0x28,
            NamedKey::Insert => 0x2d,
        },
    }
}
