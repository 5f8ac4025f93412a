//! What the library trusts in `tokenizer.json`, looked at before it reads the file.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;

use super::charsmap;

/// Refuses what the library would panic over; see also [`charsmap`].
pub(super) fn check(bytes: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    #[derive(Deserialize)]
    struct Outline {
        #[serde(default)]
        model: Option<Tables>,
        #[serde(default)]
        normalizer: Value,
        /// Read for its form alone: where it is no JSON the library panics.
        #[serde(default)]
        decoder: Value,
    }
    let outline: Outline = serde_json::from_slice(bytes)?;
    outline.model.unwrap_or_default().check()?;
    let mut open = vec![&outline.normalizer, &outline.decoder];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                if let Some(table) = fields.get("precompiled_charsmap").and_then(Value::as_str) {
                    charsmap::check(&BASE64_STANDARD.decode(table)?)?;
                }
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A model's tables in `tokenizer.json`, as far as the library trusts them.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Tables {
    vocab: LongestToken,
    merges: Vec<Merge>,
    continuing_subword_prefix: Option<String>,
}

/// The length in bytes of the longest name in a map; 0 of anything else.
#[derive(Default)]
struct LongestToken(usize);

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
    Other(de::IgnoredAny),
}

impl<'de> Deserialize<'de> for LongestToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> de::Visitor<'de> for Names {
            type Value = LongestToken;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }
            fn visit_map<A: de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<LongestToken, A::Error> {
                let mut longest = 0;
                while let Some((name, _)) = map.next_entry::<String, de::IgnoredAny>()? {
                    longest = longest.max(name.len());
                }
                Ok(LongestToken(longest))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<LongestToken, A::Error> {
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(LongestToken(0))
            }
            fn visit_unit<E: de::Error>(self) -> Result<LongestToken, E> {
                Ok(LongestToken(0))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl Tables {
    /// The library writes what a merge makes into a buffer of the longest token's length, and cuts the
    /// prefix off the second half without a look at it.
    fn check(&self) -> Result<(), String> {
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or_default();
        for merge in &self.merges {
            let (a, b) = match merge {
                Merge::Pair(a, b) => (a.as_str(), b.as_str()),
                Merge::Line(line) => line.split_once(' ').unwrap_or_default(),
                Merge::Other(_) => continue,
            };
            let made = b.strip_prefix(prefix).map(|rest| a.len() + rest.len());
            if made.is_none_or(|length| length > self.vocab.0) {
                return Err(format!(
                    "the merge of `{a}` and `{b}` makes no token of the vocabulary"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_is_no_json_is_refused_before_the_library_reads_it() {
        let bad = br#"{"version": "1.0", "decoder": {"type": "Fuse", "x": "\ud800"}}"#;
        assert!(check(bad).is_err());
        assert!(check(br#"{"version": "1.0", "decoder": null}"#).is_ok());
    }
}
