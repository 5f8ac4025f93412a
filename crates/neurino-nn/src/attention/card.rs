//! Attention of pictures on cards: fused where burn has a kernel that takes the shape, else by pieces
//! whose scores are bounded.
//!
//! burn's fused kernel never holds scores. It computes on 16-bit tiles of 16 x 16 with sums in f32, and
//! everything that it does not take burn computes with all scores at once, without a word:
//! - a scale of the caller's, a bias, a soft cap (`burn-cubecl ops/module.rs`);
//! - queries in another format than f16, since they go to the tiles as they are (`validate_blackbox`);
//! - heads that are no whole tiles, and queries that are no whole groups of up to 8 tiles (`cubek-attention
//!   blackbox_accelerated.rs`, `validate`; a variant that was quickest for another size of the same tuning
//!   key is used for this one, so that all variants have to fit);
//! - four times as many queries as keys, or the other way round: the tiles that it chooses for the two
//!   products do not go together then.
//!
//! So queries carry the scale, and heads and queries are filled up with zeros, which change no score of
//! those that are kept.

use burn::tensor::{DType, Tensor, activation, module, ops::AttentionModuleOptions};

use super::Dims;

/// A side of a tile of the fused kernel.
const TILE: usize = 16;
/// Queries that the largest variant of the kernel takes at once.
const GROUP: usize = 8 * TILE;
/// The widest head that goes through the fused kernel: its tiles live in registers.
const FUSED_DIM_MAX: usize = 256;
/// Most scores that are held at once otherwise: 128 MiB of f32.
const SCORES_MAX: usize = 32 << 20;
/// Copies of the scores while they become weights.
const SCORE_COPIES: u64 = 3;

/// A shape that the fused kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fused {
    queries: usize,
    dim: usize,
}

impl Fused {
    /// `dims`, filled up, if the kernel takes them then.
    fn of(dims: &Dims) -> Option<Self> {
        let queries = dims.queries.next_multiple_of(GROUP);
        let dim = dims.dim.next_multiple_of(TILE);
        let matched = queries < 4 * dims.keys && dims.keys < 4 * queries;
        (matched && dim <= FUSED_DIM_MAX).then_some(Self { queries, dim })
    }

    /// What queries are multiplied with, so that the kernel's own scale makes `scale` of it.
    fn fold(self, scale: f32) -> f32 {
        (f64::from(scale) * (self.dim as f64).sqrt()) as f32
    }
}

/// Scores of a piece: so many heads, or so many queries of one head.
fn piece(dims: &Dims, scores_max: usize) -> (usize, usize) {
    let of_head = dims.queries * dims.keys;
    if of_head <= scores_max {
        return ((scores_max / of_head.max(1)).max(1), dims.queries);
    }
    (1, (scores_max / dims.keys.max(1)).max(1))
}

/// What attention takes on a card beside queries, keys, values and the result, in bytes.
pub(super) fn scratch_bytes(dims: &Dims, half: bool) -> u64 {
    let Dims { batch, heads, queries, keys, dim } = *dims;
    let all = (batch * heads) as u64;
    if let Some(fused) = Fused::of(dims).filter(|_| half) {
        // Queries, keys, values and the result by head in 16 bits.
        return 2 * all * (2 * (fused.queries + keys) * fused.dim) as u64;
    }
    let (heads, queries_once) = piece(dims, SCORES_MAX);
    let scores = all.min(heads as u64) * (queries_once * keys) as u64;
    4 * (all * (2 * (queries + keys) * dim) as u64 + SCORE_COPIES * scores)
}

/// # Shapes
/// - `q`, `k`, `v`: `[batch, tokens, heads * dim]`, f32; returns `q`'s
pub(super) fn attend(
    [q, k, v]: [Tensor<3>; 3],
    dims: &Dims,
    scale: f32,
    bias: Option<&Tensor<3>>,
    half: bool,
) -> Tensor<3> {
    let &Dims { batch, heads, dim, .. } = dims;
    let shape = q.dims();
    let split = |x: Tensor<3>| -> Tensor<4> {
        let tokens = x.dims()[1];
        x.reshape([batch, tokens, heads, dim]).swap_dims(1, 2)
    };
    let by_head = [split(q), split(k), split(v)];
    let y = match Fused::of(dims).filter(|_| half && bias.is_none()) {
        Some(shape) => fused(by_head, dims, shape, scale),
        None => in_pieces(by_head, dims, scale, bias, SCORES_MAX),
    };
    y.swap_dims(1, 2).reshape(shape)
}

