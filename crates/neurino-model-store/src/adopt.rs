//! Taking in a model that no catalogue knows: a file or folder that the person has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use neurino_core::{ImageDefaults, JobKind, ModelId};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::catalog::{ModelFile, ModelManifest};
use crate::error::StoreError;
use crate::fetch::SPACE_RESERVE_BYTES;
use crate::part;
use crate::scrub::{Pace, hash_slowly};
use crate::store::{ModelState, ModelStore, blocking, settle};

/// What is said about a person's own model; its files' names, sizes and digests are added.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnModel {
    /// The id it gets.
    pub id: ModelId,
    /// Its name for people.
    pub name: String,
    /// The architecture, as its files name it.
    pub arch: String,
    /// How most of its weights are stored.
    pub dtype: String,
    /// Longest sequence, prompt and answer together, in tokens; 0 for an image model.
    pub context_tokens: u32,
    /// What suits it, if it makes pictures.
    pub image: Option<ImageDefaults>,
    /// Memory the device needs to run it, in bytes.
    pub memory_bytes_min: u64,
}

/// The ends of the names of files that a model folder needs; everything else in it (pictures,
/// optimiser states, other formats) stays where it is.
const NEEDED: [&str; 6] = [".safetensors", ".json", ".model", ".txt", ".jinja", ".gguf"];
/// Files that say that a model consists of parts, which may lie in folders of their own.
const OF_PARTS: [&str; 2] = ["model_index.json", "model.toml"];
/// Parts of such models that pictures are not made with.
const UNUSED: [&str; 2] = ["safety_checker", "feature_extractor"];

impl ModelStore {
    /// Whether a file has the size of one that the catalogue pins, so that it is worth asking
    /// [`ModelStore::import`] what it is.
    pub fn may_know(&self, path: &Path) -> bool {
        let Ok(metadata) = path.metadata() else { return false };
        let catalog = self.catalog();
        let mut pinned = catalog.models().iter().flat_map(|model| &model.files);
        metadata.is_file() && pinned.any(|file| file.size_bytes == metadata.len())
    }

