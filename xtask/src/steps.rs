//! A sequence of named steps: announced, timed, and summed up at the end with how to repeat what
//! failed.

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell::{Cmd, say};

/// Tests that ran, as the test runners counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Takes in a line of a test runner's output: cargo's or vitest's closing line, else nothing.
    fn read(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim_start();
        let counts = if line.starts_with("test result: ") {
            line.split([';', '.']).collect::<Vec<_>>()
        } else if let Some(counts) = line.strip_prefix("Tests ") {
            counts.split('|').collect()
        } else {
            return;
        };
        for count in counts {
            let mut words = count.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<u64>) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                _ => {}
            }
        }
    }
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

/// What a step does.
pub(crate) enum Action<'a> {
    /// Runs these commands in turn and counts the tests they report.
    Commands(Vec<Cmd>),
    /// The same with commands that are known only when the step's turn comes.
    Planned(Box<dyn Fn() -> Result<Vec<Cmd>> + 'a>),
    /// Calls this.
    Call(Box<dyn Fn() -> Result<()> + 'a>),
}

/// How a step stands to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Others build on it: when it fails the sequence ends, and it comes along when one of those is
    /// chosen.
    Foundation,
    /// Makes sense only after the foundations.
    OnTop,
    /// Makes sense alone.
    Alone,
    /// As [`Place::OnTop`], and too long for every run: only when it is named.
    ByName,
}

/// One step.
pub(crate) struct Step<'a> {
    /// What `cargo xtask test NAME` calls it.
    pub(crate) name: &'static str,
    /// What it is for, in a few words.
    pub(crate) what: &'static str,
    /// How it stands to the others.
    pub(crate) place: Place,
    /// What it does.
    pub(crate) action: Action<'a>,
}

impl Step<'_> {
    fn run(&self, tally: &mut Tally, journal: &mut Journal) -> Result<()> {
        let planned;
        let commands = match &self.action {
            Action::Commands(commands) => commands,
            Action::Planned(plan) => {
                planned = plan()?;
                &planned
            }
            Action::Call(call) => return call(),
        };
        commands.iter().try_for_each(|command| match watched(command, tally, journal) {
            Err((failed, error)) if may_be_repeated(&failed) => {
                once_more(command, &failed, tally, journal).map_err(|_| error)
            }
            ended => ended.map_err(|(_, error)| error),
        })
    }
}

/// Runs a command and counts its tests; when it fails, with the names of the tests that did.
fn watched(
    command: &Cmd,
    tally: &mut Tally,
    journal: &mut Journal,
) -> Result<(), (Vec<String>, anyhow::Error)> {
    let mut failures = Failures::default();
    journal.note(format!("$ {command}"));
    let ended = command.run_watched(|line| {
        tally.read(line);
        journal.note(line);
        failures.read(line);
    });
    ended.map_err(|error| (failures.names, error))
}

/// Names of the tests that failed, from the list with which cargo's test runner closes.
#[derive(Debug, Default)]
struct Failures {
    names: Vec<String>,
    list: Vec<String>,
}

impl Failures {
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            // What the tests printed comes under the same title, before the list.
            self.list.clear();
        } else if line.starts_with("test result: FAILED") {
            self.names.append(&mut self.list);
        } else if let Some(name) = line.strip_prefix("    ")
            && !name.is_empty()
            && !name.contains(char::is_whitespace)
        {
            self.list.push(name.to_owned());
        }
    }
}

/// On a server that nobody watches, a few tests that failed are run once more, alone: a machine that
/// was busy for a moment should not cost a day. A desk sees the failure at once.
fn may_be_repeated(failed: &[String]) -> bool {
    const A_FEW: usize = 4;
    std::env::var_os("CI").is_some() && (1..=A_FEW).contains(&failed.len())
}

/// Repeats the tests that failed. Those that pass now are named, so that somebody mends them.
fn once_more(
    command: &Cmd,
    failed: &[String],
    tally: &mut Tally,
    journal: &mut Journal,
) -> Result<()> {
    journal.say(format!("\nonce more, alone: {}", failed.join(", ")));
    let mut again = Tally::default();
    let ended = watched(&command.only(failed), &mut again, journal).map_err(|(_, error)| error);
    // A name that fits nothing would pass.
    let all = u64::try_from(failed.len()).is_ok_and(|count| again.passed >= count);
    if ended.is_ok() && !all {
        bail!("not every test that failed was found again");
    }
    if ended.is_ok() {
        tally.failed -= again.passed.min(tally.failed);
        tally.passed += again.passed;
        for name in failed {
            journal.say(format!("UNSTEADY: {name} failed, and passed when it ran alone"));
            journal.unsteady.push(name.clone());
        }
    }
    ended
}

