//! Whether a submitted picture is the picture that was asked for.
//!
//! Read piece by piece without keeping the pixels, so that a small file that claims or unpacks to a
//! huge picture costs neither memory nor time: reading ends at the first byte that is too many.

use flate2::{Crc, Decompress, FlushDecompress, Status};
use neurino_core::{ImageJob, ImageOutput, Png};
use neurino_protocol::node::PREVIEW_BYTES_MAX;
use neurino_protocol::{ErrorBody, ErrorCode};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Bits of a sample, RGB, and the only compression, filtering and interlacing there is.
const RGB_8_BITS: [u8; 5] = [8, 2, 0, 0, 0];
/// Filters a row may name: none, sub, up, average, Paeth.
const FILTERS: u8 = 5;
/// Bytes unpacked at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Checks that a result holds the job's picture and nothing else: an 8-bit RGB PNG of the size asked
/// for, whole, with right checksums, without other chunks and without bytes behind its end.
///
/// # Errors
/// `InvalidRequest` naming what does not fit.
pub(crate) fn fits_job(picture: &ImageOutput, job: &ImageJob) -> Result<(), ErrorBody> {
    let refuse = |message: &str| Err(ErrorBody::new(ErrorCode::InvalidRequest, message));
    if (picture.width, picture.height) != (job.width, job.height) {
        return refuse("the picture has another size than asked for");
    }
    match read(&picture.png.0, |width, height| (width, height) == (job.width, job.height)) {
        Ok(()) => Ok(()),
        Err(fault) => refuse(fault),
    }
}

/// Whether a preview is one: a small file of the same kind, no larger than the picture.
pub(crate) fn is_preview(png: &Png, job: &ImageJob) -> bool {
    png.0.len() <= PREVIEW_BYTES_MAX
        && read(&png.0, |width, height| {
            (1..=job.width).contains(&width) && (1..=job.height).contains(&height)
        })
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

/// Reads a whole file of an accepted size, or says what is wrong with it.
fn read(file: &[u8], accepts: impl FnOnce(u32, u32) -> bool) -> Result<(), &'static str> {
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
            b"IDAT" => pixels.unpack(data)?,
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
    row_bytes: u64,
    expected_bytes: u64,
    ended: bool,
}

impl Pixels {
    fn new(width: u32, height: u32) -> Self {
        let row_bytes = 1 + 3 * u64::from(width);
        Self {
            inflate: Decompress::new(true),
            piece: vec![0; PIECE_BYTES],
            row_bytes,
            expected_bytes: row_bytes * u64::from(height),
            ended: false,
        }
    }

    fn unpack(&mut self, mut packed: &[u8]) -> Result<(), &'static str> {
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
            self.look_at(written, usize::try_from(count).map_err(|_| DAMAGED)?)?;
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

    /// Checks a piece of rows that starts at byte `at`.
    fn look_at(&self, at: u64, count: usize) -> Result<(), &'static str> {
        if at + count as u64 > self.expected_bytes {
            return Err("the picture has more pixels than its size");
        }
        let first = usize::try_from((self.row_bytes - at % self.row_bytes) % self.row_bytes);
        let (first, row) = (first.unwrap_or(usize::MAX), usize::try_from(self.row_bytes));
        let mut starts = self.piece[..count].iter().skip(first).step_by(row.unwrap_or(usize::MAX));
        if starts.any(|filter| *filter >= FILTERS) {
            return Err("the picture's rows are damaged");
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
        assert_eq!(pixels.unpack(&bomb), Err("the picture has more pixels than its size"));
        assert!(pixels.inflate.total_out() <= (100 * 301 + PIECE_BYTES) as u64);
    }
}
