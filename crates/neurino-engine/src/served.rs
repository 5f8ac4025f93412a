//! A model in memory and its jobs, whichever kind it is.

use crate::api::{EngineCounters, EngineError};
use crate::image::Pictures;
use crate::memory::DeviceMemory;
use crate::queue::Job;
use crate::serving::{Ended, Serving};

/// What serves jobs.
pub(crate) enum Served {
    /// A language model: many jobs at once.
    Text(Box<Serving>),
    /// An image model: one after the other.
    Image(Box<Pictures>),
}

impl Served {
    /// Whether there is nothing to compute.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Text(serving) => serving.is_idle(),
            Self::Image(pictures) => pictures.is_idle(),
        }
    }

    /// Takes a job on, or refuses it.
    pub(crate) fn begin(&mut self, job: Job) -> Option<Ended> {
        match self {
            Self::Text(serving) => serving.begin(job),
            Self::Image(pictures) => pictures.begin(job),
        }
    }

    /// Ends the jobs that nobody wants any more; their memory is free.
    pub(crate) fn sweep(&mut self) -> Vec<Ended> {
        match self {
            Self::Text(serving) => serving.sweep(),
            Self::Image(pictures) => pictures.sweep(),
        }
    }

    /// Computes the next step. `computed` is called before anybody hears of it; `memory` tells what the
    /// device has.
    pub(crate) fn step(
        &mut self,
        memory: &dyn Fn() -> DeviceMemory,
        computed: impl FnOnce(EngineCounters),
    ) -> Vec<Ended> {
        match self {
            Self::Text(serving) => serving.step(computed),
            Self::Image(pictures) => pictures.step(memory, computed),
        }
    }

    /// Takes out the jobs that have not begun, in their order.
    pub(crate) fn take_unready(&mut self) -> Vec<Job> {
        match self {
            Self::Text(serving) => serving.take_unready(),
            // Nothing of a picture is prepared elsewhere.
            Self::Image(_) => Vec::new(),
        }
    }

    /// Fails all jobs that have begun, because what they were computed with is lost.
    pub(crate) fn fail_all(&mut self, error: &EngineError) -> Vec<Ended> {
        match self {
            Self::Text(serving) => serving.fail_all(error),
            Self::Image(pictures) => pictures.fail_all(error),
        }
    }

    /// What is counted of it.
    pub(crate) fn counters(&self) -> EngineCounters {
        match self {
            Self::Text(serving) => serving.counters(),
            Self::Image(pictures) => pictures.counters(),
        }
    }
}
