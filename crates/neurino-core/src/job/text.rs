//! Chat completions: what is asked for and what comes back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use ts_rs::TS;

use super::{ClaimScore, InvalidJob, SamplingParams, TextClaim};
use crate::ids::ModelId;

/// A chat completion request, as the network carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TextJob {
    /// Model of the catalogue.
    pub model: ModelId,
    /// The conversation, oldest first; never empty.
    pub messages: Vec<ChatMessage>,
    /// How the next token is chosen.
    pub sampling: SamplingParams,
    /// Most tokens to generate, 1 to [`TextJob::MAX_TOKENS_LIMIT`].
    pub max_tokens: u32,
    /// Whether fewer will do where the prompt leaves less of the model's context: nobody asked for that
    /// many. Else such a job is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fewer_tokens: bool,
    /// Texts that end the answer; they are cut off. At most [`TextJob::STOP_LIMIT`].
    #[serde(default)]
    pub stop: Vec<String>,
    /// Functions the model may call. At most [`TextJob::TOOLS_LIMIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolDefinition>,
    /// Whether and which of them it has to call.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// What the answer has to look like.
    #[serde(default)]
    pub response_format: ResponseFormat,
    /// Answers to give, each with its own random numbers; 1 to [`TextJob::CHOICES_LIMIT`].
    #[serde(default = "one")]
    pub choices: u32,
    /// Asks for the log-probability of every token, and of so many of its likeliest rivals (0 to
    /// [`TextJob::TOP_LOGPROBS_LIMIT`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
    /// Added to the logits of single tokens (token, -100 to 100). At most
    /// [`TextJob::LOGIT_BIAS_LIMIT`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logit_bias: Vec<(u32, f32)>,
    /// Whether the result has to name its tokens. The coordinator asks for it where the node can.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub name_tokens: bool,
    /// Answers that somebody gave to this job. They are scored, and nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<TextClaim>,
}

fn one() -> u32 {
    1
}

impl TextJob {
    /// Most tokens one job may generate (the deployed network's limit).
    pub const MAX_TOKENS_LIMIT: u32 = 4096;
    /// Most stop strings of one job.
    pub const STOP_LIMIT: usize = 8;
    /// Most messages of one conversation.
    pub const MESSAGES_LIMIT: usize = 256;

    /// Most functions of one job.
    pub const TOOLS_LIMIT: usize = 128;
    /// Most answers of one job.
    pub const CHOICES_LIMIT: u32 = 8;
    /// Most rivals of a token whose log-probabilities can be asked for.
    pub const TOP_LOGPROBS_LIMIT: u32 = 20;
    /// Most log-probabilities of one job, rivals counted, so that a result fits a message.
    pub const LOGPROBS_LIMIT: u32 = 32_768;
    /// Most single tokens whose logits are changed.
    pub const LOGIT_BIAS_LIMIT: usize = 1024;
    /// Most bytes of all tools' schemas and descriptions together, and of the answer's schema.
    pub const SCHEMA_BYTES_LIMIT: usize = 64 << 10;

    /// A conversation with the usual parameters, for callers that change single ones.
    pub fn new(model: ModelId, messages: Vec<ChatMessage>, max_tokens: u32) -> Self {
        Self {
            model,
            messages,
            sampling: SamplingParams::default(),
            max_tokens,
            fewer_tokens: false,
            stop: Vec::new(),
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            response_format: ResponseFormat::default(),
            choices: 1,
            logprobs: None,
            logit_bias: Vec::new(),
            name_tokens: false,
            claim: None,
        }
    }

