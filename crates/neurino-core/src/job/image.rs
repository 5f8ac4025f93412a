//! Pictures: what is asked for, what comes back, and the steps in between.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::InvalidJob;
use crate::ids::ModelId;

/// A picture to make from words. Several pictures are several jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct ImageJob {
    /// Model of the catalogue.
    pub model: ModelId,
    /// What is to be seen. May be empty; at most [`ImageJob::PROMPT_BYTES_LIMIT`] bytes.
    pub prompt: String,
    /// What is not to be seen; same limit.
    #[serde(default)]
    pub negative_prompt: String,
    /// In pixels: a multiple of 8, [`ImageJob::SIDE_MIN`] to [`ImageJob::SIDE_MAX`].
    pub width: u32,
    /// In pixels, as `width`.
    pub height: u32,
    /// Steps of the noise schedule, 1 to [`ImageJob::STEPS_LIMIT`].
    pub steps: u32,
    /// How strongly the prompt guides, 0 to [`ImageJob::GUIDANCE_MAX`]; at most 1 is no guidance.
    pub guidance: f32,
    /// Makes the picture repeatable. The network sets one when the payer did not.
    #[ts(type = "number")]
    pub seed: u64,
    /// Whether progress carries small previews. Off unless asked for: they show what is being made.
    #[serde(default)]
    pub preview: bool,
}

impl ImageJob {
    /// Most bytes of a prompt.
    pub const PROMPT_BYTES_LIMIT: usize = 16 << 10;
    /// Shortest side in pixels.
    pub const SIDE_MIN: u32 = 32;
    /// Sides of pictures are multiples of it.
    pub const SIDE_MULTIPLE: u32 = 8;
    /// Longest side in pixels (the deployed network's limit).
    pub const SIDE_MAX: u32 = 2048;
    /// Most steps (the deployed network's limit).
    pub const STEPS_LIMIT: u32 = 35;
    /// Strongest guidance.
    pub const GUIDANCE_MAX: f32 = 30.0;

    /// A square picture with the usual parameters, for callers that change single ones.
    pub fn new(model: ModelId, prompt: impl Into<String>, side: u32) -> Self {
        Self {
            model,
            prompt: prompt.into(),
            negative_prompt: String::new(),
            width: side,
            height: side,
            steps: 20,
            guidance: 7.0,
            seed: 0,
            preview: false,
        }
    }

    /// What of a seed decides the picture: the reference's generator takes its low 32 bits, so that
    /// seeds that differ in the others alone make one and the same.
    pub fn noise_seed(seed: u64) -> u32 {
        seed as u32
    }

    /// Checks every limit that does not need the model.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        for (field, text) in [("prompt", &self.prompt), ("negative_prompt", &self.negative_prompt)]
        {
            if text.len() > Self::PROMPT_BYTES_LIMIT {
                return bad(field, format!("takes at most {} bytes", Self::PROMPT_BYTES_LIMIT));
            }
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            let (min, max, multiple) = (Self::SIDE_MIN, Self::SIDE_MAX, Self::SIDE_MULTIPLE);
            if !(min..=max).contains(&side) || !side.is_multiple_of(multiple) {
                return bad(field, format!("must be a multiple of {multiple} from {min} to {max}"));
            }
        }
        if self.steps == 0 || self.steps > Self::STEPS_LIMIT {
            return bad("steps", format!("must be 1 to {}", Self::STEPS_LIMIT));
        }
        if !(0.0..=Self::GUIDANCE_MAX).contains(&self.guidance) {
            return bad("guidance", format!("must be 0 to {}", Self::GUIDANCE_MAX));
        }
        Ok(())
    }

    /// Pixels times steps, which is what is paid.
    pub fn pixel_steps(&self) -> u32 {
        // At most 2048 x 2048 x 35, once validated.
        self.width.saturating_mul(self.height).saturating_mul(self.steps)
    }
}

/// What suits an image model, for requests that leave it open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
#[serde(deny_unknown_fields)]
pub struct ImageDefaults {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Steps of the noise schedule.
    pub steps: u32,
    /// How strongly the prompt guides.
    pub guidance: f32,
    /// What is not to be seen, if the request does not say.
    #[serde(default)]
    pub negative_prompt: String,
    /// What the sides of its pictures are multiples of: 8, and 16 for Flux.
    #[serde(default = "side_multiple")]
    pub side_multiple: u32,
    /// Which sampler makes its pictures, by the name that picture programs know: for who asks what a
    /// picture was made with. At most [`ImageDefaults::SAMPLER_BYTES_LIMIT`] letters, digits and signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(optional)]
    pub sampler: Option<String>,
}

fn side_multiple() -> u32 {
    ImageJob::SIDE_MULTIPLE
}

