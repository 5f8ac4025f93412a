//! Finished pictures: files in a folder beside the books, or in a bucket.
//!
//! A picture is written, durably, before the transaction that pays for it begins; a crash in between
//! leaves a file that nobody names. Such files, and those of jobs past their keeping time, are removed
//! by [`Pictures::collect`]. It leaves young files alone: another coordinator may have written one that
//! the books will name in a moment.
//!
//! A file belongs to the lease that it was made in, and is named by that and by the picture's digest. In
//! the folder it is sealed with its job's key; payments that are under way wait until nothing is removed,
//! because the same lease may write it again. In the bucket it is as the node put it there, to be fetched
//! by its link, and none gets its name again; a link that a node has for it ends long before it is old.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use neurino_core::{ImageOutput, JobId, JobOutput, LeaseId, Png, ResultDigest, TextOutput};
use neurino_protocol::node::upload::FILE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::blobs::{BlobError, Blobs, Bucket, Folder};
use crate::error::StoreError;
use crate::payload::{Field, JobKey};
use crate::seal::SEAL;

/// How old a file is at least before it is removed.
const YOUNG: Duration = Duration::from_hours(1);
/// Files that the books are asked about at once.
pub(super) const NAMES: usize = 64;

/// A result as the books keep it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kept {
    Text(TextOutput),
    Image {
        /// SHA-256 of the file.
        sha256: ResultDigest,
        width: u32,
        height: u32,
        /// Set if the file is in the bucket: the lease that it was made in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseId>,
        /// Set if the file is in the folder and sealed: the lease that it was made in. Neither is set of
        /// former versions' files, which lie there open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed: Option<LeaseId>,
    },
}

impl Kept {
    /// The digest of its picture.
    pub(super) fn picture(&self) -> Option<ResultDigest> {
        match self {
            Self::Text(_) => None,
            Self::Image { sha256, .. } => Some(*sha256),
        }
    }
}

/// The name of a picture's sealed file in the folder.
fn sealed_name(lease: LeaseId, sha256: ResultDigest) -> String {
    format!("{lease}-{sha256}.sealed")
}

/// The name of a former version's file in the folder.
fn former_name(sha256: ResultDigest) -> String {
    format!("{sha256}.png")
}

/// The name of a picture's file in the bucket.
pub(crate) fn name_of(lease: LeaseId, sha256: ResultDigest) -> String {
    format!("{lease}-{sha256}.png")
}

/// Where pictures lie. New ones go into the bucket, if there is one; older ones may be in the folder.
pub(crate) struct Pictures {
    folder: Folder,
    bucket: Option<Bucket>,
    /// Held for reading from before a file is written until the books name it, for writing while
    /// files of the folder that the books do not name are removed.
    settling: RwLock<()>,
}

