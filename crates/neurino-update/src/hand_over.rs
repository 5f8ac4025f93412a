//! From the old process to the new one.
//!
//! The old process has ended its application; what is left of it starts the file in place and watches
//! until the new program has come up. Where it ends or hangs before, the earlier one is put back and
//! started.

use std::ffi::OsString;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::place::Place;
use crate::swap::locks::SignOfLife;
use crate::swap::{self, Phase};
use crate::version::Version;

/// A program that has not come up by then will not.
const COMES_UP_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Starts the program in place and watches it come up; returns when it has, or has ended.
pub fn start_and_watch(place: &Place, arguments: &[OsString]) -> ExitCode {
    watched(place, arguments, COMES_UP_WITHIN)
}

fn watched(place: &Place, arguments: &[OsString], within: Duration) -> ExitCode {
    let mut child = match Command::new(&place.program).args(arguments).spawn() {
        Ok(child) => child,
        Err(error) => {
            warn!(%error, "the new version cannot be started");
            return back(place, arguments);
        }
    };
    let begin = Instant::now();
    loop {
        let on_trial = swap::state(place).is_some_and(|t| matches!(t.phase, Phase::Trial { .. }));
        match child.try_wait() {
            Ok(_) if !on_trial => return ExitCode::SUCCESS,
            // Quit by the person before it had said that it is well.
            Ok(Some(status)) if status.success() => return ExitCode::SUCCESS,
            Ok(Some(status)) => {
                warn!(%status, "the new version ended before it came up");
                return back(place, arguments);
            }
            Ok(None) if begin.elapsed() > within && SignOfLife::is_given(place) => {
                warn!("the new version came up and cannot write that down");
                return ExitCode::SUCCESS;
            }
            Ok(None) if begin.elapsed() > within => {
                warn!("the new version did not come up");
                end(&mut child);
                return back(place, arguments);
            }
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(error) => {
                error!(%error, "the new version cannot be watched");
                return ExitCode::FAILURE;
            }
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What the old process leaves to the one that it becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// This version, which lies staged, is put in place.
    Install(Version),
    /// The version before is put back.
    Back,
}

/// Puts the earlier program back and starts it.
fn back(place: &Place, arguments: &[OsString]) -> ExitCode {
    match swap::take_back(place, false) {
        // It may have gone back by itself in the meantime.
        Ok(_) | Err(crate::UpdateError::NoWayBack) => {}
        Err(error) => error!("the earlier version cannot be put back: {error}"),
    }
    match Command::new(&place.program).args(arguments).spawn() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the earlier version cannot be started");
            ExitCode::FAILURE
        }
    }
}

/// Becomes another program: under Unix in this very process, so that what watches over it (systemd)
/// notices nothing; elsewhere as a child whose end is passed on. Returns only where that fails, or
/// with the child's end.
pub fn become_program(program: &std::path::Path, arguments: &[OsString]) -> ExitCode {
    let mut command = Command::new(program);
    command.args(arguments);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        let error = command.exec();
        error!(%error, "the program cannot be started");
        ExitCode::FAILURE
    }
    #[cfg(not(unix))]
    match command.status() {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            error!(%error, "the program cannot be started");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs;

    use super::*;
    use crate::swap::tests::{NEW, OLD, World};

    /// The process of the new version here is `sleep`, and this test is the program that it stands for.
    #[test]
    fn a_program_that_runs_and_cannot_write_is_left_alone_and_a_silent_one_is_not() {
        let program =
            "#!/bin/sh\n[ \"$1\" = --version ] && echo neurino 0.2.0 && exit\nexec sleep 3\n";
        let short = Duration::from_millis(300);
        let world = World::with(program);
        swap::put_in_place(&world.place, &world.stage().unwrap(), OLD).unwrap();
        let sign = SignOfLife::give(&world.place).unwrap();
        assert_eq!(watched(&world.place, &["--x".into()], short), ExitCode::SUCCESS);
        assert_eq!(world.version(), NEW, "it is not taken back");
        drop(sign);
        watched(&world.place, &[], short);
        assert_eq!(world.version(), OLD, "nobody said a word");
        assert!(fs::exists(&world.place.program).unwrap());
    }
}
