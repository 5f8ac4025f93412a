//! A NATS server of a run: with a work queue on disk, on loopback, killed as a power cut would and
//! started again.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tempfile::TempDir;

/// Longest wait until it takes connections.
const START_WAIT: Duration = Duration::from_secs(30);

/// A server. Killed with `SIGKILL` when dropped.
pub struct Server {
    folder: TempDir,
    program: PathBuf,
    port: u16,
    child: Option<Child>,
    password: String,
}

impl Server {
    /// Starts one on a new folder. `packages` is where the program's package was unpacked.
    ///
    /// # Errors
    /// A program that is not there or does not run here.
    pub fn start(packages: &Path) -> anyhow::Result<Self> {
        let mut server = Self {
            folder: tempfile::Builder::new().prefix("neurino-nats-").tempdir()?,
            program: packages.join("bin/nats-server"),
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            child: None,
            password: format!("{:016x}", rand::random::<u64>()),
        };
        let folder = server.folder.path().display();
        let (port, password) = (server.port, &server.password);
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 2MB\njetstream {{ store_dir: \"{folder}\" }}\n\
             authorization {{ user: neurino, password: \"{password}\" }}\n"
        );
        std::fs::write(server.folder.path().join("nats.conf"), config)?;
        server.begin()?;
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://neurino:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// A process that cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again on the same folder and port.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn begin(&mut self) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("nats.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let child = self.child.insert(child);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait()?;
            anyhow::ensure!(ended.is_none(), "NATS ended before it was ready");
            anyhow::ensure!(since.elapsed() < START_WAIT, "NATS is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is left of it after that, nobody can help.
        let _ = self.kill();
    }
}
