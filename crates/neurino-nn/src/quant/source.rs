//! From GGUF's and GPTQ's order of integers to a panel's, and back, one row at a time.

use neurino_weights::dtype::{BLOCK, SUPER_BLOCK};

use super::format::PANEL;
use super::packed::{Packing, half};

/// Bytes of the nibbles of one block of a panel.
const NIBBLES: usize = BLOCK * PANEL / 2;

/// The smallest stored unit of a packing in GGUF.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub(super) weights: usize,
    pub(super) bytes: usize,
}

impl Stored {
    pub(super) fn of(packing: Packing) -> Option<Self> {
        let (weights, bytes) = match packing {
            Packing::Q4Symmetric => (BLOCK, 18),
            Packing::Q4Minimum => (BLOCK, 20),
            Packing::Q5Symmetric => (BLOCK, 22),
            Packing::Q5Minimum => (BLOCK, 24),
            Packing::Q8 => (BLOCK, 34),
            Packing::Q4K => (SUPER_BLOCK, 144),
            Packing::Q5K => (SUPER_BLOCK, 176),
            Packing::Q6K => (SUPER_BLOCK, 210),
            Packing::Grouped4 | Packing::Grouped8 => return None,
        };
        Some(Self { weights, bytes })
    }
}

/// Copies the row's 16-bit field at `from[at]` to place `index` of the head.
fn copy_half(from: &[u8], at: usize, lane: usize, index: usize, head: &mut [u8]) {
    head[2 * (index * PANEL + lane)..][..2].copy_from_slice(&from[at..at + 2]);
}

/// Scale and minimum of part `part` of eight, 6 bits each, in the 12 bytes of `Q4_K` and `Q5_K`.
fn six_bits(packed: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let both = packed[part + 4];
        (both & 15 | packed[part - 4] >> 6 << 4, both >> 4 | packed[part] >> 6 << 4)
    }
}

/// Writes one stored unit of a row to its lane of a group. The formats are described in
/// `neurino-weights`' `blocks` module.
pub(super) fn write_group(
    packing: Packing,
    from: &[u8],
    lane: usize,
    head: &mut [u8],
    quants: &mut [u8],
) {
    copy_half(from, if packing == Packing::Q6K { 208 } else { 0 }, lane, 0, head);
    match packing {
        Packing::Q4Minimum | Packing::Q5Minimum => copy_half(from, 2, lane, 1, head),
        Packing::Q4K | Packing::Q5K => {
            copy_half(from, 2, lane, 1, head);
            for part in 0..8 {
                let (scale, minimum) = six_bits(&from[4..16], part);
                let at = 4 * PANEL + part * 2 * PANEL + lane;
                (head[at], head[at + PANEL]) = (scale, minimum);
            }
        }
        Packing::Q6K => {
            for (part, scale) in from[192..208].iter().enumerate() {
                head[2 * PANEL + part * PANEL + lane] = *scale;
            }
        }
        _ => {}
    }
    let mut block = [0; BLOCK];
    for (part, quants) in quants.chunks_exact_mut(packing.quant_bytes() * PANEL).enumerate() {
        for (i, q) in block.iter_mut().enumerate() {
            *q = stored_quant(packing, from, part, i);
        }
        write_block(packing, &block, lane, quants);
    }
}

/// Integer `i` of block `part` in one stored unit.
fn stored_quant(packing: Packing, from: &[u8], part: usize, i: usize) -> u8 {
    let nibble = |start: usize| from[start + i % 16] >> (i / 16 * 4) & 15;
    let fifth = |start: usize| (from[start + i / 8] >> (i % 8) & 1) << 4;
    let pair_nibble = |start: usize| from[start + part / 2 * BLOCK + i] >> (part % 2 * 4) & 15;
    match packing {
        Packing::Q4Symmetric => nibble(2),
        Packing::Q4Minimum => nibble(4),
        Packing::Q5Symmetric => nibble(6) | fifth(2),
        Packing::Q5Minimum => nibble(8) | fifth(4),
        Packing::Q4K => pair_nibble(16),
        Packing::Q5K => pair_nibble(48) | (from[16 + i] >> part & 1) << 4,
        Packing::Q6K => {
            let (half, quarter) = (part / 4, part % 4);
            let low = from[half * 64 + quarter % 2 * BLOCK + i] >> (quarter / 2 * 4) & 15;
            low | (from[128 + half * BLOCK + i] >> (quarter * 2) & 3) << 4
        }
        Packing::Q8 | Packing::Grouped4 | Packing::Grouped8 => from[2 + i],
    }
}

