//! The coordinator's process: started, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_coordinator::{Coordinator, CoordinatorConfig, Limits};
use neurino_wallet::IdentityKey;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// Words of a fixed wallet: the coordinator of a run signs with one key before and after a crash. Its
/// receipts are worth nothing.
const PHRASE: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// Runs the coordinator in this process until it is killed.
///
/// # Errors
/// Books or address that cannot be used.
pub async fn serve(folder: &Path, port: u16, text_budget_ms: u64) -> anyhow::Result<()> {
    let key = Arc::new(IdentityKey::from_phrase(PHRASE)?);
    let mut config = CoordinatorConfig::practice(folder.join("books.sqlite"), key);
    config.network = "sim".into();
    config.practice = false;
    config.limits = Limits {
        text_budget_ms,
        sessions_max: 20_000,
        connections_max: 40_000,
        ..Limits::default()
    };
    let coordinator = Coordinator::open(config).await?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    #[expect(clippy::print_stdout, reason = "the parent reads where it listens")]
    {
        println!("{address}");
    }
    coordinator.serve(listener, CancellationToken::new()).await?;
    Ok(())
}

/// A coordinator's process. Killed with `SIGKILL` when dropped.
pub struct Process {
    program: PathBuf,
    folder: PathBuf,
    text_budget_ms: u64,
    child: Child,
    /// Port it listens at, the same after a restart.
    pub port: u16,
}

impl Process {
    /// Starts one on a folder; `program` is this crate's binary.
    ///
    /// # Errors
    /// A process that does not start or does not say where it listens.
    pub async fn start(program: &Path, folder: &Path, text_budget_ms: u64) -> anyhow::Result<Self> {
        let (child, port) = spawn(program, folder, 0, text_budget_ms).await?;
        let (program, folder) = (program.to_owned(), folder.to_owned());
        Ok(Self { program, folder, text_budget_ms, child, port })
    }

    /// Kills it as a power cut would, and starts it again on the same books and port. Returns how long
    /// it took until it listened again.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn crash(&mut self) -> anyhow::Result<Duration> {
        self.child.kill().await?;
        let since = Instant::now();
        let started = spawn(&self.program, &self.folder, self.port, self.text_budget_ms).await?;
        self.child = started.0;
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

async fn spawn(
    program: &Path,
    folder: &Path,
    port: u16,
    text_budget_ms: u64,
) -> anyhow::Result<(Child, u16)> {
    let mut child = Command::new(program)
        .arg("serve")
        .arg("--folder")
        .arg(folder)
        .args(["--port", &port.to_string()])
        .args(["--text-budget-ms", &text_budget_ms.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let stdout = child.stdout.take().context("the coordinator's output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let line = line.context("the coordinator did not listen within a minute")??;
    let line = line.context("the coordinator ended before it listened")?;
    let port = line.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Ok((child, port.with_context(|| format!("`{line}` is no address"))?))
}
