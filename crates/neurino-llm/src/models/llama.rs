//! Llama 2, 3 and 3.1, and models built like them.
//!
//! Source: Touvron et al. 2023; `transformers@4.44.2 modeling_llama.py`. Names are the
//! checkpoint's. `rows` are the new tokens of all sequences of a step, see `neurino_nn::paged`.

use burn::tensor::Tensor;
use neurino_nn::{Linear, RmsNorm, activation};

use super::attention::Attention;
use super::decoder::{Block, LayerStep};
use super::layers::LayerSource;
use crate::LlmError;
use crate::config::{Activation, ModelConfig};

/// One layer: attention, then a feed-forward network, each on a normalised copy of what it adds to.
#[derive(Debug)]
pub struct LlamaBlock {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl LlamaBlock {
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

impl Block for LlamaBlock {
    fn forward(&self, x: Tensor<2>, step: &mut LayerStep<'_>) -> Result<Tensor<2>, LlmError> {
        let seen = self.self_attn.forward(self.input_layernorm.forward(x.clone()), step)?;
        let (x, normed) = self.post_attention_layernorm.add_forward(x, seen);
        Ok(x + self.mlp.forward(normed))
    }
}

/// The feed-forward network: down(act(gate(x)) * up(x)).
///
/// Source: Shazeer 2020 (SwiGLU).
#[derive(Debug)]
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    /// Of the three, in their order.
    biases: Option<[Tensor<2>; 3]>,
    hidden_act: Activation,
}

impl Mlp {
    /// Loads the projections under `name`.
    ///
    /// # Errors
    /// `Weights`.
    pub fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let (features, inner) = (config.hidden_size, config.intermediate_size);
        let bias = |part: &str, features| layers.bias(&format!("{name}.{part}.bias"), features);
        let biases = || -> Result<_, LlmError> {
            Ok([bias("gate_proj", inner)?, bias("up_proj", inner)?, bias("down_proj", features)?])
        };
        let biases = config.mlp_bias.then(biases).transpose()?;
        let name = |part: &str| format!("{name}.{part}.weight");
        Ok(Self {
            biases,
            hidden_act: config.hidden_act,
            gate_proj: layers.linear(&name("gate_proj"), [inner, features])?,
            up_proj: layers.linear(&name("up_proj"), [inner, features])?,
            down_proj: layers.linear(&name("down_proj"), [features, inner])?,
        })
    }

    /// # Shapes
    /// - `x`: `[rows, hidden_size]`; returns the same
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [mut gate, mut up] = Linear::forward_each([&self.gate_proj, &self.up_proj], x);
        if let Some([of_gate, of_up, _]) = &self.biases {
            (gate, up) = (gate + of_gate.clone(), up + of_up.clone());
        }
        let out = self.down_proj.forward(gated(self.hidden_act, gate, up));
        match &self.biases {
            Some([.., of_down]) => out + of_down.clone(),
            None => out,
        }
    }
}

/// `act(gate) * up`.
///
/// # Shapes
/// - `gate`, `up`: `[rows, features]`, f32; returns the same
pub(super) fn gated(act: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    match act {
        Activation::Silu => activation::swiglu(gate, up),
        Activation::Gelu => activation::gelu(gate) * up,
        Activation::GeluTanh => activation::gelu_tanh(gate) * up,
        Activation::QuickGelu => activation::quick_gelu(gate) * up,
        Activation::Relu => gate.clamp_min(0.0) * up,
    }
}