impl Pictures {
    /// In a folder, which is made with the first picture.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: Folder::at(folder), bucket: None, settling: RwLock::new(()) }
    }

    /// Beside the books at `database`; the folder is made with the first picture.
    pub(crate) fn beside(database: &Path) -> Self {
        let mut name = database.file_stem().unwrap_or_default().to_owned();
        name.push("-pictures");
        Self::at(&database.with_file_name(name))
    }

    /// Puts new ones into a bucket.
    pub(crate) fn put_into(&mut self, bucket: Option<Bucket>) {
        self.bucket = bucket;
    }

    /// Keeps files from being collected while the guard lives.
    pub(crate) async fn settling(&self) -> RwLockReadGuard<'_, ()> {
        self.settling.read().await
    }

    /// Writes what does not belong into the books, durably, and returns what does. `own` is its job and
    /// that one's key.
    pub(crate) async fn keep(
        &self,
        output: JobOutput,
        lease: LeaseId,
        uploaded: bool,
        own: (JobId, &JobKey),
    ) -> Result<Kept, StoreError> {
        let ImageOutput { png, width, height } = match output {
            JobOutput::Text(text) => return Ok(Kept::Text(text)),
            JobOutput::Image(picture) => picture,
        };
        let (bucket, (job, key)) = (self.bucket.is_some(), (own.0, own.1.clone()));
        // A moment's work for a large file.
        let (file, sha256) = blocking(move || {
            let sha256 = ResultDigest(Sha256::digest(&png.0).into());
            (if bucket { png.0 } else { key.seal(job, Field::Picture, &png.0) }, sha256)
        })
        .await?;
        if let Some(bucket) = &self.bucket {
            if !uploaded {
                bucket.put(&name_of(lease, sha256), file).await?;
            }
            return Ok(Kept::Image { sha256, width, height, lease: Some(lease), sealed: None });
        }
        self.folder.put(&sealed_name(lease, sha256), file).await?;
        Ok(Kept::Image { sha256, width, height, lease: None, sealed: Some(lease) })
    }

    /// Seals the file of a former version, and says which one may be removed once nobody names it.
    pub(super) async fn seal_former(
        &self,
        kept: Kept,
        job: JobId,
        lease: Option<LeaseId>,
        key: &JobKey,
    ) -> Result<(Kept, Option<ResultDigest>), StoreError> {
        let (Kept::Image { sha256, width, height, lease: None, sealed: None }, Some(lease)) =
            (&kept, lease)
        else {
            return Ok((kept, None));
        };
        let (sha256, width, height) = (*sha256, *width, *height);
        let file = match self.folder.get(&former_name(sha256), FILE_BYTES_MAX).await {
            // Nobody can be shown it any more.
            Err(BlobError::Missing | BlobError::TooLarge) => return Ok((kept, None)),
            file => file?,
        };
        let key = key.clone();
        let file = blocking(move || key.seal(job, Field::Picture, &file)).await?;
        self.folder.put(&sealed_name(lease, sha256), file).await?;
        let kept = Kept::Image { sha256, width, height, lease: None, sealed: Some(lease) };
        Ok((kept, Some(sha256)))
    }

    /// Removes the open file of a former version.
    pub(super) async fn remove_former(&self, sha256: ResultDigest) -> Result<(), StoreError> {
        Ok(self.folder.remove(&former_name(sha256)).await?)
    }

    /// The result that the books keep so. `own` is its job and that one's key.
    pub(crate) async fn whole(
        &self,
        kept: Kept,
        own: (JobId, &JobKey),
    ) -> Result<JobOutput, StoreError> {
        let (sha256, width, height, lease, sealed) = match kept {
            Kept::Text(text) => return Ok(JobOutput::Text(text)),
            Kept::Image { sha256, width, height, lease, sealed } => {
                (sha256, width, height, lease, sealed)
            }
        };
        let png = match (lease, sealed, &self.bucket) {
            (None, Some(lease), _) => {
                let most = FILE_BYTES_MAX + SEAL as u64;
                let file = self.folder.get(&sealed_name(lease, sha256), most).await?;
                let (job, key) = (own.0, own.1.clone());
                let opened = blocking(move || key.open(job, Field::Picture, &file)).await?;
                super::vault::opened(opened, Field::Picture)?
            }
            (None, None, _) => self.folder.get(&former_name(sha256), FILE_BYTES_MAX).await?,
            (Some(lease), _, Some(bucket)) => {
                bucket.get(&name_of(lease, sha256), FILE_BYTES_MAX).await?
            }
            (Some(_), _, None) => return Err(BlobError::NoBucket.into()),
        };
        if Sha256::digest(&png)[..] != sha256.0 {
            return Err(StoreError::Unreadable { what: "picture" });
        }
        Ok(JobOutput::Image(ImageOutput { png: Png(png), width, height }))
    }

    /// A link to what the books keep so, if it lies in the bucket.
    pub(crate) fn link(&self, kept: &Kept, valid: Duration) -> Option<String> {
        let Kept::Image { sha256, lease: Some(lease), .. } = kept else { return None };
        let url = self.bucket.as_ref()?.view_link(&name_of(*lease, *sha256), valid)?;
        Some(url.into())
    }

    /// Removes the files that the books do not name and that were an hour old when it began to look, and
    /// says how many there were. `named` tells which of some names the books know. It is asked about a few
    /// at a time: payments wait no longer than that takes.
    pub(crate) async fn collect<F>(
        &self,
        named: impl Fn(Vec<String>) -> F,
    ) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<HashSet<String>, StoreError>>,
    {
        self.collect_before(SystemTime::now().checked_sub(YOUNG), named).await
    }

    /// The same with files that were last written before a time. It is told before the books are read:
    /// whoever stood still since then, however long, removes nothing that was written meanwhile.
    async fn collect_before<F>(
        &self,
        time: Option<SystemTime>,
        named: impl Fn(Vec<String>) -> F,
    ) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<HashSet<String>, StoreError>>,
    {
        let Some(time) = time else { return Ok(0) };
        // Seen first: what the books do not name now and is so old, they never will, unless a payment that
        // is under way writes it again. In the folder those are waited for.
        let mut removed = 0;
        for names in self.folder.older_than(time).await?.chunks(NAMES) {
            let nobody_settles = self.settling.write().await;
            removed += remove_unnamed(&self.folder, names, &named).await?;
            drop(nobody_settles);
        }
        if let Some(bucket) = &self.bucket {
            for names in bucket.older_than(time).await?.chunks(NAMES) {
                removed += remove_unnamed(bucket, names, &named).await?;
            }
        }
        Ok(removed)
    }
}

