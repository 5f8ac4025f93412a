//! An S3 server of a test: in a folder of its own, on loopback, checking signatures; killed as a power
//! cut would and started again.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use neurino_client::sigv4::{Access, Scope, presigned};
use tempfile::TempDir;

/// Names the key that opens all of it.
const KEY: &str = "neurino";
/// Where the program lies in its package.
const PROGRAM: &str = "bin/weed";
/// Longest wait until it takes files, also after a crash.
const START_WAIT: Duration = Duration::from_mins(1);
/// Its parts, each with a port of its own: the last one is S3's.
const PARTS: [&str; 4] = ["master", "volume", "filer", "s3"];
/// Its ports of another kind are so much higher.
const SECOND_PORTS: u16 = 10_000;

/// A server. Killed with `SIGKILL` when dropped: asked to end, it may take its time.
pub struct Server {
    folder: TempDir,
    program: PathBuf,
    ports: [u16; PARTS.len()],
    child: Option<Child>,
    secret: String,
}

impl Server {
    /// Starts one on a new folder. `packages` is where the program's package was unpacked.
    ///
    /// # Errors
    /// A program that is not there or does not run here.
    pub fn start(packages: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("neurino-s3-").tempdir()?;
        std::fs::create_dir(folder.path().join("data"))?;
        let mut ports = [0; PARTS.len()];
        for port in &mut ports {
            *port = free_port()?;
        }
        let secret = format!("{:016x}", rand::random::<u64>());
        let mut server =
            Self { folder, program: packages.join(PROGRAM), ports, child: None, secret };
        let keys = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{KEY}","secretKey":"{}"}}],
            "actions":["Admin","Read","Write","List"]}}]}}"#,
            server.secret
        );
        std::fs::write(server.keys(), keys)?;
        server.begin()?;
        Ok(server)
    }

    /// Its address with a key and its secret, which open all of it.
    pub fn url(&self) -> String {
        format!("http://{KEY}:{}@127.0.0.1:{}", self.secret, self.port())
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

    /// Starts it again on the same folder and ports. Returns how long it took until it took files.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn begin(&mut self) -> anyhow::Result<Duration> {
        let since = Instant::now();
        let path = self.folder.path().join("server.log");
        let log = std::fs::File::create(&path)?;
        let mut command = Command::new(&self.program);
        command.arg("server").arg(format!("-dir={}", self.folder.path().join("data").display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"]);
        command.arg(format!("-s3.config={}", self.keys().display()));
        // Small volumes, and as many as tests make buckets.
        command.args(["-volume.max=400", "-master.volumeSizeLimitMB=32"]);
        // Only asked for: a bucket that is not there is to be refused.
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"]);
        for (part, port) in PARTS.iter().zip(self.ports) {
            command.arg(format!("-{part}.port={port}"));
            command.arg(format!("-{part}.port.grpc={}", port + SECOND_PORTS));
        }
        command.process_group(0).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("start the S3 server")?;
        let child = self.child.insert(child);
        loop {
            let ended = child.try_wait()?;
            let said = || std::fs::read_to_string(&path).unwrap_or_default();
            anyhow::ensure!(
                ended.is_none(),
                "the S3 server ended before it was ready:\n{}",
                said()
            );
            anyhow::ensure!(
                since.elapsed() < START_WAIT,
                "the S3 server is not ready:\n{}",
                said()
            );
            // It listens before it can write; whoever begins to use it waits for that.
            if TcpStream::connect(("127.0.0.1", self.ports[PARTS.len() - 1])).is_ok() {
                return Ok(since.elapsed());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The name of a new bucket; waits until the server makes one.
    ///
    /// # Errors
    /// A server that does not within a minute.
    pub async fn bucket(&self) -> anyhow::Result<String> {
        let name = format!("t{:016x}", rand::random::<u64>());
        let since = Instant::now();
        while !self.put(&format!("/{name}")).await || !self.put(&format!("/{name}/first")).await {
            anyhow::ensure!(since.elapsed() < START_WAIT, "the S3 server makes no bucket");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(name)
    }

    /// Writes a word at a path; whether that was taken.
    async fn put(&self, path: &str) -> bool {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let scope = Scope { time: &time, region: "us-east-1", service: "s3" };
        let access = Access { key_id: KEY, secret: &self.secret, token: None };
        let headers = [("host", format!("127.0.0.1:{}", self.port()))];
        let query = presigned(("PUT", path), &headers, &access, &scope, 60);
        let url = format!("http://127.0.0.1:{}{path}?{query}", self.port());
        let put = reqwest::Client::new().put(url).timeout(Duration::from_secs(9)).body("x");
        put.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// The secret of the key `neurino`.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    fn port(&self) -> u16 {
        self.ports[PARTS.len() - 1]
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is left of it after that, nobody can help.
        let _ = self.kill();
    }
}

/// A free port whose second port is one, too.
fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let port = port % 20_000 + 20_000;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + SECOND_PORTS) {
            return Ok(port);
        }
    }
    anyhow::bail!("no ports are free")
}
