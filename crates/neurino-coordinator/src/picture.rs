//! Whether a submitted picture is the picture that was asked for.
//!
//! Read piece by piece without keeping the pixels, so that a small file that claims or unpacks to a
//! huge picture costs neither memory nor time: reading ends at the first byte that is too many. What
//! later checks need of the pixels is taken from the rows as they pass, see [`Facts`].

use flate2::{Crc, Decompress, FlushDecompress, Status};
use neurino_core::{ImageJob, ImageOutput, Png};
use neurino_protocol::node::PREVIEW_BYTES_MAX;

use crate::compare::{Facts, Look};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Bits of a sample, RGB, and the only compression, filtering and interlacing there is.
const RGB_8_BITS: [u8; 5] = [8, 2, 0, 0, 0];
/// Filters a row may name: none, sub, up, average, Paeth.
const FILTERS: u8 = 5;
/// Bytes unpacked at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Checks that a result holds the picture asked for and nothing else: an 8-bit RGB PNG of that width and
/// height, whole, with right checksums, without other chunks and without bytes behind its end. Returns
/// what is known of its pixels.
///
/// # Errors
/// What does not fit.
pub(crate) fn fits(picture: &ImageOutput, asked: (u32, u32)) -> Result<Facts, &'static str> {
    if (picture.width, picture.height) != asked {
        return Err("the picture has another size than asked for");
    }
    let mut look = Look::new(asked.0, asked.1);
    read(&picture.png.0, |width, height| (width, height) == asked, |row| look.row(row))?;
    Ok(look.finish())
}

/// The pixels of a picture that was checked before: three bytes each, row by row, at most
/// `ImageJob::SIDE_MAX` rows of as many.
pub(crate) fn pixels(picture: &ImageOutput) -> Result<Vec<u8>, &'static str> {
    let side = 1..=ImageJob::SIDE_MAX;
    let mut all = Vec::new();
    read(
        &picture.png.0,
        |width, height| side.contains(&width) && side.contains(&height),
        |row| all.extend_from_slice(row),
    )?;
    Ok(all)
}

/// Whether a preview is one: a small file of the same kind, no larger than the picture of a width and height.
pub(crate) fn is_preview(png: &Png, most: (u32, u32)) -> bool {
    png.0.len() <= PREVIEW_BYTES_MAX
        && read(
            &png.0,
            |width, height| (1..=most.0).contains(&width) && (1..=most.1).contains(&height),
            |_| {},
        )
        .is_ok()
}

/// Width and height that a PNG file claims, in pixels.
pub(crate) fn claimed_size(png: &Png) -> Option<(u32, u32)> {
    let header = png.0.get(SIGNATURE.len() + 8..)?;
    Some((number(header.get(..4)?), number(header.get(4..8)?)))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Reads a whole file of an accepted size row by row, or says what is wrong with it.
fn read(
    file: &[u8],
    accepts: impl FnOnce(u32, u32) -> bool,
    mut each_row: impl FnMut(&[u8]),
) -> Result<(), &'static str> {
    let mut rest = file.strip_prefix(SIGNATURE).ok_or("the picture is not a PNG file")?;
    let (kind, header) = chunk(&mut rest)?;
    if kind != b"IHDR" || header.len() != 13 {
        return Err("the picture has no header");
    }
    let (width, height) = (number(&header[..4]), number(&header[4..8]));
    if !accepts(width, height) {
        return Err("the picture's file has another size than asked for");
    }
    if header[8..] != RGB_8_BITS {
        return Err("the picture is not 8-bit RGB without interlacing");
    }
    let mut pixels = Pixels::new(width, height);
    loop {
        let (kind, data) = chunk(&mut rest)?;
        match kind {
            b"IDAT" => pixels.unpack(data, &mut each_row)?,
            b"IEND" if data.is_empty() && rest.is_empty() => return pixels.end(),
            b"IEND" => return Err("the picture has bytes behind its end"),
            _ => return Err("the picture carries more than its pixels"),
        }
    }
}

/// Takes the next chunk and checks its sum.
fn chunk<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8; 4], &'a [u8]), &'static str> {
    const ENDS: &str = "the picture ends before its end";
    let (length, after) = rest.split_first_chunk::<4>().ok_or(ENDS)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (kind, after) = after.split_first_chunk::<4>().ok_or(ENDS)?;
    let (data, after) = after.split_at_checked(length).ok_or(ENDS)?;
    let (sum, after) = after.split_first_chunk::<4>().ok_or(ENDS)?;
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    if crc.sum() != u32::from_be_bytes(*sum) {
        return Err("the picture's file is damaged");
    }
    *rest = after;
    Ok((kind, data))
}

/// The packed pixels: rows of a filter's number and three bytes a pixel.
struct Pixels {
    inflate: Decompress,
    piece: Vec<u8>,
    expected_bytes: u64,
    ended: bool,
    /// The row that is being read, its filter's number first, and how much of it is there.
    row: Vec<u8>,
    filled: usize,
    /// The row before it, without its filter; zeros above the first.
    above: Vec<u8>,
}

