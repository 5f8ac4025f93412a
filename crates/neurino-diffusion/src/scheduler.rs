//! Noise schedules: at which noise levels a picture is denoised, and how one step goes.
//!
//! A scheduler is made for a number of steps; the pipeline then goes through
//! [`NoiseScheduler::timesteps`]:
//!
//! ```text
//! sample = start(noise * init_noise_sigma)
//! for i in 0..steps:
//!     c = Coefficients::upload(coefficients(i))
//!     output = model(scale_model_input(sample.values, c), timesteps[i])
//!     sample = step(output, sample, c)
//! ```
//!
//! Samples are flat tensors: what a step does is the same for every value. They never leave their device.
//! What is different from step to step are a few numbers, the coefficients, which the host computes; what a
//! device does with them is the same in every step, the first and the last included, so that its launches
//! could be recorded once and repeated.

use burn::tensor::{Device, Tensor};
use neurino_nn::device::upload;

use crate::rng::NoiseDtype;

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
pub use flow::{FlowMatchEuler, FlowShift};
pub use method::Method;

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

/// The numbers of one step on the device that computes it, each a tensor of one value, in the order of
/// [`NoiseScheduler::coefficients`].
#[derive(Debug, Clone)]
pub struct Coefficients(Vec<Tensor<1>>);

impl Coefficients {
    /// Sends the numbers of a step to a device.
    pub fn upload(values: &[f32], device: &Device) -> Self {
        Self(values.iter().map(|&value| upload(vec![value], [1], device)).collect())
    }

    /// All of them.
    fn all<const N: usize>(&self) -> [Tensor<1>; N] {
        let values = <&[Tensor<1>; N]>::try_from(self.0.as_slice());
        values.expect("a schedule takes the coefficients that it gave").clone()
    }
}

/// A picture's latents on their way, and what the schedule remembers of the last step.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The latents, `[values]`, f32.
    pub values: Tensor<1>,
    /// The last step's clean sample, or zeros before the first step; for schedules that look back.
    last_clean: Option<Tensor<1>>,
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

    /// Whether [`NoiseScheduler::step`] takes fresh unit noise.
    fn needs_noise(&self) -> bool {
        false
    }

    /// In which format the reference draws that noise.
    fn noise_dtype(&self) -> NoiseDtype {
        NoiseDtype::F32
    }

    /// The numbers of step `i`; as many for each step.
    fn coefficients(&self, i: usize) -> Vec<f32>;

    /// A sample before its first step.
    fn start(&self, values: Tensor<1>) -> Sample {
        Sample { values, last_clean: None }
    }

    /// Makes a sample the model's input at the step of `coefficients`.
    fn scale_model_input(&self, sample: Tensor<1>, coefficients: &Coefficients) -> Tensor<1> {
        let _ = coefficients;
        sample
    }

    /// What the step of `coefficients` takes the sample to be without its noise.
    fn clean(&self, output: Tensor<1>, sample: Tensor<1>, coefficients: &Coefficients)
    -> Tensor<1>;

    /// The next sample. `noise` is there, and as long as the sample, where
    /// [`NoiseScheduler::needs_noise`] says so.
    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample;
}

/// `x + noise * amount`, where there is noise.
fn stirred(x: Tensor<1>, noise: Option<Tensor<1>>, amount: Tensor<1>) -> Tensor<1> {
    match noise {
        Some(noise) => x + noise * amount,
        None => x,
    }
}

fn check_steps(steps: usize, limit: usize) -> Result<(), SchedulerError> {
    if (1..=limit).contains(&steps) { Ok(()) } else { Err(SchedulerError::Steps { steps, limit }) }
}
