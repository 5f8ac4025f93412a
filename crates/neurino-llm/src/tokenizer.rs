//! Text to tokens and back: Hugging Face's `tokenizer.json`, or the vocabulary inside a GGUF file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::source::{GgufTokenizer, TokenizerSource};

/// Llama 3's split of a text into words, as its `tokenizer.json` spells it.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tokens after which unfinished text is let through as it is; a character has at most four bytes.
const UNFINISHED_TOKENS: usize = 16;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is missing or unreadable.
    #[error("cannot read {}; check that you may read it or download the model again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is no tokenizer this build understands; download the model again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The GGUF file's vocabulary is of another kind.
    #[error(
        "the tokenizer `{model}` with pre-tokenizer `{pre}` is not known to \
         this build; choose a model with `gpt2` and `smollm` or `llama-bpe`"
    )]
    Unsupported {
        /// `tokenizer.ggml.model`.
        model: String,
        /// `tokenizer.ggml.pre`.
        pre: String,
    },
    /// The GGUF file's vocabulary contradicts itself.
    #[error("the vocabulary is damaged ({0}); download the model again")]
    Damaged(String),
    /// A text could not be turned into tokens, or tokens into text.
    #[error("the tokenizer failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Turns text into tokens and back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<String>,
    eos: Option<String>,
    ends: BTreeSet<u32>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model. `ends` are the tokens that end an answer, beside the end
    /// token that the tokenizer itself names.
    ///
    /// # Errors
    /// Any [`TokenizerError`] but `Failed`.
    pub fn open(source: &TokenizerSource, ends: &[u32]) -> Result<Self, TokenizerError> {
        let mut tokenizer = match source {
            TokenizerSource::HuggingFace { folder } => Self::open_folder(folder)?,
            TokenizerSource::Gguf(vocabulary) => Self::from_gguf(vocabulary)?,
        };
        tokenizer.ends.extend(ends);
        Ok(tokenizer)
    }

    fn open_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let bytes = read(&path)?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|source| TokenizerError::Malformed { path, source })?;
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let (bos, eos) = (special(&config["bos_token"]), special(&config["eos_token"]));
        let ends = eos.iter().filter_map(|t| inner.token_to_id(t)).collect();
        Ok(Self { inner, bos, eos, ends })
    }

    fn from_gguf(vocabulary: &GgufTokenizer) -> Result<Self, TokenizerError> {
        let pieces = pre_tokenizer(vocabulary)?;
        let token = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).cloned();
        let (bos, eos) = (token(vocabulary.bos), token(vocabulary.eos));
        let mut inner = tokenizers::Tokenizer::new(bpe(vocabulary)?);
        inner.with_pre_tokenizer(Some(pieces));
        inner.with_decoder(Some(ByteLevel::default()));
        let (control, user) = added(vocabulary)?;
        inner.add_special_tokens(control).map_err(TokenizerError::Failed)?;
        inner.add_tokens(user).map_err(TokenizerError::Failed)?;
        if let (true, Some(bos), Some(id)) = (vocabulary.add_bos, &bos, vocabulary.bos) {
            let template = TemplateProcessing::builder()
                .try_single(format!("{bos} $A"))
                .map_err(TokenizerError::Damaged)?
                .special_tokens(vec![(bos.clone(), id)])
                .build()
                .map_err(|e| TokenizerError::Damaged(e.to_string()))?;
            inner.with_post_processor(Some(template));
        }
        Ok(Self { inner, bos, eos, ends: vocabulary.eos.into_iter().collect() })
    }

    /// The tokens of a text. `special` adds what the model wants around a bare text, such as its
    /// begin token; a rendered chat brings its own.
    ///
    /// # Errors
    /// `Failed`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, special).map_err(TokenizerError::Failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, without special ones. Bytes that are no UTF-8 become `\u{FFFD}`.
    ///
    /// # Errors
    /// `Failed`.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(tokens, true).map_err(TokenizerError::Failed)
    }

    /// Decodes tokens as they come.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), context: 0, done: 0 }
    }

    /// The id of a token by its text, special ones included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The begin token's text.
    pub fn bos(&self) -> Option<&str> {
        self.bos.as_deref()
    }

    /// The end token's text.
    pub fn eos(&self) -> Option<&str> {
        self.eos.as_deref()
    }

    /// Whether the model ends its answer with this token.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }
}

/// Decodes a growing sequence of tokens, one character at a time or more, never half of one.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens from here are decoded again, because their neighbours decide about spaces.
    context: usize,
    /// The text of the tokens before this one is out.
    done: usize,
}

impl TextStream<'_> {
    /// Takes a token; returns the text it completes, which may be empty.
    ///
    /// # Errors
    /// `Failed`.
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.tokens.push(token);
        let unfinished = self.tokens.len() - self.done;
        self.take(unfinished >= UNFINISHED_TOKENS)
    }

    /// What was still incomplete, with `\u{FFFD}` for missing bytes.
    ///
    /// # Errors
    /// `Failed`.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        self.take(true)
    }

    fn take(&mut self, complete: bool) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.tokens[self.context..self.done])?;
        let text = self.tokenizer.decode(&self.tokens[self.context..])?;
        if !complete && text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        // What is out already begins the new text, unless cut bytes were let through.
        let fresh = text.strip_prefix(&before).unwrap_or_default().to_owned();
        (self.context, self.done) = (self.done, self.tokens.len());
        Ok(fresh)
    }
}