    /// Checks every limit that does not need the model.
    ///
    /// # Errors
    /// [`InvalidJob`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        if self.messages.is_empty() {
            return bad("messages", "needs at least one message".into());
        }
        if self.messages.len() > Self::MESSAGES_LIMIT {
            return bad("messages", format!("takes at most {} messages", Self::MESSAGES_LIMIT));
        }
        if self.max_tokens == 0 || self.max_tokens > Self::MAX_TOKENS_LIMIT {
            return bad("max_tokens", format!("must be 1 to {}", Self::MAX_TOKENS_LIMIT));
        }
        if self.stop.len() > Self::STOP_LIMIT {
            return bad("stop", format!("takes at most {} strings", Self::STOP_LIMIT));
        }
        if self.stop.iter().any(|s| s.is_empty() || s.len() > 256) {
            return bad("stop", "takes strings of 1 to 256 bytes each".into());
        }
        self.validate_answers()?;
        self.validate_tools()?;
        self.claim.as_ref().map_or(Ok(()), |claim| claim.validate(self))?;
        self.sampling.validate()
    }

    fn validate_answers(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        if self.choices == 0 || self.choices > Self::CHOICES_LIMIT {
            return bad("n", format!("must be 1 to {}", Self::CHOICES_LIMIT));
        }
        if let Some(rivals) = self.logprobs {
            if rivals > Self::TOP_LOGPROBS_LIMIT {
                return bad("top_logprobs", format!("must be 0 to {}", Self::TOP_LOGPROBS_LIMIT));
            }
            // No overflow: the three factors were just bounded.
            if self.choices * self.max_tokens * (1 + rivals) > Self::LOGPROBS_LIMIT {
                let rule = format!(
                    "asks for too much: n * max_tokens * (1 + top_logprobs) must be at most {}",
                    Self::LOGPROBS_LIMIT
                );
                return bad("logprobs", rule);
            }
        }
        if self.logit_bias.len() > Self::LOGIT_BIAS_LIMIT {
            return bad("logit_bias", format!("takes at most {} tokens", Self::LOGIT_BIAS_LIMIT));
        }
        if self.logit_bias.iter().any(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
            return bad("logit_bias", "takes values from -100 to 100".into());
        }
        if !all_differ(self.logit_bias.iter().map(|(token, _)| token)) {
            return bad("logit_bias", "takes each token once".into());
        }
        Ok(())
    }

    fn validate_tools(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        if self.tools.len() > Self::TOOLS_LIMIT {
            return bad("tools", format!("takes at most {} functions", Self::TOOLS_LIMIT));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let named = |name: &str| (1..=64).contains(&name.len()) && name.chars().all(plain);
        if self.tools.iter().any(|tool| !named(&tool.name)) {
            let rule = "takes functions with names of 1 to 64 letters, digits, _ and -";
            return bad("tools", rule.into());
        }
        if !all_differ(self.tools.iter().map(|tool| &tool.name)) {
            return bad("tools", "takes each function once".into());
        }
        self.validate_schemas()?;
        match &self.tool_choice {
            ToolChoice::Required | ToolChoice::Function { .. } if self.tools.is_empty() => {
                bad("tool_choice", "needs `tools` to choose from".into())
            }
            ToolChoice::Function { name } if self.tools.iter().all(|tool| tool.name != *name) => {
                bad("tool_choice", "names a function that is not in `tools`".into())
            }
            _ => Ok(()),
        }
    }

    fn validate_schemas(&self) -> Result<(), InvalidJob> {
        let bad = |field, rule: String| Err(InvalidJob { field, rule });
        // `true` and `false` are schemas, too, but of no use here.
        if self.tools.iter().flat_map(|tool| &tool.parameters).any(|schema| !schema.is_object()) {
            return bad("tools", "takes `parameters` that are objects".into());
        }
        let described = |tool: &ToolDefinition| {
            let schema = tool.parameters.as_ref().map_or(0, |schema| schema.to_string().len());
            schema + tool.description.as_ref().map_or(0, String::len)
        };
        if self.tools.iter().map(described).sum::<usize>() > Self::SCHEMA_BYTES_LIMIT {
            let limit = Self::SCHEMA_BYTES_LIMIT;
            return bad(
                "tools",
                format!("takes schemas and descriptions of at most {limit} bytes"),
            );
        }
        let ResponseFormat::JsonSchema { schema } = &self.response_format else { return Ok(()) };
        if !schema.is_object() {
            return bad("response_format", "takes a schema that is an object".into());
        }
        if schema.to_string().len() > Self::SCHEMA_BYTES_LIMIT {
            let limit = Self::SCHEMA_BYTES_LIMIT;
            return bad("response_format", format!("takes a schema of at most {limit} bytes"));
        }
        Ok(())
    }
}

/// Whether nothing occurs twice.
fn all_differ<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    items.into_iter().all(|item| seen.insert(item))
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said; what a function returned, for [`Role::Tool`].
    pub content: String,
    /// The functions that an earlier answer called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: the call that this is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// For [`Role::Tool`]: the function's name, if the caller says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ChatMessage {
    /// Plain words of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = content.into();
        Self { role, content, tool_calls: Vec::new(), tool_call_id: None, name: None }
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ToolDefinition {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[ts(type = "unknown")]
    pub parameters: Option<serde_json::Value>,
}

/// Whether the model calls functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must call at least one.
    Required,
    /// It must call this one.
    Function {
        /// The function's name.
        name: String,
    },
}

/// What an answer has to look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// The schema.
        #[ts(type = "unknown")]
        schema: serde_json::Value,
    },
}

/// A function call in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct ToolCall {
    /// Names the call, so that its result can refer to it.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments, as JSON text: exactly what the model wrote.
    pub arguments: String,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a function that the model called.
    Tool,
}

