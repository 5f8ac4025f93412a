//! The frame of a decoder-only model: token table, blocks, final norm and head, on one device or
//! layer by layer over several.

use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};
use neurino_nn::paged::{BatchLayout, KvShape, KvStore, store_on};
use neurino_nn::rotary::{RotaryEmbedding, RotaryTables};
use neurino_nn::{Embedding, Linear, PagedKvCache, RmsNorm};

use super::layers::LayerSource;
use super::llama::LlamaBlock;
use super::mistral::MistralBlock;
use super::mixtral::MixtralBlock;
use crate::LlmError;
use crate::config::ModelConfig;
use crate::source::ModelArch;

/// One layer of a model.
pub trait Block: Debug + Send + Sync {
    /// # Shapes
    /// - `x`: `[rows, hidden_size]`, f32; returns the same
    ///
    /// # Errors
    /// `Nn`.
    fn forward(&self, x: Tensor<2>, step: &mut LayerStep<'_>) -> Result<Tensor<2>, LlmError>;

    /// Computes with the parts that get only some rows of a step, once for each size that matters to a
    /// card: which rows they get is the model's choice, so that no warm-up from outside reaches all of
    /// them. `rows` is the most of a step. Layers of which every part gets all rows have nothing to do.
    fn warm_up(&self, _rows: usize, _features: usize, _device: &Device) {}
}

/// What a layer needs of the step beside its input.
#[derive(Debug)]
pub struct LayerStep<'a> {
    /// The layer's number.
    pub layer: usize,
    /// The rotations of the rows' positions.
    pub rotations: &'a RotaryTables,
    /// Keys and values of all layers.
    pub cache: &'a mut PagedKvCache,
}

/// Which device computes which layers: one, or several in the order of their layers. The token
/// table lies on the first, the head on the last.
#[derive(Debug, Clone)]
pub struct Placement {
    layers: Vec<(Device, Range<usize>)>,
}

impl Placement {
    /// All layers on one device.
    pub fn whole(device: &Device, n_layers: usize) -> Self {
        Self { layers: vec![(device.clone(), 0..n_layers)] }
    }

    /// The given runs of layers. `None` unless they follow one another from the first layer on, and
    /// none is empty.
    pub fn new(layers: Vec<(Device, Range<usize>)>) -> Option<Self> {
        let mut next = 0;
        for (_, run) in &layers {
            if run.start != next || run.is_empty() {
                return None;
            }
            next = run.end;
        }
        (next > 0).then_some(Self { layers })
    }

    /// The runs of layers and their devices.
    pub fn layers(&self) -> &[(Device, Range<usize>)] {
        &self.layers
    }

    /// Layers in all.
    pub fn n_layers(&self) -> usize {
        self.layers.last().map_or(0, |(_, run)| run.end)
    }
}

/// Where keys and values are kept: by default in the best store of each device.
#[derive(Clone)]
pub struct Stores(Arc<MakeStore>);

type MakeStore = dyn Fn(&Device, &KvShape) -> Box<dyn KvStore> + Send + Sync;

impl Stores {
    /// Stores of another kind.
    pub fn new(
        make: impl Fn(&Device, &KvShape) -> Box<dyn KvStore> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self::new(store_on)
    }
}

impl Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
}

/// A run of layers on one device.
#[derive(Debug)]
struct Part {
    device: Device,
    first: usize,
    blocks: Vec<Box<dyn Block>>,
    weights_bytes: u64,
}

/// A model with its weights in place.
#[derive(Debug)]
pub struct Decoder {
    config: ModelConfig,
    embed_tokens: Embedding,
    /// At least one, in the order of the layers.
    parts: Vec<Part>,
    norm: RmsNorm,
    lm_head: Linear,
    rotary: RotaryEmbedding,
    cache_dtype: DType,
    stores: Stores,
    /// Rows of the token table, which one token does not read.
    lookup_bytes: u64,
}

