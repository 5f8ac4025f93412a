//! The CPU's store against the plain one, and rows against themselves in other company.

use proptest::prelude::*;

use super::*;
use crate::device::{download, upload};
use crate::rotary::{RopeScaling, RotaryEmbedding};

/// Deterministic values in -1..1 that depend on what they are for.
fn noise(seed: usize, position: usize, index: usize) -> f32 {
    ((seed * 7919 + position * 131 + index) as f32 * 0.618).sin()
}

/// One text: its key, value and query at each position.
#[derive(Debug, Clone, Copy)]
struct Text {
    seed: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Dims {
    heads: usize,
    kv_heads: usize,
    dim: usize,
}

impl Text {
    fn rows(self, side: usize, range: std::ops::Range<usize>, size: usize) -> Vec<f32> {
        let seed = self.seed * 3 + side;
        range.flat_map(|at| (0..size).map(move |i| noise(seed, at, i) * 2.0)).collect()
    }
}

/// Runs one step over parts of texts and returns the output of each part.
fn step(
    store: &mut dyn KvStore,
    dims: Dims,
    window: Option<usize>,
    parts: &[(Text, std::ops::Range<usize>, Vec<u32>)],
) -> Vec<Vec<f32>> {
    let device = Device::flex();
    let Dims { heads, kv_heads, dim } = dims;
    let span = |(_, range, blocks): &(Text, std::ops::Range<usize>, Vec<u32>)| SequenceSpan {
        rows: range.len(),
        start: range.start,
        blocks: blocks.clone(),
    };
    let batch = BatchLayout { sequences: parts.iter().map(span).collect() };
    let rows = batch.rows();
    let side = |side: usize, heads: usize| -> Tensor<3> {
        let part = |(text, range, _): &(Text, std::ops::Range<usize>, Vec<u32>)| {
            text.rows(side, range.clone(), heads * dim)
        };
        upload(parts.iter().flat_map(part).collect(), [rows, heads, dim], &device)
    };
    let rotary = RotaryEmbedding::new(dim, 10_000.0, &RopeScaling::None);
    let rotations = rotary.tables(&batch, &device);
    store.begin(&batch).expect("begin");
    let queries = store
        .rotate_and_write(0, side(0, heads), side(1, kv_heads), side(2, kv_heads), &rotations)
        .expect("write");
    let out = download(store.attend(0, queries, window).expect("attend")).expect("download");
    let mut out = out.chunks_exact(heads * dim);
    let rows_of = |(_, range, _): &(Text, std::ops::Range<usize>, Vec<u32>)| {
        out.by_ref().take(range.len()).flatten().copied().collect()
    };
    parts.iter().map(rows_of).collect()
}

fn shape(dims: Dims, n_blocks: usize, dtype: DType) -> KvShape {
    KvShape { n_layers: 1, n_kv_heads: dims.kv_heads, head_dim: dims.dim, n_blocks, dtype }
}

/// Blocks for texts of these lengths, scattered over a pool.
fn scattered(texts: &[Text], n_blocks: usize, stride: usize) -> Vec<Vec<u32>> {
    let mut order = (0..n_blocks).map(|i| (i * stride % n_blocks) as u32);
    texts
        .iter()
        .map(|text| order.by_ref().take(text.len.div_ceil(BLOCK_TOKENS)).collect())
        .collect()
}

/// Feeds texts piece by piece, all in each step, and returns all rows of each text.
fn feed(
    store: &mut dyn KvStore,
    dims: Dims,
    window: Option<usize>,
    texts: &[Text],
    blocks: &[Vec<u32>],
    pieces: &[usize],
) -> Vec<Vec<f32>> {
    let mut done = vec![0; texts.len()];
    let mut out = vec![Vec::new(); texts.len()];
    for turn in 0.. {
        let mut parts = Vec::new();
        let mut who = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let piece = pieces[(turn + i) % pieces.len()];
            let end = text.len.min(done[i] + piece);
            if done[i] < end {
                parts.push((*text, done[i]..end, blocks[i].clone()));
                who.push(i);
                done[i] = end;
            }
        }
        if parts.is_empty() {
            return out;
        }
        for (i, rows) in who.into_iter().zip(step(store, dims, window, &parts)) {
            out[i].extend(rows);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agrees_with_the_plain_store(
        lens in proptest::collection::vec(1usize..150, 1..4),
        pieces in proptest::collection::vec(1usize..70, 1..4),
        (group, kv_heads) in (1usize..5, 1usize..4),
        dim in prop_oneof![Just(8usize), Just(16), Just(20), Just(64)],
        window in proptest::option::of(1usize..90),
        half in any::<bool>(),
    ) {
        let dims = Dims { heads: group * kv_heads, kv_heads, dim };
        let texts: Vec<Text> =
            lens.iter().enumerate().map(|(seed, &len)| Text { seed, len }).collect();
        let blocks = scattered(&texts, 37, 11);
        let dtype = if half { DType::F16 } else { DType::F32 };
        let shape = shape(dims, 37, dtype);
        let device = Device::flex();
        let mut plain = TensorKv::new(&shape, &device);
        let mut fast = store_on(&device, &shape);
        let expect = feed(&mut plain, dims, window, &texts, &blocks, &pieces);
        let found = feed(&mut *fast, dims, window, &texts, &blocks, &pieces);
        let limit = if half { 5e-3 } else { 1e-5 };
        for (found, expect) in found.iter().flatten().zip(expect.iter().flatten()) {
            prop_assert!((found - expect).abs() < limit, "{} {}", found, expect);
        }
    }

    #[test]
    fn a_row_is_the_same_bits_in_any_company(
        lens in proptest::collection::vec(1usize..200, 2..5),
        pieces in proptest::collection::vec(1usize..90, 1..4),
        window in proptest::option::of(1usize..130),
        stride in prop_oneof![Just(1usize), Just(11), Just(36)],
        threads in 1usize..4,
    ) {
        let dims = Dims { heads: 6, kv_heads: 2, dim: 24 };
        let texts: Vec<Text> =
            lens.iter().enumerate().map(|(seed, &len)| Text { seed, len }).collect();
        for dtype in [DType::F32, DType::F16] {
            let shape = shape(dims, 61, dtype);
            let device = Device::flex();
            let blocks = scattered(&texts, 61, stride);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            let mut together = store_on(&device, &shape);
            let found =
                pool.install(|| feed(&mut *together, dims, window, &texts, &blocks, &pieces));
            for (text, found) in texts.iter().zip(found) {
                let mut alone = store_on(&device, &shape);
                let blocks = scattered(&[*text], 61, 7);
                let expect = feed(&mut *alone, dims, window, &[*text], &blocks, &[text.len]);
                prop_assert_eq!(&found, &expect[0]);
            }
        }
    }
}

#[test]
fn what_an_earlier_text_left_does_no_harm() {
    let dims = Dims { heads: 2, kv_heads: 1, dim: 16 };
    let shape = shape(dims, 1, DType::F16);
    let device = Device::flex();
    let text = Text { seed: 1, len: 3 };
    let mut clean = store_on(&device, &shape);
    let expect = feed(&mut *clean, dims, None, &[text], &[vec![0]], &[3]);
    let mut used = store_on(&device, &shape);
    let layout = SequenceSpan { rows: 16, start: 0, blocks: vec![0] };
    used.begin(&BatchLayout { sequences: vec![layout] }).expect("begin");
    let infinite = || upload(vec![f32::INFINITY; 256], [16, 1, 16], &device);
    used.write(0, infinite(), upload(vec![f32::NAN; 256], [16, 1, 16], &device)).expect("write");
    let found = feed(&mut *used, dims, None, &[text], &[vec![0]], &[1]);
    assert_eq!(found, expect);
}

#[test]
fn copied_blocks_hold_what_the_first_ones_held() {
    let dims = Dims { heads: 4, kv_heads: 2, dim: 16 };
    let shape = shape(dims, 6, DType::F32);
    let device = Device::flex();
    let text = Text { seed: 4, len: 40 };
    let mut store = store_on(&device, &shape);
    step(&mut *store, dims, None, &[(text, 0..39, vec![4, 0, 2])]);
    store.copy_blocks(&[(4, 1), (0, 3), (2, 5)]).expect("copy");
    let first = step(&mut *store, dims, None, &[(text, 39..40, vec![4, 0, 2])]);
    let copy = step(&mut *store, dims, None, &[(text, 39..40, vec![1, 3, 5])]);
    assert_eq!(first, copy);
}
