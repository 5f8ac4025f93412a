//! The noise levels a Stable Diffusion model was trained with.

/// Variances that grow as the square of a line ("scaled linear").
#[derive(Debug, Clone)]
pub struct DiscreteSchedule {
    alphas_cumprod: Vec<f32>,
}

impl DiscreteSchedule {
    /// The schedule of Stable Diffusion 1.5 and SDXL: 1000 levels, betas from 0.00085 to 0.012.
    pub fn stable_diffusion() -> Self {
        Self::scaled_linear(0.000_85, 0.012, 1000)
    }

    /// Betas from `start` to `end`, linear in their square roots.
    pub fn scaled_linear(start: f64, end: f64, levels: usize) -> Self {
        // As the reference: f32, but for the running product.
        let (start, end) = (start.sqrt() as f32, end.sqrt() as f32);
        let step = (end - start) / (levels.max(2) - 1) as f32;
        let half = levels / 2;
        let mut product = 1.0f64;
        let alphas_cumprod = (0..levels)
            .map(|i| {
                // torch.linspace counts from both ends.
                let root = if i < half {
                    start + step * i as f32
                } else {
                    end - step * (levels - 1 - i) as f32
                };
                product *= f64::from(1.0 - root * root);
                product as f32
            })
            .collect();
        Self { alphas_cumprod }
    }

    /// The share of the signal's variance left at each level.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// Levels.
    pub fn levels(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// Noise to signal at each level, `sqrt((1 - a) / a)`, rising.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|&a| ((1.0 - a) / a).sqrt()).collect()
    }
}

/// Linear interpolation of `values` at a fractional index.
pub(super) fn at(values: &[f32], index: f64) -> f64 {
    let low = (index.floor().max(0.0) as usize).min(values.len() - 1);
    let high = (low + 1).min(values.len() - 1);
    let share = index - low as f64;
    f64::from(values[low]) * (1.0 - share) + f64::from(values[high]) * share
}

/// Which of the trained levels the steps take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Whole strides up from the lowest.
    Leading {
        /// What is added to each.
        offset: usize,
    },
    /// Evenly from the lowest to the highest, both included.
    Linspace,
    /// Strides down from the highest.
    Trailing,
}

impl Spacing {
    /// As Stable Diffusion's files say.
    pub const LEADING: Self = Self::Leading { offset: 1 };

    /// Falling, with whatever fractions there are.
    pub(super) fn timesteps(self, steps: usize, levels: usize) -> Vec<f64> {
        let falling = (0..steps).rev();
        match self {
            Self::Leading { offset } => {
                let stride = levels / steps;
                falling.map(|i| (i * stride + offset) as f64).collect()
            }
            Self::Linspace => {
                // numpy divides first, and rounds to f32 at the end.
                let stride = (levels - 1) as f64 / steps.saturating_sub(1).max(1) as f64;
                falling.map(|i| f64::from((i as f64 * stride) as f32)).collect()
            }
            Self::Trailing => strides_down(steps, levels),
        }
    }

    /// The whole timesteps of a multistep solver, which leaves out the lowest of one more.
    pub(super) fn solver_timesteps(self, steps: usize, levels: usize) -> Vec<f64> {
        let falling = (1..=steps).rev();
        match self {
            Self::Leading { offset } => {
                let stride = levels / (steps + 1);
                falling.map(|i| (i * stride + offset) as f64).collect()
            }
            Self::Linspace => {
                let stride = (levels - 1) as f64 / steps as f64;
                falling.map(|i| (i as f64 * stride).round_ties_even()).collect()
            }
            Self::Trailing => strides_down(steps, levels),
        }
    }

    /// The standard deviation that samples begin with, by the highest noise level.
    pub(super) fn start(self, highest: f32) -> f32 {
        match self {
            Self::Leading { .. } => (highest * highest + 1.0).sqrt(),
            Self::Linspace | Self::Trailing => highest,
        }
    }
}

/// Timesteps of [`Spacing::Trailing`].
fn strides_down(steps: usize, levels: usize) -> Vec<f64> {
    let stride = levels as f64 / steps as f64;
    let at = |i: usize| (levels as f64 - i as f64 * stride).round_ties_even() - 1.0;
    (0..steps).map(at).collect()
}
