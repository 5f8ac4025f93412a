//! A few processes that read pictures, each one at a time. One that dies, or thinks for too long, is killed
//! and started anew; the picture is then asked about once more in a fresh process, as an old one may have
//! died of something else, and what breaks that one, too, is refused.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::wire::{self, ANSWER_MAX, GREETING};
use super::{Answer, Decoder, NoAnswer, Question};

/// Questions after which a process is replaced: its computing time is bounded for all of its life.
const ANSWERS_MAX: u32 = 500;

/// The program that reads strangers' pictures, and how long it may take.
#[derive(Debug, Clone)]
pub struct DecoderProcess {
    /// The program; its command line must lead to [`crate::decoder::child::run`].
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// How many of them may run at once.
    pub processes_max: usize,
    /// Longest time for one question. The largest pictures take a tenth of a second.
    pub within: Duration,
    /// Longest time from its start until it can be asked.
    pub starts_within: Duration,
}

impl DecoderProcess {
    /// A program with arguments, and the usual limits: as many processes as there are cores, eight at most.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            processes_max: cores.clamp(1, 8),
            within: Duration::from_secs(10),
            starts_within: Duration::from_secs(10),
        }
    }

    /// This program with arguments, also once its file was replaced by a newer version's.
    ///
    /// # Errors
    /// The program cannot find itself.
    pub fn own(args: impl IntoIterator<Item = impl Into<OsString>>) -> io::Result<Self> {
        let running = Path::new("/proc/self/exe");
        let linux = cfg!(target_os = "linux") && running.exists();
        let program = if linux { running.to_owned() } else { std::env::current_exe()? };
        Ok(Self::new(program, args))
    }
}

/// Processes that read pictures; started when they are needed, and kept.
pub(crate) struct Pool {
    process: DecoderProcess,
    room: Semaphore,
    idle: Mutex<Vec<Running>>,
}

impl Pool {
    pub(crate) fn new(process: DecoderProcess) -> Self {
        let room = Semaphore::new(process.processes_max.max(1));
        Self { process, room, idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a process, and keeps it if it answers.
    async fn ask_of(&self, mut running: Running, frame: &[u8]) -> io::Result<Answer> {
        let answered = timeout(self.process.within, running.ask(frame)).await;
        let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answered {
            Ok(answer) => {
                running.answered += 1;
                if running.answered < ANSWERS_MAX {
                    self.idle().push(running);
                }
                Ok(answer)
            }
            Err(error) => {
                running.kill().await;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Decoder for Pool {
    async fn ask(&self, question: Question) -> Result<Answer, NoAnswer> {
        let Ok(frame) = wire::question(&question) else { return Err(NoAnswer::Broke) };
        let Ok(_room) = self.room.acquire().await else { return Err(NoAnswer::Unavailable) };
        let kept = self.idle().pop();
        if let Some(kept) = kept {
            match self.ask_of(kept, &frame).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(%error, "a process that reads pictures ended; another one is asked");
                }
            }
        }
        let fresh = Running::start(&self.process).await.map_err(|error| {
            tracing::error!(
                %error,
                "no process that reads pictures can be started, so pictures are not settled yet: {error}",
            );
            NoAnswer::Unavailable
        })?;
        self.ask_of(fresh, &frame).await.map_err(|error| {
            tracing::warn!(%error, "a picture broke the process that read it: {error}");
            NoAnswer::Broke
        })
    }
}

/// One process. Dropping it kills it.
struct Running {
    child: Child,
    to_child: ChildStdin,
    from_child: ChildStdout,
    answered: u32,
}

impl Running {
    /// Starts one and waits until it can be asked.
    async fn start(process: &DecoderProcess) -> io::Result<Self> {
        let mut child = command(process).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (to_child, from_child) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut running = Self { child, to_child, from_child, answered: 0 };
        let mut greeting = [0; GREETING.len()];
        let greeted = timeout(process.starts_within, running.from_child.read_exact(&mut greeting));
        greeted.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if greeting == GREETING {
            Ok(running)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another version"))
        }
    }

    async fn ask(&mut self, frame: &[u8]) -> io::Result<Answer> {
        self.to_child.write_all(frame).await?;
        self.to_child.flush().await?;
        let length = self.from_child.read_u32_le().await?;
        if length > ANSWER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let mut answer = vec![0; length as usize];
        self.from_child.read_exact(&mut answer).await?;
        wire::read_answer(&answer)
    }

    async fn kill(mut self) {
        // It may be gone already; then there is nothing to kill.
        let _ = self.child.kill().await;
    }
}

fn command(process: &DecoderProcess) -> Command {
    let mut command = Command::new(&process.program);
    command
        .args(&process.args)
        // Keys and addresses of databases are there.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    // Ctrl+C in a terminal is for the coordinator, which first settles what it has.
    #[cfg(unix)]
    command.process_group(0);
    #[cfg(windows)]
    {
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        command.creation_flags(CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW);
        // Without it no program starts there.
        if let Some(root) = std::env::var_os("SystemRoot") {
            command.env("SystemRoot", root);
        }
    }
    command
}
