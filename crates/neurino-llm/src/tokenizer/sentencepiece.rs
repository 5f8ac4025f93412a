//! SentencePiece models: the protobuf file (`tokenizer.model`, `spiece.model`), and how its two
//! algorithms are set up.
//!
//! Only the fields that decide about ids are read; the message is `ModelProto` in SentencePiece's
//! `sentencepiece_model.proto`.

use std::collections::HashMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    NormalizerWrapper, Precompiled, Prepend, Replace, Sequence as Normalizers,
};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::{TokenizerError, charsmap};

/// How SentencePiece writes a space.
pub(super) const SPACE: &str = "\u{2581}";
/// Longest piece of a vocabulary, in bytes. Real ones stay below 100, runs of spaces included.
const PIECE_BYTES_MAX: usize = 512;

/// What a piece of the vocabulary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Never made from text.
    Control,
    /// Matched as a whole before anything else.
    UserDefined,
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl PieceKind {
    /// The kind by its number, which protobuf and GGUF files share.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// A piece of the vocabulary; its index is its token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: PieceKind,
}

/// Which algorithm chooses the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
}

/// A SentencePiece model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentencePiece {
    pub pieces: Vec<Piece>,
    pub algorithm: Algorithm,
    /// Characters the vocabulary lacks become byte pieces.
    pub byte_fallback: bool,
    pub unknown: u32,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// The table of character replacements; empty for none.
    pub charsmap: Vec<u8>,
    /// A text starts with a space.
    pub add_dummy_prefix: bool,
    /// Spaces at the ends are dropped, runs become one.
    pub remove_extra_whitespaces: bool,
}

