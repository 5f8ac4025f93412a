//! An [`Engine`] in a child process of the same program, so that a driver reset, a kernel fault or
//! a lack of memory ends that process and not the window or the ledger.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use neurino_core::JobSpec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{
    DeviceChoice, Engine, EngineCounters, EngineError, EngineStatus, JobStream, LoadedModel,
    ModelRef,
};
use crate::outlet::Outlet;
use crate::supervisor::{Command, Shared, Supervisor};

/// Commands that may wait for the process.
const QUEUE: usize = 64;

/// How the child is started and watched.
#[derive(Debug, Clone)]
pub struct ProcessEngineConfig {
    /// The program; its command line must lead to [`crate::child::run_child`].
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to its environment, for example `CUDA_PATH`.
    pub envs: Vec<(OsString, OsString)>,
    /// The device it computes on.
    pub device: DeviceChoice,
    /// The folder in which it keeps what it tunes for a card; not at all if `None`.
    pub tunings: Option<PathBuf>,
    /// Whether it warms models up for all that is usual while they are loaded, however long that takes.
    pub warms_all: bool,
    /// When to give up on it.
    pub limits: ProcessLimits,
}

impl ProcessEngineConfig {
    /// A program with arguments and a device, and the usual limits.
    pub fn new(
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        device: DeviceChoice,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            envs: Vec::new(),
            device,
            tunings: None,
            warms_all: false,
            limits: ProcessLimits::default(),
        }
    }
}

/// Times after which a child counts as lost, and between its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessLimits {
    /// From start to hello.
    pub hello: Duration,
    /// Without any frame while it has work; it sends a heartbeat every second.
    pub silence: Duration,
    /// Without a step of work while it has work.
    pub stall: Duration,
    /// From an unload, once no job is wanted any more: somebody else waits for the memory, and a step
    /// or a load that goes on is not waited for.
    pub unload: Duration,
    /// Before the first restart; doubles with each failure.
    pub first_wait: Duration,
    /// Longest wait before a restart.
    pub longest_wait: Duration,
    /// A child that ran this long was healthy: the waits begin anew.
    pub healthy: Duration,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            stall: Duration::from_mins(5),
            unload: Duration::from_secs(2),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            healthy: Duration::from_mins(1),
        }
    }
}

/// An engine in a child process. The process starts with the first load and ends with `unload`;
/// when it dies it is started again, and the next job loads its model again. Dropping the engine
/// kills it.
pub struct ProcessEngine {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    end: CancellationToken,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl ProcessEngine {
    /// An engine whose process is started when it is first needed. Call it inside a tokio runtime.
    pub fn start(config: ProcessEngineConfig) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let end = CancellationToken::new();
        let shared = Arc::new(Shared {
            status: watch::Sender::new(EngineStatus::Idle),
            model: Mutex::new(None),
            process_id: AtomicU32::new(0),
        });
        let supervisor = Supervisor::new(config, queue, Arc::clone(&shared), end.clone());
        let supervisor = Mutex::new(Some(tokio::spawn(supervisor.run())));
        Self { commands, shared, end, supervisor }
    }

    /// The process's id, while one runs.
    pub fn process_id(&self) -> Option<u32> {
        Some(self.shared.process_id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    /// Kills the process and waits for its end. Running jobs fail with `Crashed`, and so does
    /// everything asked later.
    pub async fn shutdown(&self) {
        self.end.cancel();
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor {
            // It can only fail by a panic, which tokio has printed.
            let _ = supervisor.await;
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| shut_down())?;
        answer.await.unwrap_or_else(|_| Err(shut_down()))
    }
}

impl Drop for ProcessEngine {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

#[async_trait]
impl Engine for ProcessEngine {
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let model = model.clone();
        self.ask(|reply| Command::Load { model, reply }).await
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let held = self.shared.model().map(|m| m.id);
        let coming = match &*self.shared.status.borrow() {
            EngineStatus::Loading { model, .. } => Some(model.clone()),
            _ => None,
        };
        if ![held, coming].iter().flatten().any(|id| id == job.model()) {
            return Err(EngineError::not_loaded(job.model()));
        }
        let (outlet, stream) = Outlet::new();
        let command = Command::Run { spec: job.clone(), cancel, outlet };
        self.commands.send(command).await.map_err(|_| shut_down())?;
        Ok(stream)
    }

    fn process_ids(&self) -> Vec<u32> {
        self.process_id().into_iter().collect()
    }

    async fn unload(&self) -> Result<(), EngineError> {
        self.ask(|reply| Command::Unload { reply }).await
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.shared.status.subscribe()
    }

    async fn counters(&self) -> Result<EngineCounters, EngineError> {
        self.ask(|reply| Command::Count { reply }).await
    }
}

fn shut_down() -> EngineError {
    EngineError::crashed("the engine was shut down")
}
