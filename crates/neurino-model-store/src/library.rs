//! What the library takes on the drive, what of it was used last, and what may go.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use neurino_core::ModelId;
use tracing::info;

use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::{ModelStore, blocking};

/// A note whose time is that of the last use.
pub(crate) const USED: &str = ".used";
/// A use is noted at most so often.
const USED_EVERY: Duration = Duration::from_mins(1);

/// A model on the drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUsage {
    /// The model.
    pub model: ModelId,
    /// Everything in its folder, unfinished and set-aside files too.
    pub disk_bytes: u64,
    /// When the engine last got it, or when it came.
    pub used: Option<SystemTime>,
    /// Whether it is a person's own, which nothing could bring back.
    pub own: bool,
}

/// What a search for known files found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reused {
    /// Models of which at least one file was taken over.
    pub models: Vec<ModelId>,
    /// Files taken over.
    pub files: usize,
    /// Their bytes, which need not be fetched.
    pub bytes: u64,
}

impl ModelStore {
    /// Notes that a model is used now.
    pub(crate) fn note_use(&self, model: &ModelId) {
        let path = self.folder(model).join(USED);
        let recent = fs::metadata(&path).and_then(|metadata| metadata.modified());
        if recent.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < USED_EVERY)) {
            return;
        }
        let _ = fs::write(path, b"");
    }

    /// What each model that has anything on the drive takes.
    pub fn usage(&self) -> Vec<ModelUsage> {
        let catalog = self.catalog();
        let usage = catalog.models().iter().filter_map(|manifest| {
            let folder = self.folder(&manifest.id);
            let disk_bytes = folder_bytes(&folder);
            let time = |name: &str| fs::metadata(folder.join(name)).and_then(|m| m.modified()).ok();
            let came = || time(manifest.files.first().map_or("", |file| file.name.as_str()));
            (disk_bytes > 0).then(|| ModelUsage {
                model: manifest.id.clone(),
                disk_bytes,
                used: time(USED).or_else(came),
                own: manifest.files.iter().all(|file| file.sources.is_empty()),
            })
        });
        usage.collect()
    }

    /// Which models would have to go so that the library takes at most `cap_bytes`, those first that
    /// were not used for longest. Never one of `keep`, and never a person's own.
    pub fn clean_up_plan(&self, cap_bytes: u64, keep: &[ModelId]) -> Vec<ModelUsage> {
        plan(self.usage(), cap_bytes, keep)
    }

    /// Looks in `folder` and below for files that the catalogue knows by their digest, and takes over
    /// those of models that are not whole yet: linked where the drive allows it, else copied. Nothing
    /// there is changed. `progress` gets the bytes that were read.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be read, [`StoreError::NoSpace`], [`StoreError::Cancelled`].
    pub async fn reuse(
        &self,
        folder: &Path,
        progress: impl Fn(u64) + Send + 'static,
        cancel: tokio_util::sync::CancellationToken,
    ) -> Result<Reused, StoreError> {
        let (store, folder) = (self.clone(), folder.to_owned());
        blocking(move || store.reuse_blocking(&folder, &progress, &cancel)).await
    }

    fn reuse_blocking(
        &self,
        folder: &Path,
        progress: &dyn Fn(u64),
        cancel: &tokio_util::sync::CancellationToken,
    ) -> Result<Reused, StoreError> {
        let mut wanted = Vec::new();
        for manifest in self.catalog().models() {
            for file in &manifest.files {
                let path = self.folder(&manifest.id).join(&file.name);
                if fs::metadata(path).map_or(0, |metadata| metadata.len()) != file.size_bytes {
                    wanted.push((manifest.id.clone(), file.clone()));
                }
            }
        }
        let (mut found, mut read_bytes) = (Reused::default(), 0);
        for path in files_below(folder)? {
            if cancel.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            let Ok(size) = fs::metadata(&path).map(|metadata| metadata.len()) else { continue };
            // Only what has the size of a wanted file is worth reading.
            if !wanted.iter().any(|(_, file)| file.size_bytes == size) {
                continue;
            }
            let Ok(digest) = Digest::of_file(&path) else { continue };
            read_bytes += size;
            progress(read_bytes);
            let mut rest = Vec::new();
            for (model, file) in std::mem::take(&mut wanted) {
                if file.sha256 != digest || file.size_bytes != size {
                    rest.push((model, file));
                    continue;
                }
                let _lock = self.lock(&model)?;
                self.take_file(&model, &file, &path)?;
                info!(model.id = %model, "found `{}` on this machine", file.name);
                found.files += 1;
                found.bytes += size;
                if !found.models.contains(&model) {
                    found.models.push(model);
                }
            }
            wanted = rest;
        }
        Ok(found)
    }
}

fn plan(mut usage: Vec<ModelUsage>, cap_bytes: u64, keep: &[ModelId]) -> Vec<ModelUsage> {
    let mut all_bytes: u64 = usage.iter().map(|model| model.disk_bytes).sum();
    usage.sort_by_key(|model| model.used);
    usage.retain(|model| !model.own && !keep.contains(&model.model));
    usage
        .into_iter()
        .take_while(|model| {
            let over = all_bytes > cap_bytes;
            all_bytes = all_bytes.saturating_sub(model.disk_bytes);
            over
        })
        .collect()
}

/// Bytes of all files in a folder and below, links left out.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Files of a folder and below, at most so deep as other programs keep their models. Links to files are
/// followed, links to folders are not.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    const DEPTH_MAX: usize = 8;
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    fs::read_dir(folder).map_err(|error| StoreError::io("read", folder, error))?;
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < DEPTH_MAX {
                folders.push((entry.path(), depth + 1));
            } else if let Ok(path) = entry.path().canonicalize()
                && path.is_file()
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_never_a_persons_own() {
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let model = |name: &str, disk_bytes, used, own| ModelUsage {
            model: ModelId::new(name).expect("an id"),
            disk_bytes,
            used: at(used),
            own,
        };
        let usage = || {
            vec![
                model("new", 30, 50, false),
                model("old", 20, 10, false),
                model("mine", 40, 1, true),
                model("mid", 10, 20, false),
            ]
        };
        let names = |cap_bytes, keep: &[&str]| {
            let keep: Vec<_> = keep.iter().map(|id| ModelId::new(*id).expect("an id")).collect();
            let plan = plan(usage(), cap_bytes, &keep);
            plan.iter().map(|model| model.model.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(100, &[]), "");
        assert_eq!(names(99, &[]), "old");
        assert_eq!(names(75, &[]), "old mid");
        assert_eq!(names(75, &["old"]), "mid new");
        assert_eq!(names(0, &["new"]), "old mid");
    }
}
