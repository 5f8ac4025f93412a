//! Where the files of pictures lie: a folder, or a bucket of an S3-compatible server.
//!
//! [`Blobs`] is what both can do, and what `contract` holds both to; `folder` and `bucket` are they, and
//! `web` carries a bucket's requests. Links ([`Bucket::upload_link`], [`Bucket::view_link`]) only a bucket
//! has.

mod bucket;
#[cfg(test)]
mod contract;
mod folder;
mod web;

use std::time::SystemTime;

use async_trait::async_trait;

pub use bucket::{Bucket, BucketKeys, BucketTrouble};
pub(crate) use folder::Folder;

/// A store of files by name. Names are `[a-z0-9-]+` with `.png` or `.sealed`, and say what is in the file:
/// nobody writes two different pictures under one name.
#[async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Writes a file, durably: whole, or not at all.
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BlobError>;

    /// Reads a whole file of at most so many bytes; of one that is longer nothing is read.
    async fn get(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, BlobError>;

    /// Names of all files of ours that were last written before a time.
    async fn older_than(&self, time: SystemTime) -> Result<Vec<String>, BlobError>;

    /// Removes a file; one that is not there is removed already.
    async fn remove(&self, name: &str) -> Result<(), BlobError>;
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such file.
    #[error("the file of the picture is not there")]
    Missing,
    /// It is longer than it may be.
    #[error("the file of the picture is too large")]
    TooLarge,
    /// The disk refused.
    #[error("the file of the picture cannot be written or read; check that the disk is not full")]
    Disk(#[source] std::io::Error),
    /// The server does not answer, or is overloaded. It may have done what was asked.
    #[error("the object store cannot be reached")]
    Unavailable(#[source] object_store::Error),
    /// The server answers, and refuses.
    #[error("the object store refused; check that its keys may read, write, list and delete")]
    Refused(#[source] object_store::Error),
    /// It is in a bucket, and there is none.
    #[error("the picture lies in a bucket; start the coordinator with the `--blobs` it had before")]
    NoBucket,
}

impl BlobError {
    /// Whether another attempt may help.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
