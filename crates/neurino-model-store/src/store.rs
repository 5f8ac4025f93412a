//! The library on disk: a folder for each model, and one door to the engine.
//!
//! ```text
//! models/
//!   catalog/*.toml                      manifests beyond the built-in ones
//!   smollm2-135m-instruct/
//!     SmolLM2-135M-Instruct.Q4_1.gguf   complete, hashed before it got this name
//!     *.part, *.part.map                an unfinished fetch, and the map of its chunks
//!     .*.chunks                         the map of a complete file, for its repair
//!     *.damaged                         set aside: its digest did not match
//!     .verified.json, .version.json, .lock
//!     .former/                          the version before, while the new one is not here
//! ```

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use neurino_core::ModelId;
use tracing::{info, warn};

use crate::catalog::{Catalog, ModelFile, ModelManifest};
use crate::chunks;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::part;
use crate::signed::{self, SignedCatalog};
use crate::stamp::{self, Stamp};

/// Files up to this size are hashed at every use; larger ones when size or time changed.
const ALWAYS_HASHED_BYTES_MAX: u64 = 1 << 30;

/// The lock of a model, in its folder.
pub(crate) const LOCK: &str = ".lock";

/// A program that another thread starts has the locks of this one for a moment, until it is itself.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Answers how many bytes this user may still write on the drive of a path.
pub type FreeSpace = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Opens a file to be read through.
pub type OpenFile = dyn Fn(&Path) -> io::Result<Box<dyn io::Read>> + Send + Sync;

/// The models of this machine. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct ModelStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// Changes when the library moves.
    folder: RwLock<PathBuf>,
    /// The catalogue without the manifests of its folder; what is built in and signed if absent.
    given: Option<Catalog>,
    /// Whose signed catalogues count.
    catalogue_key: Option<[u8; 32]>,
    known: RwLock<Known>,
    free_space: Box<FreeSpace>,
    always_hashed_bytes_max: u64,
    pub(crate) open_file: Box<OpenFile>,
    /// Files that were read and are not what they should be, whatever was noted of them. The drive may
    /// not let that note be changed.
    distrusted: Mutex<HashSet<PathBuf>>,
}

/// The catalogue, and what its folder looked like when it was read.
struct Known {
    catalog: Arc<Catalog>,
    edition: Option<Edition>,
    seen: Vec<Seen>,
}

/// The signed catalogue that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    /// Rises with every edition.
    pub version: u64,
    /// When it was made, if it says so, in milliseconds since the Unix epoch.
    pub issued_at_ms: Option<i64>,
}

/// A file of the catalogue's folder: name, size, and when it was changed.
type Seen = (std::ffi::OsString, u64, Option<SystemTime>);

/// A model's manifest, as the catalogue had it when it was looked up.
pub(crate) struct Manifest {
    catalog: Arc<Catalog>,
    index: usize,
}

impl Deref for Manifest {
    type Target = ModelManifest;
    fn deref(&self) -> &ModelManifest {
        &self.catalog.models()[self.index]
    }
}

/// Where a model stands on this machine, judged without reading its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Nothing of it is here.
    Absent,
    /// A fetch was begun.
    Partial {
        /// Bytes on disk.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// All files are here; they were not hashed, or changed since.
    Unverified,
    /// All files are here, their digests matched, and they were not touched since.
    Verified,
}

