//! A real process whose own file is replaced while it runs, and which becomes what lies there then.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap is a failed test")]

use std::process::ExitCode;

use neurino_update::{Edition, Place, hand_over};

/// The word with which this program is started as the one that is replaced.
const REPLACED: &str = "replaced";

#[cfg(unix)]
fn main() -> ExitCode {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == REPLACED) {
        let place = Place::here(Edition::Server).unwrap();
        fs::rename(&arguments[1], &place.program).unwrap();
        let place = Place::here(Edition::Server).unwrap();
        return hand_over::become_program(&place.program, &["hello".into()]);
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, other) = (folder.path().join("neurino"), folder.path().join("other"));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::write(&other, "#!/bin/sh\necho \"back with $1\"\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program).arg(REPLACED).arg(&other).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "back with hello\n", "{told}");
    println!("a program that was replaced becomes what lies there");
    ExitCode::SUCCESS
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    // A running program cannot be renamed over there.
    println!("{REPLACED}: {:?}", Place::here(Edition::Server).is_ok());
    let _ = hand_over::become_program;
    ExitCode::SUCCESS
}
