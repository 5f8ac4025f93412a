//! CLIP's text encoder: L (Stable Diffusion 1.5, the first of SDXL's, Flux) and bigG (SDXL's second).

use std::path::Path;

use burn::tensor::{DType as TensorType, Tensor};
use neurino_nn::attention::{self, Mask};
use neurino_nn::{Affine, Embedding, LayerNorm, activation};
use serde::Deserialize;

use crate::DiffusionError;
use crate::checkpoint::Component;
use crate::lora::{Layer, LowRankLayers, Placement};
use crate::pulse::Pulse;

mod tokenizer;

pub use tokenizer::{ClipTokenizer, STANDARD_MERGES};

/// Features of a head where no configuration says otherwise.
const HEAD_WIDTH: usize = 64;
/// Configurations written with this end token mean "the largest id".
const LEGACY_EOS: u32 = 2;

/// The trained variants, which a single file does not tell apart by any configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipKind {
    /// CLIP ViT-L.
    L,
    /// OpenCLIP ViT-bigG.
    G,
}

/// What the feed-forward network does between its matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ClipActivation {
    /// `x * sigmoid(1.702 x)`
    #[serde(rename = "quick_gelu")]
    QuickGelu,
    /// With the error function.
    #[serde(rename = "gelu")]
    Gelu,
}

/// The dimensions of a text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Features of a token.
    pub width: usize,
    /// Features inside the feed-forward networks.
    pub mlp_width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of each block.
    pub heads: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Most tokens of a sequence.
    pub positions: usize,
    /// The activation.
    pub activation: ClipActivation,
    /// Features of the pooled vector if it is projected.
    pub projection: Option<usize>,
    /// Added to variances.
    pub norm_epsilon: f64,
    /// The token that the pooled vector is taken at; `None` is the largest id of the sequence.
    pub eos: Option<u32>,
}

/// `config.json` of a text encoder, with the defaults of its library.
#[derive(Deserialize)]
#[serde(default)]
struct ConfigFile {
    architectures: Vec<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    hidden_act: ClipActivation,
    projection_dim: usize,
    layer_norm_eps: f64,
    eos_token_id: u32,
}

impl Default for ConfigFile {
    fn default() -> Self {
        Self {
            architectures: Vec::new(),
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            vocab_size: 49_408,
            max_position_embeddings: 77,
            hidden_act: ClipActivation::QuickGelu,
            projection_dim: 512,
            layer_norm_eps: 1e-5,
            eos_token_id: LEGACY_EOS,
        }
    }
}

impl ClipConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// `Config` if it is unreadable or describes no such encoder.
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let bad = |problem: String| DiffusionError::Config { file: path.to_owned(), problem };
        let bytes = std::fs::read(path).map_err(|e| bad(format!("cannot be read ({e})")))?;
        let file: ConfigFile =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("is not understood ({e})")))?;
        let projected = file.architectures.iter().any(|name| name.ends_with("WithProjection"));
        let config = Self {
            width: file.hidden_size,
            mlp_width: file.intermediate_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            vocab_size: file.vocab_size,
            positions: file.max_position_embeddings,
            activation: file.hidden_act,
            projection: projected.then_some(file.projection_dim),
            norm_epsilon: file.layer_norm_eps,
            eos: Some(file.eos_token_id).filter(|eos| *eos != LEGACY_EOS),
        };
        config.check().map_err(bad)?;
        Ok(config)
    }

    /// The dimensions that the weights themselves tell, with the head width and activation of `kind`.
    ///
    /// # Errors
    /// `Config` if the weights are no such encoder's.
    pub fn infer(component: &Component<'_>, kind: ClipKind) -> Result<Self, DiffusionError> {
        let shape = |name: &str| {
            let file = name.into();
            match component.shape(name).as_deref() {
                Some(&[rows, columns]) => Ok([rows, columns]),
                Some(_) => Err(DiffusionError::Config { file, problem: "is no matrix".into() }),
                None => Err(DiffusionError::Config { file, problem: "is absent".into() }),
            }
        };
        let layer = |index: usize| format!("text_model.encoder.layers.{index}.mlp.fc1.weight");
        let mut layers = 0;
        while component.shape(&layer(layers)).is_some() {
            layers += 1;
        }
        let [vocab_size, width] = shape("text_model.embeddings.token_embedding.weight")?;
        let [positions, _] = shape("text_model.embeddings.position_embedding.weight")?;
        let [mlp_width, _] = shape(&layer(0))?;
        let projection = component.shape("text_projection.weight");
        let config = Self {
            width,
            mlp_width,
            layers,
            heads: (width / HEAD_WIDTH).max(1),
            vocab_size,
            positions,
            activation: match kind {
                ClipKind::L => ClipActivation::QuickGelu,
                ClipKind::G => ClipActivation::Gelu,
            },
            projection: projection.and_then(|shape| shape.first().copied()),
            norm_epsilon: 1e-5,
            eos: None,
        };
        let file = "text_model".into();
        config.check().map_err(|problem| DiffusionError::Config { file, problem })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.heads == 0 || self.width == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(format!("has {} heads over {} features", self.heads, self.width));
        }
        if self.layers == 0 || self.positions < 3 {
            return Err(format!("has {} layers and {} positions", self.layers, self.positions));
        }
        Ok(())
    }
}

