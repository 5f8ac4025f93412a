//! Llama 2, 3 and 3.1, and models built like them.
//!
//! Source: Touvron et al. 2023; `transformers@4.44.2 modeling_llama.py`. Names are the
//! checkpoint's. `rows` are the new tokens of all sequences of a step, see `neurino_nn::paged`.

use burn::tensor::{DType, Device, Tensor, activation};
use neurino_nn::paged::{BatchLayout, KvShape, store_on};
use neurino_nn::rotary::{RotaryEmbedding, RotaryTables};
use neurino_nn::{Embedding, Linear, PagedKvCache, RmsNorm};

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

    /// The size of a cache of `n_blocks`.
    pub fn kv_shape(&self, n_blocks: usize) -> KvShape {
        KvShape {
            n_layers: self.config.num_hidden_layers,
            n_kv_heads: self.config.n_kv_heads(),
            head_dim: self.config.head_dim(),
            n_blocks,
            dtype: self.cache_dtype,
        }
    }

    /// An empty cache of `n_blocks`.
    pub fn new_cache(&self, n_blocks: usize) -> PagedKvCache {
        let shape = self.kv_shape(n_blocks);
        let store = store_on(&self.device, &shape);
        PagedKvCache::new(vec![(shape, store)])
    }

    /// Runs `tokens`, laid out as `batch` says, through all layers. `observe` sees the embeddings,
    /// then the output of each layer, the last one after the final norm.
    ///
    /// # Shapes
    /// - returns `[rows, hidden_size]`, after the final norm
    ///
    /// # Errors
    /// `Nn`.
    pub fn hidden_states(
        &self,
        tokens: &[u32],
        batch: &BatchLayout,
        cache: &mut PagedKvCache,
        observe: &mut dyn FnMut(&Tensor<2>),
    ) -> Result<Tensor<2>, LlmError> {
        cache.begin(batch)?;
        let rotations = self.rotary.tables(&batch.positions(), &self.device);
        let mut x = self.embed_tokens.forward(tokens, &self.device);
        for (layer, block) in self.layers.iter().enumerate() {
            observe(&x);
            x = block.forward(x, &rotations, layer, cache)?;
        }
        let x = self.norm.forward(x);
        observe(&x);
        Ok(x)
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden_size]`; returns `[rows, vocab_size]`
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

    /// `x`: `[rows, hidden_size]`; returns the same.
    fn forward(
        &self,
        x: Tensor<2>,
        rotations: &RotaryTables,
        layer: usize,
        cache: &mut PagedKvCache,
    ) -> Result<Tensor<2>, LlmError> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, rotations, layer, cache)?;
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

    /// `x`: `[rows, hidden_size]`; returns the same.
    fn forward(
        &self,
        x: Tensor<2>,
        rotations: &RotaryTables,
        layer: usize,
        cache: &mut PagedKvCache,
    ) -> Result<Tensor<2>, LlmError> {
        let q = self.heads(self.q_proj.forward(x.clone()), self.n_heads);
        let k = self.heads(self.k_proj.forward(x.clone()), self.n_kv_heads);
        let v = self.heads(self.v_proj.forward(x), self.n_kv_heads);

        let q = cache.append(layer, q, k, v, rotations)?;
        let out = cache.attend(layer, q, None)?;

        let [rows, n_heads, head_dim] = out.dims();
        Ok(self.o_proj.forward(out.reshape([rows, n_heads * head_dim])))
    }

    /// `[rows, heads * head_dim]` to `[rows, heads, head_dim]`.
    fn heads(&self, x: Tensor<2>, heads: usize) -> Tensor<3> {
        let [rows, _] = x.dims();
        x.reshape([rows, heads, self.head_dim])
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

    /// `x`: `[rows, hidden_size]`; returns the same.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = activation::silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}
