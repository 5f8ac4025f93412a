//! The exchange of files, the trial of the new program, and the way back.
//!
//! Beside the program, in `.neurino-update`, lie `staged` (the new files), `previous` (the old ones) and
//! `state.json`, which is written before each step that it tells of. The program itself is exchanged
//! last, by one rename: whoever starts it after a kill gets the old one or the new one, and either finds
//! in `state.json` what is left to do. Until the new one has said that it came up it is on trial.
//!
//! Whoever exchanges files holds the lock of that folder ([`locks`]), so that two starts at one moment
//! do not undo each other's work.

mod back;
mod files;
pub mod locks;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use neurino_model_store::Digest;
use tracing::{info, warn};

pub use back::{take_back, way_back};
pub(crate) use files::list;
use files::{aside, keep, remove_folder, replace};
use locks::{Exchange, Running};
use record::{Kept, forget, previous, save, staged};
pub use record::{Phase, Trial, state};

use crate::error::UpdateError;
use crate::place::{Keeper, Place};
use crate::unpack;
use crate::version::Version;

/// So many starts without having come up, and the next one goes back.
pub const STARTS_MAX: u32 = 2;
/// A program that does not tell its version by then does not start.
const PROBE_WAIT: Duration = Duration::from_mins(1);

/// The new files, checked and ready to be put in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Their version.
    pub version: Version,
}

/// What the program that starts has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStart {
    /// Go on.
    GoOn,
    /// The file that was started has been replaced meanwhile: start what is there now.
    StartAgain,
}

/// A start of the program that lasts.
#[derive(Debug)]
pub struct Start {
    /// What to do.
    pub then: AtStart,
    /// To be held as long as the program runs: other starts meanwhile do not count. `None` where another
    /// one runs already.
    pub running: Option<Running>,
}

/// Lays a verified package out beside the program and asks the new program for its version.
///
/// # Errors
/// [`UpdateError::NotOurs`], [`UpdateError::Package`], [`UpdateError::DoesNotStart`],
/// [`UpdateError::Io`].
pub fn stage(place: &Place, package: &Path, version: Version) -> Result<Staged, UpdateError> {
    if !place.replaces_itself() {
        return Err(UpdateError::NotOurs);
    }
    let folder = staged(place);
    remove_folder(&folder)?;
    fs::create_dir_all(&folder).map_err(UpdateError::io("creating", &folder))?;
    let program = place.program.file_name().unwrap_or_default();
    let laid = match place.keeper {
        Keeper::AppImage => unpack::copy_program(package, &folder.join(program)),
        _ => unpack::unpack(package, &folder),
    };
    let damaged = |problem: String| UpdateError::Package { version, problem };
    match laid {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            return Err(UpdateError::io("writing", &folder)(error));
        }
        Err(error) => return Err(damaged(error.to_string())),
        Ok(()) => {}
    }
    // Under whatever name the program lies here, the package has it under its own.
    let (own, packed) = (folder.join(program), folder.join(packed_name()));
    if !own.is_file() {
        fs::rename(&packed, &own).map_err(|_| damaged("it holds no program".into()))?;
    }
    let said =
        said_version(&own).map_err(|problem| UpdateError::DoesNotStart { version, problem })?;
    if said != format!("neurino {version}") {
        return Err(damaged(format!("its program says `{said}`")));
    }
    Ok(Staged { version })
}

fn packed_name() -> &'static str {
    if cfg!(windows) { "neurino.exe" } else { "neurino" }
}

/// What a program answers when asked for its version.
fn said_version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = loop {
        match command.spawn() {
            // Another thread was just starting a program, which still holds what we wrote open.
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && begin.elapsed() < Duration::from_secs(2) =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            started => break started.map_err(|error| error.to_string())?,
        }
    };
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(_) => break,
            None if begin.elapsed() > PROBE_WAIT => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it does not answer".into());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        return Err(format!("it ends with {}: {last}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Exchanges the files. Afterwards the program in place is the new one, on trial.
