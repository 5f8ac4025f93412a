//! Noise schedules: at which noise levels a picture is denoised, and how one step goes.
//!
//! A scheduler is made for a number of steps; the pipeline then goes through
//! [`NoiseScheduler::timesteps`]:
//!
//! ```text
//! x = noise * init_noise_sigma
//! for i in 0..steps:
//!     output = model(scale_model_input(x, i), timesteps[i])
//!     x = step(output, x, i)
//! ```
//!
//! Samples are flat slices: what a step does is the same for every value.

mod ddim;
mod discrete;
mod dpm;
mod euler;
mod flow;
mod method;

pub use ddim::Ddim;
pub use discrete::{DiscreteSchedule, Spacing};
pub use dpm::{DpmLevels, DpmSolver};
pub use euler::{Euler, EulerAncestral};
pub use flow::{FlowMatchEuler, flow_mu};
pub use method::Method;

use crate::rng::NoiseDtype;

/// What the schedulers ask of a caller and did not get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    /// No steps, or more than the model was trained with.
    #[error("{steps} steps were asked for; choose 1 to {limit}")]
    Steps {
        /// What was asked for.
        steps: usize,
        /// Most steps there can be.
        limit: usize,
    },
}

/// A noise schedule for one picture.
pub trait NoiseScheduler {
    /// What the model gets as time, one a step, falling.
    fn timesteps(&self) -> &[f64];

    /// The noise level of each step, and the last one's result: one more than there are steps.
    fn sigmas(&self) -> &[f32];

    /// What unit noise is multiplied with to start.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// Makes a sample the model's input at step `i`.
    fn scale_model_input(&self, sample: &mut [f32], i: usize) {
        let _ = (sample, i);
    }

    /// Whether [`NoiseScheduler::step`] takes fresh unit noise.
    fn needs_noise(&self) -> bool {
        false
    }

    /// In which format the reference draws that noise.
    fn noise_dtype(&self) -> NoiseDtype {
        NoiseDtype::F32
    }

    /// What step `i` takes the sample to be without its noise. Samples keep their variance unless the
    /// schedule says otherwise.
    fn clean(&self, model_output: &[f32], sample: &[f32], i: usize) -> Vec<f32> {
        let sigma = self.sigmas()[i];
        let alpha = (sigma * sigma + 1.0).sqrt().recip();
        sample.iter().zip(model_output).map(|(x, noise)| x / alpha - sigma * noise).collect()
    }

    /// Replaces `sample` by the next one. Steps go in order, from 0, once each: some remember the
    /// last one. `noise` is as long as the sample where [`NoiseScheduler::needs_noise`] says so.
    fn step(&mut self, model_output: &[f32], sample: &mut [f32], noise: &[f32], i: usize);
}

fn check_steps(steps: usize, limit: usize) -> Result<(), SchedulerError> {
    if (1..=limit).contains(&steps) { Ok(()) } else { Err(SchedulerError::Steps { steps, limit }) }
}
