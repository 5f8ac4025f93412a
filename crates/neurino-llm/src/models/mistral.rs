//! Mistral 7B, and models built like it.
//!
//! A Llama in which a query may see only the last `sliding_window` keys, its own included. Deeper
//! layers reach further back: each passes on what the one before has gathered. Later versions have
//! no window at all, which their configuration says with `null`.
//!
//! Source: Jiang et al. 2023; `transformers@4.44.2 modeling_mistral.py`. Names are the checkpoint's.

use burn::tensor::Tensor;
use neurino_nn::RmsNorm;

use super::attention::Attention;
use super::decoder::{Block, LayerStep};
use super::layers::LayerSource;
use super::llama::Mlp;
use crate::LlmError;
use crate::config::ModelConfig;

/// One layer: attention over a window, then a feed-forward network.
#[derive(Debug)]
pub struct MistralBlock {
    input_layernorm: RmsNorm,
    /// Takes its window from [`ModelConfig::sliding_window`].
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl MistralBlock {
    /// Loads the layer called `name`.
    ///
    /// # Errors
    /// `Weights`.
    pub fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let (features, eps) = (config.hidden_size, config.rms_norm_eps);
        let norm = |part: &str| layers.rms_norm(&format!("{name}.{part}.weight"), features, eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, layers, &format!("{name}.self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(config, layers, &format!("{name}.mlp"))?,
        })
    }
}

impl Block for MistralBlock {
    fn forward(&self, x: Tensor<2>, step: &mut LayerStep<'_>) -> Result<Tensor<2>, LlmError> {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x.clone()), step)?;
        let (x, normed) = self.post_attention_layernorm.add_forward(x, seen);
        Ok(x + self.mlp.forward(normed))
    }
}