impl ModelStore {
    /// Opens the library in `folder` with the built-in catalogue and the manifests of
    /// `folder/catalog`; creates the folder.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_at(folder, None, Box::new(|path| fs4::available_space(path)))
    }

    /// [`ModelStore::open`] with another catalogue and another way to ask for free space.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open_with(
        folder: &Path,
        catalog: Catalog,
        free_space: Box<FreeSpace>,
    ) -> Result<Self, StoreError> {
        Self::open_at(folder, Some(catalog), free_space)
    }

    /// The same library, whose files are read through by way of `open_file`: a drive that fails. For
    /// tests; call it before the store is cloned.
    ///
    /// # Panics
    /// If the store was cloned.
    #[must_use]
    pub fn read_by(mut self, open_file: Box<OpenFile>) -> Self {
        Arc::get_mut(&mut self.inner).expect("the store is not shared yet").open_file = open_file;
        self
    }

    /// The same library, whose signed catalogues are those of another key than the build's. Call it before
    /// the store is cloned.
    ///
    /// # Panics
    /// If the store was cloned.
    #[must_use]
    pub fn trusting(mut self, key: [u8; 32]) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("the store is not shared yet");
        inner.catalogue_key = Some(key);
        self.read_again();
        self
    }

    fn open_at(
        folder: &Path,
        given: Option<Catalog>,
        free_space: Box<FreeSpace>,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|error| StoreError::io("create", folder, error))?;
        Ok(Self::found_at(folder, given, free_space))
    }

    /// The library in `folder` as it is; nothing is created. On a drive that is not connected all of its
    /// models are absent, and what would change them is [`StoreError::Away`], until the folder is there.
    pub fn open_as_is(folder: &Path) -> Self {
        Self::found_at(folder, None, Box::new(|path| fs4::available_space(path)))
    }

    fn found_at(folder: &Path, given: Option<Catalog>, free_space: Box<FreeSpace>) -> Self {
        Self::found_with(folder, given, signed::build_key(), free_space)
    }

    fn found_with(
        folder: &Path,
        given: Option<Catalog>,
        catalogue_key: Option<[u8; 32]>,
        free_space: Box<FreeSpace>,
    ) -> Self {
        let known = Known::read(folder, given.as_ref(), catalogue_key);
        let inner = Inner {
            folder: RwLock::new(folder.to_owned()),
            given,
            catalogue_key,
            known: RwLock::new(known),
            free_space,
            always_hashed_bytes_max: ALWAYS_HASHED_BYTES_MAX,
            open_file: Box::new(open_plainly),
            distrusted: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.keep_formers(None);
        store
    }

    /// What would lie in `folder` if it were this catalogue's library.
    pub(crate) fn seen_in(&self, folder: &Path) -> Self {
        let (given, key) = (self.inner.given.clone(), self.inner.catalogue_key);
        Self::found_with(folder, given, key, Box::new(|_| Ok(0)))
    }

    /// Whether the folder of the library is there.
    pub fn is_there(&self) -> bool {
        self.root().is_dir()
    }

    /// Asked before anything is created in the library: on a drive that is not connected its folder
    /// would be made on another.
    pub(crate) fn check_there(&self) -> Result<(), StoreError> {
        if self.is_there() { Ok(()) } else { Err(StoreError::Away { path: self.root() }) }
    }

    /// The models there are, as of the last [`ModelStore::refresh`].
    pub fn catalog(&self) -> Arc<Catalog> {
        let known = self.inner.known.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&known.catalog)
    }

    /// The signed catalogue that is in force, if there is one.
    pub fn edition(&self) -> Option<Edition> {
        self.inner.known.read().unwrap_or_else(PoisonError::into_inner).edition
    }

    /// Looks whether this or another program changed the catalogue's folder, and reads it again if so.
    /// Returns whether other models are known now, or known otherwise. Cheap where nothing changed: one
    /// look at a folder of few files.
    pub fn refresh(&self) -> bool {
        let root = self.root();
        let seen = look(&root.join("catalog"));
        let same = |known: &Known| known.seen == seen;
        if same(&self.inner.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        self.read_again()
    }

    /// Reads the catalogue again, whatever its folder looks like; returns whether it has changed.
    pub fn read_again(&self) -> bool {
        let inner = &self.inner;
        let fresh = Known::read(&self.root(), inner.given.as_ref(), inner.catalogue_key);
        let mut known = self.inner.known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *known.catalog != *fresh.catalog || known.edition != fresh.edition;
        let before = std::mem::replace(&mut *known, fresh).catalog;
        drop(known);
        if changed {
            self.keep_formers(Some(&before));
        }
        changed
    }

    /// The folder of the library.
    pub fn root(&self) -> PathBuf {
        self.inner.folder.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on the library is elsewhere.
    pub(crate) fn set_root(&self, folder: &Path) {
        folder.clone_into(&mut self.inner.folder.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The folder that holds a model's files, there or not.
    pub fn folder(&self, model: &ModelId) -> PathBuf {
        self.root().join(folder_name(model))
    }

    /// Where manifests beyond the built-in ones lie.
    pub fn catalog_folder(&self) -> PathBuf {
        self.root().join("catalog")
    }

    /// Where a model stands; reads no file of it.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`].
    pub fn state(&self, model: &ModelId) -> Result<ModelState, StoreError> {
        let manifest = self.manifest(model)?;
        let folder = self.folder(model);
        let stamps = stamp::read(&folder);
        let (mut done_bytes, mut whole, mut verified) = (0, true, true);
        for file in &manifest.files {
            let path = folder.join(&file.name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.len() == file.size_bytes => {
                    done_bytes += file.size_bytes;
                    let stamp = Stamp::new(file.sha256, &metadata).ok();
                    verified &= !self.distrusted().contains(&path);
                    verified &= stamp.is_some() && stamps.get(&file.name) == stamp.as_ref();
                }
                _ => {
                    whole = false;
                    let part = part::path(&folder, file);
                    let noted = chunks::noted_bytes(&part, file.sha256, file.size_bytes);
                    let found = || fs::metadata(&part).map_or(0, |part| part.len());
                    done_bytes += noted.unwrap_or_else(found).min(file.size_bytes);
                }
            }
        }
        Ok(match (whole, verified) {
            (true, true) => ModelState::Verified,
            (true, false) => ModelState::Unverified,
            (false, _) if done_bytes == 0 => ModelState::Absent,
            (false, _) => ModelState::Partial { done_bytes, total_bytes: manifest.size_bytes() },
        })
    }

    /// What the engine loads: the model's one file, or its folder if it has several; of the version
    /// before while the catalogue's is not whole here. Its digests
    /// are checked first, always for files up to 1 GiB, for larger ones when they changed since
    /// the last check; a file that fails is set aside, so that it is never offered again.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Absent`], [`StoreError::WrongDigest`],
    /// [`StoreError::WrongSize`], [`StoreError::Io`].
    pub async fn verified(&self, model: &ModelId) -> Result<PathBuf, StoreError> {
        let (store, model) = (self.clone(), model.clone());
        blocking(move || store.verified_blocking(&model)).await
    }

    /// [`ModelStore::verified`] for callers that may block (about 0.2 s for 100 MB).
    ///
    /// # Errors
    /// As [`ModelStore::verified`].
    pub fn verified_blocking(&self, model: &ModelId) -> Result<PathBuf, StoreError> {
        let manifest = self.manifest(model)?;
        let checked = manifest.files.iter().try_for_each(|file| self.check_file(model, file));
        let path = match checked {
            Ok(()) => {
                self.note_version(&manifest);
                self.loadable(&manifest)
            }
            // The version before serves until the new one is whole.
            Err(error) => self.former_verified(model).ok_or(error)?,
        };
        self.note_use(model);
        Ok(path)
    }

    /// Deletes a model's files, unfinished and set-aside ones too. Nothing to delete is fine.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Away`], [`StoreError::Busy`], [`StoreError::Io`].
    pub async fn remove(&self, model: &ModelId) -> Result<(), StoreError> {
        let manifest = self.manifest(model)?;
        self.check_there()?;
        // A person's own model: nothing could bring it back, so it leaves the catalogue as well.
        let own = manifest.files.iter().all(|file| file.sources.is_empty());
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            if own {
                let manifest = store.catalog_folder().join(crate::adopt::manifest_name(&model));
                if manifest.exists() {
                    fs::remove_file(&manifest)
                        .map_err(|error| StoreError::io("delete", &manifest, error))?;
                }
                store.refresh();
            }
            let folder = store.folder(&model);
            if !folder.exists() {
                return Ok(());
            }
            // Windows cannot delete a file that is open, so the lock is given back first.
            drop(store.lock(&model)?);
            fs::remove_dir_all(&folder)
                .map_err(|error| StoreError::io("delete", &folder, error))?;
            info!(model.id = %model, "removed {model}");
            Ok(())
        })
        .await
    }

    pub(crate) fn manifest(&self, model: &ModelId) -> Result<Manifest, StoreError> {
        let catalog = self.catalog();
        let index = catalog.models().iter().position(|known| known.id == *model);
        let index = index.ok_or_else(|| StoreError::UnknownModel { model: model.clone() })?;
        Ok(Manifest { catalog, index })
    }

    pub(crate) fn loadable(&self, manifest: &ModelManifest) -> PathBuf {
        let folder = self.folder(&manifest.id);
        match manifest.files.as_slice() {
            [only] if !only.name.contains('/') => folder.join(&only.name),
            _ => folder,
        }
    }

    /// Checks one file by size and digest, and notes the result.
    pub(crate) fn check_file(&self, model: &ModelId, file: &ModelFile) -> Result<(), StoreError> {
        self.check_in(&self.folder(model), model, file)
    }

    /// [`ModelStore::check_file`] of a file in another folder than the model's own.
    pub(crate) fn check_in(
        &self,
        folder: &Path,
        model: &ModelId,
        file: &ModelFile,
    ) -> Result<(), StoreError> {
        let path = folder.join(&file.name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Absent { model: model.clone() });
            }
            Err(error) => return Err(StoreError::io("read", &path, error)),
        };
        if metadata.len() != file.size_bytes {
            return Err(StoreError::WrongSize {
                file: file.name.clone(),
                expected_bytes: file.size_bytes,
                found_bytes: metadata.len(),
                set_aside: set_aside(&path),
            });
        }
        let stamp = Stamp::new(file.sha256, &metadata)
            .map_err(|error| StoreError::io("read", &path, error))?;
        if file.size_bytes > self.inner.always_hashed_bytes_max
            && !self.distrusted().contains(&path)
            && stamp::read(folder).get(&file.name) == Some(&stamp)
        {
            return Ok(());
        }
        let found = Digest::of_file(&path).map_err(|error| StoreError::io("read", &path, error))?;
        if found != file.sha256 {
            return Err(StoreError::WrongDigest {
                file: file.name.clone(),
                expected: file.sha256,
                found,
                set_aside: set_aside(&path),
            });
        }
        self.distrusted().remove(&path);
        note(folder, &file.name, stamp);
        Ok(())
    }

    /// Sets a file aside that was found to be damaged, whatever was noted of it. Where it cannot be moved
    /// it is not believed any more: whoever wants it has it hashed.
    pub(crate) fn set_file_aside(&self, model: &ModelId, file: &ModelFile) -> io::Result<()> {
        let folder = self.folder(model);
        let path = folder.join(&file.name);
        self.distrusted().insert(path.clone());
        if let Err(error) = stamp::forget(&folder, &file.name) {
            warn!(%error, "what was noted of `{}` stays: {error}", path.display());
        }
        move_aside(&path)?;
        self.distrusted().remove(&path);
        Ok(())
    }

    fn distrusted(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.inner.distrusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a complete, hashed part file its name.
    pub(crate) fn accept(&self, model: &ModelId, file: &ModelFile) -> Result<(), StoreError> {
        let folder = self.folder(model);
        let (part, path) = (part::path(&folder, file), folder.join(&file.name));
        fs::rename(&part, &path).map_err(|error| StoreError::io("write", &path, error))?;
        // The file as such is vouched for now, and with it every line of its map.
        let _ = fs::rename(chunks::map_path(&part), chunks::kept_path(&path));
        settle(&folder, file)
    }

    /// Makes a file that was set aside the beginning of a fetch, if the map of its chunks was kept: then
    /// the wrong ones alone are fetched again.
    pub(crate) fn salvage(&self, model: &ModelId, file: &ModelFile) {
        let folder = self.folder(model);
        let (part, path) = (part::path(&folder, file), folder.join(&file.name));
        let (damaged, kept) = (damaged_path(&path), chunks::kept_path(&path));
        if part.exists() || chunks::read(&kept, file.sha256, file.size_bytes).is_none() {
            return;
        }
        // Killed in between, the part has no map, and its SHA-256 at the end is what it is judged by.
        if fs::rename(&damaged, &part).is_ok() {
            let _ = fs::rename(&kept, chunks::map_path(&part));
        }
    }

    /// Says that `needed_bytes` do not fit.
    pub(crate) fn full(&self, needed_bytes: u64) -> StoreError {
        let path = self.root();
        let needed_bytes = needed_bytes + crate::fetch::SPACE_RESERVE_BYTES;
        StoreError::NoSpace { path, needed_bytes, free_bytes: self.free_bytes().unwrap_or(0) }
    }

    /// Refuses when the drive cannot take `needed_bytes`. A drive that does not tell is believed.
    pub(crate) fn check_space(&self, needed_bytes: u64) -> Result<(), StoreError> {
        let path = self.root();
        match self.free_bytes() {
            Some(free_bytes) if free_bytes < needed_bytes => {
                Err(StoreError::NoSpace { path, needed_bytes, free_bytes })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn free_on_drive(&self, path: &Path) -> Option<u64> {
        (self.inner.free_space)(path).ok()
    }

    /// Free on the drive of the library, if it is there and tells.
    pub fn free_bytes(&self) -> Option<u64> {
        if !self.is_there() {
            return None;
        }
        (self.inner.free_space)(&self.root())
            .inspect_err(|error| warn!(%error, "the free space cannot be read: {error}"))
            .ok()
    }

    /// One change of a model at a time, over all processes. Freed when dropped.
    pub(crate) fn lock(&self, model: &ModelId) -> Result<File, StoreError> {
        self.check_there()?;
        let folder = self.folder(model);
        fs::create_dir_all(&folder).map_err(|error| StoreError::io("create", &folder, error))?;
        let path = folder.join(LOCK);
        let file = File::create(&path).map_err(|error| StoreError::io("create", &path, error))?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begin.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_PATIENCE / 20);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Busy { model: model.clone() });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::io("lock", &path, error));
                }
            }
        }
    }
}

