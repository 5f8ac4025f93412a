//! The block formats as kernels read them: 16 output features side by side.
//!
//! A *panel* is 16 rows of a matrix. It is a run of *groups*, each some blocks of 32 inputs: first a
//! head with the scales, then the integers of the blocks. Everything in a head is 16 wide, one for each
//! row of the panel; halves are IEEE:
//! - `Simple`: `d`; w = d * (q - offset)
//! - `Minimum`: `d`, `m`; w = d * q + m
//! - K with minima: `d`, `dmin`, then for each of 8 blocks bytes `s` and `m`; w = d * s * q - dmin * m
//! - `Q6K`: `d`, then signed bytes `s` for each 16 of 256 inputs; w = d * s * (q - 32)
//! - `Grouped`: f32 `d`, bytes `z`; w = d * (q - z)
//!
//! Integers come in *words*: word `w` holds the inputs `2w` and `2w + 1` of all 16 rows, 32 numbers.
//! Low nibbles of a chunk of 32 bytes are one word, its high nibbles the next. What goes beyond 4 bits
//! lies in planes behind the nibbles, lower words in lower bits.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use neurino_weights::dtype::BLOCK;

use crate::simd::{LANES, Simd};

/// Rows of a panel.
pub(super) const PANEL: usize = LANES;
/// Bytes of the nibbles of one block of a panel.
const NIBBLES: usize = BLOCK * PANEL / 2;

/// How a kernel reads one packing.
pub(super) trait Format: Copy + Send + Sync {
    /// Bytes of the integers of one block of a panel.
    const QUANT_BYTES: usize;
    /// Bytes before the integers of a group.
    const HEAD_BYTES: usize;
    /// Whether a block's second half has a scale of its own; else `scales` may give a minimum.
    const SPLIT: bool;
    /// Whether weights have minima: with `SPLIT` they have none.
    const MINIMA: bool;

    /// Scale and minimum of block `block` in its group, or the scales of its halves.
    fn scales<S: Simd>(s: S, head: &[u8], block: usize) -> [S::F; 2];
    /// The words `2 * chunk` and `2 * chunk + 1`, widened; `chunk` is a constant below 8.
    fn words<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2];
}

#[inline(always)]
pub(super) fn halves(head: &[u8], index: usize) -> [u16; LANES] {
    let mut out = [0; LANES];
    let bytes = head[index * 2 * LANES..][..2 * LANES].as_chunks::<2>().0;
    for (out, &pair) in out.iter_mut().zip(bytes) {
        *out = u16::from_le_bytes(pair);
    }
    out
}

#[inline(always)]
fn bytes<const N: usize>(from: &[u8], start: usize) -> &[u8; N] {
    from[start..].first_chunk().expect("a head or block is as long as its format says")
}

#[inline(always)]
fn nibbles<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
    let both = s.widen_u8(bytes(quants, chunk * 2 * LANES));
    [s.and(both, 15), s.shr(both, 4)]
}

/// Bits `0..BITS` of a plane's bytes for word `word`, moved to where they stand in the integer.
#[inline(always)]
fn plane<S: Simd, const BITS: usize>(s: S, quants: &[u8], word: usize) -> S::W {
    let words = 8 / BITS;
    let packed = s.widen_u8(bytes(quants, NIBBLES + word / words * 2 * LANES));
    let at = word % words * BITS;
    let moved = if at <= 4 { s.shl(packed, 4 - at as u32) } else { s.shr(packed, at as u32 - 4) };
    s.and(moved, ((1 << BITS) - 1) << 4)
}

#[inline(always)]
fn fifth<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
    let [low, high] = nibbles(s, quants, chunk);
    [
        s.or(low, plane::<S, 1>(s, quants, 2 * chunk)),
        s.or(high, plane::<S, 1>(s, quants, 2 * chunk + 1)),
    ]
}

/// d, and what a symmetric format's offset amounts to.
#[inline(always)]
fn simple<S: Simd>(s: S, head: &[u8], offset: f32) -> [S::F; 2] {
    let d = s.load_f16(&halves(head, 0));
    [d, s.mul(d, s.splat(-offset))]
}

#[inline(always)]
fn minimum<S: Simd>(s: S, head: &[u8]) -> [S::F; 2] {
    [s.load_f16(&halves(head, 0)), s.load_f16(&halves(head, 1))]
}

#[inline(always)]
fn super_block<S: Simd>(s: S, head: &[u8], block: usize) -> [S::F; 2] {
    let [d, dmin] = minimum(s, head);
    let at = 4 * LANES + block * 2 * LANES;
    let (scale, least) = (s.load_u8(bytes(head, at)), s.load_u8(bytes(head, at + LANES)));
    let nothing = s.splat(0.0);
    [s.mul(d, scale), s.sub(nothing, s.mul(dmin, least))]
}