/// What the encoder makes of a batch of sequences.
#[derive(Debug, Clone)]
pub struct ClipStates {
    /// After the last block and the final norm: `[batch, tokens, width]`.
    pub last_hidden: Tensor<3>,
    /// Before the last block, without norm: `[batch, tokens, width]`.
    pub penultimate: Tensor<3>,
    /// The last state at the first end token, projected where there is a projection:
    /// `[batch, projection or width]`.
    pub pooled: Tensor<2>,
}

/// A text encoder.
#[derive(Debug, Clone)]
pub struct ClipTextEncoder {
    config: ClipConfig,
    tokens: Embedding,
    /// `[positions, width]`, f32
    positions: Tensor<2>,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    projection: Option<Affine>,
    placement: Placement,
    pulse: Pulse,
}

#[derive(Debug, Clone)]
struct Block {
    attention_norm: LayerNorm,
    q: Affine,
    k: Affine,
    v: Affine,
    out: Affine,
    mlp_norm: LayerNorm,
    fc1: Affine,
    fc2: Affine,
}

impl ClipTextEncoder {
    /// Loads an encoder whose tensors have Hugging Face's names.
    ///
    /// # Errors
    /// `Weights` if a tensor is absent or of another shape, `Cancelled`.
    pub fn load(component: &Component<'_>, config: &ClipConfig) -> Result<Self, DiffusionError> {
        let width = config.width;
        let table = |name: &str, rows: usize| {
            component.tensor(&format!("text_model.embeddings.{name}.weight"), [rows, width])
        };
        let tokens = Embedding::dense(table("token_embedding", config.vocab_size)?);
        let positions = table("position_embedding", config.positions)?.cast(TensorType::F32);
        let part = component.sub("text_model");
        let blocks = (0..config.layers)
            .map(|index| Block::load(&part.sub("encoder.layers").sub(index), config))
            .collect::<Result<_, _>>()?;
        let final_norm = part.layer_norm("final_layer_norm", width, config.norm_epsilon)?;
        let project = |out: usize| component.linear_no_bias("text_projection", [out, width]);
        let projection = config.projection.map(project).transpose()?;
        let placement = component.placement();
        let (config, pulse) = (config.clone(), component.pulse());
        Ok(Self { config, tokens, positions, blocks, final_norm, projection, placement, pulse })
    }

    /// The dimensions.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Encodes a batch of sequences of one length, begin and end tokens included. A token sees those
    /// before it, so what stands behind the first end token changes nothing up to there.
    ///
    /// # Errors
    /// `Tokenizer` if the sequences are empty, of several lengths, longer than the encoder's
    /// positions, or hold a token outside its vocabulary.
    pub fn encode(&self, ids: &[Vec<u32>]) -> Result<ClipStates, DiffusionError> {
        let length = self.check(ids)?;
        let (batch, width) = (ids.len(), self.config.width);
        let tokens = self.tokens.forward(&ids.concat(), &self.placement.device);
        let positions = self.positions.clone().narrow(0, 0, length);
        let mut x = tokens.reshape([batch, length, width]) + positions.unsqueeze();
        let mut penultimate = x.clone();
        for block in &self.blocks {
            self.pulse.beat();
            penultimate = x.clone();
            x = block.forward(x, &self.config);
        }
        let last_hidden = self.final_norm.forward(x);
        let ends = ids.iter().map(|ids| self.end(ids)).enumerate();
        let rows = ends.map(|(row, end)| {
            last_hidden.clone().narrow(0, row, 1).narrow(1, end, 1).reshape([1, width])
        });
        let pooled: Tensor<2> = Tensor::cat(rows.collect(), 0);
        let pooled = match &self.projection {
            Some(projection) => projection.forward(pooled),
            None => pooled,
        };
        Ok(ClipStates { last_hidden, penultimate, pooled })
    }

