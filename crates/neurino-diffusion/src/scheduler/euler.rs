//! Euler's method on the noise level, plain and ancestral.
//!
//! Source: Karras et al. 2022, algorithm 1; `diffusers@0.30.2 scheduling_euler_discrete.py`,
//! `scheduling_euler_ancestral_discrete.py`.

use super::discrete::{DiscreteSchedule, Spacing, at};
use super::{NoiseScheduler, SchedulerError, check_steps};
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

    fn start(&self) -> f32 {
        let highest = self.sigmas.iter().copied().fold(0.0, f32::max);
        self.spacing.start(highest)
    }

    fn scale(&self, sample: &mut [f32], i: usize) {
        let factor = (self.sigmas[i] * self.sigmas[i] + 1.0).sqrt();
        for x in sample {
            *x /= factor;
        }
    }

    fn without_noise(&self, model_output: &[f32], sample: &[f32], i: usize) -> Vec<f32> {
        let sigma = self.sigmas[i];
        sample.iter().zip(model_output).map(|(x, noise)| x - sigma * noise).collect()
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
        self.start()
    }

    fn scale_model_input(&self, sample: &mut [f32], i: usize) {
        self.scale(sample, i);
    }

    fn clean(&self, model_output: &[f32], sample: &[f32], i: usize) -> Vec<f32> {
        self.without_noise(model_output, sample, i)
    }

    fn step(&mut self, model_output: &[f32], sample: &mut [f32], _noise: &[f32], i: usize) {
        let change = self.sigmas[i + 1] - self.sigmas[i];
        for (x, output) in sample.iter_mut().zip(model_output) {
            *x += output * change;
        }
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
        self.0.start()
    }

    fn scale_model_input(&self, sample: &mut [f32], i: usize) {
        self.0.scale(sample, i);
    }

    fn needs_noise(&self) -> bool {
        true
    }

    /// That of the latents on the network.
    fn noise_dtype(&self) -> NoiseDtype {
        NoiseDtype::F16
    }

    fn clean(&self, model_output: &[f32], sample: &[f32], i: usize) -> Vec<f32> {
        self.0.without_noise(model_output, sample, i)
    }

    fn step(&mut self, model_output: &[f32], sample: &mut [f32], noise: &[f32], i: usize) {
        let (from, to) = (self.0.sigmas[i], self.0.sigmas[i + 1]);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let change = (to * to - up * up).sqrt() - from;
        for ((x, output), noise) in sample.iter_mut().zip(model_output).zip(noise) {
            *x += output * change + noise * up;
        }
    }
}
