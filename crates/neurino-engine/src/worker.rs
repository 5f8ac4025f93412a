//! The engine's thread: owns the model, runs commands in order, survives panics below it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use neurino_core::{JobOutput, JobSpec, TextDelta, TextJob, TextOutput};
use neurino_llm::chat::ChatTemplate;
use neurino_llm::generate::{GenerateError, Step, generate};
use neurino_llm::model::LanguageModel;
use neurino_llm::source::{ModelArch, ModelSource};
use neurino_llm::tokenizer::Tokenizer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{EngineError, EngineErrorCode, EngineStatus, LoadedModel, ModelRef};
use crate::outlet::Outlet;
use crate::queue::{Command, Queue};

/// A model in memory with everything a job needs.
struct Loaded {
    reference: ModelRef,
    facts: LoadedModel,
    model: LanguageModel,
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

/// The thread's state.
pub(crate) struct Worker {
    queue: RefCell<Queue>,
    device: Device,
    device_name: String,
    status: watch::Sender<EngineStatus>,
    steps: Arc<AtomicU64>,
    end: CancellationToken,
    loaded: Option<Loaded>,
}

impl Worker {
    pub(crate) fn new(
        queue: Queue,
        device: Device,
        device_name: String,
        status: watch::Sender<EngineStatus>,
        steps: Arc<AtomicU64>,
        end: CancellationToken,
    ) -> Self {
        let queue = RefCell::new(queue);
        Self { queue, device, device_name, status, steps, end, loaded: None }
    }

    /// Serves commands in order until the handle is gone.
    pub(crate) fn run(mut self) {
        loop {
            let Some(command) = self.queue.get_mut().next() else { return };
            if self.end.is_cancelled() {
                return;
            }
            // A caller that is gone does not need its answer.
            match command {
                Command::Load { model, reply } => drop(reply.send(self.load(model))),
                Command::Unload { reply } => {
                    self.forget();
                    let _ = reply.send(());
                }
                Command::Run { spec, cancel, outlet } => self.job(&spec, &cancel, outlet),
            }
        }
    }

    fn forget(&mut self) {
        if self.loaded.take().is_some() {
            self.device.memory_cleanup();
        }
        self.status.send_replace(EngineStatus::Idle);
    }

    fn load(&mut self, model: ModelRef) -> Result<LoadedModel, EngineError> {
        if let Some(loaded) = self.loaded.as_ref().filter(|l| l.reference == model) {
            return Ok(loaded.facts.clone());
        }
        // Two models need not fit: the old one goes first.
        self.forget();
        self.status.send_replace(EngineStatus::Loading { model: model.id.clone() });
        match guarded("loading the model", || self.read(model)).flatten() {
            Ok(loaded) => {
                let facts = loaded.facts.clone();
                self.loaded = Some(loaded);
                self.status.send_replace(EngineStatus::Ready(facts.clone()));
                Ok(facts)
            }
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }

    fn read(&self, reference: ModelRef) -> Result<Loaded, EngineError> {
        let started = Instant::now();
        let source = ModelSource::open(&reference.path).map_err(unreadable)?;
        let tokenizer = Tokenizer::open(&source.tokenizer, &source.eos).map_err(unreadable)?;
        let template = ChatTemplate::open(&source, &tokenizer).map_err(unreadable)?;
        let step = |_, _| {
            self.steps.fetch_add(1, Ordering::Relaxed);
        };
        let model = LanguageModel::load(&source, &self.device, &step).map_err(unreadable)?;
        let facts = LoadedModel {
            id: reference.id.clone(),
            arch: match source.arch {
                ModelArch::Llama => "llama".into(),
            },
            device: self.device_name.clone(),
            context_tokens: u32::try_from(model.context_tokens()).unwrap_or(u32::MAX),
            slots: 1,
            weights_bytes: model.weights_bytes(),
            load_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Loaded { reference, facts, model, tokenizer, template })
    }

    fn job(&mut self, spec: &JobSpec, cancel: &CancellationToken, mut outlet: Outlet) {
        let JobSpec::Text(job) = spec;
        let Some(loaded) = self.loaded.as_ref().filter(|l| l.reference.id == job.model) else {
            return outlet.fail(EngineError::not_loaded(&job.model));
        };
        match guarded("the job", || self.text(loaded, job, cancel, &mut outlet)) {
            Ok(Ok(output)) => outlet.finish(JobOutput::Text(output)),
            Ok(Err(error)) => outlet.fail(from_generate(&error)),
            Err(fault) => {
                // What the panic left behind is not trusted: the model must be loaded again.
                self.forget();
                outlet.fail(fault);
            }
        }
    }

    fn text(
        &self,
        loaded: &Loaded,
        job: &TextJob,
        cancel: &CancellationToken,
        outlet: &mut Outlet,
    ) -> Result<TextOutput, GenerateError> {
        let closed = outlet.watch();
        let stop = || {
            self.steps.fetch_add(1, Ordering::Relaxed);
            self.queue.borrow_mut().sweep();
            cancel.is_cancelled() || closed.is_closed() || self.end.is_cancelled()
        };
        let mut emit = |step: Step<'_>| match step {
            Step::Prompt { tokens } => outlet.started(tokens),
            Step::Text { text, tokens } => outlet.delta(TextDelta::text(text), tokens),
        };
        let now = jiff::Zoned::now();
        let Loaded { model, tokenizer, template, .. } = loaded;
        generate(model, tokenizer, template, job, &now, &stop, &mut emit)
    }
}

fn unreadable(error: impl std::error::Error) -> EngineError {
    EngineError::new(EngineErrorCode::ModelUnreadable, chain(&error))
}

fn from_generate(error: &GenerateError) -> EngineError {
    let code = match error {
        GenerateError::Cancelled => EngineErrorCode::Cancelled,
        GenerateError::ContextTooLong { .. } => EngineErrorCode::ContextTooLong,
        GenerateError::Chat(_) | GenerateError::InvalidJob(_) => EngineErrorCode::InvalidRequest,
        GenerateError::Tokenizer(_) | GenerateError::Model(_) | GenerateError::NoLogits => {
            EngineErrorCode::Internal
        }
    };
    EngineError::new(code, chain(error))
}

/// An error with its causes, which do not cross the process boundary by themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Runs something that may panic, and turns a panic into an error.
fn guarded<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, EngineError> {
    // Whoever gets the error drops what the work had borrowed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| from_panic(doing, &*panic))
}

fn from_panic(doing: &str, panic: &(dyn Any + Send)) -> EngineError {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    let lower = words.to_lowercase();
    if lower.contains("out of memory") || lower.contains("outofmemory") {
        let message = format!("the device ran out of memory while {doing} was under way");
        return EngineError::new(EngineErrorCode::OutOfMemory, message);
    }
    EngineError::internal(format!("a fault ended {doing}: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_of_its_kind() {
        let code = |words: &'static str| {
            guarded("the job", || std::panic::resume_unwind(Box::new(words)))
                .map_or_else(|e: EngineError| e.code, |()| EngineErrorCode::Cancelled)
        };
        assert_eq!(code("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), EngineErrorCode::OutOfMemory);
        assert_eq!(code("index out of bounds"), EngineErrorCode::Internal);
        assert_eq!(from_panic("the job", &7_u8).code, EngineErrorCode::Internal);
        assert_eq!(guarded("the job", || 5), Ok(5));
    }
}
