//! Bodies of the original protocol, and how jobs and results look in them.

use neurino_core::{
    ChatMessage, FinishReason, ImageJob, JobSpec, Lease, LeaseId, NodeId, RatedToken,
    ResponseFormat, Role, SamplingParams, TextChoice, TextJob, TextOutput, TokenLogprob, ToolCall,
    ToolChoice, ToolDefinition, Usage,
};
use neurino_protocol::ErrorBody;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::invalid;
use crate::coordinator::{prompt_bytes, prompt_tokens_bound};
use crate::jobs::NETWORK_STOPS;
use crate::uploads::Credentials;

/// Bytes that count as one token where nobody counted: the protocol carries no counts.
const BYTES_PER_TOKEN: usize = 4;

/// Body of `POST /miner_request`.
#[derive(Debug, Deserialize)]
pub(super) struct MinerRequest {
    pub(super) miner_id: String,
    /// Absent or null while no model is loaded.
    #[serde(default)]
    pub(super) model_id: Option<String>,
    /// In seconds.
    #[serde(default)]
    pub(super) min_deadline: Option<f64>,
    #[serde(default)]
    pub(super) hardware: Option<String>,
    #[serde(default)]
    pub(super) version: Option<String>,
}

/// Body of `POST /miner_signal`.
#[derive(Debug, Deserialize)]
pub(super) struct MinerSignal {
    pub(super) miner_id: String,
    pub(super) model_type: String,
    #[serde(default)]
    pub(super) model_id: Option<String>,
    /// The miner will not load another model.
    #[serde(default)]
    pub(super) skip_update: bool,
}

/// Body of `POST /miner_submit`.
#[derive(Debug, Deserialize)]
pub(super) struct MinerSubmit {
    pub(super) miner_id: String,
    pub(super) job_id: String,
    pub(super) result: MinerResult,
    #[serde(default)]
    pub(super) request_latency: Option<f64>,
    #[serde(default)]
    pub(super) loading_latency: Option<f64>,
    #[serde(default)]
    pub(super) inference_latency: Option<f64>,
    #[serde(default)]
    pub(super) upload_latency: Option<f64>,
    #[serde(default)]
    pub(super) signature: Option<String>,
    #[serde(default)]
    pub(super) identity_address: Option<String>,
}

/// The result in it: one of the two.
#[derive(Debug, Deserialize)]
pub(super) struct MinerResult {
    #[serde(default, rename = "S3Key")]
    pub(super) s3_key: Option<String>,
    #[serde(default, rename = "Text")]
    pub(super) text: Option<String>,
}

/// The lease that a job's id on this protocol is: what another attempt at the same job may not hand
/// in.
pub(super) fn lease_of(job_id: &str) -> Result<LeaseId, ErrorBody> {
    job_id.parse().map_err(|_| invalid("`job_id` is not one of this network"))
}

/// A lease as the original miner reads it.
pub(super) fn job(lease: &Lease, node: &NodeId, key: &[u8; 32], streamed: bool) -> Value {
    let mut job = json!({ "job_id": lease.id, "model_id": lease.spec.model() });
    match &lease.spec {
        JobSpec::Text(text) => job["model_input"] = json!({ "LLM": text_input(text, streamed) }),
        JobSpec::Image(image) => {
            job["model_input"] = json!({ "SD": image_input(image) });
            let Credentials { access_key, secret_key, token } =
                Credentials::of(key, lease.id, node);
            job["temp_credentials"] = json!([access_key, secret_key, token]);
        }
    }
    job
}

fn image_input(job: &ImageJob) -> Value {
    json!({
        "prompt": job.prompt,
        "neg_prompt": job.negative_prompt,
        "height": job.height,
        "width": job.width,
        "num_iterations": job.steps,
        "guidance_scale": job.guidance,
        "seed": job.seed,
    })
}

/// Whether a job says no more than the original miner hears when it streams.
pub(super) fn is_plain(job: &TextJob) -> bool {
    let SamplingParams { temperature, seed, .. } = job.sampling;
    job.sampling == SamplingParams { temperature, seed, ..SamplingParams::default() }
        && job.choices == 1
        && job.tools.is_empty()
        && job.logprobs.is_none()
        && job.logit_bias.is_empty()
        && job.response_format == ResponseFormat::Text
        && job.stop.iter().all(|stop| NETWORK_STOPS.contains(&stop.as_str()))
}

