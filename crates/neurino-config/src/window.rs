//! Where the window was and how large, so that it opens there again.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::dirs::Dirs;
use crate::error::ConfigError;

/// `window.toml` in the data folder.
#[derive(Debug, Clone)]
pub struct WindowFile {
    path: PathBuf,
}

/// A window's place and size, in physical pixels of the desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPlace {
    /// Of the left edge; negative on a monitor left of the first one.
    pub x: i32,
    /// Of the upper edge.
    pub y: i32,
    /// Width of the page.
    pub width: u32,
    /// Height of the page.
    pub height: u32,
    /// Whether it filled the desktop; place and size are those before that.
    pub maximized: bool,
}

impl WindowFile {
    /// The file of these folders; touches nothing.
    pub fn new(dirs: &Dirs) -> Self {
        Self { path: dirs.data.join("window.toml") }
    }

    /// Where the window was; `None` when nobody can tell.
    pub fn load(&self) -> Option<WindowPlace> {
        toml::from_str(&std::fs::read_to_string(&self.path).ok()?).ok()
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, place: WindowPlace) -> Result<(), ConfigError> {
        let failed = |source| ConfigError::Write { path: self.path.clone(), source };
        let text = toml::to_string(&place).map_err(|error| failed(io::Error::other(error)))?;
        atomic::write(&self.path, text.as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_and_a_damaged_file_is_none() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let file = WindowFile::new(&dirs);
        assert_eq!(file.load(), None);
        let place = WindowPlace { x: -1700, y: 40, width: 1200, height: 800, maximized: true };
        file.save(place).unwrap();
        assert_eq!(file.load(), Some(place));
        for damaged in ["x = 1", "x = 1\ny = 2\nwidth = -5\nheight = 3\nmaximized = false", "\0"] {
            std::fs::write(&file.path, damaged).unwrap();
            assert_eq!(file.load(), None, "{damaged:?}");
        }
    }
}
