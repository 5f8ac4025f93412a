//! Opens a model from its metadata alone: a GGUF file, or a folder in Hugging Face's layout.

use std::path::{Path, PathBuf};

use neurino_weights::gguf::{Array, Value};
use neurino_weights::{Gguf, Safetensors};
use serde::Deserialize;

use crate::LlmError;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::tokenizer::Tokenizer;

mod foreign;
mod quantization;

/// The architectures of this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelArch {
    /// Llama 2 and 3 and everything built like them (SmolLM2, Hermes 3, ..).
    Llama,
    /// Mistral 7B: a Llama whose attention may be limited to a window.
    Mistral,
    /// Mixtral 8x7B: a Mistral with a mixture of experts.
    Mixtral,
}

impl ModelArch {
    /// The names in metadata that would work, for error messages.
    const SUPPORTED: &'static str = "llama, mistral, mixtral";

    /// Its name in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Mixtral => "mixtral",
        }
    }

    fn from_name(name: &str, path: &Path) -> Result<Self, LlmError> {
        match name {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "mixtral" => Ok(Self::Mixtral),
            other => Err(LlmError::UnsupportedArchitecture {
                path: path.to_owned(),
                found: other.chars().filter(|c| !c.is_control()).take(60).collect(),
                supported: Self::SUPPORTED,
            }),
        }
    }
}

/// Where a model's tokenizer is described.
#[derive(Debug, Clone)]
pub enum TokenizerSource {
    /// `tokenizer.json` and `tokenizer_config.json` in a folder.
    HuggingFace {
        /// The model's folder.
        folder: PathBuf,
    },
    /// GGUF metadata.
    Gguf(GgufTokenizer),
}

/// A tokenizer as GGUF metadata describes it (`tokenizer.ggml.*`).
#[derive(Debug, Clone, Default)]
pub struct GgufTokenizer {
    /// The algorithm: `gpt2` is byte-level BPE, `llama` is SentencePiece.
    pub model: String,
    /// How text is cut before the merges: `smollm`, `llama-bpe`, ..
    pub pre: Option<String>,
    /// The vocabulary; the index is the token id.
    pub tokens: Vec<String>,
    /// The kind of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    /// Empty if the file does not say.
    pub token_types: Vec<i32>,
    /// SentencePiece scores of the tokens; empty for BPE.
    pub scores: Vec<f32>,
    /// BPE merges in order of rank, two tokens separated by a space.
    pub merges: Vec<String>,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// The token that ends an answer.
    pub eos: Option<u32>,
    /// The token for what the vocabulary lacks.
    pub unknown: Option<u32>,
    /// Whether a text starts with `bos`.
    pub add_bos: bool,
    /// Whether SentencePiece puts a space before a text.
    pub add_space_prefix: bool,
}

/// An opened model: its metadata is read and checked, its weights are not read yet.
#[derive(Debug)]
pub struct ModelSource {
    /// The GGUF file or the folder.
    pub path: PathBuf,
    /// The architecture.
    pub arch: ModelArch,
    /// The dimensions.
    pub config: ModelConfig,
    /// The tokenizer's description.
    pub tokenizer: TokenizerSource,
    /// The Jinja template that turns a conversation into a prompt.
    pub chat_template: Option<String>,
    /// The template for conversations with functions, where the model has one of its own.
    pub tool_template: Option<String>,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// The tokens that end an answer.
    pub eos: Vec<u32>,
    pub(crate) checkpoint: Checkpoint,
}

impl ModelSource {
    /// Opens `path`, a GGUF file or a model folder.
    ///
    /// # Errors
    /// `NotAModel`, `NotALanguageModel`, `UnsupportedArchitecture`, `UnsupportedFeature`, `BadConfig`,
    /// `TokenizerMissing`, `Unreadable`, and `Weights` for damaged, short or missing weight files.
    pub fn open(path: &Path) -> Result<Self, LlmError> {
        let gguf = || foreign::only_gguf(path);
        if path.is_file() && Gguf::is_gguf(path) {
            open_gguf(path)
        } else if let (None, Some(gguf)) = (Safetensors::in_folder(path), gguf()) {
            open_gguf(&gguf)
        } else if path.join("config.json").is_file() {
            open_folder(path)
        } else {
            Err(foreign::refuse(path))
        }
    }

