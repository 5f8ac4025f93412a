//! What a client asks for, in OpenAI's words, translated into jobs.
//!
//! As with chats: fields are read one by one, what would change the picture and is not supported is
//! refused by name, unknown fields are ignored.

use neurino_core::{ImageDefaults, ImageJob, ModelId};
use serde_json::Value;

use crate::edge::chat::{Fields, Refusal, SEED_BITS, optional, required, seed};

/// Most pictures of one request.
const PICTURES_MAX: u32 = 4;
/// Most previews of a streamed picture.
const PREVIEWS_MAX: u32 = 3;
/// Fields of OpenAI's, and the values that ask for nothing but what is done anyway.
const FIXED: [(&str, &[&str]); 6] = [
    ("background", &["auto", "opaque"]),
    ("output_format", &["png"]),
    ("quality", &["auto", "standard"]),
    ("style", &[]),
    ("image", &[]),
    ("mask", &[]),
];

/// How pictures are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the answer.
    Base64,
    /// As links.
    Link,
}

/// A translated request.
#[derive(Debug)]
pub(super) struct PictureRequest {
    /// One for each picture; at least one.
    pub(super) jobs: Vec<ImageJob>,
    pub(super) form: Form,
    pub(super) stream: bool,
    /// Most previews that a streamed picture sends.
    pub(super) partial_images: u32,
    /// Whether each picture's file says what it was made with.
    pub(super) embed_settings: bool,
    /// What makes the pictures, where it is known.
    pub(super) sampler: Option<String>,
}

fn fields(body: &Value) -> Result<&Fields, Refusal> {
    body.as_object().ok_or_else(|| Refusal {
        param: None,
        message: "the body must be a JSON object".into(),
        code: "invalid_type",
    })
}

/// The model a request names.
pub(super) fn model(body: &Value) -> Result<ModelId, Refusal> {
    let model: String = required(fields(body)?, "model")?;
    ModelId::new(model).map_err(|e| Refusal::new("model", format!("must be {}", e.rule)))
}

/// Translates a request; `usual` fills what it leaves open. `random_seed` is used when it has none.
pub(super) fn translate(
    body: &Value,
    model: ModelId,
    usual: &ImageDefaults,
    random_seed: u64,
) -> Result<PictureRequest, Refusal> {
    let fields = fields(body)?;
    refuse_unsupported(fields)?;
    let (stream, partial_images) = streaming(fields)?;
    let form = form(fields)?;
    let embed_settings = optional(fields, "embed_settings")?.unwrap_or(false);
    if embed_settings && form == Form::Link {
        // A link shows the file as the network keeps it, for whoever has the link.
        return Err(Refusal::new("embed_settings", "needs `response_format` to be `b64_json`"));
    }
    let count = optional::<u32>(fields, "n")?.unwrap_or(1);
    if !(1..=PICTURES_MAX).contains(&count) {
        return Err(Refusal::new("n", format!("must be 1 to {PICTURES_MAX}")));
    }
    if stream && count > 1 {
        return Err(Refusal::new("n", "must be 1 for a stream"));
    }
    if stream && form == Form::Link {
        return Err(Refusal::new("response_format", "must be `b64_json` for a stream"));
    }
    let (width, height) = size(fields)?.unwrap_or((usual.width, usual.height));
    let first = seed(fields)?.unwrap_or(random_seed >> (u64::BITS - SEED_BITS));
    let mut job = ImageJob {
        model,
        prompt: required(fields, "prompt")?,
        negative_prompt: optional(fields, "negative_prompt")?
            .unwrap_or_else(|| usual.negative_prompt.clone()),
        width,
        height,
        steps: optional(fields, "steps")?.unwrap_or(usual.steps),
        guidance: optional(fields, "guidance")?.unwrap_or(usual.guidance),
        seed: first,
        preview: stream && partial_images > 0,
    };
    let valid = job.validate();
    // As the reference's pipelines do; what is made is what is paid and told.
    for side in [&mut job.width, &mut job.height] {
        *side -= *side % usual.side_multiple.max(1);
    }
    valid.and_then(|()| job.validate()).and_then(|()| usual.check(&job)).map_err(|error| {
        match error.field {
            // The client spelt both sides in one field.
            "width" | "height" => {
                Refusal::new("size", format!("has a {} that {}", error.field, error.rule))
            }
            field => Refusal::new(field, error.rule),
        }
    })?;
    let with_seed = |at| ImageJob { seed: first.wrapping_add(u64::from(at)), ..job.clone() };
    let jobs = (0..count).map(with_seed).collect();
    let sampler = usual.sampler.clone();
    Ok(PictureRequest { jobs, form, stream, partial_images, embed_settings, sampler })
}

