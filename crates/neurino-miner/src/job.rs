//! One job: load its model if needed, run it within its budget, sign and save the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use neurino_core::{
    ImageStep, JobOutput, JobSpec, Lease, LeaseId, ModelId, NodeId, ResultDigest, ResultStatement,
    TextDelta,
};
use neurino_engine::{
    Engine, EngineError, EngineErrorCode, JobEvent, LoadedModel, ModelRef, PictureFacts, prefetch,
};
use neurino_protocol::node::{PREVIEW_BYTES_MAX, SUBMIT_BYTES_MAX, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use tokio_util::sync::CancellationToken;

use crate::filter::ContentFilter;
use crate::outbox::{self, Finished};
use crate::run::{Inside, now_ms};

/// Room that a submission's envelope takes in a message, in bytes.
const ENVELOPE_BYTES: usize = 4 << 10;

/// The engine, and which models it holds. Jobs hold a model's lock for reading while they run, so
/// that nobody replaces the model below them; loading takes it for writing.
pub(crate) struct Loaded {
    pub(crate) engine: Arc<dyn Engine>,
    /// At least one.
    places: Vec<Place>,
    /// Rises with every use of a place.
    time: AtomicU64,
    /// Taken by whoever wants a model that is not held, so that jobs of the same model wait for one
    /// load and not each for one of its own.
    turn: Mutex<()>,
    /// Whether the engine is told which place a model goes to.
    numbered: bool,
}

/// Room for a model in the engine.
#[derive(Default)]
struct Place {
    /// As [`Loaded::turn`], for whoever wants a model here and nowhere else.
    turn: Mutex<()>,
    model: RwLock<Option<Held>>,
    used: AtomicU64,
}

/// A model in the engine.
pub(crate) struct Held {
    pub(crate) facts: LoadedModel,
    /// Set by a job that was told otherwise: the engine's process came back without it.
    lost: AtomicBool,
}

/// The model stays in the engine while this lives.
type Hold<'a> = RwLockReadGuard<'a, Option<Held>>;

/// Where a model is, and what is known of it.
pub(crate) type LoadedAt = (usize, LoadedModel);

impl Loaded {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        let places = std::iter::repeat_with(Place::default).take(engine.places().max(1)).collect();
        let numbered = !engine.place_cards().is_empty();
        Self { engine, places, time: AtomicU64::new(0), turn: Mutex::new(()), numbered }
    }

    /// Loads a model once no job runs that is in its way. Free when the engine still holds it.
    pub(crate) async fn load(&self, model: &ModelRef) -> Result<LoadedAt, EngineError> {
        let _turn = self.turn.lock().await;
        self.replace(model).await.map(|(place, held)| (place, facts(&held)))
    }

    /// Loads a model into a place, once no job on another one runs there. Free when it is there.
    pub(crate) async fn load_at(
        &self,
        place: usize,
        model: &ModelRef,
    ) -> Result<LoadedAt, EngineError> {
        self.hold_at(place, model).await.map(|held| (place, facts(&held)))
    }

    /// Frees a place once no job runs there; whether it could.
    pub(crate) async fn unload_at(&self, place: usize) -> bool {
        let Some(at) = self.places.get(place) else { return false };
        let _turn = at.turn.lock().await;
        *at.model.write().await = None;
        self.engine.unload_at(place).await.is_ok()
    }

    /// Frees the engine's memory once no job runs; whether it could. Jobs that come have their model
    /// loaded again.
    pub(crate) async fn unload(&self) -> bool {
        let _turn = self.turn.lock().await;
        let mut held = Vec::with_capacity(self.places.len());
        for place in &self.places {
            held.push(place.model.write().await);
        }
        for model in &mut held {
            **model = None;
        }
        match self.engine.unload().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(code = ?error.code, "the models could not be unloaded: {error}");
                false
            }
        }
    }

    /// Waits until a place holds the model, and keeps it there while the guard lives.
    async fn hold_at(&self, place: usize, model: &ModelRef) -> Result<Hold<'_>, EngineError> {
        let Some(at) = self.places.get(place) else {
            let message = format!("this machine has no place {place}");
            return Err(EngineError::new(EngineErrorCode::NoSuchDevice, message));
        };
        if let Some(held) = self.held_at(at, &model.id).await {
            return Ok(held);
        }
        let _turn = at.turn.lock().await;
        // Another job of this model may have had its turn meanwhile.
        if let Some(held) = self.held_at(at, &model.id).await {
            return Ok(held);
        }
        let mut held = self.emptied(at, model).await;
        let facts = self.engine.load_at(place, model).await?;
        *held = Some(Held { facts, lost: AtomicBool::new(false) });
        self.use_now(at);
        Ok(held.downgrade())
    }

    async fn held_at<'a>(&self, place: &'a Place, model: &ModelId) -> Option<Hold<'a>> {
        let held = place.model.read().await;
        let is_fit = |h: &Held| h.facts.id == *model && !h.lost.load(Ordering::Acquire);
        if !held.as_ref().is_some_and(is_fit) {
            return None;
        }
        self.use_now(place);
        Some(held)
    }

    /// Waits until the engine holds the model, and keeps it there while the guard lives.
    async fn hold(&self, model: &ModelRef) -> Result<(usize, Hold<'_>), EngineError> {
        if let Some(held) = self.held(&model.id).await {
            return Ok(held);
        }
        let _turn = self.turn.lock().await;
        // Another job of this model may have had its turn meanwhile.
        if let Some(held) = self.held(&model.id).await {
            return Ok(held);
        }
        self.replace(model).await
    }

    async fn held(&self, model: &ModelId) -> Option<(usize, Hold<'_>)> {
        let is_fit = |h: &Held| h.facts.id == *model && !h.lost.load(Ordering::Acquire);
        for (at, place) in self.places.iter().enumerate() {
            if let Ok(held) = place.model.try_read()
                && held.as_ref().is_some_and(is_fit)
            {
                self.use_now(place);
                return Some((at, held));
            }
        }
        // What cannot be read now is being replaced, perhaps by the model: who waits here shares the
        // load, and who waits in vain could not have had a turn before.
        for (at, place) in self.places.iter().enumerate() {
            let held = place.model.read().await;
            if held.as_ref().is_some_and(is_fit) {
                self.use_now(place);
                return Some((at, held));
            }
        }
        None
    }

    fn use_now(&self, place: &Place) {
        place.used.store(self.time.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Where a model is, or goes: into a free place, or in the stead of the one that was not used
    /// for the longest. For whoever has the turn.
    fn place(&self, model: &ModelId) -> usize {
        let rank = |(_, place): &(usize, &Place)| {
            let Ok(held) = place.model.try_read() else { return (2, 0) };
            match held.as_ref() {
                Some(held) if held.facts.id == *model => (0, 0),
                None => (1, 0),
                Some(_) => (2, place.used.load(Ordering::Relaxed)),
            }
        };
        let fits = |(index, _): &(usize, &Place)| self.engine.fits_place(model, *index);
        let places = || self.places.iter().enumerate();
        // A model that fits nowhere is refused by the engine.
        let best = places().filter(fits).min_by_key(rank).or_else(|| places().min_by_key(rank));
        best.expect("there is at least one place").0
    }

    /// The place that has the most cards of those that may hold a model.
    fn first(&self, model: &ModelId) -> usize {
        (0..self.places.len()).find(|at| self.engine.fits_place(model, *at)).unwrap_or(0)
    }

    /// Loads and holds a model; for whoever has the turn.
    async fn replace(&self, model: &ModelRef) -> Result<(usize, Hold<'_>), EngineError> {
        let mut at = self.place(&model.id);
        let mut held = self.emptied(&self.places[at], model).await;
        let mut loaded = self.load_into(at, model).await;
        let first = self.first(&model.id);
        let lacks_memory =
            matches!(&loaded, Err(error) if error.code == EngineErrorCode::OutOfMemory);
        if self.numbered && lacks_memory && at != first {
            // That one has more cards.
            at = first;
            held = self.emptied(&self.places[at], model).await;
            loaded = self.load_into(at, model).await;
        }
        *held = Some(Held { facts: loaded?, lost: AtomicBool::new(false) });
        self.use_now(&self.places[at]);
        // At once, so that nobody loads another one before this is used.
        Ok((at, held.downgrade()))
    }

    async fn load_into(&self, at: usize, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        if self.numbered {
            self.engine.load_at(at, model).await
        } else {
            self.engine.load(model).await
        }
    }

    /// A place for a model. While jobs of another one are in its way, its files come into memory.
    async fn emptied<'a>(
        &self,
        place: &'a Place,
        model: &ModelRef,
    ) -> RwLockWriteGuard<'a, Option<Held>> {
        let mut held = if let Ok(free) = place.model.try_write() {
            free
        } else {
            let wanted = CancellationToken::new();
            let _enough = wanted.clone().drop_guard();
            let next = model.clone();
            tokio::task::spawn_blocking(move || prefetch(&next, &wanted));
            place.model.write().await
        };
        *held = None;
        held
    }
}

