//! The key that the operator's own machines share: whatever goes over NATS is sealed with it, for one
//! subject. So a server of messages, its disk and whoever reads there learn nothing and make up nothing.

use std::path::Path;

use zeroize::Zeroizing;

use super::FabricError;
use crate::seal::{KEY, Key, open, seal};

/// The shared key. Has no `Debug`: it is a secret.
#[derive(Clone)]
pub struct FabricKey(Key);

impl FabricKey {
    /// Reads the key of a file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// `Key`: the file is not there or holds something else.
    pub fn load(path: &Path) -> Result<Self, FabricError> {
        let wrong = |source| FabricError::Key { path: path.to_owned(), source };
        let digits = std::fs::read_to_string(path).map(Zeroizing::new).map_err(wrong)?;
        let mut key = Zeroizing::new([0; KEY]);
        hex::decode_to_slice(digits.trim(), key.as_mut_slice()).map_err(|_| {
            wrong(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "64 hexadecimal digits are expected",
            ))
        })?;
        Ok(Self(key))
    }

    /// Reads the key of a file, which is made the first time, readable by its owner alone.
    ///
    /// # Errors
    /// `Key`.
    pub fn load_or_create(path: &Path) -> Result<Self, FabricError> {
        let key = Zeroizing::new(rand::random::<[u8; KEY]>());
        let mut options = std::fs::OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let made = options.open(path).and_then(|mut file| {
            let digits = Zeroizing::new(hex::encode(key.as_slice()));
            std::io::Write::write_all(&mut file, digits.as_bytes())?;
            file.sync_all()
        });
        match made {
            Ok(()) => Ok(Self(key)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(FabricError::Key { path: path.to_owned(), source }),
        }
    }

    /// A key that is nowhere else.
    pub fn draw() -> Self {
        Self(Zeroizing::new(rand::random()))
    }

    /// Seals a message for a subject.
    pub(crate) fn seal(&self, subject: &str, plain: &[u8]) -> Vec<u8> {
        seal(&self.0, subject.as_bytes(), plain)
    }

    /// What was sealed for a subject; `None` if it was not, or not with this key.
    pub(crate) fn open(&self, subject: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        open(&self.0, subject.as_bytes(), sealed)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::seal::SEAL;

    #[test]
    fn only_the_key_opens_and_only_for_its_subject() {
        let key = FabricKey::draw();
        let sealed = key.seal("a.b", b"words");
        assert_eq!(sealed.len(), b"words".len() + SEAL);
        assert_eq!(key.open("a.b", &sealed).unwrap(), b"words");
        assert_ne!(key.seal("a.b", b"words"), sealed, "no two messages look the same");
        assert!(key.open("a.c", &sealed).is_none());
        assert!(FabricKey::draw().open("a.b", &sealed).is_none());
        for at in [0, 24, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("a.b", &changed).is_none(), "{at}");
        }
        for cut in 0..sealed.len() {
            assert!(key.open("a.b", &sealed[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fabric.key");
        assert!(FabricKey::load(&path).is_err());
        let first = FabricKey::load_or_create(&path).unwrap();
        let again = FabricKey::load_or_create(&path).unwrap();
        assert_eq!(again.open("s", &first.seal("s", b"x")).unwrap(), b"x");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        for wrong in ["", "abc", &"0g".repeat(32), &"00".repeat(31)] {
            std::fs::write(&path, wrong).unwrap();
            let error = FabricKey::load_or_create(&path).err().unwrap();
            assert!(error.to_string().contains("fabric.key"), "{error}");
        }
    }
}
