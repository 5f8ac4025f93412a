//! The exchange of files, the trial of the new program, and the way back.
//!
//! Beside the program, in `.neurino-update`, lie `staged` (the new files), `previous` (the old ones) and
//! `state.json`, which is written before each step that it tells of. The program itself is exchanged
//! last, by one rename: whoever starts it after a kill gets the old one or the new one, and either finds
//! in `state.json` what is left to do. Until the new one has said that it came up it is on trial.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

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

/// How an exchange stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Files are being exchanged.
    Swapping,
    /// The new program has yet to come up.
    Trial {
        /// How often it was started.
        starts: u32,
    },
    /// It came up.
    Settled,
    /// The old program is back.
    RolledBack,
}

/// The last exchange of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// How it stands.
    #[serde(flatten)]
    pub phase: Phase,
    /// The version before.
    pub from: Version,
    /// The version after.
    pub to: Version,
    /// The person wanted the way back.
    #[serde(default)]
    pub by_person: bool,
    /// Files that were there before, below the program's folder; the program itself is the last.
    replaced: Vec<PathBuf>,
    /// Files that are new.
    added: Vec<PathBuf>,
}

/// What the program that starts has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStart {
    /// Go on.
    GoOn,
    /// The file that was started has been replaced by the earlier one: start that.
    StartAgain,
}

fn staged(place: &Place) -> PathBuf {
    place.updates().join("staged")
}

fn previous(place: &Place) -> PathBuf {
    place.updates().join("previous")
}

fn state_path(place: &Place) -> PathBuf {
    place.updates().join("state.json")
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
/// [`UpdateError::Io`]; then everything is as it was.
pub fn put_in_place(place: &Place, staged: &Staged, own: Version) -> Result<(), UpdateError> {
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
        take_back(place)?;
        let path = state_path(place);
        fs::remove_file(&path).map_err(UpdateError::io("removing", &path))?;
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
        let (replaced, added) = files.into_iter().partition(there);
        let to = staged_files.version;
        let (phase, by_person) = (Phase::Swapping, false);
        let trial = Trial { phase, from: own, to, by_person, replaced, added };
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
            Some(self.put(&self.trial.replaced[step - 2 - added], true))
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

/// Keeps a second name of a file, or a copy where the drive has no second names.
fn keep(file: &Path, kept: &Path) -> io::Result<()> {
    if let Some(parent) = kept.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::hard_link(file, kept).is_ok() {
        return Ok(());
    }
    fs::copy(file, kept)?;
    File::options().write(true).open(kept)?.sync_all()
}

/// Renames `new` over `target`.
fn replace(new: &Path, target: &Path) -> io::Result<()> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    if cfg!(windows) && target.exists() {
        // A program that runs can be renamed there, not replaced. Its kept copy is beside it.
        let aside = aside(target);
        let _ = fs::remove_file(&aside);
        fs::rename(target, &aside)?;
        if let Err(error) = fs::rename(new, target) {
            fs::rename(&aside, target)?;
            return Err(error);
        }
        return Ok(());
    }
    fs::rename(new, target)?;
    sync_folder(parent)
}

/// The name of a file that ran while it was replaced.
fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".old");
    file.with_file_name(name)
}