    /// Takes in a model from `path`, a file or the folder with its files. Files are linked where
    /// the drive allows it, else copied, and hashed; the manifest is written last, to
    /// `catalog/<id>.toml`, and this program knows the model from then on, others with their next
    /// [`ModelStore::refresh`]. `progress` gets the bytes that were read of the bytes there are. Before that `check` is asked
    /// whether the folder that the files lie in now is a model, and says what it is not: it may have
    /// named files that did not come along.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`], but for a model of one's own that is not whole and has these files;
    /// [`StoreError::Away`], [`StoreError::NotAFile`], [`StoreError::BadManifest`],
    /// [`StoreError::Busy`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub async fn adopt(
        &self,
        own: OwnModel,
        path: &Path,
        check: impl FnOnce(&Path) -> Result<(), String> + Send + 'static,
        progress: impl Fn(u64, u64) + Send + 'static,
        cancel: CancellationToken,
    ) -> Result<ModelManifest, StoreError> {
        let (store, path) = (self.clone(), path.to_owned());
        blocking(move || store.adopt_blocking(own, &path, check, &progress, &cancel)).await
    }

    fn adopt_blocking(
        &self,
        own: OwnModel,
        path: &Path,
        check: impl FnOnce(&Path) -> Result<(), String>,
        progress: &dyn Fn(u64, u64),
        cancel: &CancellationToken,
    ) -> Result<ModelManifest, StoreError> {
        self.check_there()?;
        // Ids that differ in a slash or in capitals would share a folder on one system or another.
        let folder = |id: &ModelId| self.folder(id).to_string_lossy().to_lowercase();
        self.refresh();
        let catalog = self.catalog();
        let mut same = catalog.models().iter().filter(|model| folder(&model.id) == folder(&own.id));
        let former = same.next();
        let noted = self.catalog_folder().join(manifest_name(&own.id)).exists();
        // One of the person's own that is not whole any more comes back by being added again.
        let lost = former.filter(|model| model.id == own.id && self.is_lost_own(model));
        if lost.is_none() && (former.is_some() || noted) {
            return Err(StoreError::IdTaken { model: own.id });
        }
        if own.id.as_str().split('/').any(|part| part.trim_matches('.').is_empty()) {
            let problem =
                "its id has an empty part, or one of dots alone; choose another with --id";
            let name = own.id.to_string();
            return Err(StoreError::BadManifest { name, problem: problem.into() });
        }
        let sources = files_of(path)?;
        let manifest = manifest_of(own, path, &sources, progress, cancel)?;
        let id = &manifest.id;
        if lost.is_some_and(|lost| !has_same_files(lost, &manifest)) {
            return Err(StoreError::IdTaken { model: id.clone() });
        }
        let lock = self.lock(id)?;
        for (file, source) in manifest.files.iter().zip(&sources) {
            self.take(id, file, &source.path)?;
        }
        if let Err(problem) = check(&self.folder(id)) {
            // Windows cannot delete a file that is open.
            drop(lock);
            let _ = fs::remove_dir_all(self.folder(id));
            return Err(StoreError::BadManifest { name: id.to_string(), problem });
        }
        let folder = self.catalog_folder();
        fs::create_dir_all(&folder).map_err(|error| StoreError::io("create", &folder, error))?;
        write_manifest(&folder, &manifest)?;
        info!(model.id = %id, "took in {id}");
        self.refresh();
        Ok(manifest)
    }

    /// Whether a model is a person's own and files of it are missing or were set aside.
    fn is_lost_own(&self, model: &ModelManifest) -> bool {
        let is_own = model.files.iter().all(|file| file.sources.is_empty());
        let state = self.state(&model.id);
        is_own && matches!(state, Ok(ModelState::Absent | ModelState::Partial { .. }))
    }

    fn take(&self, id: &ModelId, file: &ModelFile, source: &Path) -> Result<(), StoreError> {
        let target = self.folder(id).join(&file.name);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|error| StoreError::io("create", folder, error))?;
        }
        // What an interrupted attempt left, or an earlier model of this id.
        let _ = fs::remove_file(&target);
        if fs::hard_link(source, &target).is_ok() {
            settle(&self.folder(id), file)?;
        } else {
            self.check_space(file.size_bytes + SPACE_RESERVE_BYTES)?;
            let part = part::path(&self.folder(id), file);
            fs::copy(source, &part)
                .and_then(|_| File::options().write(true).open(&part)?.sync_all())
                .map_err(|error| StoreError::io("write", &part, error))?;
            self.accept(id, file)?;
        }
        // The source may have changed since it was hashed; what counts is what lies here now.
        self.check_file(id, file)
    }
}

/// Whether both name the same files with the same content.
fn has_same_files(a: &ModelManifest, b: &ModelManifest) -> bool {
    let files = |model: &ModelManifest| {
        let files = model.files.iter().map(|file| (file.name.clone(), file.sha256.to_string()));
        files.collect::<std::collections::BTreeSet<_>>()
    };
    files(a) == files(b)
}

/// A file to take.
struct Taken {
    /// Its name in the model's folder: `unet/config.json`.
    name: String,
    /// Where it lies.
    path: PathBuf,
}

impl Taken {
    fn size_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }
}

/// What would be taken of a file or folder: how many files, and their bytes. A pipe or a device, which
/// would be read forever, is refused.
///
/// # Errors
/// [`StoreError::NotAFile`], [`StoreError::Io`].
pub fn own_files(path: &Path) -> Result<(usize, u64), StoreError> {
    let files = files_of(path)?;
    Ok((files.len(), files.iter().map(Taken::size_bytes).sum()))
}

