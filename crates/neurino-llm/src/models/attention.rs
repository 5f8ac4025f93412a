//! The attention that Llama, Mistral and Mixtral have in common: causal, with grouped queries and
//! rotary positions, over the paged cache.

use burn::tensor::Tensor;
use neurino_nn::Linear;

use super::decoder::LayerStep;
use super::layers::LayerSource;
use crate::LlmError;
use crate::config::ModelConfig;

/// The attention of one layer.
///
/// Source: Ainslie et al. 2023 (grouped queries); `transformers@4.44.2 modeling_llama.py`
/// `LlamaAttention`, `modeling_mistral.py` `MistralAttention`.
#[derive(Debug)]
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Of the four, in their order.
    biases: Option<[Tensor<2>; 4]>,
    head_dim: usize,
    /// Keys that a query sees, its own included; `None` if all before it.
    window: Option<usize>,
}

impl Attention {
    /// Loads the projections under `name`; biases and window are the configuration's.
    ///
    /// # Errors
    /// `Weights`.
    pub fn load(
        config: &ModelConfig,
        layers: &dyn LayerSource<'_>,
        name: &str,
    ) -> Result<Self, LlmError> {
        let (features, head_dim) = (config.hidden_size, config.head_dim);
        let (q_size, kv_size) = (config.q_size(), config.kv_size());
        let bias = |part: &str, features| layers.bias(&format!("{name}.{part}.bias"), features);
        let biases = || -> Result<_, LlmError> {
            let (q, k) = (bias("q_proj", q_size)?, bias("k_proj", kv_size)?);
            Ok([q, k, bias("v_proj", kv_size)?, bias("o_proj", features)?])
        };
        let biases = config.attention_bias.then(biases).transpose()?;
        let name = |part: &str| format!("{name}.{part}.weight");
        Ok(Self {
            biases,
            q_proj: layers.rotated_linear(&name("q_proj"), [q_size, features], head_dim)?,
            k_proj: layers.rotated_linear(&name("k_proj"), [kv_size, features], head_dim)?,
            v_proj: layers.linear(&name("v_proj"), [kv_size, features])?,
            o_proj: layers.linear(&name("o_proj"), [features, q_size])?,
            head_dim,
            window: config.sliding_window,
        })
    }

    /// # Shapes
    /// - `x`: `[rows, hidden_size]`; returns the same
    ///
    /// # Errors
    /// `Nn`.
    pub fn forward(&self, x: Tensor<2>, step: &mut LayerStep<'_>) -> Result<Tensor<2>, LlmError> {
        let [mut q, mut k, mut v] =
            Linear::forward_each([&self.q_proj, &self.k_proj, &self.v_proj], x);
        if let Some([of_q, of_k, of_v, _]) = &self.biases {
            (q, k, v) = (q + of_q.clone(), k + of_k.clone(), v + of_v.clone());
        }
        let (q, k, v) = (self.heads(q), self.heads(k), self.heads(v));

        let q = step.cache.append(step.layer, q, k, v, step.rotations)?;
        let out = step.cache.attend(step.layer, q, self.window)?;

        let [rows, n_heads, head_dim] = out.dims();
        let out = self.o_proj.forward(out.reshape([rows, n_heads * head_dim]));
        Ok(match &self.biases {
            Some([.., of_o]) => out + of_o.clone(),
            None => out,
        })
    }

    /// `[rows, heads * head_dim]` to `[rows, heads, head_dim]`.
    fn heads(&self, x: Tensor<2>) -> Tensor<3> {
        let [rows, features] = x.dims();
        x.reshape([rows, features / self.head_dim, self.head_dim])
    }
}
