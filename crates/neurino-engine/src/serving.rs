//! The jobs of a loaded model: what goes into its [`Runner`] and comes out of it, and who gets it.

use std::collections::BTreeMap;

use neurino_core::{JobOutput, JobSpec, TextOutput};
use neurino_llm::chat::ChatTemplate;
use neurino_llm::model::LanguageModel;
use neurino_llm::serving::{GenerateError, RequestId, Runner, RunnerEvent, ServingLimits};
use neurino_llm::tokenizer::Tokenizer;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::api::{EngineCounters, EngineError, EngineErrorCode};
use crate::fault;
use crate::outlet::Outlet;
use crate::queue::{self, Job};

/// A model that serves.
pub(crate) struct Serving {
    runner: Runner,
    limits: ServingLimits,
    steps: Steps,
    jobs: BTreeMap<RequestId, Running>,
    last_id: u64,
}

/// What a model's steps look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// As they come: on a CPU.
    AsTheyCome,
    /// Filled up to the shapes that were warmed up: on a card.
    InShapes,
}

/// A model and what makes text of its tokens.
pub(crate) type Parts = (LanguageModel, Tokenizer, ChatTemplate);

struct Running {
    cancel: CancellationToken,
    outlet: Outlet,
    place: OwnedSemaphorePermit,
}

/// A job that has ended; its reader is told with [`Ended::tell`], after the counters were published.
pub(crate) struct Ended {
    outlet: Outlet,
    place: OwnedSemaphorePermit,
    result: Result<JobOutput, EngineError>,
}

impl Ended {
    /// The end of a job.
    pub(crate) fn of(job: Job, result: Result<JobOutput, EngineError>) -> Self {
        Self { outlet: job.outlet, place: job.place, result }
    }

    fn of_text(job: Running, result: Result<TextOutput, EngineError>) -> Self {
        let result = result.map(JobOutput::Text);
        Self { outlet: job.outlet, place: job.place, result }
    }

    /// What the device is to blame for: a lack of memory, or a fault.
    pub(crate) fn fault(&self) -> Option<&EngineError> {
        let of_device = [EngineErrorCode::OutOfMemory, EngineErrorCode::Crashed];
        self.result.as_ref().err().filter(|error| of_device.contains(&error.code))
    }

    /// Sends the last event.
    pub(crate) fn tell(self) {
        // Whoever hears of the end may come with the next job at once.
        drop(self.place);
        match self.result {
            Ok(output) => self.outlet.finish(output),
            Err(error) => self.outlet.fail(error),
        }
    }
}

