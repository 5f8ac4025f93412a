//! Who may exchange files, who runs, and who came up: locks of files beside the program, which end with
//! their process however that ends and want no space on the drive.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::time::{Duration, Instant};

use crate::error::UpdateError;
use crate::place::Place;

/// An exchange of files takes seconds.
const EXCHANGE_WAIT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Held while files are exchanged or their record changes.
#[derive(Debug)]
pub(super) struct Exchange {
    _file: File,
}

impl Exchange {
    /// Waits for its turn.
    pub(super) fn begin(place: &Place) -> Result<Self, UpdateError> {
        let begin = Instant::now();
        let failed = |error| UpdateError::io("locking", &place.updates().join("lock"))(error);
        let file = open(place, "lock").map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if begin.elapsed() > EXCHANGE_WAIT => {
                    return Err(UpdateError::Busy);
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_EVERY),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

/// Held by the one program of an installation that runs.
#[derive(Debug)]
pub struct Running {
    _file: File,
}

impl Running {
    /// `None` where another one runs.
    pub(super) fn begin(place: &Place) -> Option<Self> {
        taken(place, "running").map(|file| Self { _file: file })
    }
}

/// Held by a program on trial that came up, until that is written down: whoever watches it sees it even
/// where the drive is full.
#[derive(Debug)]
pub struct SignOfLife {
    _file: File,
}

impl SignOfLife {
    /// Gives it, where there is an installation to be watched.
    pub fn give(place: &Place) -> Option<Self> {
        let there = place.updates().is_dir();
        there.then(|| taken(place, "alive")).flatten().map(|file| Self { _file: file })
    }

    /// Whether a program gives it now.
    pub(crate) fn is_given(place: &Place) -> bool {
        let file = open(place, "alive");
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

fn open(place: &Place, name: &str) -> io::Result<File> {
    let folder = place.updates();
    fs::create_dir_all(&folder)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(name))
}

fn taken(place: &Place, name: &str) -> Option<File> {
    let file = open(place, name).ok()?;
    file.try_lock().ok().map(|()| file)
}