fn open_plainly(path: &Path) -> io::Result<Box<dyn io::Read>> {
    Ok(Box::new(File::open(path)?))
}

impl Known {
    fn read(root: &Path, given: Option<&Catalog>, key: Option<[u8; 32]>) -> Self {
        let folder = root.join("catalog");
        // Looked at before it is read: what changes in between is read again at the next look.
        let seen = look(&folder);
        let signed = SignedCatalog::kept(&folder, key);
        let edition = signed
            .as_ref()
            .map(|one| Edition { version: one.version, issued_at_ms: one.issued_at_ms });
        let base = given.cloned().unwrap_or_else(Catalog::built_in).with_signed(signed);
        Self { catalog: Arc::new(base.with_folder(&folder)), edition, seen }
    }
}

/// The files of the catalogue's folder; none where there is no folder.
fn look(folder: &Path) -> Vec<Seen> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut seen: Vec<Seen> = entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.file_name(), metadata.len(), metadata.modified().ok()))
        })
        .collect();
    seen.sort();
    seen
}

/// Runs what reads or writes files off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(task).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Cancelled),
        },
    }
}

/// A folder name that no id can lead out of the library or clash with the store's own.
fn folder_name(model: &ModelId) -> String {
    let name = model.as_str().replace('/', "--");
    if name.starts_with('.') || name == "catalog" { format!("_{name}") } else { name }
}

