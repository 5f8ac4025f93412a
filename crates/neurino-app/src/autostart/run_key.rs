//! Windows: a value of the user's own `Run` key, which Explorer starts at login and the Task
//! Manager lists and switches off.

use std::path::Path;

use windows_registry::{CURRENT_USER, Result};

const RUN: &str = r"Software\Microsoft\Windows\CurrentVersion\Run";
/// Where the Task Manager keeps what the person switched off: an odd first byte.
const APPROVED: &str = r"Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run";
/// The uninstaller removes the value of this name, too.
const NAME: &str = "Neurino";

/// The value that starts the program.
pub(super) struct RunKey {
    command: String,
}

impl RunKey {
    /// For this program; `None` for a path that no command line can hold.
    pub(super) fn new(program: &Path, home: Option<&Path>) -> Option<Self> {
        let mut command = quoted(program)?;
        if let Some(home) = home {
            command.extend([" --home ", &quoted(home)?]);
        }
        command.push_str(" --hidden --mine");
        Some(Self { command })
    }

    /// Whether the value is there and the Task Manager has not switched it off.
    pub(super) fn is_on(&self) -> bool {
        let there = CURRENT_USER.open(RUN).and_then(|key| key.get_string(NAME)).is_ok();
        let off = CURRENT_USER
            .open(APPROVED)
            .and_then(|key| key.get_value(NAME))
            .is_ok_and(|value| value.first().is_some_and(|byte| byte % 2 == 1));
        there && !off
    }

    /// Writes the value, or removes it.
    pub(super) fn set(&self, on: bool) -> Result<()> {
        let key = CURRENT_USER.create(RUN)?;
        if !on {
            return if key.get_string(NAME).is_ok() { key.remove_value(NAME) } else { Ok(()) };
        }
        key.set_string(NAME, &self.command)?;
        // The person asks for it here and now, which outdoes what they once chose there.
        if let Ok(approved) = CURRENT_USER.create(APPROVED)
            && approved.get_value(NAME).is_ok()
        {
            approved.remove_value(NAME)?;
        }
        Ok(())
    }
}

/// A path in quotes. Windows allows none in a path, and a backslash before the closing one would
/// escape it.
fn quoted(path: &Path) -> Option<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '\r', '\0']))?;
    let text = text.trim_end_matches('\\');
    Some(format!("\"{text}\""))
}