impl ImageDefaults {
    /// Longest name of a sampler.
    pub const SAMPLER_BYTES_LIMIT: usize = 64;

    /// The sampler of an architecture's pictures, where no model says otherwise; `None` for one that is
    /// not known.
    ///
    /// - `arch`: as catalogues name it, for example `sd15`
    pub fn sampler_of(arch: &str) -> Option<&'static str> {
        match arch {
            "sd15" => Some("DPM++ 2M SDE Karras"),
            "sdxl" => Some("Euler"),
            "flux" => Some("Flow-match Euler"),
            _ => None,
        }
    }

    /// Checks that they go together: a job with them is one that the model takes.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self, model: &ModelId) -> Result<(), InvalidJob> {
        if let Some(sampler) = &self.sampler {
            let limit = Self::SAMPLER_BYTES_LIMIT;
            // It becomes part of a line whose entries commas separate.
            let plain = |c: char| c == ' ' || (c.is_ascii_graphic() && c != ',');
            if !(1..=limit).contains(&sampler.len()) || !sampler.chars().all(plain) {
                let rule = format!("must be 1 to {limit} ASCII characters without commas");
                return Err(InvalidJob { field: "sampler", rule });
            }
        }
        let job = self.job(model.clone(), "");
        job.validate()?;
        self.check(&job)
    }

    /// Checks what only this model asks of a job.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn check(&self, job: &ImageJob) -> Result<(), InvalidJob> {
        for (field, side) in [("width", job.width), ("height", job.height)] {
            if !side.is_multiple_of(self.side_multiple) {
                let multiple = self.side_multiple;
                let rule = format!("must be a multiple of {multiple} for this model");
                return Err(InvalidJob { field, rule });
            }
        }
        Ok(())
    }

    /// A job with these parameters.
    pub fn job(&self, model: ModelId, prompt: impl Into<String>) -> ImageJob {
        ImageJob {
            negative_prompt: self.negative_prompt.clone(),
            width: self.width,
            height: self.height,
            steps: self.steps,
            guidance: self.guidance,
            ..ImageJob::new(model, prompt, self.width)
        }
    }
}

/// A finished picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ImageOutput {
    /// The picture: 8-bit RGB, without metadata.
    pub png: Png,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// One step of a picture that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ImageStep {
    /// Steps done.
    pub step: u32,
    /// All steps.
    pub steps: u32,
    /// What it looks like so far, small, if the job asked for previews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Png>,
}

/// The bytes of a PNG file. Base64 on the wire.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(try_from = "String", into = "String")]
#[ts(type = "string")]
pub struct Png(pub Vec<u8>);

// Bytes of a picture help nobody in an error or a log, and may be private.
impl fmt::Debug for Png {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Png({} bytes)", self.0.len())
    }
}

impl From<Png> for String {
    fn from(png: Png) -> Self {
        STANDARD.encode(png.0)
    }
}

impl TryFrom<String> for Png {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobOutput, JobSpec};

    fn job() -> ImageJob {
        ImageJob::new(ModelId::new("m").expect("valid"), "a lighthouse", 512)
    }

    fn check(change: impl FnOnce(&mut ImageJob), field: Option<&str>) {
        let mut job = job();
        change(&mut job);
        assert_eq!(job.validate().err().map(|e| e.field), field);
    }

    #[test]
    fn limits_name_their_field() {
        check(|_| {}, None);
        check(|j| j.prompt = String::new(), None);
        check(|j| (j.width, j.height) = (680, 1024), None);
        check(|j| j.prompt = "x".repeat(ImageJob::PROMPT_BYTES_LIMIT + 1), Some("prompt"));
        check(|j| j.width = 513, Some("width"));
        check(|j| j.height = 2056, Some("height"));
        check(|j| j.height = 0, Some("height"));
        check(|j| j.steps = 0, Some("steps"));
        check(|j| j.steps = 36, Some("steps"));
        check(|j| j.guidance = f32::NAN, Some("guidance"));
    }

    #[test]
    fn a_picture_survives_the_wire_and_its_digest_covers_it() {
        let output = |byte| {
            JobOutput::Image(ImageOutput { png: Png(vec![137, 80, byte]), width: 8, height: 8 })
        };
        let json = serde_json::to_string(&output(78)).expect("serialises");
        assert_eq!(json, r#"{"kind":"image","png":"iVBO","width":8,"height":8}"#);
        assert_eq!(serde_json::from_str::<JobOutput>(&json).expect("parses"), output(78));
        assert_ne!(output(78).digest(), output(79).digest());
        let spec = JobSpec::Image(job());
        let json = serde_json::to_string(&spec).expect("serialises");
        assert_eq!(serde_json::from_str::<JobSpec>(&json).expect("parses"), spec);
        assert!(!format!("{:?}", output(78)).contains("iVBO"));
    }
}
