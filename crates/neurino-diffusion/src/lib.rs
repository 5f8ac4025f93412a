//! Diffusion models: the reference's random numbers ([`rng`]) and its noise schedules
//! ([`scheduler`]), bit for bit where the reference is exact, so that a job's seed gives the
//! network's picture.

pub mod rng;
pub mod scheduler;

pub use rng::{NoiseDtype, TorchRng};
pub use scheduler::{NoiseScheduler, SchedulerError};
