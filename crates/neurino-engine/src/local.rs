//! An [`Engine`] in this process: one thread owns the model and runs jobs one after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use neurino_core::JobSpec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{
    DeviceChoice, Engine, EngineError, EngineStatus, JobStream, LoadedModel, ModelRef,
};
use crate::device;
use crate::outlet::Outlet;
use crate::queue::{self, Command, Queue};
use crate::worker::Worker;

/// An engine in this process. Dropping it ends the running job and frees the model.
pub struct LocalEngine {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<EngineStatus>,
    steps: Arc<AtomicU64>,
    device: String,
    _end: DropGuard,
}

impl LocalEngine {
    /// Takes the device and starts the thread.
    ///
    /// # Errors
    /// `NoSuchDevice`, `Internal`.
    pub fn start(choice: DeviceChoice) -> Result<Self, EngineError> {
        let (device, name) = device::open(choice)?;
        let (commands, queue) = mpsc::channel(queue::LIMIT);
        let queue = Queue::new(queue);
        let (status_sender, status) = watch::channel(EngineStatus::Idle);
        let (steps, end) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let worker = Worker::new(
            queue,
            device,
            name.clone(),
            status_sender,
            Arc::clone(&steps),
            end.clone(),
        );
        std::thread::Builder::new().name("engine".into()).spawn(move || worker.run()).map_err(
            |e| EngineError::internal(format!("the engine's thread could not be started: {e}")),
        )?;
        Ok(Self { commands, status, steps, device: name, _end: end.drop_guard() })
    }

    /// The device, for people.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Steps of work since the start: it rises while something is computed.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Queues a load at once; the answer follows.
    pub(crate) fn queue_load(
        &self,
        model: ModelRef,
    ) -> Result<oneshot::Receiver<Result<LoadedModel, EngineError>>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Command::Load { model, reply })?;
        Ok(answer)
    }

    /// Queues an unload at once; the answer follows.
    pub(crate) fn queue_unload(&self) -> Result<oneshot::Receiver<()>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Command::Unload { reply })?;
        Ok(answer)
    }

    /// Queues a job at once, whatever model is loaded now.
    pub(crate) fn queue_run(
        &self,
        spec: JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let (outlet, stream) = Outlet::new();
        self.queue(Command::Run { spec, cancel, outlet })?;
        Ok(stream)
    }

    fn queue(&self, command: Command) -> Result<(), EngineError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => EngineError::internal(format!(
                "the engine has {} jobs waiting already",
                queue::LIMIT
            )),
            mpsc::error::TrySendError::Closed(_) => {
                EngineError::internal("the engine's thread has ended")
            }
        })
    }
}

#[async_trait]
impl Engine for LocalEngine {
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let answer = self.queue_load(model.clone())?;
        answer.await.unwrap_or_else(|_| Err(EngineError::internal("the engine's thread has ended")))
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let expected = match &*self.status.borrow() {
            EngineStatus::Ready(model) => Some(model.id.clone()),
            EngineStatus::Loading { model } => Some(model.clone()),
            EngineStatus::Idle | EngineStatus::Restarting { .. } => None,
        };
        if expected.as_ref() != Some(job.model()) {
            return Err(EngineError::not_loaded(job.model()));
        }
        self.queue_run(job.clone(), cancel)
    }

    async fn unload(&self) -> Result<(), EngineError> {
        let answer = self.queue_unload()?;
        answer.await.map_err(|_| EngineError::internal("the engine's thread has ended"))
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }
}
