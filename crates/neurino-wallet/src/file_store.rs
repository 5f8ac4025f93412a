//! Secrets in encrypted files, for machines without a key store.
//!
//! What the encryption is worth depends on where its key comes from:
//! - from a pass phrase (a file named by the person, best on another disk or handed in by the
//!   service manager): a copy of the data folder is of no use without it;
//! - without one, from a random secret in `install.secret` beside the key files. That only protects
//!   a key file that is copied alone, into a backup or a bug report. Whoever can read the folder
//!   can read the keys; both files are readable by this user alone (mode 0600 on Unix).
//!
//! A file holds JSON; the secret is sealed with XChaCha20-Poly1305 under a key that argon2id makes
//! from the pass phrase or the install secret. Name, kind of lock and argon2id's settings are
//! authenticated along with it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::WalletError;
use crate::store::SecretStore;

const VERSION: u32 = 1;
const INSTALL_SECRET: &str = "install.secret";
const PASSPHRASE_BYTES_MAX: u64 = 4096;
/// Settings for pass phrases: a fifth of a second and 64 MiB for each guess.
const SLOW: Kdf = Kdf { memory_kib: 64 << 10, passes: 3, lanes: 1 };
/// Settings for the install secret, whose 256 bits nobody can guess.
const FAST: Kdf = Kdf { memory_kib: 64, passes: 1, lanes: 1 };
/// Most memory a file may demand, so that a forged one cannot exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 4;

/// Secrets in encrypted files of one folder.
#[derive(Clone)]
pub struct EncryptedFileStore {
    dir: PathBuf,
    passphrase: Option<SecretString>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    entry: String,
    lock: Lock,
    kdf: Kdf,
    salt: String,
    nonce: String,
    sealed: String,
}

/// What the key is made from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lock {
    Passphrase,
    InstallSecret,
}

/// argon2id's settings.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl EncryptedFileStore {
    /// A store in a folder, made where it is missing. The pass phrase is the content of
    /// `passphrase_file` without the line end.
    ///
    /// # Errors
    /// [`WalletError::BadPassphraseFile`], [`WalletError::Io`].
    pub fn open(dir: &Path, passphrase_file: Option<&Path>) -> Result<Self, WalletError> {
        make_private_dir(dir).map_err(WalletError::io("make the folder", dir))?;
        let passphrase = passphrase_file.map(read_passphrase).transpose()?;
        Ok(Self { dir: dir.to_owned(), passphrase })
    }

    /// Whether new files are locked with a pass phrase.
    pub fn has_passphrase(&self) -> bool {
        self.passphrase.is_some()
    }

    /// The file of an entry.
    pub fn path(&self, entry: &str) -> PathBuf {
        self.dir.join(format!("{entry}.key"))
    }

    fn read(&self, entry: &str) -> Result<Option<SecretString>, WalletError> {
        let path = self.path(entry);
        let damaged = |rule| WalletError::DamagedFile { path: path.clone(), rule };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(WalletError::io("read", &path)(e)),
        };
        let file: KeyFile =
            serde_json::from_slice(&bytes).map_err(|_| damaged("it is not a key file"))?;
        if file.version != VERSION {
            return Err(damaged("it was written by a newer version of the program"));
        }
        if file.entry != entry {
            return Err(damaged("it holds another key than its name says"));
        }
        let source = match (file.lock, &self.passphrase) {
            (Lock::Passphrase, Some(passphrase)) => passphrase.clone(),
            (Lock::Passphrase, None) => return Err(WalletError::WrongPassphrase { path }),
            (Lock::InstallSecret, _) => {
                let secret = self.install_secret()?;
                secret.ok_or_else(|| damaged("`install.secret` beside it is missing"))?
            }
        };
        let Some(secret) = file.unseal(&source) else {
            return Err(match file.lock {
                Lock::Passphrase => WalletError::WrongPassphrase { path },
                Lock::InstallSecret => damaged("it, or `install.secret` beside it, was changed"),
            });
        };
        if file.lock == Lock::InstallSecret && self.passphrase.is_some() {
            // From now on the pass phrase protects it, as the person asked.
            self.write(entry, &secret)?;
        }
        Ok(Some(secret))
    }

    fn write(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError> {
        let file = if let Some(passphrase) = &self.passphrase {
            KeyFile::seal(entry, Lock::Passphrase, SLOW, passphrase, secret)
        } else {
            let source = match self.install_secret()? {
                Some(source) => source,
                None => self.make_install_secret()?,
            };
            KeyFile::seal(entry, Lock::InstallSecret, FAST, &source, secret)
        };
        let path = self.path(entry);
        let json = serde_json::to_vec_pretty(&file).expect("strings and integers always serialise");
        write_durably(&path, &json).map_err(WalletError::io("write", &path))
    }

    fn remove(&self, entry: &str) -> Result<(), WalletError> {
        let path = self.path(entry);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(WalletError::io("remove", &path)(e))
            }
            _ => Ok(()),
        }
    }

    fn install_secret(&self) -> Result<Option<SecretString>, WalletError> {
        let path = self.dir.join(INSTALL_SECRET);
        match std::fs::read_to_string(&path) {
            Ok(mut text) => {
                let secret = SecretString::from(text.trim());
                text.zeroize();
                Ok(Some(secret))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(WalletError::io("read", &path)(e)),
        }
    }

    fn make_install_secret(&self) -> Result<SecretString, WalletError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        rand::rng().fill_bytes(bytes.as_mut());
        let text = Zeroizing::new(hex::encode(bytes.as_ref()));
        let path = self.dir.join(INSTALL_SECRET);
        write_durably(&path, text.as_bytes()).map_err(WalletError::io("write", &path))?;
        Ok(SecretString::from(text.as_str()))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, WalletError> + Send + 'static,
    ) -> Result<T, WalletError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(error) => Err(WalletError::io("use", &self.dir)(io::Error::other(error))),
        }
    }
}

