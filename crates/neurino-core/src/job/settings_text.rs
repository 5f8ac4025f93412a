//! What a picture was made with, written into its PNG file: only for who asks. A result never carries
//! it, so that what is signed and compared is the picture alone.

use super::{ImageJob, Png};

/// Under which name the text stands; the one that picture programs look for.
pub const SETTINGS_KEYWORD: &str = "parameters";

/// How a PNG file begins: its signature, and the header's length and name.
const OPENING: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
/// Where the header ends: signature, length, name, its 13 bytes, checksum.
const HEADER_END: usize = 8 + 4 + 4 + 13 + 4;

impl ImageJob {
    /// What it takes to make the picture again, in the lines that picture programs know.
    ///
    /// - `sampler`: its name, where it is known
    pub fn settings_text(&self, sampler: Option<&str>) -> String {
        let Self { model, prompt, negative_prompt, width, height, steps, guidance, seed, .. } =
            self;
        let mut text = plain(prompt);
        if !negative_prompt.is_empty() {
            text.push_str("\nNegative prompt: ");
            text.push_str(&plain(negative_prompt));
        }
        let size = format!("{width}x{height}");
        let sampler = sampler.map(|name| format!(", Sampler: {name}")).unwrap_or_default();
        format!(
            "{text}\nSteps: {steps}{sampler}, CFG scale: {guidance}, Seed: {seed}, Size: {size}, Model: {model}"
        )
    }
}

/// Without the characters that end a text in a PNG file, or that steer screens.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

impl Png {
    /// The same picture with [`ImageJob::settings_text`] in an `iTXt` chunk before its pixels. `None`
    /// if this is no PNG file.
    pub fn with_settings(&self, job: &ImageJob, sampler: Option<&str>) -> Option<Self> {
        if !self.0.starts_with(OPENING) || self.0.len() < HEADER_END {
            return None;
        }
        // Name, not compressed, no language, no translated name.
        let text = job.settings_text(sampler);
        let chunk = [b"iTXt", SETTINGS_KEYWORD.as_bytes(), &[0; 5], text.as_bytes()].concat();
        let length = u32::try_from(chunk.len() - 4).ok()?;
        let (header, rest) = self.0.split_at(HEADER_END);
        let checksum = crc32(&chunk).to_be_bytes();
        Some(Self([header, &length.to_be_bytes(), &chunk, &checksum, rest].concat()))
    }
}

/// The checksum of a chunk, by its definition: a text is short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| step(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelId;

    #[test]
    fn the_lines_are_those_that_picture_programs_read() {
        let model = ModelId::new("m").expect("valid");
        let mut job =
            ImageJob { seed: 7, guidance: 6.5, ..ImageJob::new(model, "a cat\0\u{1b}", 64) };
        let last = "Steps: 20, CFG scale: 6.5, Seed: 7, Size: 64x64, Model: m";
        assert_eq!(job.settings_text(None), format!("a cat\n{last}"));
        let named = last.replace(", CFG", ", Sampler: DPM++ 2M SDE Karras, CFG");
        assert_eq!(job.settings_text(Some("DPM++ 2M SDE Karras")), format!("a cat\n{named}"));
        job.negative_prompt = "rain\nfog".into();
        assert_eq!(job.settings_text(None), format!("a cat\nNegative prompt: rain\nfog\n{last}"));
    }

    #[test]
    fn the_checksum_is_the_usual_one_and_other_files_are_not_touched() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b"IEND"), 0xae42_6082);
        let job = ImageJob::new(ModelId::new("m").expect("valid"), "x", 64);
        for other in [&b""[..], b"GIF89a", &OPENING[..12], OPENING] {
            assert_eq!(Png(other.to_vec()).with_settings(&job, None), None);
        }
    }
}