fn text_input(job: &TextJob, streamed: bool) -> Value {
    let messages: Vec<Value> = job.messages.iter().map(message).collect();
    let mut input = json!({
        "prompt": Value::from(messages).to_string(),
        "temperature": job.sampling.temperature,
        "max_tokens": job.max_tokens,
        // Seeds of the original's engine are signed numbers, and -1 means none.
        "seed": job.sampling.seed & (i64::MAX as u64),
        "use_stream": streamed,
    });
    if !job.tools.is_empty() {
        let tools: Vec<Value> = job.tools.iter().map(tool).collect();
        input["tools"] = Value::from(tools).to_string().into();
    }
    let extra = extra_body(job);
    if !streamed && !extra.is_empty() {
        input["extra_body"] = Value::from(extra).to_string().into();
    }
    input
}

fn message(message: &ChatMessage) -> Value {
    let mut json = json!({ "role": message.role.as_str(), "content": message.content });
    if !message.tool_calls.is_empty() {
        let call = |call: &ToolCall| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        };
        json["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    if message.role == Role::Tool
        && let Some(id) = &message.tool_call_id
    {
        json["tool_call_id"] = id.as_str().into();
    }
    if let Some(name) = &message.name {
        json["name"] = name.as_str().into();
    }
    json
}

fn tool(tool: &ToolDefinition) -> Value {
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = description.as_str().into();
    }
    if let Some(parameters) = &tool.parameters {
        function["parameters"] = parameters.clone();
    }
    json!({ "type": "function", "function": function })
}

/// What a request has beyond the protocol's own fields, in the words of its engine's API.
fn extra_body(job: &TextJob) -> Map<String, Value> {
    let mut extra = Map::new();
    let mut set = |name: &str, value: Value| extra.insert(name.to_owned(), value);
    let (asked, usual) = (job.sampling, SamplingParams::default());
    for (name, value, usual) in [
        ("top_p", asked.top_p, usual.top_p),
        ("min_p", asked.min_p, usual.min_p),
        ("repetition_penalty", asked.repetition_penalty, usual.repetition_penalty),
        ("frequency_penalty", asked.frequency_penalty, usual.frequency_penalty),
        ("presence_penalty", asked.presence_penalty, usual.presence_penalty),
    ] {
        if value.total_cmp(&usual).is_ne() {
            set(name, value.into());
        }
    }
    if asked.top_k > 0 {
        set("top_k", asked.top_k.into());
    }
    if job.choices > 1 {
        set("n", job.choices.into());
    }
    if let Some(rivals) = job.logprobs {
        set("logprobs", true.into());
        set("top_logprobs", rivals.into());
    }
    if !job.logit_bias.is_empty() {
        let bias = job.logit_bias.iter().map(|(token, bias)| (token.to_string(), json!(bias)));
        set("logit_bias", Value::Object(bias.collect()));
    }
    if job.stop.iter().any(|stop| !NETWORK_STOPS.contains(&stop.as_str())) {
        set("stop", json!(job.stop));
    }
    match &job.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => {
            set("response_format", json!({ "type": "json_object" }));
        }
        ResponseFormat::JsonSchema { schema } => {
            let named = json!({ "name": "answer", "schema": schema });
            set("response_format", json!({ "type": "json_schema", "json_schema": named }));
        }
    }
    match &job.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None => {
            set("tool_choice", "none".into());
        }
        ToolChoice::Required => {
            set("tool_choice", "required".into());
        }
        ToolChoice::Function { name } => {
            let function = json!({ "name": name });
            set("tool_choice", json!({ "type": "function", "function": function }));
        }
    }
    extra
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Rated>>,
}

#[derive(Deserialize)]
struct Rated {
    token: String,
    logprob: f32,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<Rated>,
}

/// Reads a `Text` result: JSON of an array of choices, or from early miners the answer itself.
pub(super) fn output(text: &str, job: &TextJob) -> TextOutput {
    let choices = match serde_json::from_str::<Vec<Choice>>(text) {
        Ok(choices) => choices.into_iter().map(|read| choice(read, job)).collect(),
        Err(_) => vec![TextChoice::new(until_stop(text, &job.stop), FinishReason::Stop)],
    };
    let usage = usage(&choices, job);
    TextOutput { choices, usage, precision: None }
}

fn choice(read: Choice, job: &TextJob) -> TextChoice {
    let calls = read.message.tool_calls.unwrap_or_default();
    let calls = calls.into_iter().map(|call| ToolCall {
        id: call.id,
        name: call.function.name,
        arguments: call.function.arguments,
    });
    let rated = |rated: &Rated| RatedToken {
        bytes: rated.bytes.clone().unwrap_or_else(|| rated.token.clone().into_bytes()),
        logprob: rated.logprob,
    };
    let logprobs =
        read.logprobs.and_then(|logprobs| logprobs.content).filter(|_| job.logprobs.is_some());
    let logprobs = logprobs.map(|tokens| {
        let token = |token: &Rated| TokenLogprob {
            chosen: rated(token),
            top: token.top_logprobs.iter().map(rated).collect(),
        };
        tokens.iter().map(token).collect()
    });
    let text = read.message.content.unwrap_or_default();
    let finish_reason = match read.finish_reason.as_deref() {
        Some("length") => FinishReason::Length,
        Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
        _ => FinishReason::Stop,
    };
    let text = until_stop(&text, &job.stop).to_owned();
    TextChoice { tool_calls: calls.collect(), logprobs, ..TextChoice::new(text, finish_reason) }
}

