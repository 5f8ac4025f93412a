//! Reading the library through, so that a bit which the drive flipped is found before a job needs the file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use neurino_core::ModelId;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::catalog::ModelFile;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::{ModelState, ModelStore, blocking};

/// A note of what a scrub has read, in the folder of the library.
pub(crate) const SCRUB: &str = ".scrub";
/// How often a reading that is held looks whether it may go on.
const HELD: Duration = Duration::from_millis(100);

/// How files are read that nobody waits for.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Bytes in a second at most; `None` for as fast as the drive gives them.
    pub bytes_per_s: Option<u64>,
    /// While this is set, nothing is read.
    pub hold: Option<Arc<AtomicBool>>,
}

/// A file of a model that is all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeFile {
    /// The model.
    pub model: ModelId,
    /// The file's name in the model's folder.
    pub name: String,
    /// When it last changed, if the drive tells.
    pub modified: Option<SystemTime>,
}

/// What a file was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// As it should be.
    Sound,
    /// Changed, and set aside: the next fetch brings the wrong pieces again.
    Damaged,
    /// Changed, and it cannot be set aside: what the system says. It is not served any more.
    Stuck(String),
    /// Removed meanwhile.
    Gone,
    /// The drive does not give it: what the system says.
    Unreadable(String),
}

impl ModelStore {
    /// Reads every complete file again, at most `bytes_per_s`, and sets aside what has changed. Goes on
    /// where an earlier one was cancelled; begins anew when it came to the end.
    ///
    /// # Errors
    /// [`StoreError::Cancelled`].
    pub async fn scrub(
        &self,
        bytes_per_s: Option<u64>,
        progress: impl Fn(ScrubProgress) + Send + 'static,
        cancel: CancellationToken,
    ) -> Result<ScrubReport, StoreError> {
        let store = self.clone();
        blocking(move || store.scrub_blocking(bytes_per_s, &progress, &cancel)).await
    }

    fn scrub_blocking(
        &self,
        bytes_per_s: Option<u64>,
        progress: &dyn Fn(ScrubProgress),
        cancel: &CancellationToken,
    ) -> Result<ScrubReport, StoreError> {
        let pace = Pace { bytes_per_s, hold: None };
        let note = self.root().join(SCRUB);
        let seen = fs::read_to_string(&note).unwrap_or_default();
        let mut seen: std::collections::BTreeSet<String> =
            seen.lines().map(str::to_owned).collect();
        let mut todo = Vec::new();
        for manifest in self.catalog().models() {
            if matches!(self.state(&manifest.id), Ok(ModelState::Verified | ModelState::Unverified))
            {
                todo.extend(manifest.files.iter().map(|file| (manifest.id.clone(), file.clone())));
            }
        }
        let total_bytes = todo.iter().map(|(_, file)| file.size_bytes).sum();
        let (mut done_bytes, mut report) = (0, ScrubReport::default());
        for (model, file) in todo {
            let name = format!("{model}/{}", file.name);
            if seen.contains(&name) {
                done_bytes += file.size_bytes;
                continue;
            }
            let begin = done_bytes;
            let tell = |bytes| progress(ScrubProgress { done_bytes: begin + bytes, total_bytes });
            done_bytes += file.size_bytes;
            match self.read_twice(&model, &file, &pace, &tell, cancel) {
                Ok(Found::Sound) => report.files += 1,
                Ok(Found::Damaged) => report.damaged.push((model.clone(), file.name.clone())),
                Ok(Found::Gone) => {}
                Ok(Found::Unreadable(why) | Found::Stuck(why)) => {
                    report.unreadable.push((model.clone(), file.name.clone(), why));
                    // The next run reads it again, also where this one is stopped.
                    continue;
                }
                // It is being written, and whoever writes it hashes it.
                Err(StoreError::Busy { .. }) => continue,
                Err(error) => return Err(error),
            }
            seen.insert(name);
            let lines: Vec<&str> = seen.iter().map(String::as_str).collect();
            let _ = fs::write(&note, lines.join("\n"));
        }
        let _ = fs::remove_file(&note);
        Ok(report)
    }

    /// The files of all models that are whole.
    pub fn whole_files(&self) -> Vec<WholeFile> {
        let catalog = self.catalog();
        let mut files = Vec::new();
        for manifest in catalog.models() {
            if !matches!(
                self.state(&manifest.id),
                Ok(ModelState::Verified | ModelState::Unverified)
            ) {
                continue;
            }
            let folder = self.folder(&manifest.id);
            files.extend(manifest.files.iter().map(|file| WholeFile {
                model: manifest.id.clone(),
                name: file.name.clone(),
                modified: fs::metadata(folder.join(&file.name)).and_then(|m| m.modified()).ok(),
            }));
        }
        files
    }

    /// Reads one file whole and compares it with the catalogue, whatever was noted of it. One that has
    /// changed is read twice, since memory can err as well, and then set aside.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], also for a file that the model does not have,
    /// [`StoreError::Busy`] if the model is being fetched or the file was written meanwhile,
    /// [`StoreError::Cancelled`].
    pub async fn read_through(
        &self,
        model: &ModelId,
        name: &str,
        pace: Pace,
        cancel: CancellationToken,
    ) -> Result<Found, StoreError> {
        let (store, model, name) = (self.clone(), model.clone(), name.to_owned());
        blocking(move || store.read_through_blocking(&model, &name, &pace, &cancel)).await
    }

