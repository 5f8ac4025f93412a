//! A streamed answer: server-sent events from the updates of a job.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::Event;
use futures::Stream;
use neurino_core::{JobOutput, TextChoice, TextDelta, TextOutput};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::answer::{Answer, call, finish, logprobs, usage};
use super::gateway::CancelGuard;
use super::http::ApiError;
use crate::fabric::Resume;
use crate::watch::{JobUpdate, JobWatch};

/// How much of a choice was sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// Whether its first chunk, which has the role, was.
    begun: bool,
    text_bytes: usize,
    calls: usize,
    logprobs: usize,
    /// Whether its last chunk was.
    finished: bool,
}

/// A streamed answer.
pub(super) struct ChatStream {
    answer: Answer,
    include_usage: bool,
    watch: JobWatch,
    guard: Option<CancelGuard>,
    fingerprint: Option<String>,
    /// By choice; those at the end that nothing was sent of are missing.
    sent: Vec<Sent>,
    pending: VecDeque<String>,
    done: bool,
}

impl ChatStream {
    /// Waits for the first piece of an answer, which decides the status.
    pub(super) async fn open(
        answer: Answer,
        include_usage: bool,
        mut watch: JobWatch,
        guard: CancelGuard,
    ) -> Result<Self, ApiError> {
        let first = loop {
            match watch.next().await {
                Some(JobUpdate::Queued | JobUpdate::Leased { .. }) => {}
                Some(JobUpdate::Failed(error)) => return Err(ApiError::openai(error)),
                Some(update) => break update,
                None => return Err(ApiError::openai(crate::error::shutting_down())),
            }
        };
        let mut stream = Self {
            answer,
            include_usage,
            fingerprint: watch.fingerprint(),
            watch,
            guard: Some(guard),
            sent: Vec::new(),
            pending: VecDeque::new(),
            done: false,
        };
        stream.take(first);
        Ok(stream)
    }

    /// The rest of a stream whose client has had its beginning, once the whole answer is there. An
    /// answer that begins otherwise is not put behind it.
    pub(super) async fn go_on(
        answer: Answer,
        include_usage: bool,
        mut watch: JobWatch,
        mut guard: CancelGuard,
        had: Resume,
    ) -> Result<Self, ApiError> {
        if !had.choices.is_empty() {
            guard.delivered();
        }
        let (output, _) = watch.finished().await.map_err(ApiError::openai)?;
        let JobOutput::Text(text) = output else {
            return Err(ApiError::openai(super::gateway::not_a_text()));
        };
        if !had.begins(&text) {
            let message = "the answer was made anew, and does not begin with what was sent of it";
            let error = ErrorBody::new(ErrorCode::EngineFailed, message);
            let hint = "repeat the request under its idempotency key for the whole answer";
            return Err(ApiError::openai(error.with_hint(hint)));
        }
        let created = if had.choices.is_empty() { answer.created } else { had.created };
        let sent = had.choices.iter().map(|sent| Sent {
            begun: sent.begun,
            text_bytes: sent.text_bytes,
            calls: sent.calls,
            logprobs: sent.logprobs,
            finished: sent.finished,
        });
        let mut stream = Self {
            answer: Answer { created, ..answer },
            include_usage: include_usage && !had.usage,
            fingerprint: watch.fingerprint(),
            watch,
            guard: Some(guard),
            sent: sent.collect(),
            pending: VecDeque::new(),
            done: false,
        };
        stream.finish(&text);
        Ok(stream)
    }

