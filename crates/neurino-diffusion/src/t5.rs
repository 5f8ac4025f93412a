//! T5's encoder, of which Flux takes the states of 512 tokens.

use std::path::Path;

use burn::tensor::Tensor;
use neurino_llm::Tokenizer;
use neurino_nn::attention::{self, Mask};
use neurino_nn::device::{download, upload};
use neurino_nn::{Affine, Embedding, RmsNorm, activation};
use serde::Deserialize;

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankLayers, Placement};
use crate::pulse::Pulse;

/// The token that fills a sequence up.
const PAD: u32 = 0;

/// The dimensions of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Features of a token.
    pub width: usize,
    /// Features of a head.
    pub head_width: usize,
    /// Heads of each block.
    pub heads: usize,
    /// Features inside the feed-forward networks.
    pub mlp_width: usize,
    /// Blocks.
    pub layers: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Distances that the position bias tells apart, in both directions together.
    pub buckets: usize,
    /// From here on all distances are one.
    pub max_distance: usize,
    /// Added to mean squares.
    pub norm_epsilon: f64,
}

/// `config.json` of an encoder.
#[derive(Deserialize)]
struct ConfigFile {
    d_model: usize,
    d_kv: usize,
    num_heads: usize,
    d_ff: usize,
    num_layers: usize,
    vocab_size: usize,
    #[serde(default = "default_buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "default_distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
}

fn default_buckets() -> usize {
    32
}

fn default_distance() -> usize {
    128
}

fn default_epsilon() -> f64 {
    1e-6
}

impl T5Config {
    /// T5 v1.1 XXL, the encoder of Flux.
    pub fn xxl() -> Self {
        Self {
            width: 4096,
            head_width: 64,
            heads: 64,
            mlp_width: 10_240,
            layers: 24,
            vocab_size: 32_128,
            buckets: default_buckets(),
            max_distance: default_distance(),
            norm_epsilon: default_epsilon(),
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// `Config` if it is unreadable or describes another kind of encoder.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let bad = |problem: String| DiffusionError::Config { file: path.to_owned(), problem };
        let bytes = std::fs::read(path).map_err(|e| bad(format!("cannot be read ({e})")))?;
        let file: ConfigFile =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("is not understood ({e})")))?;
        if file.feed_forward_proj != "gated-gelu" {
            let found = file.feed_forward_proj;
            return Err(bad(format!("has the activation `{found}`; only `gated-gelu` is known")));
        }
        let config = Self {
            width: file.d_model,
            head_width: file.d_kv,
            heads: file.num_heads,
            mlp_width: file.d_ff,
            layers: file.num_layers,
            vocab_size: file.vocab_size,
            buckets: file.relative_attention_num_buckets,
            max_distance: file.relative_attention_max_distance,
            norm_epsilon: file.layer_norm_epsilon,
        };
        let exact = config.buckets / 4;
        if [config.width, config.head_width, config.heads, exact].contains(&0)
            || config.max_distance <= exact
        {
            return Err(bad("has dimensions that make no encoder".into()));
        }
        Ok(config)
    }
}

/// An encoder.
#[derive(Debug, Clone)]
pub struct T5Encoder {
    config: T5Config,
    tokens: Embedding,
    /// `[buckets, heads]`, row after row; the first block's serves all.
    position_bias: Vec<f32>,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
    placement: Placement,
    pulse: Pulse,
}

#[derive(Debug, Clone)]
struct Block {
    attention_norm: RmsNorm,
    q: Affine,
    k: Affine,
    v: Affine,
    out: Affine,
    mlp_norm: RmsNorm,
    gate: Affine,
    up: Affine,
    down: Affine,
}

impl T5Encoder {
    /// Loads an encoder whose tensors have Hugging Face's names.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent or of another shape, `Cancelled`.
    pub fn load(component: &Component<'_>, config: &T5Config) -> Result<Self, DiffusionError> {
        // What goes into the last layer of a feed-forward network is beyond f16.
        let component = &component.clone().with_range();
        let table = ["shared.weight", "encoder.embed_tokens.weight"]
            .into_iter()
            .find(|name| component.shape(name).is_some())
            .unwrap_or("shared.weight");
        let tokens = Embedding::dense(component.tensor(table, [config.vocab_size, config.width])?);
        let part = component.sub("encoder");
        let bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let position_bias = download(part.tensor(bias, [config.buckets, config.heads])?)?;
        let blocks = (0..config.layers)
            .map(|index| Block::load(&part.sub("block").sub(index).sub("layer"), config))
            .collect::<Result<_, _>>()?;
        let final_norm = part.rms_norm("final_layer_norm", config.width, config.norm_epsilon)?;
        let placement = component.placement();
        let (config, pulse) = (config.clone(), component.pulse());
        Ok(Self { config, tokens, position_bias, blocks, final_norm, placement, pulse })
    }

    /// The dimensions.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// The last states of one sequence, `[1, tokens, width]`. Every token sees every other, filling
    /// included.
    ///
    /// # Errors
    /// `Tokenizer` if there is no token or one outside the vocabulary.
    pub fn encode(&self, ids: &[u32]) -> Result<Tensor<3>, DiffusionError> {
        let vocab = self.config.vocab_size;
        if ids.is_empty() {
            return Err(DiffusionError::Tokenizer("there is no token".into()));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            let problem = format!("token {id} is not among the encoder's {vocab}");
            return Err(DiffusionError::Tokenizer(problem));
        }
        let bias = self.bias(ids.len());
        let mut x: Tensor<3> = self.tokens.forward(ids, &self.placement.device).unsqueeze();
        for block in &self.blocks {
            self.pulse.beat();
            x = block.forward(x, &bias, self.config.heads);
        }
        Ok(self.final_norm.forward(x))
    }

