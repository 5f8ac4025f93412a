//! One running engine process, seen from its parent: pipes, handshake, end.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api::{EngineError, EngineErrorCode};
use crate::frame::{self, FrameError, FromChild, ToChild};
use crate::process::ProcessEngineConfig;
use crate::queue;

/// Frames on their way in either direction: a run and a cancel of every job, and some more. With so
/// many unread, the process has stopped reading.
const FRAMES: usize = 3 * queue::JOBS_LIMIT;
/// How long a process may take to end by itself once its standard input is closed.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Longest line of the child's log that is passed on, in bytes.
const LOG_LINE_BYTES: usize = 2048;

/// Windows: the file holds a virus, or did; antivirus programs have a start refused so.
const TAKEN_FOR_A_VIRUS: [i32; 2] = [225, 226];

/// What it means that the program did not start.
fn not_started(config: &ProcessEngineConfig, error: &io::Error) -> EngineError {
    let program = config.program.display();
    let virus = || {
        cfg!(windows) && error.raw_os_error().is_some_and(|code| TAKEN_FOR_A_VIRUS.contains(&code))
    };
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("the engine's program is gone: {program}"),
        io::ErrorKind::PermissionDenied => {
            format!("the system lets nobody start the engine's program: {program}")
        }
        _ if virus() => format!("the system lets nobody start the engine's program: {program}"),
        _ => {
            let message = format!("the engine's process could not be started: {error}");
            return EngineError::crashed(message);
        }
    };
    EngineError::new(EngineErrorCode::NoProgram, message)
}

/// A running engine process. Dropping it kills the process.
pub(crate) struct Link {
    child: Child,
    to_child: mpsc::Sender<Vec<u8>>,
    frames: mpsc::Receiver<Result<FromChild, FrameError>>,
    _pipes: JoinSet<()>,
}

impl Link {
    /// Starts the program and exchanges hellos.
    ///
    /// # Errors
    /// `NoProgram` when the program is gone or may not be started, `Crashed` when it cannot be started for
    /// another reason or does not say hello in time, `NoSuchDevice`.
    pub(crate) async fn start(config: &ProcessEngineConfig) -> Result<Self, EngineError> {
        let crashed = |what: String| EngineError::crashed(what);
        let mut child = command(config).spawn().map_err(|error| not_started(config, &error))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(crashed("the engine's process has no pipes".into()));
        };
        let mut pipes = JoinSet::new();
        let (to_child, outgoing) = mpsc::channel(FRAMES);
        let (incoming, frames) = mpsc::channel(FRAMES);
        pipes.spawn(write_frames(stdin, outgoing));
        pipes.spawn(read_frames(stdout, incoming));
        pipes.spawn(log_lines(stderr));
        let mut link = Self { child, to_child, frames, _pipes: pipes };
        let hello = ToChild::Hello {
            version: frame::VERSION,
            device: config.device,
            tunings: config.tunings.clone(),
            warms_all: config.warms_all,
        };
        link.send(&hello).map_err(|e| crashed(e.to_string()))?;
        match timeout(config.limits.hello, link.frames.recv()).await {
            Ok(Some(Ok(FromChild::Hello { version, device }))) if version == frame::VERSION => {
                device.map(|_| link)
            }
            Ok(Some(Ok(FromChild::Hello { version, .. }))) => Err(crashed(format!(
                "the engine's process speaks version {version}, this program {}",
                frame::VERSION
            ))),
            Ok(Some(Ok(_))) => Err(crashed("the engine's process did not say hello first".into())),
            Ok(Some(Err(error))) => Err(crashed(link.why_lost(Some(&error)).await)),
            Ok(None) => Err(crashed(link.why_lost(None).await)),
            Err(_) => Err(crashed(format!(
                "the engine's process did not say hello within {} s",
                config.limits.hello.as_secs()
            ))),
        }
    }

    /// The process's id, while it runs.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// `TooLarge`; `Closed` when the process stopped reading.
    pub(crate) fn send(&self, message: &ToChild) -> Result<(), FrameError> {
        let frame = frame::encode(message)?;
        self.to_child.try_send(frame).map_err(|_| FrameError::Closed)
    }

    /// The next frame; `None` or an error means that the process is lost. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<FromChild, FrameError>> {
        self.frames.recv().await
    }

    /// Kills the process if it still runs, and says in words what happened to it.
    pub(crate) async fn why_lost(&mut self, error: Option<&FrameError>) -> String {
        let ended = timeout(Duration::from_millis(500), self.child.wait()).await;
        match (ended, error) {
            (Ok(Ok(status)), None | Some(FrameError::Closed | FrameError::Truncated)) => {
                format!("the engine's process ended unexpectedly ({status})")
            }
            (_, Some(error)) => {
                self.kill().await;
                format!("the engine's process sent something that cannot be read: {error}")
            }
            _ => {
                self.kill().await;
                "the engine's process closed its pipe".into()
            }
        }
    }

    /// Kills the process and waits for its end.
    pub(crate) async fn kill(&mut self) {
        // It may be gone already; then there is nothing to kill.
        let _ = self.child.start_kill();
        let _ = timeout(END_LIMIT, self.child.wait()).await;
    }

    /// Closes the process's input, which ends it, and kills it if it does not end in time.
    pub(crate) async fn end(mut self) {
        let (closed, _) = mpsc::channel(1);
        self.to_child = closed;
        if timeout(END_LIMIT, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }
}

fn command(config: &ProcessEngineConfig) -> Command {
    let mut command = Command::new(&config.program);
    command
        .args(&config.args)
        .envs(config.envs.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl+C in a terminal is for the parent, which ends its child in order.
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(windows)]
    {
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
    }
    command
}

async fn write_frames(mut stdin: ChildStdin, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        // A broken pipe shows on the reading side as well, which handles it.
        if stdin.write_all(&frame).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read_frames(mut stdout: ChildStdout, frames: mpsc::Sender<Result<FromChild, FrameError>>) {
    loop {
        let frame = frame::read_async(&mut stdout).await;
        let last = frame.is_err();
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

/// Passes the child's log on, line by line and without letting one line grow without bound.
async fn log_lines(mut stderr: impl AsyncRead + Unpin) {
    let (mut line, mut chunk) = (Vec::new(), [0; 1024]);
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        for &byte in &chunk[..n] {
            if byte != b'\n' {
                line.push(byte);
            }
            if byte == b'\n' || line.len() == LOG_LINE_BYTES {
                log_line(&mut line);
            }
        }
    }
    log_line(&mut line);
}

fn log_line(line: &mut Vec<u8>) {
    if !line.is_empty() {
        tracing::debug!(target: "neurino_engine::process", "{}", String::from_utf8_lossy(line));
        line.clear();
    }
}