fn facts(held: &Hold<'_>) -> LoadedModel {
    held.as_ref().expect("a guard is handed out only with a model").facts.clone()
}

/// What happened to a job.
pub(crate) enum JobUpdate {
    /// The engine holds its model in a place, which takes so many jobs at once.
    Running { place: usize, slots: u32, load_ms: u64, pictures: Option<PictureFacts> },
    /// The engine has begun to compute it.
    Begun,
    /// More of an answer, and the tokens of all answers so far.
    Delta { delta: TextDelta, tokens: u32 },
    /// One more step of a picture; with a preview only if the job asked for previews.
    Step { step: ImageStep },
    /// The result, on disk unless `problem` says why not.
    Finished { finished: Box<Finished>, problem: Option<ErrorBody> },
    /// No result. `engine` is set when the engine is to blame and must be seen to.
    Failed { error: ErrorBody, engine: bool },
    /// Nobody wants it any more: cancelled or stopped.
    Dropped,
}

/// Everything a job's task needs.
pub(crate) struct JobTask {
    pub(crate) lease: Lease,
    pub(crate) model: ModelRef,
    /// Where it is to be computed; anywhere if absent.
    pub(crate) place: Option<usize>,
    pub(crate) network: String,
    pub(crate) node: NodeId,
    pub(crate) received: Instant,
    pub(crate) cancel: CancellationToken,
    pub(crate) filter: ContentFilter,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) outbox_dir: std::path::PathBuf,
    pub(crate) events: mpsc::Sender<Inside>,
}

