//! An [`Engine`] without a model: it answers from scripts, and fails, hangs or dies on request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use neurino_core::{JobOutput, JobSpec, TextOutput};
use neurino_engine::{
    Engine, EngineError, EngineErrorCode, EngineStatus, JobEvent, JobStream, LoadedModel, ModelRef,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::script::{Ending, Script};

const CONTEXT_TOKENS: u32 = 8192;
const WEIGHTS_BYTES: u64 = 100_000_000;
/// Events one stream holds; scripts in tests are shorter.
const STREAM_EVENTS: usize = 1024;

/// An engine that answers from scripts. Clones share everything.
///
/// Like the real ones it runs jobs one after another, refuses a model that is not loaded, and ends
/// a job within one step of its cancellation.
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
    /// Cancelled when the newest job is over; the next one waits for it.
    last_over: CancellationToken,
    /// Cancelled by a crash; jobs started before it fail.
    alive: CancellationToken,
}

impl ScriptedEngine {
    /// An engine whose every job follows this script, unless another was queued.
    pub fn new(usual: Script) -> Self {
        let over = CancellationToken::new();
        over.cancel();
        let state = State {
            usual,
            next: VecDeque::new(),
            load_delay: Duration::ZERO,
            load_errors: VecDeque::new(),
            loaded: None,
            loads: 0,
            jobs: Vec::new(),
            last_over: over,
            alive: CancellationToken::new(),
        };
        let status = watch::Sender::new(EngineStatus::Idle);
        Self { shared: Arc::new(Shared { state: Mutex::new(state), status }) }
    }

    /// An engine that answers every job with this text at once.
    pub fn answering(text: &str) -> Self {
        Self::new(Script::answer(text))
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test holds the lock while it panics")
    }

    fn facts(model: &ModelRef) -> LoadedModel {
        LoadedModel {
            id: model.id.clone(),
            arch: "llama".into(),
            device: "scripted".into(),
            context_tokens: CONTEXT_TOKENS,
            weights_bytes: WEIGHTS_BYTES,
            load_ms: 1,
        }
    }
}

#[async_trait]
impl Engine for ScriptedEngine {
    async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let (delay, error) = {
            let mut state = self.state();
            if state.loaded.as_ref() == Some(model) {
                return Ok(Self::facts(model));
            }
            state.loaded = None;
            (state.load_delay, state.load_errors.pop_front())
        };
        self.shared.status.send_replace(EngineStatus::Loading { model: model.id.clone() });
        tokio::time::sleep(delay).await;
        if let Some(error) = error {
            self.shared.status.send_replace(EngineStatus::Idle);
            return Err(error);
        }
        let facts = Self::facts(model);
        {
            let mut state = self.state();
            state.loaded = Some(model.clone());
            state.loads += 1;
        }
        self.shared.status.send_replace(EngineStatus::Ready(facts.clone()));
        Ok(facts)
    }

    async fn run(
        &self,
        job: &JobSpec,
        cancel: CancellationToken,
    ) -> Result<JobStream, EngineError> {
        let (script, before, over, alive) = {
            let mut state = self.state();
            let loaded = state.loaded.as_ref().filter(|m| &m.id == job.model());
            let Some(model) = loaded.cloned() else {
                let message = format!("model `{}` is not loaded", job.model());
                return Err(EngineError::new(EngineErrorCode::ModelNotLoaded, message));
            };
            self.shared.status.send_replace(EngineStatus::Ready(Self::facts(&model)));
            state.jobs.push(job.clone());
            let script = state.next.pop_front().unwrap_or_else(|| state.usual.clone());
            let over = CancellationToken::new();
            let before = std::mem::replace(&mut state.last_over, over.clone());
            (script, before, over, state.alive.clone())
        };
        let (events, stream) = mpsc::channel(STREAM_EVENTS);
        let engine = self.clone();
        tokio::spawn(async move {
            let _over = over.drop_guard();
            let course = async {
                before.cancelled().await;
                play(&script, &events).await
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
async fn play(script: &Script, events: &mpsc::Sender<JobEvent>) -> JobEvent {
    // Sends fail only when the stream was dropped, which ends this future from outside.
    let _ = events.send(JobEvent::Started { prompt_tokens: script.prompt_tokens }).await;
    let mut tokens = 0;
    for piece in &script.pieces {
        if !piece.delay.is_zero() {
            tokio::time::sleep(piece.delay).await;
        }
        tokens += piece.tokens;
        let _ = events.send(JobEvent::Delta { text: piece.text.clone(), tokens }).await;
    }
    match &script.ending {
        Ending::Finish(finish_reason) => JobEvent::Finished {
            output: JobOutput::Text(TextOutput {
                text: script.text(),
                finish_reason: *finish_reason,
                usage: script.usage(),
            }),
        },
        Ending::Fail(error) => JobEvent::Failed { error: error.clone() },
        Ending::Hang => std::future::pending().await,
        Ending::Crash => failed(EngineErrorCode::Crashed),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::{ChatMessage, ModelId, Role, SamplingParams, TextJob};

    use super::*;

    fn model() -> ModelRef {
        ModelRef { id: ModelId::new("m").unwrap(), path: "m.gguf".into() }
    }

    fn job() -> JobSpec {
        JobSpec::Text(TextJob {
            model: model().id,
            messages: vec![ChatMessage { role: Role::User, content: "hi".into() }],
            sampling: SamplingParams::default(),
            max_tokens: 16,
            stop: vec![],
        })
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
        assert_eq!((text.text.as_str(), text.usage.total()), ("one two three", 14));
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
