//! CLIP's tokens: of the vocabulary in this crate, or of a model's folder.

use std::path::Path;
use std::sync::LazyLock;

use neurino_llm::Tokenizer;
use serde::Deserialize;
use serde_json::Value;

use crate::DiffusionError;

/// The merges of [`ClipTokenizer::standard`], one pair a line.
pub const STANDARD_MERGES: &str = include_str!("../../data/clip/merges.txt");

static STANDARD: LazyLock<ClipTokenizer> = LazyLock::new(|| {
    Tokenizer::from_clip_merges(STANDARD_MERGES)
        .map_err(|e| e.to_string())
        .and_then(|words| ClipTokenizer::new(words, None))
        .expect("the vocabulary in this crate is whole")
});

/// Turns prompts into CLIP's tokens. Cheap to clone.
#[derive(Clone)]
pub struct ClipTokenizer {
    words: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
}

/// The part of `tokenizer_config.json` and `special_tokens_map.json` that says what fills a prompt up.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Special {
    pad_token: Value,
}

impl ClipTokenizer {
    /// The vocabulary that all of CLIP's text encoders were trained with. Single-file checkpoints come
    /// without one.
    pub fn standard() -> Self {
        STANDARD.clone()
    }

    /// The vocabulary in a model's folder.
    ///
    /// # Errors
    /// `Tokenizer` if there is none, or it is not CLIP's kind.
    pub fn open(folder: &Path) -> Result<Self, DiffusionError> {
        let words =
            Tokenizer::open_folder(folder).map_err(|e| DiffusionError::Tokenizer(e.to_string()))?;
        let pad = ["tokenizer_config.json", "special_tokens_map.json"]
            .into_iter()
            .find_map(|name| pad_token(&folder.join(name)));
        Self::new(words, pad.as_deref()).map_err(DiffusionError::Tokenizer)
    }

    fn new(words: Tokenizer, pad: Option<&str>) -> Result<Self, String> {
        let id = |token: Option<&str>, what: &str| {
            token.and_then(|token| words.token_id(token)).ok_or_else(|| {
                format!("the vocabulary has no {what} token; download the model again")
            })
        };
        let (bos, eos) = (id(words.bos(), "begin")?, id(words.eos(), "end")?);
        let pad = pad.and_then(|token| words.token_id(token)).unwrap_or(eos);
        Ok(Self { words, bos, eos, pad })
    }

    /// The token that a sequence begins with.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The token that a sequence ends with.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The token that fills a sequence up.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The tokens of a text, without begin and end.
    ///
    /// # Errors
    /// `Tokenizer` if the text cannot be split.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, DiffusionError> {
        self.words.encode(text, false).map_err(|e| DiffusionError::Tokenizer(e.to_string()))
    }

    /// One sequence of exactly `length` tokens: begin, as much of the text as fits, end, and filling.
    ///
    /// # Errors
    /// As [`ClipTokenizer::tokens`].
    pub fn sequence(&self, text: &str, length: usize) -> Result<Vec<u32>, DiffusionError> {
        let mut ids = vec![self.bos];
        ids.extend(self.tokens(text)?.into_iter().take(length.saturating_sub(2)));
        ids.push(self.eos);
        ids.resize(length, self.pad);
        Ok(ids)
    }
}

/// The filling token that a file names, as text or as an object with its content.
fn pad_token(path: &Path) -> Option<String> {
    let special: Special = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let token = special.pad_token;
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}