/// Refuses what would make the picture another one than asked for.
fn refuse_unsupported(fields: &Fields) -> Result<(), Refusal> {
    for (name, done_anyway) in FIXED {
        match fields.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) if done_anyway.contains(&value.as_str()) => {}
            Some(_) => {
                let rule = match name {
                    "quality" => "is not supported by this network; use `steps`",
                    "output_format" => "can only be `png`",
                    _ => "is not supported by this network; leave it out",
                };
                return Err(Refusal::unsupported(name, rule));
            }
        }
    }
    match optional::<u32>(fields, "output_compression")? {
        None | Some(100) => Ok(()),
        Some(_) => Err(Refusal::unsupported("output_compression", "does not apply to `png`")),
    }
}

fn streaming(fields: &Fields) -> Result<(bool, u32), Refusal> {
    let stream = optional(fields, "stream")?.unwrap_or(false);
    let partial_images = optional::<u32>(fields, "partial_images")?.unwrap_or(0);
    if partial_images > PREVIEWS_MAX {
        return Err(Refusal::new("partial_images", format!("must be 0 to {PREVIEWS_MAX}")));
    }
    if partial_images > 0 && !stream {
        return Err(Refusal::new("partial_images", "needs `stream` to be true"));
    }
    Ok((stream, partial_images))
}

fn form(fields: &Fields) -> Result<Form, Refusal> {
    match optional::<String>(fields, "response_format")?.as_deref() {
        None | Some("b64_json") => Ok(Form::Base64),
        Some("url") => Ok(Form::Link),
        Some(_) => Err(Refusal::new("response_format", "must be `b64_json` or `url`")),
    }
}

