//! The store of the CPU: keys and values in plain memory, laid out for vectors.
//!
//! A block holds, for each head, its keys feature by feature (16 tokens side by side) and its values
//! token by token. So the scores of a block are one vector that needs no adding across lanes, and so
//! are 16 features of the output.

use burn::tensor::{Device, Tensor};
use half::f16;
use rayon::prelude::*;

use super::cpu_attention::{Keys, Query, Tile, Values, tile_queries};
use super::{BLOCK_TOKENS, BatchLayout, KvShape, KvStore};
use crate::NnError;
use crate::device::{in_memory, upload};
use crate::rotary::RotaryTables;
use crate::simd::{self, Isa, Kernel, LANES, Simd};

/// Below this many multiplications, waking another thread takes longer than it saves.
const PARALLEL_MIN: usize = 1 << 17;

/// How the CPU keeps a key or value.
pub(super) trait Element: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// Rounds; what is too large becomes the largest, since `inf` would spoil other rows.
    fn of(x: f32) -> Self;
    /// Widens a vector.
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;
}

impl Element for f32 {
    fn of(x: f32) -> Self {
        x.clamp(f32::MIN, f32::MAX)
    }

    #[expect(clippy::inline_always, reason = "it needs its caller's instruction set")]
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[f32; LANES]) -> S::F {
        s.load(from)
    }
}

/// The bits of a half.
impl Element for u16 {
    fn of(x: f32) -> Self {
        let limit = f16::MAX.to_f32();
        f16::from_f32(x.clamp(-limit, limit)).to_bits()
    }

    #[expect(clippy::inline_always, reason = "it needs its caller's instruction set")]
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u16; LANES]) -> S::F {
        s.load_f16(from)
    }
}

/// Keys and values of a run of layers.
#[derive(Debug)]
pub(super) struct CpuKv<E> {
    layers: Vec<LayerKv<E>>,
    heads: usize,
    head_dim: usize,
    device: Device,
    step: Step,
}

#[derive(Debug)]
struct LayerKv<E> {
    /// `[n_blocks, heads, head_dim, BLOCK_TOKENS]`
    keys: Vec<E>,
    /// `[n_blocks, heads, BLOCK_TOKENS, padded head_dim]`
    values: Vec<E>,
}

/// What all layers of a step share.
#[derive(Debug, Default)]
struct Step {
    batch: BatchLayout,
    /// Of each row.
    slots: Vec<usize>,
}

impl<E: Element> CpuKv<E> {
    /// An empty store. The system gives memory to a block when it is first written.
    pub(super) fn new(shape: &KvShape, device: &Device) -> Self {
        let block = shape.n_kv_heads * BLOCK_TOKENS * shape.n_blocks;
        let layer = || LayerKv {
            keys: vec![E::default(); block * shape.head_dim],
            values: vec![E::default(); block * padded(shape.head_dim)],
        };
        Self {
            layers: std::iter::repeat_with(layer).take(shape.n_layers).collect(),
            heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            device: device.clone(),
            step: Step::default(),
        }
    }

    /// Writes rows of `[heads, head_dim]`.
    fn write_rows(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> Result<(), NnError> {
        let (heads, dim) = (self.heads, self.head_dim);
        let kv = self.layers.get_mut(layer).ok_or(NnError::CacheLost)?;
        let rows = keys.chunks_exact(heads * dim).zip(values.chunks_exact(heads * dim));
        for (&slot, (keys, values)) in self.step.slots.iter().zip(rows) {
            let (block, token) = (slot / BLOCK_TOKENS, slot % BLOCK_TOKENS);
            let heads_of = |x| <[f32]>::chunks_exact(x, dim);
            for (head, (key, value)) in heads_of(keys).zip(heads_of(values)).enumerate() {
                let first = (block * heads + head) * BLOCK_TOKENS;
                let stored = &mut kv.keys[first * dim..][..BLOCK_TOKENS * dim];
                for (place, x) in stored[token..].iter_mut().step_by(BLOCK_TOKENS).zip(key) {
                    *place = E::of(*x);
                }
                let width = padded(dim);
                let stored = &mut kv.values[first * width..][..BLOCK_TOKENS * width];
                if token == 0 {
                    // What an earlier text left is multiplied by zero, so it has to be finite.
                    stored.fill(E::default());
                }
                for (place, x) in stored[token * width..].iter_mut().zip(value) {
                    *place = E::of(*x);
                }
            }
        }
        Ok(())
    }
}

/// Features of a value with its padding.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

impl<E: Element> KvStore for CpuKv<E> {
    fn begin(&mut self, batch: &BatchLayout) -> Result<(), NnError> {
        self.step = Step { slots: batch.slots(), batch: batch.clone() };
        Ok(())
    }

