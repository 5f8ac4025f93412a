//! The engine process's own side: the body of the hidden command `neurino engine`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::api::{DeviceChoice, EngineError, EngineStatus, JobEvent, JobStream};
use crate::frame::{self, FrameError, FromChild, ToChild};
use crate::local::LocalEngine;
use crate::tuning;
use crate::warmed::Warming;
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
    serve(|device, warming| LocalEngine::start_with(device, Faults::EndProcess, warming))
}

/// Serves with the engine that `start` makes on the parent's device.
fn serve(
    start: impl FnOnce(DeviceChoice, Warming) -> Result<LocalEngine, EngineError>,
) -> Result<(), FrameError> {
    let output = Output::take().map_err(FrameError::Io)?;
    let mut input = io::stdin().lock();
    let ToChild::Hello { version, device, tunings, warms_all } = frame::read(&mut input)? else {
        return Err(FrameError::Closed);
    };
    // Before anything is asked of a card.
    let warmed = tunings.map(|folder| tuning::keep_in(&folder, device)).unwrap_or_default();
    let engine = start(device, Warming { warmed, all: warms_all });
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
fn tell_progress(engine: &LocalEngine, output: &Output, told: &mut Option<(u64, u8)>) -> bool {
    let EngineStatus::Loading { done_bytes, total_bytes, warm_percent, .. } = engine.status_now()
    else {
        *told = None;
        return true;
    };
    let now = (done_bytes, warm_percent);
    told.replace(now) == Some(now)
        || output.send(&FromChild::Loading { done_bytes, total_bytes, warm_percent })
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
                let answer = self.engine.queue_load(*model);
                tasks.spawn(async move {
                    let result = match answer {
                        Ok(answer) => match answer.await {
                            Ok(result) => result,
                            Err(_) => return no_answer(),
                        },
                        Err(error) => Err(error),
                    };
                    output.send(&FromChild::Loaded { request, result });
                });
            }
            ToChild::Unload { request } => {
                let answer = self.engine.queue_unload();
                tasks.spawn(async move {
                    let result = match answer {
                        Ok(answer) => match answer.await {
                            Ok(unloaded) => Ok(unloaded),
                            Err(_) => return no_answer(),
                        },
                        Err(error) => Err(error),
                    };
                    output.send(&FromChild::Unloaded { request, result });
                });
            }
            ToChild::Run { job, spec } => {
                let cancel = CancellationToken::new();
                match self.engine.queue_run(*spec, cancel.clone()) {
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

/// The engine's thread is gone, and with it in a moment this process: its end is the answer, or else the
/// next request might be sent to a process that does not read any more.
fn no_answer() {
    tracing::error!("the engine's thread has ended");
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

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::api::{Engine, EngineErrorCode};
    use crate::process::{ProcessEngine, ProcessEngineConfig};
    use crate::stand_in::{Fault, Watch, ending, job, model};

    /// Serves as a child on a stand-in card, if it was started as [`config`] says.
    fn serve_on_card(fault: Option<Fault>) {
        // Where the harness does not print.
        let Ok(pipe) = std::fs::OpenOptions::new().write(true).open("/dev/fd/3") else { return };
        rustix::stdio::dup2_stdout(&pipe).unwrap();
        drop(pipe);
        let watch = Watch::new();
        if let Some(fault) = fault {
            watch.fail(fault);
        }
        serve(|_, _| LocalEngine::start_on(vec![watch.card()], Faults::EndProcess)).unwrap();
    }

    #[test]
    #[ignore = "no test: the program that the test below starts first"]
    fn child_with_a_fault() {
        // After the steps of the warm-up, the prompt's and some of the answer's.
        serve_on_card(Some(Fault::Lost { after: 5, panics: false }));
    }

    #[test]
    #[ignore = "no test: a program that a test below starts first"]
    fn child_whose_warm_up_panics() {
        serve_on_card(Some(Fault::WarmUpPanics));
    }

    #[test]
    #[ignore = "no test: a program that a test below starts first"]
    fn child_that_cannot_free() {
        serve_on_card(Some(Fault::FreeingPanics));
    }

    #[test]
    #[ignore = "no test: the program that the tests below start next"]
    fn child_without_a_fault() {
        serve_on_card(None);
    }

    /// This test program as a child: as `first` the first time, then without a fault.
    fn config(first: &str, mark: &std::path::Path) -> ProcessEngineConfig {
        let script = format!(
            "if mkdir '{0}' 2>&-; then t={first}; else t=child_without_a_fault; fi; \
             exec '{1}' --ignored --exact child::tests::$t 3>&1 1>&2",
            mark.display(),
            std::env::current_exe().unwrap().display()
        );
        let mut config = ProcessEngineConfig::new("/bin/sh", ["-c", &script], DeviceChoice::Auto);
        config.limits.first_wait = Duration::from_millis(50);
        config
    }

    #[tokio::test]
    async fn a_fault_of_a_card_ends_its_process_and_the_job_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let sound = LocalEngine::start_on(vec![Watch::new().card()], Faults::Reload).unwrap();
        sound.load(&model()).await.unwrap();
        let stream = sound.run(&job(40), CancellationToken::new()).await.unwrap();
        let expected = ending(stream).await.unwrap();

        let engine =
            ProcessEngine::start(config("child_with_a_fault", &folder.path().join("mark")));
        engine.load(&model()).await.unwrap();
        let first = engine.process_id().unwrap();
        let mut status = engine.status();
        status.mark_unchanged();
        let (one, other) = (job(40), job(400));
        let stream = engine.run(&one, CancellationToken::new()).await.unwrap();
        let waiting = engine.run(&other, CancellationToken::new()).await.unwrap();
        assert_eq!(ending(stream).await.unwrap_err().code, EngineErrorCode::Crashed);
        assert_eq!(ending(waiting).await.unwrap_err().code, EngineErrorCode::Crashed);
        let restarting = |s: &EngineStatus| matches!(s, EngineStatus::Restarting { .. });
        status.wait_for(restarting).await.unwrap();

        let again = engine.run(&one, CancellationToken::new()).await.unwrap();
        assert_eq!(ending(again).await.unwrap(), expected, "tried again, it says the same");
        assert!(engine.process_id().is_some_and(|id| id != first));
        engine.shutdown().await;
    }

    #[tokio::test]
    async fn a_panic_while_a_card_is_loaded_ends_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = config("child_whose_warm_up_panics", &folder.path().join("mark"));
        let engine = ProcessEngine::start(first);
        let error = engine.load(&model()).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::Crashed, "{error}");
        assert!(error.message.contains("ended unexpectedly"), "{error}");
        engine.load(&model()).await.unwrap();
        let stream = engine.run(&job(4), CancellationToken::new()).await.unwrap();
        ending(stream).await.unwrap();
        engine.shutdown().await;
    }

    #[tokio::test]
    async fn a_process_whose_engine_is_gone_does_not_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let engine =
            ProcessEngine::start(config("child_that_cannot_free", &folder.path().join("mark")));
        let mut other = model();
        other.id = neurino_core::ModelId::new("another").unwrap();
        engine.load(&model()).await.unwrap();
        // The first one has to make way.
        let error = engine.load(&other).await.unwrap_err();
        assert_eq!(error.code, EngineErrorCode::Crashed, "{error}");
        engine.load(&other).await.unwrap();
        engine.shutdown().await;
    }
}
