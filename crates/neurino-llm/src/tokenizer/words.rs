//! Byte-level BPE from `vocab.json` and `merges.txt`, and CLIP's variant of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizedString, SplitDelimiterBehavior};

use super::{TokenizerError, folder};

/// What CLIP takes as a word; everything between is dropped. The reference compares without regard to case, as
/// which a long s is an s, and the iota below is a letter of the Greek alphabet that its last class leaves out.
const CLIP_PATTERN: &str = r"<\|[sſ]tartoftext\|>|<\|endoftext\|>|'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+";
/// CLIP's marks around a text, and its end token stands for what the vocabulary lacks.
pub(super) const CLIP_BOS: &str = "<|startoftext|>";
pub(super) const CLIP_EOS: &str = "<|endoftext|>";

/// The tokenizer of the two files.
pub(super) fn build(
    vocab: BTreeMap<String, u32>,
    merges: &str,
    is_clip: bool,
    bos: Option<&String>,
    eos: Option<&String>,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let vocab: Vocab = vocab.into_iter().collect();
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let builder = byte_pairs(vocab, pairs(lines)?)?;
    let failed = TokenizerError::damaged;
    let mut inner = if is_clip {
        let builder = builder.end_of_word_suffix("</w>".to_owned()).unk_token(CLIP_EOS.to_owned());
        let mut inner = tokenizers::Tokenizer::new(builder.build().map_err(failed)?);
        let pattern = SplitPattern::Regex(CLIP_PATTERN.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(failed)?;
        inner.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
        ])));
        inner
    } else {
        let mut inner = tokenizers::Tokenizer::new(builder.build().map_err(failed)?);
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner
    };
    inner.with_decoder(Some(ByteLevel::default()));
    let (clip_bos, clip_eos) = (CLIP_BOS.to_owned(), CLIP_EOS.to_owned());
    let (bos, eos) =
        if is_clip { (bos.or(Some(&clip_bos)), eos.or(Some(&clip_eos))) } else { (bos, eos) };
    // GPT-2's files name special tokens, but nothing is put around a text.
    let special = [bos, eos].into_iter().flatten().filter(|t| inner.token_to_id(t).is_some());
    let special: Vec<AddedToken> =
        special.map(|t| AddedToken::from(t.clone(), true).normalized(false)).collect();
    inner.add_special_tokens(special).map_err(failed)?;
    if is_clip {
        folder::surround(&mut inner, bos, eos)?;
    }
    Ok(inner)
}

/// Merges as pairs of tokens, from lines with a space between the two.
///
/// # Errors
/// `Damaged`.
pub(super) fn pairs<'a>(
    lines: impl Iterator<Item = &'a str>,
) -> Result<Vec<(String, String)>, TokenizerError> {
    lines
        .map(|merge| {
            let (a, b) = merge.split_once(' ').ok_or_else(|| {
                TokenizerError::Damaged(format!("the merge `{merge}` is not a pair"))
            })?;
            Ok((a.to_owned(), b.to_owned()))
        })
        .collect()
}

/// A model of merges that make tokens of the vocabulary: over a long one that does not, the library
/// panics.
///
/// # Errors
/// `Damaged`.
pub(super) fn byte_pairs(
    vocab: Vocab,
    merges: Vec<(String, String)>,
) -> Result<BpeBuilder, TokenizerError> {
    if let Some((a, b)) = merges.iter().find(|(a, b)| !vocab.contains_key(&format!("{a}{b}"))) {
        let why = format!("the merge `{a} {b}` makes no token of the vocabulary");
        return Err(TokenizerError::Damaged(why));
    }
    Ok(BPE::builder().vocab_and_merges(vocab, merges))
}

