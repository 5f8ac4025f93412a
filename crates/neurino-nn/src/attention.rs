//! Attention: of texts, in which several query heads share one key-value head, and [`full`], of pictures
//! and prompts.

use burn::tensor::{DType, Device, Tensor, activation};

use crate::device::{in_memory, is_cpu, upload};
use crate::simd::Isa;

mod card;
mod tiles;

use tiles::{Seen, attend};

/// The mask of one sequence in a step, shared by all layers.
#[derive(Debug, Clone)]
pub struct CausalMask(Option<Tensor<4>>);

impl CausalMask {
    /// The mask for `seq` queries at the positions `start ..`, over the keys `0 .. start + seq`:
    /// the query at `p` sees the keys up to `p`, with a `window` only the last so many of them.
    pub fn new(start: usize, seq: usize, window: Option<usize>, device: &Device) -> Self {
        let keys = start + seq;
        let first_seen = |position: usize| window.map_or(0, |w| (position + 1).saturating_sub(w));
        if seq == 1 && first_seen(start) == 0 {
            return Self(None);
        }
        let mut values = vec![0.0; seq * keys];
        for (query, row) in values.chunks_exact_mut(keys).enumerate() {
            row[start + query + 1..].fill(f32::NEG_INFINITY);
            row[..first_seen(start + query)].fill(f32::NEG_INFINITY);
        }
        Self(Some(upload(values, [1, 1, seq, keys], device)))
    }
}

/// Softmax(q kᵀ / sqrt(head_dim)) v with a causal mask; the softmax is in f32.
///
/// Queries are grouped by the key-value head they share, so keys and values are never repeated.
///
/// # Shapes
/// - `queries`: `[n_heads, seq, head_dim]`, f32; returns the same
/// - `keys`, `values`: `[n_kv_heads, len, head_dim]`, where `n_kv_heads` divides `n_heads`
///
/// Source: Ainslie et al. 2023 (grouped queries).
pub fn grouped_query_attention(
    queries: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    mask: &CausalMask,
) -> Tensor<3> {
    let [n_heads, seq, head_dim] = queries.dims();
    let [n_kv_heads, len, _] = keys.dims();
    let group = n_heads / n_kv_heads;
    let dtype = keys.dtype();

    let scale = 1.0 / (head_dim as f64).sqrt();
    let queries = queries.mul_scalar(scale).reshape([n_kv_heads, group * seq, head_dim]);
    let scores = queries.cast(dtype).matmul(keys.swap_dims(1, 2)).cast(DType::F32);
    let scores = match &mask.0 {
        None => scores,
        Some(mask) => {
            let scores: Tensor<4> = scores.reshape([n_kv_heads, group, seq, len]) + mask.clone();
            scores.reshape([n_kv_heads, group * seq, len])
        }
    };
    let weights = activation::softmax(scores, 2).cast(dtype);
    weights.matmul(values).cast(DType::F32).reshape([n_heads, seq, head_dim])
}

/// What a query of [`full`] attention must not see, or sees less of.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// Every query sees every key.
    None,
    /// Query `i` sees the keys `0 ..= i`.
    Causal,
    /// Added to the scaled scores of every element of the batch: `[heads, queries, keys]`, f32.
    Bias(&'a Tensor<3>),
}

/// The dimensions of [`full`] attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// Pictures or prompts.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Tokens that look.
    pub queries: usize,
    /// Tokens that are looked at.
    pub keys: usize,
    /// Features of a head.
    pub dim: usize,
}

impl Dims {
    fn of(q: &Tensor<3>, k: &Tensor<3>, heads: usize) -> Self {
        let [batch, queries, width] = q.dims();
        Self { batch, heads, queries, keys: k.dims()[1], dim: width / heads }
    }

    /// What a card takes for it beside queries, keys, values and the result, in bytes; with `half` as
    /// [`full_in_half`] computes it.
    pub fn card_bytes(&self, half: bool) -> u64 {
        card::scratch_bytes(self, half)
    }
}

/// Softmax(scale q kᵀ + mask) v of every head, in f32. A card holds a bounded number of scores at once.
///
/// # Shapes
/// - `q`: `[batch, queries, heads * head_dim]`; returns the same
/// - `k`, `v`: `[batch, keys, heads * head_dim]`
pub fn full(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    scale: f32,
    mask: Mask<'_>,
) -> Tensor<3> {
    let dims = Dims::of(&q, &k, heads);
    let device = q.device();
    if is_cpu(&device) {
        return on_cpu([q, k, v], &dims, scale, mask);
    }
    let bias = match mask {
        Mask::Bias(bias) => Some(bias.clone()),
        Mask::Causal => Some(causal_bias(&dims, &device)),
        Mask::None => None,
    };
    card::attend([q, k, v], &dims, scale, bias.as_ref(), false)
}

