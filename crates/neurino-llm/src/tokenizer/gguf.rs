//! The tokenizer inside a GGUF file: byte-level BPE (`gpt2`) or SentencePiece (`llama`).

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::Vocab;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::pieces::Spelling;
use super::sentencepiece::{Algorithm, Piece, PieceKind, SentencePiece};
use super::{Parts, TokenizerError, folder, words};
use crate::source::GgufTokenizer;

/// How a text is split into words, as the makers' `tokenizer.json` files spell it.
const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How llama.cpp splits a text where a file does not say how, one pattern after the other.
///
/// Source: `llama.cpp@b3600 src/llama-vocab.cpp` `llm_tokenizer_bpe`.
const DEFAULT_PATTERNS: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];
/// A token that only Llama 3's vocabularies have.
const LLAMA3_MARK: &str = "<|begin_of_text|>";

/// Tokens that end an answer in the chat formats of well-known models. The file names only one, and
/// not always the one that the chat template uses.
const ENDS: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
];

const SUPPORTED: &str = "`llama`, or `gpt2` with llama-bpe, smaug-bpe, dbrx, smollm, starcoder, gpt-2, qwen2, tekken or default";

/// What the file's `tokenizer.ggml.pre` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splitting {
    /// GPT-2's own pattern, which is built into the byte level.
    Gpt2,
    /// As GPT-2, after every digit was taken apart.
    Digits,
    /// As llama.cpp, where nobody knows.
    Default,
    Pattern {
        pattern: &'static str,
        /// A whole word that is in the vocabulary is not built from merges.
        words_first: bool,
        /// Characters are composed before.
        compose: bool,
    },
}

impl Splitting {
    /// Converters of spring 2024 wrote no name, or "default" for those they did not know: what the
    /// vocabulary is then tells. `None` for a name that is not known.
    fn of_vocabulary(vocabulary: &GgufTokenizer) -> Option<Self> {
        match vocabulary.pre.as_deref() {
            Some(pre) if !matches!(pre, "" | "default") => Self::of(pre),
            _ if vocabulary.tokens.iter().any(|token| token == LLAMA3_MARK) => {
                Self::of("llama-bpe")
            }
            _ => {
                tracing::warn!(
                    "the model's file does not say how texts are split into words: answers may be worse \
                     than those of a newer copy of it"
                );
                Some(Self::Default)
            }
        }
    }

    fn of(pre: &str) -> Option<Self> {
        let pattern =
            |pattern, words_first, compose| Self::Pattern { pattern, words_first, compose };
        Some(match pre {
            "gpt-2" => Self::Gpt2,
            "smollm" | "starcoder" | "refact" | "command-r" => Self::Digits,
            "llama-bpe" | "llama-v3" | "llama3" => pattern(LLAMA3_PATTERN, true, false),
            "smaug-bpe" | "dbrx" => pattern(LLAMA3_PATTERN, false, false),
            "qwen2" | "deepseek-r1-qwen" => pattern(QWEN2_PATTERN, false, true),
            "tekken" => pattern(TEKKEN_PATTERN, true, false),
            _ => return None,
        })
    }

    fn pre_tokenizer(self) -> Result<Sequence, TokenizerError> {
        let bytes = |with_words| {
            let level =
                tokenizers::pre_tokenizers::byte_level::ByteLevel::new(false, true, with_words);
            PreTokenizerWrapper::ByteLevel(level)
        };
        let split = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            Ok(PreTokenizerWrapper::Split(split.map_err(TokenizerError::Failed)?))
        };
        Ok(Sequence::new(match self {
            Self::Default => {
                let splits = DEFAULT_PATTERNS.into_iter().map(split);
                splits.chain([Ok(bytes(false))]).collect::<Result<_, TokenizerError>>()?
            }
            Self::Gpt2 => vec![bytes(true)],
            Self::Digits => vec![PreTokenizerWrapper::Digits(Digits::new(true)), bytes(true)],
            Self::Pattern { pattern, .. } => vec![split(pattern)?, bytes(false)],
        }))
    }
}

