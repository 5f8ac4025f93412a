//! Euler's method on the straight paths of flow matching, for Flux.
//!
//! Source: Esser et al. 2024; `diffusers@0.30.2 scheduling_flow_match_euler_discrete.py`.

use burn::tensor::Tensor;

use super::{Coefficients, NoiseScheduler, Sample, SchedulerError, check_steps};

const LEVELS: usize = 1000;

/// A flow-matching schedule, shifted to more noise for larger pictures.
#[derive(Debug, Clone)]
pub struct FlowMatchEuler {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
}

/// How far the schedule of a picture of `image_tokens` is shifted: a line through 0.5 at 256 tokens
/// and 1.15 at 4096.
pub fn flow_mu(image_tokens: usize) -> f64 {
    let slope = (1.15 - 0.5) / (4096.0 - 256.0);
    0.5 + slope * (image_tokens as f64 - 256.0)
}

impl FlowMatchEuler {
    /// A schedule of `steps`, shifted by `mu`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(steps: usize, mu: f64) -> Result<Self, SchedulerError> {
        check_steps(steps, LEVELS)?;
        let last = 1.0 / steps as f64;
        let stride = if steps > 1 { (last - 1.0) / (steps - 1) as f64 } else { 0.0 };
        let shifted = |i: usize| {
            let line = if i + 1 == steps && steps > 1 { last } else { 1.0 + stride * i as f64 };
            mu.exp() / (mu.exp() + (1.0 / line - 1.0))
        };
        let levels: Vec<f32> = (0..steps).map(|i| shifted(i) as f32).collect();
        let timesteps = levels.iter().map(|&s| f64::from(s * LEVELS as f32)).collect();
        let sigmas = levels.into_iter().chain([0.0]).collect();
        Ok(Self { timesteps, sigmas })
    }
}

impl NoiseScheduler for FlowMatchEuler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The noise level, and how far it changes.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        vec![self.sigmas[i], self.sigmas[i + 1] - self.sigmas[i]]
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [sigma, _] = coefficients.all();
        sample - output * sigma
    }

    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        _noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, change] = coefficients.all();
        self.start(sample.values + output * change)
    }
}