impl Role {
    /// The word chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// The generated answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TextOutput {
    /// As many as the job asked for, in order.
    pub choices: Vec<TextChoice>,
    /// Tokens read and written. The prompt counts once.
    pub usage: Usage,
    /// How the weights were kept that wrote it: part of what tells whether another result must be
    /// equal to the last bit. Absent where an engine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<WeightPrecision>,
}

/// How an engine keeps a model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum WeightPrecision {
    /// As they are stored.
    Packed,
    /// In 32 bits.
    Full,
    /// In 16 bits, blocks as they are stored.
    Half,
    /// In 4 bits, made while loading.
    FourBit,
}

impl TextOutput {
    /// One plain answer.
    pub fn single(text: impl Into<String>, finish_reason: FinishReason, usage: Usage) -> Self {
        Self { choices: vec![TextChoice::new(text, finish_reason)], usage, precision: None }
    }

    /// The first answer's text.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |choice| &choice.text)
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TextChoice {
    /// The answer, without its stop string and without what was parsed as tool calls.
    pub text: String,
    /// The functions it calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One a generated token, if the job asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Its tokens, the end token included, if the job asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// What scoring found, if the answer was claimed and not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<ClaimScore>,
}

impl TextChoice {
    /// A plain answer.
    pub fn new(text: impl Into<String>, finish_reason: FinishReason) -> Self {
        let text = text.into();
        let (tool_calls, logprobs, tokens, score) = (Vec::new(), None, None, None);
        Self { text, tool_calls, finish_reason, logprobs, tokens, score }
    }
}

/// How likely a generated token was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct TokenLogprob {
    /// The token and its log-probability.
    #[serde(flatten)]
    pub chosen: RatedToken,
    /// The likeliest tokens at this place, likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<RatedToken>,
}

/// A token with its log-probability (natural logarithm, before temperature and filters).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, TS)]
pub struct RatedToken {
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// At most 0.
    pub logprob: f32,
}

/// Part of an answer, as it grows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, TS)]
pub struct TextDelta {
    /// Which answer, counted from 0.
    #[serde(default)]
    pub choice: u32,
    /// Text since the last delta of this answer. May be empty.
    #[serde(default)]
    pub text: String,
    /// Calls that became complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of the tokens since the last delta, if the job asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

impl TextDelta {
    /// Plain text of the first answer.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Appends a later delta of the same answer.
    pub fn append(&mut self, later: Self) {
        debug_assert_eq!(self.choice, later.choice, "deltas of one answer");
        self.text.push_str(&later.text);
        self.tool_calls.extend(later.tool_calls);
        self.logprobs.extend(later.logprobs);
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model's end token or a stop string.
    Stop,
    /// `max_tokens` or the model's context was reached.
    Length,
    /// The model called functions and waits for their results.
    ToolCalls,
}

/// Tokens read and written by one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
pub struct Usage {
    /// Tokens of the prompt, after the chat template.
    pub prompt_tokens: u32,
    /// Tokens generated in all answers, end tokens included.
    pub completion_tokens: u32,
}

impl Usage {
    /// Tokens in and out.
    pub fn total(self) -> u32 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobSpec;

    fn job() -> TextJob {
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        TextJob::new(ModelId::new("m").expect("valid"), messages, 16)
    }

    fn check(change: impl FnOnce(&mut TextJob), field: Option<&str>) {
        let mut job = job();
        change(&mut job);
        assert_eq!(job.validate().err().map(|e| e.field), field);
    }

