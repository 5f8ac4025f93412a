//! A chat request in OpenAI's words, translated into a job.
//!
//! Fields are read one by one, so that an error names its field. What would change the answer and is
//! not supported is refused in plain words; unknown fields are ignored, as OpenAI's clients expect.

use neurino_core::{ChatMessage, JobSpec, ModelId, Role, SamplingParams, TextJob};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Tokens to generate when the request does not say.
const MAX_TOKENS_DEFAULT: u32 = 512;
/// Seeds stay exact in JavaScript clients.
const SEED_BITS: u32 = 53;

/// A translated request.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) spec: JobSpec,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

/// A field that cannot be served, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) param: Option<String>,
    pub(crate) message: String,
}

impl Refusal {
    fn new(param: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self { message: format!("`{param}` {rule}"), param: Some(param) }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::InvalidRequest, &*self.message)
    }
}

/// Translates a request. `random_seed` is used when the request has none.
pub(crate) fn translate(body: &Value, random_seed: u64) -> Result<ChatRequest, Refusal> {
    let Value::Object(fields) = body else {
        return Err(Refusal { param: None, message: "the body must be a JSON object".into() });
    };
    refuse_unsupported(fields)?;
    let model: String = required(fields, "model")?;
    let model =
        ModelId::new(model).map_err(|e| Refusal::new("model", format!("must be {}", e.rule)))?;
    let max_tokens = match optional::<u32>(fields, "max_completion_tokens")? {
        Some(tokens) => tokens,
        None => optional(fields, "max_tokens")?.unwrap_or(MAX_TOKENS_DEFAULT),
    };
    let seed = match optional::<i64>(fields, "seed")? {
        Some(seed) => {
            u64::try_from(seed).map_err(|_| Refusal::new("seed", "must not be negative"))?
        }
        None => random_seed >> (u64::BITS - SEED_BITS),
    };
    let job = TextJob {
        model,
        messages: messages(fields)?,
        sampling: SamplingParams {
            temperature: optional(fields, "temperature")?.unwrap_or(1.0),
            top_p: optional(fields, "top_p")?.unwrap_or(1.0),
            top_k: optional::<i64>(fields, "top_k")?.map_or(Ok(0), |k| {
                // Some clients send -1 for "all".
                u32::try_from(k.max(0)).map_err(|_| Refusal::new("top_k", "is too large"))
            })?,
            seed,
        },
        max_tokens,
        stop: stops(fields)?,
    };
    job.validate().map_err(|e| Refusal::new(e.field, e.rule))?;
    let stream = optional(fields, "stream")?.unwrap_or(false);
    let options: Map<String, Value> = optional(fields, "stream_options")?.unwrap_or_default();
    let include_usage = optional(&options, "include_usage")?.unwrap_or(false);
    Ok(ChatRequest { spec: JobSpec::Text(job), stream, include_usage })
}

fn optional<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
) -> Result<Option<T>, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|error| {
            let words: String = error.to_string().chars().take(200).collect();
            Refusal::new(name, format!("cannot be used: {words}"))
        }),
    }
}

fn required<T: DeserializeOwned>(fields: &Map<String, Value>, name: &str) -> Result<T, Refusal> {
    optional(fields, name)?.ok_or_else(|| Refusal::new(name, "is missing"))
}

/// Refuses what would make the answer another one than asked for.
fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), Refusal> {
    for name in ["tools", "functions", "logit_bias"] {
        let empty = match fields.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(items)) => items.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(Refusal::new(name, "is not supported by this network; leave it out"));
        }
    }
    if optional::<f64>(fields, "n")?.is_some_and(|n| (n - 1.0).abs() > f64::EPSILON) {
        return Err(Refusal::new("n", "must be 1; send the request again for another answer"));
    }
    for name in ["presence_penalty", "frequency_penalty"] {
        if optional::<f64>(fields, name)?.is_some_and(|p| p != 0.0) {
            return Err(Refusal::new(name, "is not supported by this network; leave it out"));
        }
    }
    if optional::<bool>(fields, "logprobs")?.unwrap_or(false) {
        return Err(Refusal::new("logprobs", "are not supported by this network; leave them out"));
    }
    if let Some(format) = fields.get("response_format").filter(|f| !f.is_null())
        && format.get("type").and_then(Value::as_str) != Some("text")
    {
        return Err(Refusal::new("response_format", "can only be `text`"));
    }
    let modalities: Vec<String> = optional(fields, "modalities")?.unwrap_or_default();
    if modalities.iter().any(|m| m != "text") {
        return Err(Refusal::new("modalities", "can only be `text`"));
    }
    Ok(())
}