    fn write(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> Result<(), NnError> {
        self.write_rows(layer, &in_memory(keys), &in_memory(values))
    }

    fn rotate_and_write(
        &mut self,
        layer: usize,
        queries: Tensor<3>,
        keys: Tensor<3>,
        values: Tensor<3>,
        rotations: &RotaryTables,
    ) -> Result<Tensor<3>, NnError> {
        let shape = queries.dims();
        let (cos, sin) = (in_memory(rotations.cos().clone()), in_memory(rotations.sin().clone()));
        let (mut queries, mut keys) = (in_memory(queries), in_memory(keys));
        for x in [&mut queries, &mut keys] {
            simd::run(Rotate { x, cos: &cos, sin: &sin, rows: shape[0], dim: shape[2] });
        }
        self.write_rows(layer, &keys, &in_memory(values))?;
        Ok(upload(queries, shape, &self.device))
    }

    fn attend(
        &self,
        layer: usize,
        queries: Tensor<3>,
        window: Option<usize>,
    ) -> Result<Tensor<3>, NnError> {
        let kv = self.layers.get(layer).ok_or(NnError::CacheLost)?;
        let shape @ [rows, n_heads, _] = queries.dims();
        let (dim, isa) = (self.head_dim, Isa::best());
        let queries = in_memory(queries);
        let mut out = vec![0.0; queries.len()];
        let mut places: Vec<Option<&mut [f32]>> = out.chunks_exact_mut(dim).map(Some).collect();
        let mut work = 0;
        let mut tiles: Vec<(usize, usize, Vec<Query<'_>>)> = Vec::new();
        let mut first_row = 0;
        for (index, sequence) in self.step.batch.sequences.iter().enumerate() {
            for head in 0..self.heads {
                let group = n_heads / self.heads;
                let mut list = (0..sequence.rows).flat_map(|row| {
                    let end = sequence.start + row + 1;
                    let start = end.saturating_sub(window.unwrap_or(end));
                    let heads = head * group..(head + 1) * group;
                    heads.map(move |head| ((first_row + row) * n_heads + head, start..end))
                });
                loop {
                    let size = tile_queries(isa);
                    let tile: Vec<Query<'_>> = list
                        .by_ref()
                        .take(size)
                        .filter_map(|(at, seen)| {
                            work += seen.len() * dim * 2;
                            let features = &queries[at * dim..(at + 1) * dim];
                            Some(Query { features, seen, out: places.get_mut(at)?.take()? })
                        })
                        .collect();
                    if tile.is_empty() {
                        break;
                    }
                    tiles.push((index, head, tile));
                }
            }
            first_row += sequence.rows;
        }
        let run = |(index, head, queries): (usize, usize, Vec<Query<'_>>)| {
            let (heads, blocks) = (self.heads, &*self.step.batch.sequences[index].blocks);
            let keys = Keys { all: &kv.keys, heads, head, dim, blocks };
            let values = Values { all: &kv.values, heads, head, width: padded(dim), blocks };
            isa.run(Tile { keys, values, queries });
        };
        debug_assert_eq!(first_row, rows, "the layout was checked against the rows");
        if work < PARALLEL_MIN || tiles.len() < 2 {
            tiles.into_iter().for_each(run);
        } else {
            tiles.into_par_iter().for_each(run);
        }
        Ok(upload(out, shape, &self.device))
    }

    fn copy_blocks(&mut self, pairs: &[(u32, u32)]) -> Result<(), NnError> {
        let keys = self.heads * BLOCK_TOKENS * self.head_dim;
        let values = self.heads * BLOCK_TOKENS * padded(self.head_dim);
        for kv in &mut self.layers {
            for &(from, to) in pairs {
                for (all, size) in [(&mut kv.keys, keys), (&mut kv.values, values)] {
                    let from = from as usize * size;
                    all.copy_within(from..from + size, to as usize * size);
                }
            }
        }
        Ok(())
    }
}

/// Rotates all heads of all rows: the pair of feature `i` is `i + dim / 2`.
struct Rotate<'a> {
    x: &'a mut [f32],
    /// `[rows, dim / 2]`
    cos: &'a [f32],
    /// `[rows, dim / 2]`
    sin: &'a [f32],
    rows: usize,
    dim: usize,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "it needs its caller's instruction set")]
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let half = self.dim / 2;
        let row_size = self.x.len() / self.rows.max(1);
        let tables = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
        for (row, (cos, sin)) in self.x.chunks_exact_mut(row_size).zip(tables) {
            for head in row.chunks_exact_mut(self.dim) {
                let (first, second) = head.split_at_mut(half);
                let angles = cos.iter().zip(sin);
                for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}
