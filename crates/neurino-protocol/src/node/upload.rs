//! Pictures that go to a network's object store and not through its coordinator.
//!
//! The URL of `UploadTo` is good for one request: `PUT` with the file as its body, and with exactly the
//! headers [`CONTENT_TYPE`] and [`IF_NONE_MATCH`] besides the length, all of which its signature covers.
//! 412 says that the file lies there already, which is as good as success.

use neurino_core::{ResultDigest, ResultStatement};
use serde::{Deserialize, Serialize};

/// Name and value of the header that says what the file is.
pub const CONTENT_TYPE: (&str, &str) = ("content-type", "image/png");
/// Name and value of the header that lets a file be written once and never replaced.
pub const IF_NONE_MATCH: (&str, &str) = ("if-none-match", "*");
/// Largest file, in bytes: what fits into [`super::SUBMIT_BYTES_MAX`] as base64.
pub const FILE_BYTES_MAX: u64 = super::SUBMIT_BYTES_MAX as u64 / 4 * 3;

/// The file of a picture, by what it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPicture {
    /// SHA-256 of the file.
    pub sha256: ResultDigest,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// A finished job whose picture was put where `UploadTo` said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Uploaded {
    /// What is signed: the same as in a submission on the link, with the digest of the whole output.
    pub statement: ResultStatement,
    /// The identity key's signature over [`ResultStatement::message`].
    pub signature: String,
    /// The picture.
    pub picture: StoredPicture,
}
