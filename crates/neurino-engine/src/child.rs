//! The engine process's own side: the body of the hidden command `neurino engine`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::api::{EngineError, EngineStatus, JobEvent, JobStream};
use crate::frame::{self, FrameError, FromChild, ToChild};
use crate::local::LocalEngine;
use crate::worker::Faults;

/// How often the process says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Serves frames from standard input on standard output until the input closes.
///
/// The device comes with the parent's hello. Return from `main` right after it: work that is still
/// under way is given up, so that nothing outlives a parent that was killed. Call it outside any
/// async runtime.
///
/// # Errors
/// A frame that cannot be read, or a parent that speaks another version.
pub fn run_child() -> Result<(), FrameError> {
    let output = Output::take().map_err(FrameError::Io)?;
    let mut input = io::stdin().lock();
    let ToChild::Hello { version, device } = frame::read(&mut input)? else {
        return Err(FrameError::Closed);
    };
    let engine = LocalEngine::start_with(device, Faults::EndProcess);
    let hello = engine.as_ref().map(|e| e.device().to_owned()).map_err(Clone::clone);
    output.send(&FromChild::Hello { version: frame::VERSION, device: hello });
    let Ok(engine) = engine else { return Ok(()) };
    if version != frame::VERSION {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .map_err(FrameError::Io)?;
    let engine = Arc::new(engine);
    std::thread::spawn({
        let (engine, output) = (Arc::clone(&engine), output.clone());
        move || {
            let mut progress = None;
            while output.send(&FromChild::Heartbeat { steps: engine.steps() })
                && tell_progress(&engine, &output, &mut progress)
            {
                std::thread::sleep(HEARTBEAT);
            }
        }
    });
    let mut parent = Parent { engine, output, cancels: HashMap::new() };
    let result = parent.serve(&mut input, &runtime);
    runtime.shutdown_background();
    match result {
        Err(FrameError::Closed) => Ok(()),
        other => other,
    }
}

/// Passes on how far a load is, if that changed. `false` when the parent is gone.
fn tell_progress(engine: &LocalEngine, output: &Output, told: &mut Option<u64>) -> bool {
    let EngineStatus::Loading { done_bytes, total_bytes, .. } = engine.status_now() else {
        *told = None;
        return true;
    };
    told.replace(done_bytes) == Some(done_bytes)
        || output.send(&FromChild::Loading { done_bytes, total_bytes })
}

/// What the parent asked for and was not answered yet.
struct Parent {
    engine: Arc<LocalEngine>,
    output: Output,
    cancels: HashMap<u64, CancellationToken>,
}

impl Parent {
    fn serve(&mut self, input: &mut impl io::Read, runtime: &Runtime) -> Result<(), FrameError> {
        loop {
            let message = frame::read(input)?;
            self.cancels.retain(|_, cancel| !cancel.is_cancelled());
            self.act(message, runtime.handle());
        }
    }

    /// Queues what a frame asks for, in the order of the frames, and lets a task answer it.
    fn act(&mut self, message: ToChild, tasks: &Handle) {
        let output = self.output.clone();
        match message {
            ToChild::Hello { .. } => tracing::warn!("the parent said hello twice"),
            ToChild::Load { request, model } => {
                let answer = self.engine.queue_load(model);
                tasks.spawn(async move {
                    let result = match answer {
                        Ok(answer) => answer.await.unwrap_or_else(|_| Err(thread_ended())),
                        Err(error) => Err(error),
                    };
                    output.send(&FromChild::Loaded { request, result });
                });
            }
            ToChild::Unload { request } => {
                let answer = self.engine.queue_unload();
                tasks.spawn(async move {
                    let result = match answer {
                        Ok(answer) => answer.await.map_err(|_| thread_ended()),
                        Err(error) => Err(error),
                    };
                    output.send(&FromChild::Unloaded { request, result });
                });
            }
            ToChild::Run { job, spec } => {
                let cancel = CancellationToken::new();
                match self.engine.queue_run(spec, cancel.clone()) {
                    Ok(stream) => {
                        self.cancels.insert(job, cancel.clone());
                        tasks.spawn(forward(job, stream, output, cancel));
                    }
                    Err(error) => {
                        output.send(&FromChild::Job { job, event: JobEvent::Failed { error } });
                    }
                }
            }
            ToChild::Count { request } => {
                let counters = self.engine.counters_now();
                output.send(&FromChild::Counted { request, counters });
            }
            ToChild::Cancel { job } => {
                if let Some(cancel) = self.cancels.get(&job) {
                    cancel.cancel();
                }
            }
        }
    }
}

/// Passes a job's events on. Cancels its token at the end, which is how [`Parent`] forgets it.
async fn forward(job: u64, mut stream: JobStream, output: Output, over: CancellationToken) {
    while let Some(event) = stream.recv().await {
        output.send(&FromChild::Job { job, event });
    }
    over.cancel();
}

fn thread_ended() -> EngineError {
    EngineError::internal("the engine's thread has ended")
}

/// The pipe to the parent, shared by everything that has something to say.
#[derive(Clone)]
struct Output {
    pipe: Arc<Mutex<Box<dyn Write + Send>>>,
}

impl Output {
    /// Takes standard output for frames alone: whatever else is printed there goes to standard
    /// error from now on.
    #[cfg(unix)]
    fn take() -> io::Result<Self> {
        use std::os::fd::AsFd;
        let pipe = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self { pipe: Arc::new(Mutex::new(Box::new(pipe))) })
    }

    /// Takes standard output for frames. Nothing here or below prints; a library that does would
    /// show as a frame that cannot be read, and the parent would start anew.
    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "it can fail on the other systems")]
    fn take() -> io::Result<Self> {
        Ok(Self { pipe: Arc::new(Mutex::new(Box::new(io::stdout()))) })
    }

    /// Sends a frame. `false` when the parent is gone, which the input shows as well.
    fn send(&self, message: &FromChild) -> bool {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        match frame::write(&mut *pipe, message) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("a frame could not be sent: {error}");
                false
            }
        }
    }
}
