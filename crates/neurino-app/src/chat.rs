//! The Playground's client: talks to a gateway as any OpenAI-compatible program would.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use neurino_core::{ChatMessage, ModelId, Usage};
use neurino_protocol::app::ChatUpdate;
use neurino_protocol::{ErrorBody, ErrorCode};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Longest line of an answer's stream that is accepted, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest silence of a running stream.
const SILENCE_MAX: Duration = Duration::from_secs(200);

/// Where and how to ask.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) base_url: String,
    pub(crate) api_key: std::sync::Arc<str>,
    pub(crate) http: reqwest::Client,
}

/// One question.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) model: ModelId,
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) temperature: f32,
    pub(crate) max_tokens: u32,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<ChunkUsage>,
    #[serde(default)]
    error: Option<EdgeError>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct ChunkUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
}

/// The gateway's words about what went wrong.
#[derive(Deserialize)]
pub(crate) struct EdgeError {
    message: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: EdgeError,
}

impl From<EdgeError> for ErrorBody {
    fn from(error: EdgeError) -> Self {
        let code = match error.code.as_deref() {
            // The words of OpenAI's own clients, where they have some; else ours.
            Some("model_not_found") => Some(ErrorCode::UnknownModel),
            Some("context_length_exceeded") => Some(ErrorCode::ContextTooLong),
            Some("content_policy_violation") => Some(ErrorCode::Declined),
            Some("invalid_api_key") => Some(ErrorCode::Unauthorized),
            Some(ours) => serde_json::from_value(ours.into()).ok(),
            None => None,
        };
        let refused = error.kind.as_deref() == Some("invalid_request_error");
        let code = code.or(refused.then_some(ErrorCode::InvalidRequest));
        ErrorBody::new(code.unwrap_or(ErrorCode::Internal), error.message)
    }
}

/// Asks, and hands every step to `emit`; ends with `Done` or `Failed`. Cancelling closes the
/// connection, which withdraws the job.
pub(crate) async fn ask(
    gateway: &Gateway,
    question: &Question,
    cancel: &CancellationToken,
    mut emit: impl FnMut(ChatUpdate),
) {
    let started = Instant::now();
    let last = tokio::select! {
        () = cancel.cancelled() => Err(cancelled()),
        result = stream(gateway, question, &mut emit) => result,
    };
    emit(match last {
        Ok(usage) => ChatUpdate::Done { usage, duration_ms: started.elapsed().as_millis() as u64 },
        Err(error) => ChatUpdate::Failed { error },
    });
}

fn cancelled() -> ErrorBody {
    ErrorBody::new(ErrorCode::Cancelled, "You stopped this answer.")
}

