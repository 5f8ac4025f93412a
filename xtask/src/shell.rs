//! Running other programs, and showing exactly what was run so that a person can repeat it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Prints a line for the person at the terminal.
#[expect(clippy::print_stdout, reason = "this program talks to a person at a terminal")]
pub(crate) fn say(line: impl fmt::Display) {
    println!("{line}");
}

/// Prints a line that says what went wrong.
#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
pub(crate) fn complain(line: &str) {
    eprintln!("{line}");
}

/// Variables that `cargo run` sets for us and that cargo sets anew for every compilation. Left in
/// place they would make build scripts that watch them (ring's does) run again each time the same
/// build is started by hand.
const CARGO_PRIVATE: [&str; 5] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_PRIMARY_PACKAGE",
];

/// A command that has not been started.
#[derive(Clone, Debug)]
pub(crate) struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(String, OsString)>,
    dir: PathBuf,
}

impl Cmd {
    /// A command that will run in `dir`.
    pub(crate) fn new(dir: &Path, program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// This run of tests, but for those of these names alone.
    pub(crate) fn only(&self, tests: &[String]) -> Self {
        let mut only = self.clone();
        if only.program == "cargo" && !only.args.iter().any(|arg| arg == "--") {
            only = only.arg("--");
        }
        // Filters that were there are exact from here on, and fit nothing.
        only.arg("--exact").args(tests)
    }

    /// The command for [`std::process`], with this process's environment less cargo's own part.
    pub(crate) fn to_std(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir);
        for (key, _) in std::env::vars_os() {
            let private = key
                .to_str()
                .is_some_and(|key| CARGO_PRIVATE.iter().any(|prefix| key.starts_with(prefix)));
            if private {
                command.env_remove(&key);
            }
        }
        command.envs(self.envs.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs to the end with the terminal as its input and output.
    pub(crate) fn run(&self) -> Result<()> {
        let status = self.to_std().status().with_context(|| format!("could not start `{self}`"))?;
        if status.success() { Ok(()) } else { bail!("`{self}` failed ({status})") }
    }

    /// Runs to the end and hands each line of standard output to `line`, after printing it.
    pub(crate) fn run_watched(&self, mut line: impl FnMut(&str)) -> Result<()> {
        let mut child = self
            .to_std()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start `{self}`"))?;
        if let Some(stdout) = child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            // Test output is not always UTF-8; a lossy line is better than a broken run.
            while reader.read_until(b'\n', &mut bytes)? > 0 {
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_end_matches(['\n', '\r']);
                say(text);
                line(text);
                bytes.clear();
            }
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("`{self}` failed ({status})") }
    }

    /// Runs to the end and returns what it printed.
    pub(crate) fn output(&self) -> Result<String> {
        let output = self
            .to_std()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("could not start `{self}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{self}` failed ({}): {}", output.status, said.trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{self}` printed no UTF-8"))
    }

    /// Whether it can be started and ends well. Prints nothing.
    pub(crate) fn succeeds(&self) -> bool {
        self.to_std()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.envs {
            write!(f, "{key}={} ", quoted(value))?;
        }
        f.write_str(&quoted(&self.program))?;
        for arg in &self.args {
            write!(f, " {}", quoted(arg))?;
        }
        Ok(())
    }
}

/// The word as a shell wants it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a program of this name can be started from `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted() {
        let cmd = Cmd::new(Path::new("."), "cargo")
            .args(["test", "a name", "it's"])
            .env("KEY", "two words");
        assert_eq!(cmd.to_string(), r"KEY='two words' cargo test 'a name' 'it'\''s'");
    }

    #[test]
    fn failure_names_the_command() -> Result<()> {
        let here = std::env::current_dir()?;
        let cmd = Cmd::new(&here, "false").arg("x");
        let error = cmd.run().map_or_else(|error| error.to_string(), |()| String::new());
        assert!(error.contains("`false x` failed"), "{error}");
        assert!(!cmd.succeeds());
        Ok(())
    }

    #[test]
    fn watched_lines_arrive_without_their_ends() -> Result<()> {
        let here = std::env::current_dir()?;
        let mut lines: Vec<String> = Vec::new();
        Cmd::new(&here, "printf").arg("one\r\ntwo").run_watched(|line| lines.push(line.into()))?;
        assert_eq!(lines, ["one", "two"]);
        Ok(())
    }
}