/// By burn's fused kernel, in 16 bits.
fn fused([q, k, v]: [Tensor<4>; 3], dims: &Dims, shape: Fused, scale: f32) -> Tensor<4> {
    let &Dims { batch, heads, queries, dim, .. } = dims;
    let half = |x: Tensor<4>| x.cast(DType::F16);
    let filled = |x: Tensor<4>, axis: usize, to: usize| {
        let mut rest = x.dims();
        rest[axis] = to - rest[axis];
        if rest[axis] == 0 {
            return x;
        }
        let zeros = Tensor::zeros(rest, (&x.device(), x.dtype()));
        Tensor::cat(vec![x, zeros], axis)
    };
    let q = half(q.mul_scalar(shape.fold(scale)));
    let [q, k, v] = [q, half(k), half(v)].map(|x| filled(x, 3, shape.dim));
    let q = filled(q, 2, shape.queries);
    // Any option would keep the kernel from being taken.
    let y = module::attention(q, k, v, None, None, AttentionModuleOptions::default());
    y.slice([0..batch, 0..heads, 0..queries, 0..dim]).cast(DType::F32)
}

/// Some heads, or some queries of a head, at a time, in f32.
///
/// - `bias`: `[heads, queries, keys]`
fn in_pieces(
    [q, k, v]: [Tensor<4>; 3],
    dims: &Dims,
    scale: f32,
    bias: Option<&Tensor<3>>,
    scores_max: usize,
) -> Tensor<4> {
    let &Dims { batch, heads, queries, keys, dim } = dims;
    let all = batch * heads;
    let merged = |x: Tensor<4>, tokens| -> Tensor<3> { x.reshape([all, tokens, dim]) };
    let q = merged(q.mul_scalar(scale), queries);
    let (k, v) = (merged(k, keys).swap_dims(1, 2), merged(v, keys));
    let (heads_once, queries_once) = piece(dims, scores_max);
    // A bias is that of every element of the batch, so that a piece ends with the element.
    let heads_once = if bias.is_some() { heads_once.min(heads) } else { heads_once };
    let end = |start: usize| match bias {
        Some(_) => (start + heads_once).min((start / heads + 1) * heads),
        None => (start + heads_once).min(all),
    };
    let mut found = Vec::new();
    let mut start = 0;
    while start < all {
        let some = start..end(start);
        let (k, v) = (k.clone().slice([some.clone()]), v.clone().slice([some.clone()]));
        let rows = (0..queries).step_by(queries_once).map(|row| {
            let rows = row..(row + queries_once).min(queries);
            let scores = q.clone().slice([some.clone(), rows.clone()]).matmul(k.clone());
            let scores = match bias {
                None => scores,
                Some(bias) => {
                    let heads = some.start % heads..(some.end - 1) % heads + 1;
                    scores + bias.clone().slice([heads, rows])
                }
            };
            activation::softmax(scores, 2).matmul(v.clone())
        });
        found.push(joined(rows.collect(), 1));
        start = some.end;
    }
    joined(found, 0).reshape([batch, heads, queries, dim])
}

