//! Finished pictures: files beside the books, named by their digest.
//!
//! A picture is on disk, synced, before the transaction that pays for it begins; a crash in between
//! leaves a file that nobody names. Such files, and those of jobs past their keeping time, are removed
//! by [`Pictures::collect`], which waits for payments that are under way. It leaves young files alone:
//! another coordinator may have written one that the books will name in a moment.

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use neurino_core::{ImageOutput, JobOutput, Png, ResultDigest, TextOutput};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::error::StoreError;

/// What a file is called until it is whole.
const TEMPORARY: &str = ".writing-";
/// How old a file is at least before it is removed.
const YOUNG: Duration = Duration::from_hours(1);

/// A result as the books keep it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kept {
    Text(TextOutput),
    Image {
        /// SHA-256 of the file, which names it.
        sha256: ResultDigest,
        width: u32,
        height: u32,
    },
}

/// The folder of pictures.
pub(crate) struct Pictures {
    folder: PathBuf,
    /// Held for reading from before a file is written until the books name it, for writing while
    /// files that the books do not name are removed.
    settling: RwLock<()>,
}

impl Pictures {
    /// In a folder, which is made with the first picture.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), settling: RwLock::new(()) }
    }

    /// Beside the books at `database`; the folder is made with the first picture.
    pub(crate) fn beside(database: &Path) -> Self {
        let mut name = database.file_stem().unwrap_or_default().to_owned();
        name.push("-pictures");
        Self { folder: database.with_file_name(name), settling: RwLock::new(()) }
    }

    /// Keeps files from being collected while the guard lives.
    pub(crate) async fn settling(&self) -> RwLockReadGuard<'_, ()> {
        self.settling.read().await
    }

    /// Writes what does not belong into the books, durably, and returns what does.
    pub(crate) async fn keep(&self, output: JobOutput) -> Result<Kept, StoreError> {
        let ImageOutput { png, width, height } = match output {
            JobOutput::Text(text) => return Ok(Kept::Text(text)),
            JobOutput::Image(picture) => picture,
        };
        let folder = self.folder.clone();
        blocking(move || {
            let sha256 = ResultDigest(Sha256::digest(&png.0).into());
            write(&folder, &path_of(&folder, sha256), &png.0)?;
            Ok(Kept::Image { sha256, width, height })
        })
        .await
    }

    /// The result that the books keep so.
    pub(crate) async fn whole(&self, kept: Kept) -> Result<JobOutput, StoreError> {
        let (sha256, width, height) = match kept {
            Kept::Text(text) => return Ok(JobOutput::Text(text)),
            Kept::Image { sha256, width, height } => (sha256, width, height),
        };
        let path = path_of(&self.folder, sha256);
        let png = blocking(move || std::fs::read(path)).await?;
        if Sha256::digest(&png)[..] != sha256.0 {
            return Err(StoreError::Unreadable { what: "picture" });
        }
        Ok(JobOutput::Image(ImageOutput { png: Png(png), width, height }))
    }

    /// Removes the files that `named` does not find in the books and that were an hour old when it
    /// began to look, and says how many there were.
    pub(crate) async fn collect(
        &self,
        named: impl Future<Output = Result<HashSet<String>, StoreError>>,
    ) -> Result<u64, StoreError> {
        // Before the books are read: whoever stood still since then, however long, removes nothing that
        // was written meanwhile.
        let old_before = SystemTime::now().checked_sub(YOUNG);
        let _nobody_settles = self.settling.write().await;
        let named = named.await?;
        let folder = self.folder.clone();
        blocking(move || {
            let files = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                files => files?,
            };
            let mut removed = 0;
            for file in files {
                let file = file?;
                let path = file.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let digest = name.strip_suffix(".png");
                let ours = digest.is_some_and(|d| d.len() == 64) || name.starts_with(TEMPORARY);
                if !ours || digest.is_some_and(|digest| named.contains(digest)) {
                    continue;
                }
                if is_older(&path, old_before)? {
                    std::fs::remove_file(&path)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }
}

/// Whether a file was last written before a time; one that is gone was not.
fn is_older(path: &Path, time: Option<SystemTime>) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(file) => Ok(time.is_some_and(|time| file.modified().is_ok_and(|at| at < time))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(StoreError::Picture)
}

fn path_of(folder: &Path, sha256: ResultDigest) -> PathBuf {
    folder.join(format!("{sha256}.png"))
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn picture(byte: u8) -> JobOutput {
        JobOutput::Image(ImageOutput { png: Png(vec![byte; 9]), width: 8, height: 8 })
    }

    /// Makes all files of a folder two hours old.
    fn age(folder: &Path) {
        let then = SystemTime::now() - 2 * YOUNG;
        for file in std::fs::read_dir(folder).unwrap() {
            let file = File::options().write(true).open(file.unwrap().path()).unwrap();
            file.set_modified(then).unwrap();
        }
    }

    #[tokio::test]
    async fn a_picture_is_kept_while_the_books_name_it() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::beside(&home.path().join("net.sqlite"));
        assert_eq!(pictures.collect(async { Ok(HashSet::new()) }).await.unwrap(), 0);
        let one = pictures.keep(picture(1)).await.unwrap();
        let two = pictures.keep(picture(2)).await.unwrap();
        pictures.keep(picture(1)).await.unwrap();
        assert!(!serde_json::to_string(&one).unwrap().contains("AQEB"), "only its name is kept");
        assert_eq!(pictures.whole(one.clone()).await.unwrap(), picture(1));
        let folder = home.path().join("net-pictures");
        std::fs::write(folder.join(format!("{TEMPORARY}x")), "half").unwrap();
        std::fs::write(folder.join("somebody's notes.txt"), "not ours").unwrap();
        let Kept::Image { sha256, .. } = one.clone() else { panic!("{one:?}") };
        let named = || async { Ok(HashSet::from([sha256.to_string()])) };
        assert_eq!(pictures.collect(named()).await.unwrap(), 0, "all of them are young");
        assert_eq!(pictures.whole(two.clone()).await.unwrap(), picture(2));
        age(&folder);
        assert_eq!(pictures.collect(named()).await.unwrap(), 2);
        assert_eq!(pictures.whole(one.clone()).await.unwrap(), picture(1));
        assert!(matches!(pictures.whole(two).await, Err(StoreError::Picture(_))));
        assert!(folder.join("somebody's notes.txt").exists());
        std::fs::write(path_of(&folder, sha256), "damaged").unwrap();
        assert!(matches!(pictures.whole(one).await, Err(StoreError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn nothing_is_removed_while_a_payment_is_under_way() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::beside(&home.path().join("net.sqlite"));
        let settling = pictures.settling().await;
        let kept = pictures.keep(picture(1)).await.unwrap();
        age(&home.path().join("net-pictures"));
        let Kept::Image { sha256, .. } = kept.clone() else { panic!("{kept:?}") };
        let books = std::sync::Mutex::new(HashSet::new());
        let named = async { Ok(books.lock().unwrap().clone()) };
        let (collected, ()) = tokio::join!(pictures.collect(named), async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            books.lock().unwrap().insert(sha256.to_string());
            drop(settling);
        });
        assert_eq!(collected.unwrap(), 0);
        assert_eq!(pictures.whole(kept).await.unwrap(), picture(1));
    }
}
