//! Decodes a large picture in overlapping tiles, so that memory is bounded by a tile.

use std::ops::Range;

use burn::tensor::Tensor;
use neurino_nn::device::{download, upload};

use super::{COLOURS, Vae};
use crate::DiffusionError;

/// How a picture is cut. Lengths are in latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows and columns of a tile.
    pub side: usize,
    /// Rows and columns that neighbours share at least, in which one fades into the other; less than
    /// `side`.
    pub overlap: usize,
}

impl Tiling {
    /// Tiles of 64 latents, 512 pixels for the usual autoencoders, that share a quarter.
    pub const USUAL: Self = Self { side: 64, overlap: 16 };
    /// Tiles of half the side, a quarter of the memory.
    pub const SMALL: Self = Self { side: 32, overlap: 8 };

    /// Where tiles lie along `len` latents: as few as cover it, all of the same length, evenly spread.
    pub fn along(&self, len: usize) -> Vec<Range<usize>> {
        let side = self.side.clamp(1, len.max(1));
        let step = side.saturating_sub(self.overlap).max(1);
        let count = 1 + (len - side).div_ceil(step);
        let start = |i: usize| if count == 1 { 0 } else { (len - side) * i / (count - 1) };
        (0..count).map(|i| start(i)..start(i) + side).collect()
    }
}

/// How much of a tile's pixels along one side counts: all, and less and less towards a neighbour.
fn fades(tiles: &[Range<usize>], at: usize, factor: usize) -> Vec<f32> {
    let tile = &tiles[at];
    let shared = |a: &Range<usize>, b: &Range<usize>| a.end.saturating_sub(b.start) * factor;
    let before = at.checked_sub(1).map_or(0, |i| shared(&tiles[i], tile));
    let behind = tiles.get(at + 1).map_or(0, |next| shared(tile, next));
    let len = tile.len() * factor;
    let ramp = |place: usize, over: usize| match over {
        0 => 1.0,
        over => ((place as f32 + 0.5) / over as f32).min(1.0),
    };
    (0..len).map(|i| ramp(i, before) * ramp(len - 1 - i, behind)).collect()
}

impl Vae {
    /// [`Vae::decode`] one picture and one tile at a time. Memory of the network is that of a tile;
    /// the picture itself is put together in ordinary memory. The tiles' norms and attention do not see
    /// the whole picture, so that large areas may differ slightly from [`Vae::decode`].
    ///
    /// # Shapes
    /// - `latents`: `[batch, height, width, latent channels]`; returns `[batch, factor * height, factor
    ///   * width, 3]`
    ///
    /// # Errors
    /// `Nn` if the device failed.
    pub fn decode_tiled(
        &self,
        latents: Tensor<4>,
        tiling: Tiling,
    ) -> Result<Tensor<4>, DiffusionError> {
        let [batch, height, width, channels] = latents.dims();
        let factor = self.config().factor();
        let (rows, columns) = (tiling.along(height), tiling.along(width));
        let device = latents.device();
        if rows.len() * columns.len() == 1 && batch == 1 {
            return Ok(self.decode(latents));
        }
        let row_len = width * factor;
        let pictures = self.with_decoder(|decoder| -> Result<_, DiffusionError> {
            let mut pictures = Vec::with_capacity(batch * height * factor * row_len * COLOURS);
            for i in 0..batch {
                let mut picture = Canvas::new(height * factor, row_len);
                for (down, row) in rows.iter().enumerate() {
                    for (right, column) in columns.iter().enumerate() {
                        let part = [i..i + 1, row.clone(), column.clone(), 0..channels];
                        let tile = decoder.forward(latents.clone().slice(part), &self.pulse);
                        let tile = download(tile)?;
                        let fades = [fades(&rows, down, factor), fades(&columns, right, factor)];
                        picture.add(&tile, [row.start * factor, column.start * factor], &fades);
                    }
                }
                pictures.extend(picture.finished());
            }
            Ok(pictures)
        })?;
        Ok(upload(pictures, [batch, height * factor, row_len, COLOURS], &device))
    }
}

/// A picture that is put together from tiles.
struct Canvas {
    row_len: usize,
    /// Sums of the tiles' values, each by what it counts.
    sums: Vec<f32>,
    /// What all tiles count together, of each pixel.
    counts: Vec<f32>,
}

impl Canvas {
    fn new(rows: usize, row_len: usize) -> Self {
        let pixels = rows * row_len;
        Self { row_len, sums: vec![0.0; pixels * COLOURS], counts: vec![0.0; pixels] }
    }

    fn add(&mut self, tile: &[f32], [top, left]: [usize; 2], [down, right]: &[Vec<f32>; 2]) {
        for (y, (row, fade)) in tile.chunks(right.len() * COLOURS).zip(down).enumerate() {
            for (x, (pixel, other)) in row.chunks(COLOURS).zip(right).enumerate() {
                let at = (top + y) * self.row_len + left + x;
                let count = fade * other;
                self.counts[at] += count;
                for (sum, value) in self.sums[at * COLOURS..].iter_mut().zip(pixel) {
                    *sum += value * count;
                }
            }
        }
    }

    fn finished(mut self) -> Vec<f32> {
        for (pixel, count) in self.sums.chunks_mut(COLOURS).zip(&self.counts) {
            for value in pixel {
                *value /= count;
            }
        }
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_everything_and_share_what_was_asked() {
        for len in 1..150 {
            for (side, overlap) in [(64, 16), (8, 2), (5, 4), (3, 0), (200, 16)] {
                let tiles = Tiling { side, overlap }.along(len);
                assert_eq!((tiles[0].start, tiles[tiles.len() - 1].end), (0, len));
                for pair in tiles.windows(2) {
                    assert!(pair[0].end >= pair[1].start + overlap, "{len} {side} {tiles:?}");
                    assert_eq!(pair[0].len(), pair[1].len());
                }
            }
        }
    }

    #[test]
    fn a_picture_of_equal_tiles_is_their_value() {
        let tiles = Tiling { side: 6, overlap: 4 }.along(13);
        let mut canvas = Canvas::new(26, 26);
        for (i, row) in tiles.iter().enumerate() {
            for (j, column) in tiles.iter().enumerate() {
                let fades = [fades(&tiles, i, 2), fades(&tiles, j, 2)];
                canvas.add(&[0.25; 12 * 12 * 3], [row.start * 2, column.start * 2], &fades);
            }
        }
        assert!(canvas.finished().iter().all(|value| (value - 0.25).abs() < 1e-6));
    }
}
