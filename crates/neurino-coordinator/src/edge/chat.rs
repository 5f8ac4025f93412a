//! A chat request in OpenAI's words, translated into a job.
//!
//! Fields are read one by one, so that an error names its field. What would change the answer and is
//! not supported is refused in plain words; unknown fields are ignored, as OpenAI's clients expect.

mod messages;
mod schema;
mod tools;

use neurino_core::{JobSpec, ModelId, SamplingParams, TextJob};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::words::plain;

/// Tokens to generate when the request does not say; fewer where the model's context holds less.
const MAX_TOKENS_DEFAULT: u32 = 512;
/// Most stop texts, as OpenAI's: the network adds as many of its own.
pub(super) const STOPS_MAX: usize = 4;
/// Seeds drawn here stay exact in JavaScript clients.
pub(super) const SEED_BITS: u32 = 53;
/// Fields of OpenAI's and of other servers' that would make the answer another one.
const UNSUPPORTED: [&str; 22] = [
    "audio",
    "bad_words",
    "best_of",
    "chat_template",
    "chat_template_kwargs",
    "echo",
    "function_call",
    "functions",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "length_penalty",
    "min_tokens",
    "prompt_logprobs",
    "stop_token_ids",
    "structural_tag",
    "structured_outputs",
    "truncate_prompt_tokens",
    "use_beam_search",
    "web_search_options",
];

/// Those of them that an empty object asks for.
const EMPTY_ASKS: [&str; 2] = ["guided_json", "web_search_options"];

pub(super) type Fields = Map<String, Value>;

/// A translated request.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) spec: JobSpec,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// Whether an answer may call several functions at once; if not, the first call is kept.
    pub(crate) parallel_calls: bool,
}

/// A field that cannot be served, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// What OpenAI calls this kind of error.
    pub(crate) code: &'static str,
}

impl Refusal {
    pub(super) fn new(param: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self { message: format!("`{param}` {rule}"), param: Some(param), code: "invalid_value" }
    }

    pub(super) fn unsupported(param: impl Into<String>, rule: impl std::fmt::Display) -> Self {
        Self { code: "unsupported_parameter", ..Self::new(param, rule) }
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody::new(ErrorCode::InvalidRequest, &*self.message)
    }
}

/// Translates a request. `random_seed` is used when the request has none.
pub(crate) fn translate(body: &Value, random_seed: u64) -> Result<ChatRequest, Refusal> {
    let Value::Object(fields) = body else {
        let message = "the body must be a JSON object".into();
        return Err(Refusal { param: None, message, code: "invalid_type" });
    };
    refuse_unsupported(fields)?;
    let model: String = required(fields, "model")?;
    let model =
        ModelId::new(model).map_err(|e| Refusal::new("model", format!("must be {}", e.rule)))?;
    let max_tokens = match optional::<u32>(fields, "max_completion_tokens")? {
        None => optional::<u32>(fields, "max_tokens")?,
        found => found,
    };
    let tools = tools::definitions(fields)?;
    let job = TextJob {
        model,
        messages: messages::messages(fields)?,
        sampling: sampling(fields, random_seed)?,
        max_tokens: max_tokens.unwrap_or(MAX_TOKENS_DEFAULT),
        fewer_tokens: max_tokens.is_none(),
        stop: stops(fields)?,
        tool_choice: tools::choice(fields, &tools)?,
        tools,
        response_format: tools::response_format(fields)?,
        choices: optional(fields, "n")?.unwrap_or(1),
        logprobs: logprobs(fields)?,
        logit_bias: logit_bias(fields)?,
        name_tokens: false,
        claim: None,
    };
    job.validate().map_err(|e| {
        // As the request names it.
        let newer = e.field == "max_tokens" && fields.contains_key("max_completion_tokens");
        Refusal::new(if newer { "max_completion_tokens" } else { e.field }, e.rule)
    })?;
    let options: Fields = optional(fields, "stream_options")?.unwrap_or_default();
    Ok(ChatRequest {
        spec: JobSpec::Text(job),
        stream: optional(fields, "stream")?.unwrap_or(false),
        include_usage: optional(&options, "include_usage")?.unwrap_or(false),
        parallel_calls: optional(fields, "parallel_tool_calls")?.unwrap_or(true),
    })
}

pub(super) fn optional<T: DeserializeOwned>(
    fields: &Fields,
    name: &str,
) -> Result<Option<T>, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|error| Refusal {
            code: "invalid_type",
            ..Refusal::new(name, format!("cannot be used: {}", plain(&error)))
        }),
    }
}

pub(super) fn required<T: DeserializeOwned>(fields: &Fields, name: &str) -> Result<T, Refusal> {
    let missing =
        || Refusal { code: "missing_required_parameter", ..Refusal::new(name, "is missing") };
    optional(fields, name)?.ok_or_else(missing)
}