/// Writes blocks of integers of 2, 4 or 8 bits, lowest bits first.
pub(super) fn write_plain(bits: u32, from: &[u8], lane: usize, quants: &mut [u8]) {
    let packing = if bits == 8 { Packing::Grouped8 } else { Packing::Grouped4 };
    let per_byte = 8 / bits as usize;
    let mask = ((1u32 << bits) - 1) as u8;
    let blocks = quants.chunks_exact_mut(packing.quant_bytes() * PANEL);
    for (from, quants) in from.chunks_exact(BLOCK / per_byte).zip(blocks) {
        let block =
            std::array::from_fn(|i| from[i / per_byte] >> ((i % per_byte) as u32 * bits) & mask);
        write_block(packing, &block, lane, quants);
    }
}

/// Where integer `i` of a lane has its low nibble in a block of a panel: byte and shift.
fn nibble_place(i: usize, lane: usize) -> (usize, u32) {
    let word = i / 2;
    (word / 2 * 2 * PANEL + 2 * lane + i % 2, (word % 2 * 4) as u32)
}

/// Where its bits beyond the nibble are.
fn plane_place(bits: usize, i: usize, lane: usize) -> (usize, u32) {
    let (word, words) = (i / 2, 8 / bits);
    (NIBBLES + word / words * 2 * PANEL + 2 * lane + i % 2, (word % words * bits) as u32)
}

/// Bits of an integer beyond the nibble.
fn plane_bits(packing: Packing) -> usize {
    match packing {
        Packing::Q5Symmetric | Packing::Q5Minimum | Packing::Q5K => 1,
        Packing::Q6K => 2,
        _ => 0,
    }
}

fn is_bytes(packing: Packing) -> bool {
    matches!(packing, Packing::Q8 | Packing::Grouped8)
}

/// Writes 32 integers to their lane; the bytes were zero.
fn write_block(packing: Packing, block: &[u8; BLOCK], lane: usize, quants: &mut [u8]) {
    for (i, &q) in block.iter().enumerate() {
        if is_bytes(packing) {
            quants[i / 2 * 2 * PANEL + 2 * lane + i % 2] = q;
            continue;
        }
        let (at, shift) = nibble_place(i, lane);
        quants[at] |= (q & 15) << shift;
        let bits = plane_bits(packing);
        if bits > 0 {
            let (at, shift) = plane_place(bits, i, lane);
            quants[at] |= q >> 4 << shift;
        }
    }
}

/// Appends the 32 integers of a lane; signed ones are lifted by 128.
pub(super) fn read_block(packing: Packing, quants: &[u8], lane: usize, out: &mut Vec<u8>) {
    out.extend((0..BLOCK).map(|i| {
        if is_bytes(packing) {
            let q = quants[i / 2 * 2 * PANEL + 2 * lane + i % 2];
            return if packing == Packing::Q8 { q ^ 128 } else { q };
        }
        let (at, shift) = nibble_place(i, lane);
        let low = quants[at] >> shift & 15;
        let bits = plane_bits(packing);
        if bits == 0 {
            return low;
        }
        let (at, shift) = plane_place(bits, i, lane);
        low | (quants[at] >> shift & ((1 << bits) - 1)) << 4
    }));
}

/// Scale and minimum of a lane in half `half` of a group's block `block`, for integers as
/// [`read_block`] gives them.
pub(super) fn read_scale(
    packing: Packing,
    head: &[u8],
    lane: usize,
    block: usize,
    half_block: usize,
) -> (f32, f32) {
    let field = |index: usize| half(head, 2 * (index * PANEL + lane));
    match packing {
        Packing::Q4Symmetric => (field(0), -8.0 * field(0)),
        Packing::Q5Symmetric => (field(0), -16.0 * field(0)),
        Packing::Q8 => (field(0), -128.0 * field(0)),
        Packing::Q4Minimum | Packing::Q5Minimum => (field(0), field(1)),
        Packing::Q4K | Packing::Q5K => {
            let at = 4 * PANEL + block * 2 * PANEL + lane;
            let (scale, minimum) = (f32::from(head[at]), f32::from(head[at + PANEL]));
            (field(0) * scale, -(field(1) * minimum))
        }
        Packing::Q6K => {
            let at = 2 * PANEL + (2 * block + half_block) * PANEL + lane;
            let scale = field(0) * f32::from(head[at].cast_signed());
            (scale, -32.0 * scale)
        }
        Packing::Grouped4 | Packing::Grouped8 => {
            let scale = f32::from_le_bytes(std::array::from_fn(|i| head[4 * lane + i]));
            (scale, -scale * f32::from(head[4 * PANEL + lane]))
        }
    }
}
