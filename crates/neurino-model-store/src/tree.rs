//! Showing single pieces of a model's files, and the roots by which others check them.
//!
//! A file is read whole once; what its groups hash to is kept beside it as `.NAME.tree`, so that a piece is
//! shown later by reading 1 MiB around it. What is kept says nothing of the file as it is now: whoever
//! checks a piece sees that.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use neurino_core::ModelId;
use neurino_core::file_tree::{
    FileBytes, GROUP_BYTES, GROUP_LEAVES, LEAF_BYTES, ShownLeaf, TreeHash, leaf_hashes, leaf_len,
    path_of, root_of,
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::catalog::ModelFile;
use crate::chunks::read_at;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::store::{ModelStore, blocking};

const MAGIC: &[u8; 8] = b"NRNTREE1";
/// Magic, file size, SHA-256 of the file.
const HEAD_BYTES: usize = 8 + 8 + 32;

/// A file of a model, and the root of its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTree {
    /// The file, as the catalogue has it.
    pub file: ModelFile,
    /// The root.
    pub root: TreeHash,
}

fn tree_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tree"))
}

fn head(file: &ModelFile) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&file.size_bytes.to_le_bytes());
    head.extend_from_slice(file.sha256.as_bytes());
    head
}

/// What the groups of a file hash to, if that is kept.
fn kept(path: &Path, file: &ModelFile) -> Option<Vec<TreeHash>> {
    let bytes = fs::read(tree_path(path)).ok()?;
    let hashes = bytes.strip_prefix(&head(file)[..])?;
    let (groups, rest) = hashes.as_chunks::<32>();
    let count = file.size_bytes.div_ceil(GROUP_BYTES as u64);
    let whole = rest.is_empty() && groups.len() as u64 == count;
    whole.then(|| groups.iter().map(|hash| TreeHash(*hash)).collect())
}

fn keep(path: &Path, file: &ModelFile, groups: &[TreeHash]) -> io::Result<()> {
    let to = tree_path(path);
    let folder = to.parent().unwrap_or(Path::new("."));
    let mut next = tempfile::Builder::new().prefix(".tree-").tempfile_in(folder)?;
    next.write_all(&head(file))?;
    for group in groups {
        next.write_all(&group.0)?;
    }
    next.persist(to).map_err(|error| error.error)?;
    Ok(())
}

/// Reads a file whole, so many bytes a second, and says what its groups hash to and what all of it does.
fn read_whole(
    path: &Path,
    bytes_per_s: Option<u64>,
    cancel: &CancellationToken,
) -> Result<(Vec<TreeHash>, Digest), StoreError> {
    let failed = |error| StoreError::io("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut groups) = (Sha256::new(), Vec::new());
    let mut buffer = Vec::with_capacity(GROUP_BYTES);
    loop {
        if cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let begin = Instant::now();
        buffer.clear();
        let count =
            (&mut file).take(GROUP_BYTES as u64).read_to_end(&mut buffer).map_err(failed)?;
        let Some(root) = root_of(&leaf_hashes(&buffer)) else {
            return Ok((groups, Digest::of_hasher(hasher)));
        };
        hasher.update(&buffer);
        groups.push(root);
        if let Some(rate) = bytes_per_s.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(count as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
}

impl ModelStore {
    /// The files of a model and the roots of their trees. Reads them whole, at most `bytes_per_s`, and
    /// refuses what is not as the catalogue says.
    ///
    /// # Errors
    /// [`StoreError::UnknownModel`], [`StoreError::Absent`], [`StoreError::WrongSize`],
    /// [`StoreError::WrongDigest`], [`StoreError::Io`], [`StoreError::Cancelled`].
    pub async fn file_trees(
        &self,
        model: &ModelId,
        bytes_per_s: Option<u64>,
        cancel: CancellationToken,
    ) -> Result<Vec<FileTree>, StoreError> {
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let manifest = store.manifest(&model)?;
            let tree = |file: &ModelFile| {
                let groups = store.groups_of(&model, file, bytes_per_s, &cancel, true)?;
                let root = root_of(&groups).ok_or(StoreError::Absent { model: model.clone() })?;
                Ok(FileTree { file: file.clone(), root })
            };
            manifest.files.iter().map(tree).collect()
        })
        .await
    }

    /// Pieces of a file, by their numbers, and what leads from each to the root. The first time the file is
    /// read whole, at most `bytes_per_s`; then 1 MiB for each piece.
    ///
    /// # Errors
    /// As [`ModelStore::file_trees`]; [`StoreError::UnknownModel`] also for a file or a piece that the model
    /// does not have.
    pub async fn show_leaves(
        &self,
        model: &ModelId,
        name: &str,
        leaves: Vec<u64>,
        bytes_per_s: Option<u64>,
        cancel: CancellationToken,
    ) -> Result<Vec<ShownLeaf>, StoreError> {
        let (store, model, name) = (self.clone(), model.clone(), name.to_owned());
        blocking(move || {
            let manifest = store.manifest(&model)?;
            let unknown = || StoreError::UnknownModel { model: model.clone() };
            let file = manifest.files.iter().find(|file| file.name == name).ok_or_else(unknown)?;
            let groups = store.groups_of(&model, file, bytes_per_s, &cancel, false)?;
            let path = store.folder(&model).join(&file.name);
            let opened = File::open(&path).map_err(|error| StoreError::io("read", &path, error))?;
            let mut shown = Vec::with_capacity(leaves.len());
            for index in leaves {
                if cancel.is_cancelled() {
                    return Err(StoreError::Cancelled);
                }
                let leaf = show(&opened, file, &groups, index)
                    .map_err(|error| StoreError::io("read", &path, error))?;
                shown.push(leaf.ok_or_else(unknown)?);
            }
            Ok(shown)
        })
        .await
    }

    fn groups_of(
        &self,
        model: &ModelId,
        file: &ModelFile,
        bytes_per_s: Option<u64>,
        cancel: &CancellationToken,
        anew: bool,
    ) -> Result<Vec<TreeHash>, StoreError> {
        let path = self.folder(model).join(&file.name);
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
                set_aside: None,
            });
        }
        if !anew && let Some(groups) = kept(&path, file) {
            return Ok(groups);
        }
        let (groups, found) = read_whole(&path, bytes_per_s, cancel)?;
        if found != file.sha256 {
            return Err(StoreError::WrongDigest {
                file: file.name.clone(),
                expected: file.sha256,
                found,
                set_aside: None,
            });
        }
        if let Err(error) = keep(&path, file, &groups) {
            // It is read whole again the next time.
            tracing::warn!(%error, "the hashes of `{}` cannot be kept: {error}", path.display());
        }
        Ok(groups)
    }
}