    /// Bytes of the stored weights: what loading reads.
    pub fn weights_bytes(&self) -> u64 {
        self.checkpoint.weights_bytes()
    }

    /// How most weights are stored, for people: `bf16`, `q4_k`, `gptq-4bit`, ..
    pub fn storage(&self) -> String {
        self.checkpoint.storage()
    }
}

/// The part of `config.json` that says what the rest means, and its token ids.
#[derive(Deserialize)]
struct Identity {
    /// Only parts of diffusers' models have it.
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    model_type: Option<String>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

/// `generation_config.json`.
#[derive(Deserialize, Default)]
struct GenerationConfig {
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// `tokenizer_config.json`.
#[derive(Deserialize, Default)]
struct TokenizerConfig {
    chat_template: Option<ChatTemplates>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplates {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

fn open_folder(folder: &Path) -> Result<ModelSource, LlmError> {
    let config_path = folder.join("config.json");
    let json = read(&config_path)?;
    let identity: Identity = parse(&config_path, &json)?;
    if identity.class_name.is_some() {
        return Err(foreign::part_of_image_model(folder));
    }
    let model_type = identity.model_type.unwrap_or_else(|| "unnamed".to_owned());
    let arch = ModelArch::from_name(&model_type, folder)?;
    let config = ModelConfig::from_json(&config_path, &json, arch)?;
    if !Tokenizer::is_in(folder) {
        let path = folder.to_owned();
        let missing = "tokenizer.json or tokenizer.model";
        return Err(LlmError::TokenizerMissing { path, missing });
    }
    let (chat_template, tool_template) = folder_chat_templates(folder)?;
    let generation: GenerationConfig = optional(&folder.join("generation_config.json"))?;
    let eos = generation.eos_token_id.or(identity.eos_token_id);
    let checkpoint = quantization::checkpoint(folder, &config_path, &json)
        .map_err(|error| foreign::other_weights(folder, error))?;
    checkpoint.check(folder, &config)?;
    Ok(ModelSource {
        path: folder.to_owned(),
        arch,
        config,
        tokenizer: TokenizerSource::HuggingFace { folder: folder.to_owned() },
        chat_template,
        tool_template,
        bos: generation.bos_token_id.or(identity.bos_token_id),
        eos: eos.map(OneOrMany::into_vec).unwrap_or_default(),
        checkpoint,
    })
}

/// The usual template and the one for functions: `chat_template.jinja` (and
/// `additional_chat_templates/tool_use.jinja`) if there is one, else the entry in
/// `tokenizer_config.json`, which may be a list with "default" and "tool_use".
fn folder_chat_templates(folder: &Path) -> Result<(Option<String>, Option<String>), LlmError> {
    let file = |name: &str| {
        let path = folder.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        match String::from_utf8(read(&path)?) {
            Ok(template) => Ok(Some(template)),
            Err(e) => Err(LlmError::BadConfig { path, reason: e.to_string() }),
        }
    };
    if let Some(template) = file("chat_template.jinja")? {
        return Ok((Some(template), file("additional_chat_templates/tool_use.jinja")?));
    }
    let config: TokenizerConfig = optional(&folder.join("tokenizer_config.json"))?;
    Ok(match config.chat_template {
        None => (None, None),
        Some(ChatTemplates::One(template)) => (Some(template), None),
        Some(ChatTemplates::Named(templates)) => {
            let named = |name: &str| templates.iter().find(|template| template.name == name);
            let text = |name: &str| named(name).map(|template| template.template.clone());
            (text("default").or_else(|| text("tool_use")), text("tool_use"))
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, LlmError> {
    std::fs::read(path).map_err(|source| LlmError::Unreadable { path: path.to_owned(), source })
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, json: &'a [u8]) -> Result<T, LlmError> {
    serde_json::from_slice(json)
        .map_err(|e| LlmError::BadConfig { path: path.to_owned(), reason: e.to_string() })
}

fn optional<T: serde::de::DeserializeOwned + Default>(path: &Path) -> Result<T, LlmError> {
    if path.is_file() { parse(path, &read(path)?) } else { Ok(T::default()) }
}

fn open_gguf(path: &Path) -> Result<ModelSource, LlmError> {
    let gguf = Gguf::open(path)?;
    foreign::refuse_parts(&gguf)?;
    let name = gguf.text("general.architecture")?.unwrap_or("unnamed");
    let arch = gguf_arch(&gguf, ModelArch::from_name(name, path)?)?;
    if let Some(foreign) = gguf.tensors().find(|tensor| tensor.dtype().unit().is_none()) {
        return Err(foreign.unsupported(foreign.dtype().name()).into());
    }
    let config = ModelConfig::from_gguf(&gguf, arch)?;
    let tokenizer = gguf_tokenizer(&gguf)?;
    let template = |key: &str| gguf.text(key).map(|text| text.map(str::to_owned));
    let chat_template = template("tokenizer.chat_template")?;
    let tool_template = template("tokenizer.chat_template.tool_use")?;
    let checkpoint = Checkpoint::Gguf(gguf);
    checkpoint.check(path, &config)?;
    Ok(ModelSource {
        path: path.to_owned(),
        arch,
        config,
        chat_template,
        tool_template,
        bos: tokenizer.bos,
        eos: tokenizer.eos.into_iter().collect(),
        tokenizer: TokenizerSource::Gguf(tokenizer),
        checkpoint,
    })
}

/// GGUF files of Mistral and Mixtral say `llama`; their dimensions tell.
fn gguf_arch(gguf: &Gguf, named: ModelArch) -> Result<ModelArch, LlmError> {
    let positive = |key: &str| gguf.uint(key).map(|n| n.is_some_and(|n| n > 0));
    if named != ModelArch::Llama {
        // Their metadata would have another prefix; no exporter writes such files.
        return Err(LlmError::UnsupportedFeature {
            path: gguf.path().to_owned(),
            feature: "metadata of an unknown exporter".to_owned(),
        });
    }
    Ok(if positive("llama.expert_count")? {
        ModelArch::Mixtral
    } else if positive("llama.attention.sliding_window")? {
        ModelArch::Mistral
    } else {
        ModelArch::Llama
    })
}

fn gguf_tokenizer(gguf: &Gguf) -> Result<GgufTokenizer, LlmError> {
    let missing = |missing| LlmError::TokenizerMissing { path: gguf.path().to_owned(), missing };
    let id = |name: &str| -> Result<Option<u32>, LlmError> {
        let id = gguf.uint(&format!("tokenizer.ggml.{name}_token_id"))?;
        Ok(id.and_then(|id| u32::try_from(id).ok()))
    };
    let flag = |name: &str| gguf.flag(&format!("tokenizer.ggml.{name}"));
    let texts = |name: &str| gguf.texts(&format!("tokenizer.ggml.{name}"));

    let model = gguf.text("tokenizer.ggml.model")?.ok_or(missing("tokenizer.ggml.model"))?;
    let tokens = texts("tokens")?.ok_or(missing("tokenizer.ggml.tokens"))?;
    let merges = texts("merges")?.unwrap_or_default();
    if model == "gpt2" && merges.is_empty() {
        return Err(missing("tokenizer.ggml.merges"));
    }
    let token_types = match gguf.get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(types))) => types.clone(),
        Some(Value::Array(Array::U32(types))) => types.iter().map(|t| t.cast_signed()).collect(),
        _ => Vec::new(),
    };
    let scores = gguf.get("tokenizer.ggml.scores").and_then(Value::as_f32s).unwrap_or_default();
    Ok(GgufTokenizer {
        model: model.to_owned(),
        pre: gguf.text("tokenizer.ggml.pre")?.map(str::to_owned),
        tokens: tokens.to_vec(),
        token_types,
        scores: scores.to_vec(),
        merges: merges.to_vec(),
        bos: id("bos")?,
        eos: id("eos")?,
        unknown: id("unknown")?,
        add_bos: flag("add_bos_token")?.unwrap_or(model == "llama"),
        add_space_prefix: flag("add_space_prefix")?.unwrap_or(model == "llama"),
    })
}
