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
use crate::swap::{self, Phase};

/// A program that has not come up by then will not.
const COMES_UP_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Starts the program in place and watches it come up; returns when it has, or has ended.
pub fn start_and_watch(place: &Place, arguments: &[OsString]) -> ExitCode {
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
            Ok(None) if begin.elapsed() > COMES_UP_WITHIN => {
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

/// Puts the earlier program back and starts it.
fn back(place: &Place, arguments: &[OsString]) -> ExitCode {
    match swap::take_back(place) {
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
