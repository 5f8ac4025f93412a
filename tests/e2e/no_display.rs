//! Started where no window can be: one plain sentence and a way on, no crash.

use std::process::Command;

use crate::desk::program;

#[test]
fn says_so_where_there_is_no_display() {
    if !program().is_file() {
        eprintln!("skipped: {} is not built", program().display());
        return;
    }
    // No display at all, and one that does not answer.
    for display in [None, Some(":9999")] {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(program());
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        command.env("NEURINO_HOME", home.path());
        if let Some(display) = display {
            command.env("DISPLAY", display);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("display") && said.contains("`neurino practice`"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
