//! The layers of a network that take updates of low rank.

use burn::tensor::{DType as TensorType, Device};
use neurino_nn::{Affine, Conv2d, affine, conv};

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

/// A part of a network that has such layers.
pub(crate) trait LowRankPart {
    /// As [`LowRankLayers::low_rank_layers`], with `path` before each layer's own.
    fn low_rank_layers(&mut self, path: &str, visit: &mut dyn FnMut(&str, Layer<'_>));
}

/// The updates of a layer while it is not there.
#[derive(Debug, Clone)]
pub(crate) enum HeldUpdates {
    Affine(affine::HeldUpdates),
    Conv(conv::HeldUpdates),
}

impl HeldUpdates {
    /// Those that a layer has.
    pub(crate) fn of(layer: &Layer<'_>) -> Self {
        match layer {
            Layer::Affine(affine) => Self::Affine(affine.held_updates()),
            Layer::Conv(conv) => Self::Conv(conv.held_updates()),
        }
    }

    /// Gives them to the layer again.
    pub(crate) fn put(self, layer: Layer<'_>) {
        match (layer, self) {
            (Layer::Affine(affine), Self::Affine(held)) => affine.hold_updates(held),
            (Layer::Conv(conv), Self::Conv(held)) => conv.hold_updates(held),
            (Layer::Affine(_), Self::Conv(_)) | (Layer::Conv(_), Self::Affine(_)) => {}
        }
    }
}
