//! DPM-Solver++ 2M, plain and stochastic, on spaced or Karras' noise levels. In its stochastic form on
//! Karras' levels it is Stable Diffusion 1.5's scheduler on the network.
//!
//! Source: Lu et al. 2022; Karras et al. 2022, equation 5; `diffusers@0.30.2
//! scheduling_dpmsolver_multistep.py` (`dpmsolver++` and `sde-dpmsolver++`, order 2, midpoint).

use super::discrete::{DiscreteSchedule, Spacing, at};
use super::{NoiseScheduler, SchedulerError, check_steps};

const RHO: f64 = 7.0;

/// A multistep schedule; remembers the last prediction.
#[derive(Debug, Clone)]
pub struct DpmSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    stochastic: bool,
    /// The last step's prediction of the clean sample.
    last: Option<Vec<f32>>,
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
        Ok(Self { timesteps, sigmas, stochastic, last: None })
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

    fn step(&mut self, model_output: &[f32], sample: &mut [f32], noise: &[f32], i: usize) {
        let from = Level::new(self.sigmas[i]);
        let clean: Vec<f32> = sample
            .iter()
            .zip(model_output)
            .map(|(x, e)| ((f64::from(*x) - from.sigma * f64::from(*e)) / from.alpha) as f32)
            .collect();
        // At noise level 0 the result is the prediction itself.
        if self.sigmas[i + 1] == 0.0 {
            sample.copy_from_slice(&clean);
            self.last = Some(clean);
            return;
        }
        let to = Level::new(self.sigmas[i + 1]);
        let h = to.lambda - from.lambda;
        let before = if i == 0 { None } else { self.last.as_deref() };
        let r =
            if i == 0 { 1.0 } else { (from.lambda - Level::new(self.sigmas[i - 1]).lambda) / h };
        let (keep, gain) = if self.stochastic {
            (to.sigma / from.sigma * (-h).exp(), 1.0 - (-2.0 * h).exp())
        } else {
            (to.sigma / from.sigma, 1.0 - (-h).exp())
        };
        let (towards, stir) = (to.alpha * gain, to.sigma * gain.sqrt());
        for (j, x) in sample.iter_mut().enumerate() {
            let now = f64::from(clean[j]);
            let slope = before.map_or(0.0, |before| (now - f64::from(before[j])) / r);
            let next = keep * f64::from(*x) + towards * (now + 0.5 * slope);
            let fresh = if self.stochastic { stir * f64::from(noise[j]) } else { 0.0 };
            *x = (next + fresh) as f32;
        }
        self.last = Some(clean);
    }
}
