//! A bus of a test's own, which ends with it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// A running daemon.
pub(crate) struct Daemon(Child, String);

impl Daemon {
    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.1
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a daemon, at an address if one is given; `None` where none is installed, which fails
/// where tests must run.
pub(crate) fn start(address: Option<&str>) -> Option<Daemon> {
    let mut command = Command::new("dbus-daemon");
    command.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]);
    command.args(address.map(|address| format!("--address={address}")));
    let Ok(mut child) = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        assert!(std::env::var_os("NEURINO_E2E").is_none(), "dbus-daemon is not installed");
        return None;
    };
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Some(Daemon(child, address.trim().to_owned()))
}
