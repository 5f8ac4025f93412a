//! Checks SentencePiece's table of character replacements before anything walks it.
//!
//! The table is a double-array trie of 32-bit units behind its length in bytes, followed by the
//! replacements, each ended by a zero byte. Whoever walks it trusts every offset.

use super::TokenizerError;

/// Checks the table `charsmap`.
///
/// # Errors
/// `Damaged` if walking it with any text could leave the table.
pub(super) fn check(charsmap: &[u8]) -> Result<(), TokenizerError> {
    let damaged = |why: &str| TokenizerError::Damaged(format!("character table: {why}"));
    let (size, rest) = charsmap.split_first_chunk().ok_or_else(|| damaged("too short"))?;
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) || size > rest.len() || size == 0 {
        return Err(damaged("its trie is cut off"));
    }
    let (trie, texts) = rest.split_at(size);
    let texts = std::str::from_utf8(texts).map_err(|_| damaged("its texts are no text"))?;
    let units: Vec<u32> = trie
        .chunks_exact(4)
        .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]))
        .collect();
    for (at, unit) in units.iter().enumerate() {
        // A unit with the top bit holds a value; a walk never passes through it.
        if unit >> 31 == 1 {
            continue;
        }
        let next = at ^ ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        // A step goes to `next ^ byte`, for any byte.
        if (next | 0xff) >= units.len() {
            return Err(damaged("its trie leads outside"));
        }
        if (unit >> 8) & 1 == 1 {
            let text = (units[next] & (u32::MAX >> 1)) as usize;
            if !texts.is_char_boundary(text) {
                return Err(damaged("a replacement is cut off"));
            }
        }
    }
    Ok(())
}
