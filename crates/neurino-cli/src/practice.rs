//! `neurino practice`: the whole system on this machine, in one command.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use neurino_app::{App, AppOptions, EngineHost, demand};
use neurino_config::NetworkSetting;
use neurino_coordinator::{Coordinator, JobUpdate, LedgerCheck, PayerId};
use neurino_core::{JobId, JobOutput, MicroPoints, ModelId, Receipt};
use neurino_protocol::ErrorBody;
use neurino_protocol::app::{Command, Event, MiningState, Reply, Snapshot};
use serde::Serialize;
use serde_json::json;

use crate::args::PracticeArgs;
use crate::output::{self, Format};
use crate::{FAILED, Setting, interrupted, node};

/// Longest wait for the miner to be ready: it may have to fetch the model first.
const READY_WAIT: Duration = Duration::from_secs(900);

/// One job, as reported.
#[derive(Debug, Serialize)]
struct JobReport {
    job: JobId,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<JobOutput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

/// The books after the jobs.
#[derive(Debug, Serialize)]
struct LedgerReport {
    /// Balance of this machine's node account.
    balance_micro: MicroPoints,
    /// Sum over all receipts of this node.
    receipts_sum_micro: MicroPoints,
    /// Sum over all postings of all accounts.
    postings_sum_micro: MicroPoints,
    /// Whether everything that must hold does.
    holds: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    network: String,
    node: String,
    jobs: Vec<JobReport>,
    ledger: LedgerReport,
}

pub(crate) async fn run(mut setting: Setting, args: PracticeArgs) -> anyhow::Result<ExitCode> {
    setting.settings.network.coordinator = NetworkSetting::Practice;
    if let Some(port) = args.port {
        setting.settings.gateway.listen_port = port;
    }
    let app = App::start(AppOptions {
        dirs: setting.dirs.clone(),
        settings: setting.settings.clone(),
        engine: EngineHost::Process { program: std::env::current_exe()? },
        practice_demand: false,
        any_port: args.port.is_none(),
    })
    .await?;
    let outcome = if args.serve {
        serve(&app, setting.format).await
    } else {
        tokio::select! {
            outcome = jobs(&app, args.jobs, setting.format) => outcome,
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

async fn jobs(app: &Arc<App>, count: u32, format: Format) -> anyhow::Result<ExitCode> {
    let screen = Screen::new(format);
    let coordinator = app.practice().context("the practice network is not running")?;
    let now = snapshot(app).await?;
    screen.device(&now);
    ready(app, &screen).await?;
    let model = serving_model(app).await?;
    let first = u64::from(snapshot(app).await?.points.jobs_total);
    let mut reports = Vec::new();
    for n in 0..count {
        let spec = demand::practice_job(&model, first + u64::from(n));
        screen.job_begins(n + 1, count, &spec);
        let job = coordinator.submit_job(PayerId::local(), None, spec).await?;
        let report = watch(coordinator, job, &screen).await?;
        screen.job_ended(&report);
        reports.push(report);
    }
    let ledger = ledger(&coordinator.ledger_check().await?, app.node().as_str());
    let report = Report {
        network: coordinator.network().into(),
        node: app.node().to_string(),
        jobs: reports,
        ledger,
    };
    let failed = report.jobs.iter().any(|j| j.state != "succeeded") || !report.ledger.holds;
    match format {
        Format::Json => output::json(&report)?,
        Format::Text => print(&report),
    }
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
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
                        anyhow::Error::from,
                    ));
                }
                _ => {}
            }
            while !matches!(events.recv().await, Ok(Event::Snapshot(_)) | Err(_)) {}
        }
    };
    tokio::time::timeout(READY_WAIT, wait).await.context("the miner did not get ready in time")?
}

async fn serving_model(app: &Arc<App>) -> anyhow::Result<ModelId> {
    use neurino_protocol::app::ModelState;
    let now = snapshot(app).await?;
    let here = |s: &ModelState| matches!(s, ModelState::Ready | ModelState::Loaded);
    let loaded = now.models.iter().find(|m| m.state == ModelState::Loaded);
    let any = loaded.or_else(|| now.models.iter().find(|m| here(&m.state)));
    Ok(any.context("no model is on this machine")?.id.clone())
}