/// CLIP's cleaning where its text fixer is not installed: no control characters, spaces around
/// Chinese characters, composed characters, single spaces, lower case; accents stay. Small letters are
/// not composed again: some exist with their accent where the capital does not.
pub(super) fn clean(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => spaced.push(' '),
            char::REPLACEMENT_CHARACTER => {}
            c if !is_written(c) => {}
            c if c.is_whitespace() => spaced.push(' '),
            c if is_chinese(c) => spaced.extend([' ', c, ' ']),
            c => spaced.push(c),
        }
    }
    let mut composed = NormalizedString::from(spaced);
    composed.nfc();
    let words: Vec<&str> = composed.get().split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ").to_lowercase()
}

/// Characters that are none of Unicode's "Other": neither control, format nor private ones, and
/// assigned.
///
/// Which ones are assigned is what Unicode 14 says, the version of the reference's Python (3.11): a
/// character that joined Unicode later is dropped, whatever this build's own tables know of it.
static WRITTEN: LazyLock<ClassUnicode> = LazyLock::new(|| {
    let parsed = regex_syntax::parse(r"[\p{Age=14.0}&&\P{C}]");
    match parsed.map(Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class,
        other => unreachable!("a fixed pattern is a class of characters: {other:?}"),
    }
});

fn is_written(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    let side = |range: &ClassUnicodeRange| match () {
        () if range.end() < character => Ordering::Less,
        () if range.start() > character => Ordering::Greater,
        () => Ordering::Equal,
    };
    WRITTEN.ranges().binary_search_by(side).is_ok()
}

/// The blocks of Chinese characters that BERT's cleaning knows.
fn is_chinese(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f
            | 0x2_b740..=0x2_b81f | 0x2_b820..=0x2_ceaf | 0xf900..=0xfaff | 0x2_f800..=0x2_fa1f
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cleaned_as_the_miner_does_it() {
        assert_eq!(clean(" A\tRED\u{200b} cat\n"), "a red cat");
        assert_eq!(clean("\u{6771}\u{4eac}GO"), "\u{6771} \u{4eac} go");
        assert_eq!(
            clean("Gr\u{d6}\u{df}e \u{3a3}\u{391}\u{3a3}"),
            "gr\u{f6}\u{df}e \u{3c3}\u{3b1}\u{3c2}"
        );
    }

    /// Expected values: `unicodedata.normalize("NFC", text).lower()` of Python 3.11.
    #[test]
    fn characters_are_composed_before_they_become_small() {
        for (text, expect) in [
            ("J\u{30c}", "j\u{30c}"),
            ("H\u{331}", "h\u{331}"),
            ("T\u{308}", "t\u{308}"),
            ("j\u{30c}", "\u{1f0}"),
            ("A\u{30a}", "\u{e5}"),
        ] {
            assert_eq!(clean(text), expect, "{text}");
        }
    }

    /// Python 3.11's `unicodedata` over every character there is: how many are of a category whose
    /// name begins with C, and FNV-1a over them, one step a character.
    #[test]
    fn the_same_characters_are_dropped_as_by_the_reference() {
        let (mut count, mut hash) = (0, 0xcbf2_9ce4_8422_2325_u64);
        for character in ('\0'..=char::MAX).filter(|c| !"\t\n\r".contains(*c)) {
            if !is_written(character) {
                count += 1;
                hash = (hash ^ u64::from(character)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!((count, hash), (967_527, 0x80af_a46d_56fb_db67));
    }

    #[test]
    fn what_nobody_writes_is_dropped_and_separates_nothing() {
        // Unassigned, private, a noncharacter, control characters that Rust takes as white space.
        assert_eq!(clean("a\u{378}b\u{e000}c\u{ffff}d\u{85}e\u{b}f\u{c}g\u{1c}h"), "abcdefgh");
        // Joined in Unicode 14, and in Unicode 15.
        assert_eq!(clean("\u{1fae0}\u{1fae8}"), "\u{1fae0}");
        assert_eq!(clean("a\u{2028}b\u{3000}c\u{a0}d"), "a b c d");
    }
}
