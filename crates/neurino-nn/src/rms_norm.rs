//! Root-mean-square normalisation.

use burn::tensor::Tensor;

/// `x / sqrt(mean(x^2) + eps) * weight`, in f32.
///
/// Source: Zhang and Sennrich 2019; `transformers@4.44.2 modeling_llama.py` `LlamaRMSNorm`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[1, features]`
    weight: Tensor<2>,
    epsilon: f64,
}

impl RmsNorm {
    /// A norm with the given `weight` of shape `[features]`, f32.
    pub fn new(weight: Tensor<1>, epsilon: f64) -> Self {
        Self { weight: weight.unsqueeze(), epsilon }
    }

    /// # Shapes
    /// - `x`: `[seq, features]`, f32; returns the same
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mean_square = x.clone().square().mean_dim(1);
        let scale = mean_square.add_scalar(self.epsilon).sqrt().recip();
        x * scale * self.weight.clone()
    }

    /// Adds what a sub-layer found to the residual stream and normalises the sum: returns
    /// `(x + delta, forward(x + delta))`.
    ///
    /// # Shapes
    /// - `x`, `delta`: `[seq, features]`, f32; returns the same
    pub fn add_forward(&self, x: Tensor<2>, delta: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let sum = x + delta;
        let normed = self.forward(sum.clone());
        (sum, normed)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::device::{download, upload};

    #[test]
    fn normalises_each_row() {
        let device = Device::flex();
        let norm = RmsNorm::new(upload(vec![1.0, 2.0], [2], &device), 0.0);
        let x = upload(vec![3.0, 4.0, 1.0, -1.0], [2, 2], &device);
        let found = download(norm.forward(x)).expect("download");
        let rms = 12.5f32.sqrt();
        for (found, expect) in found.iter().zip([3.0 / rms, 8.0 / rms, 1.0, -2.0]) {
            assert!((found - expect).abs() < 1e-6, "{found} {expect}");
        }
    }
}