///
/// # Errors
/// [`UpdateError::OnTrial`] where the version that runs has yet to come up: the one before it is not
/// given up for a third one. [`UpdateError::Busy`], [`UpdateError::Io`]; then everything is as it was.
pub fn put_in_place(place: &Place, staged: &Staged, own: Version) -> Result<(), UpdateError> {
    let _alone = Exchange::begin(place)?;
    if let Some(trial) = state(place) {
        match trial.phase {
            Phase::Trial { .. } | Phase::Swapping | Phase::GoingBack if own == trial.to => {
                return Err(UpdateError::OnTrial { version: own });
            }
            Phase::Swapping if own == trial.from => undo(place)?,
            Phase::GoingBack if own == trial.from => {
                back::return_files(place, trial.by_person)?;
            }
            _ => {}
        }
    }
    let mut plan = Plan::make(place, staged, own)?;
    while let Some(step) = plan.next_step() {
        if let Err(error) = step {
            undo(place)?;
            return Err(error);
        }
    }
    info!("version {} is in place, on trial", staged.version);
    Ok(())
}

/// Puts an exchange that got stuck right, as if it had not begun.
fn undo(place: &Place) -> Result<(), UpdateError> {
    if state(place).is_some_and(|trial| trial.phase == Phase::Swapping) {
        back::return_files(place, false)?;
    }
    Ok(())
}

/// The steps of an exchange, one after another.
struct Plan<'a> {
    place: &'a Place,
    trial: Trial,
    done: usize,
}

impl<'a> Plan<'a> {
    fn make(place: &'a Place, staged_files: &Staged, own: Version) -> Result<Self, UpdateError> {
        let root = staged(place);
        let mut files = Vec::new();
        list(&root, Path::new(""), &mut files).map_err(UpdateError::io("reading", &root))?;
        let program = PathBuf::from(place.program.file_name().unwrap_or_default());
        // In a fixed order, the program last.
        files.sort_by_key(|file| (*file == program, file.clone()));
        if files.last() != Some(&program) {
            let problem = "its files are gone".into();
            return Err(UpdateError::Package { version: staged_files.version, problem });
        }
        let there = |file: &PathBuf| place.folder.join(file).exists();
        let (there, added): (Vec<_>, Vec<_>) = files.into_iter().partition(there);
        // What an old file hashes to is written down first: nothing else is ever put back for it.
        let kept = |file: PathBuf| {
            let path = place.folder.join(&file);
            let sha256 = Digest::of_file(&path).map_err(UpdateError::io("reading", &path))?;
            Ok(Kept { file, sha256 })
        };
        let replaced = there.into_iter().map(kept).collect::<Result<_, UpdateError>>()?;
        let to = staged_files.version;
        let (phase, by_person) = (Phase::Swapping, false);
        let new = root.join(&program);
        let program = Digest::of_file(&new).map_err(UpdateError::io("reading", &new))?;
        let trial = Trial { phase, from: own, to, by_person, replaced, program, added };
        Ok(Self { place, trial, done: 0 })
    }

    /// Does the next step; `None` when all are done.
    fn next_step(&mut self) -> Option<Result<(), UpdateError>> {
        let (added, replaced) = (self.trial.added.len(), self.trial.replaced.len());
        let step = self.done;
        self.done += 1;
        if step == 0 {
            Some(remove_folder(&previous(self.place)))
        } else if step == 1 {
            Some(save(self.place, &self.trial))
        } else if step < 2 + added {
            Some(self.put(&self.trial.added[step - 2], false))
        } else if step < 2 + added + replaced {
            Some(self.put(&self.trial.replaced[step - 2 - added].file, true))
        } else if step == 2 + added + replaced {
            self.trial.phase = Phase::Trial { starts: 0 };
            Some(save(self.place, &self.trial))
        } else {
            None
        }
    }

    fn put(&self, file: &Path, is_there: bool) -> Result<(), UpdateError> {
        let (new, target) = (staged(self.place).join(file), self.place.folder.join(file));
        if is_there {
            let kept = previous(self.place).join(file);
            keep(&target, &kept).map_err(UpdateError::io("keeping", &target))?;
        }
        replace(&new, &target).map_err(UpdateError::io("replacing", &target))
    }
}

