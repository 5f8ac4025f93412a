//! Root-mean-square normalisation.

use std::sync::Arc;

use burn::tensor::Tensor;

use crate::device::{in_memory, is_cpu, upload};
use crate::rows;

/// `x / sqrt(mean(x^2) + eps) * weight`, in f32.
///
/// Source: Zhang and Sennrich 2019; `transformers@4.44.2 modeling_llama.py` `LlamaRMSNorm`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[1, features]`
    weight: Tensor<2>,
    /// The same in this machine's memory, if the CPU computes.
    on_cpu: Option<Arc<[f32]>>,
    epsilon: f64,
}

impl RmsNorm {
    /// A norm with the given `weight` of shape `[features]`, f32.
    pub fn new(weight: Tensor<1>, epsilon: f64) -> Self {
        let on_cpu = is_cpu(&weight.device()).then(|| in_memory(weight.clone()).into());
        Self { weight: weight.unsqueeze(), on_cpu, epsilon }
    }

    /// # Shapes
    /// - `x`: `[.., features]`, f32; returns the same
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if let Some(weight) = &self.on_cpu {
            let (shape, device) = (x.dims(), x.device());
            let mut x = in_memory(x);
            let normed = rows::rms_norm(&mut x, None, weight, self.epsilon as f32);
            return upload(normed, shape, &device);
        }
        let shape = x.dims();
        let features = shape[D - 1];
        let x: Tensor<2> = x.reshape([shape.iter().product::<usize>() / features.max(1), features]);
        // burn picks its kernel by the number of rows; ours adds up a row alike in any company.
        #[cfg(feature = "kernels")]
        if let Ok(y) = crate::cuda::norm::normalise(&x, &self.weight, self.epsilon) {
            return y.reshape(shape);
        }
        let mean_square = x.clone().square().mean_dim(1);
        let scale = mean_square.add_scalar(self.epsilon).sqrt().recip();
        (x * scale * self.weight.clone()).reshape(shape)
    }

    /// Adds what a sub-layer found to the residual stream and normalises the sum: returns
    /// `(x + delta, forward(x + delta))`.
    ///
    /// # Shapes
    /// - `x`, `delta`: `[seq, features]`, f32; returns the same
    pub fn add_forward(&self, x: Tensor<2>, delta: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        if let Some(weight) = &self.on_cpu {
            let (shape, device) = (x.dims(), x.device());
            let (mut x, delta) = (in_memory(x), in_memory(delta));
            let normed = rows::rms_norm(&mut x, Some(&delta), weight, self.epsilon as f32);
            return (upload(x, shape, &device), upload(normed, shape, &device));
        }
        #[cfg(feature = "kernels")]
        if let Ok(both) =
            crate::cuda::norm::add_and_normalise(&x, &delta, &self.weight, self.epsilon)
        {
            return both;
        }
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
