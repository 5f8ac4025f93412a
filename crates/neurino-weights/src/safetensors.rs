//! Safetensors: `model.safetensors`, or shards named by `model.safetensors.index.json`; diffusers says
//! `diffusion_pytorch_model` instead of `model`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::WeightsError;
use crate::file::WeightFile;
use crate::tensor::{StoredTensor, TensorData};

mod header;

/// Names of a folder's weights, the first that is there counts: all of it before variants in 16 bits.
const USUAL: [&str; 6] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
];

/// The tensors of one checkpoint, over one or several files.
#[derive(Debug)]
pub struct Safetensors {
    /// What was opened: a file or a folder; errors name it.
    path: PathBuf,
    /// The files, in the order of their names.
    files: Vec<Arc<WeightFile>>,
    tensors: HashMap<String, StoredTensor>,
    /// What exporters noted in the files' heads.
    notes: BTreeMap<String, String>,
}

/// `model.safetensors.index.json`; other keys are the exporter's notes.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn is_index(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".safetensors.index.json")
}

impl Safetensors {
    /// Opens the checkpoint in `folder`: its index with all shards, or its single file.
    ///
    /// # Errors
    /// `NoWeights`, `MissingShard`, `Truncated`, `CorruptHeader`, `TensorAbsent` (named by the index
    /// but in no shard), `Unreadable`.
    pub fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        match Self::in_folder(folder) {
            Some(index) if is_index(&index) => Self::open_shards(folder, &index),
            Some(single) => Self::open_file(&single),
            None => Err(WeightsError::NoWeights { folder: folder.to_owned() }),
        }
    }

    /// The index or the single file of the checkpoint in `folder`, by its name; the names that diffusers
    /// and AutoGPTQ use count too.
    pub fn in_folder(folder: &Path) -> Option<PathBuf> {
        let usual = USUAL.map(|name| folder.join(name));
        if let Some(path) = usual.into_iter().find(|path| path.is_file()) {
            return Some(path);
        }
        let entries = std::fs::read_dir(folder).ok()?.flatten();
        let named = entries.map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let ours = is_index(path) || name.ends_with(".safetensors");
            name.starts_with("gptq_model") && ours && !name.contains("-of-")
        });
        // The index, if there is one, is the longer name.
        named.max_by_key(|path| (is_index(path), path.clone()))
    }

    /// Opens one file.
    ///
    /// # Errors
    /// `Truncated`, `CorruptHeader`, `Unreadable`.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut all = Self::empty(path);
        all.add_shard(path)?;
        Ok(all)
    }

    fn empty(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path, files: Vec::new(), tensors: HashMap::new(), notes: BTreeMap::new() }
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let corrupt = |reason| WeightsError::CorruptHeader { file: index.to_owned(), reason };
        let text = std::fs::read(index)
            .map_err(|source| WeightsError::Unreadable { file: index.to_owned(), source })?;
        let map: Index = serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))?;
        let mut names: Vec<&str> = map.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();

        let mut all = Self::empty(folder);
        for name in names {
            // A shard is a plain file name: an index must not reach outside its folder.
            if Path::new(name).file_name() != Some(name.as_ref()) || name.contains('\\') {
                return Err(corrupt(format!("shard name {name:?} is not a plain file name")));
            }
            let shard = folder.join(name);
            if !shard.is_file() {
                return Err(WeightsError::MissingShard { shard, index: index.to_owned() });
            }
            all.add_shard(&shard)?;
        }
        for tensor in map.weight_map.keys() {
            all.stored(tensor)?;
        }
        Ok(all)
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), WeightsError> {
        let file = Arc::new(WeightFile::open(path)?);
        let head = header::read(&file)?;
        self.notes.extend(head.notes);
        for tensor in head.tensors {
            if let Some(twice) = self.tensors.insert(tensor.name.clone(), tensor) {
                return Err(WeightsError::CorruptHeader {
                    file: path.to_owned(),
                    reason: format!("tensor `{}` is stored twice", twice.name),
                });
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &WeightFile> {
        self.files.iter().map(AsRef::as_ref)
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors.values()
    }

    /// A short text of the file's `__metadata__`, if its exporter noted one under `key`.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn weights_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.size_bytes as u64).sum()
    }

    /// The size of the largest file.
    pub fn largest_shard_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes()).max().unwrap_or(0)
    }

    /// Where a tensor lies and what it is; nothing is read.
    ///
    /// # Errors
    /// `TensorAbsent`.
    pub fn stored(&self, name: &str) -> Result<&StoredTensor, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::TensorAbsent {
            file: self.path.clone(),
            tensor: name.to_owned(),
        })
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// `TensorAbsent`, `Changed`, `Unreadable`; `UnsupportedDType` for a format whose size this build
    /// does not know.
    pub fn tensor(&self, name: &str) -> Result<TensorData, WeightsError> {
        self.stored(name)?.read()
    }
}
