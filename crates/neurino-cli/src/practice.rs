//! `neurino practice`: the whole system on this machine, in one command.

mod report;
mod screen;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use neurino_app::demand::Demand;
use neurino_app::{App, AppOptions, EngineHost};
use neurino_config::NetworkSetting;
use neurino_coordinator::{Coordinator, JobUpdate, PayerId};
use neurino_core::{JobId, JobOutput};
use neurino_protocol::app::{Command, Event, MiningState, Reply, Snapshot};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::json;

use crate::args::PracticeArgs;
use crate::output::{self, Format};
use crate::{FAILED, Setting, interrupted, node};
use report::{JobReport, LedgerReport, Report};
use screen::Screen;

/// Longest wait for the miner to be ready: it may have to fetch the model first.
const READY_WAIT: Duration = Duration::from_mins(15);

pub(crate) async fn run(mut setting: Setting, args: PracticeArgs) -> anyhow::Result<ExitCode> {
    setting.settings.network.coordinator = NetworkSetting::Practice;
    if let Some(port) = args.port {
        setting.settings.gateway.listen_port = port;
    }
    let engine = EngineHost::Process { program: std::env::current_exe()? };
    let usual = AppOptions::new(setting.dirs.clone(), setting.settings.clone(), engine);
    let app = App::start(AppOptions { any_port: args.port.is_none(), ..usual }).await?;
    let outcome = if args.serve {
        serve(&app, setting.format).await
    } else {
        tokio::select! {
            outcome = jobs(&app, args.jobs, &setting) => outcome,
            () = interrupted() => Err(anyhow::anyhow!("interrupted; the running job was handed back")),
        }
    };
    app.shutdown().await;
    outcome
}

async fn serve(app: &Arc<App>, format: Format) -> anyhow::Result<ExitCode> {
    let (url, key) = (app.gateway_url(), app.gateway_key());
    let (url, key) = (url.context("no gateway")?, key.context("no gateway")?);
    let events = app.subscribe();
    match format {
        Format::Json => output::json_line(&json!({
            "event": "started", "gateway_url": url, "api_key": key, "node": app.node(),
        }))?,
        Format::Text => {
            output::line(format!("OpenAI-compatible gateway  {url}"));
            output::line(format!("API key                    {key}"));
            output::line("Ctrl-C ends.");
        }
    }
    app.dispatch(Command::MiningStart).await?;
    tokio::select! {
        code = node::follow(events, format) => code,
        () = interrupted() => Ok(ExitCode::SUCCESS),
    }
}

async fn jobs(app: &Arc<App>, count: u32, setting: &Setting) -> anyhow::Result<ExitCode> {
    let format = setting.format;
    let screen = Screen::new(format);
    let coordinator = app.practice().context("the practice network is not running")?;
    let now = snapshot(app).await?;
    screen.device(&now);
    ready(app, &screen).await?;
    let now = snapshot(app).await?;
    let demand = Demand::of(&now.models).context("no model is on this machine")?;
    let first = u64::from(now.points.jobs_total);
    let mut reports = Vec::new();
    for n in 0..count {
        let spec = demand.job(first + u64::from(n));
        screen.job_begins(n + 1, count, &spec);
        let job = coordinator.submit_job(PayerId::local(), None, spec).await?;
        let mut report = watch(coordinator, job, &screen).await?;
        if format == Format::Text {
            report.saved = save(&report, &setting.dirs.pictures);
        }
        screen.job_ended(&report);
        reports.push(report);
    }
    drop(screen);
    let report = Report {
        network: coordinator.network().into(),
        node: app.node().to_string(),
        jobs: reports,
        ledger: LedgerReport::of(&coordinator.ledger_check().await?, &app.node()),
    };
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => report.print(),
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn snapshot(app: &Arc<App>) -> anyhow::Result<Box<Snapshot>> {
    match app.dispatch(Command::Snapshot).await? {
        Reply::Snapshot(snapshot) => Ok(snapshot),
        other => anyhow::bail!("unexpected reply {other:?}"),
    }
}

/// Starts mining and waits until the miner waits for work.
async fn ready(app: &Arc<App>, screen: &Screen) -> anyhow::Result<()> {
    let mut events = app.subscribe();
    app.dispatch(Command::MiningStart).await?;
    let wait = async {
        loop {
            let now = snapshot(app).await?;
            screen.preparing(&now.mining.sentence);
            match now.mining.state {
                MiningState::Waiting | MiningState::Working if now.network.connected => {
                    return Ok(());
                }
                MiningState::NeedsYou => {
                    let problem = now.mining.problem.clone();
                    return Err(problem.map_or_else(
                        || anyhow::anyhow!("{}", now.mining.sentence),
                        |problem| anyhow::Error::from(said_once(problem)),
                    ));
                }
                _ => {}
            }
            while !matches!(events.recv().await, Ok(Event::Snapshot(_)) | Err(_)) {}
        }
    };
    tokio::time::timeout(READY_WAIT, wait).await.context("the miner did not get ready in time")?
}

/// A problem in the words of a program that ends with it: only one that stays tries again by itself.
fn said_once(mut problem: ErrorBody) -> ErrorBody {
    if problem.code == ErrorCode::Unreachable {
        let hint = "check the internet connection and run this again; what has arrived is kept";
        problem.hint = Some(hint.to_owned());
    }
    problem
}

/// Writes a job's picture to `folder`, for a person to look at. A picture that cannot be written is
/// still in the network's books.
fn save(report: &JobReport, folder: &Path) -> Option<PathBuf> {
    let Some(JobOutput::Image(image)) = &report.output else { return None };
    let path = folder.join(format!("{}.png", report.job));
    let written =
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &image.png.0));
    match written {
        Ok(()) => Some(path),
        Err(error) => {
            output::line(format!("  {} could not be saved: {error}", path.display()));
            None
        }
    }
}

async fn watch(
    coordinator: &Arc<Coordinator>,
    job: JobId,
    screen: &Screen,
) -> anyhow::Result<JobReport> {
    let mut updates = coordinator.watch_job(job).await?;
    let mut report = JobReport::open(job);
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Queued => screen.answer_void(),
            JobUpdate::Leased { .. } => {}
            JobUpdate::Delta(delta) => screen.answer(&delta.text),
            JobUpdate::Step(step) => screen.step(&step),
            JobUpdate::Finished { output, receipt } => {
                report.state = "succeeded";
                report.output = Some(output);
                report.receipt = Some(*receipt);
            }
            JobUpdate::Failed(error) => report.error = Some(error),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_ends_promises_no_further_try() {
        let problem = ErrorBody::new(ErrorCode::Unreachable, "no model could be fetched");
        let problem = said_once(problem.with_hint("Neurino tries again by itself."));
        assert_eq!(problem.message, "no model could be fetched");
        assert!(problem.hint.is_some_and(|hint| hint.contains("run this again")));
        let other = ErrorBody::new(ErrorCode::UnknownModel, "none").with_hint("choose another");
        assert_eq!(said_once(other.clone()), other);
    }
}
