//! One running app per data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::dirs::Dirs;
use crate::error::ConfigError;

/// Held while an app uses a data folder; dropping it, or the end of the process however it comes,
/// gives the folder free. The file stays, only its lock counts.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock of `dirs.data` without waiting.
    ///
    /// # Errors
    /// [`ConfigError::AlreadyRunning`]; [`ConfigError::Write`] where the file system refuses.
    pub fn acquire(dirs: &Dirs) -> Result<Self, ConfigError> {
        let path = dirs.data.join("neurino.lock");
        let failed = |source| ConfigError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&path);
                return Err(ConfigError::AlreadyRunning { path: dirs.data.clone(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The process that wrote itself into the lock file. Windows refuses to read a locked file.
fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        dirs.create().unwrap();
        let first = InstanceLock::acquire(&dirs).unwrap();
        match InstanceLock::acquire(&dirs) {
            Err(ConfigError::AlreadyRunning { path, pid }) => {
                assert_eq!(path, dirs.data);
                if cfg!(unix) {
                    assert_eq!(pid, Some(std::process::id()));
                }
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        InstanceLock::acquire(&dirs).unwrap();
    }

    #[test]
    fn a_missing_folder_is_named() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::discover(Some(home.path().to_owned())).unwrap();
        let error = InstanceLock::acquire(&dirs).unwrap_err();
        assert!(error.to_string().contains("neurino.lock"), "{error}");
    }
}
