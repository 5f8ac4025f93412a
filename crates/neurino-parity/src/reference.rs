//! The files of a folder of cases.

use std::path::{Path, PathBuf};

use neurino_weights::{DType, Safetensors, WeightsError};
use safetensors::SafeTensors;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize as _, Deserializer};

/// Why a file of cases cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is not the JSON that it should be.
    #[error("{} does not hold the cases it should", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// Its tensors cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tensor is stored in another format than it should be.
    #[error("`{tensor}` in {} is stored as {found}", file.display())]
    WrongType { file: PathBuf, tensor: String, found: &'static str },
}

/// Reads a JSON file.
pub(crate) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ReferenceError> {
    let bytes = std::fs::read(path)
        .map_err(|source| ReferenceError::Unreadable { path: path.to_owned(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|source| ReferenceError::Malformed { path: path.to_owned(), source })
}

/// A seed as PyTorch takes it: a negative one stands for the number of the same 64 bits.
pub(crate) fn seed<'de, D: Deserializer<'de>>(json: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(json)?;
    let seed = number.as_u64().or(number.as_i64().map(i64::cast_unsigned));
    seed.ok_or_else(|| D::Error::custom(format!("{number} is no seed of 64 bits")))
}

/// Names of the folders in a folder, sorted.
pub(crate) fn folders(path: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> =
        folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Tensors that the reference computed.
#[derive(Debug)]
pub(crate) struct Tensors(Safetensors);

impl Tensors {
    pub(crate) fn open(path: &Path) -> Result<Self, ReferenceError> {
        Ok(Self(Safetensors::open_file(path)?))
    }

    /// The file itself, for readers of quantised forms.
    pub(crate) fn file(&self) -> &Safetensors {
        &self.0
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.stored(name).is_ok()
    }

    /// Numbers of any float type.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>, ReferenceError> {
        if self.0.stored(name)?.dtype().name() == "F64" {
            return self.doubles(name);
        }
        Ok(self.0.tensor(name)?.to_f32()?)
    }

    /// Numbers of 64 bits, in which models are not stored.
    fn doubles(&self, name: &str) -> Result<Vec<f32>, ReferenceError> {
        let path = self.0.path();
        let unreadable = |source| ReferenceError::Unreadable { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(&bytes);
        let tensor = tensors.as_ref().ok().and_then(|tensors| tensors.tensor(name).ok());
        let wrong = || ReferenceError::WrongType {
            file: path.to_owned(),
            tensor: name.to_owned(),
            found: "F64, but damaged",
        };
        let values = tensor.ok_or_else(wrong)?.data().as_chunks().0.iter();
        Ok(values.map(|&bytes| f64::from_le_bytes(bytes) as f32).collect())
    }

    /// Token ids.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<u32>, ReferenceError> {
        let data = self.0.tensor(name)?;
        let wrong = || ReferenceError::WrongType {
            file: self.0.path().to_owned(),
            tensor: name.to_owned(),
            found: data.tensor().dtype().name(),
        };
        let id = |id: i64| u32::try_from(id).map_err(|_| wrong());
        match data.tensor().dtype() {
            DType::I64 => {
                data.bytes().as_chunks().0.iter().map(|&x| id(i64::from_le_bytes(x))).collect()
            }
            DType::I32 => data
                .bytes()
                .as_chunks()
                .0
                .iter()
                .map(|&x| id(i64::from(i32::from_le_bytes(x))))
                .collect(),
            _ => Err(wrong()),
        }
    }
}