/// [`full`] without a mask, in the arithmetic of 16 bits with sums in f32 where a card has a kernel for it,
/// which holds no scores.
///
/// # Shapes
/// As [`full`].
pub fn full_in_half(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    scale: f32,
) -> Tensor<3> {
    let dims = Dims::of(&q, &k, heads);
    if is_cpu(&q.device()) {
        return on_cpu([q, k, v], &dims, scale, Mask::None);
    }
    card::attend([q, k, v], &dims, scale, None, true)
}

fn on_cpu([q, k, v]: [Tensor<3>; 3], dims: &Dims, scale: f32, mask: Mask<'_>) -> Tensor<3> {
    let (shape, device) = (q.dims(), q.device());
    let (q, k, v) = (in_memory(q), in_memory(k), in_memory(v));
    let bias = match mask {
        Mask::Bias(bias) => in_memory(bias.clone()),
        Mask::None | Mask::Causal => Vec::new(),
    };
    let seen = match mask {
        Mask::None => Seen::All,
        Mask::Causal => Seen::Before,
        Mask::Bias(_) => Seen::Biased(&bias),
    };
    upload(attend(&q, &k, &v, *dims, scale, seen, Isa::best()), shape, &device)
}

/// `[heads, queries, keys]`: nothing for the keys up to a query's own, minus infinity behind.
fn causal_bias(dims: &Dims, device: &Device) -> Tensor<3> {
    let &Dims { heads, queries, keys, .. } = dims;
    let mut values = vec![0.0; queries * keys];
    for (query, row) in values.chunks_exact_mut(keys).enumerate() {
        row[(query + 1).min(keys)..].fill(f32::NEG_INFINITY);
    }
    let bias: Tensor<3> = upload(values, [1, queries, keys], device);
    bias.expand([heads, queries, keys])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::download;

    /// Deterministic values in -1..1.
    fn noise(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + 1.0) * seed).sin()).collect()
    }

    /// Attention of one head and one query by its definition.
    fn naive(query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f32> {
        let dot = |key: &&[f32]| query.iter().zip(*key).map(|(a, b)| a * b).sum::<f32>();
        let scale = (query.len() as f32).sqrt();
        let weights: Vec<f32> = keys.iter().map(|key| (dot(key) / scale).exp()).collect();
        let total: f32 = weights.iter().sum();
        let column = |i| weights.iter().zip(values).map(|(w, v)| w * v[i]).sum::<f32>() / total;
        (0..query.len()).map(column).collect()
    }

    /// What a card computes a causal mask with, held to the processor's own.
    #[test]
    fn a_card_sees_no_key_behind_the_query() {
        let device = Device::flex();
        let (heads, tokens, dim) = (2, 9, 4);
        let [q, k, v]: [Tensor<3>; 3] = [0.7, 1.3, 2.1].map(|seed| {
            upload(noise(2 * tokens * heads * dim, seed), [2, tokens, heads * dim], &device)
        });
        let dims = Dims::of(&q, &k, heads);
        let bias = causal_bias(&dims, &device);
        let found = card::attend([q.clone(), k.clone(), v.clone()], &dims, 0.5, Some(&bias), true);
        let expect = full(q, k, v, heads, 0.5, Mask::Causal);
        let [found, expect] = [found, expect].map(|x| download(x).expect("download"));
        for (found, expect) in found.iter().zip(expect) {
            assert!((found - expect).abs() < 1e-5, "{found}, not {expect}");
        }
    }

    #[test]
    fn matches_the_definition_for_each_head_and_position() {
        for window in [None, Some(1), Some(3), Some(100)] {
            check(window);
        }
    }

    fn check(window: Option<usize>) {
        let device = Device::flex();
        let (n_heads, n_kv_heads, start, seq, dim) = (6, 2, 3, 4, 8);
        let len = start + seq;
        let (q, k, v) = (
            noise(n_heads * seq * dim, 0.7),
            noise(n_kv_heads * len * dim, 1.3),
            noise(n_kv_heads * len * dim, 2.1),
        );
        let found = download(grouped_query_attention(
            upload(q.clone(), [n_heads, seq, dim], &device),
            upload(k.clone(), [n_kv_heads, len, dim], &device),
            upload(v.clone(), [n_kv_heads, len, dim], &device),
            &CausalMask::new(start, seq, window, &device),
        ))
        .expect("download");

        let k: Vec<&[f32]> = k.chunks(dim).collect();
        let v: Vec<&[f32]> = v.chunks(dim).collect();
        for head in 0..n_heads {
            for position in 0..seq {
                let row = (head * seq + position) * dim;
                let first = head / (n_heads / n_kv_heads) * len;
                let end = start + position + 1;
                let seen = first + end.saturating_sub(window.unwrap_or(end))..first + end;
                let expect = naive(&q[row..row + dim], &k[seen.clone()], &v[seen]);
                for (found, expect) in found[row..row + dim].iter().zip(expect) {
                    assert!((found - expect).abs() < 1e-5, "head {head} position {position}");
                }
            }
        }
    }
}
