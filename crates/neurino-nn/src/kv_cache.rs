//! Keys and values of the tokens seen so far.

use burn::tensor::{DType, Device, Tensor, s};

use crate::NnError;

/// The key-value cache of one sequence: room for a fixed number of tokens, written in place.
///
/// A step appends to every layer and then calls [`KvCache::advance`] once.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    dtype: DType,
    len: usize,
    capacity: usize,
}

/// `[n_kv_heads, capacity, head_dim]` each; `None` while a write is under way, and for good if it
/// failed. Being the only owner is what makes the write happen in place.
#[derive(Debug)]
struct LayerCache {
    keys: Option<Tensor<3>>,
    values: Option<Tensor<3>>,
}

impl KvCache {
    /// Room for `capacity` tokens in each of `n_layers` layers, stored as `dtype`.
    pub fn new(
        n_layers: usize,
        n_kv_heads: usize,
        head_dim: usize,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let empty = || Some(Tensor::zeros([n_kv_heads, capacity, head_dim], (device, dtype)));
        let layers = (0..n_layers).map(|_| LayerCache { keys: empty(), values: empty() }).collect();
        Self { layers, dtype, len: 0, capacity }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens after the first `len`, keeping the memory.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Checks that `count` more tokens fit.
    ///
    /// # Errors
    /// `CacheFull`.
    pub fn check_room(&self, count: usize) -> Result<(), NnError> {
        let needed_tokens = self.len.saturating_add(count);
        if needed_tokens <= self.capacity {
            return Ok(());
        }
        Err(NnError::CacheFull { needed_tokens, capacity_tokens: self.capacity })
    }

    /// Writes the keys and values of `seq` new tokens in `layer`, and returns those of all tokens
    /// including the new ones, as views.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[n_kv_heads, seq, head_dim]`; returns `[n_kv_heads, len + seq, head_dim]`
    ///
    /// # Errors
    /// `CacheFull`; `CacheLost` after a step that failed.
    pub fn append(
        &mut self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> Result<(Tensor<3>, Tensor<3>), NnError> {
        let seq = keys.dims()[1];
        self.check_room(seq)?;
        let cache = self.layers.get_mut(layer).ok_or(NnError::CacheLost)?;
        let (start, end, dtype) = (self.len, self.len + seq, self.dtype);
        let write = |slot: &mut Option<Tensor<3>>, new: Tensor<3>| {
            let all = slot.take().ok_or(NnError::CacheLost)?;
            let all = all.slice_assign(s![.., start..end, ..], new.cast(dtype));
            let view = all.clone().slice(s![.., ..end, ..]);
            *slot = Some(all);
            Ok(view)
        };
        Ok((write(&mut cache.keys, keys)?, write(&mut cache.values, values)?))
    }

    /// Counts `count` tokens that every layer has appended.
    pub fn advance(&mut self, count: usize) {
        self.len += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{download, upload};

    fn cache() -> KvCache {
        KvCache::new(2, 1, 2, 3, DType::F32, &Device::flex())
    }

    fn row(x: f32) -> Tensor<3> {
        upload(vec![x, -x], [1, 1, 2], &Device::flex())
    }

    #[test]
    fn keeps_what_was_appended_in_place() {
        let mut cache = cache();
        drop(cache.append(0, row(1.0), row(2.0)).expect("first"));
        let unique = cache.layers[0].keys.as_ref().is_some_and(Tensor::can_mut);
        assert!(unique, "a shared tensor would be copied at every step");
        cache.advance(1);
        let (keys, values) = cache.append(0, row(3.0), row(4.0)).expect("second");
        assert_eq!(download(keys).expect("keys"), [1.0, -1.0, 3.0, -3.0]);
        assert_eq!(download(values).expect("values"), [2.0, -2.0, 4.0, -4.0]);
    }

    #[test]
    fn refuses_more_than_its_capacity_and_can_be_rewound() {
        let mut cache = cache();
        for i in 0..3u8 {
            cache.append(1, row(f32::from(i)), row(0.0)).expect("fits");
            cache.advance(1);
        }
        let refused = cache.append(1, row(9.0), row(9.0));
        assert!(matches!(
            refused,
            Err(NnError::CacheFull { needed_tokens: 4, capacity_tokens: 3 })
        ));
        cache.truncate(1);
        let (keys, _) = cache.append(1, row(7.0), row(7.0)).expect("fits again");
        assert_eq!(download(keys).expect("keys"), [0.0, 0.0, 7.0, -7.0]);
    }
}
