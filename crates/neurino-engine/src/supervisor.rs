//! The task behind [`crate::process::ProcessEngine`]: keeps one child running while it is needed,
//! passes commands and events, and notices when the child is lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use neurino_core::JobSpec;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{
    EngineCounters, EngineError, EngineErrorCode, EngineStatus, JobEvent, LoadedModel, ModelRef,
};
use crate::frame::{FrameError, FromChild, ToChild};
use crate::link::Link;
use crate::outlet::Outlet;
use crate::process::{ProcessEngineConfig, ProcessLimits};
use crate::queue;

type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// What the handle asks of the task.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are jobs")]
pub(crate) enum Command {
    Load { model: ModelRef, reply: Reply<LoadedModel> },
    Unload { reply: Reply<()> },
    Run { spec: JobSpec, cancel: CancellationToken, outlet: Outlet },
    Count { reply: Reply<EngineCounters> },
}

impl Command {
    fn fail(self, error: EngineError) {
        // A caller that is gone does not need its answer.
        match self {
            Self::Load { reply, .. } => drop(reply.send(Err(error))),
            Self::Unload { reply } => drop(reply.send(Err(error))),
            Self::Run { outlet, .. } => outlet.fail(error),
            Self::Count { reply } => drop(reply.send(Err(error))),
        }
    }
}

/// What the handle reads without asking.
pub(crate) struct Shared {
    pub(crate) status: watch::Sender<EngineStatus>,
    /// The model jobs may name: loaded in the child, or to be loaded again by the next job.
    pub(crate) model: Mutex<Option<ModelRef>>,
    /// Zero while no child runs.
    pub(crate) process_id: AtomicU32,
}

impl Shared {
    pub(crate) fn model(&self) -> Option<ModelRef> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_model(&self, model: Option<ModelRef>) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }
}

/// The waits between starts.
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a child that was lost after `uptime` and says how long to wait.
    fn lost(&mut self, uptime: Duration, limits: &ProcessLimits) -> Duration {
        self.failures = if uptime >= limits.healthy { 1 } else { self.failures.saturating_add(1) };
        let doublings = (self.failures - 1).min(16);
        limits.first_wait.saturating_mul(1 << doublings).min(limits.longest_wait)
    }
}

/// The task.
pub(crate) struct Supervisor {
    config: ProcessEngineConfig,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    end: CancellationToken,
}

impl Supervisor {
    pub(crate) fn new(
        config: ProcessEngineConfig,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
        end: CancellationToken,
    ) -> Self {
        Self { config, commands, shared, end }
    }

    /// Runs until the engine is dropped or shut down.
    pub(crate) async fn run(mut self) {
        let end = self.end.clone();
        // Dropping the inner future kills the child; `supervise` sees to the rest in order.
        end.run_until_cancelled_owned(self.supervise()).await;
        self.shared.process_id.store(0, Ordering::Relaxed);
        self.shared.set_model(None);
        self.shared.status.send_replace(EngineStatus::Idle);
        self.commands.close();
        self.fail_waiting(&EngineError::crashed("the engine was shut down"));
    }

    async fn supervise(&mut self) {
        let mut backoff = Backoff { failures: 0 };
        let mut restart = false;
        loop {
            let first = if restart { None } else { self.work().await };
            if first.is_none() && !restart {
                return;
            }
            let started = Instant::now();
            let error = match Link::start(&self.config).await {
                Ok(link) => {
                    self.shared.status.send_replace(EngineStatus::Idle);
                    match self.serve(link, first).await {
                        None => {
                            restart = false;
                            continue;
                        }
                        Some(error) => error,
                    }
                }
                Err(error) => {
                    // Nobody brings it back by trying; the next load says it again.
                    if error.code == EngineErrorCode::NoProgram {
                        self.shared.set_model(None);
                    }
                    if let Some(first) = first {
                        first.fail(error.clone());
                    }
                    self.fail_waiting(&error);
                    error
                }
            };
            let wait = backoff.lost(started.elapsed(), &self.config.limits);
            tracing::warn!(attempt = backoff.failures, wait_ms = wait.as_millis(), "{error}");
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let status = EngineStatus::Restarting { attempt: backoff.failures, wait_ms };
            self.shared.status.send_replace(status);
            tokio::time::sleep(wait).await;
            // Without a model a child would hold memory of the card for nothing.
            restart = self.shared.model().is_some();
            if !restart {
                self.shared.status.send_replace(EngineStatus::Idle);
            }
        }
    }

