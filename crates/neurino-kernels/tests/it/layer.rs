//! Normalisation, rotation, the cache and attention.

use cubecl::prelude::*;
use half::f16;
use neurino_kernels::attention::{Attention, Rows, SPLIT_TOKENS, Scratch};
use neurino_kernels::buffer::Buffer;
use neurino_kernels::gate::swiglu;
use neurino_kernels::gpu::Gpu;
use neurino_kernels::norm::add_rms_norm;
use neurino_kernels::rope::{BLOCK_TOKENS, Heads, LayerCache, NO_SLOT, NewRows, rope_kv_write};

use crate::support::{assert_close, floats, gpu, noise, warps};

fn norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let row = |x: &[f32]| {
        let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (mean + f64::from(epsilon)).sqrt();
        x.iter().zip(weight).map(|(v, w)| (f64::from(*v) * scale) as f32 * w).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(row).collect()
}

#[test]
fn sums_are_normalised() {
    for (gpu, widths) in [(gpu(), vec![4, 100, 2048]), (warps(), vec![12, 64])] {
        for width in widths {
            let [x, delta] = [1, 2].map(|seed| noise(seed, 3 * width));
            let weight = noise(3, width);
            let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + d).collect();
            let [bx, bd, bw] = [&x, &delta, &weight].map(|v| Buffer::upload(&gpu.client, v));
            let y = Buffer::empty::<f32>(&gpu.client, x.len());
            add_rms_norm(&gpu, &bx, None, &bw, &y, 1e-5).unwrap();
            assert_close("norm", &floats(&gpu, &y), &norm(&x, &weight, 1e-5), 1e-6);
            assert_eq!(floats(&gpu, &bx), x, "nothing was added");
            add_rms_norm(&gpu, &bx, Some([&bd, &bx]), &bw, &y, 1e-5).unwrap();
            assert_eq!(floats(&gpu, &bx), sum);
            assert_close("sum", &floats(&gpu, &y), &norm(&sum, &weight, 1e-5), 1e-6);
        }
    }
}

#[test]
fn gates_are_applied() {
    let gpu = gpu();
    let [gate, up] = [1, 2].map(|seed| noise(seed, 77));
    let expect: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    let [g, u] = [&gate, &up].map(|v| Buffer::upload(&gpu.client, v));
    let y = Buffer::empty::<f32>(&gpu.client, 77);
    swiglu(&gpu, &g, &u, &y);
    assert_close("swiglu", &floats(&gpu, &y), &expect, 1e-6);
}

/// A cache and, as the oracle keeps it, every token's keys and values, rounded to f16.
struct World {
    gpu: Gpu,
    heads: Heads,
    cache: LayerCache,
    blocks: usize,
}

impl World {
    fn new(gpu: Gpu, heads: Heads, blocks: usize) -> Self {
        // Whatever was there before must not be seen: it is no number here.
        let memory = vec![f16::NAN; blocks * heads.block_values()];
        let [keys, values] = [(); 2].map(|()| Buffer::upload(&gpu.client, &memory));
        Self { gpu, heads, cache: LayerCache { keys, values }, blocks }
    }

    /// Writes rows without rotation, and returns them as rounded.
    fn write(&self, seed: u64, slots: &[u32]) -> [Vec<f32>; 2] {
        let Heads { query, kv, dim } = self.heads;
        let rows = slots.len();
        let [keys, values] = [0, 1].map(|s| noise(seed + s, rows * kv * dim));
        let upload = |v: &[f32]| Buffer::upload(&self.gpu.client, v);
        let queries = upload(&vec![0.0; rows * query * dim]);
        let new = NewRows {
            queries: &queries,
            keys: &upload(&keys),
            values: &upload(&values),
            cos: &upload(&vec![1.0; dim / 2]),
            sin: &upload(&vec![0.0; dim / 2]),
            angles: &Buffer::upload(&self.gpu.client, &vec![0_u32; rows]),
            slots: &Buffer::upload(&self.gpu.client, slots),
        };
        rope_kv_write(&self.gpu, self.heads, &new, &queries, &self.cache).unwrap();
        let round = |v: Vec<f32>| v.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        [round(keys), round(values)]
    }
}