/// Called by every start of the program that lasts, before anything else: counts the starts of a
/// program on trial, goes back when there were too many, and finishes what a kill interrupted. A start
/// beside a program that runs already is not counted.
///
/// # Errors
/// [`UpdateError::Busy`], [`UpdateError::Io`]; the program may go on all the same.
pub fn at_start(place: &Place, own: Version) -> Result<Start, UpdateError> {
    let _alone = Exchange::begin(place)?;
    let running = Running::begin(place);
    let then = what_now(place, own, running.is_some())?;
    Ok(Start { then, running })
}

fn what_now(place: &Place, own: Version, counts: bool) -> Result<AtStart, UpdateError> {
    let Some(mut trial) = state(place) else { return Ok(AtStart::GoOn) };
    let by_hand = || {
        info!("version {own} was installed by hand: the record of an earlier update is dropped");
        remove_folder(&previous(place))?;
        forget(place)?;
        Ok(AtStart::GoOn)
    };
    if own != trial.from && own != trial.to {
        return by_hand();
    }
    let is_old = own == trial.from;
    // This process may have begun before the file was exchanged that it was started from.
    let program = || Digest::of_file(&place.program);
    let new_in_place = || program().is_ok_and(|sha256| sha256 == trial.program);
    let old_in_place = || trial.replaced.last().is_some_and(|old| old.is_at(&place.program));
    match trial.phase {
        Phase::Settled => return Ok(AtStart::GoOn),
        Phase::RolledBack if is_old => return Ok(AtStart::GoOn),
        Phase::RolledBack if old_in_place() => return Ok(AtStart::StartAgain),
        Phase::RolledBack => return by_hand(),
        Phase::Swapping if is_old => {
            // The program was not exchanged yet: undone, to be tried again.
            undo(place)?;
            return Ok(AtStart::GoOn);
        }
        Phase::GoingBack => {
            back::return_files(place, trial.by_person)?;
            return Ok(if is_old { AtStart::GoOn } else { AtStart::StartAgain });
        }
        Phase::Trial { .. } if is_old => {
            if new_in_place() {
                return Ok(AtStart::StartAgain);
            }
            if !old_in_place() {
                return by_hand();
            }
            // The way back was interrupted after the program, before the rest.
            back::return_files(place, false)?;
            return Ok(AtStart::GoOn);
        }
        Phase::Swapping => trial.phase = Phase::Trial { starts: 0 },
        Phase::Trial { .. } => {}
    }
    let Phase::Trial { starts } = trial.phase else { return Ok(AtStart::GoOn) };
    if !counts {
        return Ok(AtStart::GoOn);
    }
    if starts >= STARTS_MAX {
        warn!("version {own} did not come up in {starts} starts");
        back::return_files(place, false)?;
        return Ok(AtStart::StartAgain);
    }
    trial.phase = Phase::Trial { starts: starts + 1 };
    save(place, &trial)?;
    Ok(AtStart::GoOn)
}

/// The program came up: the trial is over. The earlier program is kept for a way back.
///
/// # Errors
/// [`UpdateError::Busy`], [`UpdateError::Io`]; then it is to be told again.
pub fn came_up(place: &Place, own: Version) -> Result<(), UpdateError> {
    if state(place).is_none() {
        return Ok(());
    }
    let _alone = Exchange::begin(place)?;
    let Some(trial) = state(place) else { return Ok(()) };
    if matches!(trial.phase, Phase::Trial { .. }) && trial.to == own {
        for kept in trial.replaced.iter().filter(|_| cfg!(windows)) {
            let _ = fs::remove_file(aside(&place.folder.join(&kept.file)));
        }
        save(place, &Trial { phase: Phase::Settled, ..trial })?;
        remove_folder(&staged(place))?;
        remove_folder(&place.updates().join("packages"))?;
        info!("version {own} came up");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
