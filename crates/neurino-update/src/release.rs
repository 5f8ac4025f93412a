//! The signed list: one release, its packages, and what is refused.
//!
//! ```json
//! { "payload": "{\"version\":\"0.2.0\",...}", "signature": "<128 hexadecimal digits>" }
//! ```
//!
//! The signature (Ed25519) covers the tag `neurino-update-1`, a line feed, and the payload's bytes as
//! they stand in the text, exactly as with catalogues of models.

use std::collections::BTreeMap;

use jiff::Timestamp;
use neurino_model_store::{Digest, signed};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

use crate::error::UpdateError;
use crate::version::Version;

const TAG: &str = "neurino-update-1";
/// No list is longer.
pub(crate) const LIST_BYTES_MAX: usize = 1 << 20;

/// What is offered. Fields that a later version adds are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The version.
    pub version: Version,
    /// The oldest version that it can replace by itself.
    pub minimum: Version,
    /// From then on the list is not believed any more.
    pub expires: Timestamp,
    /// What is new, by language (`en`, `de`).
    #[serde(default)]
    pub notes: BTreeMap<String, String>,
    /// One file for each platform and kind of installation.
    pub packages: Vec<Package>,
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// System and processor, for example `linux-x86_64`.
    pub platform: String,
    /// What kind of installation it is for.
    pub kind: PackageKind,
    /// With the window or without.
    pub edition: Edition,
    /// Its name beside the list.
    pub file: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What it must hash to.
    pub sha256: Digest,
}

/// What kind of installation a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PackageKind {
    /// A zip of the folder that holds the program.
    Folder,
    /// An AppImage: one file that is the program.
    AppImage,
    /// A Debian package, which the person installs.
    Deb,
    /// An RPM package, which the person installs.
    Rpm,
}

/// With the window or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edition {
    /// With the window.
    Desktop,
    /// Without.
    Server,
}

/// This machine's name in a list.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

impl Release {
    /// Reads a signed list; nothing in it is looked at before the signature held.
    ///
    /// # Errors
    /// [`UpdateError::Untrusted`].
    pub fn open(text: &str, key: &[u8; 32]) -> Result<Self, UpdateError> {
        let bad = |problem: String| UpdateError::Untrusted { problem };
        if text.len() > LIST_BYTES_MAX {
            return Err(bad("it is too large".into()));
        }
        let payload = signed::opened(text, TAG, key).map_err(bad)?;
        let release: Self = serde_json::from_str(&payload)
            .map_err(|error| bad(format!("its content cannot be read: {error}")))?;
        match release.packages.iter().find(|package| !plain_name(&package.file)) {
            Some(_) => Err(bad("it names a file outside its folder".into())),
            None => Ok(release),
        }
    }

    /// The list's text, signed with the key of this seed.
    ///
    /// # Errors
    /// [`UpdateError::Untrusted`] where the seed is none.
    pub fn seal(&self, seed: &[u8; 32]) -> Result<String, UpdateError> {
        let payload = serde_json::to_string(self).expect("plain data is JSON");
        Ok(signed::sealed(&payload, TAG, &pair(seed)?))
    }

    /// Whether this release is an update of `own`; `seen` is the highest version that was ever offered.
    ///
    /// # Errors
    /// [`UpdateError::Expired`], [`UpdateError::Older`], [`UpdateError::TooFar`].
    pub fn follows(
        &self,
        own: Version,
        seen: Option<Version>,
        now: Timestamp,
    ) -> Result<bool, UpdateError> {
        let offered = self.version;
        if let Some(seen) = seen.filter(|seen| *seen > offered) {
            return Err(UpdateError::Older { offered, seen });
        }
        if offered <= own {
            return Ok(false);
        }
        // A list that offers nothing does no harm when it is old.
        if self.expires <= now {
            return Err(UpdateError::Expired);
        }
        if own < self.minimum {
            return Err(UpdateError::TooFar { offered, own, minimum: self.minimum });
        }
        Ok(true)
    }

    /// The package for an installation.
    ///
    /// # Errors
    /// [`UpdateError::NoPackage`].
    pub fn package(
        &self,
        platform: &str,
        kind: PackageKind,
        edition: Edition,
    ) -> Result<&Package, UpdateError> {
        let fits = |package: &&Package| {
            package.platform == platform && package.kind == kind && package.edition == edition
        };
        self.packages.iter().find(fits).ok_or_else(|| UpdateError::NoPackage {
            offered: self.version,
            platform: platform.to_owned(),
        })
    }
}

