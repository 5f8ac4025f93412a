//! Starts the real program with a home of its own, and reads what it prints.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The program under test: `NEURINO_BIN`, else the one built beside this test.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("NEURINO_BIN") {
        return PathBuf::from(path);
    }
    let exe = std::env::current_exe().unwrap();
    exe.parent().and_then(Path::parent).unwrap().join("neurino")
}

/// The folder that holds the starter model's file, if this machine has it.
pub(crate) fn starter_model() -> Option<PathBuf> {
    std::env::var_os("NEURINO_TEST_STARTER_MODEL").map(PathBuf::from).filter(|p| p.is_file())
}

/// A home with the starter model in it, or `None` (said on stderr) where the model is missing and
/// nothing demands it.
pub(crate) fn home_with_model() -> Option<tempfile::TempDir> {
    let Some(model) = starter_model() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "NEURINO_TEST_STARTER_MODEL must name the starter model's file in CI"
        );
        #[expect(clippy::print_stderr, reason = "a skipped test says so")]
        {
            eprintln!("skipped: NEURINO_TEST_STARTER_MODEL does not name the starter model's file");
        }
        return None;
    };
    let home = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(binary())
        .args(["models", "import", "smollm2-135m-instruct"])
        .arg(model)
        .args(["--home".as_ref(), home.path().as_os_str()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the starter model can be imported");
    Some(home)
}

/// A command of the program in a home, with a file as key store and no display.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("--home")
        .arg(home)
        .env("NEURINO_KEY_STORE", "file")
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A running server role: its process, and the JSON line it prints when it is ready.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) ready: Value,
}

impl Server {
    /// Starts a role with `--json` and waits for its first line.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_mins(1), lines.next_line())
            .await
            .expect("the program says it is ready within a minute")
            .unwrap();
        let Some(line) = line else {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text).await;
            panic!("the program ended before it was ready: {text}");
        };
        // Keep reading so that the program never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    /// Ends it as a power cut would.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A loopback port that is free now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
