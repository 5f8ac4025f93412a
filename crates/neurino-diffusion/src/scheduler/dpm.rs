//! DPM-Solver++ 2M, plain and stochastic, on spaced or Karras' noise levels. In its stochastic form on
//! Karras' levels it is Stable Diffusion 1.5's scheduler on the network.
//!
//! Source: Lu et al. 2022; Karras et al. 2022, equation 5; `diffusers@0.30.2
//! scheduling_dpmsolver_multistep.py` (`dpmsolver++` and `sde-dpmsolver++`, order 2, midpoint).

use burn::tensor::Tensor;

use super::discrete::{DiscreteSchedule, Spacing, at};
use super::{Coefficients, NoiseScheduler, Sample, SchedulerError, check_steps, stirred};

const RHO: f64 = 7.0;
/// Numbers that a step takes.
const COEFFICIENTS: usize = 6;

/// A multistep schedule; looks back at the last step's clean sample.
#[derive(Debug, Clone)]
pub struct DpmSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    stochastic: bool,
}

/// The noise levels of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DpmLevels {
    /// Evenly spread in the seventh root.
    Karras,
    /// Those of trained timesteps.
    Spaced(Spacing),
}

impl DpmLevels {
    /// Timesteps, and noise to signal at each of them.
    fn of(self, schedule: &DiscreteSchedule, steps: usize) -> (Vec<f64>, Vec<f64>) {
        let trained = schedule.sigmas();
        match self {
            Self::Karras => {
                let levels = karras(&trained, steps);
                let logs: Vec<f64> = trained.iter().map(|s| f64::from(*s).ln()).collect();
                let index = |s: &f64| level_index(&logs, s.ln()).round_ties_even();
                (levels.iter().map(index).collect(), levels)
            }
            Self::Spaced(spacing) => {
                let timesteps = spacing.solver_timesteps(steps, schedule.levels());
                let levels = timesteps.iter().map(|&t| at(&trained, t)).collect();
                (timesteps, levels)
            }
        }
    }
}

/// From the highest of the `trained` levels to the lowest.
fn karras(trained: &[f32], steps: usize) -> Vec<f64> {
    let (low, high) = (f64::from(trained[0]), f64::from(trained[trained.len() - 1]));
    let (low, high) = (low.powf(1.0 / RHO), high.powf(1.0 / RHO));
    let level = |i: usize| {
        let ramp = if steps > 1 { i as f64 / (steps - 1) as f64 } else { 0.0 };
        (high + ramp * (low - high)).powf(RHO)
    };
    (0..steps).map(level).collect()
}

/// A noise level taken apart.
struct Level {
    alpha: f64,
    sigma: f64,
    /// ln(alpha / sigma)
    lambda: f64,
}

impl Level {
    fn new(noise_to_signal: f32) -> Self {
        let s = f64::from(noise_to_signal);
        let alpha = 1.0 / (s * s + 1.0).sqrt();
        let sigma = s * alpha;
        Self { alpha, sigma, lambda: alpha.ln() - sigma.ln() }
    }
}

impl DpmSolver {
    /// A schedule of `steps`, which adds noise at each if it is `stochastic`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(
        schedule: &DiscreteSchedule,
        steps: usize,
        stochastic: bool,
        levels: DpmLevels,
    ) -> Result<Self, SchedulerError> {
        check_steps(steps, schedule.levels())?;
        let (timesteps, levels) = levels.of(schedule, steps);
        let sigmas = levels.into_iter().map(|s| s as f32).chain([0.0]).collect();
        Ok(Self { timesteps, sigmas, stochastic })
    }

    /// The network's schedule of Stable Diffusion 1.x.
    ///
    /// # Errors
    /// `Steps`.
    pub fn sde_karras(schedule: &DiscreteSchedule, steps: usize) -> Result<Self, SchedulerError> {
        Self::new(schedule, steps, true, DpmLevels::Karras)
    }
}

/// Where a noise level lies among the trained ones, in log sigma.
fn level_index(logs: &[f64], log: f64) -> f64 {
    let low = logs.iter().rposition(|&trained| trained <= log).unwrap_or(0).min(logs.len() - 2);
    let share = (logs[low] - log) / (logs[low] - logs[low + 1]);
    low as f64 + share.clamp(0.0, 1.0)
}

impl NoiseScheduler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn needs_noise(&self) -> bool {
        self.stochastic
    }

    /// Signal and noise of the step; how much of the sample stays, how much of the clean one comes, how far
    /// the step leans on what changed since the last, and how much noise it adds.
    fn coefficients(&self, i: usize) -> Vec<f32> {
        let from = Level::new(self.sigmas[i]);
        let ways = if self.sigmas[i + 1] == 0.0 {
            // At noise level 0 the result is the clean sample itself.
            [0.0, 1.0, 0.0, 0.0]
        } else {
            let to = Level::new(self.sigmas[i + 1]);
            let h = to.lambda - from.lambda;
            let (keep, gain) = if self.stochastic {
                (to.sigma / from.sigma * (-h).exp(), 1.0 - (-2.0 * h).exp())
            } else {
                (to.sigma / from.sigma, 1.0 - (-h).exp())
            };
            let towards = to.alpha * gain;
            let stir = if self.stochastic { to.sigma * gain.sqrt() } else { 0.0 };
            let lean = match i.checked_sub(1) {
                Some(last) => {
                    let r = (from.lambda - Level::new(self.sigmas[last]).lambda) / h;
                    0.5 * towards / r
                }
                None => 0.0,
            };
            [keep, towards, lean, stir]
        };
        [from.alpha, from.sigma].into_iter().chain(ways).map(|x| x as f32).collect()
    }

    fn start(&self, values: Tensor<1>) -> Sample {
        let last_clean = Some(values.zeros_like());
        Sample { values, last_clean }
    }

    fn clean(
        &self,
        output: Tensor<1>,
        sample: Tensor<1>,
        coefficients: &Coefficients,
    ) -> Tensor<1> {
        let [alpha, sigma, ..]: [_; COEFFICIENTS] = coefficients.all();
        (sample - output * sigma) / alpha
    }

    /// In the order of operations of the reference.
    fn step(
        &self,
        output: Tensor<1>,
        sample: Sample,
        noise: Option<Tensor<1>>,
        coefficients: &Coefficients,
    ) -> Sample {
        let [_, _, keep, towards, lean, stir]: [_; COEFFICIENTS] = coefficients.all();
        let clean = self.clean(output, sample.values.clone(), coefficients);
        let mut next = sample.values * keep + clean.clone() * towards;
        if let Some(last) = sample.last_clean {
            next = next + (clean.clone() - last) * lean;
        }
        Sample { values: stirred(next, noise, stir), last_clean: Some(clean) }
    }
}
