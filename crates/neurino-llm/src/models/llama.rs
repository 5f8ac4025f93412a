//! Llama 2, 3 and 3.1, and models built like them.
//!
//! Source: Touvron et al. 2023; `transformers@4.44.2 modeling_llama.py`. Names are the
//! checkpoint's. Shapes leave out the batch: one sequence at a time.

use burn::tensor::{DType, Device, Tensor, activation, s};
use neurino_nn::attention::{CausalMask, grouped_query_attention};
use neurino_nn::rotary::{RotaryEmbedding, RotaryTables};
use neurino_nn::{Embedding, KvCache, Linear, RmsNorm};

use crate::LlmError;
use crate::checkpoint::{Checkpoint, LayerLoader, Precision};
use crate::config::LlamaConfig;

/// A Llama with its weights on a device.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    lm_head: Linear,
    rotary: RotaryEmbedding,
    device: Device,
    cache_dtype: DType,
    weights_bytes: u64,
    /// Of them, rows of the embedding that one token does not read.
    lookup_bytes: u64,
}

#[derive(Debug)]
struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the checkpoint's names")]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// What all layers of one step share: where the new tokens stand in the text.
struct Step {
    rotations: RotaryTables,
    mask: CausalMask,
}

impl Llama {
    /// Loads the weights onto `device`; `progress` gets `(read, total)` bytes.
    ///
    /// # Errors
    /// `Weights` for a tensor that is absent, of another shape or in an unknown format.
    pub fn load(
        config: &LlamaConfig,
        checkpoint: &Checkpoint,
        device: &Device,
        precision: Precision,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self, LlmError> {
        let loader = LayerLoader::new(checkpoint, device, precision, progress);
        let vocab = [config.vocab_size, config.hidden_size];
        let (embed_tokens, tied_head) =
            loader.embedding("model.embed_tokens.weight", vocab, config.tie_word_embeddings)?;
        let lookup_bytes = if tied_head.is_some() { 0 } else { loader.held_bytes() };
        let mut layers = Vec::new();
        for layer in 0..config.num_hidden_layers {
            layers.push(Block::load(config, &loader, &format!("model.layers.{layer}"))?);
        }
        let norm = loader.rms_norm("model.norm.weight", config.hidden_size, config.rms_norm_eps)?;
        let lm_head = match tied_head {
            Some(head) => head,
            None => loader.linear("lm_head.weight", vocab)?,
        };
        Ok(Self {
            config: config.clone(),
            embed_tokens,
            layers,
            norm,
            lm_head,
            rotary: config.rotary(),
            device: device.clone(),
            cache_dtype: match precision {
                Precision::Packed | Precision::Full => DType::F32,
                Precision::Half => DType::F16,
            },
            weights_bytes: loader.held_bytes(),
            lookup_bytes,
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Memory of the weights.
    pub fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    /// Bytes of weights that one generated token reads: all but the embedding's rows, unless the
    /// head shares them.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights_bytes - self.lookup_bytes
    }

    /// An empty cache with room for `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let config = &self.config;
        let (n_kv_heads, head_dim) = (config.n_kv_heads(), config.head_dim());
        let n_layers = config.num_hidden_layers;
        KvCache::new(n_layers, n_kv_heads, head_dim, capacity, self.cache_dtype, &self.device)
    }

    /// Runs `tokens`, which follow those in `cache`, through all layers. `observe` sees the
    /// embeddings, then the output of each layer, the last one after the final norm.
    ///
    /// # Shapes
    /// - returns `[tokens.len(), hidden_size]`, after the final norm
    ///
    /// # Errors
    /// `NoTokens`, `TokenOutOfRange`; `Nn` if the cache is full.
    pub fn hidden_states(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        mut observe: impl FnMut(&Tensor<2>),
    ) -> Result<Tensor<2>, LlmError> {
        let vocab_size = self.config.vocab_size;
        if tokens.is_empty() {
            return Err(LlmError::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(LlmError::TokenOutOfRange { token, vocab_size });
        }
        cache.check_room(tokens.len())?;

        let (start, seq) = (cache.len(), tokens.len());
        let step = Step {
            rotations: self.rotary.tables(start, seq, &self.device),
            mask: CausalMask::new(start, seq, &self.device),
        };
        let mut x = self.embed_tokens.forward(tokens, &self.device);
        for (layer, block) in self.layers.iter().enumerate() {
            observe(&x);
            x = block.forward(x, &step, layer, cache)?;
        }
        cache.advance(seq);
        let x = self.norm.forward(x);
        observe(&x);
        Ok(x)
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    /// - `hidden`: `[seq, hidden_size]`; returns `[seq, vocab_size]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.lm_head.forward(hidden)
    }
}

impl Block {
    fn load(config: &LlamaConfig, loader: &LayerLoader, name: &str) -> Result<Self, LlmError> {
        let (features, eps) = (config.hidden_size, config.rms_norm_eps);
        let norm = |part: &str| loader.rms_norm(&format!("{name}.{part}.weight"), features, eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(config, loader, &format!("{name}.self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(config, loader, &format!("{name}.mlp"))?,
        })
    }

    /// `x`: `[seq, hidden_size]`; returns the same.
    fn forward(
        &self,
        x: Tensor<2>,
        step: &Step,
        layer: usize,
        cache: &mut KvCache,
    ) -> Result<Tensor<2>, LlmError> {
        let attended =
            self.self_attn.forward(self.input_layernorm.forward(x.clone()), step, layer, cache)?;
        let x = x + attended;
        let thought = self.mlp.forward(self.post_attention_layernorm.forward(x.clone()));
        Ok(x + thought)
    }
}

impl Attention {
    fn load(config: &LlamaConfig, loader: &LayerLoader, name: &str) -> Result<Self, LlmError> {
        let (n_heads, n_kv_heads) = (config.num_attention_heads, config.n_kv_heads());
        let (features, head_dim) = (config.hidden_size, config.head_dim());
        let (q_size, kv_size) = (n_heads * head_dim, n_kv_heads * head_dim);
        let name = |part: &str| format!("{name}.{part}.weight");
        Ok(Self {
            q_proj: loader.rotated_linear(&name("q_proj"), [q_size, features], head_dim)?,
            k_proj: loader.rotated_linear(&name("k_proj"), [kv_size, features], head_dim)?,
            v_proj: loader.linear(&name("v_proj"), [kv_size, features])?,
            o_proj: loader.linear(&name("o_proj"), [features, q_size])?,
            n_heads,
            n_kv_heads,
            head_dim,
        })
    }

    /// `x`: `[seq, hidden_size]`; returns the same.
    fn forward(
        &self,
        x: Tensor<2>,
        step: &Step,
        layer: usize,
        cache: &mut KvCache,
    ) -> Result<Tensor<2>, LlmError> {
        let q = self.heads(self.q_proj.forward(x.clone()), self.n_heads);
        let k = self.heads(self.k_proj.forward(x.clone()), self.n_kv_heads);
        let v = self.heads(self.v_proj.forward(x), self.n_kv_heads);

        let q = step.rotations.apply(q);
        let k = step.rotations.apply(k);
        let (k, v) = cache.append(layer, k, v)?;
        let out = grouped_query_attention(q, k, v, &step.mask);

        let [n_heads, seq, head_dim] = out.dims();
        Ok(self.o_proj.forward(out.swap_dims(0, 1).reshape([seq, n_heads * head_dim])))
    }

    /// `[seq, heads * head_dim]` to `[heads, seq, head_dim]`.
    fn heads(&self, x: Tensor<2>, heads: usize) -> Tensor<3> {
        let [seq, _] = x.dims();
        x.reshape([seq, heads, self.head_dim]).swap_dims(0, 1)
    }
}

impl Mlp {
    fn load(config: &LlamaConfig, loader: &LayerLoader, name: &str) -> Result<Self, LlmError> {
        let (features, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("{name}.{part}.weight");
        Ok(Self {
            gate_proj: loader.linear(&name("gate_proj"), [inner, features])?,
            up_proj: loader.linear(&name("up_proj"), [inner, features])?,
            down_proj: loader.linear(&name("down_proj"), [features, inner])?,
        })
    }

    /// `x`: `[seq, hidden_size]`; returns the same.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// The last row of `[seq, features]`, as `[1, features]`.
pub fn last_row(hidden: Tensor<2>) -> Tensor<2> {
    let [seq, _] = hidden.dims();
    hidden.slice(s![seq - 1..seq, ..])
}
