//! The way back to the version before.

use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};

use super::files::{keep, remove_folder, replace};
use super::locks::Exchange;
use super::record::{Kept, Phase, Trial, forget, previous, save, staged, state};
use crate::error::UpdateError;
use crate::place::Place;
use crate::version::Version;

/// Puts the earlier program and its files back; `by_person` where somebody wants it so, and not because
/// the newer one did not come up.
///
/// # Errors
/// [`UpdateError::NoWayBack`]; [`UpdateError::KeptDamaged`], and nothing was touched;
/// [`UpdateError::Busy`]; [`UpdateError::Io`], and it can be tried again.
pub fn take_back(place: &Place, by_person: bool) -> Result<Version, UpdateError> {
    if state(place).is_none() {
        return Err(UpdateError::NoWayBack);
    }
    let _alone = Exchange::begin(place)?;
    return_files(place, by_person)
}

/// The version that [`take_back`] would put in place of `own`.
pub fn way_back(place: &Place, own: Version) -> Option<Version> {
    let trial = state(place)?;
    let may = matches!(trial.phase, Phase::Trial { .. } | Phase::Settled) && trial.to == own;
    let program = place.program.file_name().unwrap_or_default();
    (may && previous(place).join(program).is_file()).then_some(trial.from)
}

/// As [`take_back`], for whoever holds the lock already.
pub(super) fn return_files(place: &Place, by_person: bool) -> Result<Version, UpdateError> {
    let mut way = WayBack::make(place, by_person)?;
    while let Some(step) = way.next_step() {
        step?;
    }
    info!("version {} is back", way.trial.from);
    Ok(way.trial.from)
}

/// The steps of the way back, one after another.
pub(super) struct WayBack<'a> {
    place: &'a Place,
    trial: Trial,
    /// What it was before.
    phase: Phase,
    done: usize,
}

impl<'a> WayBack<'a> {
    pub(super) fn make(place: &'a Place, by_person: bool) -> Result<Self, UpdateError> {
        let mut trial = state(place).ok_or(UpdateError::NoWayBack)?;
        let phase = trial.phase.clone();
        if phase == Phase::RolledBack {
            return Err(UpdateError::NoWayBack);
        }
        trial.by_person = by_person;
        let way = Self { place, trial, phase, done: 0 };
        way.check()?;
        Ok(way)
    }

    /// Whether every file of the earlier version is there and whole, before any is touched.
    fn check(&self) -> Result<(), UpdateError> {
        for old in &self.trial.replaced {
            let kept = previous(self.place).join(&old.file);
            if old.is_at(&self.target(old)) || old.is_at(&kept) {
                continue;
            }
            let damaged = kept.is_file();
            return Err(if damaged {
                UpdateError::KeptDamaged { path: kept }
            } else {
                UpdateError::NoWayBack
            });
        }
        Ok(())
    }

    fn target(&self, old: &Kept) -> std::path::PathBuf {
        self.place.folder.join(&old.file)
    }

    /// Does the next step; `None` when all are done.
    pub(super) fn next_step(&mut self) -> Option<Result<(), UpdateError>> {
        let (added, replaced) = (self.trial.added.len(), self.trial.replaced.len());
        let step = self.done;
        self.done += 1;
        if step == 0 {
            Some(self.begin())
        } else if step < 1 + replaced {
            // The program first: from then on the old one starts, and it needs no new files.
            Some(self.restore(&self.trial.replaced[replaced - step]))
        } else if step < 1 + replaced + added {
            remove(&self.place.folder.join(&self.trial.added[step - 1 - replaced]));
            Some(Ok(()))
        } else if step == 1 + replaced + added {
            // An exchange that got stuck never was.
            if self.phase == Phase::Swapping {
                return Some(forget(self.place));
            }
            self.trial.phase = Phase::RolledBack;
            Some(save(self.place, &self.trial))
        } else if step == 2 + replaced + added {
            if let Err(error) = remove_folder(&previous(self.place)) {
                warn!("{error}");
            }
            Some(Ok(()))
        } else {
            None
        }
    }

    /// Writes down what is about to happen; makes room first, for the drive may be full.
    fn begin(&mut self) -> Result<(), UpdateError> {
        if let Err(error) = remove_folder(&staged(self.place)) {
            warn!("{error}");
        }
        // An exchange that got stuck is undone under its own name.
        if self.phase == Phase::Swapping {
            return Ok(());
        }
        self.trial.phase = Phase::GoingBack;
        match save(self.place, &self.trial) {
            // A trial whose old program is back is known for what it is.
            Err(error) if matches!(self.phase, Phase::Trial { .. }) => {
                warn!("{error}");
                Ok(())
            }
            saved => saved,
        }
    }

    fn restore(&self, old: &Kept) -> Result<(), UpdateError> {
        let (kept, target) = (previous(self.place).join(&old.file), self.target(old));
        // Never touched, or back already.
        if old.is_at(&target) {
            return Ok(());
        }
        // The kept one stays until all is done, so that a kill in between does no harm.
        let second = self.place.updates().join("returning");
        let _ = fs::remove_file(&second);
        keep(&kept, &second).map_err(UpdateError::io("copying", &kept))?;
        replace(&second, &target).map_err(UpdateError::io("restoring", &target))
    }
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, "a file of the newer version stays behind");
    }
}
