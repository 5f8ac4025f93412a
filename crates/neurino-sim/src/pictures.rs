//! Pictures that nobody painted: each of another seed is unlike every other one, and costs next to nothing.

use neurino_core::{ImageDefaults, ImageJob, ImageOutput, JobOutput, ModelId, Png};

/// The model that virtual painters serve.
pub const PAINTER: &str = "my-painter";

/// What suits it.
pub fn usual() -> ImageDefaults {
    ImageDefaults {
        width: 512,
        height: 512,
        steps: 2,
        guidance: 5.,
        side_multiple: 8,
        negative_prompt: String::new(),
        sampler: None,
    }
}

/// A job for it.
///
/// # Panics
/// Never: its name is a valid one.
pub fn job(seed: u64) -> ImageJob {
    let model = ModelId::new(PAINTER).expect("a valid model id");
    ImageJob { seed, ..usual().job(model, "a lighthouse") }
}

/// A picture that is like that of no other seed.
///
/// # Panics
/// Never: a picture of this size can be encoded into memory.
pub fn picture_of(job: &ImageJob) -> JobOutput {
    let (width, height) = (job.width, job.height);
    let seed = job.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let shade =
        |n: u64| (seed.wrapping_add(n / 64).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8;
    let pixels: Vec<u8> = (0..u64::from(3 * width * height)).map(shade).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    // Painting is not what is measured.
    encoder.set_compression(png::Compression::Fastest);
    let mut writer = encoder.write_header().expect("a header in memory");
    writer.write_image_data(&pixels).expect("rows in memory");
    writer.finish().expect("an end in memory");
    JobOutput::Image(ImageOutput { png: Png(file), width, height })
}
