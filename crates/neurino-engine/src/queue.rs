//! Commands that wait for the engine's thread, in order; a cancelled job leaves without its turn.

use std::collections::VecDeque;

use neurino_core::JobSpec;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{EngineError, EngineErrorCode, LoadedModel, ModelRef};
use crate::outlet::Outlet;

/// Jobs an engine takes before it is busy, waiting ones included.
pub(crate) const JOBS_LIMIT: usize = 256;
/// Commands on their way to the thread: all jobs, and some loads and unloads.
pub(crate) const LIMIT: usize = JOBS_LIMIT + 32;

/// What the handle asks of the thread.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are jobs")]
pub(crate) enum Command {
    Load { model: ModelRef, reply: oneshot::Sender<Result<LoadedModel, EngineError>> },
    Unload { reply: oneshot::Sender<()> },
    Run(Job),
}

/// A job and its way out.
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) cancel: CancellationToken,
    pub(crate) outlet: Outlet,
    /// One of [`JOBS_LIMIT`].
    pub(crate) place: OwnedSemaphorePermit,
}

impl Job {
    /// Whether nobody wants it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.outlet.is_closed()
    }

    /// [`Job::is_over`] for those who compute it; they let go of it before the job ends.
    pub(crate) fn watch(&self) -> impl Fn() -> bool + Send + use<> {
        let (cancel, reader) = (self.cancel.clone(), self.outlet.watch());
        move || cancel.is_cancelled() || reader.is_closed()
    }
}

/// The thread's end of the queue.
pub(crate) struct Queue {
    incoming: mpsc::Receiver<Command>,
    waiting: VecDeque<Command>,
}

impl Queue {
    pub(crate) fn new(incoming: mpsc::Receiver<Command>) -> Self {
        Self { incoming, waiting: VecDeque::new() }
    }

    /// Sleeps until there is a command; `false` when the handle is gone.
    pub(crate) fn wait(&mut self) -> bool {
        if self.waiting.is_empty()
            && let Some(command) = self.incoming.blocking_recv()
        {
            self.waiting.push_back(command);
        }
        !self.waiting.is_empty()
    }

    /// Takes in what has arrived, and ends waiting jobs that nobody wants any more.
    pub(crate) fn sweep(&mut self) {
        while let Ok(command) = self.incoming.try_recv() {
            self.waiting.push_back(command);
        }
        let is_over = |command: &Command| matches!(command, Command::Run(job) if job.is_over());
        while let Some(at) = self.waiting.iter().position(is_over) {
            if let Some(Command::Run(job)) = self.waiting.remove(at) {
                job.outlet.fail(cancelled());
            }
        }
    }

    /// The command whose turn it is.
    pub(crate) fn first(&self) -> Option<&Command> {
        self.waiting.front()
    }

    /// Takes the command whose turn it is.
    pub(crate) fn take(&mut self) -> Option<Command> {
        self.waiting.pop_front()
    }

    /// Puts jobs back before all that wait, in their order.
    pub(crate) fn put_back(&mut self, jobs: Vec<Job>) {
        jobs.into_iter().rev().for_each(|job| self.waiting.push_front(Command::Run(job)));
    }

    /// Whether an unload waits.
    pub(crate) fn has_unload(&self) -> bool {
        self.waiting.iter().any(|command| matches!(command, Command::Unload { .. }))
    }

    /// Jobs that wait.
    pub(crate) fn jobs(&self) -> usize {
        self.waiting.iter().filter(|command| matches!(command, Command::Run(_))).count()
    }
}

pub(crate) fn cancelled() -> EngineError {
    EngineError::new(EngineErrorCode::Cancelled, "the job was cancelled")
}

pub(crate) fn busy() -> EngineError {
    let message = format!("the engine has {JOBS_LIMIT} jobs already; try later");
    EngineError::new(EngineErrorCode::Busy, message)
}