/// A new seed and the public key that belongs to it.
///
/// # Errors
/// [`UpdateError::Untrusted`] where the system gives no randomness.
pub fn new_key() -> Result<([u8; 32], [u8; 32]), UpdateError> {
    let mut seed = [0; 32];
    ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut seed).map_err(|_| {
        UpdateError::Untrusted { problem: "the system gives no random numbers".into() }
    })?;
    Ok((seed, public_key(&seed)?))
}

/// The public key of a seed.
///
/// # Errors
/// [`UpdateError::Untrusted`] where the seed is none.
pub fn public_key(seed: &[u8; 32]) -> Result<[u8; 32], UpdateError> {
    let pair = pair(seed)?;
    Ok(pair.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes"))
}

fn pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, UpdateError> {
    Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|_| UpdateError::Untrusted { problem: "the signing key is no key".into() })
}

/// A name and nothing else: no folder, no drive, nothing hidden.
fn plain_name(name: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-+~".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(usual)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SEED: [u8; 32] = [7; 32];

    pub(crate) fn release(version: &str) -> Release {
        Release {
            version: version.parse().unwrap(),
            minimum: Version::new(0, 1, 0),
            expires: "2030-01-01T00:00:00Z".parse().unwrap(),
            notes: BTreeMap::from([("en".to_owned(), "Better.".to_owned())]),
            packages: vec![Package {
                platform: "linux-x86_64".into(),
                kind: PackageKind::Folder,
                edition: Edition::Server,
                file: "neurino.zip".into(),
                size_bytes: 3,
                sha256: Digest::of(b"abc"),
            }],
        }
    }

    #[test]
    fn a_list_that_was_changed_or_signed_by_somebody_else_is_not_looked_at() {
        let key = public_key(&SEED).unwrap();
        let text = release("0.2.0").seal(&SEED).unwrap();
        assert_eq!(Release::open(&text, &key).unwrap(), release("0.2.0"));
        let others = release("0.2.0").seal(&[8; 32]).unwrap();
        for wrong in [text.replace("0.2.0", "0.3.0"), others, String::new(), "x".repeat(2 << 20)] {
            let refused = Release::open(&wrong, &key).unwrap_err();
            assert!(matches!(refused, UpdateError::Untrusted { .. }), "{refused}");
        }
        // A catalogue's signature is not one of a list of versions.
        let payload = serde_json::to_string(&release("0.2.0")).unwrap();
        let catalogue = signed::sealed(&payload, "neurino-catalogue-1", &pair(&SEED).unwrap());
        assert!(Release::open(&catalogue, &key).is_err());
    }

    #[test]
    fn a_signed_list_may_not_name_files_elsewhere() {
        let key = public_key(&SEED).unwrap();
        for name in ["../x", "/etc/passwd", "a/b", ".hidden", "", "c:x", r"a\b"] {
            let mut release = release("0.2.0");
            release.packages[0].file = name.into();
            assert!(Release::open(&release.seal(&SEED).unwrap(), &key).is_err(), "{name}");
        }
    }

    #[test]
    fn only_what_is_newer_in_date_and_not_too_far_away_is_an_update() {
        let (own, now) = (Version::new(0, 1, 0), "2026-11-22T00:00:00Z".parse().unwrap());
        let late = "2030-01-01T00:00:00Z".parse().unwrap();
        assert!(release("0.2.0").follows(own, None, now).unwrap());
        assert!(!release("0.1.0").follows(own, None, now).unwrap());
        assert!(!release("0.0.9").follows(own, None, now).unwrap(), "never down");
        assert!(matches!(release("0.2.0").follows(own, None, late), Err(UpdateError::Expired)));
        assert!(!release("0.1.0").follows(own, None, late).unwrap(), "nothing to complain about");
        let seen = Some(Version::new(0, 3, 0));
        let older = release("0.2.0").follows(own, seen, now);
        assert!(matches!(older, Err(UpdateError::Older { .. })));
        let far = Release { minimum: Version::new(0, 1, 5), ..release("0.2.0") };
        assert!(matches!(far.follows(own, None, now), Err(UpdateError::TooFar { .. })));
    }

    #[test]
    fn a_package_is_for_one_platform_one_kind_and_one_edition() {
        let release = release("0.2.0");
        let (kind, edition) = (PackageKind::Folder, Edition::Server);
        assert!(release.package("linux-x86_64", kind, edition).is_ok());
        assert!(release.package("windows-x86_64", kind, edition).is_err());
        assert!(release.package("linux-x86_64", kind, Edition::Desktop).is_err());
        assert!(release.package("linux-x86_64", PackageKind::AppImage, edition).is_err());
    }
}
