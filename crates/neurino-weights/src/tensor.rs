//! Stored tensors: where they lie, their bytes once read, and a view of those bytes.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::file::WeightFile;
use crate::{DType, WeightsError};

/// Weights that one task of a parallel conversion takes, a multiple of every block.
const PIECE_WEIGHTS: usize = 1 << 16;

/// Where a tensor lies and what it is; its bytes are not read yet.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    pub(crate) name: String,
    pub(crate) file: Arc<WeightFile>,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// First byte in the file; with `size_bytes` validated against the file's size.
    pub(crate) start: u64,
    pub(crate) size_bytes: usize,
}

impl StoredTensor {
    /// The checkpoint's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// The number format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first: a matrix that maps `in` to `out` is `[out, in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Stored bytes; 0 for a format whose size this build does not know.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Passes the tensor on if it has the dimensions that the model needs.
    ///
    /// # Errors
    /// `WrongShape`.
    pub fn with_shape(self, expected: &[usize]) -> Result<Self, WeightsError> {
        check_shape(self.file(), &self.name, &self.shape, expected)?;
        Ok(self)
    }

    /// Part `index` along the outermost dimension, as a tensor with one dimension less: one expert
    /// of a merged tensor. `None` if there is no such part, or nothing in it: of those a few bytes
    /// could claim any number.
    pub fn part(&self, index: usize) -> Option<Self> {
        let (&count, inner) = self.shape.split_first()?;
        let size_bytes = self.dtype.size_bytes(inner)?;
        if index >= count || inner.is_empty() || size_bytes == 0 {
            return None;
        }
        Some(Self {
            name: format!("{}[{index}]", self.name),
            file: Arc::clone(&self.file),
            dtype: self.dtype,
            shape: inner.to_vec(),
            start: self.start + (index as u64) * (size_bytes as u64),
            size_bytes,
        })
    }

    /// Reads the tensor, or takes it from whoever has read it ahead ([`crate::prefetch::Prefetch::serving`]).
    ///
    /// # Errors
    /// `Changed`, `Unreadable`; `UnsupportedDType` for a format whose size this build does not know.
    pub fn read(&self) -> Result<TensorData, WeightsError> {
        if let Some(ahead) = self.file.ahead() {
            return Ok(TensorData { tensor: self.clone(), bytes: ahead.fetch(self)?.into_vec() });
        }
        let mut bytes = vec![0; self.size_bytes];
        self.read_into(&mut bytes)?;
        Ok(TensorData { tensor: self.clone(), bytes })
    }

    /// Reads the tensor into `out`, which is as long as the tensor.
    pub(crate) fn read_into(&self, out: &mut [u8]) -> Result<(), WeightsError> {
        if let DType::Other(name) = self.dtype {
            return Err(self.unsupported(name));
        }
        self.file.read_at(self.start, out)
    }

    /// Whether it is the same place of the same file.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && (self.start, self.size_bytes) == (other.start, other.size_bytes)
    }

    /// A view of `bytes`, which were read from this tensor.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> TensorView<'a> {
        let (name, file) = (self.name(), self.file());
        TensorView { name, file, dtype: self.dtype, shape: &self.shape, bytes }
    }

    /// The error for a number format that the caller cannot use.
    pub fn unsupported(&self, dtype: &str) -> WeightsError {
        WeightsError::UnsupportedDType {
            file: self.file().to_owned(),
            tensor: self.name.clone(),
            dtype: dtype.to_owned(),
        }
    }

    /// The error for a tensor whose values make no sense.
    pub fn damaged(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::BadTensor {
            file: self.file().to_owned(),
            tensor: self.name.clone(),
            reason: reason.into(),
        }
    }
}

/// A tensor with its bytes.
#[derive(Debug, Clone)]
pub struct TensorData {
    tensor: StoredTensor,
    bytes: Vec<u8>,
}

impl TensorData {
    /// Where it came from.
    pub fn tensor(&self) -> &StoredTensor {
        &self.tensor
    }

    /// The raw bytes, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A view of all of it.
    pub fn view(&self) -> TensorView<'_> {
        self.tensor.view(&self.bytes)
    }

    /// The weights as f32, row after row.
    ///
    /// # Errors
    /// `UnsupportedDType`.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        self.view().to_f32()
    }
}

/// One tensor's bytes with their meaning.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The checkpoint's name.
    pub name: &'a str,
    /// The file that holds it.
    pub file: &'a Path,
    /// The number format.
    pub dtype: DType,
    /// Dimensions, outermost first: a matrix that maps `in` to `out` is `[out, in]`.
    pub shape: &'a [usize],
    /// The stored bytes; their length is exactly what `dtype` and `shape` ask for.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// How many weights the tensor holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor holds no weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes the view on if it has the dimensions that the model needs.
    ///
    /// # Errors
    /// `WrongShape`.
    pub fn with_shape(self, expected: &[usize]) -> Result<Self, WeightsError> {
        check_shape(self.file, self.name, self.shape, expected)?;
        Ok(self)
    }

    /// The weights as f32, row after row; large tensors on all cores.
    ///
    /// # Errors
    /// `UnsupportedDType`.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        let Some((weights, bytes)) = self.dtype.unit().filter(|_| self.dtype.is_float()) else {
            return Err(self.unsupported(self.dtype.name()));
        };
        let mut out = vec![0.0; self.len()];
        let piece_bytes = PIECE_WEIGHTS / weights * bytes;
        out.par_chunks_mut(PIECE_WEIGHTS)
            .zip(self.bytes.par_chunks(piece_bytes))
            .for_each(|(out, bytes)| self.dtype.dequantize(bytes, out));
        Ok(out)
    }

    /// The error for a number format that the caller cannot use.
    pub fn unsupported(&self, dtype: &str) -> WeightsError {
        WeightsError::UnsupportedDType {
            file: self.file.to_owned(),
            tensor: self.name.to_owned(),
            dtype: dtype.to_owned(),
        }
    }
}

fn check_shape(
    file: &Path,
    tensor: &str,
    found: &[usize],
    expected: &[usize],
) -> Result<(), WeightsError> {
    if found == expected {
        return Ok(());
    }
    Err(WeightsError::WrongShape {
        file: file.to_owned(),
        tensor: tensor.to_owned(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}