impl Serving {
    pub(crate) fn new(parts: Parts, limits: ServingLimits, steps: Steps) -> Self {
        let (model, tokenizer, template) = parts;
        let runner = match steps {
            Steps::AsTheyCome => Runner::new(model, tokenizer, template, limits),
            Steps::InShapes => Runner::in_shapes(model, tokenizer, template, limits),
        };
        Self { runner, limits, steps, jobs: BTreeMap::new(), last_id: 0 }
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Takes a job on, or refuses it.
    pub(crate) fn begin(&mut self, job: Job) -> Option<Ended> {
        let Job { spec, cancel, outlet, place } = job;
        let job = Running { cancel, outlet, place };
        let JobSpec::Text(text) = &spec else {
            let words = format!("model `{}` writes text, it makes no pictures", spec.model());
            let refused = EngineError::new(EngineErrorCode::InvalidRequest, words);
            return Some(Ended::of_text(job, Err(refused)));
        };
        self.last_id += 1;
        let id = RequestId(self.last_id);
        match self.runner.submit(id, text, &jiff::Zoned::now()) {
            Ok(admitted) => {
                job.outlet.started(admitted.prompt_tokens);
                self.jobs.insert(id, job);
                None
            }
            Err(error) => Some(Ended::of_text(job, Err(from_generate(&error)))),
        }
    }

    /// Ends the jobs that nobody wants any more; their memory is free.
    pub(crate) fn sweep(&mut self) -> Vec<Ended> {
        let is_over = |job: &Running| job.cancel.is_cancelled() || job.outlet.is_closed();
        let over: Vec<_> =
            self.jobs.iter().filter(|(_, job)| is_over(job)).map(|(id, _)| *id).collect();
        over.into_iter().filter_map(|id| self.end(id, Err(queue::cancelled()))).collect()
    }

    /// Computes the next tokens. `computed` is called before anybody hears of them.
    pub(crate) fn step(&mut self, computed: impl FnOnce(EngineCounters)) -> Vec<Ended> {
        let mut ended = Vec::new();
        let events = self.runner.step();
        computed(self.counters());
        for event in events {
            match event {
                RunnerEvent::Delta { id, delta, tokens } => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.outlet.delta(delta, tokens);
                    }
                }
                RunnerEvent::Finished { id, output } => ended.extend(self.end(id, Ok(output))),
                RunnerEvent::Failed { id, error } => {
                    ended.extend(self.end(id, Err(from_generate(&error))));
                }
            }
        }
        ended
    }

    fn end(&mut self, id: RequestId, result: Result<TextOutput, EngineError>) -> Option<Ended> {
        self.runner.cancel(id);
        self.jobs.remove(&id).map(|job| Ended::of_text(job, result))
    }

    /// Fails all jobs, because what they were computed with is lost.
    pub(crate) fn fail_all(&mut self, error: &EngineError) -> Vec<Ended> {
        let jobs = std::mem::take(&mut self.jobs).into_values();
        jobs.map(|job| Ended::of_text(job, Err(error.clone()))).collect()
    }

    /// A new cache that needs about three quarters of the memory, and half of the rows in a step.
    /// Jobs must have ended. `None` if that would be too little to be of use.
    pub(crate) fn smaller(self) -> Option<Self> {
        let limits = ServingLimits {
            n_blocks: self.limits.n_blocks * 3 / 4,
            rows_per_step: self.limits.rows_per_step / 2,
            sequences_max: self.limits.sequences_max,
        };
        if limits.n_blocks < BLOCKS_MIN || limits.rows_per_step < ROWS_MIN {
            return None;
        }
        // The old cache's memory first.
        let parts = self.runner.into_parts();
        parts.0.device().memory_cleanup();
        Some(Self::new(parts, limits, self.steps))
    }

    /// Memory of the cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.runner.model().block_bytes() * self.limits.n_blocks as u64
    }

    /// What the runner counts.
    pub(crate) fn counters(&self) -> EngineCounters {
        let scheduler = self.runner.counters().scheduler;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        EngineCounters {
            jobs: count(self.jobs.len()),
            sequences_running: count(scheduler.running),
            sequences_waiting: count(scheduler.waiting),
            blocks_used: count(scheduler.blocks.used),
            blocks_cached: count(scheduler.blocks.cached),
            blocks_free: count(scheduler.blocks.free),
            prefix_hits: scheduler.blocks.hits,
            preemptions: scheduler.preemptions,
            steps: 0,
        }
    }
}

/// Below these a smaller cache serves nobody.
const BLOCKS_MIN: usize = 32;
const ROWS_MIN: usize = 32;

fn from_generate(error: &GenerateError) -> EngineError {
    let words = fault::chain(error);
    let code = match error {
        GenerateError::ContextTooLong { .. } | GenerateError::CacheTooSmall { .. } => {
            EngineErrorCode::ContextTooLong
        }
        GenerateError::Chat(_) | GenerateError::InvalidJob(_) | GenerateError::Guide(_) => {
            EngineErrorCode::InvalidRequest
        }
        GenerateError::Model(error) => return fault::from_model(error, words),
        GenerateError::Tokenizer(_) | GenerateError::NoLogits => EngineErrorCode::Internal,
    };
    EngineError::new(code, words)
}
