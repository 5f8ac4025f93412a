//! The identity key: creation, storage, signing, verification.