macro_rules! format {
    ($(#[$doc:meta])* $name:ident, quants $quants:expr, head $head:expr,
     scales |$s:ident, $h:ident, $b:ident| $scales:expr, words $words:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name;

        impl Format for $name {
            const QUANT_BYTES: usize = $quants;
            const HEAD_BYTES: usize = $head;
            const SPLIT: bool = false;
            const MINIMA: bool = true;

            #[inline(always)]
            fn scales<S: Simd>($s: S, $h: &[u8], $b: usize) -> [S::F; 2] {
                $scales
            }
            #[inline(always)]
            fn words<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
                $words(s, quants, chunk)
            }
        }
    };
}

format!(
    /// `Q4_0`.
    Q4Symmetric, quants NIBBLES, head 2 * LANES,
    scales |s, head, _block| simple(s, head, 8.0), words nibbles
);
format!(
    /// `Q4_1`.
    Q4Minimum, quants NIBBLES, head 4 * LANES,
    scales |s, head, _block| minimum(s, head), words nibbles
);
format!(
    /// `Q5_0`.
    Q5Symmetric, quants NIBBLES + NIBBLES / 4, head 2 * LANES,
    scales |s, head, _block| simple(s, head, 16.0), words fifth
);
format!(
    /// `Q5_1`.
    Q5Minimum, quants NIBBLES + NIBBLES / 4, head 4 * LANES,
    scales |s, head, _block| minimum(s, head), words fifth
);
format!(
    /// `Q4_K`.
    Q4K, quants NIBBLES, head 4 * LANES + 8 * 2 * LANES,
    scales |s, head, block| super_block(s, head, block), words nibbles
);
format!(
    /// `Q5_K`.
    Q5K, quants NIBBLES + NIBBLES / 4, head 4 * LANES + 8 * 2 * LANES,
    scales |s, head, block| super_block(s, head, block), words fifth
);
format!(
    /// 4-bit groups with zero points.
    Grouped4, quants NIBBLES, head 6 * LANES,
    scales |s, head, _block| grouped(s, head), words nibbles
);
format!(
    /// 8-bit groups with zero points.
    Grouped8, quants BLOCK * PANEL, head 6 * LANES,
    scales |s, head, _block| grouped(s, head), words unsigned
);

#[inline(always)]
fn grouped<S: Simd>(s: S, head: &[u8]) -> [S::F; 2] {
    let mut d = [0.0; LANES];
    for (d, &four) in d.iter_mut().zip(head[..4 * LANES].as_chunks::<4>().0) {
        *d = f32::from_le_bytes(four);
    }
    let d = s.load(&d);
    let zero = s.load_u8(bytes(head, 4 * LANES));
    [d, s.sub(s.splat(0.0), s.mul(d, zero))]
}

#[inline(always)]
fn unsigned<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
    let word = |word: usize| s.widen_u8(bytes(quants, word * 2 * LANES));
    [word(2 * chunk), word(2 * chunk + 1)]
}

/// `Q8_0`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Q8;

impl Format for Q8 {
    const QUANT_BYTES: usize = BLOCK * PANEL;
    const HEAD_BYTES: usize = 2 * LANES;
    const SPLIT: bool = false;
    const MINIMA: bool = false;

    #[inline(always)]
    fn scales<S: Simd>(s: S, head: &[u8], _block: usize) -> [S::F; 2] {
        let d = s.load_f16(&halves(head, 0));
        [d, d]
    }
    #[inline(always)]
    fn words<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
        let word = |word: usize| s.widen_i8(bytes(quants, word * 2 * LANES));
        [word(2 * chunk), word(2 * chunk + 1)]
    }
}

/// `Q6_K`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Q6K;

impl Format for Q6K {
    const QUANT_BYTES: usize = NIBBLES + NIBBLES / 2;
    const HEAD_BYTES: usize = 2 * LANES + 16 * LANES;
    const SPLIT: bool = true;
    const MINIMA: bool = false;

    #[inline(always)]
    fn scales<S: Simd>(s: S, head: &[u8], block: usize) -> [S::F; 2] {
        let d = s.load_f16(&halves(head, 0));
        let at = 2 * LANES + block * 2 * LANES;
        let half = |at: usize| s.mul(d, s.load_i8(bytes(head, at)));
        [half(at), half(at + LANES)]
    }
    #[inline(always)]
    fn words<S: Simd>(s: S, quants: &[u8], chunk: usize) -> [S::W; 2] {
        let [low, high] = nibbles(s, quants, chunk);
        let whole =
            |low: S::W, word: usize| s.sub_words(s.or(low, plane::<S, 2>(s, quants, word)), 32);
        [whole(low, 2 * chunk), whole(high, 2 * chunk + 1)]
    }
}