/// After a file got its name: makes that durable, notes the digest, frees what is obsolete.
pub(crate) fn settle(folder: &Path, file: &ModelFile) -> Result<(), StoreError> {
    let path = folder.join(&file.name);
    sync_folder(path.parent().unwrap_or(folder))
        .map_err(|error| StoreError::io("write", folder, error))?;
    let stamp = fs::metadata(&path).and_then(|metadata| Stamp::new(file.sha256, &metadata));
    note(folder, &file.name, stamp.map_err(|error| StoreError::io("read", &path, error))?);
    let _ = fs::remove_file(damaged_path(&path));
    part::forget(folder, file);
    Ok(())
}

pub(crate) fn damaged_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    path.with_file_name(name)
}

/// Renames a damaged file out of the way; one is kept, the latest.
fn set_aside(path: &Path) -> Option<PathBuf> {
    move_aside(path).ok()
}

fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = damaged_path(path);
    match fs::rename(path, &aside) {
        Ok(()) => {
            warn!("`{}` is damaged and was set aside", path.display());
            Ok(aside)
        }
        Err(error) => {
            warn!(%error, "`{}` is damaged and cannot be moved: {error}", path.display());
            Err(error)
        }
    }
}

/// A note that cannot be written costs time at the next check and nothing else.
fn note(folder: &Path, file: &str, stamp: Stamp) {
    if let Err(error) = stamp::note(folder, file, stamp) {
        warn!(%error, "the check of `{file}` cannot be noted: {error}");
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Windows makes a rename durable by itself.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"weights";

    /// A store whose one model has one file, and which never hashes twice without need.
    fn store(folder: &Path) -> (ModelStore, ModelId, PathBuf) {
        let digest = Digest::of(CONTENT);
        let text = format!(
            "id = 'org/tiny'\nname = 'Tiny'\nsummary = 's'\nfamily = 'f'\narch = 'llama'\n\
             dtype = 'f32'\ncontext_tokens = 8\nmemory_bytes_min = 1\nlicence = 'CC0-1.0'\n\
             attribution = 'a'\n[[files]]\nname = 'tiny.gguf'\nsha256 = '{digest}'\nsize_bytes = 7\n"
        );
        let manifest = ModelManifest::parse("tiny", &text).unwrap();
        let model = manifest.id.clone();
        let inner = Inner {
            folder: RwLock::new(folder.to_owned()),
            given: None,
            catalogue_key: None,
            known: RwLock::new(Known {
                catalog: Arc::new(Catalog::of(vec![manifest])),
                edition: None,
                seen: Vec::new(),
            }),
            free_space: Box::new(|_| Ok(u64::MAX)),
            always_hashed_bytes_max: 0,
            open_file: Box::new(open_plainly),
            distrusted: Mutex::default(),
        };
        let store = ModelStore { inner: Arc::new(inner) };
        let path = store.folder(&model).join("tiny.gguf");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        (store, model, path)
    }

    #[test]
    fn a_large_file_is_hashed_again_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, model, path) = store(folder.path());
        fs::write(&path, CONTENT).unwrap();
        assert_eq!(store.state(&model).unwrap(), ModelState::Unverified);
        assert_eq!(store.verified_blocking(&model).unwrap(), path);
        assert_eq!(store.state(&model).unwrap(), ModelState::Verified);

        // Same size, same time: the stamp is believed, which shows that no hash was made.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, b"weighty").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(store.verified_blocking(&model).is_ok());

        // Another time: hashed, and found out.
        let later = modified + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(store.state(&model).unwrap(), ModelState::Unverified);
        let error = store.verified_blocking(&model).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { set_aside: Some(_), .. }), "{error}");
        assert_eq!(store.state(&model).unwrap(), ModelState::Absent);
    }

    #[test]
    fn a_damaged_file_that_cannot_be_moved_is_told_and_never_served() {
        let folder = tempfile::tempdir().unwrap();
        let (store, model, path) = store(folder.path());
        fs::write(&path, CONTENT).unwrap();
        store.verified_blocking(&model).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, b"weighty").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(
            store.state(&model).unwrap(),
            ModelState::Verified,
            "neither size nor time tells"
        );
        // What the file would be renamed to is in the way.
        fs::create_dir_all(damaged_path(&path).join("full")).unwrap();

        let (pace, stop) = (crate::Pace::default(), tokio_util::sync::CancellationToken::new());
        let found = store.read_through_blocking(&model, "tiny.gguf", &pace, &stop).unwrap();
        assert!(matches!(found, crate::Found::Stuck(_)), "{found:?}");
        assert_eq!(store.state(&model).unwrap(), ModelState::Unverified);
        assert!(store.verified_blocking(&model).is_err(), "the note of it is not believed");
        assert!(store.give_up_file(&model, "tiny.gguf").is_err());

        fs::write(&path, CONTENT).unwrap();
        assert!(store.verified_blocking(&model).is_ok(), "it was written anew");
        assert_eq!(store.state(&model).unwrap(), ModelState::Verified);
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, model, path) = store(folder.path());
        fs::write(&path, b"weighty").unwrap();
        // A fetch puts the right file there while the wrong one is read for the second time.
        let (opened, place) = (std::sync::atomic::AtomicU32::new(0), path.clone());
        let open = move |path: &Path| {
            let file = open_plainly(path)?;
            if opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1 {
                let next = place.with_extension("next");
                fs::write(&next, CONTENT)?;
                fs::rename(&next, &place)?;
            }
            Ok(file)
        };
        Arc::get_mut(&mut store.inner).unwrap().open_file = Box::new(open);
        let (pace, stop) = (crate::Pace::default(), tokio_util::sync::CancellationToken::new());
        let found = store.read_through_blocking(&model, "tiny.gguf", &pace, &stop);
        assert!(matches!(found, Err(StoreError::Busy { .. })), "{found:?}");
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        let found = store.read_through_blocking(&model, "tiny.gguf", &pace, &stop).unwrap();
        assert_eq!(found, crate::Found::Sound);
    }

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (store, model, _) = store(folder.path());
        let held = store.lock(&model).unwrap();
        let (other, id) = (store.clone(), model.clone());
        let waiting = std::thread::spawn(move || other.lock(&id).map(drop));
        std::thread::sleep(LOCK_PATIENCE / 4);
        drop(held);
        waiting.join().unwrap().unwrap();
        let _held = store.lock(&model).unwrap();
        assert!(matches!(store.lock(&model), Err(StoreError::Busy { .. })));
    }

    #[test]
    fn a_damaged_note_means_hashing_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, model, path) = store(folder.path());
        fs::write(&path, CONTENT).unwrap();
        fs::write(path.with_file_name(".verified.json"), "{").unwrap();
        assert_eq!(store.state(&model).unwrap(), ModelState::Unverified);
        store.verified_blocking(&model).unwrap();
        assert_eq!(store.state(&model).unwrap(), ModelState::Verified);
    }

    #[test]
    fn no_id_leads_out_of_the_library() {
        let name = |id: &str| folder_name(&ModelId::new(id).unwrap());
        assert_eq!(name("org/model-1.0"), "org--model-1.0");
        assert_eq!(name(".."), "_..");
        assert_eq!(name("../.."), "_..--..");
        assert_eq!(name("/etc"), "--etc");
        assert_eq!(name("catalog"), "_catalog");
    }
}
