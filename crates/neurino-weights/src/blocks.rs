//! GGUF's block formats, as ggml defines them (little endian).
//!
//! Blocks of 32 consecutive weights of a row; in the 4- and 5-bit formats the low nibbles are the
//! first 16 weights, the high nibbles the last 16, and bit `i` of `h` is the fifth bit of weight `i`:
//! - `Q4_0`: f16 d, 16 bytes; w = d * (q - 8)
//! - `Q4_1`: f16 d, f16 m, 16 bytes; w = d * q + m
//! - `Q5_0`: f16 d, u32 h, 16 bytes; w = d * (q - 16)
//! - `Q5_1`: f16 d, f16 m, u32 h, 16 bytes; w = d * q + m
//! - `Q8_0`: f16 d, 32 i8; w = d * q
//!
//! Blocks of 256:
//! - `Q4_K`: f16 d, f16 dmin, 12 bytes with eight 6-bit scales s and minima m, 128 bytes: 32 bytes for
//!   every 64 weights, low nibbles first; w = (d * s) * q - (dmin * m)
//! - `Q5_K`: the same with 32 bytes of fifth bits before the nibbles
//! - `Q6_K`: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen i8 scales s, f16 d;
//!   w = (d * s) * (q - 32)
//!
//! Each product is rounded to f32 in the order written, as the reference does.

use half::f16;

use crate::dtype::{BLOCK, SUPER_BLOCK};

/// Unpacks block after block.
pub(crate) fn each<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        unpack(block, out);
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn nibbles(quants: &[u8], out: &mut [f32; BLOCK], weight: impl Fn(usize, u8) -> f32) {
    for (i, byte) in quants.iter().enumerate() {
        out[i] = weight(i, byte & 15);
        out[i + BLOCK / 2] = weight(i + BLOCK / 2, byte >> 4);
    }
}

/// Bit `i` of the fifth bits, as the 16 it stands for.
fn fifth(bits: &[u8], i: usize) -> u8 {
    (bits[i / 8] >> (i % 8) & 1) << 4
}

pub(crate) fn q4_0(block: &[u8; 18], out: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    nibbles(&block[2..], out, |_, q| d * (f32::from(q) - 8.0));
}

pub(crate) fn q4_1(block: &[u8; 20], out: &mut [f32; BLOCK]) {
    let (d, m) = (half(block, 0), half(block, 2));
    nibbles(&block[4..], out, |_, q| d * f32::from(q) + m);
}

pub(crate) fn q5_0(block: &[u8; 22], out: &mut [f32; BLOCK]) {
    let (d, high) = (half(block, 0), &block[2..6]);
    nibbles(&block[6..], out, |i, q| d * (f32::from(q | fifth(high, i)) - 16.0));
}

pub(crate) fn q5_1(block: &[u8; 24], out: &mut [f32; BLOCK]) {
    let (d, m, high) = (half(block, 0), half(block, 2), &block[4..8]);
    nibbles(&block[8..], out, |i, q| d * f32::from(q | fifth(high, i)) + m);
}

pub(crate) fn q8_0(block: &[u8; 34], out: &mut [f32; BLOCK]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Scale and minimum of part `part` (of eight) in the 12 bytes of `Q4_K` and `Q5_K`.
fn scale_and_minimum(packed: &[u8], part: usize) -> (f32, f32) {
    let (scale, minimum) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let both = packed[part + 4];
        (both & 15 | packed[part - 4] >> 6 << 4, both >> 4 | packed[part] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

pub(crate) fn q4_k(block: &[u8; 144], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (part, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], part);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let shift = part % 2 * 4;
        let quants = &block[16 + part / 2 * BLOCK..][..BLOCK];
        for (out, q) in out.iter_mut().zip(quants) {
            *out = scale * f32::from(q >> shift & 15) - minimum;
        }
    }
}

pub(crate) fn q5_k(block: &[u8; 176], out: &mut [f32; SUPER_BLOCK]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let high = &block[16..48];
    for (part, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], part);
        let (scale, minimum) = (d * scale, dmin * minimum);
        let shift = part % 2 * 4;
        let quants = &block[48 + part / 2 * BLOCK..][..BLOCK];
        for ((out, q), high) in out.iter_mut().zip(quants).zip(high) {
            let q = q >> shift & 15 | (high >> part & 1) << 4;
            *out = scale * f32::from(q) - minimum;
        }
    }
}

pub(crate) fn q6_k(block: &[u8; 210], out: &mut [f32; SUPER_BLOCK]) {
    let (low, high, scales, d) =
        (&block[..128], &block[128..192], &block[192..208], half(block, 208));
    // Each half of the block has 64 bytes of nibbles, 32 bytes of bit pairs and 8 scales.
    for (part, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let (half, quarter) = (part / 4, part % 4);
        let low = &low[half * 64 + quarter % 2 * BLOCK..][..BLOCK];
        let high = &high[half * BLOCK..][..BLOCK];
        for (i, out) in out.iter_mut().enumerate() {
            let q = low[i] >> (quarter / 2 * 4) & 15 | (high[i] >> (quarter * 2) & 3) << 4;
            let scale = f32::from(scales[part * 2 + i / 16].cast_signed());
            *out = d * scale * (f32::from(q) - 32.0);
        }
    }
}
