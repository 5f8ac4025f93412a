//! Generated files: the web UI's TypeScript types and `docs/ENVIRONMENT.md`.
//!
//! Each has a test in the crate that knows the truth. The test compares; told to, it writes.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::shell::say;
use crate::workspace::Workspace;

/// Makes the tests write their files instead of comparing them only.
const UPDATE: &str = "NEURINO_UPDATE_TYPES";

/// Package and test, one pair per generated file.
const TESTS: [(&str, &str); 2] = [
    ("neurino-protocol", "the_ui_types_are_those_of_this_contract"),
    ("neurino-config", "the_reference_page_is_up_to_date"),
];

/// Writes the generated files, or with `check` only compares them.
///
/// # Errors
/// When a file differs, or when one of the tests no longer exists under its name.
pub(crate) fn generate(workspace: &Workspace, check: bool) -> Result<()> {
    let mut test = workspace.cargo("test").args(["--release", "--quiet", "--lib", "--tests"]);
    for (package, _) in TESTS {
        test = test.args(["--package", package]);
    }
    test = test.args(["--", "--format=pretty"]).args(TESTS.map(|(_, name)| name));
    if !check {
        test = test.env(UPDATE, "1");
    }
    let mut missing: BTreeSet<&str> = TESTS.map(|(_, name)| name).into();
    test.run_watched(|line| missing.retain(|name| !line.contains(&format!("{name} ... ok"))))?;
    if let Some(name) = missing.first() {
        bail!("no test is called `{name}` any more: update xtask/src/generate.rs");
    }
    say("the generated files are up to date");
    Ok(())
}