fn joined(mut parts: Vec<Tensor<3>>, axis: usize) -> Tensor<3> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, axis) }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::{self, Seen};
    use super::*;
    use crate::device::{download, upload};
    use crate::simd::Isa;
    use burn::tensor::Device;

    fn noise(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + 1.0) * seed).sin()).collect()
    }

    fn dims(batch: usize, heads: usize, queries: usize, keys: usize, dim: usize) -> Dims {
        Dims { batch, heads, queries, keys, dim }
    }

    /// The largest difference between what `compute` finds and the processor's own attention.
    fn apart(
        dims: &Dims,
        scale: f32,
        bias: Option<&[f32]>,
        compute: impl Fn([Tensor<4>; 3]) -> Tensor<4>,
    ) -> f32 {
        let &Dims { batch, heads, queries, keys, dim } = dims;
        let device = Device::flex();
        let width = heads * dim;
        let [q, k, v] = [(queries, 0.7), (keys, 1.3), (keys, 2.1)]
            .map(|(tokens, seed)| noise(batch * tokens * width, seed));
        let split = |x: &[f32], tokens: usize| -> Tensor<4> {
            let x = upload(x.to_vec(), [batch, tokens, heads, dim], &device);
            x.swap_dims(1, 2)
        };
        let found = compute([split(&q, queries), split(&k, keys), split(&v, keys)]);
        let found = download(found.swap_dims(1, 2)).expect("in memory");
        let seen = bias.map_or(Seen::All, Seen::Biased);
        let expect = tiles::attend(&q, &k, &v, *dims, scale, seen, Isa::best());
        assert_eq!(found.len(), expect.len());
        found.iter().zip(expect).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Attention of Stable Diffusion 1.5, SDXL and Flux to the picture itself, at odd sizes too.
    #[test]
    fn what_pictures_attend_to_themselves_meets_every_condition_of_the_fused_kernel() {
        for (tokens, dim) in [
            (64 * 64, 40),
            (85 * 85, 40),
            (32 * 32, 80),
            (16 * 16, 160),
            (8 * 8, 160),
            (13 * 9, 160),
            (64 * 64, 64),
            (32 * 32, 64),
            (53 * 31, 64),
            (512 + 4096, 128),
            (512 + 42 * 64, 128),
        ] {
            let dims = dims(2, 8, tokens, tokens, dim);
            let fused = Fused::of(&dims).unwrap_or_else(|| panic!("{dims:?}"));
            assert!(fused.dim.is_multiple_of(16) && fused.dim < dim + 16, "{fused:?}");
            // Two, four and eight warps of 16 queries each.
            assert!(fused.queries.is_multiple_of(128), "{fused:?}");
            // Tiles of 32 x 8 and 8 x 32 are chosen from here on.
            assert!(fused.queries < 4 * tokens && tokens < 4 * fused.queries, "{fused:?}");
            let scores = 2 * 8 * (tokens * tokens) as u64;
            let scratch = scratch_bytes(&dims, true);
            assert!(tokens < 1000 || scratch < scores, "{scratch} bytes of {scores} scores");
        }
        // A prompt beside a picture, and the decoder's one wide head.
        assert_eq!(Fused::of(&dims(2, 10, 4096, 77, 64)), None);
        assert_eq!(Fused::of(&dims(1, 1, 4096, 4096, 512)), None);
    }

    #[test]
    fn filled_up_heads_and_queries_change_nothing_but_rounding() {
        for (shape, scale) in [
            (dims(2, 3, 85, 85, 40), 40f32.sqrt().recip()),
            (dims(1, 2, 128, 150, 16), 0.25),
            (dims(1, 2, 50, 60, 8), 1.0),
            (dims(1, 4, 256, 256, 64), 0.125),
        ] {
            let fused_shape = Fused::of(&shape).expect("it is taken");
            let apart = apart(&shape, scale, None, |qkv| fused(qkv, &shape, fused_shape, scale));
            assert!(apart < 4e-3, "{shape:?}: {apart}");
        }
    }

    #[test]
    fn pieces_are_the_whole_whatever_their_size() {
        let shape = dims(2, 3, 17, 21, 8);
        let bias = noise(3 * 17 * 21, 0.9);
        let whole = upload(bias.clone(), [3, 17, 21], &Device::flex());
        for scores_max in [1, 21, 60, 17 * 21, 2 * 17 * 21, 4 * 17 * 21 + 5, 1 << 20] {
            let off = apart(&shape, 0.4, None, |qkv| in_pieces(qkv, &shape, 0.4, None, scores_max));
            assert!(off < 1e-5, "{scores_max}: {off}");
            let biased = |qkv| in_pieces(qkv, &shape, 0.4, Some(&whole), scores_max);
            let off = apart(&shape, 0.4, Some(&bias), biased);
            assert!(off < 1e-5, "{scores_max}, with a bias: {off}");
        }
    }

    #[test]
    fn scores_are_bounded_whatever_the_size() {
        for shape in [
            dims(1, 1, 1 << 16, 1 << 16, 512),
            dims(2, 24, 4608, 4608, 128),
            dims(2, 10, 4096, 77, 64),
        ] {
            let (heads, queries) = piece(&shape, SCORES_MAX);
            assert!(heads * queries * shape.keys <= SCORES_MAX);
            let values = shape.batch * shape.heads * 2 * (shape.queries + shape.keys) * shape.dim;
            let bound = 4 * values as u64 + SCORE_COPIES * (128 << 20);
            assert!(scratch_bytes(&shape, false) <= bound, "{shape:?}");
        }
    }
}
