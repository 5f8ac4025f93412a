//! The paged key-value cache: keys and values of many texts in blocks of one pool.
//!
//! A *step* takes new tokens of several sequences at once, as rows one below the other. What belongs
//! to whom is said by a [`BatchLayout`]. Each layer rotates its queries and keys, writes keys and
//! values to their slots ([`PagedKvCache::append`]) and attends ([`PagedKvCache::attend`]).
//!
//! One rule binds every [`KvStore`]: what comes out for a row depends, to the last bit, on that row
//! and the keys it sees alone: not on the other rows, nor on how the prompt was cut into steps.
//! ([`TensorKv`], the oracle, keeps it only up to rounding.)
//!
//! Source: Kwon et al. 2023 (paged attention); Yu et al. 2022 (batches of unequal sequences).

mod cpu_attention;
mod cpu_kv;
mod layout;
mod tensor_kv;
#[cfg(test)]
mod tests;

use std::fmt::Debug;

use burn::tensor::{DType, Device, Tensor};

use crate::NnError;
use crate::device::is_cpu;
use crate::rotary::RotaryTables;

use cpu_kv::CpuKv;
pub use layout::{BLOCK_TOKENS, BatchLayout, SequenceSpan};
pub use tensor_kv::TensorKv;

/// The size of the keys and values that one store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub n_layers: usize,
    /// Key-value heads of a layer.
    pub n_kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Blocks of [`BLOCK_TOKENS`] tokens.
    pub n_blocks: usize,
    /// How they are kept.
    pub dtype: DType,
}

impl KvShape {
    /// Memory of one block in all layers.
    pub fn block_bytes(&self) -> u64 {
        let values = 2 * self.n_layers * self.n_kv_heads * self.head_dim * BLOCK_TOKENS;
        (values * self.dtype.size()) as u64
    }
}

/// Keeps keys and values of some layers on one device.
pub trait KvStore: Debug + Send {
    /// Starts a step: what is written and attended until the next call belongs to `batch`, which
    /// was checked against the number of blocks.
    ///
    /// # Errors
    /// `Device`.
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError>;

    /// Writes the rows' keys and values to their slots.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[rows, n_kv_heads, head_dim]`, f32
    ///
    /// # Errors
    /// `Device`; `CacheLost` after a step that failed.
    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError>;

    /// As [`KvStore::write`] for queries and keys that are not rotated yet; returns the rotated
    /// queries. A device may have one kernel for all of it.
    ///
    /// # Shapes
    /// - `queries`: `[rows, n_heads, head_dim]`, f32; returns the same
    ///
    /// # Errors
    /// As [`KvStore::write`].
    fn rotate_and_write(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        let queries = rotations.apply(queries);
        self.write(layer, rotations.apply(keys), values)?;
        Ok(queries)
    }

    /// Softmax(q kᵀ / sqrt(head_dim)) v of each row over the keys of its sequence up to its own
    /// position; with a `window`, over the last so many of them.
    ///
    /// # Shapes
    /// - `queries`: `[rows, n_heads, head_dim]`, f32, where `n_kv_heads` divides `n_heads`; returns
    ///   the same
    ///
    /// # Errors
    /// `Device`; `CacheLost` after a step that failed.
    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError>;

    /// Copies whole blocks, `(from, to)`, in all layers.
    ///
    /// # Errors
    /// `Device`; `CacheLost` after a step that failed.
    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError>;
}

/// The best store on `device`.
pub fn store_on(device: &Device, shape: &KvShape) -> Box<dyn KvStore> {
    if is_cpu(device) {
        match shape.dtype {
            DType::F32 => return Box::new(CpuKv::<f32>::new(shape, device)),
            DType::F16 => return Box::new(CpuKv::<u16>::new(shape, device)),
            _ => {}
        }
    }
    #[cfg(feature = "kernels")]
    if !crate::device::is_cpu(device)
        && let Some(store) = crate::cuda::CudaKv::new(shape, device)
    {
        return Box::new(store);
    }
    Box::new(TensorKv::new(shape, device))
}

/// Keys and values of all layers of a model, which may lie on several devices.
#[derive(Debug)]
pub struct PagedKvCache {
    /// Runs of layers, in order, each with its first layer.
    stores: Vec<(usize, Box<dyn KvStore>)>,
    n_blocks: usize,
    block_bytes: u64,
}

impl PagedKvCache {
    /// A cache over `stores`, in the order of their layers, each with its shape. All have the same
    /// number of blocks.
    pub fn new(stores: Vec<(KvShape, Box<dyn KvStore>)>) -> Self {
        let n_blocks = stores.iter().map(|(shape, _)| shape.n_blocks).min().unwrap_or(0);
        let block_bytes = stores.iter().map(|(shape, _)| shape.block_bytes()).sum();
        let mut first = 0;
        let numbered = stores.into_iter().map(|(shape, store)| {
            let numbered = (first, store);
            first += shape.n_layers;
            numbered
        });
        Self { stores: numbered.collect(), n_blocks, block_bytes }
    }

    /// Blocks of [`BLOCK_TOKENS`] tokens.
    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    /// Memory of all blocks.
    pub fn size_bytes(&self) -> u64 {
        self.block_bytes * self.n_blocks as u64
    }

    /// Starts a step.
    ///
    /// # Errors
    /// `BadBatch` if the layout does not fit the cache; `Device`.
    pub fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        batch.check(self.n_blocks)?;
        self.stores.iter_mut().try_for_each(|(_, store)| store.begin(batch))
    }

    /// Rotates queries and keys, writes keys and values, and returns the rotated queries; see
    /// [`KvStore::rotate_and_write`].
    ///
    /// # Errors
    /// `Device`; `CacheLost` after a step that failed.
    pub fn append(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        let index = self.store_of(layer)?;
        let (first, store) = &mut self.stores[index];
        store.rotate_and_write(layer - *first, queries, keys, values, rotations)
    }

    /// Attends over what was written; see [`KvStore::attend`].
    ///
    /// # Errors
    /// `Device`; `CacheLost` after a step that failed.
    pub fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        let (first, store) = &self.stores[self.store_of(layer)?];
        store.attend(layer - first, queries, window)
    }

    /// Copies whole blocks, `(from, to)`, in all layers.
    ///
    /// # Errors
    /// `BadBatch` for a block that is not there; `Device`.
    pub fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        let n_blocks = self.n_blocks;
        if pairs.iter().any(|&(from, to)| from.max(to) as usize >= n_blocks) {
            return Err(NnError::BadBatch { reason: "a block to copy is not in the cache" });
        }
        self.stores.iter_mut().try_for_each(|(_, store)| store.copy_blocks(pairs))
    }

    fn store_of(&self, layer: usize) -> Result<usize, NnError> {
        self.stores.iter().rposition(|(first, _)| *first <= layer).ok_or(NnError::CacheLost)
    }
}
