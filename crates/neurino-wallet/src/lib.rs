//! Keys of a machine: making, keeping and using them.
//!
//! Read [`IdentityKey`] first (twelve words, an address, signatures), then [`verify`], then
//! [`open_identity`] (where the key of this machine comes from) and the stores behind it:
//! [`OsKeyStore`], [`EncryptedFileStore`] and, for tests, [`MemoryStore`].

mod error;
mod file_store;
mod identity;
mod open;
mod os_store;
mod store;

pub use error::WalletError;
pub use file_store::EncryptedFileStore;
pub use identity::{IdentityKey, verify};
pub use open::{
    KeyStoreChoice, OpenIdentity, OpenedIdentity, StoreKind, load_or_create_named, open_identity,
};
pub use os_store::OsKeyStore;
pub use store::{MemoryStore, SecretStore};
