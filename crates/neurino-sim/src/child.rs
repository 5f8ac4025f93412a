//! The coordinator's process: started, killed and started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_coordinator::{
    Bucket, BucketKeys, Coordinator, CoordinatorConfig, CoordinatorError, Database, FabricAddress,
    FabricConfig, FabricKey, Gateway, GatewayConfig, Limits, books,
};
use neurino_wallet::IdentityKey;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::certificate;

/// Words of a fixed wallet: the coordinator of a run signs with one key before and after a crash. Its
/// receipts are worth nothing.
const PHRASE: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// What a run wants of its coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct Terms {
    /// Time a text job has from its lease, in milliseconds.
    #[arg(long)]
    pub text_budget_ms: u64,
    /// Whether miners of the original protocol are served, too.
    #[arg(long)]
    pub original: bool,
    /// Address of the books, if they are a server's.
    #[arg(long)]
    pub database: Option<String>,
    /// Where NATS is, if there are gateways.
    #[arg(long)]
    pub nats: Option<String>,
    /// The S3 server of the pictures with its key, `http://KEY:SECRET@127.0.0.1:PORT/BUCKET`; without
    /// one they lie in the folder.
    #[arg(long)]
    pub pictures: Option<String>,
    /// The folder of the listener's certificate, if it encrypts.
    #[arg(long)]
    pub certificate: Option<PathBuf>,
}

impl Terms {
    /// Books in the folder, one coordinator alone, miners of our own protocol.
    pub fn usual(text_budget_ms: u64) -> Self {
        Self {
            text_budget_ms,
            original: false,
            database: None,
            nats: None,
            pictures: None,
            certificate: None,
        }
    }
}

/// The bucket of the pictures.
fn bucket(address: &str) -> anyhow::Result<Bucket> {
    let url = reqwest::Url::parse(address).context("the address of the pictures")?;
    let (key_id, secret) = (url.username().to_owned(), url.password().unwrap_or_default());
    let keys = BucketKeys { key_id, secret: secret.to_owned().into(), token: None };
    let mut endpoint = url.clone();
    endpoint.set_path("");
    endpoint.set_username("").ok().context("an address with a key")?;
    endpoint.set_password(None).ok().context("an address with a secret")?;
    let address = format!("s3:/{}/sim", url.path());
    Ok(Bucket::at(&address, Some(endpoint.as_str()), None, keys)?)
}

/// Where a process of this machine listens.
fn url_of(port: u16, certificate: Option<&PathBuf>) -> String {
    match certificate {
        Some(_) => format!("https://{}:{port}", certificate::HOST),
        None => format!("http://127.0.0.1:{port}"),
    }
}

/// What coordinator and gateways of a run share.
fn fabric(folder: &Path, nats: &str) -> anyhow::Result<FabricConfig> {
    let key = FabricKey::load_or_create(&folder.join("fabric.key"))?;
    Ok(FabricConfig { address: FabricAddress::new(nats, None)?, key })
}

/// Sizes of a run.
fn limits(text_budget_ms: u64) -> Limits {
    Limits {
        text_budget_ms,
        sessions_max: 20_000,
        connections_max: 40_000,
        // All miners are of one owner, so that no job is computed again by another one's.
        nodes_per_owner_max: usize::MAX,
        new_owner_leases_max: u32::MAX,
        ..Limits::default()
    }
}

/// The network of a run.
const NETWORK: &str = "sim";

/// Runs a gateway in this process until it is killed.
///
/// # Errors
/// An address that cannot be used.
pub async fn serve_gateway(folder: &Path, port: u16, nats: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let (network, limits) = (NETWORK.into(), limits(0));
    let config = GatewayConfig {
        network,
        fabric: fabric(folder, nats)?,
        limits,
        client_address_header: None,
    };
    let gateway = Gateway::open(config, CancellationToken::new()).await?;
    say(listener.local_addr()?);
    Ok(gateway.serve(listener, None).await?)
}

/// A gateway's process. Killed with `SIGKILL` when dropped.
pub struct GatewayProcess {
    program: PathBuf,
    folder: PathBuf,
    nats: String,
    child: Child,
    /// Port it listens at, the same after a restart.
    pub port: u16,
}

