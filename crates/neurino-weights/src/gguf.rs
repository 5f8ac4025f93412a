//! GGUF versions 2 and 3: typed metadata and tensors in one file, or in the parts of one that was split:
//! `NAME-00001-of-00003.gguf`, the first of which has the metadata.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file::WeightFile;
use crate::tensor::{StoredTensor, TensorData};
use crate::{DType, WeightsError};

mod cursor;
mod value;

use cursor::Cursor;
pub use value::{Array, Value};

/// Dimensions a tensor may have; the format's own limit.
const DIMENSIONS_MAX: u32 = 4;
/// Where data starts unless `general.alignment` says otherwise.
const ALIGNMENT_DEFAULT: u64 = 32;

/// How many parts a file was split into.
const SPLIT_COUNT: &str = "split.count";
/// Parts that a file may have: digits of their number in names.
const PARTS_MAX: u64 = 99_999;

/// A GGUF file with its metadata read and its tensor table validated.
#[derive(Debug)]
pub struct Gguf {
    /// The file, or the first of its parts.
    file: Arc<WeightFile>,
    /// Further parts.
    parts: Vec<Arc<WeightFile>>,
    version: u32,
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, StoredTensor>,
}

impl Gguf {
    /// Opens and validates `path`, with all others if it is a part of a file that was split; reads no
    /// tensor.
    ///
    /// # Errors
    /// `Truncated`, `CorruptHeader`, `UnsupportedVersion`, `Unreadable`, `MissingShard`.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let opened = Self::open_one(path)?;
        let count = opened.uint(SPLIT_COUNT)?.filter(|count| (2..=PARTS_MAX).contains(count));
        match count.and_then(|count| Some((part_names(path, count)?, count))) {
            Some((paths, count)) => Self::open_parts(&paths, count),
            None => Ok(opened),
        }
    }

    /// - `paths`: of all parts, the first one first
    fn open_parts(paths: &[PathBuf], count: u64) -> Result<Self, WeightsError> {
        let absent = paths.iter().find(|path| !path.is_file());
        if let (Some(shard), Some(first)) = (absent, paths.first()) {
            let (shard, index) = (shard.clone(), first.clone());
            return Err(WeightsError::MissingShard { shard, index });
        }
        let mut parts = paths.iter().zip(0..).map(|(path, number)| {
            let part = Self::open_one(path)?;
            let is = |key, value| Ok::<_, WeightsError>(part.uint(key)? == Some(value));
            if !is(SPLIT_COUNT, count)? || !is("split.no", number)? {
                let reason = format!("it is not part {} of {count}", number + 1);
                return Err(WeightsError::CorruptHeader { file: path.clone(), reason });
            }
            Ok(part)
        });
        let first = parts.next().ok_or_else(|| WeightsError::CorruptHeader {
            file: PathBuf::new(),
            reason: "it has no parts".to_owned(),
        })?;
        let mut all = first?;
        for part in parts {
            let part = part?;
            for (name, tensor) in part.tensors {
                if all.tensors.insert(name.clone(), tensor).is_some() {
                    let (file, reason) =
                        (part.file.path().to_owned(), format!("tensor `{name}` is stored twice"));
                    return Err(WeightsError::CorruptHeader { file, reason });
                }
            }
            all.parts.push(part.file);
        }
        Ok(all)
    }

    fn open_one(path: &Path) -> Result<Self, WeightsError> {
        let file = Arc::new(WeightFile::open(path)?);
        let mut cursor = Cursor::new(&file);
        let version = read_magic(&mut cursor)?;
        let n_tensors = cursor.count("tensors", 24)?;
        let n_values = cursor.count("metadata values", 13)?;
        let metadata = read_metadata(&mut cursor, n_values)?;
        let alignment = alignment(&cursor, &metadata)?;
        let tensors = read_tensors(&mut cursor, n_tensors, alignment, &file)?;
        Ok(Self { file, parts: Vec::new(), version, metadata, tensors })
    }

    /// Whether the file at `path` starts as a GGUF file does. Unreadable files do not.
    pub fn is_gguf(path: &Path) -> bool {
        WeightFile::open(path).and_then(|file| file.first(4)).is_ok_and(|magic| magic == b"GGUF")
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The size of the file, or of its largest part.
    pub fn largest_file_bytes(&self) -> u64 {
        let files = std::iter::once(&self.file).chain(&self.parts);
        files.map(|file| file.size_bytes()).max().unwrap_or(0)
    }

    /// Whether it is a part of a file that was split, under a name that does not tell of the others.
    ///
    /// # Errors
    /// `BadMetadata`.
    pub fn is_lone_part(&self) -> Result<bool, WeightsError> {
        Ok(self.parts.is_empty() && self.uint(SPLIT_COUNT)?.is_some_and(|count| count > 1))
    }

    /// The names of all parts of a split file that one called `name` belongs to, the first one first;
    /// `None` if its name is not that of a part.
    pub fn parts_of(name: &str) -> Option<Vec<String>> {
        let count = split_name(name)?.1;
        let names = part_names(Path::new(name), count)?;
        names.into_iter().map(|name| name.into_os_string().into_string().ok()).collect()
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A metadata value, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A text value; `None` if the key is absent.
    ///
    /// # Errors
    /// `BadMetadata` if it has another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.typed(key, "text", Value::as_str)
    }

    /// A whole number that is not negative; `None` if the key is absent.
    ///
    /// # Errors
    /// `BadMetadata` if it has another type.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        self.typed(key, "a whole number", Value::as_u64)
    }

    /// A number; `None` if the key is absent.
    ///
    /// # Errors
    /// `BadMetadata` if it has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// True or false; `None` if the key is absent.
    ///
    /// # Errors
    /// `BadMetadata` if it has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A list of texts; `None` if the key is absent.
    ///
    /// # Errors
    /// `BadMetadata` if it has another type.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, WeightsError> {
        self.typed(key, "a list of texts", Value::as_texts)
    }

    /// The error for a value that must be there and is not.
    pub fn bad_metadata(&self, key: &str, expected: &'static str) -> WeightsError {
        WeightsError::BadMetadata { file: self.path().to_owned(), key: key.to_owned(), expected }
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        self.get(key)
            .map(|value| read(value).ok_or_else(|| self.bad_metadata(key, expected)))
            .transpose()
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Bytes of all readable tensors.
    pub fn weights_bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.size_bytes as u64).sum()
    }

    /// All tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors.values()
    }

    /// Where a tensor lies and what it is; nothing is read.
    ///
    /// # Errors
    /// `TensorAbsent`.
    pub fn stored(&self, name: &str) -> Result<&StoredTensor, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::TensorAbsent {
            file: self.path().to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// Reads one tensor, blocks and all.
    ///
    /// # Errors
    /// `TensorAbsent`, `Changed`, `Unreadable`; `UnsupportedDType` for a format whose size this build
    /// does not know.
    pub fn tensor(&self, name: &str) -> Result<TensorData, WeightsError> {
        self.stored(name)?.read()
    }
}