impl JobTask {
    /// Runs to the end and reports it. Cancelling ends it at once, whatever the engine does.
    pub(crate) async fn run(self) {
        if let Err(error) = self.filter.check(&self.lease.spec) {
            return self.tell(JobUpdate::Failed { error, engine: false }).await;
        }
        let budget = std::time::Duration::from_millis(self.lease.budget_ms);
        let deadline = tokio::time::Instant::from_std(self.received + budget);
        let computed = tokio::select! {
            computed = self.compute() => computed,
            () = self.cancel.cancelled() => return self.tell(JobUpdate::Dropped).await,
            () = tokio::time::sleep_until(deadline) => Err((deadline_passed(budget.as_millis()), false)),
        };
        let update = match computed {
            Ok(output) => self.sign_and_save(output).await,
            Err((error, engine)) => JobUpdate::Failed { error, engine },
        };
        self.tell(update).await;
    }

    async fn tell(&self, update: JobUpdate) {
        // Refused only when the miner is gone, and then nobody is left to tell.
        let _ = self.events.send(Inside::Job(self.lease.id, update)).await;
    }

    async fn compute(&self) -> Result<JobOutput, (ErrorBody, bool)> {
        let mut again = false;
        loop {
            match self.compute_once().await {
                // The engine's process came back without its model.
                Err(error) if error.code == EngineErrorCode::ModelNotLoaded && !again => {
                    again = true;
                }
                Err(error) => return Err(blame(&error)),
                Ok(output) => return Ok(output),
            }
        }
    }

    async fn compute_once(&self) -> Result<JobOutput, EngineError> {
        let (place, held) = match self.place {
            Some(place) => (place, self.loaded.hold_at(place, &self.model).await?),
            None => self.loaded.hold(&self.model).await?,
        };
        let LoadedModel { slots, load_ms, pictures, .. } = facts(&held);
        self.tell(JobUpdate::Running { place, slots, load_ms, pictures }).await;
        let computed = self.stream(place).await;
        if let (Err(error), Some(held)) = (&computed, held.as_ref())
            && error.code == EngineErrorCode::ModelNotLoaded
        {
            held.lost.store(true, Ordering::Release);
        }
        computed
    }

