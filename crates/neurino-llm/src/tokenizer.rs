//! Text to tokens and back.
//!
//! A vocabulary comes as Hugging Face's `tokenizer.json`, as a SentencePiece file
//! (`tokenizer.model`, `spiece.model`), as `vocab.json` with `merges.txt` (CLIP), or inside a GGUF
//! file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::chat::usual;
use crate::guide::Vocabulary;
use crate::source::{GgufTokenizer, ModelSource, TokenizerSource};
use crate::tools::ToolSyntax;

mod charsmap;
mod clip;
mod error;
mod folder;
mod gguf;
mod outline;
mod pieces;
mod sentencepiece;
#[cfg(test)]
mod tests;
mod words;

pub use error::TokenizerError;
pub use pieces::TextStream;
use pieces::{Pieces, Spelling};

/// Largest token that makes sense; real vocabularies end below 300,000.
const TOKEN_MAX: u32 = (1 << 24) - 2;

/// Turns text into tokens and back. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: tokenizers::Tokenizer,
    pieces: Arc<Pieces>,
    /// A text is cleaned first, as CLIP does.
    clean: bool,
    bos: Option<String>,
    eos: Option<String>,
    ends: BTreeSet<u32>,
    /// Made when the first answer is guided.
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

/// A tokenizer as its files describe it.
struct Parts {
    inner: tokenizers::Tokenizer,
    spelling: Spelling,
    bos: Option<String>,
    eos: Option<String>,
    clean: bool,
    /// Further tokens that end an answer.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model. `ends` are the tokens that end an answer, beside the end
    /// token that the tokenizer itself names.
    ///
    /// # Errors
    /// Any [`TokenizerError`] but `Failed`.
    pub fn open(source: &TokenizerSource, ends: &[u32]) -> Result<Self, TokenizerError> {
        let parts = match source {
            TokenizerSource::HuggingFace { folder } => folder::open(folder)?,
            TokenizerSource::Gguf(vocabulary) => gguf::open(vocabulary)?,
        };
        Self::from_parts(parts, ends)
    }

    /// Opens the tokenizer of a model that is to answer in a chat: where the model brings no template, the
    /// usual one's end token ends its answers, too (see [`crate::chat::ChatTemplate::open`]).
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn of_model(source: &ModelSource) -> Result<Self, TokenizerError> {
        let mut opened = Self::open(&source.tokenizer, &source.eos)?;
        if source.chat_template.is_none()
            && let Some(end) = usual::format(&opened).and_then(|form| opened.token_id(form.end))
            && let Some(shared) = Arc::get_mut(&mut opened.shared)
        {
            shared.ends.insert(end);
        }
        Ok(opened)
    }

    /// Opens the tokenizer that lies in a folder, in whichever format it has.
    ///
    /// # Errors
    /// Any [`TokenizerError`] but `Failed`.
    pub fn open_folder(folder: &Path) -> Result<Self, TokenizerError> {
        Self::from_parts(folder::open(folder)?, &[])
    }

    /// Opens the vocabulary of a GGUF file.
    ///
    /// # Errors
    /// `Unsupported`, `Damaged`.
    pub fn from_gguf(vocabulary: &GgufTokenizer) -> Result<Self, TokenizerError> {
        Self::from_parts(gguf::open(vocabulary)?, &[])
    }

    /// CLIP's tokenizer from its merges alone, one pair a line, the most frequent first; the numbers
    /// of its tokens follow from them.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn from_clip_merges(merges: &str) -> Result<Self, TokenizerError> {
        Self::from_parts(clip::open(merges)?, &[])
    }

    /// Whether a folder has a tokenizer in any format of this build.
    pub fn is_in(folder: &Path) -> bool {
        folder::has_tokenizer(folder)
    }

    fn from_parts(parts: Parts, ends: &[u32]) -> Result<Self, TokenizerError> {
        let Parts { inner, spelling, bos, eos, clean, ends: known } = parts;
        let vocabulary = inner.get_vocab(true);
        if let Some((token, id)) = vocabulary.iter().find(|(_, id)| **id > TOKEN_MAX) {
            return Err(TokenizerError::Damaged(format!("`{token}` has the number {id}")));
        }
        let added = inner.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let end = eos.iter().filter_map(|token| inner.token_to_id(token));
        let shared = Shared {
            ends: end.chain(known).chain(ends.iter().copied()).collect(),
            pieces: Arc::new(Pieces::new(vocabulary, special, spelling)),
            vocabulary: OnceLock::new(),
            inner,
            clean,
            bos,
            eos,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The tokens of a text. `special` adds what the model wants around a bare text, such as its
    /// begin token; a rendered chat brings its own.
    ///
    /// # Errors
    /// `Failed`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let cleaned = self.shared.clean.then(|| words::clean(text));
        let text = cleaned.as_deref().unwrap_or(text);
        let encoding =
            self.shared.inner.encode_fast(text, special).map_err(TokenizerError::Failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, without special ones. Bytes that are no UTF-8 become `\u{FFFD}`.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = self.stream();
        let mut text: String = tokens.iter().map(|token| stream.push(*token)).collect();
        text.push_str(&stream.finish());
        if self.shared.clean {
            // The last word of CLIP ends as every other.
            text.truncate(text.trim_end().len());
        }
        text
    }

    /// Decodes tokens as they come.
    pub fn stream(&self) -> TextStream {
        TextStream::new(Arc::clone(&self.shared.pieces), BTreeSet::new())
    }

    /// Decodes tokens as they come, with the tokens that mark a function call as text.
    pub fn stream_with_tools(&self, syntax: ToolSyntax) -> TextStream {
        let marks = syntax.marks().iter().filter_map(|mark| self.token_id(mark));
        TextStream::new(Arc::clone(&self.shared.pieces), marks.collect())
    }

    /// The bytes of a token, which need not be whole characters; none outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.shared.pieces.bytes(token).to_vec()
    }

    /// One more than the largest token. A model may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.shared.pieces.len()
    }

    /// The id of a token by its text, special ones included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.shared.inner.token_to_id(token)
    }

    /// Whether a token has no text: begin and end tokens, chat markers.
    pub fn is_special(&self, token: u32) -> bool {
        self.shared.pieces.is_special(token)
    }

    /// The begin token's text.
    pub fn bos(&self) -> Option<&str> {
        self.shared.bos.as_deref()
    }

    /// The end token's text.
    pub fn eos(&self) -> Option<&str> {
        self.shared.eos.as_deref()
    }

    /// Whether the model ends its answer with this token.
    pub fn is_end(&self, token: u32) -> bool {
        self.shared.ends.contains(&token)
    }

    /// The tokens with which the model ends its answer, in order.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.shared.ends.iter().copied()
    }

    /// The vocabulary as guides walk it, made once.
    pub(crate) fn guide_vocabulary(&self) -> &OnceLock<Arc<Vocabulary>> {
        &self.shared.vocabulary
    }
}
