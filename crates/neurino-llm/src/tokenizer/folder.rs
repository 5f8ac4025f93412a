//! The tokenizer of a model folder, in whichever format the folder has.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::processors::template::TemplateProcessing;

use super::pieces::Spelling;
use super::sentencepiece::{Algorithm, PieceKind, SentencePiece};
use super::{Parts, TokenizerError, outline, words};

/// Most sentinel tokens of a T5 vocabulary; real ones have 100.
const EXTRA_IDS_MAX: u32 = 1000;

/// The part of `tokenizer_config.json` that decides about ids.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    tokenizer_class: Option<String>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    extra_ids: Option<u32>,
    added_tokens_decoder: BTreeMap<String, Value>,
}

/// A special token: its text, or an object with it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Object { content: String },
    Other(serde::de::IgnoredAny),
}

impl Special {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Object { content: text } => Some(text),
            Self::Other(_) => None,
        }
    }
}

/// Whether the folder has a tokenizer in any format that [`open`] knows.
pub(super) fn has_tokenizer(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    has("tokenizer.json")
        || has("tokenizer.model")
        || has("spiece.model")
        || (has("vocab.json") && has("merges.txt"))
}

pub(super) fn open(folder: &Path) -> Result<Parts, TokenizerError> {
    let config: Config = json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let path = folder.join("tokenizer.json");
    if path.is_file() {
        return tokenizer_json(&path, config);
    }
    for name in ["tokenizer.model", "spiece.model"] {
        let path = folder.join(name);
        if path.is_file() {
            let model = SentencePiece::parse(&read(&path)?)?;
            let more = added_tokens(folder, &config)?;
            return sentence_piece(&model, more, config);
        }
    }
    if has_tokenizer(folder) {
        return vocab_and_merges(folder, config);
    }
    Err(TokenizerError::Missing { folder: folder.to_owned() })
}

fn tokenizer_json(path: &Path, config: Config) -> Result<Parts, TokenizerError> {
    let bytes = read(path)?;
    let malformed = |source| TokenizerError::Malformed { path: path.to_owned(), source };
    outline::check(&bytes).map_err(malformed)?;
    let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(malformed)?;
    // What a training script left behind: a prompt is neither cut nor filled up here.
    inner.with_truncation(None).map_err(TokenizerError::damaged)?.with_padding(None);
    let decoder = serde_json::to_value(inner.get_decoder()).map_err(TokenizerError::damaged)?;
    Ok(Parts {
        spelling: Spelling::of_decoder(&decoder),
        bos: config.bos_token.and_then(Special::text),
        eos: config.eos_token.and_then(Special::text),
        clean: false,
        ends: Vec::new(),
        inner,
    })
}

/// Tokens outside a SentencePiece model, from `tokenizer_config.json` or `added_tokens.json`.
fn added_tokens(
    folder: &Path,
    config: &Config,
) -> Result<BTreeMap<u32, AddedToken>, TokenizerError> {
    let bad = |id: &str| TokenizerError::Damaged(format!("the added token `{id}`"));
    let mut all = BTreeMap::new();
    for (id, token) in &config.added_tokens_decoder {
        let content = token["content"].as_str().ok_or_else(|| bad(id))?;
        let special = token["special"].as_bool().unwrap_or(false);
        let number = id.parse().map_err(|_| bad(id))?;
        all.insert(number, AddedToken::from(content, special).normalized(false));
    }
    let file: BTreeMap<String, u32> = json(&folder.join("added_tokens.json"))?.unwrap_or_default();
    for (content, id) in file {
        // Old files do not say which are special; these are chat markers.
        all.entry(id).or_insert_with(|| AddedToken::from(content, true).normalized(false));
    }
    Ok(all)
}

