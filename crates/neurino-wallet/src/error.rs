//! What can go wrong with keys and where they are kept.

use std::io;
use std::path::PathBuf;

/// Why a key cannot be read, made, kept or trusted. No message repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The words are no phrase.
    #[error("the recovery phrase cannot be used: {rule}")]
    BadPhrase {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Not an address.
    #[error("an address is `0x` and 40 hex digits")]
    BadAddress,
    /// The signature is malformed or somebody else's.
    #[error("the signature is not valid: {rule}")]
    BadSignature {
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The key store of the operating system cannot be used now.
    #[error("the key store of the operating system cannot be used: {reason}")]
    OsStore {
        /// What is wrong, in words.
        reason: &'static str,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The key store did not answer in time; it may be waiting for the person to unlock it.
    #[error(
        "the key store of the operating system did not answer within {wait_ms} ms; unlock it and \
         try again"
    )]
    OsStoreTimeout {
        /// How long was waited.
        wait_ms: u64,
    },
    /// A key file is there but cannot be used. It is left as it is.
    #[error(
        "the key file {} cannot be used: {rule}; restore it from a backup, or move it away to start \
         with a new identity", path.display()
    )]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The key file cannot be decrypted with what was given.
    #[error(
        "the key file {} cannot be opened: the pass phrase is wrong or missing, or the file is \
         damaged; set NEURINO_PASSPHRASE_FILE to the file it was made with", path.display()
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The pass phrase file cannot be used.
    #[error("the pass phrase file {} cannot be used: {rule}", path.display())]
    BadPassphraseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
        /// The cause, where the system refused.
        #[source]
        source: Option<io::Error>,
    },
    /// What the store holds is no key of ours. It is left as it is.
    #[error("the entry in {store} is not a key of this program; remove it there to start anew")]
    DamagedEntry {
        /// The store.
        store: &'static str,
    },
    /// The identity was in a store that no longer has it.
    #[error(
        "the identity key is no longer in {store}; restore it there, or remove {} to start with a \
         new identity", marker.display()
    )]
    IdentityGone {
        /// The file that remembers where the key was.
        marker: PathBuf,
        /// The store.
        store: &'static str,
    },
    /// The identity was in a key file that is no longer there.
    #[error(
        "the key file {} is gone; put it back from a backup, or remove {} to start with a new identity",
        path.display(), marker.display()
    )]
    KeyFileGone {
        /// The key file.
        path: PathBuf,
        /// The file that remembers that it was there.
        marker: PathBuf,
    },
    /// No such identity was ever replaced here, or its key is gone.
    #[error("no key of a former identity {address} is kept on this machine")]
    NoFormer {
        /// Its address.
        address: String,
    },
    /// The file that remembers where the key is cannot be read.
    #[error(
        "{} is damaged; it holds no secret, so remove it and start again: the key is found where it \
         is", path.display()
    )]
    DamagedMarker {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock on the keys.
    #[error("another process is using the keys ({} is locked); try again", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// A key file of the network's first miners cannot be used. It is left as it is.
    #[error("the key file {} cannot be used: {rule}", path.display())]
    BadKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// A store accepted a key and did not keep it; the old key is still there.
    #[error("{store} did not keep the new key; the old one is still in use")]
    NotKept {
        /// The store.
        store: &'static str,
    },
    /// A name that no file can have.
    #[error("a key's name is 1 to 64 lower-case letters, digits, `-` or `_`")]
    BadEntryName,
    /// The system refused a file operation.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, for example `read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl WalletError {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        doing: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
