//! A view of one stored tensor.

use std::path::Path;

use crate::{DType, WeightsError};

/// One tensor inside a mapped file.
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
        if self.shape == expected {
            return Ok(self);
        }
        Err(WeightsError::WrongShape {
            file: self.file.to_owned(),
            tensor: self.name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.to_vec(),
        })
    }

    /// The weights as f32, row after row.
    ///
    /// # Errors
    /// `UnsupportedDType`.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        if let DType::Other(name) = self.dtype {
            return Err(self.unsupported(name));
        }
        let mut out = Vec::with_capacity(self.len());
        self.dtype.append_f32(self.bytes, &mut out);
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
