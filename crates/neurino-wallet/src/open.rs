//! Finding this machine's identity, or making one: exactly one, whatever dies in between.
//!
//! The rules, under a lock that a second process waits for:
//! - A key that exists is used, wherever it is; only where none exists is one made.
//! - A key that exists but cannot be read is an error, never a reason to make another one: points
//!   belong to the key that earned them.
//! - `identity.json` in the data folder remembers, without any secret, which store has the key. So
//!   a key store that happens to be locked is told from one that never held the key.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::error::WalletError;
use crate::file_store::{EncryptedFileStore, make_private_dir, write_durably};
use crate::identity::IdentityKey;
use crate::os_store::OsKeyStore;
use crate::store::SecretStore;

const SERVICE: &str = "Neurino";
const IDENTITY: &str = "identity";
/// Begins the name of a former identity's entry; its address follows.
const FORMER: &str = "former-";
const MARKER: &str = "identity.json";
const LOCK: &str = "keys.lock";
const LOCK_LIMIT: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where the person wants the identity key to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStoreChoice {
    /// In the key store of the operating system, or in a file where there is none.
    #[default]
    Auto,
    /// In the key store of the operating system; without one nothing starts.
    Os,
    /// In an encrypted file of the data folder.
    File,
}

/// Where the identity key is kept, as the doctor shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// The key store of the operating system.
    OsKeyStore,
    /// A file encrypted with a pass phrase.
    PassphraseFile,
    /// A file whose secret lies beside it: safe against other users, not against a copied folder.
    InstallSecretFile,
}

impl StoreKind {
    /// The store in words, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::OsKeyStore => "the key store of the operating system",
            Self::PassphraseFile => "a file encrypted with your pass phrase",
            Self::InstallSecretFile => "a file that only this user can read",
        }
    }
}

/// How to find or make the identity.
#[derive(Clone)]
pub struct OpenIdentity {
    /// The program's data folder; made where it is missing.
    pub data_dir: PathBuf,
    /// Where a new key goes. A key that exists is found wherever it is, with one exception: `File`
    /// leaves the operating system's store alone unless `identity.json` says that it has the key.
    pub preference: KeyStoreChoice,
    /// File with the pass phrase of the key file (`NEURINO_PASSPHRASE_FILE`).
    pub passphrase_file: Option<PathBuf>,
    /// Stands in for the operating system's store, in tests.
    pub os_store: Option<Arc<dyn SecretStore>>,
}

impl OpenIdentity {
    /// The usual: any store, no pass phrase.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            preference: KeyStoreChoice::Auto,
            passphrase_file: None,
            os_store: None,
        }
    }
}

/// An identity, and where it is kept.
pub struct OpenedIdentity {
    /// The key.
    pub key: Arc<IdentityKey>,
    /// Where it is kept.
    pub store: StoreKind,
    /// Whether it was made just now.
    pub created: bool,
    /// Why the operating system's store is not used although it was asked for; for the doctor.
    pub os_store_problem: Option<String>,
}

/// What is remembered of the identity; no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    store: MarkedStore,
    address: String,
    /// Identities that were replaced, in the order in which that happened; a store of the operating
    /// system does not list its entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<MarkedFormer>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MarkedFormer {
    store: MarkedStore,
    address: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MarkedStore {
    Os,
    File,
}

/// Finds this machine's identity, or makes it.
///
/// # Errors
/// [`WalletError`]: a key that is there but damaged, locked away or unreachable is never replaced;
/// the message says what helps.
pub async fn open_identity(wanted: OpenIdentity) -> Result<OpenedIdentity, WalletError> {
    let dir = wanted.data_dir.as_path();
    make_private_dir(dir).map_err(WalletError::io("make the folder", dir))?;
    let _lock = lock(dir).await?;
    let files = EncryptedFileStore::open(dir, wanted.passphrase_file.as_deref())?;
    let os = wanted.os_store.clone().unwrap_or_else(|| Arc::new(OsKeyStore::new(SERVICE)));
    let search = Search { dir, files, os, os_entry: os_entry(dir), marker: read_marker(dir)? };
    let opened = search.find_or_make(wanted.preference).await?;
    search.remember(&opened)?;
    Ok(opened)
}

