//! Prepares text jobs beside the engine's thread: no running answer waits while a long conversation
//! is cut into tokens, or a large schema becomes a grammar.
//!
//! One thread for a loaded model takes the jobs in their order. Its owner is the engine's thread,
//! which hears of what is ready between two steps; a job that nobody wants any more leaves at once,
//! and what is still being made of it is thrown away.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use neurino_core::{JobSpec, TextJob};
use neurino_llm::chat::prompt_date;
use neurino_llm::serving::{Prepared, Preparer, RequestId};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::EngineError;
use crate::fault::guarded;
use crate::queue::{self, JOBS_LIMIT, Job};
use crate::serving::from_generate;

/// Orders that may lie before the thread: as many as there are jobs, and again as many that were
/// cancelled while they lay there.
const ORDERS: usize = 2 * JOBS_LIMIT;
/// How long the engine sleeps at most when jobs are being prepared and nothing is computed. The end of
/// a preparation wakes it; a new command or a cancelled job is seen after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A job to prepare.
struct Order {
    id: RequestId,
    text: TextJob,
    cancel: CancellationToken,
}

/// What became of it.
type Made = (RequestId, Result<Prepared, EngineError>);

/// The jobs that are being prepared, and the thread that does it.
pub(crate) struct Preparation {
    orders: SyncSender<Order>,
    made: Receiver<Made>,
    /// By arrival.
    waiting: BTreeMap<RequestId, Job>,
    _end: DropGuard,
}

impl Preparation {
    /// Starts the thread, for jobs of the calling one. It ends soon after this is dropped: what it is
    /// making then is made first, which takes seconds at the very most.
    ///
    /// # Errors
    /// `Internal` if the system gives no thread.
    pub(crate) fn start(preparer: Preparer) -> Result<Self, EngineError> {
        let ((orders, incoming), (outgoing, made)) = (sync_channel(ORDERS), sync_channel(ORDERS));
        let (end, engine) = (CancellationToken::new(), std::thread::current());
        let ended = end.clone();
        std::thread::Builder::new()
            .name("preparation".into())
            .spawn(move || prepare_all(&preparer, &incoming, &outgoing, &ended, &engine))
            .map_err(|e| EngineError::internal(format!("no thread could be started: {e}")))?;
        Ok(Self { orders, made, waiting: BTreeMap::new(), _end: end.drop_guard() })
    }

    /// Has a job prepared whose text is `text`. Gives it back, with the reason, if that cannot be: if there
    /// are too many.
    pub(crate) fn order(
        &mut self,
        id: RequestId,
        text: TextJob,
        job: Job,
    ) -> Option<(Job, EngineError)> {
        let cancel = job.cancel.clone();
        match self.orders.try_send(Order { id, text, cancel }) {
            Ok(()) => {
                self.waiting.insert(id, job);
                None
            }
            Err(TrySendError::Full(_)) => Some((job, queue::busy())),
            Err(TrySendError::Disconnected(_)) => {
                Some((job, EngineError::internal("the thread that reads jobs has ended")))
            }
        }
    }

    /// A job that is ready, if there is one, and what it became.
    pub(crate) fn next(&mut self) -> Option<(RequestId, Job, Result<Prepared, EngineError>)> {
        loop {
            let (id, made) = self.made.try_recv().ok()?;
            // Without a job nobody wants it any more.
            if let Some(job) = self.waiting.remove(&id) {
                return Some((id, job, made));
            }
        }
    }

    /// Sleeps until something may be ready, or for a moment.
    pub(crate) fn wait(&self) {
        if !self.waiting.is_empty() {
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Takes out the jobs that nobody wants any more.
    pub(crate) fn sweep(&mut self) -> Vec<Job> {
        let over = self.waiting.extract_if(.., |_, job| job.is_over());
        over.map(|(_, job)| job).collect()
    }

    /// Takes out all jobs, in their order.
    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Jobs that are being prepared.
    pub(crate) fn jobs(&self) -> usize {
        self.waiting.len()
    }
}

/// The thread's life.
fn prepare_all(
    preparer: &Preparer,
    orders: &Receiver<Order>,
    made: &SyncSender<Made>,
    end: &CancellationToken,
    engine: &Thread,
) {
    for Order { id, text, cancel } in orders {
        if end.is_cancelled() {
            return;
        }
        if cancel.is_cancelled() {
            continue;
        }
        #[cfg(test)]
        crate::stand_in::wait_while_held(&text);
        let prepare = || preparer.prepare(&text, &prompt_date()).map_err(|e| from_generate(&e));
        // A panic over one job costs that job alone: it has touched nothing of the model.
        let prepared = guarded("reading the job", prepare).flatten();
        if made.send((id, prepared)).is_err() {
            return;
        }
        engine.unpark();
    }
}

/// The text of a job, if that is what it asks for.
pub(crate) fn text_of(spec: &JobSpec) -> Option<&TextJob> {
    match spec {
        JobSpec::Text(text) => Some(text),
        JobSpec::Image(_) => None,
    }
}
