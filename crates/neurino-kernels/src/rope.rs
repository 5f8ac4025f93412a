//! Rotates queries and keys and writes keys and values into the paged cache, in one launch.
//!
//! # The cache
//! Blocks of [`BLOCK_TOKENS`] tokens. A block holds, for each key-value head, its keys as
//! `[dim / 8, token, 8]`, so that the lanes of a warp that score one token each read neighbouring
//! vectors, and its values as `[token, dim]`, so that lanes that gather one feature each do.
//! The slot of a token is `block * BLOCK_TOKENS + token`.
//!
//! Source: Su et al. 2021, in Hugging Face's layout (the pair of feature `i` is `i + dim / 2`);
//! Kwon et al. 2023 for the blocks and the layout of keys.

use cubecl::prelude::*;
use half::f16;

use crate::buffer::Buffer;
use crate::gpu::{Gpu, Unsupported};

/// Tokens of a block of the cache.
pub const BLOCK_TOKENS: usize = 16;
/// The slot of a row whose keys and values go nowhere: the padding of a batch of fixed size.
pub const NO_SLOT: u32 = u32::MAX;

/// The heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Heads {
    /// Query heads, a multiple of `kv`.
    pub query: usize,
    /// Key-value heads.
    pub kv: usize,
    /// Features of a head.
    pub dim: usize,
}

impl Heads {
    /// Query heads that share a key-value head.
    pub const fn group(self) -> usize {
        self.query / self.kv
    }

    /// Values of the keys (or of the values) of one block.
    pub const fn block_values(self) -> usize {
        self.kv * self.dim * BLOCK_TOKENS
    }

    pub(crate) fn check(self) -> Result<(), Unsupported> {
        if self.kv == 0 || self.dim == 0 || !self.query.is_multiple_of(self.kv) {
            return Err(Unsupported("query heads that are no multiple of the key heads"));
        }
        if !self.dim.is_multiple_of(8) {
            return Err(Unsupported("heads that are not a multiple of eight features"));
        }
        Ok(())
    }
}

/// One unit a feature pair of a head of queries, keys or values.
#[cube(launch_unchecked)]
fn rope_kernel<C: Float>(
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
    cos: &[f32],
    sin: &[f32],
    angles: &[u32],
    slots: &[u32],
    rotated: &mut [f32],
    key_cache: &mut [C],
    value_cache: &mut [C],
    rows: u32,
    #[comptime] heads: Heads,
) {
    let half = comptime!(heads.dim / 2);
    let row_pairs = comptime!((heads.query + 2 * heads.kv) * heads.dim / 2);
    let at = ABSOLUTE_POS;
    if at < rows as usize * row_pairs {
        let row = at / row_pairs;
        let head = at % row_pairs / half;
        let i = at % half;
        let angle = angles[row] as usize * half + i;
        let cos = cos[angle];
        let sin = sin[angle];
        if head < heads.query {
            let first = (row * heads.query + head) * heads.dim + i;
            let (a, b) = (queries[first], queries[first + half]);
            rotated[first] = fma(a, cos, -(b * sin));
            rotated[first + half] = fma(b, cos, a * sin);
        } else {
            let slot = slots[row];
            if slot != NO_SLOT {
                let block = slot as usize / BLOCK_TOKENS;
                let token = slot as usize % BLOCK_TOKENS;
                let kv_head = (head - heads.query) % heads.kv;
                let first = (row * heads.kv + kv_head) * heads.dim + i;
                let base = (block * heads.kv + kv_head) * comptime!(heads.dim * BLOCK_TOKENS);
                if head < comptime!(heads.query + heads.kv) {
                    let (a, b) = (keys[first], keys[first + half]);
                    let place = base + (i / 8 * BLOCK_TOKENS + token) * 8 + i % 8;
                    key_cache[place] = C::cast_from(fma(a, cos, -(b * sin)));
                    let i = i + half;
                    let place = base + (i / 8 * BLOCK_TOKENS + token) * 8 + i % 8;
                    key_cache[place] = C::cast_from(fma(b, cos, a * sin));
                } else {
                    let place = base + token * heads.dim + i;
                    value_cache[place] = C::cast_from(values[first]);
                    value_cache[place + half] = C::cast_from(values[first + half]);
                }
            }
        }
    }
}

