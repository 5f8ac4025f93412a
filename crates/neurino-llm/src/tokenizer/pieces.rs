//! The bytes of every token, and a text that grows token by token.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::sentencepiece::SPACE;

/// How a vocabulary writes bytes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Every byte is one printable character (GPT-2's table).
    ByteLevel,
    /// As byte level, and `</w>` ends a word (CLIP).
    Words,
    /// A lower block is a space, `<0x0A>` a byte (SentencePiece).
    SentencePiece {
        /// A text loses its first space when it is decoded.
        drop_first_space: bool,
    },
    /// As it stands.
    Plain,
}

impl Spelling {
    /// The spelling that a decoder of the tokenizer library undoes.
    pub(super) fn of_decoder(decoder: &Value) -> Self {
        let parts = match decoder["decoders"].as_array() {
            Some(parts) => parts.as_slice(),
            None => std::slice::from_ref(decoder),
        };
        let has = |kind: &str| parts.iter().find(|part| part["type"] == kind);
        if has("ByteLevel").is_some() {
            return Self::ByteLevel;
        }
        let spaced =
            parts.iter().any(|p| p["type"] == "Replace" && p["pattern"]["String"] == SPACE);
        let metaspace = has("Metaspace");
        if spaced || metaspace.is_some() || has("ByteFallback").is_some() {
            let stripped = has("Strip").is_some_and(|p| p["content"] == " " && p["start"] == 1);
            let scheme = metaspace.map(|p| p["prepend_scheme"] != "never");
            let drop_first_space = stripped || scheme.unwrap_or(false);
            return Self::SentencePiece { drop_first_space };
        }
        Self::Plain
    }

    fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::Plain => token.as_bytes().to_vec(),
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
                // A token that was added later is spelled as it is.
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Self::Words => match token.strip_suffix("</w>") {
                Some(word) => [Self::ByteLevel.bytes(word), vec![b' ']].concat(),
                None => Self::ByteLevel.bytes(token),
            },
            Self::SentencePiece { .. } => match byte_piece(token) {
                Some(byte) => vec![byte],
                None => token.replace(SPACE, " ").into_bytes(),
            },
        }
    }
}

/// The byte of `<0x0A>`.
fn byte_piece(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// The byte of a character in GPT-2's table: printable bytes stand for themselves, the others follow
/// each other from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The bytes of every token.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: HashMap<u32, Box<[u8]>>,
    special: BTreeSet<u32>,
    drop_first_space: bool,
    len: usize,
}

impl Pieces {
    /// The pieces of a vocabulary; `special` tokens are not part of an answer's text.
    pub(super) fn new(
        tokens: impl IntoIterator<Item = (String, u32)>,
        special: BTreeSet<u32>,
        spelling: Spelling,
    ) -> Self {
        let spell = |(token, id): (String, u32)| {
            let spelling = if special.contains(&id) { Spelling::Plain } else { spelling };
            (id, spelling.bytes(&token).into_boxed_slice())
        };
        let bytes: HashMap<u32, Box<[u8]>> = tokens.into_iter().map(spell).collect();
        let len = bytes.keys().max().map_or(0, |max| *max as usize + 1);
        let drop_first_space =
            matches!(spelling, Spelling::SentencePiece { drop_first_space: true });
        Self { bytes, special, drop_first_space, len }
    }

    /// One more than the largest token.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(&token).map_or(&[], |bytes| bytes)
    }

    pub(super) fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }
}

/// Decodes a growing sequence of tokens, one character at a time or more, never half of one.
#[derive(Debug, Clone)]
pub struct TextStream {
    pieces: Arc<Pieces>,
    /// Special tokens that are part of the text all the same.
    shown: BTreeSet<u32>,
    /// The beginning of a character: at most three bytes.
    held: Vec<u8>,
    /// Whether the next byte begins the text.
    at_start: bool,
}

impl TextStream {
    pub(super) fn new(pieces: Arc<Pieces>, shown: BTreeSet<u32>) -> Self {
        let at_start = pieces.drop_first_space;
        Self { pieces, shown, held: Vec::new(), at_start }
    }

    /// Takes a token; returns the text it completes, which may be empty. A token outside the
    /// vocabulary has no text. Bytes that are no UTF-8 become `\u{FFFD}`.
    pub fn push(&mut self, token: u32) -> String {
        if self.pieces.is_special(token) && !self.shown.contains(&token) {
            return String::new();
        }
        let mut bytes = self.pieces.bytes(token);
        if self.at_start && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.at_start = false;
        }
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut rest = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            let ends_here = chunk.valid().len() + chunk.invalid().len();
            let last = rest + ends_here == self.held.len();
            if last && may_continue(chunk.invalid()) {
                rest += chunk.valid().len();
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            rest += ends_here;
        }
        self.held.drain(..rest);
        text
    }

    /// What was still incomplete, as one `\u{FFFD}`.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Whether more bytes could make these a character. They are one maximal part that is no UTF-8.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&[u8]], drop_first_space: bool) -> TextStream {
        let bytes = (0..).zip(pieces).map(|(id, bytes)| (id, Box::from(*bytes))).collect();
        let special = BTreeSet::from([0]);
        let len = pieces.len();
        TextStream::new(Arc::new(Pieces { bytes, special, drop_first_space, len }), BTreeSet::new())
    }

    #[test]
    fn half_characters_wait_and_broken_ones_do_not_pile_up() {
        let pieces: [&[u8]; 5] = [b"<s>", &[0xf0, 0x9f], &[0x99, 0x82], b"a", &[0x82]];
        let mut text = stream(&pieces, false);
        assert_eq!(text.push(1), "");
        assert_eq!(text.push(0), "", "a special token has no text and breaks no character");
        assert_eq!(text.push(2), "\u{1F642}");
        assert_eq!(text.push(1), "");
        assert_eq!(text.push(3), "\u{FFFD}a");
        let broken: String = (0..100).map(|_| text.push(4)).collect();
        assert_eq!(broken, "\u{FFFD}".repeat(100));
        assert_eq!(text.push(99), "", "a token outside the vocabulary has no text");
        assert_eq!(text.push(1), "");
        assert_eq!(text.finish(), "\u{FFFD}");
    }

    #[test]
    fn only_the_first_space_is_dropped() {
        let mut text = stream(&[b"<s>", b" a", b" "], true);
        assert_eq!([0, 1, 1, 2].map(|id| text.push(id)), ["", "a", " a", " "]);
    }

    #[test]
    fn bytes_are_spelled_in_three_ways() {
        let level = Spelling::ByteLevel;
        let all: Vec<u8> = (0..=0x143_u32)
            .filter_map(char::from_u32)
            .filter_map(byte_of)
            .collect::<BTreeSet<u8>>()
            .into_iter()
            .collect();
        assert_eq!(all.len(), 256, "every byte has its character");
        assert_eq!(level.bytes("\u{120}a\u{10a}"), b" a\n");
        assert_eq!(level.bytes("two words"), b"two words");
        let piece = Spelling::SentencePiece { drop_first_space: true };
        assert_eq!(piece.bytes("\u{2581}a"), b" a");
        assert_eq!(piece.bytes("<0x0A>"), b"\n");
        assert_eq!(piece.bytes("<0x0A"), b"<0x0A");
        assert_eq!(Spelling::Words.bytes("cat</w>"), b"cat ");
    }
}