/// Finds or makes another key of this machine in a file, for example the one with which a
/// coordinator signs receipts. `name` is 1 to 64 lower-case letters, digits, `-` or `_`.
///
/// # Errors
/// [`WalletError`]; a key that is there but cannot be read is never replaced.
pub async fn load_or_create_named(
    dir: &Path,
    name: &str,
    passphrase_file: Option<&Path>,
) -> Result<Arc<IdentityKey>, WalletError> {
    make_private_dir(dir).map_err(WalletError::io("make the folder", dir))?;
    let _lock = lock(dir).await?;
    let files = EncryptedFileStore::open(dir, passphrase_file)?;
    if let Some(key) = read_file(&files, name).await? {
        return Ok(key);
    }
    let key = IdentityKey::generate(&mut rand::rng());
    files.set(name, &key.phrase()).await?;
    Ok(Arc::new(key))
}

/// Finds a key that [`load_or_create_named`] made; `None` if there is none. Nothing is made.
///
/// # Errors
/// [`WalletError`].
pub async fn load_named(
    dir: &Path,
    name: &str,
    passphrase_file: Option<&Path>,
) -> Result<Option<Arc<IdentityKey>>, WalletError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    let _lock = lock(dir).await?;
    read_file(&EncryptedFileStore::open(dir, passphrase_file)?, name).await
}

/// Makes another key this machine's identity, in the store that has the present one. The present
/// key is kept beside it under a name made of its address, so that nothing is ever lost. Whatever
/// kills the program in between, one of the two keys is the identity.
///
/// # Errors
/// [`WalletError`]; the present key is still the identity then.
pub async fn replace_identity(
    wanted: OpenIdentity,
    key: IdentityKey,
) -> Result<OpenedIdentity, WalletError> {
    let dir = wanted.data_dir.as_path();
    make_private_dir(dir).map_err(WalletError::io("make the folder", dir))?;
    let _lock = lock(dir).await?;
    let files = EncryptedFileStore::open(dir, wanted.passphrase_file.as_deref())?;
    let os = wanted.os_store.unwrap_or_else(|| Arc::new(OsKeyStore::new(SERVICE)));
    let mut search = Search { dir, files, os, os_entry: os_entry(dir), marker: read_marker(dir)? };
    search.take(wanted.preference, key).await
}

/// Addresses of the identities that were replaced and whose keys are kept, the last one first. Reads
/// no key, and so asks nobody for a pass phrase.
///
/// # Errors
/// [`WalletError::DamagedMarker`], [`WalletError::Io`].
pub fn former_identities(dir: &Path) -> Result<Vec<String>, WalletError> {
    let marker = read_marker(dir)?;
    let present = marker.as_ref().map(|marker| marker.address.clone()).unwrap_or_default();
    Ok(formers(dir, marker.as_ref())
        .into_iter()
        .map(|former| former.address)
        .filter(|address| *address != present)
        .collect())
}

/// Makes a former identity this machine's again. The present one becomes a former one; no key is ever
/// deleted.
///
/// # Errors
/// [`WalletError::NoFormer`] for an address that is none, [`WalletError`]; the present key is still the
/// identity then.
pub async fn restore_former(
    wanted: OpenIdentity,
    address: &str,
) -> Result<OpenedIdentity, WalletError> {
    let dir = wanted.data_dir.as_path();
    make_private_dir(dir).map_err(WalletError::io("make the folder", dir))?;
    let _lock = lock(dir).await?;
    let files = EncryptedFileStore::open(dir, wanted.passphrase_file.as_deref())?;
    let os = wanted.os_store.unwrap_or_else(|| Arc::new(OsKeyStore::new(SERVICE)));
    let mut search = Search { dir, files, os, os_entry: os_entry(dir), marker: read_marker(dir)? };
    let address = address.trim().to_ascii_lowercase();
    let former = formers(dir, search.marker.as_ref());
    let former = former.into_iter().find(|former| former.address == address);
    let former = former.ok_or_else(|| WalletError::NoFormer { address: address.clone() })?;
    let key = search.read_former(&former).await?;
    search.take(wanted.preference, key).await
}