/// A text without its first stop string and what follows it.
pub(super) fn until_stop<'a>(text: &'a str, stops: &[String]) -> &'a str {
    let first = stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
    first.map_or(text, |at| &text[..at])
}

/// Tokens by the size of the texts, within what the job allows.
pub(super) fn usage(choices: &[TextChoice], job: &TextJob) -> Usage {
    let tokens = |bytes: usize| u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX);
    let written = choices.iter().map(|choice| {
        let calls = choice.tool_calls.iter().map(|c| c.name.len() + c.arguments.len());
        tokens(choice.text.len() + calls.sum::<usize>()).min(job.max_tokens)
    });
    let bound = prompt_tokens_bound(&JobSpec::Text(job.clone()));
    Usage {
        prompt_tokens: tokens(prompt_bytes(job)).clamp(1, bound.max(1)),
        completion_tokens: written.fold(0, u32::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::ModelId;

    use super::*;

    fn job() -> TextJob {
        let messages = vec![ChatMessage::new(Role::User, "Say \"hi\"")];
        let mut job = TextJob::new(ModelId::new("m").expect("valid"), messages, 16);
        job.stop = NETWORK_STOPS.map(str::to_owned).to_vec();
        job
    }

    #[test]
    fn a_plain_job_has_the_fields_of_the_original_and_no_others() {
        let mut job = job();
        job.sampling.temperature = 0.5;
        job.sampling.seed = u64::MAX;
        assert!(is_plain(&job));
        let expect = json!({
            "prompt": r#"[{"role":"user","content":"Say \"hi\""}]"#,
            "temperature": 0.5, "max_tokens": 16, "seed": i64::MAX, "use_stream": true,
        });
        assert_eq!(text_input(&job, true), expect);
    }

    #[test]
    fn what_the_protocol_has_no_field_for_goes_into_the_extra_body() {
        let mut job = job();
        job.sampling.top_k = 40;
        job.choices = 2;
        job.stop.push("END".into());
        job.logprobs = Some(1);
        job.logit_bias = vec![(7, 1.0)];
        job.response_format = ResponseFormat::JsonObject;
        job.tools = vec![ToolDefinition { name: "f".into(), description: None, parameters: None }];
        job.tool_choice = ToolChoice::Required;
        assert!(!is_plain(&job));
        let input = text_input(&job, false);
        assert_eq!(input["tools"], r#"[{"type":"function","function":{"name":"f"}}]"#);
        let extra: Value =
            serde_json::from_str(input["extra_body"].as_str().expect("a string")).expect("JSON");
        let expect = json!({
            "top_k": 40, "n": 2, "logprobs": true, "top_logprobs": 1, "logit_bias": { "7": 1.0 },
            "stop": ["[End]", "[end]", "<|im_start|>", "<|im_end|>", "END"],
            "response_format": { "type": "json_object" }, "tool_choice": "required",
        });
        assert_eq!(extra, expect);
    }

    #[test]
    fn results_are_read_as_choices_or_as_text() {
        let mut job = job();
        let choices = json!([{
            "finish_reason": "length", "index": 0, "logprobs": null,
            "message": { "content": "Hello there[end] secret", "role": "assistant", "tool_calls": null },
        }]);
        let read = output(&choices.to_string(), &job);
        assert_eq!(read.text(), "Hello there");
        assert_eq!(read.choices[0].finish_reason, FinishReason::Length);
        assert_eq!(read.usage, Usage { prompt_tokens: 2, completion_tokens: 3 });
        let read = output("plain [1, 2]", &job);
        assert_eq!(
            (read.text(), read.choices[0].finish_reason),
            ("plain [1, 2]", FinishReason::Stop)
        );
        assert_eq!(output("[1, 2]", &job).text(), "[1, 2]");
        job.max_tokens = 1;
        assert_eq!(output(&"x".repeat(100), &job).usage.completion_tokens, 1);
        let call = json!([{ "finish_reason": "tool_calls", "message": { "content": null, "tool_calls": [
            { "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{}" } },
        ]}}]);
        let read = output(&call.to_string(), &job);
        assert_eq!(read.choices[0].tool_calls[0].name, "f");
    }
}
