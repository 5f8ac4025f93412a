//! Jobs and results as the original protocol has them.

use neurino_core::{
    ChatMessage, FinishReason, ImageJob, JobSpec, ModelId, RatedToken, ResponseFormat, Role,
    TextChoice, TextJob, TextOutput, TokenLogprob, ToolCall, ToolChoice, ToolDefinition,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Texts that end every answer.
const STOPS: [&str; 4] = ["[End]", "[end]", "<|im_start|>", "<|im_end|>"];

/// A job as it comes.
#[derive(Deserialize)]
pub(crate) struct JobBody {
    /// A text, or in early versions a number.
    job_id: Value,
    model_id: String,
    model_input: Input,
    #[serde(default)]
    temp_credentials: Option<(String, String, String)>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default, rename = "SD")]
    image: Option<ImageInput>,
    #[serde(default, rename = "LLM")]
    text: Option<TextInput>,
}

#[derive(Deserialize)]
struct ImageInput {
    prompt: String,
    #[serde(default)]
    neg_prompt: Option<String>,
    height: f64,
    width: f64,
    num_iterations: f64,
    guidance_scale: f64,
    #[serde(default)]
    seed: Option<Value>,
}

#[derive(Deserialize)]
struct TextInput {
    /// JSON of the messages, as a text.
    prompt: String,
    temperature: f64,
    max_tokens: f64,
    #[serde(default)]
    seed: Option<Value>,
    #[serde(default)]
    use_stream: bool,
    #[serde(default)]
    tools: Option<String>,
    #[serde(default)]
    extra_body: Option<String>,
}

/// What allows one upload. No `Debug`: it is a secret.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
}

/// A job, read and within its limits.
pub(crate) struct Job {
    pub(crate) id: Value,
    pub(crate) spec: JobSpec,
    pub(crate) streamed: bool,
    pub(crate) credentials: Option<Credentials>,
}

