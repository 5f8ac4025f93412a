//! The jobs of a loaded model: what goes into its [`Runner`] and comes out of it, and who gets it.

use std::collections::BTreeMap;

use neurino_core::{JobOutput, TextOutput};
use neurino_llm::chat::ChatTemplate;
use neurino_llm::checkpoint::Precision;
use neurino_llm::model::LanguageModel;
use neurino_llm::serving::{GenerateError, RequestId, Runner, RunnerEvent, ServingLimits};
use neurino_llm::tokenizer::Tokenizer;
use neurino_nn::paged::PagedKvCache;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::api::{EngineCounters, EngineError, EngineErrorCode};
use crate::fault;
use crate::outlet::Outlet;
use crate::preparation::{Preparation, text_of};
use crate::queue::{self, Job};

/// A model that serves.
pub(crate) struct Serving {
    runner: Runner,
    limits: ServingLimits,
    steps: Steps,
    preparation: Preparation,
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
    /// For jobs of the calling thread, with an empty `cache` of the blocks of `limits`.
    ///
    /// # Errors
    /// `Internal` if there is no thread to prepare jobs on.
    pub(crate) fn with_cache(
        (model, tokenizer, template): Parts,
        limits: ServingLimits,
        steps: Steps,
        cache: PagedKvCache,
    ) -> Result<Self, EngineError> {
        let in_shapes = steps == Steps::InShapes;
        let runner = Runner::with_cache(model, tokenizer, template, limits, in_shapes, cache);
        let preparation = Preparation::start(runner.preparer().clone())?;
        Ok(Self { runner, limits, steps, preparation, jobs: BTreeMap::new(), last_id: 0 })
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.preparation.jobs() == 0
    }

    /// Takes a job on, or refuses it.
    pub(crate) fn begin(&mut self, job: Job) -> Option<Ended> {
        let Some(text) = text_of(&job.spec).cloned() else {
            let words = format!("model `{}` writes text, it makes no pictures", job.spec.model());
            let refused = EngineError::new(EngineErrorCode::InvalidRequest, words);
            return Some(Ended::of(job, Err(refused)));
        };
        self.last_id += 1;
        let refused = self.preparation.order(RequestId(self.last_id), text, job);
        refused.map(|(job, error)| Ended::of(job, Err(error)))
    }

    /// Hands the jobs that are ready to the model, in the order in which they became so.
    fn admit(&mut self) -> Vec<Ended> {
        let mut refused = Vec::new();
        while let Some((id, job, prepared)) = self.preparation.next() {
            let admitted = prepared.and_then(|prepared| {
                self.runner.take_on(id, prepared).map_err(|error| from_generate(&error))
            });
            match admitted {
                Ok(admitted) => {
                    let Job { cancel, outlet, place, .. } = job;
                    outlet.started(admitted.prompt_tokens);
                    self.jobs.insert(id, Running { cancel, outlet, place });
                }
                Err(error) => refused.push(Ended::of(job, Err(error))),
            }
        }
        refused
    }

    /// Ends the jobs that nobody wants any more; their memory is free.
    pub(crate) fn sweep(&mut self) -> Vec<Ended> {
        let is_over = |job: &Running| job.cancel.is_cancelled() || job.outlet.is_closed();
        let over: Vec<_> =
            self.jobs.iter().filter(|(_, job)| is_over(job)).map(|(id, _)| *id).collect();
        let unready = self.preparation.sweep().into_iter();
        let unready =
            unready.map(|job| Ended::of(job, Err(queue::cancelled()))).collect::<Vec<_>>();
        over.into_iter()
            .filter_map(|id| self.end(id, Err(queue::cancelled())))
            .chain(unready)
            .collect()
    }

    /// Computes the next tokens. `computed` is called before anybody hears of them. Where all jobs are
    /// still being prepared, waits for that, or for a moment.
    pub(crate) fn step(&mut self, computed: impl FnOnce(EngineCounters)) -> Vec<Ended> {
        let mut ended = self.admit();
        if self.runner.is_idle() {
            if ended.is_empty() {
                self.preparation.wait();
            }
            return ended;
        }
        let events = self.runner.step();
        computed(self.counters());
        for event in events {
            match event {
                RunnerEvent::Delta { id, delta, tokens } => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.outlet.delta(delta, tokens);
                    }
                }
                RunnerEvent::Finished { id, mut output } => {
                    output.precision = self.runner.model().precision().map(Precision::of_result);
                    ended.extend(self.end(id, Ok(output)));
                }
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

    /// Takes out the jobs that have not begun, in their order: they have lost nothing.
    pub(crate) fn take_unready(&mut self) -> Vec<Job> {
        self.preparation.take_all()
    }

    /// Fails all jobs that have begun, because what they were computed with is lost.
    pub(crate) fn fail_all(&mut self, error: &EngineError) -> Vec<Ended> {
        let jobs = std::mem::take(&mut self.jobs).into_values();
        jobs.map(|job| Ended::of_text(job, Err(error.clone()))).collect()
    }

    /// A new cache that needs about three quarters of the memory, and half of the rows in a step; less
    /// where there is no memory for that. Jobs must have ended. `None` if that would be too little to be
    /// of use.
    ///
    /// # Errors
    /// `Crashed` if something else than memory failed.
    pub(crate) fn smaller(self) -> Result<Option<Self>, EngineError> {
        let Self { runner, limits, steps, .. } = self;
        // The old cache's memory first.
        let parts = runner.into_parts();
        let mut next = smaller(&limits);
        while let Some(less) = next {
            parts.0.device().memory_cleanup();
            let make = || parts.0.new_cache(less.n_blocks);
            match fault::guarded_on_device("making a cache", make) {
                Ok(cache) => return Ok(Self::with_cache(parts, less, steps, cache).ok()),
                Err(error) if error.code != EngineErrorCode::OutOfMemory => return Err(error),
                Err(_) => next = smaller(&less),
            }
        }
        Ok(None)
    }

    /// Jobs that compute at once.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.limits.sequences_max).unwrap_or(u32::MAX)
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
            jobs: count(self.jobs.len() + self.preparation.jobs()),
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

/// About three quarters of a cache, and half of the rows of a step; `None` if that would serve nobody.
pub(crate) fn smaller(limits: &ServingLimits) -> Option<ServingLimits> {
    let rows_per_step = limits.rows_per_step / 2;
    let less = ServingLimits {
        n_blocks: limits.n_blocks * 3 / 4,
        rows_per_step,
        // Each that decodes takes a row, and prompts want some, too.
        sequences_max: limits.sequences_max.min(rows_per_step / 2).max(1),
    };
    (less.n_blocks >= BLOCKS_MIN && less.rows_per_step >= ROWS_MIN).then_some(less)
}

/// Below these a smaller cache serves nobody.
const BLOCKS_MIN: usize = 32;
const ROWS_MIN: usize = 32;

/// Why there is no answer, for whoever asked.
pub(crate) fn from_generate(error: &GenerateError) -> EngineError {
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
