//! One job: load its model if needed, run it within its budget, sign and save the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use neurino_core::{JobOutput, Lease, LeaseId, ModelId, NodeId, ResultStatement, TextDelta};
use neurino_engine::{Engine, EngineError, EngineErrorCode, JobEvent, LoadedModel, ModelRef};
use neurino_protocol::node::{MESSAGE_BYTES_MAX, Submission};
use neurino_protocol::{ErrorBody, ErrorCode};
use neurino_wallet::IdentityKey;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, mpsc};
use tokio_util::sync::CancellationToken;

use crate::outbox::{self, Finished};
use crate::run::{Inside, now_ms};

/// Room that a submission's envelope takes in a message, in bytes.
const ENVELOPE_BYTES: usize = 4 << 10;

/// The engine, and which model it holds. Jobs hold the lock for reading while they run, so that
/// nobody replaces the model below them; loading takes it for writing.
pub(crate) struct Loaded {
    pub(crate) engine: Arc<dyn Engine>,
    model: RwLock<Option<Held>>,
    /// Taken by whoever wants another model than the held one, so that jobs of the same model wait
    /// for one load and not each for one of its own.
    turn: Mutex<()>,
}

/// A model in the engine.
pub(crate) struct Held {
    pub(crate) facts: LoadedModel,
    /// Set by a job that was told otherwise: the engine's process came back without it.
    lost: AtomicBool,
}

/// The model stays in the engine while this lives.
type Hold<'a> = RwLockReadGuard<'a, Option<Held>>;

impl Loaded {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, model: RwLock::new(None), turn: Mutex::new(()) }
    }

    /// Loads a model once no job runs. Free when the engine still holds it.
    pub(crate) async fn load(&self, model: &ModelRef) -> Result<LoadedModel, EngineError> {
        let _turn = self.turn.lock().await;
        self.replace(model).await.map(|held| facts(&held))
    }

    /// Waits until the engine holds the model, and keeps it there while the guard lives.
    async fn hold(&self, model: &ModelRef) -> Result<Hold<'_>, EngineError> {
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

    async fn held(&self, model: &ModelId) -> Option<Hold<'_>> {
        let held = self.model.read().await;
        let fit =
            held.as_ref().is_some_and(|h| h.facts.id == *model && !h.lost.load(Ordering::Acquire));
        fit.then_some(held)
    }

    /// Loads and holds a model; for whoever has the turn.
    async fn replace(&self, model: &ModelRef) -> Result<Hold<'_>, EngineError> {
        let mut held = self.model.write().await;
        *held = None;
        let facts = self.engine.load(model).await?;
        *held = Some(Held { facts, lost: AtomicBool::new(false) });
        // At once, so that nobody loads another one before this is used.
        Ok(held.downgrade())
    }
}

fn facts(held: &Hold<'_>) -> LoadedModel {
    held.as_ref().expect("a guard is handed out only with a model").facts.clone()
}

/// What happened to a job.
pub(crate) enum JobUpdate {
    /// The engine holds its model, which takes so many jobs at once.
    Running { slots: u32 },
    /// More of an answer, and the tokens of all answers so far.
    Delta { delta: TextDelta, tokens: u32 },
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
    pub(crate) network: String,
    pub(crate) node: NodeId,
    pub(crate) received: Instant,
    pub(crate) cancel: CancellationToken,
    pub(crate) loaded: Arc<Loaded>,
    pub(crate) key: Arc<IdentityKey>,
    pub(crate) outbox_dir: std::path::PathBuf,
    pub(crate) events: mpsc::Sender<Inside>,
}

impl JobTask {
    /// Runs to the end and reports it. Cancelling ends it at once, whatever the engine does.
    pub(crate) async fn run(self) {
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
        let held = self.loaded.hold(&self.model).await?;
        self.tell(JobUpdate::Running { slots: facts(&held).slots }).await;
        let computed = self.stream().await;
        if let (Err(error), Some(held)) = (&computed, held.as_ref())
            && error.code == EngineErrorCode::ModelNotLoaded
        {
            held.lost.store(true, Ordering::Release);
        }
        computed
    }

    /// The job in the engine.
    async fn stream(&self) -> Result<JobOutput, EngineError> {
        // Dropping the stream cancels the job in the engine, and so does this token's drop guard.
        let cancel = self.cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let mut stream = self.loaded.engine.run(&self.lease.spec, cancel).await?;
        while let Some(event) = stream.recv().await {
            match event {
                JobEvent::Started { .. } => {}
                JobEvent::Delta { delta, tokens } => {
                    self.tell(JobUpdate::Delta { delta, tokens }).await;
                }
                JobEvent::Finished { output } => return Ok(output),
                JobEvent::Failed { error } => return Err(error),
            }
        }
        Err(EngineError::new(EngineErrorCode::Crashed, "the engine ended without a result"))
    }

    async fn sign_and_save(&self, output: JobOutput) -> JobUpdate {
        let size = serde_json::to_vec(&output).map_or(usize::MAX, |json| json.len());
        if size > MESSAGE_BYTES_MAX - ENVELOPE_BYTES {
            let error = ErrorBody::new(ErrorCode::TooLarge, "the result is too large to be sent");
            return JobUpdate::Failed { error, engine: false };
        }
        let statement = ResultStatement {
            job: self.lease.job,
            lease: self.lease.id,
            fence: self.lease.fence,
            node: self.node.clone(),
            digest: output.digest(),
        };
        let signature = self.key.sign(&statement.message());
        let submission = Submission { statement, signature, output };
        let finished = Box::new(Finished::new(self.network.clone(), now_ms(), submission));
        let (dir, copy) = (self.outbox_dir.clone(), finished.clone());
        let saved = tokio::task::spawn_blocking(move || outbox::save(&dir, &copy)).await;
        let problem = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(unsaved(self.lease.id, &error)),
            Err(error) => Some(unsaved(self.lease.id, &error)),
        };
        JobUpdate::Finished { finished, problem }
    }
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
        | EngineErrorCode::Cancelled
        | EngineErrorCode::Crashed
        | EngineErrorCode::Internal => (ErrorCode::EngineFailed, true),
    };
    (ErrorBody::new(code, error.message.clone()), engine)
}

/// The same for the window, when loading failed.
pub(crate) fn load_problem(error: &EngineError) -> ErrorBody {
    let body = blame(error).0;
    match error.code {
        EngineErrorCode::ModelUnreadable => body.with_hint("fetch the model again"),
        EngineErrorCode::OutOfMemory => {
            body.with_hint("close other programs that use the memory, or choose a smaller model")
        }
        EngineErrorCode::NoSuchDevice => body.with_hint("choose another device, or `auto`"),
        _ => body,
    }
}