/// Keeps the steps whose names were given, with what they stand on; all if none was given.
///
/// # Errors
/// When a name is not a step's.
pub(crate) fn choose<'a>(steps: Vec<Step<'a>>, names: &[String]) -> Result<Vec<Step<'a>>> {
    if let Some(name) = names.iter().find(|name| !steps.iter().any(|step| step.name == **name)) {
        let known: Vec<&str> = steps.iter().map(|step| step.name).collect();
        bail!("there is no step `{name}`; the steps are {}", known.join(", "));
    }
    let named = |step: &Step<'_>| match names {
        [] => step.place != Place::ByName,
        names => names.iter().any(|name| name == step.name),
    };
    let is_on_top = |place| matches!(place, Place::OnTop | Place::ByName);
    let any_on_top = steps.iter().any(|step| named(step) && is_on_top(step.place));
    Ok(steps
        .into_iter()
        .filter(|step| named(step) || any_on_top && step.place == Place::Foundation)
        .collect())
}

/// What steps belong to, and where what they say is kept.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The command that runs single steps by name.
    command: &'static str,
    file: Option<File>,
    /// Tests that failed once and passed once.
    unsteady: Vec<String>,
}

impl Journal {
    /// Keeps nothing.
    pub(crate) fn of(command: &'static str) -> Self {
        Self { command, file: None, unsteady: Vec::new() }
    }

    /// Keeps everything in a file, written anew.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn in_file(command: &'static str, path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { command, file: Some(file), unsteady: Vec::new() })
    }

    /// Prints a line and keeps it.
    fn say(&mut self, line: impl Display) {
        say(&line);
        self.note(line);
    }

    /// Keeps a line that was printed.
    fn note(&mut self, line: impl Display) {
        if let Some(file) = &mut self.file
            && let Err(error) = writeln!(file, "{}", without_colours(&line.to_string()))
        {
            say(format!("the report ends here, because its file cannot be written: {error}"));
            self.file = None;
        }
    }
}

