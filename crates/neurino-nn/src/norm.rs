//! Normalisation over groups of channels, and over features.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, activation};

use crate::device::{in_memory, in_place, is_cpu};

mod cpu;

/// Normalises groups of channels over the whole picture: `(x - mean) / sqrt(variance + eps) * gamma +
/// beta`.
///
/// Source: Wu and He 2018.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// `[channels]`
    gamma: Factors,
    /// `[channels]`
    beta: Factors,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// A norm with `gamma` and `beta` of shape `[channels]`, a multiple of `groups`.
    pub fn new(gamma: Tensor<1>, beta: Tensor<1>, groups: usize, epsilon: f64) -> Self {
        Self { gamma: Factors::new(gamma), beta: Factors::new(beta), groups, epsilon }
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, channels]`, f32; returns the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, false)
    }

    /// `silu(forward(x))`.
    ///
    /// # Shapes
    /// - `x`: `[batch, height, width, channels]`, f32; returns the same
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        self.apply(x, true)
    }

    fn apply(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        let (gamma, beta) = (self.gamma.on_cpu.as_deref(), self.beta.on_cpu.as_deref());
        let factors = (gamma.unwrap_or_default(), beta.unwrap_or_default());
        in_place(
            x,
            |x| cpu::group_norm(x, height * width, factors, self.groups, self.epsilon, silu),
            |x| self.elsewhere(x, silu),
        )
    }

    fn elsewhere(&self, x: Tensor<4>, silu: bool) -> Tensor<4> {
        #[cfg(feature = "kernels")]
        {
            let factors = [&self.gamma.tensor, &self.beta.tensor];
            let found = crate::cuda::norm::by_groups(&x, factors, self.groups, self.epsilon, silu);
            if let Ok(y) = found {
                return y;
            }
        }
        let y = self.on_tensors(x);
        if silu { activation::silu(y) } else { y }
    }

    fn on_tensors(&self, x: Tensor<4>) -> Tensor<4> {
        let shape @ [batch, height, width, channels] = x.dims();
        let x: Tensor<4> = x.reshape([batch, height * width, self.groups, channels / self.groups]);
        let mean = x.clone().mean_dim(1).mean_dim(3);
        let x = x - mean;
        let variance = x.clone().square().mean_dim(1).mean_dim(3);
        let x = x * variance.add_scalar(self.epsilon).sqrt().recip();
        let (gamma, beta) = (self.gamma.tensor.clone(), self.beta.tensor.clone());
        x.reshape(shape) * gamma.unsqueeze() + beta.unsqueeze()
    }
}

/// Normalises the features of each row: `(x - mean) / sqrt(variance + eps) * gamma + beta`.
///
/// Source: Ba et al. 2016.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[features]`
    gamma: Option<Factors>,
    /// `[features]`
    beta: Option<Factors>,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm with `gamma` and `beta` of shape `[features]`; without them, 1 and 0.
    pub fn new(gamma: Option<Tensor<1>>, beta: Option<Tensor<1>>, epsilon: f64) -> Self {
        Self { gamma: gamma.map(Factors::new), beta: beta.map(Factors::new), epsilon }
    }

    /// # Shapes
    /// - `x`: `[.., features]`, f32; returns the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let features = x.dims()[D - 1];
        let on_cpu = |factors: &'_ Option<Factors>| -> Option<Arc<[f32]>> {
            factors.as_ref().and_then(|factors| factors.on_cpu.clone())
        };
        let (gamma, beta) = (on_cpu(&self.gamma), on_cpu(&self.beta));
        in_place(
            x,
            |x| cpu::layer_norm(x, features, gamma.as_deref(), beta.as_deref(), self.epsilon),
            |x| self.on_tensors(x),
        )
    }

    fn on_tensors<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = x.clone() - x.mean_dim(D - 1);
        let variance = x.clone().square().mean_dim(D - 1);
        let mut x = x * variance.add_scalar(self.epsilon).sqrt().recip();
        if let Some(gamma) = &self.gamma {
            x = x * gamma.tensor.clone().unsqueeze();
        }
        if let Some(beta) = &self.beta {
            x = x + beta.tensor.clone().unsqueeze();
        }
        x
    }
}

/// What values are multiplied with, or moved by.
#[derive(Debug, Clone)]
struct Factors {
    /// f32
    tensor: Tensor<1>,
    /// The same in this machine's memory, if the CPU computes.
    on_cpu: Option<Arc<[f32]>>,
}

impl Factors {
    fn new(tensor: Tensor<1>) -> Self {
        let tensor = tensor.cast(DType::F32);
        let on_cpu = is_cpu(&tensor.device()).then(|| in_memory(tensor.clone()).into());
        Self { tensor, on_cpu }
    }
}
