//! Keys of a machine: making, keeping and using them.
//!
//! Read [`IdentityKey`] first (twelve words, an address, signatures), then [`verify`].

mod error;
mod identity;

pub use error::WalletError;
pub use identity::{IdentityKey, verify};
