//! An [`Engine`] without a model: it answers from scripts, and fails, hangs or dies on request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use neurino_core::{ImageJob, ImageStep, JobSpec, TextJob};
use neurino_engine::{
    Engine, EngineError, EngineErrorCode, EngineStatus, JobEvent, JobStream, LoadedModel,
    MemoryUse, ModelRef,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::picture::{picture_of, preview_of};
use crate::script::{Ending, Script};

const CONTEXT_TOKENS: u32 = 8192;
const WEIGHTS_BYTES: u64 = 100_000_000;
/// Events one stream holds; scripts in tests are shorter.
const STREAM_EVENTS: usize = 1024;

/// An engine that answers from scripts. Clones share everything.
///
/// Like the real ones it runs so many jobs at once as it has slots (one, unless told otherwise) and
/// the others after them, refuses a model that is not loaded, and ends a job within one step of its
/// cancellation.
#[derive(Clone)]
pub struct ScriptedEngine {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    status: watch::Sender<EngineStatus>,
}

struct State {
    usual: Script,
    next: VecDeque<Script>,
    load_delay: Duration,
    load_errors: VecDeque<EngineError>,
    loaded: Option<ModelRef>,
    loads: usize,
    jobs: Vec<JobSpec>,
    slots: u32,
    /// One for each job that may run; the others wait, the oldest first.
    free: Arc<Semaphore>,
    most_at_once: usize,
    /// Cancelled by a crash; jobs started before it fail.
    alive: CancellationToken,
}

impl ScriptedEngine {
    /// An engine whose every job follows this script, unless another was queued.
    pub fn new(usual: Script) -> Self {
        let state = State {
            usual,
            next: VecDeque::new(),
            load_delay: Duration::ZERO,
            load_errors: VecDeque::new(),
            loaded: None,
            loads: 0,
            jobs: Vec::new(),
            slots: 1,
            free: Arc::new(Semaphore::new(1)),
            most_at_once: 0,
            alive: CancellationToken::new(),
        };
        let status = watch::Sender::new(EngineStatus::Idle);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), status }) }
    }

    /// An engine that answers every job with this text at once.
    pub fn answering(text: &str) -> Self {
        Self::new(Script::answer(text))
    }

    /// The same engine, before its first job, with so many slots.
    #[must_use]
    pub fn with_slots(self, slots: u32) -> Self {
        let mut state = self.state();
        (state.slots, state.free) = (slots, Arc::new(Semaphore::new(slots as usize)));
        drop(state);
        self
    }

    /// Queues a script for one coming job; queued scripts are used in order.
    pub fn queue(&self, script: Script) {
        self.state().next.push_back(script);
    }

    /// Lets one coming load fail; queued errors are used in order.
    pub fn fail_next_load(&self, error: EngineError) {
        self.state().load_errors.push_back(error);
    }

    /// How long every coming load takes.
    pub fn set_load_delay(&self, delay: Duration) {
        self.state().load_delay = delay;
    }

    /// Fails every running and waiting job as if the process had died. The model stays known, as
    /// with the real process engine: the next job runs.
    pub fn crash(&self) {
        let alive = std::mem::take(&mut self.state().alive);
        self.shared.status.send_replace(EngineStatus::Restarting { attempt: 1, wait_ms: 0 });
        alive.cancel();
    }

    /// Every job that was started, oldest first.
    pub fn jobs(&self) -> Vec<JobSpec> {
        self.state().jobs.clone()
    }

    /// How often a model was really loaded.
    pub fn loads(&self) -> usize {
        self.state().loads
    }

    /// The model in memory, as it was given.
    pub fn loaded(&self) -> Option<ModelRef> {
        self.state().loaded.clone()
    }

    /// Most jobs that were running at one time.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test holds the lock while it panics")
    }

    fn facts(model: &ModelRef, slots: u32) -> LoadedModel {
        LoadedModel {
            id: model.id.clone(),
            arch: "llama".into(),
            device: "scripted".into(),
            context_tokens: CONTEXT_TOKENS,
            slots,
            weights_bytes: WEIGHTS_BYTES,
            memory: MemoryUse::default(),
            load_ms: 1,
            pictures: None,
        }
    }
}