impl Pixels {
    fn new(width: u32, height: u32) -> Self {
        let row_bytes = 1 + 3 * u64::from(width);
        Self {
            inflate: Decompress::new(true),
            piece: vec![0; PIECE_BYTES],
            expected_bytes: row_bytes * u64::from(height),
            ended: false,
            row: vec![0; 1 + 3 * width as usize],
            filled: 0,
            above: vec![0; 3 * width as usize],
        }
    }

    fn unpack(
        &mut self,
        mut packed: &[u8],
        each_row: &mut impl FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        const DAMAGED: &str = "the picture's pixels are damaged";
        loop {
            if self.ended {
                let rest = packed.is_empty();
                return if rest { Ok(()) } else { Err("the picture has bytes behind its pixels") };
            }
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(packed, &mut self.piece, FlushDecompress::None)
                .map_err(|_| DAMAGED)?;
            let read = usize::try_from(self.inflate.total_in() - read).map_err(|_| DAMAGED)?;
            let count = self.inflate.total_out() - written;
            if written + count > self.expected_bytes {
                return Err("the picture has more pixels than its size");
            }
            self.take_rows(usize::try_from(count).map_err(|_| DAMAGED)?, each_row)?;
            packed = packed.get(read..).ok_or(DAMAGED)?;
            match status {
                Status::StreamEnd => self.ended = true,
                Status::Ok | Status::BufError if read > 0 || count > 0 => {}
                // Nothing moved: it waits for the next chunk, or is damaged.
                _ if packed.is_empty() => return Ok(()),
                _ => return Err(DAMAGED),
            }
        }
    }

    /// Takes the first bytes of the piece, and hands on each row that becomes whole.
    fn take_rows(
        &mut self,
        count: usize,
        each_row: &mut impl FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        let mut at = 0;
        while at < count {
            let take = (self.row.len() - self.filled).min(count - at);
            self.row[self.filled..self.filled + take].copy_from_slice(&self.piece[at..at + take]);
            (self.filled, at) = (self.filled + take, at + take);
            if self.filled < self.row.len() {
                break;
            }
            let (filter, samples) = self.row.split_first_mut().expect("a row has a filter");
            if *filter >= FILTERS {
                return Err("the picture's rows are damaged");
            }
            unfilter(*filter, samples, &self.above);
            each_row(samples);
            self.above.copy_from_slice(samples);
            self.filled = 0;
        }
        Ok(())
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.ended && self.inflate.total_out() == self.expected_bytes {
            Ok(())
        } else {
            Err("the picture has fewer pixels than its size")
        }
    }
}

/// Takes a row's filter away; `above` is the row before it.
fn unfilter(filter: u8, row: &mut [u8], above: &[u8]) {
    /// Bytes of a pixel.
    const PIXEL: usize = 3;
    for at in 0..row.len() {
        let left = if at >= PIXEL { row[at - PIXEL] } else { 0 };
        let up = above[at];
        let add = match filter {
            1 => left,
            2 => up,
            3 => u8::midpoint(left, up),
            4 => paeth(left, up, if at >= PIXEL { above[at - PIXEL] } else { 0 }),
            _ => 0,
        };
        row[at] = row[at].wrapping_add(add);
    }
}

/// Whichever of the three neighbours is nearest to left + up - corner.
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, up, corner].map(i16::from);
    let estimate = a + b - c;
    let (to_left, to_up, to_corner) =
        ((estimate - a).abs(), (estimate - b).abs(), (estimate - c).abs());
    if to_left <= to_up && to_left <= to_corner {
        left
    } else if to_up <= to_corner {
        up
    } else {
        corner
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn unpacking_ends_at_the_first_byte_that_is_too_many() {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 64 << 20]).expect("memory takes everything");
        let bomb = encoder.finish().expect("memory takes everything");
        let mut pixels = Pixels::new(100, 100);
        assert_eq!(
            pixels.unpack(&bomb, &mut |_| {}),
            Err("the picture has more pixels than its size")
        );
        assert!(pixels.inflate.total_out() <= (100 * 301 + PIECE_BYTES) as u64);
    }
    #[test]
    fn rows_come_out_as_a_common_encoder_put_them_in() {
        let (width, height) = (37_u32, 29_u32);
        let mut state = 1_u32;
        let samples: Vec<u8> = (0..width * height * 3)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (n / 3 % width * 5) as u8 ^ (state >> 28) as u8
            })
            .collect();
        for filter in [
            png::Filter::NoFilter,
            png::Filter::Sub,
            png::Filter::Up,
            png::Filter::Avg,
            png::Filter::Paeth,
            png::Filter::Adaptive,
        ] {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_filter(filter);
            let mut writer = encoder.write_header().expect("memory takes everything");
            writer.write_image_data(&samples).expect("memory takes everything");
            writer.finish().expect("memory takes everything");
            let picture = ImageOutput { png: Png(file), width, height };
            assert_eq!(pixels(&picture).as_deref(), Ok(&samples[..]), "{filter:?}");
        }
    }
}
