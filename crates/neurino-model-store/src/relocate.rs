//! Moving the library to another drive: copied, checked, switched, and only then deleted here.

use std::fs::{self, File, Metadata};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use neurino_core::ModelId;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::fetch::SPACE_RESERVE_BYTES;
use crate::owned;
use crate::store::{ModelStore, blocking};

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveProgress {
    /// Bytes that are there, checked.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// What the library is called in a folder that holds other things as well.
const OWN_FOLDER: &str = "neurino-models";
/// The coarsest time that a file system keeps: FAT's. That of exFAT is 10 ms.
const TIME_STEP_MAX: Duration = Duration::from_secs(2);
/// Files up to this size count as copied only where their time is exact.
const EXACT_BYTES_MAX: u64 = 1 << 16;
/// A file that changes more often while it is copied is left to a quieter moment.
const COPIES_MAX: usize = 3;

impl ModelStore {
    /// Moves the library to `target`, or to a folder of its own in there if that holds other things;
    /// returns where it is now. Only what the library owns is moved, and whatever else lies in its old
    /// folder stays. Each file is copied under another name, read again and compared before it gets its
    /// own; an interrupted move goes on where it was. `switch` is called when everything is there, and
    /// must note the new place for the next start; only after it agreed are the files here deleted.
    ///
    /// A library that is not there is not moved: what lies in `target`, as on a drive that has another
    /// name now, is the library from then on, and where nothing does an empty one.
    ///
    /// # Errors
    /// [`StoreError::BadTarget`], [`StoreError::NoSpace`], [`StoreError::Busy`] if a model is being
    /// changed, [`StoreError::Cancelled`], [`StoreError::Io`].
    pub async fn relocate(
        &self,
        target: &Path,
        progress: impl Fn(MoveProgress) + Send + 'static,
        switch: impl FnOnce(&Path) -> Result<(), StoreError> + Send + 'static,
        cancel: CancellationToken,
    ) -> Result<PathBuf, StoreError> {
        let (store, target) = (self.clone(), target.to_owned());
        blocking(move || store.relocate_blocking(&target, &progress, switch, &cancel)).await
    }

    fn relocate_blocking(
        &self,
        target: &Path,
        progress: &dyn Fn(MoveProgress),
        switch: impl FnOnce(&Path) -> Result<(), StoreError>,
        cancel: &CancellationToken,
    ) -> Result<PathBuf, StoreError> {
        if !self.is_there() {
            return self.found_in(target, switch);
        }
        let root = self.root();
        let place = self.place_in(target)?;
        // Nobody else changes a model meanwhile; a fetch that runs has to be paused first.
        let found = self.owned();
        let locks = found.models.iter().map(|model| self.lock(model));
        let locks = locks.collect::<Result<Vec<_>, _>>()?;
        let owned = self.owned();
        let size = |file: &PathBuf| fs::metadata(root.join(file)).map_or(0, |file| file.len());
        let total_bytes = owned.files.iter().map(size).sum();
        let missing = owned.files.iter().filter(|file| !is_there(&root, &place, file));
        let needed_bytes = missing.map(size).sum::<u64>() + SPACE_RESERVE_BYTES;
        if let Some(free_bytes) = self.free_on_drive(&place)
            && free_bytes < needed_bytes
        {
            return Err(StoreError::NoSpace { path: place, needed_bytes, free_bytes });
        }
        let mut done_bytes = 0;
        let mut copied = Vec::new();
        for file in &owned.files {
            let tell =
                |bytes| progress(MoveProgress { done_bytes: done_bytes + bytes, total_bytes });
            let source = root.join(file);
            let before = copy_settled(&source, &place.join(file), &tell, cancel)?;
            done_bytes += before.len();
            copied.push((source, before));
        }
        switch(&place)?;
        self.set_root(&place);
        info!(size_bytes = total_bytes, "moved the library");
        drop(locks);
        for (source, before) in copied {
            match fs::symlink_metadata(&source) {
                Ok(now) if is_same(&now, &before) => {
                    if let Err(error) = fs::remove_file(&source) {
                        warn!(%error, "a file of the old library cannot be deleted: {error}");
                    }
                }
                // Somebody wrote it after it was copied: what is there is nowhere else.
                _ => warn!("a file of the old library has changed and is kept"),
            }
        }
        owned.remove_empty_folders(&root);
        Ok(place)
    }

    /// Takes what lies in `target` for the library, which is not where it was.
    fn found_in(
        &self,
        target: &Path,
        switch: impl FnOnce(&Path) -> Result<(), StoreError>,
    ) -> Result<PathBuf, StoreError> {
        let refused =
            |problem: &'static str| StoreError::BadTarget { path: target.to_owned(), problem };
        if !target.is_absolute() {
            return Err(refused("it is not a whole path"));
        }
        let make = |path: &Path| {
            fs::create_dir_all(path).map_err(|error| StoreError::io("create", path, error))
        };
        make(target)?;
        let inside = target.join(OWN_FOLDER);
        let is_library = |folder: &Path| !self.seen_in(folder).owned().files.is_empty();
        let is_empty =
            |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        let place = if is_library(target) {
            target.to_owned()
        } else if is_library(&inside) {
            inside
        } else if is_empty(target) {
            target.to_owned()
        } else {
            make(&inside)?;
            if !is_empty(&inside) {
                return Err(refused(
                    "it holds other things, and so does `neurino-models` in there",
                ));
            }
            inside
        };
        switch(&place)?;
        self.set_root(&place);
        self.read_again();
        info!("the library is elsewhere now");
        Ok(place)
    }

    /// Where the library goes if it is to be in `target`; made if it is not there.
    fn place_in(&self, target: &Path) -> Result<PathBuf, StoreError> {
        let refused =
            |problem: &'static str| StoreError::BadTarget { path: target.to_owned(), problem };
        if !target.is_absolute() {
            return Err(refused("it is not a whole path"));
        }
        let make = |path: &Path| {
            fs::create_dir_all(path).map_err(|error| StoreError::io("create", path, error))
        };
        let real =
            |path: &Path| path.canonicalize().map_err(|error| StoreError::io("read", path, error));
        make(target)?;
        let (from, to) = (real(&self.root())?, real(target)?);
        if to == from || to.starts_with(&from) || from.starts_with(&to) {
            return Err(refused("the library is there, or one folder would lie in the other"));
        }
        let owned = self.owned();
        if owned.alone_in(target) {
            return Ok(target.to_owned());
        }
        let place = target.join(OWN_FOLDER);
        if place.exists() && !owned.alone_in(&place) {
            return Err(refused("it holds other things, and so does `neurino-models` in there"));
        }
        make(&place)?;
        Ok(place)
    }

    /// Takes over a file whose content has been checked: linked where the drive allows it, else copied.
    pub(crate) fn take_file(
        &self,
        model: &ModelId,
        file: &crate::catalog::ModelFile,
        source: &Path,
    ) -> Result<(), StoreError> {
        let folder = self.folder(model);
        let target = folder.join(&file.name);
        crate::part::make_room(&target)?;
        if fs::hard_link(source, &target).is_ok() {
            crate::store::settle(&folder, file)?;
        } else {
            self.check_space(file.size_bytes + SPACE_RESERVE_BYTES)?;
            let part = crate::part::path(&folder, file);
            // The system shares the blocks where the file system can.
            fs::copy(source, &part)
                .and_then(|_| File::options().write(true).open(&part)?.sync_all())
                .map_err(|error| StoreError::io("write", &part, error))?;
            let _ = fs::remove_file(crate::chunks::map_path(&part));
            self.accept(model, file)?;
        }
        // The source may have changed since it was hashed; what counts is what lies here now.
        self.check_file(model, file)
    }
}

/// [`copy`], again if the source was written meanwhile. Returns what the source was like.
fn copy_settled(
    from: &Path,
    to: &Path,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Result<Metadata, StoreError> {
    let read = || fs::metadata(from).map_err(|error| StoreError::io("copy", from, error));
    let mut before = read()?;
    for _ in 0..COPIES_MAX {
        copy(from, to, &before, tell, cancel)?;
        let now = read()?;
        if is_same(&now, &before) {
            return Ok(before);
        }
        before = now;
    }
    let busy = std::io::Error::other("another program keeps writing it");
    Err(StoreError::io("copy", from, busy))
}

/// Copies one file and reads the copy again. What [`was_copied`] is left: an earlier attempt checked it
/// before it got this name and time.
fn copy(
    from: &Path,
    to: &Path,
    metadata: &Metadata,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Result<(), StoreError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| StoreError::io("copy", &path, error)
    };
    if fs::metadata(to).is_ok_and(|there| was_copied(&there, metadata)) {
        tell(metadata.len());
        return Ok(());
    }
    crate::part::make_room(to)?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(owned::DRAFT);
    let draft = to.with_file_name(name);
    let (mut source, mut target) =
        (File::open(from).map_err(io(from))?, File::create(&draft).map_err(io(&draft))?);
    let (mut hasher, mut buffer, mut done) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let count = source.read(&mut buffer).map_err(io(from))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        target.write_all(&buffer[..count]).map_err(io(&draft))?;
        done += count as u64;
        tell(done);
    }
    target.sync_all().map_err(io(&draft))?;
    let expected = Digest::of_hasher(hasher);
    let found = Digest::of_file(&draft).map_err(io(&draft))?;
    if found != expected {
        let _ = fs::remove_file(&draft);
        let file = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(StoreError::WrongDigest { file, expected, found, set_aside: None });
    }
    // With its time the notes of earlier checks stay valid.
    if let Ok(modified) = metadata.modified() {
        target.set_modified(modified).map_err(io(&draft))?;
    }
    drop(target);
    fs::rename(&draft, to).map_err(io(to))
}

/// Whether the file is at the new place as it is at the old one.
fn is_there(root: &Path, place: &Path, file: &Path) -> bool {
    let both = (fs::metadata(root.join(file)), fs::metadata(place.join(file)));
    matches!(both, (Ok(from), Ok(to)) if was_copied(&to, &from))
}

/// Whether the file at the new place is the copy of the one at the old, by size and time. The file systems
/// of many portable drives keep no exact time; a small file costs nothing and is copied again then.
fn was_copied(copy: &Metadata, from: &Metadata) -> bool {
    let near = || match (copy.modified(), from.modified()) {
        (Ok(a), Ok(b)) => a.duration_since(b).unwrap_or_else(|e| e.duration()) <= TIME_STEP_MAX,
        _ => false,
    };
    is_same(copy, from) || copy.len() == from.len() && from.len() > EXACT_BYTES_MAX && near()
}

/// Whether size and time agree.
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len() && matches!((a.modified(), b.modified()), (Ok(a), Ok(b)) if a == b)
}