/// Refuses what would make the answer another one than asked for.
fn refuse_unsupported(fields: &Fields) -> Result<(), Refusal> {
    for name in UNSUPPORTED {
        let unset = match fields.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(items)) => items.is_empty(),
            // Of some an empty object asks for the usual of it, as for a search of the web.
            Some(Value::Object(items)) => items.is_empty() && !EMPTY_ASKS.contains(&name),
            Some(Value::Number(number)) => number.as_u64() == Some(0),
            Some(_) => false,
        };
        if !unset {
            let rule = match name {
                "functions" | "function_call" => "is not supported; use `tools`",
                _ => "is not supported by this network; leave it out",
            };
            return Err(Refusal::unsupported(name, rule));
        }
    }
    let modalities: Vec<String> = optional(fields, "modalities")?.unwrap_or_default();
    if modalities.iter().any(|m| m != "text") {
        return Err(Refusal::unsupported("modalities", "can only be `text`"));
    }
    Ok(())
}

fn sampling(fields: &Fields, random_seed: u64) -> Result<SamplingParams, Refusal> {
    let usual = SamplingParams::default();
    let number = |name, usual| optional::<f32>(fields, name).map(|n| n.unwrap_or(usual));
    Ok(SamplingParams {
        temperature: number("temperature", usual.temperature)?,
        top_p: number("top_p", usual.top_p)?,
        top_k: optional::<i64>(fields, "top_k")?.map_or(Ok(usual.top_k), |k| {
            // Some clients send -1 for "all".
            u32::try_from(k.max(0)).map_err(|_| Refusal::new("top_k", "is too large"))
        })?,
        min_p: number("min_p", usual.min_p)?,
        repetition_penalty: number("repetition_penalty", usual.repetition_penalty)?,
        frequency_penalty: number("frequency_penalty", usual.frequency_penalty)?,
        presence_penalty: number("presence_penalty", usual.presence_penalty)?,
        seed: seed(fields)?.unwrap_or(random_seed >> (u64::BITS - SEED_BITS)),
    })
}

/// OpenAI's seeds are signed; any 64 bits make one.
pub(super) fn seed(fields: &Fields) -> Result<Option<u64>, Refusal> {
    match fields.get("seed").and_then(Value::as_u64) {
        Some(seed) => Ok(Some(seed)),
        None => Ok(optional::<i64>(fields, "seed")?.map(i64::cast_unsigned)),
    }
}

fn logprobs(fields: &Fields) -> Result<Option<u32>, Refusal> {
    let wanted = optional::<bool>(fields, "logprobs")?.unwrap_or(false);
    match optional::<u32>(fields, "top_logprobs")? {
        Some(rivals) if wanted => Ok(Some(rivals)),
        Some(rivals) if rivals > 0 => {
            Err(Refusal::new("top_logprobs", "needs `logprobs` to be true"))
        }
        _ => Ok(wanted.then_some(0)),
    }
}

/// Token ids travel as the keys of an object, which are strings.
fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, Refusal> {
    let biases: Fields = optional(fields, "logit_bias")?.unwrap_or_default();
    let bias = |(token, bias): (String, Value)| {
        let token = token.parse().ok();
        let bias = bias.as_f64().map(|bias| bias as f32);
        token.zip(bias).ok_or_else(|| Refusal::new("logit_bias", "maps token ids to numbers"))
    };
    biases.into_iter().map(bias).collect()
}

fn stops(fields: &Fields) -> Result<Vec<String>, Refusal> {
    let stops = match fields.get("stop") {
        Some(Value::String(stop)) => vec![stop.clone()],
        _ => optional(fields, "stop")?.unwrap_or_default(),
    };
    check_stops(&stops).map(|()| stops)
}