pub(super) fn open(vocabulary: &GgufTokenizer) -> Result<Parts, TokenizerError> {
    let kinds = kinds(vocabulary)?;
    let (mut inner, spelling) = match vocabulary.model.as_str() {
        "gpt2" => (byte_level(vocabulary)?, Spelling::ByteLevel),
        "llama" => {
            let drop_first_space = vocabulary.add_space_prefix;
            let model = sentence_piece(vocabulary, &kinds)?;
            (model.build()?, Spelling::SentencePiece { drop_first_space })
        }
        _ => return Err(unsupported(vocabulary)),
    };
    let of_kind = |wanted: fn(PieceKind) -> bool| {
        let all = vocabulary.tokens.iter().zip(&kinds);
        all.filter(move |(_, kind)| wanted(**kind)).map(|(token, _)| token.clone())
    };
    let special = of_kind(|kind| matches!(kind, PieceKind::Control | PieceKind::Unknown));
    let user = of_kind(|kind| kind == PieceKind::UserDefined);
    let special = special.map(|t| AddedToken::from(t, true).normalized(false));
    let user = user.map(|t| AddedToken::from(t, false).normalized(false));
    inner.add_special_tokens(special).map_err(TokenizerError::damaged)?;
    inner.add_tokens(user).map_err(TokenizerError::damaged)?;
    let token = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).cloned();
    let (bos, eos) = (token(vocabulary.bos), token(vocabulary.eos));
    folder::surround(&mut inner, bos.as_ref().filter(|_| vocabulary.add_bos), None)?;
    let ends = kinds.iter().zip(&vocabulary.tokens).zip(0_u32..);
    let ends = ends.filter(|((kind, token), _)| {
        **kind == PieceKind::Control && ENDS.contains(&token.as_str())
    });
    let ends = ends.map(|(_, id)| id).collect();
    Ok(Parts { inner, spelling, bos, eos, clean: false, ends })
}

fn unsupported(vocabulary: &GgufTokenizer) -> TokenizerError {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
    let pre = vocabulary.pre.as_deref().unwrap_or("no pre-tokenizer");
    let found = format!("{} ({})", plain(&vocabulary.model), plain(pre));
    TokenizerError::Unsupported { found, supported: SUPPORTED }
}

fn byte_level(vocabulary: &GgufTokenizer) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let splitting = Splitting::of_vocabulary(vocabulary);
    let splitting = splitting.ok_or_else(|| unsupported(vocabulary))?;
    let tokens = (0_u32..).zip(&vocabulary.tokens).map(|(id, token)| (token.clone(), id));
    let vocab: Vocab = tokens.collect();
    let merges = words::pairs(vocabulary.merges.iter().map(String::as_str))?;
    let words_first = matches!(splitting, Splitting::Pattern { words_first: true, .. });
    let model = words::byte_pairs(vocab, merges)?
        .ignore_merges(words_first)
        .build()
        .map_err(TokenizerError::damaged)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    if matches!(splitting, Splitting::Pattern { compose: true, .. }) {
        inner.with_normalizer(Some(NFC)).map_err(TokenizerError::damaged)?;
    }
    inner.with_pre_tokenizer(Some(splitting.pre_tokenizer()?));
    inner.with_decoder(Some(ByteLevel::default()));
    Ok(inner)
}

fn sentence_piece(
    vocabulary: &GgufTokenizer,
    kinds: &[PieceKind],
) -> Result<SentencePiece, TokenizerError> {
    let (scores, tokens) = (vocabulary.scores.len(), vocabulary.tokens.len());
    if scores != tokens {
        return Err(TokenizerError::Damaged(format!("{scores} scores for {tokens} tokens")));
    }
    if vocabulary.scores.iter().any(|score| score.is_nan()) {
        return Err(TokenizerError::Damaged("a score is no number".into()));
    }
    let all = vocabulary.tokens.iter().zip(&vocabulary.scores).zip(kinds);
    let pieces: Vec<Piece> =
        all.map(|((text, &score), &kind)| Piece { text: text.clone(), score, kind }).collect();
    Ok(SentencePiece {
        byte_fallback: kinds.contains(&PieceKind::Byte),
        algorithm: Algorithm::Bpe,
        unknown: vocabulary.unknown.unwrap_or(0),
        bos: vocabulary.bos,
        eos: vocabulary.eos,
        charsmap: Vec::new(),
        add_dummy_prefix: vocabulary.add_space_prefix,
        remove_extra_whitespaces: false,
        pieces,
    })
}

fn kinds(vocabulary: &GgufTokenizer) -> Result<Vec<PieceKind>, TokenizerError> {
    let (types, tokens) = (vocabulary.token_types.len(), vocabulary.tokens.len());
    if types == 0 {
        return Ok(vec![PieceKind::Normal; tokens]);
    }
    if types != tokens {
        return Err(TokenizerError::Damaged(format!("{types} types for {tokens} tokens")));
    }
    // llama.cpp takes 0, which is no type, for an ordinary token.
    let kind = |&number: &i32| {
        u64::try_from(if number == 0 { 1 } else { number })
            .ok()
            .and_then(PieceKind::from_number)
            .ok_or_else(|| TokenizerError::Damaged(format!("a token of type {number}")))
    };
    vocabulary.token_types.iter().map(kind).collect()
}