    /// Waits for a command that needs a child; `None` when the handle is gone.
    async fn work(&mut self) -> Option<Command> {
        loop {
            match self.commands.recv().await? {
                Command::Unload { reply } => {
                    self.shared.set_model(None);
                    let _ = reply.send(Ok(()));
                }
                // Nothing runs.
                Command::Count { reply } => drop(reply.send(Ok(EngineCounters::default()))),
                command => return Some(command),
            }
        }
    }

    fn fail_waiting(&mut self, error: &EngineError) {
        while let Ok(command) = self.commands.try_recv() {
            command.fail(error.clone());
        }
    }

    /// Works with one child until it is not needed any more (`None`) or lost.
    async fn serve(&mut self, link: Link, first: Option<Command>) -> Option<EngineError> {
        self.shared.process_id.store(link.process_id().unwrap_or(0), Ordering::Relaxed);
        let mut session = Session::new(link, Arc::clone(&self.shared));
        let limits = self.config.limits;
        let look = (limits.silence.min(limits.unload) / 4).min(Duration::from_secs(1));
        let mut look = tokio::time::interval(look);
        let mut step = first.map_or(Ok(()), |command| session.command(command));
        while step.is_ok() && !session.done() {
            step = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => session.command(command),
                    None => break,
                },
                frame = session.link.next() => match frame {
                    Some(Ok(frame)) => session.frame(frame),
                    Some(Err(error)) => Err(session.link.why_lost(Some(&error)).await),
                    None => Err(session.link.why_lost(None).await),
                },
                Some(Ok(job)) = session.watchers.join_next() => session.cancel(job),
                _ = look.tick() => session.check(&limits),
            };
        }
        self.shared.process_id.store(0, Ordering::Relaxed);
        match step {
            Ok(()) => {
                session.link.end().await;
                None
            }
            Err(reason) => {
                let (error, unwanted) = (EngineError::crashed(reason), session.unwanted);
                session.link.kill().await;
                session.fail_all(&error);
                if !unwanted {
                    return Some(error);
                }
                // Its end is what was asked for.
                tracing::warn!("{error}");
                self.shared.status.send_replace(EngineStatus::Idle);
                None
            }
        }
    }
}

enum Request {
    Load(ModelRef, Reply<LoadedModel>),
    Reload(ModelRef),
    Unload(Reply<()>),
    Count(Reply<EngineCounters>),
}

struct Job {
    outlet: Outlet,
    watcher: AbortHandle,
    /// Nobody wants it any more.
    cancelled: bool,
}

/// Everything in flight with one child. Methods fail, in words, when the child must be given up.
struct Session {
    link: Link,
    shared: Arc<Shared>,
    jobs: HashMap<u64, Job>,
    requests: HashMap<u64, Request>,
    /// Resolve to the job that was cancelled or whose reader is gone.
    watchers: JoinSet<u64>,
    /// Whether the child holds, or was told to load, the shared model.
    loaded: bool,
    /// Set by an unload: the child ends once nothing is in flight.
    unwanted: bool,
    /// Since when it has nothing to do but to end.
    unload_at: Option<Instant>,
    reload_error: Option<EngineError>,
    last_id: u64,
    steps: u64,
    heard_at: Instant,
    moved_at: Instant,
}

impl Session {
    fn new(link: Link, shared: Arc<Shared>) -> Self {
        Self {
            link,
            shared,
            jobs: HashMap::new(),
            requests: HashMap::new(),
            watchers: JoinSet::new(),
            loaded: false,
            unwanted: false,
            unload_at: None,
            reload_error: None,
            last_id: 0,
            steps: 0,
            heard_at: Instant::now(),
            moved_at: Instant::now(),
        }
    }

    fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || !self.requests.is_empty()
    }

    fn done(&self) -> bool {
        self.unwanted && !self.is_busy()
    }

    fn send(&self, message: &ToChild) -> Result<(), String> {
        self.link.send(message).map_err(|e| format!("the engine's process is lost: {e}"))
    }

    fn command(&mut self, command: Command) -> Result<(), String> {
        if !self.is_busy() {
            self.moved_at = Instant::now();
        }
        match command {
            Command::Load { model, reply } => {
                self.unwanted = false;
                self.unload_at = None;
                self.load(model.clone(), Request::Load(model, reply))
            }
            Command::Unload { reply } => {
                self.unwanted = true;
                self.unload_at.get_or_insert_with(Instant::now);
                self.loaded = false;
                self.shared.set_model(None);
                let request = self.request(Request::Unload(reply));
                self.send(&ToChild::Unload { request })
            }
            Command::Run { spec, cancel, outlet } => self.run(spec, cancel, outlet),
            Command::Count { reply } => {
                let request = self.request(Request::Count(reply));
                self.send(&ToChild::Count { request })
            }
        }
    }

    fn load(&mut self, model: ModelRef, request: Request) -> Result<(), String> {
        self.loaded = true;
        self.reload_error = None;
        let model_id = model.id.clone();
        let (done_bytes, total_bytes, warm_percent) = (0, 0, 0);
        let status =
            EngineStatus::Loading { model: model_id, done_bytes, total_bytes, warm_percent };
        if !matches!(&*self.shared.status.borrow(), EngineStatus::Ready(m) if m.id == model.id) {
            self.shared.status.send_replace(status);
        }
        let request = self.request(request);
        self.send(&ToChild::Load { request, model: Box::new(model) })
    }

    fn request(&mut self, request: Request) -> u64 {
        self.last_id += 1;
        self.requests.insert(self.last_id, request);
        self.last_id
    }

    fn run(
        &mut self,
        spec: JobSpec,
        cancel: CancellationToken,
        outlet: Outlet,
    ) -> Result<(), String> {
        if self.jobs.len() >= queue::JOBS_LIMIT {
            outlet.fail(queue::busy());
            return Ok(());
        }
        if !self.loaded
            && let Some(model) = self.shared.model()
        {
            self.load(model.clone(), Request::Reload(model))?;
        }
        self.last_id += 1;
        let job = self.last_id;
        match self.link.send(&ToChild::Run { job, spec: Box::new(spec) }) {
            Ok(()) => {}
            Err(FrameError::TooLarge { size_bytes }) => {
                let message = format!("the conversation is too long: {size_bytes} bytes");
                outlet.fail(EngineError::new(EngineErrorCode::InvalidRequest, message));
                return Ok(());
            }
            Err(error) => {
                let message = format!("the engine's process is lost: {error}");
                outlet.fail(EngineError::crashed(message.clone()));
                return Err(message);
            }
        }
        let reader = outlet.watch();
        let watcher = self.watchers.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = reader.closed() => {}
            }
            job
        });
        self.jobs.insert(job, Job { outlet, watcher, cancelled: false });
        Ok(())
    }

    fn cancel(&mut self, job: u64) -> Result<(), String> {
        let Some(cancelled) = self.jobs.get_mut(&job) else { return Ok(()) };
        cancelled.cancelled = true;
        self.less_to_wait_for();
        self.send(&ToChild::Cancel { job })
    }

    /// One job fewer is wanted: from now on there is time to unload.
    fn less_to_wait_for(&mut self) {
        if let Some(at) = &mut self.unload_at {
            *at = Instant::now();
        }
    }

    fn frame(&mut self, frame: FromChild) -> Result<(), String> {
        self.heard_at = Instant::now();
        match frame {
            FromChild::Heartbeat { steps } => {
                if steps != self.steps {
                    (self.steps, self.moved_at) = (steps, self.heard_at);
                }
            }
            FromChild::Loading { done_bytes: done, total_bytes: total, warm_percent: warm } => {
                self.moved_at = self.heard_at;
                self.shared.status.send_if_modified(|status| match status {
                    EngineStatus::Loading { done_bytes, total_bytes, warm_percent, .. } => {
                        (*done_bytes, *total_bytes, *warm_percent) = (done, total, warm);
                        true
                    }
                    _ => false,
                });
            }
            FromChild::Counted { request, counters } => match self.requests.remove(&request) {
                Some(Request::Count(reply)) => drop(reply.send(Ok(counters))),
                _ => return Err("the engine's process answered what nobody asked".into()),
            },
            FromChild::Loaded { request, result } => self.loaded(request, result)?,
            FromChild::Unloaded { request, result } => match self.requests.remove(&request) {
                Some(Request::Unload(reply)) => {
                    self.shared.status.send_replace(EngineStatus::Idle);
                    let _ = reply.send(result);
                }
                _ => return Err("the engine's process answered what nobody asked".into()),
            },
            FromChild::Job { job, event } => {
                self.moved_at = self.heard_at;
                self.event(job, event);
            }
            FromChild::Hello { .. } => return Err("the engine's process said hello twice".into()),
        }
        Ok(())
    }

    fn loaded(
        &mut self,
        request: u64,
        result: Result<LoadedModel, EngineError>,
    ) -> Result<(), String> {
        let (model, reply) = match self.requests.remove(&request) {
            Some(Request::Load(model, reply)) => (model, Some(reply)),
            Some(Request::Reload(model)) => (model, None),
            _ => return Err("the engine's process answered what nobody asked".into()),
        };
        match &result {
            Ok(facts) => {
                self.shared.set_model(Some(model));
                self.shared.status.send_replace(EngineStatus::Ready(facts.clone()));
            }
            Err(error) => {
                self.loaded = false;
                self.reload_error = Some(error.clone());
                self.shared.set_model(None);
                self.shared.status.send_replace(EngineStatus::Idle);
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
        Ok(())
    }

    fn event(&mut self, id: u64, event: JobEvent) {
        // Events of a job that has ended do not come; of an unknown one they mean nothing.
        let Some(mut job) = self.jobs.remove(&id) else { return };
        match event {
            JobEvent::Started { prompt_tokens } => job.outlet.started(prompt_tokens),
            JobEvent::Delta { delta, tokens } => job.outlet.delta(delta, tokens),
            JobEvent::Step { step } => job.outlet.step(step),
            JobEvent::Finished { output } => {
                self.less_to_wait_for();
                return job.end(|outlet| outlet.finish(output));
            }
            JobEvent::Failed { error } => {
                self.less_to_wait_for();
                // The job waited for a model that could not be loaded again: say why.
                let why = match error.code {
                    EngineErrorCode::ModelNotLoaded => self.reload_error.clone(),
                    _ => None,
                };
                return job.end(|outlet| outlet.fail(why.unwrap_or(error)));
            }
        }
        self.jobs.insert(id, job);
    }

    /// Whether the child has been silent or idle for too long while it has work, or keeps its memory
    /// though nothing is wanted of it.
    fn check(&self, limits: &ProcessLimits) -> Result<(), String> {
        if self.is_busy() && self.heard_at.elapsed() > limits.silence {
            return Err("the engine's process stopped answering".into());
        }
        if self.unload_at.is_some_and(|at| at.elapsed() > limits.unload)
            && self.jobs.values().all(|job| job.cancelled)
        {
            return Err("the engine's process did not give its memory back in time".into());
        }
        if self.is_busy() && self.moved_at.elapsed() > limits.stall {
            return Err("the engine's process stopped making progress".into());
        }
        Ok(())
    }

    fn fail_all(self, error: &EngineError) {
        for job in self.jobs.into_values() {
            job.end(|outlet| outlet.fail(error.clone()));
        }
        for request in self.requests.into_values() {
            match request {
                Request::Load(_, reply) => {
                    // A model that takes the process down is not loaded again by itself.
                    self.shared.set_model(None);
                    let _ = reply.send(Err(error.clone()));
                }
                Request::Reload(_) => self.shared.set_model(None),
                Request::Unload(reply) => drop(reply.send(Ok(()))),
                Request::Count(reply) => drop(reply.send(Err(error.clone()))),
            }
        }
    }
}

impl Job {
    fn end(self, last: impl FnOnce(Outlet)) {
        self.watcher.abort();
        last(self.outlet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_limit_and_begin_anew_after_a_healthy_run() {
        let limits = ProcessLimits::default();
        let mut backoff = Backoff { failures: 0 };
        let mut waits = (0..8).map(|_| backoff.lost(Duration::ZERO, &limits).as_millis());
        let expected = [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000];
        assert!(waits.by_ref().eq(expected));
        assert_eq!(backoff.lost(limits.healthy, &limits), limits.first_wait);
    }
}