    pub(super) fn into_events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, |mut stream| async move {
            loop {
                if let Some(data) = stream.pending.pop_front() {
                    if let Some(guard) = &mut stream.guard {
                        guard.delivered();
                    }
                    return Some((Ok(Event::default().data(data)), stream));
                }
                if stream.done {
                    return None;
                }
                match stream.watch.next().await {
                    Some(update) => stream.take(update),
                    None => stream.fail(crate::error::shutting_down()),
                }
            }
        })
    }

    fn take(&mut self, update: JobUpdate) {
        match update {
            // The attempt whose text the client has is over; another one would begin anew.
            JobUpdate::Queued if !self.sent.is_empty() => self.fail(broke_off()),
            JobUpdate::Queued | JobUpdate::Leased { .. } | JobUpdate::Step(_) => {}
            JobUpdate::Delta(delta) => self.push(&delta),
            JobUpdate::Failed(error) => self.fail(error),
            JobUpdate::Finished { output, .. } => match output {
                JobOutput::Text(output) => self.finish(&output),
                JobOutput::Image(_) => self.fail(super::gateway::not_a_text()),
            },
        }
    }

    fn finish(&mut self, output: &TextOutput) {
        for (at, choice) in output.choices.iter().enumerate() {
            if self.sent.get(at).is_some_and(|sent| sent.finished) {
                continue;
            }
            // What was not streamed, for example after the node's link broke.
            if let Some(rest) = self.rest(at, choice) {
                self.push(&rest);
            }
            self.begin(at, Some(""));
            self.chunk(at, &json!({}), &Value::Null, &json!(finish(choice.finish_reason)));
        }
        if self.include_usage {
            let usage = Some(usage(output.usage));
            let last = self.answer.chunk(&json!([]), usage, self.fingerprint.as_deref());
            self.pending.push_back(last.to_string());
        }
        self.pending.push_back("[DONE]".into());
        self.done = true;
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
    }

    /// What a choice has beyond what was sent of it.
    fn rest(&self, at: usize, choice: &TextChoice) -> Option<TextDelta> {
        let sent = self.sent.get(at).copied().unwrap_or_default();
        let rated = choice.logprobs.as_deref().unwrap_or_default();
        let rest = TextDelta {
            choice: u32::try_from(at).ok()?,
            text: choice.text.get(sent.text_bytes..).unwrap_or_default().to_owned(),
            tool_calls: choice.tool_calls.get(sent.calls..).unwrap_or_default().to_vec(),
            logprobs: rated.get(sent.logprobs..).unwrap_or_default().to_vec(),
        };
        let empty = TextDelta { choice: rest.choice, ..TextDelta::default() };
        (rest != empty).then_some(rest)
    }

    /// Sends the first chunk of a choice, unless it was sent.
    fn begin(&mut self, at: usize, content: Option<&str>) {
        if self.sent.len() <= at {
            self.sent.resize(at + 1, Sent::default());
        }
        if !std::mem::replace(&mut self.sent[at].begun, true) {
            let delta = json!({ "role": "assistant", "content": content, "refusal": null });
            self.chunk(at, &delta, &Value::Null, &Value::Null);
        }
    }

    fn push(&mut self, piece: &TextDelta) {
        let at = piece.choice as usize;
        // OpenAI's clients take the content of a choice that only calls functions to be null.
        let calls_only = piece.text.is_empty() && !piece.tool_calls.is_empty();
        self.begin(at, (!calls_only).then_some(""));
        let sent = &mut self.sent[at];
        let first = sent.calls;
        sent.text_bytes += piece.text.len();
        sent.calls += piece.tool_calls.len();
        sent.logprobs += piece.logprobs.len();
        let calls: Vec<Value> = self
            .answer
            .told(first, &piece.tool_calls)
            .iter()
            .enumerate()
            .map(|(n, told)| {
                let mut value = call(told);
                value["index"] = json!(first + n);
                value
            })
            .collect();
        let mut delta = json!({});
        if !piece.text.is_empty() || calls.is_empty() {
            delta["content"] = json!(piece.text);
        }
        if !calls.is_empty() {
            delta["tool_calls"] = json!(calls);
        }
        let rated = if piece.logprobs.is_empty() { Value::Null } else { logprobs(&piece.logprobs) };
        self.chunk(at, &delta, &rated, &Value::Null);
    }

    fn chunk(&mut self, at: usize, delta: &Value, logprobs: &Value, finish_reason: &Value) {
        let choices = json!([{
            "index": at, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason,
        }]);
        // Clients that ask for usage expect the field in every chunk.
        let usage = self.include_usage.then_some(Value::Null);
        let chunk = self.answer.chunk(&choices, usage, self.fingerprint.as_deref());
        self.pending.push_back(chunk.to_string());
    }

    /// Ends the stream with an error, and withdraws what is left of the job.
    fn fail(&mut self, error: ErrorBody) {
        self.pending.push_back(ApiError::openai(error).openai_json().to_string());
        self.done = true;
        if let Some(guard) = self.guard.take() {
            guard.withdraw();
        }
    }
}

/// The attempt whose text the client has is over.
fn broke_off() -> ErrorBody {
    ErrorBody::new(ErrorCode::EngineFailed, "the node stopped in the middle of the answer")
        .with_hint("nothing was charged; send the request again")
}
