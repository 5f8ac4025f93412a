//! Requests and what became of them.

use std::time::Duration;

use neurino_protocol::{ErrorBody, ErrorCode};
use reqwest::StatusCode;
use serde_json::Value;

use super::Shared;

/// Longest wait for the answer to a request.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a request did not do what it should.
pub(crate) enum Trouble {
    /// Nobody answered; another attempt may help.
    Unreached(String),
    /// It was refused.
    Refused(ErrorBody),
}

impl Trouble {
    pub(crate) fn told(self) -> ErrorBody {
        match self {
            Self::Refused(error) => error,
            Self::Unreached(words) => ErrorBody::new(ErrorCode::Unreachable, words),
        }
    }
}

/// Posts JSON.
pub(crate) async fn post(
    shared: &Shared,
    url: &str,
    body: &Value,
    limit: Duration,
) -> Result<Value, Trouble> {
    answer_of(shared.client.post(url).json(body).timeout(limit)).await
}

/// Sends a request and reads its answer: JSON, or a text that is none.
pub(crate) async fn answer_of(request: reqwest::RequestBuilder) -> Result<Value, Trouble> {
    let unreached = |e: reqwest::Error| Trouble::Unreached(e.without_url().to_string());
    let mut response = request.send().await.map_err(unreached)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreached)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = "the coordinator's answer is too long";
            return Err(Trouble::Refused(ErrorBody::new(ErrorCode::TooLarge, message)));
        }
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let json = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    if status.is_success() {
        return Ok(json);
    }
    // Servers that are busy or broken may do better next time.
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Trouble::Unreached(format!("the coordinator answers with status {status}")));
    }
    Err(Trouble::Refused(refusal(status, &json)))
}

/// What a coordinator of ours says, or the status.
fn refusal(status: StatusCode, json: &Value) -> ErrorBody {
    let code = match status {
        StatusCode::CONFLICT => ErrorCode::StaleLease,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorCode::Unauthorized,
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        _ => ErrorCode::InvalidRequest,
    };
    let said = json["message"].as_str().or(json["detail"].as_str()).map(printable);
    let message =
        said.unwrap_or_else(|| format!("the coordinator refused it with status {status}"));
    ErrorBody::new(code, message)
}

/// Words from outside, fit for a sentence: no control characters, at most 300.
pub(crate) fn printable(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}
