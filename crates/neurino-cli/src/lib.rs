//! The command line: every role of the one binary without a window.
//!
//! [`args`] is the grammar; each role is a module of its name. Text goes to people, `--json` to
//! scripts; logs go to files, so that standard output holds answers only.

pub mod args;
mod audit;
mod bench;
mod control;
mod coordinator;
mod data;
mod doctor;
mod earnings;
mod engine;
mod epoch;
mod models;
mod node;
mod output;
mod practice;
mod tune;
pub mod update;
mod voucher;
mod wallet;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use neurino_app::telemetry::{self, Telemetry};
use neurino_config::{Dirs, Settings};
use neurino_model_store::ModelStore;
pub use neurino_update::Edition;

pub use args::{Cli, Role};
use output::Format;

/// Exit code of a command that failed.
const FAILED: u8 = 1;

/// Parses the command line; prints help, version or what is wrong with it and exits where clap
/// does.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Runs a role in this process until it ends. `cli.role` must be set: the window is not opened
/// here.
pub fn main(cli: Cli, edition: Edition) -> ExitCode {
    let Some(role) = cli.role else {
        output::note("neurino: name a command; `neurino --help` lists them");
        return ExitCode::from(2);
    };
    let outcome = match role {
        // The engine's process has no settings, no logs and no data of its own.
        Role::Engine => engine::run(),
        // Bounds itself before it has any thread, and has nothing else of ours.
        Role::CheckPictures => coordinator::check_pictures(),
        Role::Switch(args) => update::switch(&args, cli.home),
        role => run(role, cli.home, if cli.json { Format::Json } else { Format::Text }, edition),
    };
    let outcome = outcome.and_then(|code| match output::lost() {
        Some(error) => Err(anyhow::anyhow!("the answer could not be written: {error}")),
        None => Ok(code),
    });
    outcome.unwrap_or_else(|error| {
        output::note(format!("neurino: {error:#}"));
        ExitCode::from(FAILED)
    })
}

/// What every role but the engine starts from.
struct Setting {
    dirs: Dirs,
    settings: Settings,
    format: Format,
    _telemetry: Telemetry,
}

impl Setting {
    /// The model library, for who works with it.
    ///
    /// # Errors
    /// Its drive is not connected, or its folder cannot be created.
    fn library(&self) -> anyhow::Result<ModelStore> {
        self.dirs.create_models()?;
        Ok(ModelStore::open(&self.dirs.models)?)
    }
}

fn run(
    role: Role,
    home: Option<std::path::PathBuf>,
    format: Format,
    edition: Edition,
) -> anyhow::Result<ExitCode> {
    if matches!(role, Role::Node(_))
        && let Some(code) = update::begin(edition)
    {
        return Ok(code);
    }
    let dirs = Dirs::discover(home)?;
    dirs.create()?;
    let settings = Settings::load(&dirs)?;
    let telemetry = telemetry::start(&dirs.logs, &settings.telemetry);
    if let Some(problem) = telemetry.problem() {
        output::note(output::plain(&format!("neurino: {problem}")));
    }
    let setting = Setting { dirs, settings, format, _telemetry: telemetry };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime cannot start")?;
    let code = runtime.block_on(async {
        match role {
            Role::Practice(args) => practice::run(setting, args).await,
            Role::Node(args) => node::run(setting, args, edition).await,
            Role::Coordinator(args) => coordinator::run(setting, args).await,
            Role::Models { action } => models::run(setting, action).await,
            Role::Wallet { action } => wallet::run(setting, action).await,
            Role::Earnings(args) => earnings::run(&setting, &args),
            Role::Doctor(args) => doctor::run(setting, args).await,
            Role::Bench { action } => bench::run(setting, action).await,
            Role::Tune(args) => tune::run(setting, args).await,
            Role::Audit { action } => audit::run(setting, action).await,
            Role::Update { action } => update::run(setting, action, edition).await,
            Role::Epoch { action } => epoch::run(setting, action).await,
            Role::Voucher { action } => voucher::run(setting, action).await,
            Role::Pause { time } => control::pause(&setting, time).await,
            Role::Resume => control::resume(&setting).await,
            Role::Toggle => control::toggle(&setting).await,
            Role::Status => control::status(&setting).await,
            Role::Data { action } => data::run(&setting, action).await,
            Role::Engine | Role::CheckPictures | Role::Switch(_) => {
                unreachable!("handled before the runtime starts")
            }
        }
    });
    // A thread that hangs in a library must not keep the program from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Waits for Ctrl-C or a request to end.
async fn interrupted() {
    let ctrl_c = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = ctrl_c => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = ctrl_c.await;
}
