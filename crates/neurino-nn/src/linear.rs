//! `y = x Wᵀ` with dense or packed weights.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use crate::device::is_cpu;
use crate::quant::QuantMatmul;

/// From this many weights on, a single row is worth sharing among threads.
const PARALLEL_WEIGHTS_MIN: usize = 1 << 18;

/// A linear layer without bias.
#[derive(Debug, Clone)]
pub struct Linear(Weight);

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "bytes beside megabytes of weights")]
enum Weight {
    Dense {
        /// `[out, in]`
        weight: Tensor<2>,
        /// The same memory, cut by output rows, for a CPU's threads; empty where one call is best.
        stripes: Vec<Tensor<2>>,
    },
    Packed(Arc<dyn QuantMatmul>),
}

impl Linear {
    /// Dense weights of shape `[out, in]`, f32, f16 or bf16.
    pub fn dense(weight: Tensor<2>) -> Self {
        let [out, features] = weight.dims();
        let threads = rayon::current_num_threads();
        let share = is_cpu(&weight.device()) && out * features >= PARALLEL_WEIGHTS_MIN;
        let stripes = if share && threads > 1 {
            weight.clone().split(out.div_ceil(threads), 0)
        } else {
            Vec::new()
        };
        Self(Weight::Dense { weight, stripes })
    }

    /// Packed weights.
    pub fn packed(weight: Arc<dyn QuantMatmul>) -> Self {
        Self(Weight::Packed(weight))
    }

    /// Several layers over the same input, which costs less than one after the other.
    ///
    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32, of each layer
    pub fn forward_each<const N: usize>(layers: [&Self; N], x: Tensor<2>) -> [Tensor<2>; N] {
        layers.map(|layer| layer.forward(x.clone()))
    }

    /// # Shapes
    /// - `x`: `[seq, in]`, f32; returns `[seq, out]`, f32
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.0 {
            Weight::Packed(weight) => weight.matmul(x),
            Weight::Dense { weight, stripes } => {
                let x = x.cast(weight.dtype());
                let one_row = x.dims()[0] == 1;
                let y = if one_row && !stripes.is_empty() {
                    let part = |stripe: &Tensor<2>| x.clone().matmul(stripe.clone().transpose());
                    Tensor::cat(stripes.par_iter().map(part).collect(), 1)
                } else {
                    x.matmul(weight.clone().transpose())
                };
                y.cast(DType::F32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::device::{download, upload};

    #[test]
    fn stripes_compute_what_one_call_computes() {
        let device = Device::flex();
        let (out, features) = (1031, 320);
        let values = (0..out * features).map(|i| (i as f32 * 0.37).sin()).collect();
        let weight: Tensor<2> = upload(values, [out, features], &device);
        let x: Tensor<2> =
            upload((0..features).map(|i| (i as f32).cos()).collect(), [1, features], &device);
        let expect = download(x.clone().matmul(weight.clone().transpose())).expect("download");
        let found = download(Linear::dense(weight).forward(x)).expect("download");
        assert_eq!(found.len(), out);
        for (found, expect) in found.iter().zip(expect) {
            assert!((found - expect).abs() < 1e-4, "{found} {expect}");
        }
    }
}
