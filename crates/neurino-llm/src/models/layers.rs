//! Where a model's layers come from: a checkpoint, or random numbers of the same shapes.

use burn::tensor::{Device, Tensor};
use neurino_nn::{Embedding, Linear, RmsNorm};

use crate::LlmError;
use crate::checkpoint::LayerLoader;

/// Makes the layers of a model, one after the other, by Hugging Face's names.
pub trait LayerSource<'a> {
    /// Makes the layers that follow on `device`.
    fn place_on(&self, device: &'a Device);

    /// Memory of the layers made so far.
    fn held_bytes(&self) -> u64;

    /// A norm over `features`.
    ///
    /// # Errors
    /// `Weights` if the checkpoint does not hold it: as for all that follow.
    fn rms_norm(&self, name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError>;

    /// A projection's bias, `[1, features]`, f32.
    ///
    /// # Errors
    /// As [`LayerSource::rms_norm`].
    fn bias(&self, name: &str, features: usize) -> Result<Tensor<2>, LlmError>;

    /// A projection of shape `[out, in]`.
    ///
    /// # Errors
    /// As [`LayerSource::rms_norm`].
    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LlmError>;

    /// A query or key projection, whose output is rotated head by head.
    ///
    /// # Errors
    /// As [`LayerSource::rms_norm`].
    fn rotated_linear(
        &self,
        name: &str,
        shape: [usize; 2],
        head_dim: usize,
    ) -> Result<Linear, LlmError>;

    /// The token table, and the head that multiplies with it if the two are tied.
    ///
    /// # Errors
    /// As [`LayerSource::rms_norm`].
    fn embedding(
        &self,
        name: &str,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Embedding, Option<Linear>), LlmError>;
}

impl<'a> LayerSource<'a> for LayerLoader<'a> {
    fn place_on(&self, device: &'a Device) {
        self.place_on(device);
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes()
    }

    fn rms_norm(&self, name: &str, features: usize, eps: f64) -> Result<RmsNorm, LlmError> {
        self.rms_norm(name, features, eps)
    }

    fn bias(&self, name: &str, features: usize) -> Result<Tensor<2>, LlmError> {
        self.bias(name, features)
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Linear, LlmError> {
        self.linear(name, shape)
    }

    fn rotated_linear(
        &self,
        name: &str,
        shape: [usize; 2],
        head_dim: usize,
    ) -> Result<Linear, LlmError> {
        self.rotated_linear(name, shape, head_dim)
    }

    fn embedding(
        &self,
        name: &str,
        shape: [usize; 2],
        tied: bool,
    ) -> Result<(Embedding, Option<Linear>), LlmError> {
        self.embedding(name, shape, tied)
    }
}
