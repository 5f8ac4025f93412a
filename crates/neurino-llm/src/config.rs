//! A model's dimensions, from `config.json` or from GGUF metadata.

use std::path::Path;

use neurino_nn::rotary::{RopeScaling, RotaryEmbedding};
use neurino_weights::Gguf;
use serde::Deserialize;

use crate::LlmError;

/// Llama's configuration in the checkpoint's own keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the keys are the checkpoint's")]
pub struct LlamaConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Defaults to `num_attention_heads`.
    pub num_key_value_heads: Option<usize>,
    /// Defaults to `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    pub vocab_size: usize,
    /// Tokens of context the model was made for.
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f32,
    pub rope_scaling: Option<RopeScalingConfig>,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    #[serde(default = "default_hidden_act")]
    pub hidden_act: String,
}

/// `rope_scaling` in the checkpoint's own keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the keys are the checkpoint's")]
pub struct RopeScalingConfig {
    #[serde(alias = "type")]
    pub rope_type: String,
    pub factor: Option<f32>,
    pub low_freq_factor: Option<f32>,
    pub high_freq_factor: Option<f32>,
    pub original_max_position_embeddings: Option<f32>,
    /// GGUF's form of Llama 3.1's scaling; no checkpoint key.
    #[serde(skip)]
    pub divisors: Vec<f32>,
}

fn default_rope_theta() -> f32 {
    10_000.0
}

fn default_hidden_act() -> String {
    "silu".to_owned()
}

impl LlamaConfig {
    /// Reads the text of a `config.json` that lies at `path`.
    ///
    /// # Errors
    /// `BadConfig`, `UnsupportedFeature`.
    pub fn from_json(path: &Path, json: &[u8]) -> Result<Self, LlmError> {
        let config: Self = serde_json::from_slice(json)
            .map_err(|e| LlmError::BadConfig { path: path.to_owned(), reason: e.to_string() })?;
        config.validated(path)
    }

    /// Reads the metadata of a GGUF file of architecture `llama`.
    ///
    /// # Errors
    /// `BadConfig`, `UnsupportedFeature`; `Weights` for metadata that is absent or of a wrong type.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, LlmError> {
        let count = |key: &str| {
            let key = format!("llama.{key}");
            let found = gguf.uint(&key)?.and_then(|n| usize::try_from(n).ok());
            found.ok_or_else(|| gguf.bad_metadata(&key, "a whole number"))
        };
        let optional = |key: &str| {
            let found = gguf.uint(&format!("llama.{key}"));
            found.map(|n| n.and_then(|n| usize::try_from(n).ok()))
        };
        let epsilon = "llama.attention.layer_norm_rms_epsilon";
        let embedding = gguf.tensor("token_embd.weight")?;
        let config = Self {
            hidden_size: count("embedding_length")?,
            intermediate_size: count("feed_forward_length")?,
            num_hidden_layers: count("block_count")?,
            num_attention_heads: count("attention.head_count")?,
            num_key_value_heads: optional("attention.head_count_kv")?,
            head_dim: match optional("attention.key_length")? {
                None => optional("rope.dimension_count")?,
                found => found,
            },
            vocab_size: embedding.shape.first().copied().unwrap_or(0),
            max_position_embeddings: count("context_length")?,
            rms_norm_eps: gguf
                .float(epsilon)?
                .ok_or_else(|| gguf.bad_metadata(epsilon, "a number"))?,
            rope_theta: gguf.float("llama.rope.freq_base")?.map_or(10_000.0, |theta| theta as f32),
            rope_scaling: gguf_rope_scaling(gguf)?,
            tie_word_embeddings: !gguf.names().any(|name| name == "output.weight"),
            attention_bias: false,
            mlp_bias: false,
            hidden_act: default_hidden_act(),
        };
        config.validated(gguf.path())
    }

    fn validated(self, path: &Path) -> Result<Self, LlmError> {
        let bad = |reason: &str| {
            Err(LlmError::BadConfig { path: path.to_owned(), reason: reason.to_owned() })
        };
        let unsupported =
            |feature: String| Err(LlmError::UnsupportedFeature { path: path.to_owned(), feature });
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.n_kv_heads(),
            self.vocab_size,
            self.max_position_embeddings,
        ];
        // Real models are far below; products of two sizes stay far from overflow.
        if sizes.iter().any(|size| !(1..=1 << 26).contains(size)) {
            return bad("a dimension is zero or absurdly large");
        }
        if !self.num_attention_heads.is_multiple_of(self.n_kv_heads()) {
            return bad("the query heads cannot be shared out over the key-value heads");
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return bad("the hidden size cannot be shared out over the heads");
        }
        if !(2..=1 << 16).contains(&self.head_dim()) || !self.head_dim().is_multiple_of(2) {
            return bad("the size of a head is odd or absurd");
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.rope_theta) || !(f64::MIN_POSITIVE..1.0).contains(&self.rms_norm_eps) {
            return bad("rope_theta or rms_norm_eps is out of range");
        }
        if self.attention_bias || self.mlp_bias {
            return unsupported("layers with biases".to_owned());
        }
        if self.hidden_act != "silu" {
            return unsupported(format!("the activation `{}`", self.hidden_act));
        }
        match self.scaling() {
            Some(_) => Ok(self),
            None => unsupported(match &self.rope_scaling {
                Some(scaling) => format!("rope scaling `{}` with these values", scaling.rope_type),
                None => "this rope scaling".to_owned(),
            }),
        }
    }

    /// Key-value heads.
    pub fn n_kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Features of one head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// The model's position embedding.
    pub fn rotary(&self) -> RotaryEmbedding {
        let scaling = self.scaling().unwrap_or(RopeScaling::None);
        RotaryEmbedding::new(self.head_dim(), self.rope_theta, &scaling)
    }

    /// `None` if the scaling is one we do not have, or lacks a value.
    fn scaling(&self) -> Option<RopeScaling> {
        let Some(scaling) = &self.rope_scaling else { return Some(RopeScaling::None) };
        let factor = scaling.factor.filter(|factor| factor.is_finite() && *factor > 0.0);
        match scaling.rope_type.as_str() {
            "default" => Some(RopeScaling::None),
            "linear" => Some(RopeScaling::Linear { factor: factor? }),
            "llama3" => Some(RopeScaling::Llama3 {
                factor: factor?,
                low_freq_factor: scaling.low_freq_factor?,
                high_freq_factor: scaling.high_freq_factor?,
                original_context: scaling.original_max_position_embeddings?,
            }),
            GGUF_DIVISORS => Some(RopeScaling::Divisors(scaling.divisors.clone())),
            _ => None,
        }
    }
}

