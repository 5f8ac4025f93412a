//! Commands that wait for the engine's thread, in order; a cancelled job leaves without its turn.

use std::collections::VecDeque;

use neurino_core::JobSpec;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{EngineError, EngineErrorCode, LoadedModel, ModelRef};
use crate::outlet::Outlet;

/// Commands that may wait.
pub(crate) const LIMIT: usize = 64;

/// What the handle asks of the thread.
pub(crate) enum Command {
    Load { model: ModelRef, reply: oneshot::Sender<Result<LoadedModel, EngineError>> },
    Unload { reply: oneshot::Sender<()> },
    Run { spec: JobSpec, cancel: CancellationToken, outlet: Outlet },
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

    /// Waits for the next command; `None` when the handle is gone.
    pub(crate) fn next(&mut self) -> Option<Command> {
        self.waiting.pop_front().or_else(|| self.incoming.blocking_recv())
    }

    /// Ends waiting jobs that were cancelled or whose reader is gone. Called between the steps of
    /// the running one.
    pub(crate) fn sweep(&mut self) {
        while self.waiting.len() < LIMIT
            && let Ok(command) = self.incoming.try_recv()
        {
            self.waiting.push_back(command);
        }
        let is_over = |command: &Command| match command {
            Command::Run { cancel, outlet, .. } => cancel.is_cancelled() || outlet.is_closed(),
            Command::Load { .. } | Command::Unload { .. } => false,
        };
        while let Some(at) = self.waiting.iter().position(is_over) {
            if let Some(Command::Run { outlet, .. }) = self.waiting.remove(at) {
                outlet.fail(cancelled());
            }
        }
    }
}

pub(crate) fn cancelled() -> EngineError {
    EngineError::new(EngineErrorCode::Cancelled, "the job was cancelled")
}
