//! Normalisation over groups of channels, and over features.

use burn::tensor::{DType, Tensor, activation};

/// Normalises groups of channels over the whole picture: `(x - mean) / sqrt(variance + eps) * gamma +
/// beta`.
///
/// Source: Wu and He 2018.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// `[channels]`, f32
    gamma: Tensor<1>,
    /// `[channels]`, f32
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// A norm with `gamma` and `beta` of shape `[channels]`, a multiple of `groups`.
    pub fn new(gamma: Tensor<1>, beta: Tensor<1>, groups: usize, epsilon: f64) -> Self {
        Self { gamma: gamma.cast(DType::F32), beta: beta.cast(DType::F32), groups, epsilon }
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, channels]`, f32; returns the same
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.on_tensors(x)
    }

    /// `silu(forward(x))`.
    ///
    /// # Shapes
    /// - `x`: `[batch, height, width, channels]`, f32; returns the same
    pub fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        activation::silu(self.on_tensors(x))
    }

    fn on_tensors(&self, x: Tensor<4>) -> Tensor<4> {
        let shape @ [batch, height, width, channels] = x.dims();
        let x: Tensor<4> = x.reshape([batch, height * width, self.groups, channels / self.groups]);
        let mean = x.clone().mean_dim(1).mean_dim(3);
        let x = x - mean;
        let variance = x.clone().square().mean_dim(1).mean_dim(3);
        let x = x * variance.add_scalar(self.epsilon).sqrt().recip();
        x.reshape(shape) * self.gamma.clone().unsqueeze() + self.beta.clone().unsqueeze()
    }
}

/// Normalises the features of each row: `(x - mean) / sqrt(variance + eps) * gamma + beta`.
///
/// Source: Ba et al. 2016.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[features]`, f32
    gamma: Option<Tensor<1>>,
    /// `[features]`, f32
    beta: Option<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm with `gamma` and `beta` of shape `[features]`; without them, 1 and 0.
    pub fn new(gamma: Option<Tensor<1>>, beta: Option<Tensor<1>>, epsilon: f64) -> Self {
        let wide = |x: Option<Tensor<1>>| x.map(|x| x.cast(DType::F32));
        Self { gamma: wide(gamma), beta: wide(beta), epsilon }
    }

    /// # Shapes
    /// - `x`: `[.., features]`, f32; returns the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.on_tensors(x)
    }

    fn on_tensors<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = x.clone() - x.mean_dim(D - 1);
        let variance = x.clone().square().mean_dim(D - 1);
        let mut x = x * variance.add_scalar(self.epsilon).sqrt().recip();
        if let Some(gamma) = &self.gamma {
            x = x * gamma.clone().unsqueeze();
        }
        if let Some(beta) = &self.beta {
            x = x + beta.clone().unsqueeze();
        }
        x
    }
}