#[async_trait]
impl SecretStore for EncryptedFileStore {
    async fn get(&self, entry: &str) -> Result<Option<SecretString>, WalletError> {
        check_name(entry)?;
        let entry = entry.to_owned();
        self.blocking(move |store| store.read(&entry)).await
    }

    async fn set(&self, entry: &str, secret: &SecretString) -> Result<(), WalletError> {
        check_name(entry)?;
        let (entry, secret) = (entry.to_owned(), secret.clone());
        self.blocking(move |store| store.write(&entry, &secret)).await
    }

    async fn delete(&self, entry: &str) -> Result<(), WalletError> {
        check_name(entry)?;
        let entry = entry.to_owned();
        self.blocking(move |store| store.remove(&entry)).await
    }

    fn name(&self) -> &'static str {
        if self.has_passphrase() {
            "a file encrypted with a pass phrase"
        } else {
            "a file that only this user can read"
        }
    }
}

impl KeyFile {
    fn seal(
        entry: &str,
        lock: Lock,
        kdf: Kdf,
        source: &SecretString,
        secret: &SecretString,
    ) -> Self {
        let (mut salt, mut nonce) = ([0_u8; 16], [0_u8; 24]);
        rand::rng().fill_bytes(&mut salt);
        rand::rng().fill_bytes(&mut nonce);
        let mut file = Self {
            version: VERSION,
            entry: entry.to_owned(),
            lock,
            kdf,
            salt: hex::encode(salt),
            nonce: hex::encode(nonce),
            sealed: String::new(),
        };
        let key = file.key(source).expect("settings of the program are within argon2id's limits");
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: &file.header() };
        let sealed = XChaCha20Poly1305::new(key.as_ref().into())
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("a phrase is far below the cipher's limit");
        file.sealed = hex::encode(sealed);
        file
    }

    /// The secret, unless the key is wrong or anything in the file was changed.
    fn unseal(&self, source: &SecretString) -> Option<SecretString> {
        let key = self.key(source)?;
        let nonce: [u8; 24] = hex::decode(&self.nonce).ok()?.try_into().ok()?;
        let sealed = hex::decode(&self.sealed).ok()?;
        let payload = Payload { msg: &sealed, aad: &self.header() };
        let opened = XChaCha20Poly1305::new(key.as_ref().into())
            .decrypt(XNonce::from_slice(&nonce), payload)
            .ok()?;
        let opened = Zeroizing::new(opened);
        std::str::from_utf8(&opened).ok().map(SecretString::from)
    }

    fn key(&self, source: &SecretString) -> Option<Zeroizing<[u8; 32]>> {
        let Kdf { memory_kib, passes, lanes } = self.kdf;
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return None;
        }
        let salt = hex::decode(&self.salt).ok()?;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
        let mut key = Zeroizing::new([0_u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(source.expose_secret().as_bytes(), &salt, key.as_mut())
            .ok()?;
        Some(key)
    }

    /// What is authenticated along with the secret.
    fn header(&self) -> Vec<u8> {
        let Kdf { memory_kib, passes, lanes } = self.kdf;
        let lock = match self.lock {
            Lock::Passphrase => "passphrase",
            Lock::InstallSecret => "install_secret",
        };
        let mut text = String::new();
        let _ = write!(
            text,
            "neurino key file v{}\nentry: {}\nlock: {lock}\nargon2id: {memory_kib} {passes} {lanes}",
            self.version, self.entry
        );
        text.into_bytes()
    }
}

fn check_name(entry: &str) -> Result<(), WalletError> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if (1..=64).contains(&entry.len()) && entry.chars().all(ok) {
        Ok(())
    } else {
        Err(WalletError::BadEntryName)
    }
}

fn read_passphrase(path: &Path) -> Result<SecretString, WalletError> {
    let bad = |rule, source| WalletError::BadPassphraseFile { path: path.into(), rule, source };
    let size = std::fs::metadata(path).map_err(|e| bad("it cannot be read", Some(e)))?.len();
    if size > PASSPHRASE_BYTES_MAX {
        return Err(bad("it is longer than 4096 bytes", None));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad("it cannot be read", Some(e)))?;
    let text = Zeroizing::new(text);
    let passphrase = text.trim_end_matches(['\r', '\n']);
    if passphrase.is_empty() {
        return Err(bad("it is empty", None));
    }
    Ok(SecretString::from(passphrase))
}

