//! What of a folder is the library's. A person may have put the library beside other things, and only
//! what its manifests name is ever moved or deleted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use neurino_core::ModelId;

use crate::catalog::{Catalog, ModelManifest};
use crate::store::ModelStore;
use crate::{chunks, former, library, part, scrub, signed, stamp, store};

/// The end of the name of a file that a move is writing.
pub(crate) const DRAFT: &str = ".moving";

/// The library's files and folders, by their way from its folder.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    /// Models that have a folder.
    pub(crate) models: Vec<ModelId>,
    /// Files that are there.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Folders of models, in which locks lie.
    pub(crate) folders: BTreeSet<PathBuf>,
}

impl ModelStore {
    /// Whole paths of the files that are the library's own; whatever else lies in its folder is not
    /// among them.
    pub fn library_files(&self) -> Vec<PathBuf> {
        let root = self.root();
        self.owned().files.iter().map(|file| root.join(file)).collect()
    }

    /// Removes the library's folders that hold nothing any more.
    pub fn remove_empty_folders(&self) {
        let (root, mut owned) = (self.root(), self.owned());
        // A folder of the catalogue is the library's even where no manifest of a person lies in it.
        owned.folders.insert(within(&root, &self.catalog_folder(), ""));
        owned.remove_empty_folders(&root);
        let _ = fs::remove_dir(&root);
    }

    /// What of the library's folder is its own: catalogue, files of models at every stage, notes.
    pub(crate) fn owned(&self) -> Owned {
        let (root, catalog) = (self.root(), self.catalog_folder());
        let mut owned = Owned::default();
        let mut names = vec![PathBuf::from(scrub::SCRUB), within(&root, &catalog, signed::NAME)];
        for entry in fs::read_dir(&catalog).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = || fs::read_to_string(entry.path()).unwrap_or_default();
            if entry.path().extension().is_some_and(|end| end == "toml")
                && ModelManifest::parse(&name, &text()).is_ok()
            {
                names.push(within(&root, &catalog, &name));
            }
        }
        // A model that was taken in since the start is in the folder alone.
        let since = Catalog::default().with_folder(&catalog);
        for manifest in self.catalog().models().iter().chain(since.models()) {
            let folder = self.folder(&manifest.id);
            if !folder.is_dir() || owned.models.contains(&manifest.id) {
                continue;
            }
            owned.models.push(manifest.id.clone());
            owned.folders.insert(folder.strip_prefix(&root).unwrap_or(&folder).to_owned());
            let notes = [stamp::NAME, former::VERSION, library::USED];
            names.extend(notes.map(|name| within(&root, &folder, name)));
            let former = former_files(&folder).into_iter();
            names.extend(former.map(|path| path.strip_prefix(&root).unwrap_or(&path).to_owned()));
            for file in &manifest.files {
                let (path, part) = (folder.join(&file.name), part::path(&folder, file));
                let map = chunks::map_path(&part);
                let next = map.with_added_extension("new");
                let (damaged, kept) = (store::damaged_path(&path), chunks::kept_path(&path));
                let all = [path, part, map, next, damaged, kept];
                names.extend(
                    all.into_iter().filter_map(|path| Some(path.strip_prefix(&root).ok()?.into())),
                );
            }
        }
        let is_file = |name: &PathBuf| {
            fs::symlink_metadata(root.join(name)).is_ok_and(|metadata| metadata.is_file())
        };
        owned.files = names.into_iter().filter(is_file).collect();
        owned
    }
}

impl Owned {
    /// Whether `folder` holds nothing but what a move of this library leaves there when it is
    /// interrupted. What cannot be read is somebody else's.
    pub(crate) fn alone_in(&self, folder: &Path) -> bool {
        self.alone_below(folder, Path::new(""))
    }

    fn alone_below(&self, root: &Path, inside: &Path) -> bool {
        let Ok(entries) = fs::read_dir(root.join(inside)) else { return false };
        entries.into_iter().all(|entry| {
            let Ok(entry) = entry else { return false };
            let path = inside.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    self.files.iter().any(|file| file.starts_with(&path))
                        && self.alone_below(root, &path)
                }
                Ok(kind) if kind.is_file() => {
                    let whole = path.as_os_str().to_string_lossy();
                    let whole = whole.strip_suffix(DRAFT).unwrap_or(&whole);
                    self.files.contains(Path::new(whole))
                }
                _ => false,
            }
        })
    }

    /// Removes the locks and the folders of the library that hold nothing any more, its own last.
    pub(crate) fn remove_empty_folders(&self, root: &Path) {
        for folder in &self.folders {
            let _ = fs::remove_file(root.join(folder).join(store::LOCK));
        }
        let of_files = self.files.iter().flat_map(|file| file.ancestors().skip(1));
        let of_models = self.folders.iter().map(PathBuf::as_path);
        let folders: BTreeSet<&Path> = of_files.chain(of_models).collect();
        // Those inside come after those around them.
        for folder in folders.into_iter().rev() {
            let _ = fs::remove_dir(root.join(folder));
        }
    }
}

/// What the version before of a model consists of.
fn former_files(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join(former::FORMER);
    let files = former::noted(&folder).into_iter().flatten().map(|file| file.name);
    let notes = [stamp::NAME, former::VERSION].map(str::to_owned);
    files.chain(notes).map(|name| folder.join(name)).collect()
}

fn within(root: &Path, folder: &Path, name: &str) -> PathBuf {
    folder.strip_prefix(root).unwrap_or(folder).join(name)
}
