//! `cargo xtask soak`: the real program's engine under mixed requests, with the starter model.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::shell::say;
use crate::starter::{self, STARTER};
use crate::workspace::Workspace;
use crate::{run, shell};

/// Builds the program and lets it soak its own engine; `words` are passed on.
pub(crate) fn soak(workspace: &Workspace, words: &[String]) -> Result<ExitCode> {
    check(words)?;
    run::build(workspace).run()?;
    let program = workspace.program();
    starter::kept(workspace, &program)?;
    let home = workspace.kept().join("home");
    let soak = shell::Cmd::new(&workspace.root, program)
        .args(["bench", "soak", "--model", STARTER])
        .args(words)
        .env("NEURINO_HOME", home);
    say(format!("$ {soak}"));
    let passed = soak.to_std().status()?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Only the two options, each with its number.
fn check(words: &[String]) -> Result<()> {
    for pair in words.chunks(2) {
        let known = matches!(pair[0].as_str(), "--minutes" | "--requests");
        if !known || pair.get(1).is_none_or(|number| number.parse::<u32>().is_err()) {
            bail!("`{}` is no option of soak; it takes --minutes N and --requests N", pair[0]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_options_are_taken() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(check(&[]).is_ok());
        assert!(check(&words("--minutes 2 --requests 8")).is_ok());
        assert!(check(&words("--minutes")).is_err());
        assert!(check(&words("--model other")).is_err());
        assert!(check(&words("--minutes two")).is_err());
    }
}