fn messages(fields: &Map<String, Value>) -> Result<Vec<ChatMessage>, Refusal> {
    let list: Vec<Map<String, Value>> = required(fields, "messages")?;
    list.iter()
        .enumerate()
        .map(|(at, message)| {
            let name = |field: &str| format!("messages[{at}].{field}");
            let role = match message.get("role").and_then(Value::as_str) {
                Some("system" | "developer") => Role::System,
                Some("user") => Role::User,
                Some("assistant") => Role::Assistant,
                Some("tool" | "function") => {
                    return Err(Refusal::new(
                        name("role"),
                        "cannot be `tool`: tools are not supported",
                    ));
                }
                _ => {
                    let rule = "must be `system`, `user` or `assistant`";
                    return Err(Refusal::new(name("role"), rule));
                }
            };
            let content = match message.get("content") {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Array(parts)) => text_of(parts, &name("content"))?,
                _ => return Err(Refusal::new(name("content"), "must be text")),
            };
            Ok(ChatMessage { role, content })
        })
        .collect()
}

/// The text of a content given in parts.
fn text_of(parts: &[Value], name: &str) -> Result<String, Refusal> {
    let mut text = String::new();
    for part in parts {
        match (part.get("type").and_then(Value::as_str), part.get("text")) {
            (Some("text"), Some(Value::String(piece))) => text.push_str(piece),
            (Some("text"), _) => return Err(Refusal::new(name, "has a text part without text")),
            _ => {
                return Err(Refusal::new(
                    name,
                    "can only hold text; images, sound and files cannot be read",
                ));
            }
        }
    }
    Ok(text)
}

fn stops(fields: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    match fields.get("stop") {
        Some(Value::String(stop)) => Ok(vec![stop.clone()]),
        _ => Ok(optional(fields, "stop")?.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(change: impl FnOnce(&mut Value)) -> Result<ChatRequest, Refusal> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        change(&mut body);
        translate(&body, u64::MAX)
    }

    fn check(field: &str, value: Value, refused: Option<&str>) {
        let shown = value.to_string();
        let result = request(|body| body[field] = value);
        let param = result.err().map(|r| r.param.unwrap_or_default());
        assert_eq!(param.as_deref(), refused, "{field} = {shown}");
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let request = request(|_| {}).expect("valid");
        let JobSpec::Text(job) = request.spec;
        assert_eq!(job.max_tokens, 512);
        assert_eq!(job.sampling.seed, (1 << SEED_BITS) - 1);
        assert!((job.sampling.temperature - 1.0).abs() < f32::EPSILON);
        assert!(!request.stream && !request.include_usage);
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        check("tools", json!([]), None);
        check("tools", json!([{ "type": "function" }]), Some("tools"));
        check("n", json!(1), None);
        check("n", json!(2), Some("n"));
        check("presence_penalty", json!(0), None);
        check("presence_penalty", json!(0.5), Some("presence_penalty"));
        check("logprobs", json!(true), Some("logprobs"));
        check("response_format", json!({ "type": "text" }), None);
        check("response_format", json!({ "type": "json_object" }), Some("response_format"));
        check("user", json!("somebody"), None);
        check("made_up", json!({ "a": 1 }), None);
    }

    #[test]
    fn bad_values_name_their_field() {
        check("max_tokens", json!(0), Some("max_tokens"));
        check("max_tokens", json!(-1), Some("max_tokens"));
        check("max_completion_tokens", json!("many"), Some("max_completion_tokens"));
        check("temperature", json!(3), Some("temperature"));
        check("temperature", json!("hot"), Some("temperature"));
        check("top_p", json!(0), Some("top_p"));
        check("seed", json!(-1), Some("seed"));
        check("stop", json!(["a", 1]), Some("stop"));
        check("messages", json!([]), Some("messages"));
        check("messages", json!("hi"), Some("messages"));
        check("messages", json!([{ "role": "robot", "content": "hi" }]), Some("messages[0].role"));
        check("messages", json!([{ "role": "user" }]), Some("messages[0].content"));
        check("model", json!("a b"), Some("model"));
        check("model", Value::Null, Some("model"));
        check("stream", json!("yes"), Some("stream"));
    }

    #[test]
    fn text_parts_are_joined_and_images_refused() {
        let image =
            json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]);
        check("messages", image, Some("messages[0].content"));
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let request = request(|body| body["messages"][0]["content"] = parts).expect("valid");
        let JobSpec::Text(job) = request.spec;
        assert_eq!(job.messages[0].content, "ab");
    }
}