    pub(crate) fn read_through_blocking(
        &self,
        model: &ModelId,
        name: &str,
        pace: &Pace,
        cancel: &CancellationToken,
    ) -> Result<Found, StoreError> {
        let manifest = self.manifest(model)?;
        let file = manifest.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| StoreError::UnknownModel { model: model.clone() })?;
        self.read_twice(model, file, pace, &|_| {}, cancel)
    }

    /// Reads a file, twice where it is not what it should be, and then sets it aside if it is still the
    /// one that was read.
    fn read_twice(
        &self,
        model: &ModelId,
        file: &ModelFile,
        pace: &Pace,
        tell: &dyn Fn(u64),
        cancel: &CancellationToken,
    ) -> Result<Found, StoreError> {
        let path = self.folder(model).join(&file.name);
        let mut was = None;
        for again in [false, true] {
            was = Looks::of(&path);
            let tell = |bytes| {
                if !again {
                    tell(bytes);
                }
            };
            match self.hash(&path, pace, &tell, cancel).ok_or(StoreError::Cancelled)? {
                Ok(found) if found == file.sha256 => {
                    if again {
                        warn!("`{}` was read wrong once: memory or drive err", path.display());
                    }
                    return Ok(Found::Sound);
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Found::Gone);
                }
                Err(error) => {
                    warn!(%error, "`{}` cannot be read: {error}", path.display());
                    return Ok(Found::Unreadable(error.to_string()));
                }
            }
        }
        let _lock = self.lock(model)?;
        // Whoever changes a model has its lock, but had it not all the while.
        let manifest = self.manifest(model)?;
        let same = manifest.files.iter().any(|f| f.name == file.name && f.sha256 == file.sha256);
        if !same || was.is_none() || Looks::of(&path) != was {
            return Err(StoreError::Busy { model: model.clone() });
        }
        Ok(match self.set_file_aside(model, file) {
            Ok(()) => Found::Damaged,
            Err(error) => {
                Found::Stuck(format!("it has changed, and it cannot be set aside: {error}"))
            }
        })
    }

    /// Sets a file aside that is there and cannot be read, so that a fetch brings it again.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], also for a file that the model does not have, [`StoreError::Busy`],
    /// [`StoreError::Io`].
    pub fn give_up_file(&self, model: &ModelId, name: &str) -> Result<(), StoreError> {
        let manifest = self.manifest(model)?;
        let file = manifest.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| StoreError::UnknownModel { model: model.clone() })?;
        let _lock = self.lock(model)?;
        let path = self.folder(model).join(name);
        let aside = self.set_file_aside(model, file);
        aside.map_err(|error| StoreError::io("set aside", &path, error))?;
        // Nothing of it can be read, so nothing of it is kept for the fetch.
        let _ = fs::remove_file(crate::chunks::kept_path(&path));
        Ok(())
    }

    fn hash(
        &self,
        path: &Path,
        pace: &Pace,
        tell: &dyn Fn(u64),
        cancel: &CancellationToken,
    ) -> Option<std::io::Result<Digest>> {
        match (self.inner.open_file)(path) {
            Ok(file) => hash_of(file, pace, tell, cancel),
            Err(error) => Some(Err(error)),
        }
    }
}

/// What tells a file from one that was put in its place.
#[derive(PartialEq, Eq)]
struct Looks {
    size_bytes: u64,
    modified: Option<SystemTime>,
    /// The file's number on its drive, where there is such a thing.
    number: u64,
}

impl Looks {
    /// `None` where it is not there.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let number = 0;
        Some(Self { size_bytes: metadata.len(), modified: metadata.modified().ok(), number })
    }
}

/// How far a scrub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Bytes read, those of an earlier run included.
    pub done_bytes: u64,
    /// Bytes to read.
    pub total_bytes: u64,
}

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Files that are as they should be.
    pub files: usize,
    /// Files that had changed and were set aside; the next fetch repairs them chunk by chunk.
    pub damaged: Vec<(ModelId, String)>,
    /// Files that the drive does not give, and what the system says. They stay where they are.
    pub unreadable: Vec<(ModelId, String, String)>,
}

/// Hashes a file at this pace; `None` if it was cancelled. `tell` gets the bytes read.
pub(crate) fn hash_slowly(
    path: &Path,
    pace: &Pace,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Option<std::io::Result<Digest>> {
    match fs::File::open(path) {
        Ok(file) => hash_of(file, pace, tell, cancel),
        Err(error) => Some(Err(error)),
    }
}

fn hash_of(
    mut file: impl std::io::Read,
    pace: &Pace,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Option<std::io::Result<Digest>> {
    use sha2::Digest as _;
    let (mut hasher, mut buffer, mut read_bytes) = (sha2::Sha256::new(), vec![0; 1 << 20], 0_u64);
    loop {
        while pace.hold.as_ref().is_some_and(|hold| hold.load(Ordering::Relaxed)) {
            if cancel.is_cancelled() {
                return None;
            }
            std::thread::sleep(HELD);
        }
        if cancel.is_cancelled() {
            return None;
        }
        let begin = Instant::now();
        match file.read(&mut buffer) {
            Ok(0) => return Some(Ok(Digest::of_hasher(hasher))),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                read_bytes += count as u64;
                tell(read_bytes);
                // Piece by piece, so that a pause is not made up for afterwards.
                if let Some(rate) = pace.bytes_per_s.filter(|rate| *rate > 0) {
                    let due = Duration::from_secs_f64(count as f64 / rate as f64);
                    std::thread::sleep(due.saturating_sub(begin.elapsed()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Some(Err(error)),
        }
    }
}