#[test]
fn rows_are_rotated_and_kept() {
    let gpu = gpu();
    let heads = Heads { query: 6, kv: 2, dim: 16 };
    let world = World::new(gpu.clone(), heads, 3);
    let slots = [17_u32, NO_SLOT, 47];
    let [q, k, v] = [(1, 6), (2, 2), (3, 2)].map(|(seed, n)| noise(seed, 3 * n * 16));
    let angles = [2_u32, 0, 1];
    let radians = noise(4, 3 * 8);
    let [cos, sin]: [Vec<f32>; 2] =
        [f32::cos, f32::sin].map(|f| radians.iter().map(|a| f(3.0 * a)).collect());
    let upload = |v: &[f32]| Buffer::upload(&gpu.client, v);
    let rotated = upload(&vec![0.0; q.len()]);
    let new = NewRows {
        queries: &upload(&q),
        keys: &upload(&k),
        values: &upload(&v),
        cos: &upload(&cos),
        sin: &upload(&sin),
        angles: &Buffer::upload(&gpu.client, &angles),
        slots: &Buffer::upload(&gpu.client, &slots),
    };
    rope_kv_write(&gpu, heads, &new, &rotated, &world.cache).unwrap();
    let rotate = |x: &[f32], n: usize| {
        let mut out = x.to_vec();
        for (at, head) in out.chunks_mut(16).enumerate() {
            for i in 0..8 {
                let line = angles[at / n] as usize * 8 + i;
                let (a, b) = (head[i], head[i + 8]);
                head[i] = a * cos[line] - b * sin[line];
                head[i + 8] = b * cos[line] + a * sin[line];
            }
        }
        out
    };
    assert_close("queries", &floats(&gpu, &rotated), &rotate(&q, 6), 1e-6);
    let [keys, values] = [&world.cache.keys, &world.cache.values].map(|buffer| {
        let bytes = buffer.download(&gpu.client).unwrap();
        f16::from_bytes(&bytes)[..buffer.len()].to_vec()
    });
    let rotated = rotate(&k, 2);
    let mut kept = 0;
    for (row, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != NO_SLOT) {
        for (head, i) in (0..2).flat_map(|head| (0..16).map(move |i| (head, i))) {
            let (block, token) = (slot as usize / BLOCK_TOKENS, slot as usize % BLOCK_TOKENS);
            let base = (block * 2 + head) * 16 * BLOCK_TOKENS;
            let key = keys[base + (i / 8 * BLOCK_TOKENS + token) * 8 + i % 8].to_f32();
            assert!((key - rotated[(row * 2 + head) * 16 + i]).abs() < 1e-3);
            let value = values[base + token * 16 + i];
            assert_eq!(value, f16::from_f32(v[(row * 2 + head) * 16 + i]));
            kept += 1;
        }
    }
    assert_eq!(keys.iter().filter(|key| !key.is_nan()).count(), kept, "padding is not kept");
}

