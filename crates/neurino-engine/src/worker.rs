//! The engine's thread: owns the model, takes commands between steps, survives faults below it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use neurino_diffusion::ImageSource;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{
    EngineCounters, EngineError, EngineErrorCode, EngineStatus, LoadedModel, ModelRef,
};
use crate::device::OpenDevice;
use crate::fault::{guarded, guarded_on_device, words};
use crate::queue::{Command, Job, Queue};
use crate::served::Served;
use crate::serving::Ended;
use crate::warmed::Warming;

mod images;
mod text;

/// What follows a fault that is no lack of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// The model is loaded again.
    Reload,
    /// On a card the process ends: its CUDA context is lost for good. On a CPU as `Reload`. On both
    /// it ends with the engine's thread.
    EndProcess,
}

/// A model in memory.
pub(crate) struct Loaded {
    reference: ModelRef,
    facts: LoadedModel,
    serving: Served,
    /// The index of its device; of the first, if it has several.
    device: usize,
}

/// The thread's state.
pub(crate) struct Worker {
    pub(crate) queue: RefCell<Queue>,
    /// At least one; all are of one kind.
    pub(crate) devices: Vec<OpenDevice>,
    pub(crate) faults: Faults,
    pub(crate) warming: Warming,
    pub(crate) status: watch::Sender<EngineStatus>,
    pub(crate) counters: watch::Sender<EngineCounters>,
    pub(crate) steps: Arc<AtomicU64>,
    pub(crate) end: CancellationToken,
    pub(crate) loaded: Option<Loaded>,
}

