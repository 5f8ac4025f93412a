//! DPM-Solver++ 2M in its stochastic form on Karras' noise levels: Stable Diffusion 1.5's scheduler
//! on the network.
//!
//! Source: Lu et al. 2022; Karras et al. 2022, equation 5; `diffusers@0.30.2
//! scheduling_dpmsolver_multistep.py` (`sde-dpmsolver++`, order 2, midpoint, `use_karras_sigmas`).

use super::discrete::DiscreteSchedule;
use super::{NoiseScheduler, SchedulerError, check_steps};

const RHO: f64 = 7.0;

/// A multistep schedule; remembers the last prediction.
#[derive(Debug, Clone)]
pub struct DpmSolverSde {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The last step's prediction of the clean sample.
    last: Option<Vec<f32>>,
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

impl DpmSolverSde {
    /// A schedule of `steps`.
    ///
    /// # Errors
    /// `Steps`.
    pub fn new(schedule: &DiscreteSchedule, steps: usize) -> Result<Self, SchedulerError> {
        check_steps(steps, schedule.levels())?;
        let trained = schedule.sigmas();
        let (low, high) = (f64::from(trained[0]), f64::from(trained[trained.len() - 1]));
        let (low, high) = (low.powf(1.0 / RHO), high.powf(1.0 / RHO));
        let karras = |i: usize| {
            let ramp = if steps > 1 { i as f64 / (steps - 1) as f64 } else { 0.0 };
            (high + ramp * (low - high)).powf(RHO)
        };
        let levels: Vec<f64> = (0..steps).map(karras).collect();
        let logs: Vec<f64> = trained.iter().map(|s| f64::from(*s).ln()).collect();
        let timesteps =
            levels.iter().map(|s| level_index(&logs, s.ln()).round_ties_even()).collect();
        let sigmas = levels.into_iter().map(|s| s as f32).chain([0.0]).collect();
        Ok(Self { timesteps, sigmas, last: None })
    }
}

/// Where a noise level lies among the trained ones, in log sigma.
fn level_index(logs: &[f64], log: f64) -> f64 {
    let low = logs.iter().rposition(|&trained| trained <= log).unwrap_or(0).min(logs.len() - 2);
    let share = (logs[low] - log) / (logs[low] - logs[low + 1]);
    low as f64 + share.clamp(0.0, 1.0)
}

impl NoiseScheduler for DpmSolverSde {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn needs_noise(&self) -> bool {
        true
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
        let keep = to.sigma / from.sigma * (-h).exp();
        let gain = 1.0 - (-2.0 * h).exp();
        let (towards, stir) = (to.alpha * gain, to.sigma * gain.sqrt());
        for (j, x) in sample.iter_mut().enumerate() {
            let now = f64::from(clean[j]);
            let slope = before.map_or(0.0, |before| (now - f64::from(before[j])) / r);
            let next =
                keep * f64::from(*x) + towards * (now + 0.5 * slope) + stir * f64::from(noise[j]);
            *x = next as f32;
        }
        self.last = Some(clean);
    }
}
