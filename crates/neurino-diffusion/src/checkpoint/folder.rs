//! Components of a diffusers or Hugging Face folder: the tensors have the names we ask for.

use std::path::Path;
use std::sync::Arc;

use neurino_weights::hqq::{self, HqqMatrix};
use neurino_weights::nf4::{self, Nf4Matrix};
use neurino_weights::{Safetensors, WeightsError};

use super::{Tensors, Weight, same_shape};
use crate::DiffusionError;

/// The weights of one component: one safetensors file, or shards with their index.
#[derive(Debug)]
pub struct FolderTensors {
    file: Safetensors,
}

impl FolderTensors {
    /// Opens the weights in a component's folder; reads headers only.
    ///
    /// # Errors
    /// `Weights` if there are none or they are damaged.
    pub fn open(folder: &Path) -> Result<Self, DiffusionError> {
        Ok(Self { file: Safetensors::open_folder(folder)? })
    }

    /// Opens one file.
    ///
    /// # Errors
    /// As [`FolderTensors::open`].
    pub fn open_file(path: &Path) -> Result<Self, DiffusionError> {
        Ok(Self { file: Safetensors::open_file(path)? })
    }

    /// Bytes of all weights.
    pub fn weights_bytes(&self) -> u64 {
        self.file.weights_bytes()
    }

    /// The file itself.
    pub fn file(&self) -> &Safetensors {
        &self.file
    }
}

impl Tensors for FolderTensors {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        if nf4::is_nf4(&self.file, name) {
            return nf4::shape(&self.file, name).ok();
        }
        if let Ok(stored) = self.file.stored(name) {
            return Some(stored.shape().to_vec());
        }
        hqq::shape(&self.file, hqq_name(name)).ok().map(Vec::from)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let check = |found: &[usize]| same_shape(self.file.path(), name, found, shape);
        if nf4::is_nf4(&self.file, name) {
            let matrix = Nf4Matrix::read(&self.file, name)?;
            check(&matrix.shape)?;
            return Ok(Weight::Nf4(Arc::new(matrix)));
        }
        match self.file.stored(name) {
            Ok(stored) => {
                check(stored.shape())?;
                let bytes = stored.read()?.into_bytes();
                Ok(Weight::plain(stored.dtype(), bytes))
            }
            Err(WeightsError::TensorAbsent { .. }) if hqq::is_hqq(&self.file, hqq_name(name)) => {
                let matrix = HqqMatrix::read(&self.file, hqq_name(name))?;
                check(&matrix.shape)?;
                Ok(Weight::Hqq(Arc::new(matrix)))
            }
            Err(absent) => Err(absent.into()),
        }
    }
}

/// HQQ names its tensors after the layer, not after its weight.
fn hqq_name(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}