/// Puts the earlier program and its files back.
///
/// # Errors
/// [`UpdateError::NoWayBack`], [`UpdateError::Io`]; then it can be tried again.
pub fn take_back(place: &Place) -> Result<Version, UpdateError> {
    let mut trial = state(place).ok_or(UpdateError::NoWayBack)?;
    // A version that came up is left because somebody wants it so.
    trial.by_person = trial.phase == Phase::Settled;
    let kept = previous(place);
    let program = place.program.file_name().unwrap_or_default();
    let whole = kept.join(program).is_file() || trial.phase == Phase::Swapping;
    if trial.phase == Phase::RolledBack || !whole {
        return Err(UpdateError::NoWayBack);
    }
    // The program first: from then on the old one starts, and it does not need the new files.
    for file in trial.replaced.iter().rev() {
        let (old, target) = (kept.join(file), place.folder.join(file));
        if !old.is_file() {
            continue;
        }
        // The kept one stays until all is done, so that a kill in between does no harm.
        let copy = place.updates().join("returning");
        let _ = fs::remove_file(&copy);
        keep_copy(&old, &copy).map_err(UpdateError::io("copying", &old))?;
        replace(&copy, &target).map_err(UpdateError::io("restoring", &target))?;
    }
    for file in &trial.added {
        let path = place.folder.join(file);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "a file of the newer version stays behind");
        }
    }
    trial.phase = Phase::RolledBack;
    save(place, &trial)?;
    for folder in [kept, staged(place)] {
        if let Err(error) = remove_folder(&folder) {
            warn!("{error}");
        }
    }
    info!("version {} is back", trial.from);
    Ok(trial.from)
}

fn keep_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::options().write(true).open(to)?.sync_all()
}

/// Called by every start of the program that lasts, before anything else: counts the starts of a
/// program on trial, goes back when there were too many, and finishes what a kill interrupted.
///
/// # Errors
/// [`UpdateError::Io`]; the program may go on all the same.
pub fn at_start(place: &Place, own: Version) -> Result<AtStart, UpdateError> {
    let Some(mut trial) = state(place) else { return Ok(AtStart::GoOn) };
    if trial.phase == Phase::Swapping {
        if own != trial.to {
            // The program was not exchanged yet: undone, to be tried again.
            undo(place)?;
            return Ok(AtStart::GoOn);
        }
        trial.phase = Phase::Trial { starts: 0 };
    }
    let Phase::Trial { starts } = trial.phase else { return Ok(AtStart::GoOn) };
    if own != trial.to {
        // The way back was interrupted after the program, before the rest.
        take_back(place)?;
        return Ok(AtStart::GoOn);
    }
    if starts >= STARTS_MAX {
        warn!("version {own} did not come up in {starts} starts");
        take_back(place)?;
        return Ok(AtStart::StartAgain);
    }
    trial.phase = Phase::Trial { starts: starts + 1 };
    save(place, &trial)?;
    Ok(AtStart::GoOn)
}

/// The program came up: the trial is over. The earlier program is kept for a way back.
///
/// # Errors
/// [`UpdateError::Io`].
pub fn came_up(place: &Place, own: Version) -> Result<(), UpdateError> {
    let Some(trial) = state(place) else { return Ok(()) };
    if matches!(trial.phase, Phase::Trial { .. }) && trial.to == own {
        for file in trial.replaced.iter().filter(|_| cfg!(windows)) {
            let _ = fs::remove_file(aside(&place.folder.join(file)));
        }
        save(place, &Trial { phase: Phase::Settled, ..trial })?;
        remove_folder(&staged(place))?;
        remove_folder(&place.updates().join("packages"))?;
        info!("version {own} came up");
    }
    Ok(())
}

/// The last exchange; `None` where there was none, or its record is damaged.
pub fn state(place: &Place) -> Option<Trial> {
    let text = fs::read_to_string(state_path(place)).ok()?;
    serde_json::from_str(&text)
        .inspect_err(|error| warn!(%error, "the record of the last update is damaged"))
        .ok()
}

fn save(place: &Place, trial: &Trial) -> Result<(), UpdateError> {
    let (folder, path) = (place.updates(), state_path(place));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        file.write_all(&serde_json::to_vec(trial).map_err(io::Error::other)?)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        sync_folder(&folder)
    };
    write().map_err(UpdateError::io("writing", &path))
}

fn remove_folder(folder: &Path) -> Result<(), UpdateError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UpdateError::io("clearing", folder)(error))
        }
        _ => Ok(()),
    }
}

/// A rename lives in its folder; Windows neither needs nor allows this.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

pub(crate) fn list(root: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