/// Removes those of some files that the books do not name.
async fn remove_unnamed<F>(
    blobs: &dyn Blobs,
    names: &[String],
    named: &impl Fn(Vec<String>) -> F,
) -> Result<u64, StoreError>
where
    F: Future<Output = Result<HashSet<String>, StoreError>>,
{
    let known = named(names.to_vec()).await?;
    let mut removed = 0;
    for name in names.iter().filter(|name| !known.contains(*name)) {
        blobs.remove(name).await?;
        removed += 1;
    }
    Ok(removed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StoreError::Picture(BlobError::Disk(std::io::Error::other(error))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::fs::File;

    use uuid::Uuid;

    use super::*;

    const TEMPORARY: &str = ".writing-";
    const LEASE: LeaseId = LeaseId(Uuid::from_u128(7));
    const JOB: JobId = JobId(Uuid::from_u128(5));

    /// The key that the job has in a test.
    fn key() -> &'static JobKey {
        static KEY: std::sync::OnceLock<JobKey> = std::sync::OnceLock::new();
        KEY.get_or_init(JobKey::draw)
    }

    fn own() -> (JobId, &'static JobKey) {
        (JOB, key())
    }

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
        assert_eq!(pictures.collect(async |_| Ok(HashSet::new())).await.unwrap(), 0);
        let one = pictures.keep(picture(1), LEASE, false, own()).await.unwrap();
        let two = pictures.keep(picture(2), LEASE, false, own()).await.unwrap();
        pictures.keep(picture(1), LEASE, false, own()).await.unwrap();
        assert!(!serde_json::to_string(&one).unwrap().contains("AQEB"), "only its name is kept");
        assert_eq!(pictures.whole(one.clone(), own()).await.unwrap(), picture(1));
        let folder = home.path().join("net-pictures");
        std::fs::write(folder.join(format!("{TEMPORARY}x")), "half").unwrap();
        std::fs::write(folder.join("somebody's notes.txt"), "not ours").unwrap();
        let Kept::Image { sha256, .. } = one.clone() else { panic!("{one:?}") };
        let named = async |_: Vec<String>| Ok(HashSet::from([sealed_name(LEASE, sha256)]));
        assert_eq!(pictures.collect(named).await.unwrap(), 0, "all of them are young");
        assert_eq!(pictures.whole(two.clone(), own()).await.unwrap(), picture(2));
        age(&folder);
        assert_eq!(pictures.collect(named).await.unwrap(), 2);
        assert_eq!(pictures.whole(one.clone(), own()).await.unwrap(), picture(1));
        assert!(matches!(
            pictures.whole(two, own()).await,
            Err(StoreError::Picture(BlobError::Missing))
        ));
        assert!(folder.join("somebody's notes.txt").exists());
        let file = folder.join(sealed_name(LEASE, sha256));
        let sealed = std::fs::read(&file).unwrap();
        assert_eq!(sealed.len(), 9 + SEAL, "and nothing of the picture shows");
        let stranger = (JobId(Uuid::from_u128(6)), key());
        let refused = |read| matches!(read, Err(StoreError::Sealed { .. }));
        assert!(refused(pictures.whole(one.clone(), stranger).await), "it is another job's");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            std::fs::write(&file, changed).unwrap();
            assert!(refused(pictures.whole(one.clone(), own()).await), "{at}");
        }
    }

    #[tokio::test]
    async fn nothing_is_removed_while_a_payment_is_under_way() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::beside(&home.path().join("net.sqlite"));
        let settling = pictures.settling().await;
        let kept = pictures.keep(picture(1), LEASE, false, own()).await.unwrap();
        age(&home.path().join("net-pictures"));
        let Kept::Image { sha256, .. } = kept.clone() else { panic!("{kept:?}") };
        let books = std::sync::Mutex::new(HashSet::new());
        let named = async |_: Vec<String>| Ok(books.lock().unwrap().clone());
        let (collected, ()) = tokio::join!(pictures.collect(named), async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            books.lock().unwrap().insert(sealed_name(LEASE, sha256));
            drop(settling);
        });
        assert_eq!(collected.unwrap(), 0);
        assert_eq!(pictures.whole(kept, own()).await.unwrap(), picture(1));
    }

    #[tokio::test]
    async fn a_bucket_is_collected_by_the_books_and_by_age() {
        let home = tempfile::tempdir().unwrap();
        let mut pictures = Pictures::beside(&home.path().join("net.sqlite"));
        let before = pictures.keep(picture(9), LEASE, false, own()).await.unwrap();
        pictures.put_into(Some(Bucket::in_memory()));
        let one = pictures.keep(picture(1), LEASE, false, own()).await.unwrap();
        let two = pictures.keep(picture(2), LEASE, false, own()).await.unwrap();
        let Kept::Image { sha256, lease: Some(LEASE), .. } = one.clone() else { panic!("{one:?}") };
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains(&LEASE.to_string()), "the books know where: {text}");
        let named = async |_: Vec<String>| Ok(HashSet::from([name_of(LEASE, sha256)]));
        assert_eq!(pictures.collect(named).await.unwrap(), 0, "all of them are young");
        assert_eq!(pictures.whole(two.clone(), own()).await.unwrap(), picture(2));
        let future = SystemTime::now() + Duration::from_secs(5);
        assert_eq!(pictures.collect_before(Some(future), named).await.unwrap(), 2);
        assert_eq!(pictures.whole(one.clone(), own()).await.unwrap(), picture(1));
        for gone in [before, two] {
            let missing = pictures.whole(gone, own()).await;
            assert!(matches!(missing, Err(StoreError::Picture(BlobError::Missing))));
        }
        pictures.put_into(None);
        let nowhere = pictures.whole(one, own()).await;
        assert!(matches!(nowhere, Err(StoreError::Picture(BlobError::NoBucket))));
    }

    #[tokio::test]
    async fn a_former_picture_is_sealed_and_not_lost() {
        let home = tempfile::tempdir().unwrap();
        let pictures = Pictures::beside(&home.path().join("net.sqlite"));
        let sha256 = ResultDigest(Sha256::digest([1; 9]).into());
        let former = Kept::Image { sha256, width: 8, height: 8, lease: None, sealed: None };
        pictures.folder.put(&former_name(sha256), vec![1; 9]).await.unwrap();
        assert_eq!(pictures.whole(former.clone(), own()).await.unwrap(), picture(1));
        for _ in 0..2 {
            // A second time as after a power cut before its books were written.
            let sealed =
                pictures.seal_former(former.clone(), JOB, Some(LEASE), key()).await.unwrap();
            assert_eq!(sealed.1, Some(sha256));
            assert_eq!(pictures.whole(sealed.0, own()).await.unwrap(), picture(1));
            assert_eq!(pictures.whole(former.clone(), own()).await.unwrap(), picture(1));
        }
        pictures.remove_former(sha256).await.unwrap();
        let gone = pictures.seal_former(former.clone(), JOB, Some(LEASE), key()).await.unwrap();
        assert_eq!(gone.1, None, "there is nothing to seal");
    }
}
