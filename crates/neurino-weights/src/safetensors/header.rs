//! The head of a safetensors file: its length, then a JSON table of tensors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::file::WeightFile;
use crate::tensor::StoredTensor;
use crate::{DType, WeightsError};

/// The format's own limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// Longest note that is kept: trainers write whole lists of their pictures' words, and peft's
/// configuration names its layers.
const NOTE_BYTES_MAX: usize = 1 << 18;

/// What the table says about a tensor.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    /// Relative to the end of the header.
    data_offsets: (u64, u64),
}

/// The table, and the exporter's notes; a tensor that occurs twice is an error.
struct Table {
    rows: Vec<(String, Entry)>,
    notes: BTreeMap<String, String>,
}

/// A value in the exporter's notes. The format allows texts by their names alone; whatever else is there
/// says nothing and hurts nobody.
enum Note {
    Text(String),
    Table(BTreeMap<String, String>),
    Other,
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Note;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("notes")
            }

            fn visit_str<E>(self, text: &str) -> Result<Note, E> {
                let short = text.len() <= NOTE_BYTES_MAX;
                Ok(if short { Note::Text(text.to_owned()) } else { Note::Other })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Note, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((name, note)) = map.next_entry::<String, Note>()? {
                    if let Note::Text(text) = note {
                        texts.insert(name, text);
                    }
                }
                Ok(Note::Table(texts))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Note, A::Error> {
                while values.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Note::Other)
            }

            fn visit_unit<E>(self) -> Result<Note, E> {
                Ok(Note::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Note, E> {
                Ok(Note::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Note, E> {
                Ok(Note::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Note, E> {
                Ok(Note::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Note, E> {
                Ok(Note::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let (mut rows, mut notes) = (Vec::new(), BTreeMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if let Note::Table(texts) = map.next_value()? {
                            notes = texts;
                        }
                    } else {
                        rows.push((name, map.next_value()?));
                    }
                }
                rows.sort_by(|(a, _), (b, _)| a.cmp(b));
                match rows.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                    Some(twice) => {
                        Err(A::Error::custom(format!("tensor `{}` is stored twice", twice[0].0)))
                    }
                    None => Ok(Table { rows, notes }),
                }
            }
        }
        deserializer.deserialize_map(Rows)
    }
}

/// What the head of a file says.
pub(super) struct Head {
    pub(super) tensors: Vec<StoredTensor>,
    /// The exporter's notes, as far as they are short texts.
    pub(super) notes: BTreeMap<String, String>,
}

/// Reads and validates the head of `file`.
pub(super) fn read(file: &Arc<WeightFile>) -> Result<Head, WeightsError> {
    let corrupt = |reason: String| WeightsError::CorruptHeader { file: file.path().into(), reason };
    let truncated = |expected_bytes| {
        let (file, size_bytes) = (file.path().to_owned(), file.size_bytes());
        WeightsError::Truncated { file, size_bytes, expected_bytes }
    };
    let first = file.first(LENGTH_BYTES as usize + 1)?;
    let Some(length) = first.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else {
        return Err(truncated(LENGTH_BYTES));
    };
    if length > HEADER_BYTES_MAX || first.get(8).is_some_and(|&letter| letter != b'{') {
        return Err(corrupt("it does not start as a safetensors file does".to_owned()));
    }
    let data = LENGTH_BYTES + length;
    if data > file.size_bytes() {
        return Err(truncated(data));
    }
    let mut header = vec![0; length as usize];
    file.read_at(LENGTH_BYTES, &mut header)?;
    let Table { mut rows, notes } =
        serde_json::from_slice(&header).map_err(|e| corrupt(e.to_string()))?;

    // Tensors follow each other without holes, to the end of the file.
    rows.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut next = 0;
    let mut tensors = Vec::with_capacity(rows.len());
    for (name, entry) in rows {
        let (start, end) = entry.data_offsets;
        if start != next || end < start {
            return Err(corrupt(format!("tensor `{name}` does not follow the one before it")));
        }
        next = end;
        tensors.push(stored(file, name, entry, data).map_err(corrupt)?);
    }
    match data.checked_add(next) {
        Some(end) if end == file.size_bytes() => Ok(Head { tensors, notes }),
        Some(end) if end > file.size_bytes() => Err(truncated(end)),
        Some(_) => Err(corrupt("it is longer than its header says".to_owned())),
        None => Err(corrupt("its tensors are larger than any file".to_owned())),
    }
}

fn stored(
    file: &Arc<WeightFile>,
    name: String,
    entry: Entry,
    data: u64,
) -> Result<StoredTensor, String> {
    let (start, end) = entry.data_offsets;
    let outside = || format!("tensor `{name}` is larger than any file");
    let size_bytes = usize::try_from(end - start).map_err(|_| outside())?;
    let start = data.checked_add(start).ok_or_else(outside)?;
    let dtype = match entry.dtype.as_str() {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "U8" => DType::U8,
        "F64" => DType::F64,
        "I8" => DType::Other("I8"),
        "BOOL" => DType::Other("BOOL"),
        "F8_E4M3" | "F8_E5M2" => DType::Other("FP8"),
        _ => DType::Other("an unknown format"),
    };
    if dtype.unit().is_some() && dtype.size_bytes(&entry.shape) != Some(size_bytes) {
        return Err(format!("tensor `{name}` has a size that is not its shape's"));
    }
    Ok(StoredTensor { name, file: Arc::clone(file), dtype, shape: entry.shape, start, size_bytes })
}
