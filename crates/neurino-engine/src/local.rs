//! An [`Engine`] in this process: one thread owns the model and runs all jobs, step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use neurino_core::JobSpec;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::{
    DeviceChoice, Engine, EngineCounters, EngineError, EngineStatus, JobStream, LoadedModel,
    ModelRef,
};
use crate::device::{self, OpenDevice};
use crate::heap;
use crate::outlet::Outlet;
use crate::queue::{self, Command, Job, Queue};
use crate::warmed::Warming;
use crate::worker::{Faults, Worker};

/// An engine in this process. Dropping it ends the running jobs and frees the model.
pub struct LocalEngine {
    commands: mpsc::Sender<Command>,
    places: Arc<Semaphore>,
    status: watch::Receiver<EngineStatus>,
    counters: watch::Receiver<EngineCounters>,
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
        Self::start_with(choice, Faults::Reload, Warming::default())
    }

    /// As [`LocalEngine::start`], with a choice of what follows a fault of the device, and how models are
    /// warmed up.
    pub(crate) fn start_with(
        choice: DeviceChoice,
        faults: Faults,
        warming: Warming,
    ) -> Result<Self, EngineError> {
        Self::start_warming(device::open(choice)?, faults, warming)
    }

    /// An engine on `devices`, of which there is at least one, that was warmed up for nothing.
    #[cfg(test)]
    pub(crate) fn start_on(devices: Vec<OpenDevice>, faults: Faults) -> Result<Self, EngineError> {
        Self::start_warming(devices, faults, Warming::default())
    }

    /// An engine on `devices`, of which there is at least one.
    pub(crate) fn start_warming(
        devices: Vec<OpenDevice>,
        faults: Faults,
        warming: Warming,
    ) -> Result<Self, EngineError> {
        if devices[0].is_cpu() {
            heap::return_large_pieces();
        }
        let name = devices[0].name.clone();
        let (commands, queue) = mpsc::channel(queue::LIMIT);
        let (status_sender, status) = watch::channel(EngineStatus::Idle);
        let (counters_sender, counters) = watch::channel(EngineCounters::default());
        let (steps, end) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let worker = Worker {
            queue: Queue::new(queue).into(),
            devices,
            faults,
            warming,
            status: status_sender,
            counters: counters_sender,
            steps: Arc::clone(&steps),
            end: end.clone(),
            loaded: None,
        };
        std::thread::Builder::new().name("engine".into()).spawn(move || worker.run()).map_err(
            |e| EngineError::internal(format!("the engine's thread could not be started: {e}")),
        )?;
        let places = Arc::new(Semaphore::new(queue::JOBS_LIMIT));
        let end = end.drop_guard();
        Ok(Self { commands, places, status, counters, steps, device: name, _end: end })
    }

    /// The device, for people.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Steps of work since the start: it rises while something is computed.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Counts of this moment.
    pub(crate) fn counters_now(&self) -> EngineCounters {
        *self.counters.borrow()
    }

    /// What the engine does now.
    pub(crate) fn status_now(&self) -> EngineStatus {
        self.status.borrow().clone()
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
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| queue::busy())?;
        let (outlet, stream) = Outlet::new();
        self.queue(Command::Run(Job { spec, cancel, outlet, place }))?;
        Ok(stream)
    }

    fn queue(&self, command: Command) -> Result<(), EngineError> {
        self.commands.try_send(command).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => queue::busy(),
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
            EngineStatus::Loading { model, .. } => Some(model.clone()),
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

    async fn counters(&self) -> Result<EngineCounters, EngineError> {
        Ok(self.counters_now())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::path::Path;

    use neurino_core::{ChatMessage, JobOutput, ModelId, Role, TextJob};
    use neurino_llm::checkpoint::Precision;
    use neurino_llm::source::ModelSource;

    use super::*;
    use crate::api::{EngineErrorCode, JobEvent};
    use crate::memory;

    fn model() -> ModelRef {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm/llama3");
        ModelRef::new(ModelId::new("tiny").unwrap(), folder)
    }

    fn job(max_tokens: u32) -> JobSpec {
        let messages = vec![ChatMessage::new(Role::User, "Once upon a time")];
        let mut job = TextJob::new(model().id, messages, max_tokens);
        job.sampling.temperature = 0.0;
        JobSpec::Text(job)
    }

    async fn answer(engine: &LocalEngine) -> String {
        let mut stream = engine.run(&job(24), CancellationToken::new()).await.unwrap();
        loop {
            match stream.recv().await.unwrap() {
                JobEvent::Finished { output: JobOutput::Text(text) } => return text.text().into(),
                JobEvent::Failed { error } => panic!("{error}"),
                _ => {}
            }
        }
    }

    /// The least memory with which one device holds the model as it is.
    fn least_bytes() -> u64 {
        let source = ModelSource::open(&model().path).unwrap();
        let (mut no, mut yes) = (0_u64, 8 << 30);
        while no + 1 < yes {
            let middle = no.midpoint(yes);
            let device = device::small_cpu(middle).memory();
            let plan = memory::plan_as(&source, &[device], Precision::Packed);
            let fits = plan.verdict == memory::Verdict::Fits;
            *(if fits { &mut yes } else { &mut no }) = middle;
        }
        yes
    }

    #[tokio::test]
    async fn a_model_that_one_device_does_not_hold_is_split_and_says_the_same() {
        let whole = LocalEngine::start(DeviceChoice::Cpu).unwrap();
        let one = whole.load(&model()).await.unwrap();
        let small = || device::small_cpu(least_bytes() - 1);
        let split = LocalEngine::start_on(vec![small(), small()], Faults::Reload).unwrap();
        let two = split.load(&model()).await.unwrap();
        assert_eq!(two.device, format!("{0} and {0}", one.device));
        assert_eq!(answer(&split).await, answer(&whole).await);
    }

    #[tokio::test]
    async fn a_model_that_does_not_fit_is_refused_with_numbers_and_the_engine_goes_on() {
        let tiny = LocalEngine::start_on(vec![device::small_cpu(1 << 20)], Faults::Reload).unwrap();
        let error = tiny.load(&model()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::OutOfMemory, "{error}");
        assert_eq!(tiny.status_now(), EngineStatus::Idle);
        let error = tiny.run(&job(1), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
    }

    #[tokio::test]
    async fn an_unload_ends_a_load() {
        let engine = LocalEngine::start(DeviceChoice::Cpu).unwrap();
        // The load may be faster than the unload comes, now and then.
        for _ in 0..50 {
            let load = engine.queue_load(model()).unwrap();
            let unload = engine.queue_unload().unwrap();
            let loaded = load.await.unwrap();
            unload.await.unwrap();
            assert_eq!(engine.status_now(), EngineStatus::Idle);
            if let Err(error) = loaded {
                assert_eq!(error.code, EngineErrorCode::Cancelled, "{error}");
                engine.load(&model()).await.unwrap();
                return;
            }
        }
        panic!("no load was ended");
    }
}