fn sentence_piece(
    model: &SentencePiece,
    mut more: BTreeMap<u32, AddedToken>,
    config: Config,
) -> Result<Parts, TokenizerError> {
    let is_t5 = config.tokenizer_class.as_deref().is_some_and(|name| name.contains("T5"));
    if is_t5 {
        let count = config.extra_ids.unwrap_or(100).min(EXTRA_IDS_MAX);
        for (id, number) in (model.pieces.len() as u32..).zip((0..count).rev()) {
            let token = AddedToken::from(format!("<extra_id_{number}>"), true).normalized(false);
            more.entry(id).or_insert(token);
        }
    }
    let mut inner = model.build()?;
    for (id, piece) in (0_u32..).zip(&model.pieces) {
        let special = match piece.kind {
            PieceKind::Control | PieceKind::Unknown => true,
            PieceKind::UserDefined => false,
            _ => continue,
        };
        let token = AddedToken::from(piece.text.clone(), special).normalized(false);
        more.entry(id).or_insert(token);
    }
    for (id, token) in more {
        let content = token.content.clone();
        inner.add_tokens([token]).map_err(TokenizerError::damaged)?;
        if inner.token_to_id(&content) != Some(id) {
            let why = format!("the added token `{content}` cannot have the number {id}");
            return Err(TokenizerError::Damaged(why));
        }
    }
    let text = |id: Option<u32>| id.and_then(|id| model.pieces.get(id as usize)).map(|p| &p.text);
    let (bos, eos) = (text(model.bos).cloned(), text(model.eos).cloned());
    // A unigram model of an encoder ends its text, a BPE model of a decoder begins it.
    let is_encoder = is_t5 || (model.algorithm == Algorithm::Unigram && bos.is_none());
    let before = bos.as_ref().filter(|_| config.add_bos_token.unwrap_or(!is_encoder));
    let after = eos.as_ref().filter(|_| config.add_eos_token.unwrap_or(is_encoder));
    surround(&mut inner, before, after)?;
    let drop_first_space = model.add_dummy_prefix;
    Ok(Parts {
        spelling: Spelling::SentencePiece { drop_first_space },
        bos: config.bos_token.and_then(Special::text).or(bos),
        eos: config.eos_token.and_then(Special::text).or(eos),
        clean: false,
        ends: Vec::new(),
        inner,
    })
}

/// Adds special tokens around every text.
pub(super) fn surround(
    inner: &mut tokenizers::Tokenizer,
    before: Option<&String>,
    after: Option<&String>,
) -> Result<(), TokenizerError> {
    let tokens: Vec<(String, u32)> = [before, after]
        .into_iter()
        .flatten()
        .filter_map(|text| Some((text.clone(), inner.token_to_id(text)?)))
        .collect();
    if tokens.is_empty() {
        return Ok(());
    }
    // The pieces one by one: a token's text may hold spaces or `$`.
    let known = |text: &&String| tokens.iter().any(|(name, _)| name == *text);
    let piece = |text: &String| serde_json::json!({ "SpecialToken": { "id": text, "type_id": 0 } });
    let sequence = serde_json::json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let single: Vec<Value> = before
        .filter(known)
        .map(piece)
        .into_iter()
        .chain([sequence])
        .chain(after.filter(known).map(piece))
        .collect();
    let special: serde_json::Map<String, Value> = tokens
        .iter()
        .map(|(text, id)| {
            let token = serde_json::json!({ "id": text, "ids": [id], "tokens": [text] });
            (text.clone(), token)
        })
        .collect();
    let template =
        serde_json::json!({ "single": single, "pair": single, "special_tokens": special });
    let template: TemplateProcessing =
        serde_json::from_value(template).map_err(TokenizerError::damaged)?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// `vocab.json` and `merges.txt`: GPT-2's format, or CLIP's.
fn vocab_and_merges(folder: &Path, config: Config) -> Result<Parts, TokenizerError> {
    let path = folder.join("vocab.json");
    let vocab: BTreeMap<String, u32> = json(&path)?.unwrap_or_default();
    let merges = String::from_utf8(read(&folder.join("merges.txt"))?).map_err(|e| {
        TokenizerError::Malformed { path: folder.join("merges.txt"), source: e.into() }
    })?;
    let is_clip = config.tokenizer_class.as_deref().is_some_and(|name| name.starts_with("CLIP"))
        || vocab.keys().any(|token| token.ends_with("</w>"));
    let bos = config.bos_token.and_then(Special::text);
    let eos = config.eos_token.and_then(Special::text);
    let inner = words::build(vocab, &merges, is_clip, bos.as_ref(), eos.as_ref())?;
    let spelling = if is_clip { Spelling::Words } else { Spelling::ByteLevel };
    Ok(Parts { inner, spelling, bos, eos, clean: is_clip, ends: Vec::new() })
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    std::fs::read(path)
        .map_err(|source| TokenizerError::Unreadable { path: path.to_owned(), source })
}

/// A JSON file of the folder, or `None` where it does not exist.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&read(path)?)
        .map(Some)
        .map_err(|e| TokenizerError::Malformed { path: path.to_owned(), source: e.into() })
}
