//! The coordinator's process: started, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_coordinator::{Coordinator, CoordinatorConfig, Limits};
use neurino_wallet::IdentityKey;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

/// Words of a fixed wallet: the coordinator of a run signs with one key before and after a crash. Its
/// receipts are worth nothing.
const PHRASE: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// What a run wants of its coordinator.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Terms {
    /// Time a text job has from its lease, in milliseconds.
    #[arg(long)]
    pub text_budget_ms: u64,
    /// Whether miners of the original protocol are served, too.
    #[arg(long)]
    pub original: bool,
}

/// Runs the coordinator in this process until it is killed. Whenever a line comes in, one goes out: how
/// often the books were used so far.
///
/// # Errors
/// Books or address that cannot be used.
pub async fn serve(folder: &Path, port: u16, terms: Terms) -> anyhow::Result<()> {
    let key = Arc::new(IdentityKey::from_phrase(PHRASE)?);
    let mut config = CoordinatorConfig::practice(folder.join("books.sqlite"), key);
    config.network = "sim".into();
    config.practice = false;
    config.original = terms.original;
    config.limits = Limits {
        text_budget_ms: terms.text_budget_ms,
        sessions_max: 20_000,
        connections_max: 40_000,
        ..Limits::default()
    };
    let coordinator = Coordinator::open(config).await?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    say(address);
    let counted = coordinator.clone();
    tokio::spawn(async move {
        let mut asked = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = asked.next_line().await {
            say(counted.store_calls());
        }
    });
    coordinator.serve(listener, CancellationToken::new()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn say(what: impl std::fmt::Display) {
    println!("{what}");
}

/// A coordinator's process. Killed with `SIGKILL` when dropped.
pub struct Process {
    program: PathBuf,
    folder: PathBuf,
    terms: Terms,
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Port it listens at, the same after a restart.
    pub port: u16,
}

impl Process {
    /// Starts one on a folder; `program` is this crate's binary.
    ///
    /// # Errors
    /// A process that does not start or does not say where it listens.
    pub async fn start(program: &Path, folder: &Path, terms: Terms) -> anyhow::Result<Self> {
        spawn(program, folder, 0, terms).await
    }

    /// Kills it as a power cut would, and starts it again on the same books and port. Returns how long
    /// it took until it listened again.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn crash(&mut self) -> anyhow::Result<Duration> {
        self.child.kill().await?;
        let since = Instant::now();
        *self = spawn(&self.program, &self.folder, self.port, self.terms).await?;
        Ok(since.elapsed())
    }

    /// The books.
    pub fn database(&self) -> PathBuf {
        self.folder.join("books.sqlite")
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often the books were used since it was started.
    ///
    /// # Errors
    /// A process that is gone.
    pub async fn store_calls(&mut self) -> anyhow::Result<u64> {
        self.asks.write_all(b"\n").await?;
        let line = self.answers.next_line().await?.context("the coordinator's process ended")?;
        Ok(line.parse()?)
    }

    /// Memory in use, in bytes, and processor time used so far; zero where the system does not say.
    pub fn usage(&self) -> (u64, Duration) {
        /// What Linux counts processor time in.
        const TICKS_PER_S: u64 = 100;
        let pid = self.child.id().unwrap_or(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse::<u64>().ok());
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the program's name, which is in brackets, user time is the 12th field.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let times = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        (kib.unwrap_or(0) * 1024, Duration::from_millis(ticks * 1000 / TICKS_PER_S))
    }
}

async fn spawn(program: &Path, folder: &Path, port: u16, terms: Terms) -> anyhow::Result<Process> {
    let mut child = Command::new(program)
        .arg("serve")
        .arg("--folder")
        .arg(folder)
        .args(["--port", &port.to_string()])
        .args(["--text-budget-ms", &terms.text_budget_ms.to_string()])
        .args(terms.original.then_some("--original"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let asks = child.stdin.take().context("the coordinator's input")?;
    let stdout = child.stdout.take().context("the coordinator's output")?;
    let mut answers = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(Duration::from_mins(1), answers.next_line()).await;
    let line = line.context("the coordinator did not listen within a minute")??;
    let line = line.context("the coordinator ended before it listened")?;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = port.with_context(|| format!("`{line}` is no address"))?;
    let (program, folder) = (program.to_owned(), folder.to_owned());
    Ok(Process { program, folder, terms, child, asks, answers, port })
}
