//! The project's own commands: `cargo xtask run`, `cargo xtask test` and what stands behind them.
//!
//! Reading order: `workspace` (where things are, which engines this machine can use), `shell` (how
//! commands are run and shown), `system`, `wheels`, `cuda`, `ui`, `starter` (what has to be
//! there before a build or a run), then `run`, `test`, `dist`, `windows`, `release`, `gpu_check`, `parity`, `generate`, `tidy`.

mod clients;
mod contents;
mod cuda;
mod debian;
mod dist;
mod generate;
mod gpu_check;
mod parity;
mod redhat;
mod release;
mod resources;
mod run;
mod shell;
mod soak;
mod starter;
mod steps;
mod stores;
mod system;
mod test;
mod tidy;
mod ui;
mod wheels;
mod windows;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::shell::say;
use crate::workspace::{Engines, Workspace};

const HELP: &str = "\
cargo xtask COMMAND [OPTIONS]

  run [-- ARGS]    set up, build, and start Neurino on the practice network
                   (without a display: `neurino practice` in this terminal; ARGS go to the program)
  test [STEP ...]  set up, then format, clippy, unit, integration, UI and end-to-end tests
                   (STEP picks single steps, `--list` names them; `flux` runs by name alone)
  ci               the same as test
  setup            only install what is missing: system packages, the web UI's packages, LLVM
  gen [--check]    write the generated files anew (TypeScript types, docs/ENVIRONMENT.md)
  parity FOLDER [OPTIONS]
                   the reference cases of a folder: each one's error and limit (`--device cuda`:
                   on the card; `--starter-model FILE`, `--vocabularies FOLDER`: what it may lack)
  tidy             the layer table, purpose lines, links, file sizes
  dist [--windows] the release: .deb and .rpm for the desktop, .deb and tarball for servers
                   (--windows: the Windows installer; cross-built on Debian with the CPU engine)
                   (--quick: of the build that `run` makes, to try the packages)
                   (--windows --release-url URL: winget's manifests too, for the folder at URL)
  sign FOLDER --key FILE [OPTIONS]
                   the signed list of a release's packages, from which programs update themselves
  gpu-check [STEP ...]
                   on a machine with an NVIDIA card: parity, kernels, memory and speed, with a report
                   (STEP picks single steps, `--list` names them)

  soak [--minutes N] [--requests N]
                   half an hour of mixed requests against the starter model: streams, memory, counters

  --cpu            leave the NVIDIA engine out, whatever the machine has
  --cuda           build the NVIDIA engine, even if no driver is found here";

fn main() -> ExitCode {
    match dispatch(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            shell::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What the command line asked for, beyond the command itself.
#[derive(Debug, Default)]
struct Options {
    engines: Option<Engines>,
    words: Vec<String>,
    passed_on: Vec<String>,
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--" => options.passed_on = args.by_ref().collect(),
                "--cpu" | "--cuda" if options.engines.is_some() => {
                    bail!("give one of --cpu and --cuda")
                }
                "--cpu" => options.engines = Some(Engines::Cpu),
                "--cuda" => options.engines = Some(Engines::CpuAndCuda),
                _ => options.words.push(arg),
            }
        }
        Ok(options)
    }

    fn take_flag(&mut self, flag: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != flag);
        self.words.len() < before
    }

    /// The word after `flag`, if the flag was given.
    fn take_value(&mut self, flag: &str) -> Result<Option<String>> {
        let Some(place) = self.words.iter().position(|word| word == flag) else { return Ok(None) };
        self.words.remove(place);
        if place == self.words.len() {
            bail!("{flag} wants a value");
        }
        Ok(Some(self.words.remove(place)))
    }

    fn no_more_words(&self) -> Result<()> {
        match self.words.first() {
            Some(word) => bail!("unknown argument `{word}`\n\n{HELP}"),
            None => Ok(()),
        }
    }
}

fn dispatch(mut args: Vec<String>) -> Result<ExitCode> {
    if args.is_empty() || matches!(args[0].as_str(), "help" | "--help" | "-h") {
        say(HELP);
        return Ok(ExitCode::SUCCESS);
    }
    let command = args.remove(0);
    let mut options = Options::parse(args)?;
    let workspace = Workspace::discover(options.engines)?;
    match command.as_str() {
        "run" => {
            options.no_more_words()?;
            return run::run(&workspace, &options.passed_on);
        }
        "test" | "ci" => {
            let list = options.take_flag("--list");
            return test::test(&workspace, &options.words, list);
        }
        "setup" => {
            options.no_more_words()?;
            run::set_up(&workspace, system::Purpose::Test)?;
            say("everything is there");
        }
        "gen" => {
            let check = options.take_flag("--check");
            options.no_more_words()?;
            generate::generate(&workspace, check)?;
        }
        "tidy" => {
            options.no_more_words()?;
            tidy::tidy(&workspace)?;
        }
        "dist" if options.take_flag("--windows") => {
            let release_url = options.take_value("--release-url")?;
            let profile = if options.take_flag("--quick") { "release" } else { "dist" };
            options.no_more_words()?;
            // Debian cannot build that engine for Windows, so there it is left out unasked.
            let with_cuda = options.engines.map_or(cfg!(windows), |e| e == Engines::CpuAndCuda);
            let making = windows::Making { with_cuda, profile };
            dist::dist_windows(&workspace, making, release_url.as_deref())?;
        }
        "dist" if options.take_flag("--quick") => {
            options.no_more_words()?;
            dist::dist_quick(&workspace)?;
        }
        "dist" => {
            options.no_more_words()?;
            dist::dist(&workspace, options.engines != Some(Engines::Cpu))?;
        }
        "parity" => {
            let args = [options.words, options.passed_on].concat();
            return parity::parity(&workspace, &args);
        }
        "sign" => release::sign(&workspace, &options.words)?,
        "soak" => return soak::soak(&workspace, &options.words),
        "gpu-check" => {
            let list = options.take_flag("--list");
            return gpu_check::gpu_check(&workspace, &options.words, list);
        }
        other => bail!("unknown command `{other}`\n\n{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_program() -> Result<()> {
        let options = parse("--cpu -- --jobs 5 --cuda")?;
        assert_eq!(options.engines, Some(Engines::Cpu));
        assert_eq!(options.passed_on, ["--jobs", "5", "--cuda"]);
        assert!(options.words.is_empty());
        Ok(())
    }

    #[test]
    fn the_two_engine_flags_exclude_each_other() {
        assert!(parse("--cpu --cuda").is_err());
    }

    #[test]
    fn a_flags_value_is_the_next_word() -> Result<()> {
        let mut options = parse("--windows --release-url x")?;
        assert_eq!(options.take_value("--release-url")?.as_deref(), Some("x"));
        assert_eq!(options.take_value("--release-url")?, None);
        assert_eq!(options.words, ["--windows"]);
        assert!(parse("--release-url")?.take_value("--release-url").is_err());
        Ok(())
    }

    #[test]
    fn a_flag_is_taken_once_and_words_stay() -> Result<()> {
        let mut options = parse("clippy --list ui")?;
        assert!(options.take_flag("--list"));
        assert!(!options.take_flag("--list"));
        assert_eq!(options.words, ["clippy", "ui"]);
        assert!(options.no_more_words().is_err());
        Ok(())
    }
}