    /// The common length of the sequences.
    fn check(&self, ids: &[Vec<u32>]) -> Result<usize, DiffusionError> {
        let refuse = |problem: String| Err(DiffusionError::Tokenizer(problem));
        let length = ids.first().map_or(0, Vec::len);
        if length == 0 || ids.iter().any(|ids| ids.len() != length) {
            return refuse("sequences of one length are needed".into());
        }
        if length > self.config.positions {
            let most = self.config.positions;
            return refuse(format!("{length} tokens are more than the encoder's {most}"));
        }
        let vocab = self.config.vocab_size;
        match ids.iter().flatten().find(|id| **id as usize >= vocab) {
            Some(id) => refuse(format!("token {id} is not among the encoder's {vocab}")),
            None => Ok(length),
        }
    }

    /// Where the pooled vector is taken.
    fn end(&self, ids: &[u32]) -> usize {
        let eos = self.config.eos.or_else(|| ids.iter().copied().max());
        ids.iter().position(|id| Some(*id) == eos).unwrap_or(0)
    }
}

impl LowRankLayers for ClipTextEncoder {
    fn placement(&self) -> &Placement {
        &self.placement
    }

    fn low_rank_layers(&mut self, visit: &mut dyn FnMut(&str, Layer<'_>)) {
        for (index, block) in self.blocks.iter_mut().enumerate() {
            let layers = [
                ("self_attn.q_proj", &mut block.q),
                ("self_attn.k_proj", &mut block.k),
                ("self_attn.v_proj", &mut block.v),
                ("self_attn.out_proj", &mut block.out),
                ("mlp.fc1", &mut block.fc1),
                ("mlp.fc2", &mut block.fc2),
            ];
            for (name, layer) in layers {
                let path = format!("text_model.encoder.layers.{index}.{name}");
                visit(&path, Layer::Affine(layer));
            }
        }
        if let Some(projection) = &mut self.projection {
            visit("text_projection", Layer::Affine(projection));
        }
    }
}

impl Block {
    fn load(part: &Component<'_>, config: &ClipConfig) -> Result<Self, DiffusionError> {
        let (width, mlp_width, epsilon) = (config.width, config.mlp_width, config.norm_epsilon);
        let square = |name: &str| part.linear(&format!("self_attn.{name}"), [width, width]);
        Ok(Self {
            attention_norm: part.layer_norm("layer_norm1", width, epsilon)?,
            q: square("q_proj")?,
            k: square("k_proj")?,
            v: square("v_proj")?,
            out: square("out_proj")?,
            mlp_norm: part.layer_norm("layer_norm2", width, epsilon)?,
            fc1: part.linear("mlp.fc1", [mlp_width, width])?,
            fc2: part.linear("mlp.fc2", [width, mlp_width])?,
        })
    }

    fn forward(&self, x: Tensor<3>, config: &ClipConfig) -> Tensor<3> {
        let normed = self.attention_norm.forward(x.clone());
        let [q, k, v] = Affine::forward_each([&self.q, &self.k, &self.v], normed);
        let scale = ((config.width / config.heads) as f32).sqrt().recip();
        let seen = attention::full(q, k, v, config.heads, scale, Mask::Causal);
        let x = x + self.out.forward(seen);
        let inner = self.fc1.forward(self.mlp_norm.forward(x.clone()));
        let inner = match config.activation {
            ClipActivation::QuickGelu => activation::quick_gelu(inner),
            ClipActivation::Gelu => activation::gelu(inner),
        };
        x + self.fc2.forward(inner)
    }
}