#[async_trait]
impl Engine for ScriptedEngine {
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let (delay, error) = {
            let mut state = self.state();
            if state.loaded.as_ref() == Some(model) {
                return Ok(Self::facts(model, state.slots));
            }
            state.loaded = None;
            (state.load_delay, state.load_errors.pop_front())
        };
        self.shared.status.send_replace(EngineStatus::Loading {
            model: model.id.clone(),
            done_bytes: 0,
            total_bytes: 0,
            warm_percent: 0,
        });
        tokio::time::sleep(delay).await;
        if let Some(error) = error {
            self.shared.status.send_replace(EngineStatus::Idle);
            return Err(error);
        }
        let facts = {
            let mut state = self.state();
            state.loaded = Some(model.clone());
            state.loads += 1;
            Self::facts(model, state.slots)
        };
        self.shared.status.send_replace(EngineStatus::Ready(facts.clone()));
        Ok(facts)
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let (script, free, alive) = {
            let mut state = self.state();
            let loaded = state.loaded.as_ref().filter(|m| &m.id == job.model());
            let Some(model) = loaded.cloned() else {
                let message = format!("model `{}` is not loaded", job.model());
                return Err(EngineError::new(EngineErrorCode::ModelNotLoaded, message));
            };
            self.shared.status.send_replace(EngineStatus::Ready(Self::facts(&model, state.slots)));
            state.jobs.push(job.clone());
            let script = state.next.pop_front().unwrap_or_else(|| state.usual.clone());
            (script, state.free.clone(), state.alive.clone())
        };
        let (events, stream) = mpsc::channel(STREAM_EVENTS);
        let engine = self.clone();
        let job = job.clone();
        // Queues now, so that jobs run in the order of their calls.
        let mut slot = Box::pin(free.clone().acquire_owned());
        let first = futures::poll!(slot.as_mut());
        tokio::spawn(async move {
            let course = async {
                let _slot = match first {
                    std::task::Poll::Ready(slot) => slot,
                    std::task::Poll::Pending => slot.await,
                };
                {
                    let mut state = engine.state();
                    let running = state.slots as usize - free.available_permits();
                    state.most_at_once = state.most_at_once.max(running);
                }
                match &job {
                    JobSpec::Text(job) => play(&script, job, &events).await,
                    JobSpec::Image(job) => draw(&script, job, &events).await,
                }
            };
            let last = tokio::select! {
                biased;
                () = alive.cancelled() => Some(failed(EngineErrorCode::Crashed)),
                () = cancel.cancelled() => Some(failed(EngineErrorCode::Cancelled)),
                () = events.closed() => None,
                last = course => Some(last),
            };
            if script.ending == Ending::Crash && last == Some(failed(EngineErrorCode::Crashed)) {
                engine.crash();
            }
            if let Some(last) = last {
                // A receiver that is gone has no use for the last event.
                let _ = events.send(last).await;
            }
        });
        Ok(stream)
    }

    async fn unload(&self) -> Result<(), EngineError> {
        self.state().loaded = None;
        self.shared.status.send_replace(EngineStatus::Idle);
        Ok(())
    }

    fn status(&self) -> watch::Receiver<EngineStatus> {
        self.shared.status.subscribe()
    }
}

fn failed(code: EngineErrorCode) -> JobEvent {
    let message = match code {
        EngineErrorCode::Crashed => "the engine's process ended",
        _ => "the job was cancelled",
    };
    JobEvent::Failed { error: EngineError::new(code, message) }
}

/// Says the pieces; returns the last event.
async fn play(script: &Script, job: &TextJob, events: &mpsc::Sender<JobEvent>) -> JobEvent {
    // Sends fail only when the stream was dropped, which ends this future from outside.
    let _ = events.send(JobEvent::Started { prompt_tokens: script.prompt_tokens }).await;
    let mut tokens = 0;
    for piece in &script.pieces {
        if !piece.delay.is_zero() {
            tokio::time::sleep(piece.delay).await;
        }
        tokens += piece.tokens;
        let _ = events.send(JobEvent::Delta { delta: piece.delta.clone(), tokens }).await;
    }
    let Ending::Finish(reason) = script.ending else { return end_badly(&script.ending).await };
    JobEvent::Finished { output: script.output(job, reason) }
}

/// Makes the steps of a picture; returns the last event.
async fn draw(script: &Script, job: &ImageJob, events: &mpsc::Sender<JobEvent>) -> JobEvent {
    let _ = events.send(JobEvent::Started { prompt_tokens: 0 }).await;
    let delay = script.pieces.first().map_or(Duration::ZERO, |piece| piece.delay);
    for step in 1..=job.steps {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let shown = job.preview || script.previews_unasked;
        let preview = shown.then(|| preview_of(job, step));
        let step = ImageStep { step, steps: job.steps, preview };
        let _ = events.send(JobEvent::Step { step }).await;
    }
    match &script.ending {
        Ending::Finish(_) => JobEvent::Finished { output: picture_of(job) },
        ending => end_badly(ending).await,
    }
}