/// Every former identity: those of the marker, and key files that an earlier version put there.
fn formers(dir: &Path, marker: Option<&Marker>) -> Vec<MarkedFormer> {
    let mut found: Vec<MarkedFormer> =
        marker.map(|marker| marker.former.iter().rev().cloned().collect()).unwrap_or_default();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut in_files: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let hex = name.strip_prefix(FORMER)?.strip_suffix(".key")?;
            let is_address = hex.len() == 40 && hex.chars().all(|c| c.is_ascii_hexdigit());
            is_address.then(|| format!("0x{hex}"))
        })
        .collect();
    in_files.sort();
    for address in in_files {
        if found.iter().all(|known| known.address != address) {
            found.push(MarkedFormer { store: MarkedStore::File, address });
        }
    }
    found
}

/// The entry of a former identity in a file; in the operating system's store the folder is added.
fn former_entry(address: &str) -> String {
    format!("{FORMER}{}", address.trim_start_matches("0x"))
}

/// Removes this machine's identities, the former ones too, from the operating system's store, if that
/// has the present one: whether it had.
/// Files are left to the caller, and so is the question whether its words are written down.
///
/// # Errors
/// [`WalletError`] if the store cannot be asked, or the note of where the key lies is damaged.
pub async fn forget_in_system_store(wanted: OpenIdentity) -> Result<bool, WalletError> {
    let dir = wanted.data_dir.as_path();
    let marker = read_marker(dir)?;
    if !marker.as_ref().is_some_and(|marker| marker.store == MarkedStore::Os) {
        return Ok(false);
    }
    let os = wanted.os_store.unwrap_or_else(|| Arc::new(OsKeyStore::new(SERVICE)));
    os.delete(&os_entry(dir)).await?;
    for former in formers(dir, marker.as_ref()) {
        if former.store == MarkedStore::Os {
            os.delete(&format!("{} of {}", former_entry(&former.address), os_entry(dir))).await?;
        }
    }
    Ok(true)
}

struct Search<'a> {
    dir: &'a Path,
    files: EncryptedFileStore,
    os: Arc<dyn SecretStore>,
    os_entry: String,
    marker: Option<Marker>,
}

