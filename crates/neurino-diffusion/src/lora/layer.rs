//! The layers of a network that take updates of low rank.

use burn::tensor::{DType as TensorType, Device};
use neurino_nn::{Affine, Conv2d};

/// A layer that takes updates of low rank.
pub enum Layer<'a> {
    /// A linear layer, or a convolution of 1x1.
    Affine(&'a mut Affine),
    /// A convolution of more than one pixel.
    Conv(&'a mut Conv2d),
}

/// Where a network's updates are put, and in which numbers.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device of the network.
    pub device: Device,
    /// The numbers that updates are kept in.
    pub dtype: TensorType,
}

/// A network whose layers take updates of low rank.
pub trait LowRankLayers {
    /// Where updates are put.
    fn placement(&self) -> &Placement;

    /// Calls `visit` for each layer with its diffusers (or Hugging Face) path, without `.weight`:
    /// "down_blocks.0.attentions.0.proj_in", "text_model.encoder.layers.0.mlp.fc1".
    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>));
}
