//! Real, small pictures for tests.

use neurino_core::{ImageJob, ImageOutput, JobOutput, Png};

/// Longest side of a scripted preview, in pixels.
const PREVIEW_SIDE: u32 = 8;

/// A PNG file of 8-bit RGB, without metadata: stripes that depend on the seed, so that pictures of
/// different seeds differ.
pub fn striped(width: u32, height: u32, seed: u64) -> Png {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().expect("the header is valid");
    // No seed in use makes a picture of one colour, which a coordinator does not take.
    let [first, second, ..] = (!seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let rows = (0..height).flat_map(|y| {
        let shade = if y % 2 == 0 { first } else { second };
        std::iter::repeat_n([shade, first, second], width as usize)
    });
    let mut pixels: Vec<u8> = rows.flatten().collect();
    // All of the seed, where there is room for it.
    for (sample, byte) in pixels.iter_mut().zip(seed.to_le_bytes()) {
        *sample = byte;
    }
    writer.write_image_data(&pixels).expect("there are as many pixels as the header says");
    writer.finish().expect("memory takes everything");
    Png(file)
}

/// The picture of a job: the same for the same job.
pub fn picture_of(job: &ImageJob) -> JobOutput {
    let ImageJob { width, height, seed, .. } = *job;
    JobOutput::Image(ImageOutput { png: striped(width, height, seed), width, height })
}

/// What a picture looks like after a step: another shade each time.
pub(crate) fn preview_of(job: &ImageJob, step: u32) -> Png {
    let side = |full: u32| full.min(PREVIEW_SIDE);
    striped(side(job.width), side(job.height), job.seed.wrapping_add(step.into()))
}
