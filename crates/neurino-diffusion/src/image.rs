//! A finished picture: 8-bit RGB, and the PNG file it becomes.

use neurino_core::job::Png;

use crate::DiffusionError;

/// Pixels of three bytes, row by row.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

// Pixels help nobody in an error or a log, and may be private.
impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}

impl RgbImage {
    /// A picture of what a decoder gives: `[height, width, 3]` in -1..1, row by row; what is beyond is
    /// cut off.
    ///
    /// # Errors
    /// `NotFinite` if a value is no number: such a picture would be black without a word.
    ///
    /// # Panics
    /// If there are fewer or more values than the size asks for.
    pub fn from_decoded(values: &[f32], width: u32, height: u32) -> Result<Self, DiffusionError> {
        assert_eq!(values.len(), 3 * width as usize * height as usize, "a value for each pixel");
        if !values.iter().all(|value| value.is_finite()) {
            return Err(DiffusionError::NotFinite);
        }
        // Rounded as the reference rounds: halves to the even neighbour.
        let level = |value: &f32| {
            let share = (value / 2.0 + 0.5).clamp(0.0, 1.0);
            (share * 255.0).round_ties_even() as u8
        };
        Ok(Self { width, height, pixels: values.iter().map(level).collect() })
    }

    /// In pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Three bytes a pixel, row by row.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The picture as a PNG file without metadata: the same bytes for the same pixels.
    pub fn to_png(&self) -> Png {
        let mut file = Vec::with_capacity(self.pixels.len() / 2 + 1024);
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&self.pixels)?;
            writer.finish()
        });
        written.expect("a buffer takes all bytes, and there is a pixel for each place");
        Png(file)
    }

    /// Reads an 8-bit RGB PNG file of at most `side_max` pixels a side.
    ///
    /// # Errors
    /// `Png` if it is damaged, larger, or of another kind.
    pub fn from_png(file: &Png, side_max: u32) -> Result<Self, DiffusionError> {
        let damaged = |error: png::DecodingError| DiffusionError::Png { found: error.to_string() };
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file.0));
        let header = reader.read_header_info().map_err(damaged)?;
        let (width, height) = (header.width, header.height);
        if width > side_max || height > side_max {
            return Err(DiffusionError::Png {
                found: format!("{width} x {height} pixels are too many"),
            });
        }
        if (header.color_type, header.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return Err(DiffusionError::Png { found: "it is not 8-bit RGB".into() });
        }
        let mut reader = reader.read_info().map_err(damaged)?;
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        reader.next_frame(&mut pixels).map_err(damaged)?;
        Ok(Self { width, height, pixels })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// A picture with soft and hard edges.
    fn picture(width: u32, height: u32) -> RgbImage {
        let value = |i: usize| ((i as f32 * 0.37).sin() * 1.2 + (i % 7) as f32 * 0.1).sin();
        let values: Vec<f32> = (0..(3 * width * height) as usize).map(value).collect();
        RgbImage::from_decoded(&values, width, height).unwrap()
    }

    #[test]
    fn values_become_levels_as_the_reference_rounds_them() {
        // 0.5 / 255 and 2.5 / 255 lie between two levels.
        let half = |levels: f32| levels / 255.0 * 2.0 - 1.0;
        let values = [-1.0, 1.0, 0.0, -3.0, 7.0, half(127.4), half(127.6), half(1.0), half(254.0)];
        let found = RgbImage::from_decoded(&values, 3, 1).unwrap();
        assert_eq!(found.pixels(), [0, 255, 128, 0, 255, 127, 128, 1, 254]);
        let error = RgbImage::from_decoded(&[0.0, f32::NAN, 0.0], 1, 1).unwrap_err();
        assert!(matches!(error, DiffusionError::NotFinite));
    }

    #[test]
    fn a_file_is_the_same_each_time_and_holds_the_pixels_alone() {
        for (width, height) in [(1, 1), (8, 8), (40, 72), (257, 3)] {
            let picture = picture(width, height);
            let file = picture.to_png();
            assert_eq!(file, picture.clone().to_png());
            assert_eq!(RgbImage::from_png(&file, 512).unwrap(), picture);
            assert_eq!(kinds(&file.0), ["IHDR", "IDAT", "IEND"]);
        }
    }

    /// The chunks of a file, equal neighbours once.
    fn kinds(file: &[u8]) -> Vec<String> {
        let (mut rest, mut kinds) = (&file[8..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            kinds.push(String::from_utf8(after[..4].to_vec()).unwrap());
            rest = &after[u32::from_be_bytes(*length) as usize + 8..];
        }
        kinds.dedup();
        kinds
    }

    #[test]
    fn files_that_are_damaged_too_large_or_of_another_kind_are_refused() {
        let file = picture(16, 16).to_png();
        assert!(RgbImage::from_png(&file, 15).is_err());
        for length in [0, 7, 20, 40, file.0.len() / 2] {
            assert!(RgbImage::from_png(&Png(file.0[..length].to_vec()), 99).is_err(), "{length}");
        }
        let mut grey = Vec::new();
        let mut encoder = png::Encoder::new(&mut grey, 2, 2);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3, 4]).unwrap();
        assert!(RgbImage::from_png(&Png(grey), 99).is_err());
    }
}