async fn watch(
    coordinator: &Arc<Coordinator>,
    job: JobId,
    screen: &Screen,
) -> anyhow::Result<JobReport> {
    let mut updates = coordinator.watch_job(job).await?;
    let mut report = JobReport { job, state: "failed", output: None, receipt: None, error: None };
    while let Some(update) = updates.next().await {
        match update {
            JobUpdate::Queued => screen.answer_void(),
            JobUpdate::Leased { .. } => {}
            JobUpdate::Delta { text } => screen.answer(&text),
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

fn ledger(check: &LedgerCheck, node: &str) -> LedgerReport {
    let mine = check.balances.iter().filter(
        |b| matches!(&b.account, neurino_coordinator::Account::Node(n) if n.as_str() == node),
    );
    let (mut balance, mut receipts) = (MicroPoints(0), MicroPoints(0));
    for account in mine {
        balance = balance + account.balance_micro;
        receipts = receipts + account.receipts_micro;
    }
    LedgerReport {
        balance_micro: balance,
        receipts_sum_micro: receipts,
        postings_sum_micro: check.sums_micro.values().copied().sum(),
        holds: check.holds() && balance == receipts,
    }
}

fn print(report: &Report) {
    output::line("");
    output::line("Receipts");
    for job in &report.jobs {
        match (&job.receipt, &job.error) {
            (Some(r), _) => output::line(format!(
                "  {}  {:>4} tokens x {} x {} / 1000 = {} Llama points  (rules {})",
                r.job,
                r.quote.units,
                r.quote.factor,
                r.quote.multiplier,
                r.quote.amount_micro,
                r.rule_set
            )),
            (None, Some(error)) => output::line(format!("  {}  not paid: {error}", job.job)),
            (None, None) => output::line(format!("  {}  not paid", job.job)),
        }
    }
    output::line("");
    let l = &report.ledger;
    output::line(format!("Balance   {} Llama points", l.balance_micro));
    output::line(format!(
        "Books     receipts {} = balance {}, all postings sum to {}",
        l.receipts_sum_micro, l.balance_micro, l.postings_sum_micro
    ));
    output::line("Practice points show how the network works; they have no value.");
}

/// The live view in a terminal; silent for scripts.
struct Screen {
    bar: ProgressBar,
    text: bool,
    started: std::sync::Mutex<Instant>,
    answer: std::sync::Mutex<String>,
}

impl Screen {
    fn new(format: Format) -> Self {
        let text = format == Format::Text;
        let bar = if text { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            text,
            started: std::sync::Mutex::new(Instant::now()),
            answer: std::sync::Mutex::new(String::new()),
        }
    }

    fn say(&self, line: impl AsRef<str>) {
        if self.text {
            self.bar.suspend(|| output::line(line));
        }
    }

    fn device(&self, snapshot: &Snapshot) {
        if let Some(device) = snapshot.devices.first() {
            self.say(format!("Device    {}", device.name));
            if let Some(note) = &device.note {
                self.say(format!("          {note}"));
            }
        }
        self.say(format!("Identity  {}", snapshot.identity));
    }

    fn preparing(&self, sentence: &str) {
        self.bar.set_message(sentence.to_owned());
    }

    fn job_begins(&self, n: u32, of: u32, spec: &neurino_core::JobSpec) {
        let neurino_core::JobSpec::Text(job) = spec;
        let question = job.messages.last().map_or("", |m| m.content.as_str());
        self.say(format!("\nJob {n} of {of}: {question}"));
        *neurino_app::guard(&self.started) = Instant::now();
        self.answer_void();
    }

    fn answer_void(&self) {
        neurino_app::guard(&self.answer).clear();
        self.bar.set_message("waiting for the miner".to_owned());
    }

    fn answer(&self, text: &str) {
        let mut answer = neurino_app::guard(&self.answer);
        answer.push_str(text);
        self.bar.set_message(answer.replace('\n', " "));
    }

    fn job_ended(&self, report: &JobReport) {
        let seconds = neurino_app::guard(&self.started).elapsed().as_secs_f64();
        if let Some(JobOutput::Text(output)) = &report.output {
            self.say(format!("  {}", output.text.trim().replace('\n', "\n  ")));
        }
        match (&report.receipt, &report.error) {
            (Some(receipt), _) => self.say(format!(
                "  {} tokens in {seconds:.1} s, paid {} Llama points",
                receipt.usage.total(),
                receipt.quote.amount_micro
            )),
            (None, Some(error)) => self.say(format!("  failed: {error}")),
            (None, None) => {}
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