    #[test]
    fn limits_name_their_field() {
        check(|_| {}, None);
        check(|j| j.messages.clear(), Some("messages"));
        check(|j| j.max_tokens = 0, Some("max_tokens"));
        check(|j| j.max_tokens = 5000, Some("max_tokens"));
        check(|j| j.stop = vec![String::new()], Some("stop"));
        check(|j| j.sampling.temperature = f32::NAN, Some("temperature"));
        check(|j| j.sampling.top_p = 0.0, Some("top_p"));
        check(|j| j.sampling.min_p = 1.5, Some("min_p"));
        check(|j| j.sampling.repetition_penalty = f32::NAN, Some("repetition_penalty"));
        check(|j| j.sampling.frequency_penalty = -3.0, Some("frequency_penalty"));
        check(|j| j.sampling.presence_penalty = 2.5, Some("presence_penalty"));
        check(|j| j.choices = 0, Some("n"));
        check(|j| j.choices = 9, Some("n"));
        check(|j| j.logprobs = Some(20), None);
        check(|j| j.logprobs = Some(21), Some("top_logprobs"));
        check(|j| (j.logprobs, j.max_tokens) = (Some(20), 4096), Some("logprobs"));
        check(|j| j.logit_bias = vec![(5, f32::NAN)], Some("logit_bias"));
        check(|j| j.logit_bias = vec![(5, 1.0); 1025], Some("logit_bias"));
        check(|j| j.logit_bias = vec![(5, 1.0), (6, 1.0)], None);
        check(|j| j.logit_bias = vec![(5, 1.0), (5, 2.0)], Some("logit_bias"));
        check(|j| j.logit_bias = vec![(5, f32::INFINITY)], Some("logit_bias"));
        check(|j| j.stop = vec!["s".into(); 9], Some("stop"));
        check(|j| j.stop = vec!["s".repeat(257)], Some("stop"));
        check(|j| j.stop = vec!["s".into(); 2], None);
        check(|j| j.sampling.top_k = u32::MAX, None);
        check(|j| j.sampling.seed = u64::MAX, None);
        check(|j| j.sampling.temperature = f32::INFINITY, Some("temperature"));
        check(|j| j.sampling.temperature = -0.1, Some("temperature"));
        check(|j| j.sampling.top_p = f32::NAN, Some("top_p"));
        // Scores divided by next to nothing are no numbers.
        check(|j| j.sampling.repetition_penalty = 1e-30, Some("repetition_penalty"));
        check(|j| j.sampling.repetition_penalty = 0.01, None);
    }

    #[test]
    fn tools_are_checked_with_their_choice() {
        let tool = |name: &str| ToolDefinition {
            name: name.into(),
            description: None,
            parameters: Some(serde_json::json!({ "type": "object" })),
        };
        let function = |name: &str| ToolChoice::Function { name: name.into() };
        check(|j| j.tools = vec![tool("get_weather")], None);
        check(|j| j.tools = vec![tool("get weather")], Some("tools"));
        check(|j| j.tools = (0..128).map(|n| tool(&format!("f{n}"))).collect(), None);
        check(|j| j.tools = (0..129).map(|n| tool(&format!("f{n}"))).collect(), Some("tools"));
        check(|j| j.tools = vec![tool("f"), tool("f")], Some("tools"));
        check(|j| j.tools = vec![tool(&"f".repeat(65))], Some("tools"));
        let odd = ToolDefinition { parameters: Some(serde_json::json!(5)), ..tool("f") };
        check(|j| j.tools = vec![odd], Some("tools"));
        let wordy = Some("d".repeat(TextJob::SCHEMA_BYTES_LIMIT));
        check(
            |j| j.tools = vec![ToolDefinition { description: wordy, ..tool("f") }],
            Some("tools"),
        );
        check(|j| j.tool_choice = ToolChoice::Required, Some("tool_choice"));
        check(|j| (j.tools, j.tool_choice) = (vec![tool("f")], function("f")), None);
        check(|j| (j.tools, j.tool_choice) = (vec![tool("f")], function("g")), Some("tool_choice"));
        let long = "x".repeat(TextJob::SCHEMA_BYTES_LIMIT);
        for schema in [serde_json::json!({ "title": long }), serde_json::json!("object")] {
            let format = ResponseFormat::JsonSchema { schema };
            check(|j| j.response_format = format, Some("response_format"));
        }
    }

    #[test]
    fn a_job_survives_the_wire_and_old_ones_are_understood() {
        let mut full = job();
        full.tools = vec![ToolDefinition {
            name: "f".into(),
            description: Some("d".into()),
            parameters: Some(serde_json::json!({ "type": "object" })),
        }];
        full.tool_choice = ToolChoice::Function { name: "f".into() };
        full.response_format = ResponseFormat::JsonObject;
        full.choices = 3;
        full.logprobs = Some(2);
        full.logit_bias = vec![(7, -100.0), (9, 0.5)];
        full.name_tokens = true;
        let (answers, seeds) = (vec![vec![1, 2], vec![3], vec![4]], vec![u64::MAX, 1]);
        full.claim = Some(TextClaim { answers, seeds, clip_ppm: 250_000 });
        let spec = JobSpec::Text(full);
        let json = serde_json::to_string(&spec).expect("serialises");
        assert_eq!(serde_json::from_str::<JobSpec>(&json).expect("parses"), spec);
        let old = r#"{"kind":"text","model":"m","messages":[{"role":"user","content":"hi"}],
            "sampling":{"temperature":1.0,"top_p":1.0,"top_k":0,"seed":0},"max_tokens":16}"#;
        assert_eq!(serde_json::from_str::<JobSpec>(old).expect("parses"), JobSpec::Text(job()));
    }
}