/// Softmax attention of one query head, in f64.
fn attend(query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f32> {
    let dim = query.len();
    let dot = |key: &&[f32]| {
        let sum: f64 = query.iter().zip(*key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        sum / (dim as f64).sqrt()
    };
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let feature = |i: usize| {
        let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * f64::from(v[i])).sum();
        (sum / total) as f32
    };
    (0..dim).map(feature).collect()
}

/// Three sequences in scattered blocks, the last with rows over several splits.
fn check(gpu: &Gpu, heads: Heads, lens: &[usize], rows_of: &[usize], window: Option<usize>) {
    let table = lens.iter().map(|len| len.div_ceil(BLOCK_TOKENS)).max().unwrap();
    let world = World::new(gpu.clone(), heads, lens.len() * table + 1);
    let Heads { query, kv, dim } = heads;
    let mut tables = Vec::new();
    let mut kept = Vec::new();
    for (at, &len) in lens.iter().enumerate() {
        // Backwards, so that no two neighbours of a text are neighbours in memory.
        let blocks: Vec<u32> =
            (0..table).map(|i| (world.blocks - 1 - at * table - i) as u32).collect();
        let slot =
            |p: usize| blocks[p / BLOCK_TOKENS] * BLOCK_TOKENS as u32 + (p % BLOCK_TOKENS) as u32;
        let slots: Vec<u32> = (0..len).map(slot).collect();
        kept.push(world.write(100 + 2 * at as u64, &slots));
        tables.extend(blocks);
    }
    let mut sequences = Vec::new();
    let mut positions = Vec::new();
    for (at, (&len, &rows)) in lens.iter().zip(rows_of).enumerate() {
        sequences.extend(vec![at as u32; rows]);
        positions.extend((len - rows..len).map(|p| p as u32));
    }
    let count = positions.len();
    let queries = noise(7, count * query * dim);
    let u32s = |v: &[u32]| Buffer::upload(&gpu.client, v);
    let [b_tables, b_sequences, b_positions] = [&tables, &sequences, &positions].map(|v| u32s(v));
    let rows = Rows { tables: &b_tables, table, sequences: &b_sequences, positions: &b_positions };
    let attention = Attention { heads, window };
    let b_queries = Buffer::upload(&gpu.client, &queries);
    let y = Buffer::upload(&gpu.client, &vec![f32::NAN; queries.len()]);
    let singles = u32s(&Attention::tiles(vec![1; count], 1));
    let scratch = Scratch::new(gpu, heads, count, table);
    attention.decode(gpu, &b_queries, &world.cache, &rows, &singles, &scratch, &y).unwrap();
    let decoded = floats(gpu, &y);

    let mut expect = Vec::new();
    for (row, (&sequence, &position)) in sequences.iter().zip(&positions).enumerate() {
        let [keys, values] = &kept[sequence as usize];
        let first = window.map_or(0, |window| (position as usize + 1).saturating_sub(window));
        for head in 0..query {
            let of = |all: &[f32]| -> Vec<Vec<f32>> {
                let at = |p: usize| (p * kv + head / (query / kv)) * dim;
                (first..=position as usize).map(|p| all[at(p)..at(p) + dim].to_vec()).collect()
            };
            let (keys, values) = (of(keys), of(values));
            let [keys, values] =
                [&keys, &values].map(|v| v.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let start = (row * query + head) * dim;
            expect.extend(attend(&queries[start..start + dim], &keys, &values));
        }
    }
    assert_close("decode", &decoded, &expect, 2e-6);

    let y = Buffer::upload(&gpu.client, &vec![f32::NAN; queries.len()]);
    let tiles = u32s(&Attention::tiles(rows_of.iter().copied(), attention.tile_rows()));
    attention.prefill(gpu, &b_queries, &world.cache, &rows, &tiles, &y).unwrap();
    assert_eq!(floats(gpu, &y), decoded, "a row depends on how it was computed");
}

#[test]
fn attention_over_scattered_blocks() {
    let gpu = gpu();
    let long = 2 * SPLIT_TOKENS + 17;
    check(&gpu, Heads { query: 4, kv: 4, dim: 16 }, &[1, 40, SPLIT_TOKENS], &[1, 5, 1], None);
    check(&gpu, Heads { query: 8, kv: 2, dim: 32 }, &[3, long], &[3, 19], None);
    check(&gpu, Heads { query: 9, kv: 3, dim: 64 }, &[SPLIT_TOKENS + 1], &[4], None);
}

#[test]
fn a_window_hides_what_is_older() {
    let long = 2 * SPLIT_TOKENS + 17;
    let heads = Heads { query: 4, kv: 2, dim: 16 };
    check(&gpu(), heads, &[3, long], &[3, 30], Some(20));
    check(&gpu(), heads, &[long], &[2], Some(SPLIT_TOKENS + 5));
}

#[test]
fn warps_share_a_split() {
    check(&warps(), Heads { query: 4, kv: 2, dim: 16 }, &[5, 3], &[1, 2], None);
}