/// The one rule for stop texts, whichever way a job comes.
pub(super) fn check_stops(stops: &[String]) -> Result<(), Refusal> {
    if stops.len() > STOPS_MAX {
        return Err(Refusal::new("stop", format!("takes at most {STOPS_MAX} texts")));
    }
    Ok(())
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
        let JobSpec::Text(job) = request.spec else { panic!("a text job") };
        assert_eq!((job.max_tokens, job.fewer_tokens), (512, true));
        assert_eq!(job.sampling.seed, (1 << SEED_BITS) - 1);
        assert!((job.sampling.temperature - 1.0).abs() < f32::EPSILON);
        assert!(!request.stream && !request.include_usage);
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        check("functions", json!([]), None);
        check("functions", json!([{ "name": "f" }]), Some("functions"));
        check("function_call", json!("auto"), Some("function_call"));
        check("audio", json!({ "voice": "x" }), Some("audio"));
        check("modalities", json!(["text"]), None);
        check("modalities", json!(["text", "audio"]), Some("modalities"));
        check("use_beam_search", json!(false), None);
        check("use_beam_search", json!(true), Some("use_beam_search"));
        check("min_tokens", json!(0), None);
        check("min_tokens", json!(5), Some("min_tokens"));
        for accepted in ["user", "safety_identifier", "service_tier", "made_up"] {
            check(accepted, json!("somebody"), None);
        }
        check("metadata", json!({ "a": "b" }), None);
        check("store", json!(true), None);
    }

    #[test]
    fn bad_values_name_their_field() {
        check("max_tokens", json!(0), Some("max_tokens"));
        check("max_tokens", json!(-1), Some("max_tokens"));
        check("max_completion_tokens", json!("many"), Some("max_completion_tokens"));
        check("temperature", json!(3), Some("temperature"));
        check("temperature", json!("hot"), Some("temperature"));
        check("top_p", json!(0), Some("top_p"));
        check("seed", json!("x"), Some("seed"));
        check("n", json!(0), Some("n"));
        check("n", json!(9), Some("n"));
        check("n", json!(1.5), Some("n"));
        check("presence_penalty", json!(2.5), Some("presence_penalty"));
        check("top_k", json!(-1), None);
        check("top_logprobs", json!(2), Some("top_logprobs"));
        check("top_logprobs", json!(0), None);
        check("logit_bias", json!({ "7": -100, "9": 1.5 }), None);
        check("logit_bias", json!({ "seven": 1 }), Some("logit_bias"));
        check("logit_bias", json!({ "7": "1" }), Some("logit_bias"));
        check("logit_bias", json!({ "7": 101 }), Some("logit_bias"));
        check("stop", json!(["a", 1]), Some("stop"));
        check("stop", json!(["1", "2", "3", "4"]), None);
        check("stop", json!(["1", "2", "3", "4", "5"]), Some("stop"));
        check("stop", json!(["1", "2", "3", "4", "5", "6", "7", "8", "9"]), Some("stop"));
        check("messages", json!([]), Some("messages"));
        check("messages", json!("hi"), Some("messages"));
        check("messages", json!([{ "role": "robot", "content": "hi" }]), Some("messages[0].role"));
        check("messages", json!([{ "role": "user" }]), Some("messages[0].content"));
        check("model", json!("a b"), Some("model"));
        check("model", Value::Null, Some("model"));
        check("stream", json!("yes"), Some("stream"));
    }

    #[test]
    fn types_are_told_in_words_of_json() {
        let message = |field: &str, value: Value| {
            request(|body| body[field] = value).expect_err("refused").message
        };
        let expect = "`temperature` cannot be used: it is the text \"hot\", and a number is needed";
        assert_eq!(message("temperature", json!("hot")), expect);
        let expect = "`tools` cannot be used: it is an object, and a list is needed";
        assert_eq!(message("tools", json!({})), expect);
        let expect = "`max_tokens` cannot be used: it is the number -1, and a whole number from 0 is \
                      needed";
        assert_eq!(message("max_tokens", json!(-1)), expect);
        let expect = "`stop` takes at most 4 texts";
        assert_eq!(message("stop", json!(["", "", "", "", "", "", "", "", ""])), expect);
    }

    #[test]
    fn fields_reach_the_job() {
        let request = request(|body| {
            body["seed"] = json!(-1);
            body["n"] = json!(3);
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(4);
            body["logit_bias"] = json!({ "7": -100 });
            body["min_p"] = json!(0.25);
            body["repetition_penalty"] = json!(1.5);
            body["frequency_penalty"] = json!(-1);
            body["parallel_tool_calls"] = json!(false);
        });
        let request = request.expect("valid");
        let JobSpec::Text(job) = request.spec else { panic!("a text job") };
        assert_eq!((job.choices, job.logprobs), (3, Some(4)));
        assert_eq!(job.logit_bias, [(7, -100.0)]);
        let expect = SamplingParams {
            min_p: 0.25,
            repetition_penalty: 1.5,
            frequency_penalty: -1.0,
            seed: u64::MAX,
            ..SamplingParams::default()
        };
        assert_eq!(job.sampling, expect);
        assert!(!request.parallel_calls);
    }

    #[test]
    fn kinds_of_errors_have_openais_names() {
        let check = |field: &str, value: Value, code: &str| {
            let refusal = request(|body| body[field] = value).expect_err("refused");
            assert_eq!(refusal.code, code, "{field}");
        };
        check("model", Value::Null, "missing_required_parameter");
        check("temperature", json!("hot"), "invalid_type");
        check("temperature", json!(3), "invalid_value");
        check("audio", json!({ "voice": "x" }), "unsupported_parameter");
    }

    #[test]
    fn text_parts_are_joined_and_images_refused() {
        let image =
            json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]);
        check("messages", image, Some("messages[0].content"));
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let request = request(|body| body["messages"][0]["content"] = parts).expect("valid");
        let JobSpec::Text(job) = request.spec else { panic!("a text job") };
        assert_eq!(job.messages[0].content, "ab");
    }
}
