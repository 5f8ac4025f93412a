//! Keys of a machine: making, keeping and using them.
//!
//! Read [`IdentityKey`] first (twelve words, an address, signatures), then [`verify`], [`Voucher`] (what a payer promises), then
//! [`open_identity`] (where the key of this machine comes from) and the stores behind it:
//! [`OsKeyStore`], [`EncryptedFileStore`] and, for tests, [`MemoryStore`]. The person's side is
//! [`RewardAddress`] (who is paid), [`WalletBook`] (what is remembered of it), key files and
//! [`ExistingMiner`] (what the network's first miners left on this disk).

mod address;
mod book;
mod error;
mod existing;
mod file_store;
mod identity;
mod key_file;
mod open;
mod os_store;
mod qr;
mod store;
mod voucher;

pub use address::{AddressError, EnteredAddress, MinerId, RewardAddress, is_what_was_pasted};
pub use book::{BackedUp, ChainNode, FormerReward, LoadedBook, Reward, WalletBook};
pub use error::WalletError;
pub use existing::{ExistingMiner, FoundKey, FoundModels, MinerPlaces};
pub use file_store::EncryptedFileStore;
pub use identity::{IdentityKey, verify};
pub use key_file::{ImportedKey, export_key_file, import_key_file};
pub use open::{
    KeyStoreChoice, OpenIdentity, OpenedIdentity, StoreKind, forget_in_system_store,
    former_identities, load_named, load_or_create_named, open_identity, replace_identity,
    restore_former,
};
pub use os_store::OsKeyStore;
pub use qr::{QrPath, qr_path};
pub use store::{MemoryStore, SecretStore};
pub use voucher::{Escrow, SignedVoucher, Voucher, VoucherError};