/// Width and height in pixels; `None` leaves them to the model.
fn size(fields: &Fields) -> Result<Option<(u32, u32)>, Refusal> {
    let Some(size) = optional::<String>(fields, "size")?.filter(|size| size != "auto") else {
        return Ok(None);
    };
    let sides = size.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let rule = "must be `auto` or `WIDTHxHEIGHT` in pixels, for example `512x768`";
    sides.map(Some).ok_or_else(|| Refusal::new("size", rule))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usual() -> ImageDefaults {
        ImageDefaults {
            width: 512,
            height: 768,
            steps: 12,
            guidance: 6.5,
            negative_prompt: "blurry".into(),
            side_multiple: 16,
            sampler: None,
        }
    }

    fn request(change: impl FnOnce(&mut Value)) -> Result<PictureRequest, Refusal> {
        let mut body = json!({ "model": "m", "prompt": "a lighthouse" });
        change(&mut body);
        translate(&body, model(&body)?, &usual(), u64::MAX)
    }

    #[test]
    fn sides_fit_the_model() {
        let size = |size: &str| {
            let request = request(|body| body["size"] = size.into())?;
            Ok::<_, Refusal>((request.jobs[0].width, request.jobs[0].height))
        };
        assert_eq!(size("528x768").expect("multiples of 16"), (528, 768));
        // Rounded down, as the reference does.
        assert_eq!(size("520x680").expect("multiples of 8"), (512, 672));
        assert_eq!(size("2040x40").expect("multiples of 8"), (2032, 32));
        let refused = size("521x768").expect_err("no multiple of 8");
        assert_eq!(refused.param.as_deref(), Some("size"));
        assert!(refused.message.contains("width that must be a multiple of 8"), "{refused:?}");
    }

    fn check(field: &str, value: Value, refused: Option<&str>) {
        let shown = value.to_string();
        let result = request(|body| body[field] = value);
        let param = result.err().map(|r| r.param.unwrap_or_default());
        assert_eq!(param.as_deref(), refused, "{field} = {shown}");
    }

    #[test]
    fn what_is_left_open_is_the_models_usual() {
        let request = request(|_| {}).expect("valid");
        let [job] = &request.jobs[..] else { panic!("{request:?}") };
        let expect = ImageJob {
            seed: (1 << SEED_BITS) - 1,
            ..usual().job(job.model.clone(), "a lighthouse")
        };
        assert_eq!(*job, expect);
        assert_eq!(
            (request.form, request.stream, request.partial_images, request.embed_settings),
            (Form::Base64, false, 0, false)
        );
    }

    #[test]
    fn fields_reach_the_jobs() {
        let request = request(|body| {
            body["n"] = json!(3);
            body["seed"] = json!(u64::MAX);
            body["size"] = json!("640x32");
            body["steps"] = json!(35);
            body["guidance"] = json!(0);
            body["negative_prompt"] = json!("");
            body["response_format"] = json!("url");
        });
        let request = request.expect("valid");
        let seeds: Vec<_> = request.jobs.iter().map(|job| job.seed).collect();
        assert_eq!(seeds, [u64::MAX, 0, 1], "a seed that wraps is a seed");
        let job = &request.jobs[2];
        assert_eq!((job.width, job.height, job.steps), (640, 32, 35));
        assert_eq!((job.negative_prompt.as_str(), job.preview), ("", false));
        assert_eq!(request.form, Form::Link);
    }

    #[test]
    fn previews_are_asked_for_only_by_a_stream_that_wants_them() {
        let asked = |partial: u32| {
            let request = request(|body| {
                body["stream"] = json!(true);
                body["partial_images"] = json!(partial);
            });
            request.expect("valid").jobs[0].preview
        };
        assert_eq!((asked(0), asked(3)), (false, true));
        check("partial_images", json!(2), Some("partial_images"));
        check("partial_images", json!(0), None);
        check("partial_images", json!(4), Some("partial_images"));
    }

    #[test]
    fn bad_values_name_their_field() {
        check("model", json!("a b"), Some("model"));
        check("model", Value::Null, Some("model"));
        check("prompt", Value::Null, Some("prompt"));
        check("prompt", json!(["a"]), Some("prompt"));
        check("prompt", json!("x".repeat(ImageJob::PROMPT_BYTES_LIMIT + 1)), Some("prompt"));
        check("n", json!(0), Some("n"));
        check("n", json!(5), Some("n"));
        for size in
            ["512", "512x", "512X512", "-8x8", "513x512", "512x2056", "16x512", "99999999999x8"]
        {
            check("size", json!(size), Some("size"));
        }
        check("size", json!("auto"), None);
        check("steps", json!(0), Some("steps"));
        check("steps", json!(36), Some("steps"));
        check("guidance", json!(-1), Some("guidance"));
        check("guidance", json!(31), Some("guidance"));
        check("seed", json!("x"), Some("seed"));
        check("response_format", json!("jpeg"), Some("response_format"));
        check("stream", json!("yes"), Some("stream"));
        check("embed_settings", json!("yes"), Some("embed_settings"));
        check("embed_settings", json!(true), None);
        let link = request(|body| {
            body["embed_settings"] = json!(true);
            body["response_format"] = json!("url");
        });
        assert_eq!(link.expect_err("refused").param.as_deref(), Some("embed_settings"));
    }

    #[test]
    fn what_would_change_the_picture_is_refused_by_name() {
        check("background", json!("transparent"), Some("background"));
        check("background", json!("auto"), None);
        check("output_format", json!("webp"), Some("output_format"));
        check("output_format", json!("png"), None);
        check("output_compression", json!(50), Some("output_compression"));
        check("output_compression", json!(100), None);
        check("quality", json!("hd"), Some("quality"));
        check("quality", json!("standard"), None);
        check("style", json!("vivid"), Some("style"));
        check("mask", json!("x"), Some("mask"));
        for accepted in ["user", "moderation", "made_up"] {
            check(accepted, json!("somebody"), None);
        }
        let several = request(|body| {
            body["stream"] = json!(true);
            body["n"] = json!(2);
        });
        assert_eq!(several.expect_err("refused").param.as_deref(), Some("n"));
        let link = request(|body| {
            body["stream"] = json!(true);
            body["response_format"] = json!("url");
        });
        assert_eq!(link.expect_err("refused").param.as_deref(), Some("response_format"));
    }
}
