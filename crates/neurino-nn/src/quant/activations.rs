//! Activations as 16-bit integers with one scale for every 32, so that the dot product with packed
//! weights is integer work. With 15 bits the rounding costs 1e-5 of a result, a hundredth of what
//! the usual 8 bits cost, so that tokens agree with those of unpacked weights.
#![expect(
    clippy::inline_always,
    reason = "a function that is not inlined into its caller loses the caller's instruction set"
)]

use neurino_weights::dtype::BLOCK;
use rayon::prelude::*;

use crate::simd::{Isa, Kernel, Simd};

/// The largest magnitude of a quantised activation.
const LIMIT: f32 = 32_767.0;
/// Adding 1.5 * 2^23 leaves the rounded integer in the low bits of an f32.
const ROUNDER: f32 = 12_582_912.0;
/// Pairs of activations in a block.
pub(super) const PAIRS: usize = BLOCK / 2;
/// From this many values on, quantising is shared among threads.
const PARALLEL_VALUES_MIN: usize = 1 << 16;

/// Rows that a kernel takes at once; the more, the less often weights are unpacked.
pub(super) fn tile_sizes(isa: Isa) -> &'static [usize] {
    if isa.is_wide() { &[8, 4, 2, 1] } else { &[4, 2, 1] }
}

/// Quantised rows, cut into tiles.
#[derive(Debug)]
pub(crate) struct Activations {
    tiles: Vec<Tile>,
}

/// Some rows side by side, block after block.
#[derive(Debug)]
pub(super) struct Tile {
    /// Where it begins.
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// `[blocks, rows]`
    pub(super) scales: Vec<f32>,
    /// The sum of a block's activations, for the weights' minima: `[blocks, rows]`.
    pub(super) sums: Vec<f32>,
    /// Two 16-bit integers each, `[blocks, PAIRS, rows]`.
    pub(super) pairs: Vec<i32>,
}

impl Activations {
    /// Quantises rows of `in_features` values each; `in_features` is a multiple of 32. With an
    /// `order`, value `i` of a row becomes what stood at `order[i]`.
    pub(crate) fn new(values: &[f32], in_features: usize, order: Option<&[u32]>, isa: Isa) -> Self {
        let rows = values.len() / in_features;
        let mut cuts = Vec::new();
        let mut first_row = 0;
        for &size in tile_sizes(isa) {
            while rows - first_row >= size {
                cuts.push((first_row, size));
                first_row += size;
            }
        }
        let make = |&(first_row, rows): &(usize, usize)| {
            let values = &values[first_row * in_features..][..rows * in_features];
            let ordered: Vec<f32>;
            let values = match order {
                None => values,
                Some(order) => {
                    let rows = values.chunks_exact(in_features);
                    ordered = rows
                        .flat_map(|row| order.iter().map(|&input| row[input as usize]))
                        .collect();
                    &ordered
                }
            };
            let blocks = in_features / BLOCK;
            let mut tile = Tile {
                first_row,
                rows,
                scales: vec![0.0; blocks * rows],
                sums: vec![0.0; blocks * rows],
                pairs: vec![0; blocks * PAIRS * rows],
            };
            isa.run(Quantize { tile: &mut tile, values });
            tile
        };
        let tiles = if values.len() >= PARALLEL_VALUES_MIN {
            cuts.par_iter().map(make).collect()
        } else {
            cuts.iter().map(make).collect()
        };
        Self { tiles }
    }

    pub(super) fn tiles(&self) -> &[Tile] {
        &self.tiles
    }
}

struct Quantize<'a> {
    tile: &'a mut Tile,
    values: &'a [f32],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.tile.rows;
        let in_features = self.values.len() / rows;
        for (row, values) in self.values.chunks_exact(in_features).enumerate() {
            for (block, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
                let (scale, quants, sum) = quantize(s, values);
                let at = block * rows + row;
                self.tile.scales[at] = scale;
                self.tile.sums[at] = sum as f32 * scale;
                let pairs = &mut self.tile.pairs[block * PAIRS * rows + row..];
                for (pair, out) in
                    quants.as_chunks::<2>().0.iter().zip(pairs.iter_mut().step_by(rows))
                {
                    *out = i32::from(pair[0] as u16) | i32::from(pair[1]) << 16;
                }
            }
        }
    }
}

#[inline(always)]
fn quantize<S: Simd>(s: S, block: &[f32; BLOCK]) -> (f32, [i16; BLOCK], i32) {
    let mut largest = s.splat(0.0);
    for part in block.as_chunks().0 {
        let x = s.load(part);
        largest = s.max(s.max(x, s.sub(s.splat(0.0), x)), largest);
    }
    let largest = s.largest(largest);
    let inverse = if largest > 0.0 { LIMIT / largest } else { 0.0 };
    let mut quants = [0i16; BLOCK];
    let mut sum = 0i32;
    for (quant, x) in quants.iter_mut().zip(block) {
        let rounded = (x * inverse + ROUNDER).to_bits().cast_signed();
        let rounded = rounded.wrapping_sub(ROUNDER.to_bits().cast_signed());
        *quant = rounded as i16;
        sum += i32::from(*quant);
    }
    (largest / LIMIT, quants, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_and_keeps_zero_blocks() {
        let mut values = [0.0f32; 2 * BLOCK];
        for (i, value) in values[..BLOCK].iter_mut().enumerate() {
            *value = (i as f32 * 0.9).sin() * 3.0;
        }
        for isa in Isa::available() {
            let quantised = Activations::new(&values, 2 * BLOCK, None, isa);
            let [tile] = quantised.tiles() else { panic!("one row is one tile") };
            for (i, value) in values[..BLOCK].iter().enumerate() {
                let quant = (tile.pairs[i / 2] >> (i % 2 * 16)) as i16;
                let step = tile.scales[0];
                assert!((f32::from(quant) * step - value).abs() <= 0.51 * step);
            }
            assert!((tile.sums[0] - values.iter().sum::<f32>()).abs() < 1e-3);
            assert_eq!((tile.scales[1], &tile.pairs[PAIRS..]), (0.0, &[0; PAIRS][..]));
        }
    }

    #[test]
    fn rows_are_cut_into_tiles_and_put_in_order() {
        let (rows, features) = (11, BLOCK);
        let values: Vec<f32> = (0..rows * features).map(|i| (i as f32 * 0.3).cos()).collect();
        let order: Vec<u32> = (0..features as u32).rev().collect();
        for isa in Isa::available() {
            let cut = Activations::new(&values, features, Some(&order), isa);
            assert_eq!(cut.tiles().iter().map(|tile| tile.rows).sum::<usize>(), rows);
            for tile in cut.tiles() {
                for row in 0..tile.rows {
                    let first = tile.pairs[row] as i16;
                    let expect = values[(tile.first_row + row) * features + features - 1];
                    let found = f32::from(first) * tile.scales[row];
                    assert!((found - expect).abs() < 1e-4, "{isa:?} {found} {expect}");
                }
            }
        }
    }
}