impl Worker {
    /// Serves commands until the handle is gone. They begin in their order; a load of another model
    /// and an unload wait, and let wait, until the jobs before them have ended.
    pub(crate) fn run(mut self) {
        // Caught here, before anything of it is dropped: what broke once may break again or hang there.
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) else { return };
        tracing::error!("a fault ended the engine's thread: {}", words(&*panic));
        if self.faults == Faults::EndProcess {
            // Without this thread the process would go on and say that it lives.
            std::process::exit(FAULT_EXIT);
        }
        resume_unwind(panic);
    }

    fn work(&mut self) {
        loop {
            let sleeps = !self.is_busy();
            if sleeps && !self.queue.get_mut().wait() || self.end.is_cancelled() {
                return;
            }
            self.sweep();
            while let Some(command) = self.next() {
                self.begin(command);
            }
            if self.is_busy() {
                self.step();
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| !loaded.serving.is_idle())
    }

    /// Ends what nobody wants any more, running or waiting.
    fn sweep(&mut self) {
        self.queue.get_mut().sweep();
        if let Some(loaded) = &mut self.loaded {
            let ended = loaded.serving.sweep();
            self.tell(ended);
        }
    }

    /// The first command, if it may begin now.
    fn next(&mut self) -> Option<Command> {
        let busy = self.is_busy();
        let queue = self.queue.get_mut();
        let may_begin = match queue.first()? {
            Command::Run(_) => true,
            Command::Load { model, .. } => {
                !busy || self.loaded.as_ref().is_some_and(|loaded| loaded.reference == *model)
            }
            Command::Unload { .. } => !busy,
        };
        if may_begin { queue.take() } else { None }
    }

    fn begin(&mut self, command: Command) {
        // A caller that is gone does not need its answer.
        match command {
            Command::Load { model, reply } => drop(reply.send(self.load(&model))),
            Command::Unload { reply } => {
                self.forget();
                let _ = reply.send(());
            }
            Command::Run(job) => self.job(job),
        }
    }

    fn job(&mut self, job: Job) {
        let model = job.spec.model();
        let Some(loaded) = self.loaded.as_mut().filter(|l| l.reference.id == *model) else {
            let error = EngineError::not_loaded(model);
            return job.outlet.fail(error);
        };
        match guarded("reading the job", || loaded.serving.begin(job)) {
            Ok(refused) => self.tell(refused.into_iter().collect()),
            // The job's outlet was dropped by the panic and has told its reader.
            Err(fault) => self.recover(&fault),
        }
    }

    fn step(&mut self) {
        let Some(loaded) = &mut self.loaded else { return };
        self.steps.fetch_add(1, Ordering::Relaxed);
        let (published, queue, steps) = (&self.counters, &self.queue, &self.steps);
        let computed = |counters| publish(published, counters, &queue.borrow(), steps);
        let device = &self.devices[loaded.device];
        let memory = || device.memory();
        match guarded("a step", || loaded.serving.step(&memory, computed)) {
            Ok(ended) => {
                let fault = ended.iter().find_map(Ended::fault).cloned();
                self.tell(ended);
                if let Some(fault) = fault {
                    self.recover(&fault);
                }
            }
            Err(fault) => self.recover(&fault),
        }
    }

    /// Publishes the counters, then tells the readers of jobs that have ended.
    fn tell(&mut self, ended: Vec<Ended>) {
        self.publish();
        ended.into_iter().for_each(Ended::tell);
    }

    fn publish(&self) {
        let counters = self.loaded.as_ref().map(|loaded| loaded.serving.counters());
        let queue = self.queue.borrow();
        publish(&self.counters, counters.unwrap_or_default(), &queue, &self.steps);
    }

    /// Goes on after a panic or a fault of the device. What it left behind is not trusted.
    fn recover(&mut self, fault: &EngineError) {
        tracing::error!("{fault}");
        if fault.code == EngineErrorCode::OutOfMemory {
            return self.shrink(fault);
        }
        // The parent fails the jobs, starts a new process and loads the model there.
        self.end_with_card();
        let Some(mut loaded) = self.loaded.take() else { return };
        let message = format!("{fault}; the model is loaded again, and the job can be tried again");
        let unready = loaded.serving.take_unready();
        let ended = loaded.serving.fail_all(&EngineError::crashed(message));
        self.queue.get_mut().put_back(unready);
        let reference = loaded.reference.clone();
        drop(loaded);
        self.tell(ended);
        if let Err(error) = self.load(&reference) {
            tracing::error!("the model could not be loaded again: {error}");
        }
    }

    /// Ends the process if its card's context is lost with the fault.
    fn end_with_card(&self) {
        if self.faults == Faults::EndProcess && !self.devices[0].is_cpu() {
            std::process::exit(FAULT_EXIT);
        }
    }

    /// Goes on with a smaller cache after the device ran out of memory; without a model if that is
    /// not enough.
    fn shrink(&mut self, fault: &EngineError) {
        let Some(Loaded { reference, mut facts, serving, device }) = self.loaded.take() else {
            return;
        };
        let mut serving = match serving {
            Served::Text(serving) => serving,
            // A picture's memory went with it; the next one may need less.
            Served::Image(_) => {
                self.loaded = Some(Loaded { reference, facts, serving, device });
                return self.clean_up();
            }
        };
        self.queue.get_mut().put_back(serving.take_unready());
        let ended = serving.fail_all(fault);
        let smaller = guarded_on_device("making a smaller cache", || serving.smaller()).flatten();
        if let Err(fault) = &smaller
            && fault.code == EngineErrorCode::Crashed
        {
            tracing::error!("{fault}");
            self.end_with_card();
        }
        self.clean_up();
        if let Ok(Some(serving)) = smaller {
            facts.memory.cache_bytes = serving.cache_bytes();
            facts.slots = serving.slots();
            tracing::warn!(cache_bytes = facts.memory.cache_bytes, "going on with less memory");
            self.status.send_replace(EngineStatus::Ready(facts.clone()));
            let serving = Served::Text(Box::new(serving));
            self.loaded = Some(Loaded { reference, facts, serving, device });
        } else {
            self.forget();
        }
        self.tell(ended);
    }

    fn forget(&mut self) {
        if self.loaded.take().is_some() {
            self.clean_up();
        }
        self.publish();
        self.status.send_replace(EngineStatus::Idle);
    }

    fn load(&mut self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        if let Some(loaded) = self.loaded.as_ref().filter(|l| l.reference == *model) {
            return Ok(loaded.facts.clone());
        }
        if let Some(facts) = self.switch_loras(model) {
            return Ok(facts);
        }
        // Two models need not fit: the old one goes first.
        self.forget();
        self.progress(model, Progress::default());
        match guarded_on_device("loading the model", || self.read(model)).flatten() {
            Ok(loaded) => {
                let facts = loaded.facts.clone();
                self.loaded = Some(loaded);
                self.publish();
                self.status.send_replace(EngineStatus::Ready(facts.clone()));
                Ok(facts)
            }
            Err(error) => {
                if error.code == EngineErrorCode::Crashed {
                    tracing::error!("{error}");
                    self.end_with_card();
                }
                self.clean_up();
                self.forget();
                Err(error)
            }
        }
    }

    /// Says how far a load is.
    fn progress(&self, model: &ModelRef, progress: Progress) {
        let Progress { done_bytes, total_bytes, warm_percent } = progress;
        self.steps.fetch_add(1, Ordering::Relaxed);
        let model = model.id.clone();
        let status = EngineStatus::Loading { model, done_bytes, total_bytes, warm_percent };
        self.status.send_replace(status);
        self.queue.borrow_mut().sweep();
    }

    /// Memory in use on all devices.
    fn used_bytes(&self) -> Option<u64> {
        // The processor counts once, however often it is listed.
        let devices = if self.devices[0].is_cpu() { &self.devices[..1] } else { &self.devices };
        devices.iter().map(OpenDevice::used_bytes).sum()
    }

    fn clean_up(&self) {
        self.devices.iter().for_each(OpenDevice::clean_up);
    }

    fn read(&self, reference: &ModelRef) -> Result<Loaded, EngineError> {
        if ImageSource::is_image_model(&reference.path) {
            self.read_image(reference)
        } else {
            self.read_text(reference)
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    done_bytes: u64,
    total_bytes: u64,
    warm_percent: u8,
}

/// The exit code of a process that a fault of its card, or of the engine's thread, ended.
const FAULT_EXIT: i32 = 3;

/// Publishes the counts of a model, with those of the engine.
fn publish(
    published: &watch::Sender<EngineCounters>,
    mut counters: EngineCounters,
    queue: &Queue,
    steps: &AtomicU64,
) {
    counters.jobs += u32::try_from(queue.jobs()).unwrap_or(u32::MAX);
    counters.steps = steps.load(Ordering::Relaxed);
    published.send_replace(counters);
}

fn stopped() -> EngineError {
    EngineError::new(EngineErrorCode::Cancelled, "loading was ended by an unload")
}

#[cfg(test)]
mod tests;