async fn stream(
    gateway: &Gateway,
    question: &Question,
    emit: &mut impl FnMut(ChatUpdate),
) -> Result<Usage, ErrorBody> {
    let body = json!({
        "model": question.model,
        "messages": question.messages,
        "temperature": question.temperature,
        "max_tokens": question.max_tokens,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    // The gateway answers with the first word, or with a refusal; until then the person is waiting.
    emit(ChatUpdate::Queued);
    let answer = request(gateway, "chat/completions", &body).await?;
    read_stream(answer, emit).await
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn request(
    gateway: &Gateway,
    route: &str,
    body: &serde_json::Value,
) -> Result<reqwest::Response, ErrorBody> {
    let answer = gateway
        .http
        .post(format!("{}/{route}", gateway.base_url))
        .bearer_auth(&gateway.api_key)
        // A person who asks first and presses Start then need not ask again.
        .header("prefer", "wait=30")
        .json(body)
        .send()
        .await
        .map_err(|_| unreachable_network())?;
    if !answer.status().is_success() {
        let status = answer.status();
        let error = answer.json::<ErrorAnswer>().await.map_or_else(
            |_| ErrorBody::new(ErrorCode::Internal, format!("the network answered {status}")),
            |a| a.error.into(),
        );
        return Err(error);
    }
    Ok(answer)
}

async fn read_stream(
    answer: reqwest::Response,
    emit: &mut impl FnMut(ChatUpdate),
) -> Result<Usage, ErrorBody> {
    let mut lines = Lines::new(answer, LINE_BYTES_MAX);
    let mut usage = Usage::default();
    loop {
        let data = lines.next().await?.ok_or_else(broken)?;
        if data == "[DONE]" {
            return Ok(usage);
        }
        let chunk: Chunk = serde_json::from_str(&data).map_err(|_| broken())?;
        if let Some(error) = chunk.error {
            return Err(error.into());
        }
        if let Some(u) = chunk.usage {
            usage =
                Usage { prompt_tokens: u.prompt_tokens, completion_tokens: u.completion_tokens };
        }
        for text in chunk.choices.into_iter().filter_map(|c| c.delta.content) {
            if !text.is_empty() {
                emit(ChatUpdate::Delta { text });
            }
        }
    }
}

/// The payloads of an answer's server-sent events.
pub(crate) struct Lines<S> {
    bytes: S,
    pending: Vec<u8>,
    /// So much of `pending` holds no end of a line.
    searched: usize,
    line_bytes_max: usize,
}

impl Lines<()> {
    /// The events of `answer`; none may be longer than `line_bytes_max`.
    pub(crate) fn new(
        answer: reqwest::Response,
        line_bytes_max: usize,
    ) -> Lines<impl futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin> {
        let bytes = Box::pin(answer.bytes_stream());
        Lines { bytes, pending: Vec::new(), searched: 0, line_bytes_max }
    }
}

impl<S: futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin> Lines<S> {
    /// The next payload; `None` at the end of the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<String>, ErrorBody> {
        loop {
            while let Some(end) = self.pending[self.searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=self.searched + end).collect();
                self.searched = 0;
                if let Some(data) = data_of(&line) {
                    return Ok(Some(data.to_owned()));
                }
            }
            self.searched = self.pending.len();
            if self.pending.len() > self.line_bytes_max {
                let words = "The answer has an endless line.";
                return Err(ErrorBody::new(ErrorCode::TooLarge, words));
            }
            match tokio::time::timeout(SILENCE_MAX, self.bytes.next()).await {
                Ok(Some(Ok(piece))) => self.pending.extend_from_slice(&piece),
                Ok(Some(Err(_))) => return Err(broken()),
                Ok(None) => return Ok(None),
                Err(_) => {
                    let words = "The network went silent for too long.";
                    return Err(ErrorBody::new(ErrorCode::DeadlinePassed, words));
                }
            }
        }
    }
}

/// The payload of a server-sent event's `data:` line.
fn data_of(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()?.trim_end().strip_prefix("data:").map(str::trim_start)
}

fn unreachable_network() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "The network cannot be reached.")
        .with_hint("Check the connection, then try again.")
}

pub(crate) fn broken() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "The connection broke before the answer was complete.")
        .with_hint("Try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_lines_are_told_from_comments() {
        assert_eq!(data_of(b"data: {\"a\":1}\r\n"), Some("{\"a\":1}"));
        assert_eq!(data_of(b"data:[DONE]\n"), Some("[DONE]"));
        assert_eq!(data_of(b": keep-alive\n"), None);
        assert_eq!(data_of(b"\n"), None);
    }

    #[test]
    fn a_refused_field_is_an_invalid_request_whatever_is_wrong_with_it() {
        let text = r#"{"error":{"message":"words","type":"invalid_request_error",
            "code":"invalid_value","param":"temperature"}}"#;
        let answer: ErrorAnswer = serde_json::from_str(text).expect("an error");
        assert_eq!(ErrorBody::from(answer.error).code, ErrorCode::InvalidRequest);
    }

    #[test]
    fn errors_keep_their_code_whatever_it_is_called() {
        for (code, expect) in [
            (r#""model_not_found""#, ErrorCode::UnknownModel),
            (r#""context_length_exceeded""#, ErrorCode::ContextTooLong),
            (r#""content_policy_violation""#, ErrorCode::Declined),
            (r#""overloaded""#, ErrorCode::Overloaded),
            (r#""something_new""#, ErrorCode::Internal),
            ("null", ErrorCode::Internal),
        ] {
            let text = format!(r#"{{"error":{{"message":"words","type":"x","code":{code}}}}}"#);
            let answer: ErrorAnswer = serde_json::from_str(&text).expect("an error");
            assert_eq!(ErrorBody::from(answer.error), ErrorBody::new(expect, "words"), "{code}");
        }
    }
}
