//! Moving the library to another drive: copied, checked, switched, and only then deleted here.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use neurino_core::ModelId;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::digest::Digest;
use crate::error::StoreError;
use crate::fetch::SPACE_RESERVE_BYTES;
use crate::library::folder_bytes;
use crate::store::{ModelStore, blocking};

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveProgress {
    /// Bytes that are there, checked.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// The files of the library, whole and unfinished ones, by their way from its folder.
fn files(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| StoreError::io("read", &folder, error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && name != ".lock" {
                let path = entry.path();
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

impl ModelStore {
    /// Moves the library to `target`. Each file is copied under another name, read again and compared
    /// before it gets its own; an interrupted move goes on where it was. `switch` is called when
    /// everything is there, and must note the new place for the next start; only after it agreed are
    /// the files here deleted.
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
    ) -> Result<(), StoreError> {
        let (store, target) = (self.clone(), target.to_owned());
        blocking(move || store.relocate_blocking(&target, &progress, switch, &cancel)).await
    }

    fn relocate_blocking(
        &self,
        target: &Path,
        progress: &dyn Fn(MoveProgress),
        switch: impl FnOnce(&Path) -> Result<(), StoreError>,
        cancel: &CancellationToken,
    ) -> Result<(), StoreError> {
        let root = self.root();
        let refused =
            |problem: &'static str| StoreError::BadTarget { path: target.to_owned(), problem };
        if !target.is_absolute() {
            return Err(refused("it is not a whole path"));
        }
        fs::create_dir_all(target).map_err(|error| StoreError::io("create", target, error))?;
        let real =
            |path: &Path| path.canonicalize().map_err(|error| StoreError::io("read", path, error));
        let (from, to) = (real(&root)?, real(target)?);
        if to == from || to.starts_with(&from) || from.starts_with(&to) {
            return Err(refused("the library is there, or one folder would lie in the other"));
        }
        // Nobody else changes a model meanwhile; a fetch that runs has to be paused first.
        let mut locks = Vec::new();
        let known: Vec<ModelId> = self.catalog().models().iter().map(|m| m.id.clone()).collect();
        for model in known.iter().filter(|model| self.folder(model).is_dir()) {
            locks.push(self.lock(model)?);
        }
        let files = files(&root)?;
        let total_bytes = folder_bytes(&root);
        let there_bytes = folder_bytes(target);
        let needed_bytes = total_bytes.saturating_sub(there_bytes) + SPACE_RESERVE_BYTES;
        if let Some(free_bytes) = self.free_on_drive(target)
            && free_bytes < needed_bytes
        {
            return Err(StoreError::NoSpace { path: target.to_owned(), needed_bytes, free_bytes });
        }
        let mut done_bytes = 0;
        for file in &files {
            let tell =
                |bytes| progress(MoveProgress { done_bytes: done_bytes + bytes, total_bytes });
            done_bytes += copy(&root.join(file), &target.join(file), &tell, cancel)?;
        }
        switch(target)?;
        self.set_root(target);
        info!(size_bytes = total_bytes, "moved the library");
        drop(locks);
        for file in &files {
            if let Err(error) = fs::remove_file(root.join(file)) {
                warn!(%error, "a file of the old library cannot be deleted: {error}");
            }
        }
        remove_empty(&root);
        Ok(())
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

/// Copies one file and reads the copy again. Returns its size. What is there already and has the same
/// size and content is left.
fn copy(
    from: &Path,
    to: &Path,
    tell: &dyn Fn(u64),
    cancel: &CancellationToken,
) -> Result<u64, StoreError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| StoreError::io("copy", &path, error)
    };
    let metadata = fs::metadata(from).map_err(io(from))?;
    let size = metadata.len();
    if fs::metadata(to).is_ok_and(|there| there.len() == size && same_time(&there, &metadata)) {
        // An earlier attempt checked it before it got this name and time.
        tell(size);
        return Ok(size);
    }
    crate::part::make_room(to)?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".moving");
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
    fs::rename(&draft, to).map_err(io(to))?;
    Ok(size)
}

fn same_time(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    matches!((a.modified(), b.modified()), (Ok(a), Ok(b)) if a == b)
}

/// Removes a folder and those in it that hold nothing but locks.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_file(folder.join(".lock"));
    let _ = fs::remove_dir(folder);
}