/// What a person would call a model file or folder.
pub fn own_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A link's own name says more than that of a store's blob behind it.
    let name = last(path).or_else(|| last(&whole)).unwrap_or_default();
    let stem = [".gguf", ".safetensors"].iter().find_map(|end| name.strip_suffix(end));
    stem.map_or(name.clone(), str::to_owned)
}

/// An id for a model of that name; it may be empty, which is none.
pub fn own_id(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    name.to_lowercase().chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}

/// The files to take, by name. Links are followed: model folders of other programs consist of
/// them.
fn files_of(path: &Path) -> Result<Vec<Taken>, StoreError> {
    let (kind, target) = read(path)?;
    if kind.is_file() {
        // Its name is the one the person gave, not that of a link's target.
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(vec![Taken { name, path: path.to_owned() }]);
    }
    if !kind.is_dir() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    let mut files = Vec::new();
    let folders = take_from(&target, "", &mut files)?;
    if files.iter().any(|file| OF_PARTS.contains(&file.name.as_str())) {
        for folder in folders.iter().filter(|folder| !UNUSED.contains(&folder.as_str())) {
            take_from(&target.join(folder), folder, &mut files)?;
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn read(path: &Path) -> Result<(fs::Metadata, PathBuf), StoreError> {
    let target = path.canonicalize().and_then(|target| Ok((fs::metadata(&target)?, target)));
    target.map_err(|error| StoreError::io("read", path, error))
}

/// Adds what a model needs of a folder, which is called `inside` in it; returns the folders there.
fn take_from(
    folder: &Path,
    inside: &str,
    files: &mut Vec<Taken>,
) -> Result<Vec<String>, StoreError> {
    let failed = |error| StoreError::io("read", folder, error);
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let (kind, _) = read(&entry.path())?;
        let lower = name.to_lowercase();
        let needed = OF_PARTS.contains(&name.as_str()) || NEEDED.iter().any(|e| lower.ends_with(e));
        if kind.is_dir() {
            folders.push(name);
        } else if needed && kind.is_file() && kind.len() > 0 {
            let name = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            files.push(Taken { name, path: entry.path() });
        }
    }
    Ok(folders)
}

fn manifest_of(
    own: OwnModel,
    path: &Path,
    sources: &[Taken],
    progress: &dyn Fn(u64, u64),
    cancel: &CancellationToken,
) -> Result<ModelManifest, StoreError> {
    let total_bytes = sources.iter().map(Taken::size_bytes).sum();
    let (mut files, mut begin) = (Vec::new(), 0);
    for Taken { name, path } in sources {
        let failed = |error| StoreError::io("read", path, error);
        let size_bytes = fs::metadata(path).map_err(failed)?.len();
        let tell = |bytes| progress(begin + bytes, total_bytes);
        let hashed =
            hash_slowly(path, &Pace::default(), &tell, cancel).ok_or(StoreError::Cancelled)?;
        let sha256 = hashed.map_err(failed)?;
        begin += size_bytes;
        let (name, sources) = (name.clone(), Vec::new());
        files.push(ModelFile { name, sha256, size_bytes, sources, pieces: None });
    }
    // Without the way there.
    let place = path.file_name().unwrap_or_default().to_string_lossy();
    let manifest = ModelManifest {
        summary: format!("Your own model, from {place}."),
        family: own.arch.clone(),
        id: own.id,
        name: own.name,
        arch: own.arch,
        dtype: own.dtype,
        kind: if own.image.is_some() { JobKind::Image } else { JobKind::Text },
        context_tokens: own.context_tokens,
        image: own.image,
        memory_bytes_min: own.memory_bytes_min,
        licence: "LicenseRef-unknown".into(),
        attribution: "unknown: the files do not say".into(),
        files,
    };
    manifest.checked()
}

pub(crate) fn manifest_name(id: &ModelId) -> String {
    format!("{}.toml", id.as_str().replace('/', "--"))
}

/// Writes a model's manifest into the catalogue's folder, whole or not at all: half of one would hide the
/// model.
pub(crate) fn write_manifest(folder: &Path, manifest: &ModelManifest) -> Result<(), StoreError> {
    let target = folder.join(manifest_name(&manifest.id));
    let text = toml::to_string(manifest).map_err(|e| StoreError::BadManifest {
        name: manifest.id.to_string(),
        problem: e.to_string(),
    })?;
    let draft = target.with_extension("toml.new");
    fs::write(&draft, text)
        .and_then(|()| File::open(&draft)?.sync_all())
        .and_then(|()| fs::rename(&draft, &target))
        .map_err(|error| StoreError::io("write", &target, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn own(id: &str) -> OwnModel {
        OwnModel {
            id: ModelId::new(id).expect("valid"),
            name: "Mine".into(),
            arch: "llama".into(),
            dtype: "f16".into(),
            context_tokens: 64,
            image: None,
            memory_bytes_min: 1000,
        }
    }

    #[tokio::test]
    async fn a_model_of_ones_own_that_lost_a_file_is_taken_in_again() {
        let place = tempfile::tempdir().expect("a folder");
        let (library, mine) = (place.path().join("library"), place.path().join("mine"));
        fs::create_dir_all(&mine).expect("created");
        for (name, text) in [("config.json", "{}"), ("a.safetensors", "w")] {
            fs::write(mine.join(name), text).expect("written");
        }
        let store = ModelStore::open(&library).expect("opened");
        let take = async || {
            store
                .adopt(own("mine"), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
                .await
                .map(|manifest| manifest.id)
        };
        let id = take().await.expect("taken in");
        assert!(matches!(take().await, Err(StoreError::IdTaken { .. })), "it is whole");
        let file = store.folder(&id).join("a.safetensors");
        fs::rename(&file, crate::store::damaged_path(&file)).expect("set aside");
        fs::write(mine.join("config.json"), "{ }").expect("written");
        assert!(matches!(take().await, Err(StoreError::IdTaken { .. })), "it is another model");
        fs::remove_file(mine.join("config.json")).expect("removed");
        fs::write(mine.join("config.json"), "{}").expect("written");
        take().await.expect("taken in again");
        assert_eq!(store.state(&id).expect("known"), ModelState::Verified);
        assert!(!crate::store::damaged_path(&file).exists());
    }

    #[tokio::test]
    async fn a_folder_becomes_a_model_that_every_program_knows() {
        let place = tempfile::tempdir().expect("a folder");
        let (library, mine) = (place.path().join("library"), place.path().join("mine"));
        fs::create_dir_all(mine.join("checkpoints")).expect("created");
        for (name, text) in [("config.json", "{}"), ("a.safetensors", "w"), ("cat.png", "x")] {
            fs::write(mine.join(name), text).expect("written");
        }
        let store = ModelStore::open(&library).expect("opened");
        let other = ModelStore::open(&library).expect("opened by another program");
        let manifest = store
            .adopt(own("me/mine"), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
            .await
            .expect("taken in");
        let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.safetensors", "config.json"], "what a model needs, no more");
        assert_eq!(manifest.summary, "Your own model, from mine.");
        assert!(store.catalog().get(&manifest.id).is_some(), "known at once");
        assert!(other.catalog().get(&manifest.id).is_none());
        assert!(other.refresh(), "and to the other program when it looks");
        assert_eq!(other.state(&manifest.id).expect("known"), ModelState::Verified);
        assert!(!other.refresh(), "once");

        let again = ModelStore::open(&library).expect("opened again");
        let id = ModelId::new("me/mine").expect("valid");
        assert_eq!(again.state(&id).expect("known"), ModelState::Verified);
        assert_eq!(again.verified(&id).await.expect("verified"), again.folder(&id));
        let taken = again
            .adopt(own("me/mine"), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
            .await;
        assert!(matches!(taken, Err(StoreError::IdTaken { .. })), "{taken:?}");
        for same in ["me--mine", "Me/Mine"] {
            let taken = again
                .adopt(own(same), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
                .await;
            assert!(matches!(taken, Err(StoreError::IdTaken { .. })), "{same}: {taken:?}");
            let taken = store
                .adopt(own(same), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
                .await;
            assert!(taken.is_err() || same == "Me/Mine", "{same}: the manifest is there");
        }
        for odd in ["..", "a//b", "x/"] {
            if let Ok(id) = ModelId::new(odd) {
                assert!(
                    again
                        .adopt(
                            OwnModel { id, ..own("x") },
                            &mine,
                            |_| Ok(()),
                            |_, _| {},
                            CancellationToken::new()
                        )
                        .await
                        .is_err(),
                    "{odd}"
                );
            }
        }

        again.remove(&id).await.expect("removed");
        assert!(again.state(&id).is_err(), "forgotten at once");
        assert!(other.refresh() && other.state(&id).is_err(), "and by the other program");
        assert!(ModelStore::open(&library).expect("opened").state(&id).is_err(), "and forgotten");
        assert!(mine.join("config.json").exists(), "the person's own files stay");
    }

    #[tokio::test]
    async fn the_parts_of_an_image_model_keep_their_folders() {
        let place = tempfile::tempdir().expect("a folder");
        let (library, mine) = (place.path().join("library"), place.path().join("mine"));
        for name in [
            "model_index.json",
            "model.toml",
            "unet/config.json",
            "unet/weights.safetensors",
            "unet/notes.md",
            "tokenizer/merges.txt",
            "unet/old/config.json",
            "safety_checker/weights.safetensors",
            ".cache/config.json",
        ] {
            fs::create_dir_all(mine.join(name).parent().expect("inside")).expect("created");
            fs::write(mine.join(name), name).expect("written");
        }
        let store = ModelStore::open(&library).expect("opened");
        let manifest = store
            .adopt(own("mine"), &mine, |_| Ok(()), |_, _| {}, CancellationToken::new())
            .await
            .expect("taken in");
        let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
        let expect = [
            "model.toml",
            "model_index.json",
            "tokenizer/merges.txt",
            "unet/config.json",
            "unet/weights.safetensors",
        ];
        assert_eq!(names, expect);
        let again = ModelStore::open(&library).expect("opened again");
        let folder = again.verified(&manifest.id).await.expect("verified");
        for name in expect {
            assert_eq!(fs::read_to_string(folder.join(name)).expect("there"), name);
        }
        again.remove(&manifest.id).await.expect("removed");
        assert!(!folder.exists(), "with its folders");
    }

    #[tokio::test]
    async fn what_is_no_model_leaves_nothing_behind() {
        let place = tempfile::tempdir().expect("a folder");
        let (library, empty) = (place.path().join("library"), place.path().join("empty"));
        fs::create_dir_all(&empty).expect("created");
        let store = ModelStore::open(&library).expect("opened");
        for path in [empty, place.path().join("absent.gguf")] {
            assert!(
                store
                    .adopt(own("mine"), &path, |_| Ok(()), |_, _| {}, CancellationToken::new())
                    .await
                    .is_err(),
                "{}",
                path.display()
            );
        }
        let model = place.path().join("model.gguf");
        fs::write(&model, "words").expect("written");
        let check = |folder: &Path| {
            assert_eq!(fs::read_to_string(folder.join("model.gguf")).expect("there"), "words");
            Err("it is no model".into())
        };
        let refused = store.adopt(own("mine"), &model, check, |_, _| {}, CancellationToken::new());
        let refused = refused.await.expect_err("the check").to_string();
        assert!(refused.contains("it is no model"), "{refused}");
        assert!(!library.join("mine").exists());
        let known = Catalog::built_in().with_folder(&library.join("catalog"));
        assert_eq!(known.models().len(), Catalog::built_in().models().len());
    }
}