/// A job's id as text, for file names and headers: plain characters alone.
pub(crate) fn id_text(job_id: &Value) -> Option<String> {
    let text = match job_id {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        _ => return None,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    ((1..=128).contains(&text.len()) && text.chars().all(plain)).then_some(text)
}

/// Reads a job; says what is wrong with it otherwise.
pub(crate) fn job(body: Value, random: u64) -> Result<Job, String> {
    let body: JobBody =
        serde_json::from_value(body).map_err(|e| format!("it is no job of this protocol: {e}"))?;
    if id_text(&body.job_id).is_none() {
        return Err("its id is not a plain text".into());
    }
    let model = ModelId::new(body.model_id).map_err(|e| e.to_string())?;
    let credentials = body.temp_credentials.map(|(access_key, secret_key, token)| Credentials {
        access_key,
        secret_key,
        token,
    });
    let (spec, streamed) = match (body.model_input.image, body.model_input.text) {
        (Some(image), None) => {
            let Some(credentials) = &credentials else {
                return Err("it has no credentials for the upload".into());
            };
            let header =
                |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
            if ![&credentials.access_key, &credentials.secret_key, &credentials.token]
                .into_iter()
                .all(|text| header(text))
            {
                return Err("its credentials are damaged".into());
            }
            (JobSpec::Image(image_job(model, image, random)?), false)
        }
        (None, Some(text)) => {
            let streamed = text.use_stream;
            (JobSpec::Text(text_job(model, text, random)?), streamed)
        }
        _ => return Err("it asks for neither a picture nor a text".into()),
    };
    spec.validate().map_err(|e| e.to_string())?;
    Ok(Job { id: body.job_id, spec, streamed, credentials })
}

/// A negative seed, or none, means any.
fn seed(seed: Option<&Value>, random: u64) -> u64 {
    seed.and_then(Value::as_u64).unwrap_or(random)
}

/// A count within limits; refuses what is no number of things.
fn count(name: &str, number: f64, max: u32) -> Result<u32, String> {
    if !number.is_finite() || number < 1.0 {
        return Err(format!("its `{name}` is {number}"));
    }
    // Bounded just now.
    Ok(number.min(f64::from(max)) as u32)
}

fn image_job(model: ModelId, input: ImageInput, random: u64) -> Result<ImageJob, String> {
    let side = |name, number| {
        let side = count(name, number, ImageJob::SIDE_MAX)?;
        Ok::<u32, String>((side - side % 8).max(ImageJob::SIDE_MIN))
    };
    Ok(ImageJob {
        prompt: input.prompt,
        negative_prompt: input.neg_prompt.unwrap_or_default(),
        width: side("width", input.width)?,
        height: side("height", input.height)?,
        steps: count("num_iterations", input.num_iterations, ImageJob::STEPS_LIMIT)?,
        guidance: input.guidance_scale as f32,
        seed: seed(input.seed.as_ref(), random),
        ..ImageJob::new(model, "", ImageJob::SIDE_MIN)
    })
}

#[derive(Deserialize)]
struct MessageBody {
    role: Role,
    #[serde(default)]
    content: Option<Value>,
    #[serde(default)]
    tool_calls: Option<Vec<CallBody>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct CallBody {
    id: String,
    function: FunctionBody,
}

#[derive(Deserialize)]
struct FunctionBody {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct ToolBody {
    function: ToolDefinition,
}

/// The words of a message: plain, or in parts of text.
fn words(content: Option<Value>) -> Result<String, String> {
    match content {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| part["text"].as_str().map(str::to_owned);
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            Ok(texts.ok_or("a message holds something else than text")?.join("\n"))
        }
        Some(_) => Err("a message's content is no text".into()),
    }
}

fn text_job(model: ModelId, input: TextInput, random: u64) -> Result<TextJob, String> {
    let unreadable = |what: &str| format!("its `{what}` is not the JSON that this protocol has");
    let messages: Vec<MessageBody> =
        serde_json::from_str(&input.prompt).map_err(|_| unreadable("prompt"))?;
    let message = |body: MessageBody| {
        let calls = body.tool_calls.unwrap_or_default().into_iter().map(|call| ToolCall {
            id: call.id,
            name: call.function.name,
            arguments: call.function.arguments,
        });
        Ok::<ChatMessage, String>(ChatMessage {
            tool_calls: calls.collect(),
            tool_call_id: body.tool_call_id,
            name: body.name,
            ..ChatMessage::new(body.role, words(body.content)?)
        })
    };
    let messages = messages.into_iter().map(message).collect::<Result<_, _>>()?;
    let max_tokens = count("max_tokens", input.max_tokens, TextJob::MAX_TOKENS_LIMIT)?;
    let mut job = TextJob::new(model, messages, max_tokens);
    job.sampling.temperature = input.temperature as f32;
    job.sampling.seed = seed(input.seed.as_ref(), random);
    job.stop = STOPS.map(str::to_owned).to_vec();
    if let Some(tools) = input.tools.filter(|text| !text.is_empty()) {
        let tools: Vec<ToolBody> = serde_json::from_str(&tools).map_err(|_| unreadable("tools"))?;
        job.tools = tools.into_iter().map(|tool| tool.function).collect();
    }
    if let Some(extra) = input.extra_body.filter(|text| !text.is_empty()) {
        let extra: Map<String, Value> =
            serde_json::from_str(&extra).map_err(|_| unreadable("extra_body"))?;
        apply(&mut job, &extra).ok_or_else(|| unreadable("extra_body"))?;
    }
    Ok(job)
}

/// Takes over what a request has beyond the protocol's own fields; unknown fields are left alone.
fn apply(job: &mut TextJob, extra: &Map<String, Value>) -> Option<()> {
    for (name, value) in extra.iter().filter(|(_, value)| !value.is_null()) {
        let number = || value.as_f64().map(|number| number as f32);
        let whole = || value.as_u64().and_then(|number| u32::try_from(number).ok());
        match name.as_str() {
            "top_p" => job.sampling.top_p = number()?,
            // The engine of the original says -1 for none.
            "top_k" => job.sampling.top_k = whole().unwrap_or(0),
            "min_p" => job.sampling.min_p = number()?,
            "repetition_penalty" => job.sampling.repetition_penalty = number()?,
            "frequency_penalty" => job.sampling.frequency_penalty = number()?,
            "presence_penalty" => job.sampling.presence_penalty = number()?,
            "n" => job.choices = whole()?,
            "logprobs" if value.as_bool()? => job.logprobs = Some(job.logprobs.unwrap_or(0)),
            "top_logprobs" => job.logprobs = Some(whole()?),
            "logit_bias" => {
                let bias = value.as_object()?.iter();
                let bias = bias.map(|(id, bias)| Some((id.parse().ok()?, bias.as_f64()? as f32)));
                job.logit_bias = bias.collect::<Option<_>>()?;
            }
            "stop" => {
                let stops = match value {
                    Value::String(stop) => vec![stop.clone()],
                    stops => serde_json::from_value(stops.clone()).ok()?,
                };
                let new = stops.into_iter().filter(|stop| !STOPS.contains(&stop.as_str()));
                job.stop.extend(new.collect::<Vec<_>>());
            }
            "response_format" => {
                job.response_format = match value["type"].as_str()? {
                    "json_object" => ResponseFormat::JsonObject,
                    "json_schema" => ResponseFormat::JsonSchema {
                        schema: value["json_schema"]["schema"].clone(),
                    },
                    _ => ResponseFormat::Text,
                }
            }
            "tool_choice" => {
                job.tool_choice = match value.as_str() {
                    Some("none") => ToolChoice::None,
                    Some("required") => ToolChoice::Required,
                    Some(_) => ToolChoice::Auto,
                    None => ToolChoice::Function {
                        name: value["function"]["name"].as_str()?.to_owned(),
                    },
                }
            }
            _ => {}
        }
    }
    Some(())
}

/// The answers as a text of JSON: what an OpenAI-compatible server calls `choices`.
pub(crate) fn choices(output: &TextOutput) -> String {
    let choices = output.choices.iter().enumerate().map(|(index, answer)| choice(index, answer));
    Value::from(choices.collect::<Vec<_>>()).to_string()
}

fn choice(index: usize, answer: &TextChoice) -> Value {
    let call = |call: &ToolCall| {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        json!({ "id": call.id, "type": "function", "function": function })
    };
    let calls: Vec<Value> = answer.tool_calls.iter().map(call).collect();
    let rated = |token: &RatedToken| {
        json!({
            "token": String::from_utf8_lossy(&token.bytes),
            "bytes": token.bytes,
            "logprob": token.logprob,
        })
    };
    let token = |token: &TokenLogprob| {
        let mut json = rated(&token.chosen);
        json["top_logprobs"] = token.top.iter().map(rated).collect();
        json
    };
    let logprobs = answer.logprobs.as_ref().map(|tokens| {
        let tokens: Vec<Value> = tokens.iter().map(token).collect();
        json!({ "content": tokens })
    });
    let reason = match answer.finish_reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    };
    json!({
        "finish_reason": reason,
        "index": index,
        "logprobs": logprobs,
        "message": {
            "content": answer.text,
            "role": "assistant",
            "function_call": null,
            "tool_calls": if calls.is_empty() { Value::Null } else { calls.into() },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &Value) -> Result<TextJob, String> {
        let body = json!({ "job_id": "j1", "model_id": "m", "model_input": { "LLM": input } });
        match job(body, 77)?.spec {
            JobSpec::Text(job) => Ok(job),
            JobSpec::Image(_) => panic!("a text"),
        }
    }

    fn image(change: impl FnOnce(&mut Value)) -> Result<ImageJob, String> {
        let mut body = json!({
            "job_id": 12, "model_id": "m",
            "model_input": { "SD": {
                "prompt": "a", "neg_prompt": null, "height": 1023, "width": 512,
                "num_iterations": 20, "guidance_scale": 7.5, "seed": -1,
            }},
            "temp_credentials": ["a", "b", "c"],
        });
        change(&mut body);
        match job(body, 77)?.spec {
            JobSpec::Image(job) => Ok(job),
            JobSpec::Text(_) => panic!("a picture"),
        }
    }

    #[test]
    fn pictures_are_brought_within_the_limits() {
        let job = image(|_| {}).expect("a job");
        assert_eq!((job.width, job.height, job.seed), (512, 1016, 77));
        let large = image(|b| {
            let input = &mut b["model_input"]["SD"];
            (input["width"], input["num_iterations"]) = (json!(9000), json!(500));
            input["seed"] = json!(5);
        });
        let large = large.expect("a job");
        assert_eq!((large.width, large.steps, large.seed), (2048, 35, 5));
        for spoilt in [
            image(|b| b["model_input"]["SD"]["width"] = json!(-8)),
            image(|b| b["model_input"]["SD"]["guidance_scale"] = json!(-1)),
            image(|b| b["temp_credentials"] = Value::Null),
            image(|b| b["temp_credentials"] = json!(["a\r\nx: y", "b", "c"])),
            image(|b| b["temp_credentials"] = json!(["a", "b"])),
            image(|b| b["job_id"] = json!("../../x")),
            image(|b| b["job_id"] = json!([1])),
            image(|b| b["model_id"] = json!("a b")),
            image(|b| b["model_input"] = json!({})),
        ] {
            assert!(spoilt.is_err());
        }
    }

    #[test]
    fn texts_are_read_with_what_the_protocol_carries_aside() {
        let messages = json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [{ "type": "text", "text": "hi" }] },
        ]);
        let input = json!({
            "prompt": messages.to_string(), "temperature": 0.5, "max_tokens": 9000, "seed": -1,
            "use_stream": false,
            "tools": json!([{ "type": "function", "function": { "name": "f" } }]).to_string(),
            "extra_body": json!({
                "top_k": -1, "top_p": 0.5, "n": 2, "stop": ["[end]", "X"], "logprobs": true,
                "tool_choice": { "type": "function", "function": { "name": "f" } },
                "response_format": { "type": "json_object" }, "unknown": 1, "logit_bias": { "5": 1 },
            }).to_string(),
        });
        let job = text(&input).expect("a job");
        assert_eq!((job.max_tokens, job.sampling.seed, job.choices), (4096, 77, 2));
        assert_eq!((job.messages[1].content.as_str(), job.messages.len()), ("hi", 2));
        assert_eq!((job.stop.len(), job.stop[4].as_str()), (5, "X"));
        assert_eq!((job.logprobs, job.sampling.top_k, job.logit_bias[0]), (Some(0), 0, (5, 1.0)));
        assert_eq!(job.tool_choice, ToolChoice::Function { name: "f".into() });
        for (field, value) in [
            ("prompt", json!("no JSON")),
            ("prompt", json!("[]")),
            ("temperature", json!(-1)),
            ("max_tokens", json!(0)),
            ("tools", json!("{")),
            ("extra_body", json!("[]")),
            ("extra_body", json!("{\"n\": 99}")),
        ] {
            let mut spoilt = input.clone();
            spoilt[field] = value;
            assert!(text(&spoilt).is_err(), "{field}");
        }
    }
}