    /// The job in the engine.
    async fn stream(&self, place: usize) -> Result<JobOutput, EngineError> {
        // Dropping the stream cancels the job in the engine, and so does this token's drop guard.
        let cancel = self.cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let (engine, spec) = (&self.loaded.engine, &self.lease.spec);
        let mut stream = if self.loaded.numbered {
            engine.run_at(place, spec, cancel).await?
        } else {
            engine.run(spec, cancel).await?
        };
        while let Some(event) = stream.recv().await {
            match event {
                JobEvent::Started { .. } => self.tell(JobUpdate::Begun).await,
                JobEvent::Delta { delta, tokens } => {
                    self.tell(JobUpdate::Delta { delta, tokens }).await;
                }
                JobEvent::Step { mut step } => {
                    // What a payer did not ask to see leaves this machine only as the result.
                    let asked = matches!(&self.lease.spec, JobSpec::Image(job) if job.preview);
                    step.preview =
                        step.preview.filter(|png| asked && png.0.len() <= PREVIEW_BYTES_MAX);
                    self.tell(JobUpdate::Step { step }).await;
                }
                JobEvent::Finished { output } => return Ok(output),
                JobEvent::Failed { error } => return Err(error),
            }
        }
        Err(EngineError::new(EngineErrorCode::Crashed, "the engine ended without a result"))
    }

    async fn sign_and_save(&self, output: JobOutput) -> JobUpdate {
        let (key, dir) = (self.key.clone(), self.outbox_dir.clone());
        let (network, node) = (self.network.clone(), self.node.clone());
        let (job, lease, fence) = (self.lease.job, self.lease.id, self.lease.fence);
        // The digest of a picture takes a moment as well.
        let saved = tokio::task::spawn_blocking(move || {
            let statement = |digest| ResultStatement { job, lease, fence, node, digest };
            let submission = signed(&key, statement, output)?;
            let finished = Box::new(Finished::new(network, now_ms(), submission));
            let problem = outbox::save(&dir, &finished).err();
            Ok((finished, problem))
        });
        let failed = |error| JobUpdate::Failed { error, engine: false };
        match saved.await {
            Ok(Ok((finished, problem))) => {
                let problem = problem.map(|error| unsaved(lease, &error));
                JobUpdate::Finished { finished, problem }
            }
            Ok(Err(error)) => failed(error),
            Err(error) => failed(unsaved(lease, &error)),
        }
    }
}

/// The result as it is sent, unless it is too large for that.
fn signed(
    key: &IdentityKey,
    statement: impl FnOnce(ResultDigest) -> ResultStatement,
    output: JobOutput,
) -> Result<Submission, ErrorBody> {
    let size = serde_json::to_vec(&output).map_or(usize::MAX, |json| json.len());
    if size > SUBMIT_BYTES_MAX - ENVELOPE_BYTES {
        return Err(ErrorBody::new(ErrorCode::TooLarge, "the result is too large to be sent"));
    }
    let statement = statement(output.digest());
    let signature = key.sign(&statement.message());
    Ok(Submission { statement, signature, output })
}

