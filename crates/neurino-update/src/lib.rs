//! Newer versions of the program: found in a signed list, fetched as models are, put in place so that
//! a kill at any moment leaves a program that works, and taken back where the new one does not come up.
//!
//! Reading order: [`release`] (what the list says, and what is refused), [`place`] (where this program
//! lies and who may replace it), [`source`] (from the list's address to a verified package), [`swap`]
//! (the exchange of files, the trial of the new program, the way back), [`hand_over`] (from the old
//! process to the new one), [`making`] (the side of whoever makes releases).

pub mod error;
pub mod hand_over;
pub mod making;
pub mod place;
pub mod release;
pub mod source;
pub mod swap;
mod unpack;
pub mod version;

pub use error::UpdateError;
pub use hand_over::Exchange;
pub use place::{Keeper, Place};
pub use release::{Edition, Package, PackageKind, Release};
pub use source::{Offer, Source, Updater};
pub use swap::{Staged, Trial};
pub use version::Version;

/// The name of a list in its folder.
pub const LIST_NAME: &str = "neurino-update.json";
