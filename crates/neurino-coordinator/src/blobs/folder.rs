//! Files in a folder of this machine, readable by this user alone.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{BlobError, Blobs};

/// What a file is called until it is whole.
pub(crate) const TEMPORARY: &str = ".writing-";

/// A folder; made with its first file.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

#[async_trait]
impl Blobs for Folder {
    async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), BlobError> {
        let (folder, path) = (self.0.clone(), self.0.join(name));
        blocking(move || write(&folder, &path, &bytes).map_err(BlobError::Disk)).await
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let path = self.0.join(name);
        blocking(move || {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(BlobError::Missing);
                }
                file => file.map_err(BlobError::Disk)?,
            };
            if file.metadata().map_err(BlobError::Disk)?.len() > bytes_max {
                return Err(BlobError::TooLarge);
            }
            let mut bytes = Vec::new();
            file.take(bytes_max).read_to_end(&mut bytes).map_err(BlobError::Disk)?;
            Ok(bytes)
        })
        .await
    }

    async fn older_than(&self, time: SystemTime) -> Result<Vec<String>, BlobError> {
        let folder = self.0.clone();
        blocking(move || older(&folder, time).map_err(BlobError::Disk)).await
    }

    async fn remove(&self, name: &str) -> Result<(), BlobError> {
        let path = self.0.join(name);
        blocking(move || match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(BlobError::Disk),
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(BlobError::Disk(io::Error::other(error))))
}

fn older(folder: &Path, time: SystemTime) -> io::Result<Vec<String>> {
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut found = Vec::new();
    for file in files {
        let file = file?;
        let name = file.file_name().to_string_lossy().into_owned();
        let digest = name.strip_suffix(".png").or_else(|| name.strip_suffix(".sealed"));
        let ours = digest.is_some_and(|d| d.len() >= 64) || name.starts_with(TEMPORARY);
        if ours && is_older(&file.path(), time)? {
            found.push(name);
        }
    }
    Ok(found)
}

/// Whether a file was last written before a time; one that is gone was not.
fn is_older(path: &Path, time: SystemTime) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(file) => Ok(file.modified().is_ok_and(|at| at < time)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Leaves the whole file or none, readable by this user alone, whatever happens to the machine.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync(folder)?;
    // The folder itself may be new.
    folder.parent().map_or(Ok(()), sync)
}

/// Makes a rename survive a power cut; Windows journals it by itself and cannot open folders.
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