impl Decoder {
    /// Makes the model's layers in the order in which they compute, each on the device of its
    /// place. The cache will keep keys and values as `cache_dtype`.
    ///
    /// # Errors
    /// `Weights` for a tensor that is absent, of another shape or in an unknown format;
    /// `BadPlacement` for one of another number of layers.
    pub fn load<'a>(
        config: &ModelConfig,
        layers: &dyn LayerSource<'a>,
        placement: &'a Placement,
        cache_dtype: DType,
    ) -> Result<Self, LlmError> {
        let (Some((first, _)), Some((last, _))) =
            (placement.layers.first(), placement.layers.last())
        else {
            return Err(LlmError::BadPlacement { placed: 0, layers: config.num_hidden_layers });
        };
        if placement.n_layers() != config.num_hidden_layers {
            let (placed, layers) = (placement.n_layers(), config.num_hidden_layers);
            return Err(LlmError::BadPlacement { placed, layers });
        }
        let vocab = [config.vocab_size, config.hidden_size];
        let (table, tied) = ("model.embed_tokens.weight", config.tie_word_embeddings);
        layers.place_on(first);
        let (embed_tokens, tied_head) = layers.embedding(table, vocab, tied && first == last)?;
        let lookup_bytes = if tied_head.is_some() { 0 } else { layers.held_bytes() };

        let mut parts = Vec::new();
        let mut held_bytes = 0;
        for (device, run) in &placement.layers {
            layers.place_on(device);
            let blocks = run
                .clone()
                .map(|layer| block(config, layers, &format!("model.layers.{layer}")))
                .collect::<Result<_, _>>()?;
            let weights_bytes = layers.held_bytes() - held_bytes;
            held_bytes = layers.held_bytes();
            parts.push(Part { device: device.clone(), first: run.start, blocks, weights_bytes });
        }

        let norm = layers.rms_norm("model.norm.weight", config.hidden_size, config.rms_norm_eps)?;
        // On another device than the table, a tied head is a copy of the same form.
        let tied_head = match tied_head {
            None if tied => layers.embedding(table, vocab, true)?.1,
            found => found,
        };
        let lm_head = match tied_head {
            Some(head) => head,
            None => layers.linear("lm_head.weight", vocab)?,
        };
        if let Some(last) = parts.last_mut() {
            last.weights_bytes += layers.held_bytes() - held_bytes;
        }
        Ok(Self {
            config: config.clone(),
            embed_tokens,
            parts,
            norm,
            lm_head,
            rotary: config.rotary(),
            cache_dtype,
            stores: Stores::default(),
            lookup_bytes,
        })
    }

    /// The same, with its caches in stores of another kind.
    #[must_use]
    pub fn with_stores(self, stores: Stores) -> Self {
        Self { stores, ..self }
    }

    /// See [`RotaryEmbedding::grown_to`].
    pub fn grow_rotation(&mut self, tokens: usize) {
        self.rotary.grown_to(tokens);
    }

    /// The dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the token table is.
    pub fn first_device(&self) -> &Device {
        &self.parts[0].device
    }

    /// Where the head is.
    pub fn last_device(&self) -> &Device {
        &self.parts[self.parts.len() - 1].device
    }

    /// Memory of the weights on each device, in the order of the layers.
    pub fn weights_bytes(&self) -> impl Iterator<Item = (&Device, u64)> {
        self.parts.iter().map(|part| (&part.device, part.weights_bytes))
    }

    /// Bytes of weights that one generated token reads: all but the token table's rows, unless the
    /// head shares them, and but the experts that are not chosen.
    pub fn bytes_per_token(&self) -> u64 {
        let all: u64 = self.parts.iter().map(|part| part.weights_bytes).sum();
        let config = &self.config;
        if config.num_local_experts == 1 {
            return all - self.lookup_bytes;
        }
        // All experts are stored alike, so that their share of a layer follows from the shapes.
        let features = config.hidden_size;
        let expert = 3 * features * config.intermediate_size;
        let attention = 2 * features * (config.q_size() + config.kv_size());
        let experts = (config.num_local_experts * expert) as f64;
        let chosen = (config.num_experts_per_tok * expert) as f64;
        let head = (config.vocab_size * features) as f64;
        let whole = config.num_hidden_layers as f64 * (attention as f64 + experts) + head;
        let read = config.num_hidden_layers as f64 * (attention as f64 + chosen) + head;
        ((all - self.lookup_bytes) as f64 * (read / whole)) as u64
    }

    /// An empty cache of `n_blocks` blocks, each layer's on the layer's device.
    pub fn new_cache(&self, n_blocks: usize) -> PagedKvCache {
        let store = |part: &Part| {
            let shape = self.kv_shape(part.blocks.len(), n_blocks);
            let store = (self.stores.0)(&part.device, &shape);
            (shape, store)
        };
        PagedKvCache::new(self.parts.iter().map(store).collect())
    }

    /// Memory of one block of the cache in all layers.
    pub fn block_bytes(&self) -> u64 {
        self.kv_shape(self.config.num_hidden_layers, 1).block_bytes()
    }

    fn kv_shape(&self, n_layers: usize, n_blocks: usize) -> KvShape {
        KvShape {
            n_layers,
            n_kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
            n_blocks,
            dtype: self.cache_dtype,
        }
    }

    /// Runs the rows of a step through all layers and the final norm. `observe` sees the embeddings
    /// and the output of each layer, the last after the norm.
    ///
    /// # Shapes
    /// - returns `[rows, hidden_size]`
    ///
    /// # Errors
    /// `Nn` if layout and cache do not fit or the device fails.
    pub fn hidden_states(
        &self,
        tokens: &[u32],
        batch: &BatchLayout,
        cache: &mut PagedKvCache,
        observe: &mut dyn FnMut(&Tensor<2>),
    ) -> Result<Tensor<2>, LlmError> {
        cache.begin(batch)?;
        let mut device = self.first_device();
        let mut rotations = self.rotary.tables(batch, device);
        let mut x = self.embed_tokens.forward(tokens, device);
        for part in &self.parts {
            if part.device != *device {
                device = &part.device;
                rotations = rotations.to_device(device);
                x = x.to_device(device);
            }
            for (layer, block) in (part.first..).zip(&part.blocks) {
                observe(&x);
                x = block.forward(x, &mut LayerStep { layer, rotations: &rotations, cache })?;
            }
        }
        let x = self.norm.forward(x);
        observe(&x);
        Ok(x)
    }

    /// Computes with those parts of all layers that get only some rows of a step of up to `rows`.
    pub fn warm_up_parts(&self, rows: usize) {
        for part in &self.parts {
            let features = self.config.hidden_size;
            part.blocks.iter().for_each(|block| block.warm_up(rows, features, &part.device));
        }
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden_size]`; returns `[rows, vocab_size]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.lm_head.forward(hidden)
    }
}

fn block(
    config: &ModelConfig,
    layers: &dyn LayerSource<'_>,
    name: &str,
) -> Result<Box<dyn Block>, LlmError> {
    Ok(match config.arch {
        ModelArch::Llama => Box::new(LlamaBlock::load(config, layers, name)?),
        ModelArch::Mistral => Box::new(MistralBlock::load(config, layers, name)?),
        ModelArch::Mixtral => Box::new(MixtralBlock::load(config, layers, name)?),
    })
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "runs of layers are ranges")]
mod tests {
    use super::*;

    #[test]
    fn a_placement_covers_every_layer_once() {
        let device = Device::flex();
        let place = |runs: &[Range<usize>]| {
            Placement::new(runs.iter().map(|run| (device.clone(), run.clone())).collect())
        };
        assert_eq!(place(&[0..2, 2..5]).map(|placement| placement.n_layers()), Some(5));
        for wrong in [&[][..], &[1..2], &[0..2, 3..4], &[0..2, 1..4], &[0..2, 2..2]] {
            assert!(place(wrong).is_none(), "{wrong:?}");
        }
    }
}
