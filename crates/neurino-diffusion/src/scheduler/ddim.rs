//! DDIM without added noise.
//!
//! Source: Song et al. 2020, equation 12 with sigma 0; `diffusers@0.30.2 scheduling_ddim.py`
//! ("leading" timesteps, offset 1).

use burn::tensor::Tensor;

use super::discrete::{DiscreteSchedule, Spacing};
use super::{Coefficients, NoiseScheduler, Sample, SchedulerError, check_steps};

/// A deterministic schedule on the trained levels.
#[derive(Debug, Clone)]
pub struct Ddim {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The signal's variance at each step, and after the last.
    alphas: Vec<f32>,
}

impl Ddim {
    /// A schedule of `steps`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(schedule: &DiscreteSchedule, steps: usize) -> Result<Self, SchedulerError> {
        Self::ending(schedule, steps, false)
    }

    /// A schedule of `steps` whose last one ends at no noise at all if it goes `to_clean`
    /// (`set_alpha_to_one`), instead of at the first trained level.
    ///
    /// # Errors
    /// `Steps`.
    pub fn ending(
        schedule: &DiscreteSchedule,
        steps: usize,
        to_clean: bool,
    ) -> Result<Self, SchedulerError> {
        check_steps(steps, schedule.levels())?;
        let levels = schedule.levels();
        let timesteps = Spacing::LEADING.timesteps(steps, levels);
        let trained = schedule.alphas_cumprod();
        let of = |t: &f64| trained[(*t as usize).min(levels - 1)];
        let last = if to_clean { 1.0 } else { trained[0] };
        let alphas: Vec<f32> = timesteps.iter().map(of).chain([last]).collect();
        let sigmas = alphas.iter().map(|&a| ((1.0 - a) / a).sqrt()).collect();
        Ok(Self { timesteps, sigmas, alphas })
    }
}

impl NoiseScheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// Signal and noise of the step, and of the next.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        let (from, to) = (self.alphas[i], self.alphas[i + 1]);
        vec![from.sqrt(), (1.0 - from).sqrt(), to.sqrt(), (1.0 - to).sqrt()]
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [signal, noise, _, _] = coefficients.all();
        (sample - output * noise) / signal
    }

    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        _noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, _, signal, noise] = coefficients.all();
        let clean = self.clean(output.clone(), sample.values, coefficients);
        self.start(clean * signal + output * noise)
    }
}
