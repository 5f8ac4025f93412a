//! Many requests at once through one model: continuous batching over a paged cache.
//!
//! A [`Runner`] owns a model and its cache. Requests come in with [`Runner::submit`], or, where no step
//! may wait for one of them, through a [`Preparer`] on another thread and [`Runner::take_on`]; each
//! [`Runner::step`] computes the next tokens of as many of them as fit and says what became of
//! them. A request's answers are a function of the request, the model and the build alone, whatever
//! else runs beside it: see `docs/SAMPLING.md`.
//!
//! Reading order: `blocks` (who holds which block of the cache), `plan` and `scheduler` (what a step
//! computes), `shapes` (which sizes it has on a card), `draws` (who draws where), `answer` (tokens to text), `request` (a job to a prompt), `runner`.

mod answer;
mod blocks;
mod draws;
mod plan;
mod request;
mod runner;
mod scheduler;
mod shapes;

pub use blocks::BlockCounters;
pub use plan::{CLAIM_ROWS, SchedulerCounters, ServingLimits};
pub use request::{GenerateError, Prepared, Preparer};
pub use runner::{Admitted, RequestId, Runner, RunnerCounters, RunnerEvent};
pub use shapes::{StepShape, StepShapes};