/// Runs the steps in order. A failed step does not keep the others from running, unless it is a
/// foundation. Closes with `N passed, N failed`.
pub(crate) fn run_all(steps: &[Step<'_>], journal: &mut Journal) -> ExitCode {
    let mut tally = Tally::default();
    let mut done: Vec<(&Step<'_>, Duration, Result<()>)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        journal.say(format!("\n[{}/{}] {}: {}", index + 1, steps.len(), step.name, step.what));
        let before = tally;
        let start = Instant::now();
        let result = step.run(&mut tally, journal);
        if result.is_err() && tally.failed == before.failed {
            tally.failed += 1;
        }
        let stop = result.is_err() && step.place == Place::Foundation;
        journal.say(format!(
            "[{}/{}] {} in {}",
            index + 1,
            steps.len(),
            verdict(&result),
            time(start.elapsed())
        ));
        done.push((step, start.elapsed(), result));
        if stop {
            break;
        }
    }
    journal.say("");
    for (step, elapsed, result) in &done {
        journal.say(format!("{:<10} {:>9}  {}", step.name, time(*elapsed), verdict(result)));
    }
    for step in &steps[done.len()..] {
        journal.say(format!("{:<10} {:>9}  not run", step.name, "-"));
    }
    for (step, _, result) in &done {
        if let Err(error) = result {
            journal.say(format!("\nfailed: {}: {error:#}", step.name));
            let command = journal.command;
            journal.say(format!("repeat: {command} {}", step.name));
        }
    }
    if !journal.unsteady.is_empty() {
        let names = journal.unsteady.join(", ");
        journal.say(format!("\nunsteady, to be mended: {names}"));
    }
    let failed = done.iter().any(|(_, _, result)| result.is_err()) || tally.failed > 0;
    journal.say(format!("\n{} passed, {} failed", tally.passed, tally.failed));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn verdict(result: &Result<()>) -> &'static str {
    if result.is_ok() { "ok" } else { "FAILED" }
}

fn time(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds >= 60 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1}s", elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        tally
    }

    #[test]
    fn cargos_and_vitests_counts_are_summed() {
        let lines = [
            "running 3 tests",
            "test a::passed ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "\u{1b}[2m      Tests \u{1b}[22m \u{1b}[1m\u{1b}[31m1 failed\u{1b}[39m | \u{1b}[32m4 passed\u{1b}[39m (5)",
            " Test Files  2 passed (2)",
        ];
        assert_eq!(tally(&lines), Tally { passed: 8, failed: 3 });
    }

    fn step<'a>(
        name: &'static str,
        place: Place,
        ran: &'a RefCell<Vec<&'static str>>,
        fails: bool,
    ) -> Step<'a> {
        let call = move || {
            ran.borrow_mut().push(name);
            anyhow::ensure!(!fails, "on purpose");
            Ok(())
        };
        Step { name, what: "", place, action: Action::Call(Box::new(call)) }
    }

    #[test]
    fn only_a_foundation_stops_the_rest() {
        let ran = RefCell::new(Vec::new());
        let steps = [
            step("a", Place::Alone, &ran, true),
            step("b", Place::Foundation, &ran, true),
            step("c", Place::OnTop, &ran, false),
        ];
        let mut journal = Journal::of("xtask");
        assert_eq!(run_all(&steps, &mut journal), ExitCode::FAILURE);
        assert_eq!(*ran.borrow(), ["a", "b"]);
        assert_eq!(run_all(&steps[2..], &mut journal), ExitCode::SUCCESS);
    }

    #[test]
    fn failed_tests_are_read_from_the_closing_list() {
        let mut failures = Failures::default();
        for line in [
            "test a::b ... FAILED",
            "    indented",
            "failures:",
            "---- a::b stdout ----",
            "    printed",
            "failures:",
            "    a::b",
            "    a::c",
            "",
            "test result: FAILED. 1 passed; 2 failed",
            "    later",
            "test result: ok. 1 passed; 0 failed",
            "failures:",
        ] {
            failures.read(line);
        }
        assert_eq!(failures.names, ["a::b", "a::c"]);
    }

    /// A test runner with one test that fails unless it is alone.
    fn runner() -> Cmd {
        let script = "case \"$*\" in \
            *--exact*) echo 'test result: ok. 1 passed; 0 failed';; \
            *) printf 'failures:\\n    a::b\\n\\ntest result: FAILED. 3 passed; 1 failed\\n'; exit 101;; \
            esac";
        Cmd::new(Path::new("."), "sh").args(["-c", script, "sh"])
    }

    #[test]
    fn what_passes_alone_is_named_and_counted_once() -> Result<()> {
        let (mut tally, mut journal) = (Tally::default(), Journal::of("xtask"));
        let command = runner();
        let (failed, _) =
            watched(&command, &mut tally, &mut journal).err().context("the first run fails")?;
        assert_eq!(failed, ["a::b"]);
        once_more(&command, &failed, &mut tally, &mut journal)?;
        assert_eq!(tally, Tally { passed: 4, failed: 0 });
        assert_eq!(journal.unsteady, ["a::b"]);
        // Two names, of which the runner knows one.
        let names = ["a::b".to_owned(), "a::c".to_owned()];
        assert!(once_more(&command, &names, &mut tally, &mut journal).is_err());
        Ok(())
    }

    #[test]
    fn a_journal_keeps_what_was_said_and_how_to_repeat_it() -> Result<()> {
        let ran = RefCell::new(Vec::new());
        let path = std::env::temp_dir().join(format!("neurino-journal-{}", std::process::id()));
        let steps = [step("a", Place::Alone, &ran, true), step("b", Place::Alone, &ran, false)];
        run_all(&steps, &mut Journal::in_file("xtask check", &path)?);
        let kept = std::fs::read_to_string(&path)?;
        std::fs::remove_file(&path)?;
        for line in ["[1/2] FAILED in", "repeat: xtask check a", "[2/2] ok", "0 passed, 1 failed"] {
            assert!(kept.contains(line), "{line} in {kept}");
        }
        Ok(())
    }

    #[test]
    fn a_chosen_step_brings_what_it_stands_on() {
        let ran = RefCell::new(Vec::new());
        let names = |names: &[&str]| -> Result<Vec<&str>> {
            let steps = vec![
                step("alone", Place::Alone, &ran, false),
                step("base", Place::Foundation, &ran, false),
                step("top", Place::OnTop, &ran, false),
                step("long", Place::ByName, &ran, false),
            ];
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            Ok(choose(steps, &names)?.iter().map(|step| step.name).collect())
        };
        assert_eq!(names(&["alone"]).ok(), Some(vec!["alone"]));
        assert_eq!(names(&["top"]).ok(), Some(vec!["base", "top"]));
        assert_eq!(names(&[]).ok(), Some(vec!["alone", "base", "top"]));
        assert_eq!(names(&["long"]).ok(), Some(vec!["base", "long"]));
        assert!(names(&["other"]).is_err());
    }
}