/// The last event of a job that does not finish.
async fn end_badly(ending: &Ending) -> JobEvent {
    match ending {
        Ending::Fail(error) => JobEvent::Failed { error: error.clone() },
        Ending::Crash => failed(EngineErrorCode::Crashed),
        Ending::Hang | Ending::Finish(_) => std::future::pending().await,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{ChatMessage, JobOutput, ModelId, Role, TextDelta};

    use super::*;

    fn model() -> ModelRef {
        ModelRef::new(ModelId::new("m").unwrap(), "m.gguf")
    }

    fn job() -> JobSpec {
        JobSpec::Text(TextJob::new(model().id, vec![ChatMessage::new(Role::User, "hi")], 16))
    }

    async fn all(mut stream: JobStream) -> Vec<JobEvent> {
        let mut events = Vec::new();
        while let Some(event) = stream.recv().await {
            events.push(event);
        }
        events
    }

    fn last_code(events: &[JobEvent]) -> Option<EngineErrorCode> {
        match events.last() {
            Some(JobEvent::Failed { error }) => Some(error.code),
            _ => None,
        }
    }

    #[tokio::test]
    async fn an_answer_arrives_in_pieces_and_as_a_whole() {
        let engine = ScriptedEngine::answering("one two three");
        let error = engine.run(&job(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::ModelNotLoaded);
        engine.load(&model()).await.unwrap();
        let events = all(engine.run(&job(), CancellationToken::new()).await.unwrap()).await;
        assert_eq!(events.len(), 5);
        let Some(JobEvent::Finished { output: JobOutput::Text(text) }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!((text.text(), text.usage.total()), ("one two three", 14));
        assert_eq!(engine.jobs(), [job()]);
    }

    #[tokio::test]
    async fn jobs_run_one_after_another_and_end_when_cancelled() {
        let engine = ScriptedEngine::answering("second");
        engine.load(&model()).await.unwrap();
        engine.queue(Script::answer("first").ending(Ending::Hang));
        let cancel = CancellationToken::new();
        let first = engine.run(&job(), cancel.clone()).await.unwrap();
        let mut second = engine.run(&job(), CancellationToken::new()).await.unwrap();
        tokio::task::yield_now().await;
        assert!(second.try_recv().is_err(), "the second waits for the first");
        cancel.cancel();
        assert_eq!(last_code(&all(first).await), Some(EngineErrorCode::Cancelled));
        assert_eq!(last_code(&all(second).await), None);
    }

    #[tokio::test]
    async fn slots_run_jobs_side_by_side_and_answers_are_told_apart() {
        let second = |text: &str| TextDelta { choice: 1, ..TextDelta::text(text) };
        let script = Script::said([TextDelta::text("a"), second("b"), TextDelta::text("c")])
            .paced(Duration::from_millis(20));
        let engine = ScriptedEngine::new(script).with_slots(2);
        assert_eq!(engine.load(&model()).await.unwrap().slots, 2);
        let JobSpec::Text(mut two) = job() else { unreachable!("a text job") };
        two.choices = 2;
        let two = JobSpec::Text(two);
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(engine.run(&two, CancellationToken::new()).await.unwrap());
        }
        for stream in streams {
            let events = all(stream).await;
            let Some(JobEvent::Finished { output: JobOutput::Text(output) }) = events.last() else {
                panic!("{events:?}")
            };
            let texts: Vec<_> = output.choices.iter().map(|c| c.text.as_str()).collect();
            assert_eq!(texts, ["ac", "b"]);
        }
        assert_eq!(engine.most_at_once(), 2);
    }

    #[tokio::test]
    async fn a_picture_has_its_steps_and_previews_only_if_asked_for() {
        let engine = ScriptedEngine::new(Script::picture(Duration::ZERO));
        engine.load(&model()).await.unwrap();
        for preview in [false, true] {
            let picture = ImageJob { steps: 3, preview, ..ImageJob::new(model().id, "x", 32) };
            let job = JobSpec::Image(picture.clone());
            let events = all(engine.run(&job, CancellationToken::new()).await.unwrap()).await;
            let steps = events.iter().filter_map(|event| match event {
                JobEvent::Step { step } => Some((step.step, step.steps, step.preview.is_some())),
                _ => None,
            });
            assert_eq!(
                steps.collect::<Vec<_>>(),
                [(1, 3, preview), (2, 3, preview), (3, 3, preview)]
            );
            let finished = JobEvent::Finished { output: picture_of(&picture) };
            assert_eq!(events.last(), Some(&finished));
        }
    }

    #[tokio::test]
    async fn a_crash_takes_waiting_jobs_along_and_the_next_one_runs() {
        let engine = ScriptedEngine::answering("fine");
        engine.load(&model()).await.unwrap();
        engine.queue(Script::answer("").ending(Ending::Crash).paced(Duration::from_millis(20)));
        let first = engine.run(&job(), CancellationToken::new()).await.unwrap();
        let second = engine.run(&job(), CancellationToken::new()).await.unwrap();
        assert_eq!(last_code(&all(first).await), Some(EngineErrorCode::Crashed));
        assert_eq!(last_code(&all(second).await), Some(EngineErrorCode::Crashed));
        let third = engine.run(&job(), CancellationToken::new()).await.unwrap();
        assert_eq!(last_code(&all(third).await), None);
        assert!(matches!(*engine.status().borrow(), EngineStatus::Ready(_)));
    }
}