/// A piece of a file; none if there is no such piece.
fn show(
    opened: &File,
    file: &ModelFile,
    groups: &[TreeHash],
    index: u64,
) -> io::Result<Option<ShownLeaf>> {
    let Some(len) = leaf_len(file.size_bytes, index) else { return Ok(None) };
    let leaf = usize::try_from(index).unwrap_or(usize::MAX);
    let (group, within) = (leaf / GROUP_LEAVES, leaf % GROUP_LEAVES);
    let begin = group as u64 * GROUP_BYTES as u64;
    let rest = file.size_bytes.saturating_sub(begin).min(GROUP_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(rest).unwrap_or(GROUP_BYTES)];
    read_at(opened, &mut bytes, begin)?;
    let path = path_of(&leaf_hashes(&bytes), within).zip(path_of(groups, group));
    Ok(path.map(|(mut path, above)| {
        path.extend(above);
        let from = within * LEAF_BYTES;
        ShownLeaf { index, bytes: FileBytes(bytes[from..from + len].to_vec()), path }
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use neurino_core::file_tree::is_leaf_of;

    use super::*;
    use crate::catalog::{Catalog, ModelManifest};

    fn content(groups: usize) -> Vec<u8> {
        (0..groups * GROUP_BYTES - 40_000).map(|n| (n * 7 % 253) as u8 ^ (n >> 15) as u8).collect()
    }

    fn manifest(content: &[u8]) -> ModelManifest {
        let text = format!(
            "id = \"m\"\nname = \"M\"\nsummary = \"s\"\nfamily = \"f\"\narch = \"llama\"\n\
             dtype = \"f32\"\ncontext_tokens = 9\nmemory_bytes_min = 1\nlicence = \"MIT\"\n\
             attribution = \"a\"\n[[files]]\nname = \"w.gguf\"\nsha256 = \"{}\"\nsize_bytes = {}\n",
            Digest::of(content),
            content.len(),
        );
        ModelManifest::parse("m.toml", &text).unwrap()
    }

    fn store(content: &[u8]) -> (tempfile::TempDir, ModelStore, ModelId) {
        let root = tempfile::tempdir().unwrap();
        let manifest = manifest(content);
        let id = manifest.id.clone();
        let catalog = Catalog::of(vec![manifest]);
        let store = ModelStore::open_with(root.path(), catalog, Box::new(|_| Ok(1 << 30))).unwrap();
        fs::create_dir_all(store.folder(&id)).unwrap();
        fs::write(store.folder(&id).join("w.gguf"), content).unwrap();
        (root, store, id)
    }

    fn never() -> CancellationToken {
        CancellationToken::new()
    }

    #[tokio::test]
    async fn every_piece_leads_to_the_root() {
        let content = content(3);
        let (dir, store, id) = store(&content);
        let trees = store.file_trees(&id, None, never()).await.unwrap();
        let root = trees[0].root;
        assert_eq!(Some(root), root_of(&leaf_hashes(&content)));
        let size = content.len() as u64;
        let last = size.div_ceil(LEAF_BYTES as u64) - 1;
        let leaves = vec![0, 63, 64, 100, last];
        let shown = store.show_leaves(&id, "w.gguf", leaves.clone(), None, never()).await.unwrap();
        assert_eq!(shown.iter().map(|leaf| leaf.index).collect::<Vec<_>>(), leaves);
        assert!(shown.iter().all(|leaf| is_leaf_of(root, size, leaf)));
        assert!(store.show_leaves(&id, "w.gguf", vec![last + 1], None, never()).await.is_err());
        // Only what the manifest names is opened, however a name is spelt.
        let whole = dir.path().join("elsewhere");
        fs::write(&whole, "somebody's own").unwrap();
        let absolute = whole.to_string_lossy().into_owned();
        for name in [
            "other",
            "",
            ".",
            "..",
            "../w.gguf",
            "./w.gguf",
            "w.gguf/",
            "../../elsewhere",
            "/etc/passwd",
            "C:\\Windows\\win.ini",
            "w.gguf\0",
            &absolute,
        ] {
            let refused = store.show_leaves(&id, name, vec![0], None, never()).await.unwrap_err();
            assert!(matches!(refused, StoreError::UnknownModel { .. }), "{name}: {refused}");
        }
        let stranger = ModelId::new("../..").ok();
        for model in stranger.iter().chain([&ModelId::new("nobody-has-it").unwrap()]) {
            assert!(store.show_leaves(model, "w.gguf", vec![0], None, never()).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_changed_since_does_not_lead_there_and_the_rest_does() {
        let content = content(2);
        let (_root, store, id) = store(&content);
        let root = store.file_trees(&id, None, never()).await.unwrap()[0].root;
        let path = store.folder(&id).join("w.gguf");
        let mut bad = content.clone();
        bad[5 * LEAF_BYTES + 9] ^= 1;
        fs::write(&path, &bad).unwrap();
        let shown = store.show_leaves(&id, "w.gguf", vec![5, 70], None, never()).await.unwrap();
        let good = |leaf: &ShownLeaf| is_leaf_of(root, content.len() as u64, leaf);
        assert_eq!(shown.iter().map(good).collect::<Vec<_>>(), [false, true]);
        // Measuring it anew finds it out, and measures nothing.
        let refused = store.file_trees(&id, None, never()).await.unwrap_err();
        assert!(matches!(refused, StoreError::WrongDigest { .. }), "{refused}");
        fs::write(&path, &content[..100]).unwrap();
        let refused = store.show_leaves(&id, "w.gguf", vec![0], None, never()).await.unwrap_err();
        assert!(matches!(refused, StoreError::WrongSize { .. }), "{refused}");
        fs::remove_file(&path).unwrap();
        let refused = store.show_leaves(&id, "w.gguf", vec![0], None, never()).await.unwrap_err();
        assert!(matches!(refused, StoreError::Absent { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_file_is_read_whole_once_and_then_no_more() {
        let content = content(2);
        let (_root, store, id) = store(&content);
        let (path, file) = (store.folder(&id).join("w.gguf"), manifest(&content).files[0].clone());
        store.show_leaves(&id, "w.gguf", vec![0], None, never()).await.unwrap();
        let groups = kept(&path, &file).unwrap();
        // Slower than any test waits: it would have to read it all again.
        let soon = store.show_leaves(&id, "w.gguf", vec![1], Some(1), never());
        tokio::time::timeout(Duration::from_secs(20), soon).await.unwrap().unwrap();
        // What was kept of another file, or is torn, is not used.
        let other = ModelFile { sha256: Digest::of(b"x"), ..file.clone() };
        assert!(kept(&path, &other).is_none());
        let bytes = fs::read(tree_path(&path)).unwrap();
        for end in [0, 20, HEAD_BYTES, bytes.len() - 1] {
            fs::write(tree_path(&path), &bytes[..end]).unwrap();
            assert!(kept(&path, &file).is_none(), "{end}");
        }
        store.show_leaves(&id, "w.gguf", vec![0], None, never()).await.unwrap();
        assert_eq!(kept(&path, &file).unwrap(), groups, "written anew");
    }
}