/// How a text is split before pairs are merged, by the name the GGUF file gives it.
fn pre_tokenizer(vocabulary: &GgufTokenizer) -> Result<Sequence, TokenizerError> {
    let unsupported = || TokenizerError::Unsupported {
        model: vocabulary.model.clone(),
        pre: vocabulary.pre.clone().unwrap_or_else(|| "none".into()),
    };
    let bytes = |with_words| {
        let bytes = tokenizers::pre_tokenizers::byte_level::ByteLevel::new(false, true, with_words);
        PreTokenizerWrapper::ByteLevel(bytes)
    };
    match (vocabulary.model.as_str(), vocabulary.pre.as_deref()) {
        ("gpt2", Some("smollm")) => {
            Ok(Sequence::new(vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)]))
        }
        ("gpt2", Some("llama-bpe")) => {
            let pattern = SplitPattern::Regex(LLAMA3_PATTERN.into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(TokenizerError::Failed)?;
            Ok(Sequence::new(vec![PreTokenizerWrapper::Split(split), bytes(false)]))
        }
        _ => Err(unsupported()),
    }
}

fn bpe(vocabulary: &GgufTokenizer) -> Result<BPE, TokenizerError> {
    let tokens = (0_u32..).zip(&vocabulary.tokens).map(|(id, token)| (token.clone(), id));
    let merges = vocabulary.merges.iter().map(|merge| {
        let (a, b) = merge
            .split_once(' ')
            .ok_or_else(|| TokenizerError::Damaged(format!("the merge `{merge}` is not a pair")))?;
        Ok((a.to_owned(), b.to_owned()))
    });
    let vocab: tokenizers::models::bpe::Vocab = tokens.collect();
    BPE::builder()
        .vocab_and_merges(vocab, merges.collect::<Result<Vec<_>, TokenizerError>>()?)
        .ignore_merges(vocabulary.pre.as_deref() == Some("llama-bpe"))
        .build()
        .map_err(|e| TokenizerError::Damaged(e.to_string()))
}

/// The tokens that are matched as a whole: control tokens, and those the makers added as text.
fn added(vocabulary: &GgufTokenizer) -> Result<(Vec<AddedToken>, Vec<AddedToken>), TokenizerError> {
    const CONTROL: i32 = 3;
    const USER_DEFINED: i32 = 4;
    let (types, tokens) = (vocabulary.token_types.len(), vocabulary.tokens.len());
    if types != 0 && types != tokens {
        return Err(TokenizerError::Damaged(format!("{types} types for {tokens} tokens")));
    }
    let of_type = |wanted: i32| {
        let all = vocabulary.tokens.iter().zip(&vocabulary.token_types);
        all.filter(move |(_, kind)| **kind == wanted).map(|(token, _)| token.clone())
    };
    let control = of_type(CONTROL).map(|t| AddedToken::from(t, true).normalized(false));
    let user = of_type(USER_DEFINED).map(|t| AddedToken::from(t, false).normalized(false));
    Ok((control.collect(), user.collect()))
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path)
        .map_err(|source| TokenizerError::Unreadable { path: path.to_owned(), source })
}

/// A JSON file of the folder, or `None` where it does not exist.
fn read_json(path: &Path) -> Result<Option<Value>, TokenizerError> {
    if !path.exists() {
        return Ok(None);
    }
    serde_json::from_slice(&read(path)?)
        .map(Some)
        .map_err(|e| TokenizerError::Malformed { path: path.to_owned(), source: e.into() })
}

