//! A model's dimensions, from `config.json` or from GGUF metadata.

use std::path::Path;

use neurino_nn::rotary::{RopeScaling, RotaryEmbedding};
use neurino_weights::Gguf;
use serde::Deserialize;

use crate::LlmError;
use crate::source::ModelArch;

pub mod shapes;

/// The dimensions of a model, all filled in and found consistent. Names are the checkpoint's.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the keys are the checkpoint's")]
pub struct ModelConfig {
    pub arch: ModelArch,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub vocab_size: usize,
    /// Tokens of context the model was made for.
    pub max_position_embeddings: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f32,
    pub rope_scaling: RopeScaling,
    pub tie_word_embeddings: bool,
    /// Keys that a query sees, its own included; `None` if all before it.
    pub sliding_window: Option<usize>,
    /// One for models without a mixture of experts.
    pub num_local_experts: usize,
    /// Experts that compute each token.
    pub num_experts_per_tok: usize,
    /// Whether the projections of attention have biases.
    pub attention_bias: bool,
    /// Whether those of the feed-forward network have.
    pub mlp_bias: bool,
    pub hidden_act: Activation,
}

/// What a feed-forward network does to its gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    #[default]
    Silu,
    /// With the error function.
    Gelu,
    /// With a hyperbolic tangent in its place.
    GeluTanh,
    /// With a logistic function in its place.
    QuickGelu,
    /// Nothing below zero.
    Relu,
}

impl Activation {
    /// By the names of `transformers@4.44.2 activations.py`.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            _ => return None,
        })
    }

    /// Its first name, for other programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_pytorch_tanh",
            Self::QuickGelu => "quick_gelu",
            Self::Relu => "relu",
        }
    }
}