/// What comes before the numbers in the name of a part, and how many parts there are.
fn split_name(name: &str) -> Option<(&str, u64)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (start, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = Some(count).filter(|text| digits(text))?.parse().ok()?;
    let number: u64 = Some(number).filter(|text| digits(text))?.parse().ok()?;
    (1..=count).contains(&number).then_some((start, count))
}

/// The paths of all `count` parts, of which `path` is one.
fn part_names(path: &Path, count: u64) -> Option<Vec<PathBuf>> {
    let (start, named) = split_name(path.file_name()?.to_str()?)?;
    let name = |number| path.with_file_name(format!("{start}-{number:05}-of-{count:05}.gguf"));
    (named == count).then(|| (1..=count).map(name).collect())
}

fn read_magic(cursor: &mut Cursor<'_>) -> Result<u32, WeightsError> {
    if cursor.take(4)? != b"GGUF" {
        return Err(cursor.corrupt("it does not start as a GGUF file does"));
    }
    match cursor.u32()? {
        version @ (2 | 3) => Ok(version),
        version => {
            Err(WeightsError::UnsupportedVersion { file: cursor.path().to_owned(), version })
        }
    }
}

fn read_metadata(
    cursor: &mut Cursor<'_>,
    count: usize,
) -> Result<HashMap<String, Value>, WeightsError> {
    let mut metadata = HashMap::new();
    for _ in 0..count {
        let key = cursor.string()?;
        let value = Value::read(cursor)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.corrupt(format!("metadata `{key}` is stored twice")));
        }
    }
    Ok(metadata)
}

fn alignment(cursor: &Cursor<'_>, metadata: &HashMap<String, Value>) -> Result<u64, WeightsError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(ALIGNMENT_DEFAULT);
    };
    value
        .as_u64()
        .filter(|alignment| alignment.is_power_of_two() && *alignment <= 1 << 20)
        .ok_or_else(|| cursor.corrupt("its alignment is not a small power of two"))
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    count: usize,
    alignment: u64,
    file: &Arc<WeightFile>,
) -> Result<HashMap<String, StoredTensor>, WeightsError> {
    let mut table = Vec::new();
    for _ in 0..count {
        let name = cursor.string()?;
        let n_dims = cursor.u32()?;
        if n_dims > DIMENSIONS_MAX {
            return Err(cursor.corrupt(format!("tensor `{name}` has {n_dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            let dim = usize::try_from(cursor.u64()?);
            shape.push(dim.map_err(|_| cursor.corrupt(format!("tensor `{name}` is too large")))?);
        }
        shape.reverse();
        let dtype = tensor_type(cursor.u32()?);
        let offset = cursor.u64()?;
        if !offset.is_multiple_of(alignment) {
            return Err(cursor.corrupt(format!("tensor `{name}` is not aligned")));
        }
        table.push((name, dtype, shape, offset));
    }

    let data_start = cursor.position().next_multiple_of(alignment);
    let mut tensors = HashMap::new();
    for (name, dtype, shape, offset) in table {
        let (start, size_bytes) = if dtype.unit().is_none() {
            (0, 0)
        } else {
            let size_bytes = dtype.size_bytes(&shape).ok_or_else(|| {
                cursor
                    .corrupt(format!("tensor `{name}` does not hold whole blocks or is too large"))
            })?;
            (cursor.place(data_start, offset, size_bytes)?, size_bytes)
        };
        let file = Arc::clone(file);
        let tensor = StoredTensor { name: name.clone(), file, dtype, shape, start, size_bytes };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(cursor.corrupt(format!("tensor `{name}` is stored twice")));
        }
    }
    Ok(tensors)
}

/// The numbers are ggml's `ggml_type`.
fn tensor_type(id: u32) -> DType {
    match id {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        30 => DType::BF16,
        9 => DType::Other("Q8_1"),
        10 => DType::Other("Q2_K"),
        11 => DType::Other("Q3_K"),
        15 => DType::Other("Q8_K"),
        16..=23 | 29 => DType::Other("an IQ format"),
        24..=28 => DType::Other("an integer or 64-bit format"),
        34 | 35 => DType::Other("a ternary format"),
        39 => DType::Other("MXFP4"),
        _ => DType::Other("an unknown format"),
    }
}
