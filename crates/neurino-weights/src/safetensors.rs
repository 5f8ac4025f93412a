//! Safetensors: `model.safetensors`, or shards named by `model.safetensors.index.json`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use crate::file::MappedFile;
use crate::{DType, TensorView, WeightsError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of one checkpoint, over one or several mapped files.
#[derive(Debug)]
pub struct Safetensors {
    /// What was opened: a file or a folder; errors name it.
    path: PathBuf,
    shards: Vec<MappedFile>,
    tensors: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// Range in the shard's bytes; validated when the shard was opened.
    start: usize,
    end: usize,
}

/// `model.safetensors.index.json`; other keys are the exporter's notes.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Safetensors {
    /// Opens the checkpoint in `folder`: its index with all shards, or its single file.
    ///
    /// # Errors
    /// `NoWeights`, `MissingShard`, `Truncated`, `CorruptHeader`, `TensorAbsent` (named by the index
    /// but in no shard), `Unreadable`.
    pub fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        let index = folder.join(INDEX);
        if index.is_file() {
            return Self::open_shards(folder, &index);
        }
        let single = folder.join(SINGLE);
        if single.is_file() {
            return Self::open_file(&single);
        }
        Err(WeightsError::NoWeights { folder: folder.to_owned() })
    }

    /// Opens one file.
    ///
    /// # Errors
    /// `Truncated`, `CorruptHeader`, `Unreadable`.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut all = Self { path: path.to_owned(), shards: Vec::new(), tensors: HashMap::new() };
        all.add_shard(path)?;
        Ok(all)
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let corrupt = |reason| WeightsError::CorruptHeader { file: index.to_owned(), reason };
        let text = std::fs::read(index)
            .map_err(|source| WeightsError::Unreadable { file: index.to_owned(), source })?;
        let map: Index = serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))?;
        let mut names: Vec<&str> = map.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();

        let mut all = Self { path: folder.to_owned(), shards: Vec::new(), tensors: HashMap::new() };
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
            all.tensor(tensor)?;
        }
        Ok(all)
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), WeightsError> {
        let file = MappedFile::open(path)?;
        let shard = self.shards.len();
        for (name, entry) in read_header(&file, shard)? {
            if self.tensors.contains_key(&name) {
                return Err(WeightsError::CorruptHeader {
                    file: path.to_owned(),
                    reason: format!("tensor `{name}` is stored twice"),
                });
            }
            self.tensors.insert(name, entry);
        }
        self.shards.push(file);
        Ok(())
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn weights_bytes(&self) -> u64 {
        self.tensors.values().map(|entry| (entry.end - entry.start) as u64).sum()
    }

    /// One tensor.
    ///
    /// # Errors
    /// `TensorAbsent`.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        let (name, entry) = self.tensors.get_key_value(name).ok_or_else(|| {
            WeightsError::TensorAbsent { file: self.path.clone(), tensor: name.to_owned() }
        })?;
        let file = &self.shards[entry.shard];
        Ok(TensorView {
            name,
            file: file.path(),
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &file.bytes()[entry.start..entry.end],
        })
    }
}

fn read_header(file: &MappedFile, shard: usize) -> Result<Vec<(String, Entry)>, WeightsError> {
    let bytes = file.bytes();
    let corrupt =
        |reason: String| WeightsError::CorruptHeader { file: file.path().to_owned(), reason };
    let (header, metadata) = match SafeTensors::read_metadata(bytes) {
        Ok(read) => read,
        Err(error) => return Err(header_error(file, &error)),
    };
    let data = header + 8;
    let mut entries = Vec::new();
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let range = data.checked_add(start).zip(data.checked_add(end));
        let Some((start, end)) = range.filter(|&(start, end)| start <= end && end <= bytes.len())
        else {
            return Err(corrupt(format!("tensor `{name}` lies outside the file")));
        };
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::Other("F64"),
            Dtype::I64 => DType::Other("I64"),
            Dtype::I32 => DType::Other("I32"),
            Dtype::U8 => DType::Other("U8"),
            Dtype::I8 => DType::Other("I8"),
            Dtype::BOOL => DType::Other("BOOL"),
            _ => DType::Other("an integer or 8-bit format"),
        };
        if dtype.unit().is_some() && dtype.size_bytes(&info.shape) != Some(end - start) {
            return Err(corrupt(format!("tensor `{name}` has a size that is not its shape's")));
        }
        entries.push((name, Entry { shard, dtype, shape: info.shape.clone(), start, end }));
    }
    Ok(entries)
}

/// A file that is shorter than its readable header says was cut off; anything else is damage.
fn header_error(file: &MappedFile, error: &SafeTensorError) -> WeightsError {
    let bytes = file.bytes();
    let path = file.path().to_owned();
    let size_bytes = bytes.len() as u64;
    let truncated =
        |expected_bytes| WeightsError::Truncated { file: path.clone(), size_bytes, expected_bytes };
    match error {
        SafeTensorError::HeaderTooSmall => truncated(8),
        SafeTensorError::MetadataIncompleteBuffer => match announced_bytes(bytes) {
            Some(expected_bytes) if expected_bytes > size_bytes => truncated(expected_bytes),
            _ => WeightsError::CorruptHeader {
                file: path,
                reason: "the file is longer than its header says".to_owned(),
            },
        },
        other => WeightsError::CorruptHeader { file: path, reason: other.to_string() },
    }
}

/// The file size that a well-formed header announces.
fn announced_bytes(bytes: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Tensor {
        data_offsets: (u64, u64),
    }
    let header = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let end = usize::try_from(header).ok()?.checked_add(8)?;
    let map: HashMap<String, serde_json::Value> =
        serde_json::from_slice(bytes.get(8..end)?).ok()?;
    let last = map
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .filter_map(|(_, value)| serde_json::from_value::<Tensor>(value).ok())
        .map(|tensor| tensor.data_offsets.1)
        .max()?;
    last.checked_add(header)?.checked_add(8)
}
