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
        // As the reference: f32 throughout.
        let (start, end) = (start.sqrt() as f32, end.sqrt() as f32);
        let step = (end - start) / (levels.max(2) - 1) as f32;
        let half = levels / 2;
        let mut product = 1.0f32;
        let alphas_cumprod = (0..levels)
            .map(|i| {
                // torch.linspace counts from both ends.
                let root = if i < half {
                    start + step * i as f32
                } else {
                    end - step * (levels - 1 - i) as f32
                };
                product *= 1.0 - root * root;
                product
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

/// Timesteps from `steps - 1` whole strides down to zero, plus one ("leading" with offset 1).
pub(super) fn leading_timesteps(steps: usize, levels: usize) -> Vec<f64> {
    let stride = levels / steps;
    (0..steps).rev().map(|i| (i * stride + 1) as f64).collect()
}
