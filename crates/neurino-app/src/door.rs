//! The door for commands of the same person on the same machine: `neurino pause` and the like speak to
//! the program that runs.
//!
//! The running program listens on a port of this machine alone and writes port and a secret, new with
//! each start, to a file that only this user can read. A request is one line of JSON with the secret,
//! the answer another. Only what the tray could do is let in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use neurino_config::{ConfigError, DoorFile, DoorKey};
use neurino_control::Order;
use neurino_protocol::app::{Command, MiningState, Reply};
use neurino_protocol::{ErrorBody, ErrorCode};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::App;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: u64 = 8 << 10;
/// Longest answer, in bytes: a snapshot with a long catalogue.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Callers at the same time.
const CALLERS_MAX: usize = 4;
/// How long a caller may take to say what they want.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may take: a pause returns when running jobs are handed back.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What a caller says.
#[derive(Serialize, Deserialize)]
struct Request {
    key: String,
    command: Command,
}

/// Why a running program could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// None runs with this data folder.
    #[error(
        "Neurino is not running with the data in {}; start it first, or name its folder with --home",
        folder.display()
    )]
    NotRunning {
        /// The data folder.
        folder: PathBuf,
    },
    /// It runs and does not answer.
    #[error("Neurino is running and does not answer; restart it if that goes on")]
    Silent(#[source] std::io::Error),
    /// It answered with what this program does not understand.
    #[error("the Neurino that runs is of another version; restart it")]
    OtherVersion,
    /// It refused.
    #[error("{0}")]
    Refused(ErrorBody),
}

/// The order to pause for so many minutes, or until the person resumes.
pub fn pause(minutes: Option<u32>) -> Command {
    Command::MiningOrder { order: Order::Snooze { minutes } }
}

/// What a key that pauses and resumes orders in this state.
pub fn toggle(state: MiningState) -> Command {
    match state {
        MiningState::Paused | MiningState::Stopped | MiningState::NeedsYou => Command::MiningStart,
        MiningState::Starting
        | MiningState::Waiting
        | MiningState::Working
        | MiningState::Finishing => pause(None),
    }
}

/// Asks the program that runs with the data in `folder`.
///
/// # Errors
/// [`DoorError`].
pub async fn ask(folder: &Path, command: Command) -> Result<Reply, DoorError> {
    let not_running = || DoorError::NotRunning { folder: folder.to_owned() };
    let key = DoorFile::new(folder).load().ok_or_else(not_running)?;
    let address = SocketAddr::from(([127, 0, 0, 1], key.port));
    // Left by a program that was killed: nobody listens there.
    let mut stream = TcpStream::connect(address).await.map_err(|_| not_running())?;
    let request = Request { key: key.secret, command };
    let mut line = serde_json::to_vec(&request).map_err(|_| DoorError::OtherVersion)?;
    line.push(b'\n');
    let asking = async {
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new((&mut stream).take(ANSWER_BYTES_MAX)).read_line(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, asking)
        .await
        .map_err(|_| DoorError::Silent(std::io::ErrorKind::TimedOut.into()))?
        .map_err(DoorError::Silent)?;
    // Another program may have that port by now; it does not know the secret's answer either.
    if answer.is_empty() {
        return Err(not_running());
    }
    let answer: Result<Reply, ErrorBody> =
        serde_json::from_str(&answer).map_err(|_| DoorError::OtherVersion)?;
    answer.map_err(DoorError::Refused)
}

impl App {
    /// Opens the door. Without it the program runs all the same, and commands say that it does not.
    pub(crate) async fn spawn_door(self: &Arc<Self>) {
        let file = DoorFile::new(&self.dirs.data);
        let listener = match self.open_door(&file).await {
            Ok((listener, secret)) => (listener, secret),
            Err(error) => return warn!("commands cannot reach this program: {error}"),
        };
        let (app, callers) = (Arc::clone(self), Arc::new(Semaphore::new(CALLERS_MAX)));
        self.tasks.spawn(async move {
            let (listener, secret) = listener;
            loop {
                let stream = tokio::select! {
                    () = app.end.cancelled() => break,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            warn!("a caller could not be let in: {error}");
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            continue;
                        }
                    },
                };
                let Ok(place) = Arc::clone(&callers).try_acquire_owned() else { continue };
                let (app, secret) = (Arc::clone(&app), secret.clone());
                tokio::spawn(async move {
                    let _place = place;
                    let end = app.end.clone();
                    tokio::select! {
                        () = end.cancelled() => {}
                        () = app.serve_caller(stream, &secret) => {}
                    }
                });
            }
            file.remove(&secret);
        });
    }

    async fn open_door(&self, file: &DoorFile) -> Result<(TcpListener, String), ConfigError> {
        let failed = |source| ConfigError::Write { path: file.path().to_owned(), source };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let [high, low]: [u128; 2] = rand::rng().random();
        let secret = format!("{high:032x}{low:032x}");
        file.save(&DoorKey { port, secret: secret.clone() })?;
        Ok((listener, secret))
    }

    async fn serve_caller(self: &Arc<Self>, mut stream: TcpStream, secret: &str) {
        let mut line = String::new();
        let mut reader = BufReader::new((&mut stream).take(REQUEST_BYTES_MAX));
        let read = tokio::time::timeout(REQUEST_LIMIT, reader.read_line(&mut line)).await;
        // Whoever does not know the secret is told nothing.
        let Ok(Ok(_)) = read else { return };
        let Ok(request) = serde_json::from_str::<Request>(&line) else { return };
        if request.key != secret {
            return;
        }
        let answer = self.let_in(request.command).await;
        let Ok(mut answer) = serde_json::to_vec(&answer) else { return };
        answer.push(b'\n');
        let _ = stream.write_all(&answer).await;
    }

    async fn let_in(self: &Arc<Self>, command: Command) -> Result<Reply, ErrorBody> {
        match &command {
            Command::Snapshot | Command::MiningStart | Command::MiningStop { .. } => {}
            Command::MiningOrder { order } => {
                if let Order::Snooze { minutes: Some(minutes) } = order {
                    self.wake_after(*minutes);
                }
            }
            _ => {
                let message = "that is not for other programs to ask";
                return Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
            }
        }
        self.dispatch(command).await
    }

    /// Decides anew when a pause ends: without a desktop nobody else looks at the clock.
    fn wake_after(self: &Arc<Self>, minutes: u32) {
        let (app, wait) = (Arc::clone(self), Duration::from_secs(u64::from(minutes) * 60 + 1));
        self.tasks.spawn(async move {
            tokio::select! {
                () = app.end.cancelled() => {}
                () = tokio::time::sleep(wait) => app.let_jobs_finish(app.is_updating()).await,
            }
        });
    }
}
