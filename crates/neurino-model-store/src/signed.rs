//! Catalogue updates: manifests that the network's key has signed, each newer than the last.
//!
//! ```json
//! { "payload": "{\"version\":7,\"models\":[...]}", "signature": "<128 hexadecimal digits>" }
//! ```
//!
//! The signature (Ed25519) covers the tag `neurino-catalogue-1`, a line feed, and the bytes of the payload
//! as they stand in the text, so that nobody has to agree on how JSON is written. The key is put into
//! the build; without one there are no updates. A version that is not higher than the one here is
//! refused, so that nobody can bring an old list back. `issued_at_ms` may say when the edition was made, in
//! milliseconds since the Unix epoch.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::catalog::ModelManifest;
use crate::error::StoreError;

/// The network's key as 64 hexadecimal digits, given when this program was built.
const KEY: Option<&str> = option_env!("NEURINO_CATALOGUE_KEY");
const TAG: &str = "neurino-catalogue-1";
/// The signed catalogue in the catalogue folder.
pub(crate) const NAME: &str = "signed.json";
/// No catalogue is larger.
pub(crate) const BYTES_MAX: usize = 16 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Payload {
    version: u64,
    #[serde(default)]
    issued_at_ms: Option<i64>,
    models: Vec<ModelManifest>,
}

/// A catalogue whose signature held.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedCatalog {
    /// Rises with every edition.
    pub version: u64,
    /// When it was made, if it says so, in milliseconds since the Unix epoch.
    pub issued_at_ms: Option<i64>,
    /// Its manifests, all of them checked.
    pub models: Vec<ModelManifest>,
}

/// The key of this build; `None` if it has none.
pub fn build_key() -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(KEY?.trim(), &mut key).ok()?;
    Some(key)
}

/// The payload of a signed text, whose signature covers `tag`, a line feed and the payload.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn opened(text: &str, tag: &str, key: &[u8; 32]) -> Result<String, String> {
    let envelope: Envelope =
        serde_json::from_str(text).map_err(|e| format!("it cannot be read: {e}"))?;
    let signature = hex::decode(envelope.signature.trim())
        .map_err(|_| "its signature is not hexadecimal".to_owned())?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&message(&envelope.payload, tag), &signature)
        .map_err(|_| "its signature is not the network's".to_owned())?;
    Ok(envelope.payload)
}

/// The text that [`opened`] reads.
pub fn sealed(payload: &str, tag: &str, pair: &Ed25519KeyPair) -> String {
    let signature = hex::encode(pair.sign(&message(payload, tag)).as_ref());
    let envelope = Envelope { payload: payload.to_owned(), signature };
    serde_json::to_string_pretty(&envelope).expect("two texts are JSON")
}

/// A signed catalogue with this payload: the other side of [`SignedCatalog::open`].
///
/// - `seed`: the secret key
///
/// # Panics
/// Never: any 32 bytes are a seed.
pub fn sealed_catalogue(payload: &str, seed: &[u8; 32]) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
    sealed(payload, TAG, &pair)
}

fn message(payload: &str, tag: &str) -> Vec<u8> {
    format!("{tag}\n{payload}").into_bytes()
}

