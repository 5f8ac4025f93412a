//! A key that reaches this program whichever window is in front.

use std::sync::Arc;

use neurino_control::Hotkey;

/// Called at each press, from a thread of its own; a key that is held down is pressed once.
pub type Pressed = Box<dyn Fn() + Send>;

/// What gives keys to programs.
pub trait Hotkeys: Send + Sync {
    /// Whether this system gives keys at all.
    ///
    /// # Errors
    /// [`HotkeyError::Wayland`], [`HotkeyError::NotHere`].
    fn given(&self) -> Result<(), HotkeyError>;

    /// Takes these keys until what is returned is dropped, or the process ends. Takes milliseconds.
    ///
    /// # Errors
    /// [`HotkeyError`].
    fn take(&self, keys: Hotkey, pressed: Pressed) -> Result<HeldKey, HotkeyError>;
}

/// Keys that are ours; given back when dropped.
pub struct HeldKey(
    #[expect(dead_code, reason = "it lives until the keys are given back")] Box<dyn Send>,
);

impl HeldKey {
    /// Keys that `owner` gives back when it is dropped.
    pub fn new(owner: impl Send + 'static) -> Self {
        Self(Box::new(owner))
    }
}

/// Why keys are not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HotkeyError {
    /// This system has no way, or none that is known here.
    #[error("this system gives no keys to programs")]
    NotHere,
    /// Wayland gives none.
    #[error("under Wayland no program can take a key for itself")]
    Wayland,
    /// Another program has them.
    #[error("another program has {0}")]
    Taken(Hotkey),
    /// The keyboard's layout has no such key.
    #[error("this keyboard has no key for {0}")]
    NoKey(Hotkey),
    /// The system refuses.
    #[error("the system does not give {0} to Neurino: {1}")]
    Refused(Hotkey, String),
}

/// The way of this system.
pub fn open_hotkeys() -> Arc<dyn Hotkeys> {
    #[cfg(target_os = "linux")]
    return Arc::new(crate::x11_hotkey::Session::of_environment());
    #[cfg(windows)]
    return Arc::new(crate::windows_hotkey::Windows);
    #[cfg(not(any(target_os = "linux", windows)))]
    return Arc::new(NoWay);
}

#[cfg(not(any(target_os = "linux", windows)))]
struct NoWay;

#[cfg(not(any(target_os = "linux", windows)))]
impl Hotkeys for NoWay {
    fn given(&self) -> Result<(), HotkeyError> {
        Err(HotkeyError::NotHere)
    }

    fn take(&self, _keys: Hotkey, _pressed: Pressed) -> Result<HeldKey, HotkeyError> {
        Err(HotkeyError::NotHere)
    }
}