/// The keys and values of one layer, f16.
#[derive(Debug, Clone)]
pub struct LayerCache {
    /// `[blocks, kv heads, dim / 8, BLOCK_TOKENS, 8]`
    pub keys: Buffer,
    /// `[blocks, kv heads, BLOCK_TOKENS, dim]`
    pub values: Buffer,
}

/// New rows, and where they belong.
#[derive(Debug, Clone, Copy)]
pub struct NewRows<'a> {
    /// `[rows, heads.query, dim]`, f32.
    pub queries: &'a Buffer,
    /// `[rows, heads.kv, dim]`, f32.
    pub keys: &'a Buffer,
    /// `[rows, heads.kv, dim]`, f32.
    pub values: &'a Buffer,
    /// `[angles, dim / 2]`, f32.
    pub cos: &'a Buffer,
    /// `[angles, dim / 2]`, f32.
    pub sin: &'a Buffer,
    /// `[rows]`, u32: each row's line of `cos` and `sin`.
    pub angles: &'a Buffer,
    /// `[rows]`, u32: where keys and values go, or [`NO_SLOT`].
    pub slots: &'a Buffer,
}

/// Launches the rotation of `new.queries` into `rotated`, and that of the keys, with the values, into
/// the cache. Lines and slots that do not exist are the caller's mistake and undefined.
///
/// # Errors
/// `Unsupported` for heads without a kernel.
///
/// # Panics
/// If the lengths of the buffers do not fit together.
pub fn rope_kv_write(
    gpu: &Gpu,
    heads: Heads,
    new: &NewRows<'_>,
    rotated: &Buffer,
    cache: &LayerCache,
) -> Result<(), Unsupported> {
    heads.check()?;
    if !heads.dim.is_multiple_of(16) {
        return Err(Unsupported("rotated heads that are not a multiple of sixteen features"));
    }
    let rows = new.slots.len();
    let [q, kv] = [heads.query, heads.kv].map(|heads_| rows * heads_ * heads.dim);
    assert!(new.queries.len() == q && rotated.len() == q, "queries of {rows} rows");
    assert!(new.keys.len() == kv && new.values.len() == kv, "keys and values of {rows} rows");
    assert!(new.angles.len() == rows && new.cos.len() == new.sin.len(), "angles of {rows} rows");
    assert_eq!(cache.keys.len(), cache.values.len(), "a cache of keys and values");
    let units = rows * (heads.query + 2 * heads.kv) * heads.dim / 2;
    // SAFETY: the lengths were checked; lines and slots are promised by the caller's contract.
    #[expect(unsafe_code, reason = "unchecked access is what makes the kernel fast")]
    unsafe {
        rope_kernel::launch_unchecked::<f16>(
            &gpu.client,
            CubeCount::Static(units.div_ceil(gpu.cut.units()) as u32, 1, 1),
            gpu.cut.dim(),
            new.queries.arg(1),
            new.keys.arg(1),
            new.values.arg(1),
            new.cos.arg(1),
            new.sin.arg(1),
            new.angles.arg(1),
            new.slots.arg(1),
            rotated.arg(1),
            cache.keys.arg(1),
            cache.values.arg(1),
            rows as u32,
            heads,
        );
    }
    Ok(())
}

#[cfg(feature = "cpu-runtime")]
pub(crate) fn ptx_cases() -> Vec<crate::ptx::Case> {
    use crate::ptx::{BUFFER as B, Case, device, settings, target};
    let heads = Heads { query: 32, kv: 8, dim: 128 };
    let settings = settings(crate::lanes::Cut::CUDA);
    let kernel = rope_kernel::RopeKernel::<f16>::new(
        settings,
        device(),
        target(),
        B,
        B,
        B,
        B,
        B,
        B,
        B,
        B,
        B,
        B,
        (),
        heads,
    );
    vec![Case::new("rope_kv_write", kernel)]
}
