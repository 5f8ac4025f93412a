//! The one binary: a named role runs in the terminal, no role opens the window.

#[cfg(feature = "desktop")]
mod choose;
#[cfg(feature = "desktop")]
mod desktop;
#[cfg(feature = "desktop")]
mod environment;
#[cfg(feature = "desktop")]
mod memory;
#[cfg(feature = "desktop")]
mod notice;
#[cfg(feature = "desktop")]
mod place;
#[cfg(feature = "desktop")]
mod rpc;
#[cfg(feature = "desktop")]
mod shell;
#[cfg(feature = "desktop")]
mod tray;
#[cfg(feature = "desktop")]
mod window;
#[cfg(feature = "desktop")]
mod words;

use std::process::ExitCode;

use neurino_cli::{Cli, Edition};

/// Which packages update this build.
const EDITION: Edition = if cfg!(feature = "desktop") { Edition::Desktop } else { Edition::Server };

/// Exit code where no window can be opened, as for a wrong argument.
const NO_WINDOW: u8 = 2;

fn main() -> ExitCode {
    // A child of the window (the engine above all) starts with the environment the person gave.
    #[cfg(feature = "desktop")]
    environment::undo();
    let cli = neurino_cli::parse();
    if cli.role.is_some() { neurino_cli::main(cli, EDITION) } else { open(cli) }
}

#[cfg(feature = "desktop")]
fn open(cli: Cli) -> ExitCode {
    if let Some(code) = neurino_cli::update::begin(EDITION) {
        return code;
    }
    if !window::display_is_named() {
        return no_window("Neurino finds no display to open its window on.");
    }
    memory::prepare();
    environment::prepare();
    if !window::display_answers() {
        return no_window("Neurino cannot use the display it was told to open its window on.");
    }
    desktop::run(cli.home, cli.hidden, cli.mine)
}

#[cfg(not(feature = "desktop"))]
fn open(_: Cli) -> ExitCode {
    no_window("This build of Neurino is for servers and has no window.")
}

fn no_window(reason: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "no log and no window exists yet")]
    {
        eprintln!(
            "{reason} `neurino practice` mines in this terminal; `neurino --help` tells the rest."
        );
    }
    ExitCode::from(NO_WINDOW)
}