impl SignedCatalog {
    /// Reads a signed catalogue; nothing in it is looked at before the signature held.
    ///
    /// # Errors
    /// [`StoreError::BadCatalog`].
    pub fn open(text: &str, key: &[u8; 32]) -> Result<Self, StoreError> {
        let bad = |problem: String| StoreError::BadCatalog { problem };
        if text.len() > BYTES_MAX {
            return Err(bad(format!("it has more than {} MB", BYTES_MAX >> 20)));
        }
        let payload = opened(text, TAG, key).map_err(bad)?;
        let payload: Payload = serde_json::from_str(&payload)
            .map_err(|e| bad(format!("its content cannot be read: {e}")))?;
        let models = payload.models.into_iter().map(ModelManifest::checked);
        let models = models.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { version: payload.version, issued_at_ms: payload.issued_at_ms, models })
    }

    /// The one that was accepted last, if it is there and its signature still holds.
    pub(crate) fn kept(folder: &Path, key: Option<[u8; 32]>) -> Option<Self> {
        let text = fs::read_to_string(path(folder)).ok()?;
        let opened = Self::open(&text, &key?);
        opened.inspect_err(|error| warn!("the signed catalogue is left out: {error}")).ok()
    }

    /// Accepts an update, if it is newer than what is here.
    ///
    /// # Errors
    /// [`StoreError::BadCatalog`], [`StoreError::Io`].
    pub fn accept(folder: &Path, text: &str, key: &[u8; 32]) -> Result<Self, StoreError> {
        let version = Self::open(text, key)?.version;
        let again = || {
            let problem = format!("it is version {version}, and version {version} is here");
            StoreError::BadCatalog { problem }
        };
        Self::consider(folder, text, key, 0)?.ok_or_else(again)
    }

    /// Accepts an update if it is newer than what is here; `None` where it is what is here.
    ///
    /// - `seen`: the highest version that was ever accepted, wherever the library lay then: whoever loses
    ///   the catalogue does not fall for an old one
    ///
    /// # Errors
    /// [`StoreError::BadCatalog`], also for an older one; [`StoreError::Io`].
    pub fn consider(
        folder: &Path,
        text: &str,
        key: &[u8; 32],
        seen: u64,
    ) -> Result<Option<Self>, StoreError> {
        let update = Self::open(text, key)?;
        let here = Self::kept(folder, Some(*key)).map(|here| here.version);
        let ours = here.unwrap_or_default().max(seen);
        if update.version < ours {
            let theirs = update.version;
            let problem = format!("it is version {theirs}, and version {ours} was here");
            return Err(StoreError::BadCatalog { problem });
        }
        if here == Some(update.version) {
            return Ok(None);
        }
        let failed = |error| StoreError::io("write", folder, error);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut next = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        next.write_all(text.as_bytes()).and_then(|()| next.as_file().sync_all()).map_err(failed)?;
        next.persist(path(folder)).map_err(|error| failed(error.error))?;
        Ok(Some(update))
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::catalog::Catalog;

    fn signer(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn key(signer: &Ed25519KeyPair) -> [u8; 32] {
        signer.public_key().as_ref().try_into().unwrap()
    }

    fn edition(signer: &Ed25519KeyPair, version: u64, change: impl Fn(String) -> String) -> String {
        let mut model = Catalog::built_in().models()[0].clone();
        model.id = neurino_core::ModelId::new("new/model").unwrap();
        let models = serde_json::to_string(&[model]).unwrap();
        let payload = change(format!("{{\"version\":{version},\"models\":{models}}}"));
        let signature = signer.sign(&message(&payload, TAG));
        let signature = hex::encode(signature.as_ref());
        serde_json::json!({ "payload": payload, "signature": signature }).to_string()
    }

    #[test]
    fn only_the_networks_key_and_only_newer_editions_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (signer(1), signer(2));
        let accept = |text: &str| SignedCatalog::accept(folder.path(), text, &key(&own));
        let same = |text: String| text;
        assert!(accept(&edition(&other, 1, same)).is_err());
        assert!(SignedCatalog::kept(folder.path(), Some(key(&own))).is_none());
        let first = edition(&own, 3, same);
        assert_eq!(accept(&first).unwrap().version, 3);
        assert!(accept(&first).is_err(), "the same again");
        assert!(accept(&edition(&own, 2, same)).is_err(), "an older one");
        assert_eq!(accept(&edition(&own, 4, same)).unwrap().models.len(), 1);
        let kept = SignedCatalog::kept(folder.path(), Some(key(&own))).unwrap();
        assert_eq!(kept.version, 4);
        assert!(SignedCatalog::kept(folder.path(), Some(key(&other))).is_none());
        assert!(SignedCatalog::kept(folder.path(), None).is_none());
    }

    #[test]
    fn what_is_here_is_no_news_and_what_was_here_once_does_not_come_back() {
        let (library, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = signer(1);
        let same = |text: String| text;
        let consider = |folder: &Path, version: u64, seen: u64| {
            SignedCatalog::consider(folder, &edition(&own, version, same), &key(&own), seen)
        };
        let dated = edition(&own, 5, |text| {
            text.replace("{\"version\"", "{\"issued_at_ms\":86400000,\"version\"")
        });
        let first = SignedCatalog::consider(library.path(), &dated, &key(&own), 0).unwrap();
        assert_eq!(first.unwrap().issued_at_ms, Some(86_400_000));
        assert_eq!(consider(library.path(), 5, 5).unwrap(), None);
        let older = consider(library.path(), 4, 5).unwrap_err().to_string();
        assert!(older.contains("version 4, and version 5 was here"), "{older}");
        // In a library that began anew, an older one is refused, and the same one is taken again.
        assert!(consider(other.path(), 4, 5).is_err());
        assert!(SignedCatalog::kept(other.path(), Some(key(&own))).is_none());
        assert_eq!(consider(other.path(), 5, 5).unwrap().unwrap().version, 5);
        assert_eq!(consider(other.path(), 6, 5).unwrap().unwrap().version, 6);
    }

    #[test]
    fn a_changed_byte_or_a_wrong_manifest_is_refused() {
        let own = signer(1);
        let text = edition(&own, 1, |text| text);
        SignedCatalog::open(&text, &key(&own)).unwrap();
        for (from, to) in [("version", "versiom"), ("Apache-2.0", "Apache-2.1"), ("new/", "old/")] {
            assert!(text.contains(from), "{from}");
            let error = SignedCatalog::open(&text.replacen(from, to, 1), &key(&own)).unwrap_err();
            assert!(error.to_string().contains("not the network's"), "{error}");
        }
        let wrong = edition(&own, 1, |text| text.replace("SmolLM2-135M-Instruct.Q4_1", "../x"));
        let error = SignedCatalog::open(&wrong, &key(&own)).unwrap_err();
        assert!(error.to_string().contains("plain file name"), "{error}");
        for bad in ["", "{}", "[]", "{\"payload\":\"\",\"signature\":\"zz\"}"] {
            assert!(SignedCatalog::open(bad, &key(&own)).is_err(), "{bad}");
        }
    }
}