impl SentencePiece {
    /// Reads a model file.
    ///
    /// # Errors
    /// `Damaged`, `Unsupported`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            unknown: 0,
            bos: Some(1),
            eos: Some(2),
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        each_field(bytes, |number, value| {
            match (number, value) {
                (1, Field::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Field::Bytes(trainer)) => model.parse_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                _ => {}
            }
            Ok(())
        })?;
        if model.pieces.is_empty() {
            return Err(TokenizerError::Damaged("it has no pieces".into()));
        }
        let in_vocabulary = |id: &u32| (*id as usize) < model.pieces.len();
        model.bos = model.bos.filter(in_vocabulary);
        model.eos = model.eos.filter(in_vocabulary);
        Ok(model)
    }

    fn parse_trainer(&mut self, bytes: &[u8]) -> Result<(), TokenizerError> {
        // Ids are int32; -1 stands for none and arrives as a huge number.
        let id = |value: u64| u32::try_from(value).ok().filter(|id| i32::try_from(*id).is_ok());
        each_field(bytes, |number, value| {
            match (number, value) {
                (3, Field::Number(1)) => self.algorithm = Algorithm::Unigram,
                (3, Field::Number(2)) => self.algorithm = Algorithm::Bpe,
                (3, Field::Number(other)) => {
                    return Err(TokenizerError::Unsupported {
                        found: format!("SentencePiece model type {other}"),
                        supported: "SentencePiece BPE or unigram",
                    });
                }
                (35, Field::Number(flag)) => self.byte_fallback = flag != 0,
                (40, Field::Number(number)) => self.unknown = id(number).unwrap_or(0),
                (41, Field::Number(number)) => self.bos = id(number),
                (42, Field::Number(number)) => self.eos = id(number),
                _ => {}
            }
            Ok(())
        })
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<(), TokenizerError> {
        each_field(bytes, |number, value| {
            match (number, value) {
                (2, Field::Bytes(table)) => self.charsmap = table.to_vec(),
                (3, Field::Number(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Field::Number(flag)) => self.remove_extra_whitespaces = flag != 0,
                _ => {}
            }
            Ok(())
        })
    }

    /// The tokenizer of this model, without its control and user-defined pieces matched in text.
    ///
    /// # Errors
    /// `Damaged`.
    pub(super) fn build(&self) -> Result<tokenizers::Tokenizer, TokenizerError> {
        if let Some(piece) = self.pieces.iter().find(|p| p.text.len() > PIECE_BYTES_MAX) {
            let size = piece.text.len();
            return Err(TokenizerError::Damaged(format!("a piece has {size} bytes")));
        }
        let mut inner = match self.algorithm {
            Algorithm::Bpe => tokenizers::Tokenizer::new(self.bpe()?),
            Algorithm::Unigram => tokenizers::Tokenizer::new(self.unigram()?),
        };
        let mut normalizers = self.normalizers()?;
        let mut decoders: Vec<DecoderWrapper> = vec![
            Replace::new(SPACE, " ").map_err(TokenizerError::damaged)?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if self.add_dummy_prefix {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        match self.algorithm {
            Algorithm::Bpe => {
                if self.add_dummy_prefix {
                    normalizers.push(Prepend::new(SPACE.to_owned()).into());
                }
                normalizers.push(Replace::new(" ", SPACE).map_err(TokenizerError::damaged)?.into());
            }
            Algorithm::Unigram => {
                let prefix = self.add_dummy_prefix;
                let scheme = if prefix { PrependScheme::Always } else { PrependScheme::Never };
                inner.with_pre_tokenizer(Some(Metaspace::new('\u{2581}', scheme, true)));
            }
        }
        if !normalizers.is_empty() {
            let all = Normalizers::new(normalizers);
            inner.with_normalizer(Some(all)).map_err(TokenizerError::damaged)?;
        }
        inner.with_decoder(Some(Decoders::new(decoders)));
        Ok(inner)
    }

    fn normalizers(&self) -> Result<Vec<NormalizerWrapper>, TokenizerError> {
        let mut all: Vec<NormalizerWrapper> = Vec::new();
        if !self.charsmap.is_empty() {
            charsmap::check(&self.charsmap)?;
            all.push(Precompiled::from(&self.charsmap).map_err(TokenizerError::damaged)?.into());
        }
        if self.remove_extra_whitespaces {
            for (pattern, text) in [("^ +| +$", ""), (" {2,}", " ")] {
                let pattern = ReplacePattern::Regex(pattern.into());
                all.push(Replace::new(pattern, text).map_err(TokenizerError::damaged)?.into());
            }
        }
        Ok(all)
    }

    fn unigram(&self) -> Result<Unigram, TokenizerError> {
        let pieces = self.pieces.iter().map(|p| (p.text.clone(), f64::from(p.score)));
        let unknown = self.unknown as usize;
        Unigram::from(pieces.collect(), Some(unknown), self.byte_fallback)
            .map_err(TokenizerError::damaged)
    }

    /// SentencePiece joins the pair whose joined piece has the best score; here the same order is
    /// written as a list of merges.
    fn bpe(&self) -> Result<BPE, TokenizerError> {
        let ids: HashMap<&str, usize> =
            self.pieces.iter().enumerate().map(|(id, p)| (p.text.as_str(), id)).collect();
        let mergeable = |kind| matches!(kind, PieceKind::Normal | PieceKind::UserDefined);
        let mut merges: Vec<(f32, usize, &str, &str)> = Vec::new();
        for (id, piece) in self.pieces.iter().enumerate().filter(|(_, p)| mergeable(p.kind)) {
            for (at, _) in piece.text.char_indices().skip(1) {
                let (left, right) = piece.text.split_at(at);
                if ids.contains_key(left) && ids.contains_key(right) {
                    merges.push((piece.score, id, left, right));
                }
            }
        }
        // Best score first; the longer left part first where one piece can come about in two ways,
        // as the reference's converter has it.
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then(b.2.chars().count().cmp(&a.2.chars().count()))
                .then(a.1.cmp(&b.1))
        });
        let merges = merges.into_iter().map(|(_, _, l, r)| (l.to_owned(), r.to_owned()));
        let vocab: Vocab =
            (0_u32..).zip(&self.pieces).map(|(id, p)| (p.text.clone(), id)).collect();
        let builder = BPE::builder()
            .vocab_and_merges(vocab, merges.collect())
            .byte_fallback(self.byte_fallback)
            .fuse_unk(true);
        let builder = match self.pieces.get(self.unknown as usize) {
            Some(piece) => builder.unk_token(piece.text.clone()),
            None => builder,
        };
        builder.build().map_err(TokenizerError::damaged)
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, TokenizerError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    each_field(bytes, |number, value| {
        match (number, value) {
            (1, Field::Bytes(text)) => {
                piece.text = String::from_utf8(text.to_vec()).map_err(TokenizerError::damaged)?;
            }
            (2, Field::Single(bits)) => piece.score = f32::from_bits(bits),
            (3, Field::Number(kind)) => {
                piece.kind = PieceKind::from_number(kind)
                    .ok_or_else(|| TokenizerError::Damaged(format!("piece of type {kind}")))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    if piece.score.is_nan() {
        return Err(TokenizerError::Damaged("a score is no number".into()));
    }
    Ok(piece)
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Single(u32),
    Bytes(&'a [u8]),
    Double,
}

/// Calls `take` with every field of a message. Nothing is copied.
fn each_field<'a>(
    mut bytes: &'a [u8],
    mut take: impl FnMut(u64, Field<'a>) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let cut = || TokenizerError::Damaged("the file is cut off or no SentencePiece model".into());
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(cut)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes).ok_or_else(cut)?),
            1 => {
                bytes = bytes.get(8..).ok_or_else(cut)?;
                Field::Double
            }
            2 => {
                let size = varint(&mut bytes).ok_or_else(cut)?;
                let size = usize::try_from(size).map_err(|_| cut())?;
                let (value, rest) = bytes.split_at_checked(size).ok_or_else(cut)?;
                bytes = rest;
                Field::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
                bytes = rest;
                Field::Single(u32::from_le_bytes(*value))
            }
            _ => return Err(cut()),
        };
        take(key >> 3, field)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