/// Makes a folder, and those above it, that only this user can enter (on Unix).
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Replaces a file so that whatever kills the program leaves the old one or the new one, whole.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    // Made with mode 0600 on Unix.
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    if cfg!(unix) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "test test test test test test test test test test test junk";

    fn secret() -> SecretString {
        SecretString::from(SECRET)
    }

    fn open(dir: &Path, passphrase: Option<&str>) -> EncryptedFileStore {
        let file = passphrase.map(|text| {
            let path = dir.join("passphrase.txt");
            std::fs::write(&path, text).expect("written");
            path
        });
        EncryptedFileStore::open(dir, file.as_deref()).map_err(|e| e.to_string()).expect("opened")
    }

    async fn get(store: &EncryptedFileStore) -> Result<Option<String>, WalletError> {
        let found = store.get("identity").await?;
        Ok(found.map(|secret| secret.expose_secret().to_owned()))
    }

    #[tokio::test]
    async fn secrets_come_back_with_and_without_a_pass_phrase() {
        for passphrase in [None, Some("correct horse\r\n")] {
            let dir = tempfile::tempdir().expect("a folder");
            let store = open(dir.path(), passphrase);
            assert!(get(&store).await.expect("empty").is_none());
            store.set("identity", &secret()).await.expect("set");
            let again = open(dir.path(), passphrase);
            assert_eq!(get(&again).await.expect("read").as_deref(), Some(SECRET));
            let file = std::fs::read_to_string(store.path("identity")).expect("there");
            assert!(!file.contains("junk"), "the secret must not be readable");
            store.delete("identity").await.expect("deleted");
            store.delete("identity").await.expect("deleting again is free");
            assert!(get(&store).await.expect("empty").is_none());
        }
    }

    #[tokio::test]
    async fn a_wrong_or_missing_pass_phrase_is_said_and_destroys_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        open(dir.path(), Some("right")).set("identity", &secret()).await.expect("set");
        for passphrase in [Some("wrong"), None] {
            let error = get(&open(dir.path(), passphrase)).await.expect_err("refused");
            assert!(matches!(error, WalletError::WrongPassphrase { .. }), "{error}");
        }
        let store = open(dir.path(), Some("right"));
        assert_eq!(get(&store).await.expect("read").as_deref(), Some(SECRET));
    }

    #[tokio::test]
    async fn a_pass_phrase_given_later_takes_over() {
        let dir = tempfile::tempdir().expect("a folder");
        open(dir.path(), None).set("identity", &secret()).await.expect("set");
        assert!(get(&open(dir.path(), Some("new"))).await.expect("read").is_some());
        let error = get(&open(dir.path(), None)).await.expect_err("locked now");
        assert!(matches!(error, WalletError::WrongPassphrase { .. }), "{error}");
        assert!(get(&open(dir.path(), Some("new"))).await.expect("read").is_some());
    }

    #[tokio::test]
    async fn every_change_of_a_file_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open(dir.path(), None);
        store.set("identity", &secret()).await.expect("set");
        let path = store.path("identity");
        let whole = std::fs::read(&path).expect("there");
        let mut changed = 0;
        for at in (0..whole.len()).filter(|at| whole[*at].is_ascii_alphanumeric()) {
            let mut bytes = whole.clone();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            std::fs::write(&path, &bytes).expect("written");
            let error = get(&store).await.expect_err("a changed byte must be noticed");
            assert!(
                matches!(
                    error,
                    WalletError::DamagedFile { .. } | WalletError::WrongPassphrase { .. }
                ),
                "{error}"
            );
            changed += 1;
        }
        assert!(changed > 200, "{changed}");
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).expect("written");
            assert!(get(&store).await.is_err(), "cut to {length} bytes");
        }
        std::fs::write(&path, &whole).expect("written");
        std::fs::remove_file(dir.path().join(INSTALL_SECRET)).expect("removed");
        let error = get(&store).await.expect_err("locked for good").to_string();
        assert!(error.contains("install.secret"), "{error}");
    }

    #[tokio::test]
    async fn unusable_pass_phrase_files_and_names_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let refuse = |path: &Path| {
            let opened = EncryptedFileStore::open(dir.path(), Some(path));
            let error = opened.map(|_| ()).expect_err("refused");
            assert!(matches!(error, WalletError::BadPassphraseFile { .. }), "{error}");
        };
        refuse(&dir.path().join("missing"));
        let path = dir.path().join("p");
        std::fs::write(&path, "\n").expect("written");
        refuse(&path);
        std::fs::write(&path, "x".repeat(5000)).expect("written");
        refuse(&path);
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        refuse(&path);
        let store = open(dir.path(), None);
        for name in ["", "../x", "a/b", "A", "x.key"] {
            assert!(matches!(store.get(name).await, Err(WalletError::BadEntryName)), "{name}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_this_user_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().expect("a folder");
        let dir = parent.path().join("keys");
        let store = open(&dir, None);
        store.set("identity", &secret()).await.expect("set");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&store.path("identity")), 0o600);
        assert_eq!(mode(&dir.join(INSTALL_SECRET)), 0o600);
    }
}
