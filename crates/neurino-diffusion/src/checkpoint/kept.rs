//! Tensors that stay in host memory once they were read, for components that come to the device again and
//! again: their files are read once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Tensors, Weight};
use crate::DiffusionError;

/// What was read of some components, up to a limit.
#[derive(Debug)]
pub struct KeptTensors {
    limit_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held_bytes: u64,
    /// By component and name.
    weights: HashMap<(&'static str, String), (Vec<usize>, Weight)>,
}

impl KeptTensors {
    /// Keeps nothing yet, and never more than `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, state: Mutex::default() }
    }

    /// Host memory of what is kept, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.state().held_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tensors of a component, of which those that are kept are not read again.
pub(crate) struct Kept<'a> {
    pub(crate) tensors: &'a dyn Tensors,
    /// Names the component among those that are kept together.
    pub(crate) component: &'static str,
    pub(crate) among: Option<&'a KeptTensors>,
}

impl Tensors for Kept<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.shape(name)
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Weight, DiffusionError> {
        let Some(kept) = self.among else { return self.tensors.read(name, shape) };
        let key = (self.component, name.to_owned());
        if let Some((of_shape, weight)) = kept.state().weights.get(&key)
            && of_shape == shape
        {
            return Ok(weight.clone());
        }
        let weight = match self.tensors.read(name, shape)? {
            Weight::Plain { dtype, bytes } => Weight::Plain { dtype, bytes: bytes.shared() },
            packed => packed,
        };
        let mut state = kept.state();
        let held_bytes = state.held_bytes + weight.size_bytes() as u64;
        if held_bytes <= kept.limit_bytes
            && state.weights.insert(key, (shape.to_vec(), weight.clone())).is_none()
        {
            state.held_bytes = held_bytes;
        }
        Ok(weight)
    }
}