/// Our name for the scaling that a GGUF file stores as the tensor `rope_freqs.weight`.
const GGUF_DIVISORS: &str = "gguf_divisors";

fn gguf_rope_scaling(gguf: &Gguf) -> Result<Option<RopeScalingConfig>, LlmError> {
    let scaling = |rope_type: &str, factor, divisors| RopeScalingConfig {
        rope_type: rope_type.to_owned(),
        factor,
        low_freq_factor: None,
        high_freq_factor: None,
        original_max_position_embeddings: None,
        divisors,
    };
    if gguf.names().any(|name| name == "rope_freqs.weight") {
        let divisors = gguf.tensor("rope_freqs.weight")?.to_f32()?;
        return Ok(Some(scaling(GGUF_DIVISORS, None, divisors)));
    }
    Ok(match gguf.text("llama.rope.scaling.type")? {
        None | Some("none") => None,
        Some(kind) => {
            let factor = gguf.float("llama.rope.scaling.factor")?.map(|factor| factor as f32);
            Some(scaling(kind, factor, Vec::new()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"hidden_size":64,"intermediate_size":160,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":513,
        "max_position_embeddings":8192,"rms_norm_eps":1e-5}"#;

    fn read(change: &str) -> Result<LlamaConfig, LlmError> {
        let json = GOOD.replacen('{', &format!("{{{change}"), 1);
        LlamaConfig::from_json(Path::new("config.json"), json.as_bytes())
    }

    #[test]
    fn fills_in_what_old_checkpoints_leave_out() {
        let config = read("").expect("valid");
        assert_eq!((config.n_kv_heads(), config.head_dim()), (2, 16));
        assert_eq!((config.rope_theta, config.hidden_act.as_str()), (10_000.0, "silu"));
        assert!(!config.tie_word_embeddings);
        assert_eq!(config.rotary().inv_freq().len(), 8);
    }

    #[test]
    fn refuses_what_it_cannot_compute() {
        for feature in [
            r#""attention_bias":true,"#,
            r#""hidden_act":"gelu","#,
            r#""rope_scaling":{"type":"yarn","factor":4.0},"#,
            r#""rope_scaling":{"rope_type":"llama3","factor":8.0},"#,
        ] {
            let found = read(feature);
            assert!(matches!(found, Err(LlmError::UnsupportedFeature { .. })), "{feature}");
        }
        for damage in [r#""head_dim":3,"#, r#""rope_theta":-1.0,"#, r#""head_dim":"wide","#] {
            assert!(matches!(read(damage), Err(LlmError::BadConfig { .. })), "{damage}");
        }
        let heads = GOOD.replace("\"num_key_value_heads\":2", "\"num_key_value_heads\":3");
        let found = LlamaConfig::from_json(Path::new("config.json"), heads.as_bytes());
        assert!(matches!(found, Err(LlmError::BadConfig { .. })));
    }
}
