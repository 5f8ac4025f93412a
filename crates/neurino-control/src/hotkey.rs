//! A key of the keyboard with its modifiers, as a person reads it: `Ctrl+Alt+M`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// The last of the function keys.
const FUNCTION_MAX: u8 = 24;

/// A combination that one program may have to itself, whichever window is in front. What every program
/// needs (a letter alone, a letter with Shift) is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, TS)]
#[serde(try_from = "String", into = "String")]
#[ts(type = "string")]
#[expect(clippy::struct_excessive_bools, reason = "a modifier is held or not")]
pub struct Hotkey {
    /// Ctrl.
    pub ctrl: bool,
    /// Alt.
    pub alt: bool,
    /// Shift.
    pub shift: bool,
    /// The key with the system's logo.
    pub logo: bool,
    /// The key that is pressed with them.
    pub key: Key,
}

/// A key that is no modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// `A` to `Z`, as the keyboard's layout has it.
    Letter(char),
    /// 0 to 9.
    Digit(u8),
    /// F1 to F24.
    Function(u8),
    /// A key with a name.
    Named(NamedKey),
}

/// A key with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is what stands on the key")]
pub enum NamedKey {
    Space,
    Insert,
    Home,
    End,
    PageUp,
    PageDown,
    Left,
    Up,
    Right,
    Down,
    Pause,
}

const NAMED: [(NamedKey, &str); 11] = [
    (NamedKey::Space, "Space"),
    (NamedKey::Insert, "Insert"),
    (NamedKey::Home, "Home"),
    (NamedKey::End, "End"),
    (NamedKey::PageUp, "PageUp"),
    (NamedKey::PageDown, "PageDown"),
    (NamedKey::Left, "Left"),
    (NamedKey::Up, "Up"),
    (NamedKey::Right, "Right"),
    (NamedKey::Down, "Down"),
    (NamedKey::Pause, "Pause"),
];

/// Why a text is no hotkey.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HotkeyTextError {
    /// A part of it is no key.
    #[error("`{0}` is no key that can be a hotkey")]
    NoKey(String),
    /// Every program would lose a key that it needs.
    #[error("`{0}` is needed by other programs; add Ctrl, Alt or the key with the logo")]
    Bare(String),
}

impl FromStr for Hotkey {
    type Err = HotkeyTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (modifiers, last) =
            text.rsplit_once('+').map_or((None, text), |(m, last)| (Some(m), last));
        let no_key = |part: &str| HotkeyTextError::NoKey(part.to_owned());
        let key = key(last).ok_or_else(|| no_key(last))?;
        let mut it = Self { ctrl: false, alt: false, shift: false, logo: false, key };
        for part in modifiers.into_iter().flat_map(|modifiers| modifiers.split('+')) {
            let held = match part {
                "Ctrl" => &mut it.ctrl,
                "Alt" => &mut it.alt,
                "Shift" => &mut it.shift,
                "Super" => &mut it.logo,
                _ => return Err(no_key(part)),
            };
            if std::mem::replace(held, true) {
                return Err(no_key(part));
            }
        }
        // Nothing types with these; everything else does, or scrolls, or is a program's own key.
        let spare = matches!(key, Key::Named(NamedKey::Pause) | Key::Function(13..));
        if !(it.ctrl || it.alt || it.logo || spare) {
            return Err(HotkeyTextError::Bare(text.to_owned()));
        }
        Ok(it)
    }
}

fn key(text: &str) -> Option<Key> {
    let mut chars = text.chars();
    match (chars.next()?, chars.next()) {
        (letter @ 'A'..='Z', None) => return Some(Key::Letter(letter)),
        (digit @ '0'..='9', None) => return Some(Key::Digit(digit as u8 - b'0')),
        _ => {}
    }
    let number = text.strip_prefix('F').filter(|number| !number.starts_with(['0', '+']));
    if let Some(number) = number.and_then(|number| number.parse().ok()) {
        return (1..=FUNCTION_MAX).contains(&number).then_some(Key::Function(number));
    }
    NAMED.iter().find(|(_, name)| *name == text).map(|(key, _)| Key::Named(*key))
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modifiers =
            [(self.ctrl, "Ctrl"), (self.alt, "Alt"), (self.shift, "Shift"), (self.logo, "Super")];
        for (held, name) in modifiers {
            if held {
                write!(f, "{name}+")?;
            }
        }
        match self.key {
            Key::Letter(letter) => write!(f, "{letter}"),
            Key::Digit(digit) => write!(f, "{digit}"),
            Key::Function(number) => write!(f, "F{number}"),
            Key::Named(named) => {
                let name = NAMED.iter().find(|(key, _)| *key == named).map_or("", |(_, name)| name);
                f.write_str(name)
            }
        }
    }
}

impl TryFrom<String> for Hotkey {
    type Error = HotkeyTextError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Hotkey> for String {
    fn from(hotkey: Hotkey) -> Self {
        hotkey.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for text in [
            "Ctrl+Alt+M",
            "Ctrl+Alt+Shift+Super+9",
            "Super+F12",
            "Pause",
            "F13",
            "Shift+F24",
            "Ctrl+Space",
            "Alt+PageDown",
        ] {
            let hotkey: Result<Hotkey, _> = text.parse();
            assert_eq!(hotkey.map(|hotkey| hotkey.to_string()), Ok(text.to_owned()));
        }
        // The order is the program's own.
        let hotkey: Result<Hotkey, _> = "Shift+Ctrl+A".parse();
        assert_eq!(hotkey.map(|hotkey| hotkey.to_string()), Ok("Ctrl+Shift+A".to_owned()));
    }

    #[test]
    fn keys_that_programs_need_are_none() {
        for text in ["M", "Shift+M", "F5", "Shift+F12", "Space", "Left", "Shift+Home"] {
            assert_eq!(text.parse::<Hotkey>(), Err(HotkeyTextError::Bare(text.to_owned())));
        }
        for text in ["", "Ctrl+", "Ctrl", "Ctrl+m", "Ctrl+Ctrl+M", "+M", "Ctrl+F25", "Ctrl+F0"] {
            assert!(matches!(text.parse::<Hotkey>(), Err(HotkeyTextError::NoKey(_))), "{text}");
        }
        for text in ["Ctrl+F01", "Ctrl+F+1", "Hyper+A", "Ctrl+ä", "Ctrl++"] {
            assert!(matches!(text.parse::<Hotkey>(), Err(HotkeyTextError::NoKey(_))), "{text}");
        }
    }
}
