//! Euler's method on the noise level, plain and ancestral.
//!
//! Source: Karras et al. 2022, algorithm 1; `diffusers@0.30.2 scheduling_euler_discrete.py`,
//! `scheduling_euler_ancestral_discrete.py`.

use burn::tensor::Tensor;

use super::discrete::{DiscreteSchedule, Spacing, at};
use super::{Coefficients, NoiseScheduler, Sample, SchedulerError, check_steps, stirred};
use crate::rng::NoiseDtype;

/// Deterministic; what SDXL uses on the network ("leading" timesteps).
#[derive(Debug, Clone)]
pub struct Euler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    spacing: Spacing,
}

/// Adds fresh noise after each step.
#[derive(Debug, Clone)]
pub struct EulerAncestral(Euler);

impl Euler {
    /// A schedule of `steps`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(schedule: &DiscreteSchedule, steps: usize) -> Result<Self, SchedulerError> {
        Self::spaced(schedule, steps, Spacing::LEADING)
    }

    /// A schedule of `steps` on other levels.
    ///
    /// # Errors
    /// `Steps`.
    pub fn spaced(
        schedule: &DiscreteSchedule,
        steps: usize,
        spacing: Spacing,
    ) -> Result<Self, SchedulerError> {
        check_steps(steps, schedule.levels())?;
        let timesteps = spacing.timesteps(steps, schedule.levels());
        let trained = schedule.sigmas();
        let levels = timesteps.iter().map(|&t| at(&trained, t) as f32);
        let sigmas = levels.chain([0.0]).collect();
        Ok(Self { timesteps, sigmas, spacing })
    }

    fn start_sigma(&self) -> f32 {
        let highest = self.sigmas.iter().copied().fold(0.0, f32::max);
        self.spacing.start(highest)
    }

    /// What the model's input is divided by.
    fn factor(&self, i: usize) -> f32 {
        (self.sigmas[i] * self.sigmas[i] + 1.0).sqrt()
    }
}

impl NoiseScheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f32 {
        self.start_sigma()
    }

    /// The input's divisor, the noise level, and how far it changes.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        vec![self.factor(i), self.sigmas[i], self.sigmas[i + 1] - self.sigmas[i]]
    }

    fn scale_model_input(&self, sample: Tensor<1>, coefficients: &Coefficients) -> Tensor<1> {
        let [factor, _, _] = coefficients.all();
        sample / factor
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [_, sigma, _] = coefficients.all();
        sample - output * sigma
    }

    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        _noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, _, change] = coefficients.all();
        self.start(sample.values + output * change)
    }
}

impl EulerAncestral {
    /// A schedule of `steps`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(schedule: &DiscreteSchedule, steps: usize) -> Result<Self, SchedulerError> {
        Euler::new(schedule, steps).map(Self)
    }

    /// A schedule of `steps` on other levels.
    ///
    /// # Errors
    /// `Steps`.
    pub fn spaced(
        schedule: &DiscreteSchedule,
        steps: usize,
        spacing: Spacing,
    ) -> Result<Self, SchedulerError> {
        Euler::spaced(schedule, steps, spacing).map(Self)
    }
}

impl NoiseScheduler for EulerAncestral {
    fn timesteps(&self) -> &[f64] {
        &self.0.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.0.sigmas
    }

    fn init_noise_sigma(&self) -> f32 {
        self.0.start_sigma()
    }

    fn needs_noise(&self) -> bool {
        true
    }

    /// That of the latents on the network.
    fn noise_dtype(&self) -> NoiseDtype {
        NoiseDtype::F16
    }

    /// The input's divisor, the noise level, how far the step changes it, and how much noise it adds.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        let (from, to) = (self.0.sigmas[i], self.0.sigmas[i + 1]);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let change = (to * to - up * up).sqrt() - from;
        vec![self.0.factor(i), from, change, up]
    }

    fn scale_model_input(&self, sample: Tensor<1>, coefficients: &Coefficients) -> Tensor<1> {
        let [factor, _, _, _] = coefficients.all();
        sample / factor
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [_, sigma, _, _] = coefficients.all();
        sample - output * sigma
    }

    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, _, change, up] = coefficients.all();
        self.start(sample.values + stirred(output * change, noise, up))
    }
}