fn unsaved(lease: LeaseId, error: &(dyn std::error::Error + 'static)) -> ErrorBody {
    tracing::error!(lease.id = %lease, error, "a result cannot be saved and is sent unsaved");
    ErrorBody::new(ErrorCode::Internal, format!("a finished result cannot be saved: {error}"))
        .with_hint("check that the disk is not full; a crash now would lose the result")
}

fn deadline_passed(budget_ms: u128) -> ErrorBody {
    let message = format!("the job took longer than its {budget_ms} ms");
    ErrorBody::new(ErrorCode::DeadlinePassed, message)
}

/// The error as the coordinator gets it, and whether the engine must be seen to.
fn blame(error: &EngineError) -> (ErrorBody, bool) {
    let (code, engine) = match error.code {
        EngineErrorCode::ContextTooLong => (ErrorCode::ContextTooLong, false),
        EngineErrorCode::InvalidRequest => (ErrorCode::InvalidRequest, false),
        EngineErrorCode::ModelUnreadable => (ErrorCode::ModelUnreadable, true),
        EngineErrorCode::ModelNotLoaded => (ErrorCode::ModelNotReady, true),
        EngineErrorCode::Busy => (ErrorCode::Overloaded, false),
        EngineErrorCode::OutOfMemory
        | EngineErrorCode::NoSuchDevice
        | EngineErrorCode::NoProgram
        | EngineErrorCode::Cancelled
        | EngineErrorCode::Crashed
        | EngineErrorCode::Internal => (ErrorCode::EngineFailed, true),
    };
    (ErrorBody::new(code, error.message.clone()), engine)
}

/// What helps where a model does not fit.
const MEMORY_HINT: &str = "close other programs that use the memory, or choose a smaller model";

/// What helps where the engine's program cannot be started.
const PROGRAM_HINT: &str = "an antivirus program may have taken it away: restore it from the quarantine and \
                            except the folder of Neurino, or install Neurino again; keys, points and \
                            models stay where they are";

/// Whether a miner needs its person because memory is lacking: that may pass when another program ends.
pub fn lacks_memory(error: &ErrorBody) -> bool {
    error.code == ErrorCode::EngineFailed && error.hint.as_deref() == Some(MEMORY_HINT)
}

/// The same for the window, when loading failed.
pub(crate) fn load_problem(error: &EngineError) -> ErrorBody {
    let body = blame(error).0;
    match error.code {
        EngineErrorCode::ModelUnreadable => body.with_hint("fetch the model again"),
        EngineErrorCode::OutOfMemory => body.with_hint(MEMORY_HINT),
        EngineErrorCode::NoSuchDevice => body.with_hint("choose another device, or `auto`"),
        EngineErrorCode::NoProgram => body.with_hint(PROGRAM_HINT),
        _ => body,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::time::Duration;

    use neurino_engine::MultiEngine;
    use neurino_testkit::ScriptedEngine;

    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        let of = |code| load_problem(&EngineError::new(code, "no room"));
        assert!(lacks_memory(&of(EngineErrorCode::OutOfMemory)));
        assert!(!lacks_memory(&of(EngineErrorCode::NoSuchDevice)));
        assert!(!lacks_memory(&of(EngineErrorCode::Crashed)));
    }

    fn model(name: &str) -> ModelRef {
        ModelRef::new(ModelId::new(name).unwrap(), name)
    }

    /// Whether a model is held within a moment.
    async fn holds<'a>(loaded: &'a Loaded, name: &str) -> Option<Hold<'a>> {
        let model = model(name);
        let held = tokio::time::timeout(Duration::from_millis(50), loaded.hold(&model));
        held.await.ok().map(|held| held.unwrap().1)
    }

    #[tokio::test]
    async fn as_many_models_as_the_engine_has_places_are_held_at_the_same_time() {
        let one = Loaded::new(Arc::new(ScriptedEngine::answering("a")));
        let first = holds(&one, "one").await;
        assert!(first.is_some() && holds(&one, "one").await.is_some());
        assert!(holds(&one, "two").await.is_none(), "a job runs on the first");
        drop(first);
        assert!(holds(&one, "two").await.is_some());

        let engines = ["a", "b"].map(|text| Arc::new(ScriptedEngine::answering(text)));
        let both =
            MultiEngine::new(engines.iter().map(|e| Arc::clone(e) as Arc<dyn Engine>).collect());
        let two = Loaded::new(Arc::new(both));
        let first = holds(&two, "one").await;
        let second = holds(&two, "two").await;
        assert!(first.is_some() && second.is_some());
        assert!(holds(&two, "three").await.is_none(), "both places are in use");
        drop(second);
        assert!(holds(&two, "three").await.is_none(), "the one used last does not give way");
        drop(first);
        for name in ["three", "two", "three"] {
            assert!(holds(&two, name).await.is_some(), "{name}");
        }
        assert_eq!(engines.iter().map(|engine| engine.loads()).sum::<usize>(), 3);
    }
}