    /// What is added to the scores: `[heads, tokens, tokens]`.
    fn bias(&self, tokens: usize) -> Tensor<3> {
        let heads = self.config.heads;
        // By the distance of key and query, from `1 - tokens` to `tokens - 1`.
        let buckets: Vec<usize> = (0..2 * tokens - 1)
            .map(|at| bucket(at as i64 + 1 - tokens as i64, &self.config))
            .collect();
        let mut values = Vec::with_capacity(heads * tokens * tokens);
        for head in 0..heads {
            let by_distance: Vec<f32> =
                buckets.iter().map(|bucket| self.position_bias[bucket * heads + head]).collect();
            for query in 0..tokens {
                values.extend_from_slice(&by_distance[tokens - 1 - query..][..tokens]);
            }
        }
        upload(values, [heads, tokens, tokens], &self.placement.device)
    }
}

impl LowRankLayers for T5Encoder {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        for (index, block) in self.blocks.iter_mut().enumerate() {
            let path = format!("encoder.block.{index}.layer");
            let Block { q, k, v, out, gate, up, down, .. } = block;
            for (name, layer) in [("q", q), ("k", k), ("v", v), ("o", out)] {
                visit(&format!("{path}.0.SelfAttention.{name}"), Layer::Affine(layer));
            }
            for (name, layer) in [("wi_0", gate), ("wi_1", up), ("wo", down)] {
                visit(&format!("{path}.1.DenseReluDense.{name}"), Layer::Affine(layer));
            }
        }
    }
}

/// The bucket of a key that is `distance` tokens behind its query: near ones have one each, far ones
/// share by the logarithm.
///
/// Source: `transformers@4.44.2 modeling_t5.py` `_relative_position_bucket`, in f32 as there.
fn bucket(distance: i64, config: &T5Config) -> usize {
    let side = config.buckets / 2;
    let exact = side / 2;
    let first = if distance > 0 { side } else { 0 };
    let apart = distance.unsigned_abs() as usize;
    if apart < exact {
        return first + apart;
    }
    let span = (config.max_distance as f64 / exact as f64).ln() as f32;
    let share = (apart as f32 / exact as f32).ln() / span * (side - exact) as f32;
    first + (exact + share as usize).min(side - 1)
}

impl Block {
    fn load(part: &Component<'_>, config: &T5Config) -> Result<Self, DiffusionError> {
        let (width, inner) = (config.width, config.heads * config.head_width);
        let (attention, mlp) = (part.sub("0.SelfAttention"), part.sub("1.DenseReluDense"));
        let norm = |name: &str| part.rms_norm(name, width, config.norm_epsilon);
        Ok(Self {
            attention_norm: norm("0.layer_norm")?,
            q: attention.linear_no_bias("q", [inner, width])?,
            k: attention.linear_no_bias("k", [inner, width])?,
            v: attention.linear_no_bias("v", [inner, width])?,
            out: attention.linear_no_bias("o", [width, inner])?,
            mlp_norm: norm("1.layer_norm")?,
            gate: mlp.linear_no_bias("wi_0", [config.mlp_width, width])?,
            up: mlp.linear_no_bias("wi_1", [config.mlp_width, width])?,
            down: mlp.linear_no_bias("wo", [width, config.mlp_width])?,
        })
    }

    fn forward(&self, x: Tensor<3>, bias: &Tensor<3>, heads: usize) -> Tensor<3> {
        let normed = self.attention_norm.forward(x.clone());
        let [q, k, v] = Affine::forward_each([&self.q, &self.k, &self.v], normed);
        // The weights were trained without a scale.
        let x = x + self.out.forward(attention::full(q, k, v, heads, 1.0, Mask::Bias(bias)));
        let normed = self.mlp_norm.forward(x.clone());
        let [gate, up] = Affine::forward_each([&self.gate, &self.up], normed);
        x + self.down.forward(activation::gelu_tanh(gate) * up)
    }
}

/// One sequence of exactly `length` tokens: as much of the text as fits, the end token, and filling.
///
/// # Errors
/// `Tokenizer` if the text cannot be split.
pub fn sequence(
    tokenizer: &Tokenizer,
    text: &str,
    length: usize,
) -> Result<Vec<u32>, DiffusionError> {
    let mut ids =
        tokenizer.encode(text, true).map_err(|e| DiffusionError::Tokenizer(e.to_string()))?;
    if ids.len() > length
        && let Some(end) = ids.last().copied()
    {
        ids.truncate(length.saturating_sub(1));
        ids.push(end);
    }
    ids.resize(length, PAD);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_tokens_share_buckets() {
        let found = |distance| bucket(distance, &T5Config::xxl());
        assert_eq!([0, -1, -7, -8, -15, -16, -127, -5000].map(found), [0, 1, 7, 8, 9, 10, 15, 15]);
        assert_eq!([1, 7, 8, 16, 32, 64, 128].map(found), [17, 23, 24, 26, 28, 30, 31]);
    }
}
