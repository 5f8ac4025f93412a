//! CLIP's tokenizer from its merges alone: the order of its tokens follows from them.

use std::collections::BTreeMap;

use super::pieces::Spelling;
use super::{Parts, TokenizerError, words};

/// Builds the tokenizer of `merges`, one pair a line, the most frequent first.
pub(super) fn open(merges: &str) -> Result<Parts, TokenizerError> {
    let (bos, eos) = (words::CLIP_BOS.to_owned(), words::CLIP_EOS.to_owned());
    let mut tokens: Vec<String> = byte_letters().map(String::from).collect();
    tokens.extend(byte_letters().map(|letter| format!("{letter}</w>")));
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    tokens.extend(words::pairs(lines)?.into_iter().map(|(a, b)| a + &b));
    tokens.extend([bos.clone(), eos.clone()]);
    let vocab: BTreeMap<String, u32> = tokens.into_iter().zip(0..).collect();
    let inner = words::build(vocab, merges, true, Some(&bos), Some(&eos))?;
    let (bos, eos) = (Some(bos), Some(eos));
    Ok(Parts { inner, spelling: Spelling::Words, bos, eos, clean: true, ends: Vec::new() })
}

/// The letters that stand for the 256 bytes, in the order of their tokens: those that are visible in
/// Latin-1 stand for themselves, the others follow as letters from U+0100 on.
fn byte_letters() -> impl Iterator<Item = char> {
    let visible = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}');
    visible.chain('\u{100}'..='\u{143}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_letter_for_each_byte() {
        let letters: std::collections::BTreeSet<char> = byte_letters().collect();
        assert_eq!((letters.len(), byte_letters().count()), (256, 256));
    }
}