impl Search<'_> {
    async fn find_or_make(&self, choice: KeyStoreChoice) -> Result<OpenedIdentity, WalletError> {
        if self.marker.as_ref().is_some_and(|m| m.store == MarkedStore::Os) {
            return self.find_marked().await;
        }
        if let Some(key) = read_file(&self.files, IDENTITY).await? {
            return Ok(self.in_file(key, false, None));
        }
        if let Some(marker) = &self.marker {
            return self.find_elsewhere(marker, choice).await;
        }
        if choice == KeyStoreChoice::File {
            return self.make_in_file(None).await;
        }
        let error = match self.read_os().await {
            Ok(Some(key)) => return Ok(in_os(key, false)),
            Ok(None) => match self.make_in_os().await {
                Ok(key) => return Ok(in_os(key, true)),
                Err(error) => error,
            },
            Err(error @ WalletError::DamagedEntry { .. }) => return Err(error),
            Err(error) => error,
        };
        if choice == KeyStoreChoice::Os {
            return Err(error);
        }
        self.make_in_file(Some(Self::why_in_file(&error))).await
    }

    /// Why a key lies in a file, for a person; how the system's store worded it is for the log.
    fn why_in_file(error: &WalletError) -> String {
        tracing::info!(
            reason = error as &(dyn std::error::Error + 'static),
            "the identity key is kept in a file"
        );
        error.to_string()
    }

    /// The key was in the operating system's store last time, so nothing is made here.
    async fn find_marked(&self) -> Result<OpenedIdentity, WalletError> {
        let missing = match self.read_os().await {
            Ok(Some(key)) => return Ok(in_os(key, false)),
            Ok(None) => {
                WalletError::IdentityGone { marker: self.dir.join(MARKER), store: self.os.name() }
            }
            Err(error) => error,
        };
        match read_file(&self.files, IDENTITY).await? {
            Some(key) => Ok(self.in_file(key, false, Some(Self::why_in_file(&missing)))),
            None => Err(missing),
        }
    }

    /// The key was in a file last time, and that is gone. Nothing is made here; only where the system's
    /// store has the same key is that one used.
    async fn find_elsewhere(
        &self,
        marker: &Marker,
        choice: KeyStoreChoice,
    ) -> Result<OpenedIdentity, WalletError> {
        if choice != KeyStoreChoice::File
            && let Ok(Some(key)) = self.read_os().await
            && key.address() == marker.address
        {
            return Ok(in_os(key, false));
        }
        Err(WalletError::KeyFileGone {
            path: self.files.path(IDENTITY),
            marker: self.dir.join(MARKER),
        })
    }

    async fn read_os(&self) -> Result<Option<Arc<IdentityKey>>, WalletError> {
        let Some(phrase) = self.os.get(&self.os_entry).await? else { return Ok(None) };
        let key = IdentityKey::from_phrase(phrase.expose_secret())
            .map_err(|_| WalletError::DamagedEntry { store: self.os.name() })?;
        Ok(Some(Arc::new(key)))
    }

    async fn make_in_os(&self) -> Result<Arc<IdentityKey>, WalletError> {
        let key = IdentityKey::generate(&mut rand::rng());
        self.os.set(&self.os_entry, &key.phrase()).await?;
        // Some stores accept what they do not keep.
        match self.read_os().await? {
            Some(kept) if kept.address() == key.address() => Ok(kept),
            _ => Err(WalletError::OsStore { reason: "it did not keep a new entry", source: None }),
        }
    }

    async fn make_in_file(&self, problem: Option<String>) -> Result<OpenedIdentity, WalletError> {
        let key = IdentityKey::generate(&mut rand::rng());
        self.files.set(IDENTITY, &key.phrase()).await?;
        Ok(self.in_file(Arc::new(key), true, problem))
    }

    /// Makes `key` the identity; nothing happens if it is.
    async fn take(
        &mut self,
        choice: KeyStoreChoice,
        key: IdentityKey,
    ) -> Result<OpenedIdentity, WalletError> {
        let present = self.find_or_make(choice).await?;
        if present.key.address() == key.address() {
            return Ok(present);
        }
        self.note_former(&present)?;
        let opened = self.replace(&present, key).await?;
        self.remember(&opened)?;
        Ok(opened)
    }

    /// Writes down where the present key will be found once it is a former one: before it is, so that
    /// no key is kept that nobody knows of.
    fn note_former(&mut self, present: &OpenedIdentity) -> Result<(), WalletError> {
        let (store, address) = (marked(present.store), present.key.address());
        let mut marker = self.marker.clone().unwrap_or_else(|| Marker {
            version: 1,
            store,
            address: address.clone(),
            former: Vec::new(),
        });
        marker.former.retain(|former| former.address != address);
        marker.former.push(MarkedFormer { store, address });
        self.write_marker(&marker)?;
        self.marker = Some(marker);
        Ok(())
    }

    async fn read_former(&self, former: &MarkedFormer) -> Result<IdentityKey, WalletError> {
        let entry = former_entry(&former.address);
        let (phrase, damaged) = match former.store {
            MarkedStore::File => (
                self.files.get(&entry).await?,
                WalletError::DamagedFile {
                    path: self.files.path(&entry),
                    rule: "it holds another key than its name says",
                },
            ),
            MarkedStore::Os => (
                self.os.get(&format!("{entry} of {}", self.os_entry)).await?,
                WalletError::DamagedEntry { store: self.os.name() },
            ),
        };
        let none = || WalletError::NoFormer { address: former.address.clone() };
        let key = IdentityKey::from_phrase(phrase.ok_or_else(none)?.expose_secret());
        match key {
            Ok(key) if key.address() == former.address => Ok(key),
            _ => Err(damaged),
        }
    }

    /// Keeps the present key as a former one, then puts the new key in its place.
    async fn replace(
        &self,
        present: &OpenedIdentity,
        key: IdentityKey,
    ) -> Result<OpenedIdentity, WalletError> {
        let former = former_entry(&present.key.address());
        let (store, former, entry): (&dyn SecretStore, _, _) = match present.store {
            StoreKind::OsKeyStore => {
                (self.os.as_ref(), format!("{former} of {}", self.os_entry), self.os_entry.as_str())
            }
            _ => (&self.files, former, IDENTITY),
        };
        store.set(&former, &present.key.phrase()).await?;
        let not_kept = || WalletError::NotKept { store: store.name() };
        let keeps = |kept: Option<SecretString>, of: &IdentityKey| {
            kept.is_some_and(|kept| kept.expose_secret() == of.phrase().expose_secret())
        };
        if !keeps(store.get(&former).await?, &present.key) {
            return Err(not_kept());
        }
        store.set(entry, &key.phrase()).await?;
        if !keeps(store.get(entry).await?, &key) {
            return Err(not_kept());
        }
        Ok(OpenedIdentity {
            key: Arc::new(key),
            store: present.store,
            created: false,
            os_store_problem: None,
        })
    }

    fn in_file(
        &self,
        key: Arc<IdentityKey>,
        created: bool,
        os_store_problem: Option<String>,
    ) -> OpenedIdentity {
        let store = if self.files.has_passphrase() {
            StoreKind::PassphraseFile
        } else {
            StoreKind::InstallSecretFile
        };
        OpenedIdentity { key, store, created, os_store_problem }
    }

    fn remember(&self, opened: &OpenedIdentity) -> Result<(), WalletError> {
        let former = self.marker.as_ref().map(|old| old.former.clone()).unwrap_or_default();
        let (store, address) = (marked(opened.store), opened.key.address());
        let marker = Marker { version: 1, store, address, former };
        if self.marker.as_ref() == Some(&marker) {
            return Ok(());
        }
        if self.marker.as_ref().is_some_and(|old| old.address != marker.address) {
            tracing::warn!("the identity key is another one than last time");
        }
        self.write_marker(&marker)
    }

    fn write_marker(&self, marker: &Marker) -> Result<(), WalletError> {
        let path = self.dir.join(MARKER);
        let json = serde_json::to_vec_pretty(marker).expect("strings always serialise");
        write_durably(&path, &json).map_err(WalletError::io("write", &path))
    }
}