/// A special token in tokenizer_config.json: a string, or an object with its content.
fn special(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CASES: &str = include_str!("../../../tests/fixtures/text/tokenize.json");

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/text").join(name)
    }

    fn open(name: &str) -> Tokenizer {
        Tokenizer::open(&TokenizerSource::HuggingFace { folder: fixture(name) }, &[]).unwrap()
    }

    /// The fixture's Llama 3 vocabulary as a GGUF file would hold it.
    fn as_gguf(pre: &str) -> GgufTokenizer {
        let json = read_json(&fixture("llama3/tokenizer.json")).unwrap().unwrap();
        let mut tokens: Vec<(u64, &str, i32)> = Vec::new();
        for (token, id) in json["model"]["vocab"].as_object().unwrap() {
            tokens.push((id.as_u64().unwrap(), token, 1));
        }
        for added in json["added_tokens"].as_array().unwrap() {
            tokens.push((added["id"].as_u64().unwrap(), added["content"].as_str().unwrap(), 3));
        }
        tokens.sort_unstable();
        assert!((0..).zip(&tokens).all(|(index, token)| index == token.0));
        let merge = |m: &Value| match m.as_array() {
            Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            None => m.as_str().unwrap().to_owned(),
        };
        let id = |text: &str| tokens.iter().find(|t| t.1 == text).map(|t| t.0 as u32);
        GgufTokenizer {
            model: "gpt2".into(),
            pre: Some(pre.into()),
            tokens: tokens.iter().map(|t| t.1.to_owned()).collect(),
            token_types: tokens.iter().map(|t| t.2).collect(),
            merges: json["model"]["merges"].as_array().unwrap().iter().map(merge).collect(),
            bos: id("<|begin_of_text|>"),
            eos: id("<|im_end|>"),
            add_bos: true,
            ..GgufTokenizer::default()
        }
    }

    fn check(tokenizer: &Tokenizer, name: &str) {
        let all: Value = serde_json::from_str(CASES).unwrap();
        let cases = all[name].as_array().unwrap();
        assert!(cases.len() > 8);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids = |key: &str| -> Vec<u32> {
                case[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
            };
            let plain = ids("ids_without_special");
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids("ids"), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, false).unwrap(), plain, "{name}: {text:?}");
            let decoded = tokenizer.decode(&plain).unwrap();
            assert_eq!(decoded, case["decoded"].as_str().unwrap(), "{name}: {text:?}");
            let mut stream = tokenizer.stream();
            let mut pieces = String::new();
            for id in plain {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains('\u{FFFD}'), "half a character of {text:?}");
                pieces.push_str(&piece);
            }
            pieces.push_str(&stream.finish().unwrap());
            assert_eq!(pieces, decoded, "{name}: {text:?} piece by piece");
        }
    }

    #[test]
    fn hugging_face_files_agree_with_the_reference() {
        let llama = open("llama3");
        check(&llama, "llama3");
        check(&open("mistral"), "mistral");
        assert_eq!(llama.bos(), Some("<|begin_of_text|>"));
        assert!(llama.is_end(llama.token_id("<|im_end|>").unwrap()));
        assert!(!llama.is_end(llama.token_id("<|im_start|>").unwrap()));
    }

    #[test]
    fn a_gguf_vocabulary_agrees_with_the_reference() {
        let source = TokenizerSource::Gguf(as_gguf("llama-bpe"));
        let tokenizer = Tokenizer::open(&source, &[7]).unwrap();
        check(&tokenizer, "llama3");
        assert!(tokenizer.is_end(7) && tokenizer.is_end(tokenizer.token_id("<|im_end|>").unwrap()));
        assert_eq!(tokenizer.eos(), Some("<|im_end|>"));
    }

    #[test]
    fn smollm_reads_digits_one_by_one() {
        let source = TokenizerSource::Gguf(as_gguf("smollm"));
        let tokenizer = Tokenizer::open(&source, &[]).unwrap();
        let ids = tokenizer.encode("12345", false).unwrap();
        assert_eq!(ids.len(), 5);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "12345");
    }

    #[test]
    fn unfinished_bytes_are_held_back_and_let_go_in_the_end() {
        let tokenizer = open("llama3");
        let mut bytes = tokenizer.encode("\u{1F642}", false).unwrap();
        let last = bytes.pop().unwrap();
        let mut stream = tokenizer.stream();
        for byte in &bytes {
            assert_eq!(stream.push(*byte).unwrap(), "");
        }
        assert_eq!(stream.push(last).unwrap(), "\u{1F642}");
        for byte in &bytes {
            assert_eq!(stream.push(*byte).unwrap(), "");
        }
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
        let mut stream = tokenizer.stream();
        let held: usize = (0..100).map(|_| stream.push(last).unwrap().chars().count()).sum();
        assert!(held > 80, "broken bytes do not pile up");
    }

    #[test]
    fn unknown_and_damaged_vocabularies_are_named() {
        let open =
            |v: GgufTokenizer| Tokenizer::open(&TokenizerSource::Gguf(v), &[]).err().unwrap();
        let error = open(as_gguf("qwen2"));
        assert!(matches!(&error, TokenizerError::Unsupported { pre, .. } if pre == "qwen2"));
        assert!(error.to_string().contains("`qwen2`"));
        let other = GgufTokenizer { model: "llama".into(), ..as_gguf("smollm") };
        assert!(matches!(open(other), TokenizerError::Unsupported { .. }));
        let mut short = as_gguf("smollm");
        short.token_types.pop();
        assert!(matches!(open(short), TokenizerError::Damaged(_)));
        let mut merge = as_gguf("smollm");
        merge.merges.push("alone".into());
        assert!(matches!(open(merge), TokenizerError::Damaged(_)));
        let mut absent = as_gguf("smollm");
        absent.merges.push("no such".into());
        assert!(matches!(open(absent), TokenizerError::Damaged(_)));
        let folder = TokenizerSource::HuggingFace { folder: "/nonexistent".into() };
        let error = Tokenizer::open(&folder, &[]).err().unwrap();
        assert!(matches!(error, TokenizerError::Unreadable { .. }));
    }
}