/// `config.json`. What a checkpoint leaves out has the default of its architecture.
#[derive(Deserialize)]
struct Keys {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    #[serde(default)]
    num_key_value_heads: Setting,
    head_dim: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    /// Of LongRoPE: the context before it was extended.
    original_max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f32>,
    rope_scaling: Option<RopeKeys>,
    /// The newer name of both.
    rope_parameters: Option<RopeKeys>,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    sliding_window: Setting,
    num_local_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

/// A number for which `null` and no key at all mean different things.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(from = "Option<usize>")]
enum Setting {
    #[default]
    Absent,
    Null,
    Number(usize),
}

impl From<Option<usize>> for Setting {
    fn from(given: Option<usize>) -> Self {
        given.map_or(Self::Null, Self::Number)
    }
}

impl Setting {
    fn or(self, default: Option<usize>) -> Option<usize> {
        match self {
            Self::Absent => default,
            Self::Null => None,
            Self::Number(number) => Some(number),
        }
    }
}

/// `rope_scaling` or `rope_parameters`.
#[derive(Deserialize, Default)]
struct RopeKeys {
    rope_type: Option<String>,
    /// The older name of `rope_type`; files that were written anew have both.
    r#type: Option<String>,
    rope_theta: Option<f32>,
    factor: Option<f32>,
    low_freq_factor: Option<f32>,
    high_freq_factor: Option<f32>,
    original_max_position_embeddings: Option<f32>,
    attention_factor: Option<f32>,
    beta_fast: Option<f32>,
    beta_slow: Option<f32>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
}

/// What `transformers@4.44.2` takes for a key that `config.json` lacks (`configuration_*.py`).
struct Defaults {
    intermediate_size: usize,
    /// `None`: as many as query heads.
    num_key_value_heads: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: f32,
    sliding_window: Option<usize>,
}

impl Defaults {
    fn of(arch: ModelArch) -> Self {
        let mistral = Self {
            intermediate_size: 14_336,
            num_key_value_heads: Some(8),
            max_position_embeddings: 131_072,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            sliding_window: Some(4096),
        };
        match arch {
            ModelArch::Llama => Self {
                intermediate_size: 11_008,
                num_key_value_heads: None,
                max_position_embeddings: 2048,
                sliding_window: None,
                ..mistral
            },
            ModelArch::Mistral => mistral,
            ModelArch::Mixtral => {
                Self { rms_norm_eps: 1e-5, rope_theta: 1e6, sliding_window: None, ..mistral }
            }
        }
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json` that lies at `path` and belongs to a model of `arch`.
    ///
    /// # Errors
    /// `BadConfig`, `UnsupportedFeature`.
    pub fn from_json(path: &Path, json: &[u8], arch: ModelArch) -> Result<Self, LlmError> {
        let bad = |reason: String| LlmError::BadConfig { path: path.to_owned(), reason };
        let unsupported =
            |feature: String| LlmError::UnsupportedFeature { path: path.to_owned(), feature };
        let keys: Keys = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        let act = keys.hidden_act.as_deref().unwrap_or("silu");
        let hidden_act = Activation::named(act)
            .ok_or_else(|| unsupported(format!("the activation `{}`", printable(act))))?;
        let defaults = Defaults::of(arch);
        let rope = keys.rope_parameters.or(keys.rope_scaling).unwrap_or_default();
        let heads = keys.num_attention_heads.unwrap_or(32);
        let hidden_size = keys.hidden_size.unwrap_or(4096);
        if heads == 0 || keys.head_dim.is_none() && !hidden_size.is_multiple_of(heads) {
            return Err(bad("the hidden size cannot be shared out over the heads".to_owned()));
        }
        let window = keys.sliding_window.or(defaults.sliding_window);
        let (llama, mixture) = (arch == ModelArch::Llama, arch == ModelArch::Mixtral);
        let context = keys.max_position_embeddings.unwrap_or(defaults.max_position_embeddings);
        Self {
            arch,
            hidden_size,
            intermediate_size: keys.intermediate_size.unwrap_or(defaults.intermediate_size),
            num_hidden_layers: keys.num_hidden_layers.unwrap_or(32),
            num_attention_heads: heads,
            num_key_value_heads: keys
                .num_key_value_heads
                .or(defaults.num_key_value_heads)
                .unwrap_or(heads),
            head_dim: keys.head_dim.unwrap_or(hidden_size / heads),
            vocab_size: keys.vocab_size.unwrap_or(32_000),
            max_position_embeddings: context,
            rms_norm_eps: keys.rms_norm_eps.unwrap_or(defaults.rms_norm_eps),
            rope_theta: keys.rope_theta.or(rope.rope_theta).unwrap_or(defaults.rope_theta),
            // The others' attention takes neither scaling nor biases from a configuration.
            rope_scaling: if llama {
                rope.scaling(context, keys.original_max_position_embeddings).map_err(unsupported)?
            } else {
                RopeScaling::None
            },
            tie_word_embeddings: keys.tie_word_embeddings.unwrap_or(false),
            // The others have none, whatever their configuration says: early files of Mixtral
            // name one that it was never trained with.
            sliding_window: window.filter(|_| arch == ModelArch::Mistral),
            num_local_experts: if mixture { keys.num_local_experts.unwrap_or(8) } else { 1 },
            num_experts_per_tok: if mixture { keys.num_experts_per_tok.unwrap_or(2) } else { 1 },
            attention_bias: llama && keys.attention_bias == Some(true),
            mlp_bias: llama && keys.mlp_bias == Some(true),
            hidden_act,
        }
        .validated(path)
    }

    /// Reads the metadata of a GGUF file of architecture `llama`, which Mistral and Mixtral are too.
    ///
    /// # Errors
    /// `BadConfig`, `UnsupportedFeature`; `Weights` for metadata that is absent or of a wrong type.
    pub fn from_gguf(gguf: &Gguf, arch: ModelArch) -> Result<Self, LlmError> {
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
        let embedding = gguf.stored("token_embd.weight")?;
        let (hidden_size, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let context = count("context_length")?;
        let key_length = match optional("attention.key_length")? {
            None => optional("rope.dimension_count")?,
            found => found,
        };
        Self {
            arch,
            hidden_size,
            intermediate_size: count("feed_forward_length")?,
            num_hidden_layers: count("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim: key_length.or(hidden_size.checked_div(heads)).unwrap_or(0),
            vocab_size: embedding.shape().first().copied().unwrap_or(0),
            max_position_embeddings: context,
            rms_norm_eps: gguf
                .float(epsilon)?
                .ok_or_else(|| gguf.bad_metadata(epsilon, "a number"))?,
            rope_theta: gguf.float("llama.rope.freq_base")?.map_or(10_000.0, |theta| theta as f32),
            rope_scaling: gguf_rope_scaling(gguf, context)?,
            tie_word_embeddings: !gguf.names().any(|name| name == "output.weight"),
            // As for configurations: early files of Mixtral name a window that it was never trained with.
            sliding_window: optional("attention.sliding_window")?
                .filter(|window| *window > 0 && arch == ModelArch::Mistral),
            num_local_experts: optional("expert_count")?.filter(|n| *n > 0).unwrap_or(1),
            num_experts_per_tok: optional("expert_used_count")?.filter(|n| *n > 0).unwrap_or(1),
            attention_bias: false,
            mlp_bias: false,
            hidden_act: Activation::Silu,
        }
        .validated(gguf.path())
    }

    fn validated(self, path: &Path) -> Result<Self, LlmError> {
        let bad = |reason: &str| {
            Err(LlmError::BadConfig { path: path.to_owned(), reason: reason.to_owned() })
        };
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.vocab_size,
            self.max_position_embeddings,
            self.sliding_window.unwrap_or(1),
        ];
        // Real models are far below; products of two sizes stay far from overflow.
        if sizes.iter().any(|size| !(1..=1 << 26).contains(size)) {
            return bad("a dimension is zero or absurdly large");
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return bad("the query heads cannot be shared out over the key-value heads");
        }
        if !(2..=1 << 16).contains(&self.head_dim) || !self.head_dim.is_multiple_of(2) {
            return bad("the size of a head is odd or absurd");
        }
        if !(1..=1 << 12).contains(&self.num_local_experts)
            || !(1..=self.num_local_experts).contains(&self.num_experts_per_tok)
        {
            return bad("the number of experts is absurd, or fewer than a token needs");
        }
        let positive = |x: f32| x.is_finite() && x > 0.0;
        if !positive(self.rope_theta) || !(f64::MIN_POSITIVE..1.0).contains(&self.rms_norm_eps) {
            return bad("rope_theta or rms_norm_eps is out of range");
        }
        let one_each = |divisors: &[f32]| {
            divisors.len() == self.head_dim / 2 && divisors.iter().all(|d| positive(*d))
        };
        match &self.rope_scaling {
            RopeScaling::Divisors(divisors) if !one_each(divisors) => {
                bad("`rope_freqs.weight` is not one positive number for each pair of a head")
            }
            RopeScaling::LongRope { divisors, .. } if !one_each(divisors) => {
                bad("longrope's factors are not one positive number for each pair of a head")
            }
            _ => Ok(self),
        }
    }

    /// The model's position embedding.
    pub fn rotary(&self) -> RotaryEmbedding {
        RotaryEmbedding::new(self.head_dim, self.rope_theta, &self.rope_scaling)
    }

    /// Memory that a step of `rows` rows, `logit_rows` of them scored, needs at its peak beside
    /// weights and cache; without what attention keeps of its scores. Activations are f32.
    pub fn activation_bytes(&self, rows: usize, logit_rows: usize) -> u64 {
        let features = self.hidden_size;
        // The residual stream and its normalised copy stay while a sub-layer computes.
        let attention = 2 * self.q_size() + 2 * self.kv_size() + features;
        let feed_forward = self.num_experts_per_tok * (3 * self.intermediate_size + features);
        let layer = rows * (2 * features + attention.max(feed_forward));
        let head = rows * features + logit_rows * (features + self.vocab_size);
        (layer.max(head) * size_of::<f32>()) as u64
    }

    /// Features of all query heads.
    pub fn q_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Features of all key heads, and of all value heads.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

impl RopeKeys {
    /// For a model of this `context`. `original` is the one before it was extended, if that is told
    /// outside of these keys. The error is the missing feature, in words.
    fn scaling(&self, context: usize, original: Option<usize>) -> Result<RopeScaling, String> {
        let kind = self.rope_type.as_ref().or(self.r#type.as_ref()).map_or("default", |kind| kind);
        let incomplete = || format!("rope scaling `{}` with these values", printable(kind));
        let positive = |x: Option<f32>| x.filter(|x| x.is_finite() && *x > 0.0);
        let factor = || positive(self.factor).ok_or_else(incomplete);
        match kind {
            "default" => Ok(RopeScaling::None),
            "dynamic" => Ok(RopeScaling::Dynamic { factor: factor()?, context }),
            "longrope" => {
                let trained = original.unwrap_or(context);
                let factor = match original {
                    Some(original) if original > 0 => context as f32 / original as f32,
                    _ => factor()?,
                };
                let divisors = if factor > 1.0 { &self.long_factor } else { &self.short_factor };
                // As YaRN's, it is what the paper suggests unless the file says otherwise.
                let suggested = || (1.0 + factor.max(1.0).ln() / (trained as f32).ln()).sqrt();
                let magnitude = positive(self.attention_factor).unwrap_or_else(suggested);
                let divisors = divisors.clone().ok_or_else(incomplete)?;
                Ok(RopeScaling::LongRope { divisors, magnitude })
            }
            "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
            "llama3" => {
                let value = |x| positive(x).ok_or_else(incomplete);
                Ok(RopeScaling::Llama3 {
                    factor: factor()?,
                    low_freq_factor: value(self.low_freq_factor)?,
                    high_freq_factor: value(self.high_freq_factor)?,
                    original_context: value(self.original_max_position_embeddings)?,
                })
            }
            "yarn" => {
                let factor = factor()?;
                Ok(RopeScaling::Yarn {
                    factor,
                    magnitude: positive(self.attention_factor).unwrap_or(0.1 * factor.ln() + 1.0),
                    beta_fast: positive(self.beta_fast).unwrap_or(32.0),
                    beta_slow: positive(self.beta_slow).unwrap_or(1.0),
                    context: context as f32,
                })
            }
            other => Err(format!("rope scaling `{}`", printable(other))),
        }
    }
}

/// A word of a file, fit for a message.
fn printable(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Llama 3.1's scaling is a tensor of divisors there; other scaling is metadata. A file that names a
/// factor and no kind means `linear`, and before kinds had names the factor had another key.
///
/// Source: llama.cpp `llama_model::load_hparams`.
fn gguf_rope_scaling(gguf: &Gguf, context: usize) -> Result<RopeScaling, LlmError> {
    if gguf.names().any(|name| name == "rope_freqs.weight") {
        return Ok(RopeScaling::Divisors(gguf.tensor("rope_freqs.weight")?.to_f32()?));
    }
    let factor = |key: &str| {
        let factor = gguf.float(&format!("llama.rope.{key}"))?.filter(|factor| *factor != 0.0);
        Ok::<_, LlmError>(factor.map(|factor| factor as f32))
    };
    let factor = match factor("scaling.factor")? {
        None => factor("scale_linear")?,
        found => found,
    };
    let kind = gguf.text("llama.rope.scaling.type")?.unwrap_or("linear");
    if kind == "none" || kind == "linear" && factor.is_none() {
        return Ok(RopeScaling::None);
    }
    let keys = RopeKeys { rope_type: Some(kind.to_owned()), factor, ..RopeKeys::default() };
    let original = gguf.uint("llama.rope.scaling.original_context_length")?;
    // YaRN goes by what the model was trained on.
    let original = original.filter(|tokens| *tokens > 0 && kind == "yarn");
    let context = original.and_then(|tokens| usize::try_from(tokens).ok()).unwrap_or(context);
    let path = gguf.path().to_owned();
    keys.scaling(context, None).map_err(|feature| LlmError::UnsupportedFeature { path, feature })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"hidden_size":64,"intermediate_size":160,"num_hidden_layers":3,
        "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":513,
        "max_position_embeddings":8192,"rms_norm_eps":1e-5}"#;

    fn read_as(arch: ModelArch, json: &str) -> Result<ModelConfig, LlmError> {
        ModelConfig::from_json(Path::new("config.json"), json.as_bytes(), arch)
    }

    fn read(change: &str) -> Result<ModelConfig, LlmError> {
        read_as(ModelArch::Llama, &GOOD.replacen('{', &format!("{{{change}"), 1))
    }

    #[test]
    fn fills_in_what_old_checkpoints_leave_out() {
        let config = read("").expect("valid");
        assert_eq!((config.num_key_value_heads, config.head_dim), (2, 16));
        assert_eq!((config.rope_theta, config.sliding_window), (10_000.0, None));
        assert!(!config.tie_word_embeddings);
        assert_eq!(config.rotary().inv_freq().len(), 8);
        assert_eq!(read(r#""head_dim":24,"#).expect("valid").q_size(), 96);
    }

    /// Exporters write only what differs from the architecture's defaults.
    #[test]
    fn an_empty_configuration_is_the_architectures_default() {
        let config = read_as(ModelArch::Llama, "{}").expect("valid");
        assert_eq!((config.hidden_size, config.num_key_value_heads), (4096, 32));
        assert_eq!((config.max_position_embeddings, config.rms_norm_eps), (2048, 1e-6));
        let config = read_as(ModelArch::Mistral, "{}").expect("valid");
        assert_eq!((config.num_key_value_heads, config.sliding_window), (8, Some(4096)));
        let config = read_as(ModelArch::Mixtral, "{}").expect("valid");
        assert_eq!((config.num_local_experts, config.num_experts_per_tok), (8, 2));
        assert_eq!((config.rope_theta, config.sliding_window), (1e6, None));
    }

    #[test]
    fn null_is_not_the_default() {
        let nothing = r#"{"sliding_window":null,"num_key_value_heads":null}"#;
        let config = read_as(ModelArch::Mistral, nothing).expect("valid");
        assert_eq!((config.sliding_window, config.num_key_value_heads), (None, 32));
        let config = read_as(ModelArch::Llama, r#"{"sliding_window":16}"#).expect("valid");
        assert_eq!(config.sliding_window, None, "Llama has none");
    }

    #[test]
    fn every_spelling_of_rope_scaling() {
        let scaling = |json: &str| read(json).expect("valid").rope_scaling;
        let linear = RopeScaling::Linear { factor: 2.0 };
        for json in [
            r#""rope_scaling":{"type":"linear","factor":2.0},"#,
            r#""rope_scaling":{"type":"linear","rope_type":"linear","factor":2},"#,
            r#""rope_parameters":{"rope_type":"linear","factor":2.0,"rope_theta":7.0},"#,
        ] {
            assert_eq!(scaling(json), linear, "{json}");
        }
        let theta = r#""rope_parameters":{"rope_type":"default","rope_theta":7.0},"#;
        let found = read(theta).expect("valid").rope_theta;
        assert!((found - 7.0).abs() < f32::EPSILON, "{found}");
        let dynamic = r#""rope_scaling":{"type":"dynamic","factor":2.0},"#;
        assert_eq!(scaling(dynamic), RopeScaling::Dynamic { factor: 2.0, context: 8192 });
        assert_eq!(scaling(r#""rope_scaling":null,"#), RopeScaling::None);
        let yarn = r#""rope_scaling":{"type":"yarn","factor":4.0,"beta_fast":16,
            "original_max_position_embeddings":2048},"#;
        let magnitude = 0.1 * 4f32.ln() + 1.0;
        let (beta_fast, beta_slow, context) = (16.0, 1.0, 8192.0);
        let expect = RopeScaling::Yarn { factor: 4.0, magnitude, beta_fast, beta_slow, context };
        assert_eq!(scaling(yarn), expect);
    }

    #[test]
    fn longrope_goes_by_the_factor_or_by_both_contexts() {
        let factors = r#""short_factor":[1,1,1,1,1,1,1,2],"long_factor":[1,2,3,4,5,6,7,8]"#;
        let scaling = |change: &str| match read(change).expect("valid").rope_scaling {
            RopeScaling::LongRope { divisors, magnitude } => (divisors[7], magnitude),
            other => panic!("{other:?}"),
        };
        let close = |(divisor, magnitude): (f32, f32), expect: (f32, f64)| {
            assert!((divisor - expect.0).abs() < f32::EPSILON, "{divisor}");
            assert!((f64::from(magnitude) - expect.1).abs() < 1e-6, "{magnitude}");
        };
        let rope = |more: &str| format!(r#""rope_scaling":{{"type":"longrope",{factors}{more}}},"#);
        let suggested = |factor: f64, context: f64| (1.0 + factor.ln() / context.ln()).sqrt();
        close(scaling(&rope(r#","factor":4.0"#)), (8.0, suggested(4.0, 8192.0)));
        close(scaling(&rope(r#","factor":0.5"#)), (2.0, 1.0));
        close(scaling(&rope(r#","factor":4.0,"attention_factor":1.5"#)), (8.0, 1.5));
        let extended = format!(r#""original_max_position_embeddings":2048,{}"#, rope(""));
        close(scaling(&extended), (8.0, suggested(4.0, 2048.0)));
    }

    #[test]
    fn only_llama_scales_its_rotation_and_has_biases() {
        let json = r#"{"rope_scaling":{"type":"linear","factor":2.0},"attention_bias":true,
            "mlp_bias":true}"#;
        for arch in [ModelArch::Mistral, ModelArch::Mixtral] {
            let config = read_as(arch, json).expect("valid");
            assert_eq!(config.rope_scaling, RopeScaling::None, "{arch:?}");
            assert!(!config.attention_bias && !config.mlp_bias, "{arch:?}");
        }
        let config = read_as(ModelArch::Llama, json).expect("valid");
        assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
        assert!(config.attention_bias && config.mlp_bias);
    }

    /// Expected values: `transformers@4.44.2` `_compute_yarn_parameters` with the same configuration,
    /// in 64 bits.
    #[test]
    fn yarn_turns_as_in_the_reference() {
        let json = r#""head_dim":16,"rope_scaling":{"rope_type":"yarn","factor":4.0,
            "original_max_position_embeddings":2048},"#;
        let config = read(json).expect("valid");
        let expect: [f32; 8] = [
            1.0,
            0.316_227_77,
            0.1,
            0.031_622_78,
            0.008_125,
            0.001_976_423_5,
            0.000_437_5,
            0.000_079_056_94,
        ];
        for (found, expect) in config.rotary().inv_freq().iter().zip(expect) {
            assert!((found - expect).abs() <= 1e-6 * expect, "{found} {expect}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_compute() {
        for feature in [
            r#""hidden_act":"mish","#,
            r#""rope_scaling":{"type":"longrope","factor":4.0},"#,
            r#""rope_scaling":{"type":"longrope","long_factor":[1,2,3,4,5,6,7,8]},"#,
            r#""rope_scaling":{"type":"llama4","factor":4.0},"#,
            r#""rope_scaling":{"type":"linear","factor":0.0},"#,
            r#""rope_scaling":{"rope_type":"llama3","factor":8.0},"#,
        ] {
            let found = read(feature);
            assert!(matches!(found, Err(LlmError::UnsupportedFeature { .. })), "{feature}");
        }
        for damage in [
            r#""head_dim":3,"#,
            r#""rope_theta":-1.0,"#,
            r#""head_dim":"wide","#,
            r#""sliding_window":"wide","#,
            r#""rope_scaling":{"type":"longrope","factor":4.0,"long_factor":[1,2,3]},"#,
        ] {
            assert!(matches!(read(damage), Err(LlmError::BadConfig { .. })), "{damage}");
        }
        for divisors in [vec![1.0; 7], vec![1.0; 9], vec![0.0; 8], vec![f32::NAN; 8], vec![2.0; 8]]
        {
            let good = divisors == [2.0; 8];
            let rope_scaling = RopeScaling::Divisors(divisors);
            let scaled = ModelConfig { rope_scaling, ..read("").expect("is good") };
            let found = scaled.validated(Path::new("model.gguf"));
            assert_eq!(found.is_ok(), good, "{found:?}");
        }
        let heads = GOOD.replace("\"num_key_value_heads\":2", "\"num_key_value_heads\":3");
        let no_heads = GOOD.replace("\"num_attention_heads\":4", "\"num_attention_heads\":0");
        for json in [heads, no_heads] {
            let found = read_as(ModelArch::Llama, &json);
            assert!(matches!(found, Err(LlmError::BadConfig { .. })), "{json}");
        }
        for experts in [r#"{"num_local_experts":0}"#, r#"{"num_experts_per_tok":9}"#] {
            let found = read_as(ModelArch::Mixtral, experts);
            assert!(matches!(found, Err(LlmError::BadConfig { .. })), "{experts}");
        }
    }
}