fn marked(store: StoreKind) -> MarkedStore {
    match store {
        StoreKind::OsKeyStore => MarkedStore::Os,
        StoreKind::PassphraseFile | StoreKind::InstallSecretFile => MarkedStore::File,
    }
}

fn in_os(key: Arc<IdentityKey>, created: bool) -> OpenedIdentity {
    OpenedIdentity { key, store: StoreKind::OsKeyStore, created, os_store_problem: None }
}

/// One entry for each data folder, so that a second installation of the same user does not take
/// the first one's key, and a folder made anew finds its old one.
fn os_entry(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    format!("identity of {}", dir.display())
}

async fn read_file(
    files: &EncryptedFileStore,
    name: &str,
) -> Result<Option<Arc<IdentityKey>>, WalletError> {
    let Some(phrase) = files.get(name).await? else { return Ok(None) };
    let key = IdentityKey::from_phrase(phrase.expose_secret()).map_err(|_| {
        WalletError::DamagedFile { path: files.path(name), rule: "it holds no recovery phrase" }
    })?;
    Ok(Some(Arc::new(key)))
}

fn read_marker(dir: &Path) -> Result<Option<Marker>, WalletError> {
    let path = dir.join(MARKER);
    match std::fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(marker) => Ok(Some(marker)),
            Err(_) => Err(WalletError::DamagedMarker { path }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(WalletError::io("read", &path)(e)),
    }
}

/// Waits for whoever else is finding or making keys in this folder. The system frees the lock of a
/// process that died.
async fn lock(dir: &Path) -> Result<File, WalletError> {
    let path = dir.join(LOCK);
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(WalletError::io("open", &path))?;
    let begun = tokio::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_LIMIT => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(TryLockError::WouldBlock) => return Err(WalletError::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(WalletError::io("lock", &path)(error)),
        }
    }
}