impl GatewayProcess {
    /// Starts one for the coordinator of a folder; port 0 picks a free one.
    ///
    /// # Errors
    /// A process that does not start or does not say where it listens.
    pub async fn start(
        program: &Path,
        folder: &Path,
        nats: &str,
        port: u16,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .arg("gateway")
            .arg("--folder")
            .arg(folder)
            .args(["--nats", nats, "--port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let said = child.stdout.take().context("the gateway's output")?;
        let line = BufReader::new(said).lines().next_line().await?;
        let port = line.as_deref().and_then(|line| line.rsplit_once(':')?.1.parse().ok());
        Ok(Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            nats: nats.to_owned(),
            child,
            port: port.context("the gateway does not say where it listens")?,
        })
    }

    /// Kills it as a power cut would, and starts it again at the same port.
    ///
    /// # Errors
    /// As [`GatewayProcess::start`].
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        let again = Self::start(&self.program, &self.folder, &self.nats, self.port).await?;
        *self = again;
        Ok(())
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Terms {
    /// The books of a run: a file in its folder, or a server's.
    fn database(&self, folder: &Path) -> Result<Database, CoordinatorError> {
        match &self.database {
            Some(address) => Database::at(address, folder.join("pictures")),
            None => Ok(Database::Sqlite(folder.join("books.sqlite"))),
        }
    }
}

/// Runs the coordinator in this process until it is killed. Whenever a line comes in, one goes out: how
/// often the books were used so far. On a database of a server it stands by while another one holds the
/// books.
///
/// # Errors
/// Books or address that cannot be used; another coordinator that took over.
pub async fn serve(folder: &Path, port: u16, terms: Terms) -> anyhow::Result<()> {
    let key = Arc::new(IdentityKey::from_phrase(PHRASE)?);
    let mut config = CoordinatorConfig::practice(terms.database(folder)?, key);
    config.network = NETWORK.into();
    config.practice = false;
    config.original = terms.original;
    config.limits = limits(terms.text_budget_ms);
    config.bucket = terms.pictures.as_deref().map(bucket).transpose()?;
    let coordinator = loop {
        match Coordinator::open(config.clone()).await {
            Err(CoordinatorError::InUse(held @ Database::Postgres(_))) => {
                books::until_free(&held, &config.payload_key).await?;
            }
            opened => break opened?,
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    say(address);
    let counted = coordinator.clone();
    // A thread of its own: a runtime would wait for the end of the input before it ends.
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            say(counted.store_calls());
        }
    });
    let stop = CancellationToken::new();
    let tls = terms.certificate.as_deref().map(certificate::open).transpose()?;
    let public = async { Ok(coordinator.serve_on(listener, tls, stop.clone()).await?) };
    let gateways = async {
        match &terms.nats {
            Some(nats) => {
                let fabric = fabric(folder, nats)?;
                Ok(coordinator.serve_fabric(fabric, stop.clone()).await?)
            }
            None => Ok(()),
        }
    };
    let served: anyhow::Result<((), ())> = tokio::try_join!(public, gateways);
    served?;
    anyhow::ensure!(!coordinator.is_superseded(), "another coordinator took the books over");
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
        spawn(program, folder, 0, terms)?.listens().await
    }

    /// Kills it as a power cut would, and starts it again on the same books and port. Returns how long
    /// it took until it listened again.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn crash(&mut self) -> anyhow::Result<Duration> {
        self.kill().await?;
        let since = Instant::now();
        *self = self.stand_by(self.port)?.listens().await?;
        Ok(since.elapsed())
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// A process that cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts another one on the same books, which will listen at this port once it holds them; 0 picks
    /// a free one.
    ///
    /// # Errors
    /// A program that cannot be started.
    pub fn stand_by(&self, port: u16) -> anyhow::Result<Starting> {
        spawn(&self.program, &self.folder, port, self.terms.clone())
    }

    /// Stops it in the middle of what it does, or lets it go on.
    ///
    /// # Errors
    /// A process that is gone.
    pub async fn freeze(&self, still: bool) -> anyhow::Result<()> {
        let pid = self.child.id().context("the coordinator has ended")?;
        let words = format!("kill -s {} {pid}", if still { "STOP" } else { "CONT" });
        let status = Command::new("sh").args(["-c", &words]).status().await?;
        anyhow::ensure!(status.success(), "`{words}` failed");
        Ok(())
    }

    /// Waits until it has ended by itself, and says whether well.
    ///
    /// # Errors
    /// A process that does not end in time.
    pub async fn ended(&mut self, within: Duration) -> anyhow::Result<bool> {
        let ended = tokio::time::timeout(within, self.child.wait()).await;
        Ok(ended.context("the coordinator goes on")??.success())
    }

    /// The books.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub fn database(&self) -> Result<Database, CoordinatorError> {
        self.terms.database(&self.folder)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        url_of(self.port, self.terms.certificate.as_ref())
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

/// A process that does not say yet where it listens.
pub struct Starting {
    program: PathBuf,
    folder: PathBuf,
    terms: Terms,
    child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Starting {
    /// Waits until it listens.
    ///
    /// # Errors
    /// A process that does not within a minute.
    pub async fn listens(mut self) -> anyhow::Result<Process> {
        let line = tokio::time::timeout(Duration::from_mins(1), self.answers.next_line()).await;
        let line = line.context("the coordinator did not listen within a minute")??;
        let line = line.context("the coordinator ended before it listened")?;
        let port = line.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port = port.with_context(|| format!("`{line}` is no address"))?;
        let Self { program, folder, terms, child, asks, answers } = self;
        Ok(Process { program, folder, terms, child, asks, answers, port })
    }
}

fn spawn(program: &Path, folder: &Path, port: u16, terms: Terms) -> anyhow::Result<Starting> {
    let mut child = Command::new(program)
        .arg("serve")
        .arg("--folder")
        .arg(folder)
        .args(["--port", &port.to_string()])
        .args(["--text-budget-ms", &terms.text_budget_ms.to_string()])
        .args(terms.original.then_some("--original"))
        .args(terms.database.iter().flat_map(|address| ["--database", address]))
        .args(terms.nats.iter().flat_map(|address| ["--nats", address]))
        .args(terms.pictures.iter().flat_map(|address| ["--pictures", address]))
        .args(
            terms
                .certificate
                .iter()
                .flat_map(|folder| ["--certificate".as_ref(), folder.as_os_str()]),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let asks = child.stdin.take().context("the coordinator's input")?;
    let stdout = child.stdout.take().context("the coordinator's output")?;
    let answers = BufReader::new(stdout).lines();
    let (program, folder) = (program.to_owned(), folder.to_owned());
    Ok(Starting { program, folder, terms, child, asks, answers })
}
