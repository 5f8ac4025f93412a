//! The OpenAI-compatible gateway: chat completions, models, and the health of the server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use neurino_core::{FinishReason, JobId, JobOutput, ModelId, TextOutput, Usage};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::Edge;
use super::chat::{ChatRequest, translate};
use super::http::{ApiError, payer, read_json};
use crate::coordinator::{Coordinator, now_ms};
use crate::watch::{JobUpdate, JobWatch};

/// `GET /healthz`: whether the server answers, and who it is.
pub(crate) async fn health(State(coordinator): State<Edge>) -> Json<Value> {
    let coordinator = &coordinator;
    let overview = coordinator.jobs_overview();
    Json(json!({
        "status": "ok",
        "network": coordinator.network(),
        "version": env!("CARGO_PKG_VERSION"),
        "nodes": overview.nodes,
    }))
}

/// `GET /v1/models`: every model the network prices; `nodes` says how many serve it right now.
pub(crate) async fn models(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let coordinator = &coordinator;
    payer(coordinator, &headers).await.map_err(ApiError::openai)?;
    let created = coordinator
        .rules
        .named(&coordinator.config.rule_set)
        .map_or(0, |rules| rules.from.as_second());
    let data: Vec<Value> = coordinator
        .jobs_overview()
        .models
        .into_iter()
        .map(|(model, nodes)| {
            json!({
                "id": model,
                "object": "model",
                "created": created,
                "owned_by": coordinator.network(),
                "nodes": nodes,
            })
        })
        .collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// `POST /v1/chat/completions`, streamed or not.
///
/// The status is decided by the first thing that happens to the job, so a prompt that is too long is
/// a 400 also for a streaming client. Once text was sent, a failure is an error event.
pub(crate) async fn chat_completions(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let coordinator = &coordinator;
    let payer = payer(coordinator, &headers).await.map_err(ApiError::openai)?;
    let body: Value = read_json(coordinator, request).await.map_err(ApiError::openai)?;
    let ChatRequest { spec, stream, include_usage } =
        translate(&body, rand::random()).map_err(|refusal| {
            let error = ApiError::openai(refusal.body());
            match refusal.param {
                Some(param) => error.param(param),
                None => error,
            }
        })?;
    let model = spec.model().clone();
    let wait_ms = coordinator.config.limits.chat_no_node_wait_ms;
    let job =
        coordinator.submit_with_wait(payer, None, spec, wait_ms).await.map_err(
            |error| match error.code {
                ErrorCode::UnknownModel => ApiError::openai(error).param("model"),
                _ => ApiError::openai(error),
            },
        )?;
    // From here on a client that goes away withdraws its job.
    let guard = CancelGuard { coordinator: Arc::clone(coordinator), job: Some(job) };
    let watch = coordinator.watch_job(job).await.map_err(ApiError::openai)?;
    let answer = Answer { job, model, created: now_ms() / 1000 };
    if stream {
        let stream = ChatStream::open(answer, include_usage, watch, guard).await?;
        let events = Sse::new(stream.into_events()).keep_alive(KeepAlive::default());
        return Ok(events.into_response());
    }
    let (output, _) = watch.finished().await.map_err(ApiError::openai)?;
    guard.disarm();
    let JobOutput::Text(text) = output;
    Ok(Json(answer.whole(&text)).into_response())
}

/// Withdraws a job when dropped: its client is gone.
struct CancelGuard {
    coordinator: Arc<Coordinator>,
    job: Option<JobId>,
}

impl CancelGuard {
    fn disarm(mut self) {
        self.job = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        // Outside a runtime the coordinator is going down as well, and the job stays open.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let coordinator = Arc::clone(&self.coordinator);
        runtime.spawn(async move {
            if let Err(error) = coordinator.cancel_job(job).await {
                tracing::warn!(job.id = %job, code = ?error.code, "job {job} could not be withdrawn");
            }
        });
    }
}

/// What all pieces of one answer share.
struct Answer {
    job: JobId,
    model: ModelId,
    /// Seconds since the Unix epoch.
    created: i64,
}

impl Answer {
    fn id(&self) -> String {
        format!("chatcmpl-{}", self.job)
    }

    fn whole(&self, text: &TextOutput) -> Value {
        json!({
            "id": self.id(),
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text.text },
                "logprobs": null,
                "finish_reason": finish(text.finish_reason),
            }],
            "usage": usage(text.usage),
        })
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({
            "id": self.id(),
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total(),
    })
}

/// A streamed answer.
struct ChatStream {
    answer: Answer,
    include_usage: bool,
    watch: JobWatch,
    guard: Option<CancelGuard>,
    /// Bytes of the answer sent so far.
    sent: usize,
    pending: VecDeque<String>,
    done: bool,
}

impl ChatStream {
    /// Waits for the first piece of text, which decides the status.
    async fn open(
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
            watch,
            guard: Some(guard),
            sent: 0,
            pending: VecDeque::new(),
            done: false,
        };
        stream.push_delta(&json!({ "role": "assistant", "content": "" }), &Value::Null);
        stream.take(first);
        Ok(stream)
    }

    fn into_events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold(self, |mut stream| async move {
            loop {
                if let Some(data) = stream.pending.pop_front() {
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
            JobUpdate::Queued if self.sent > 0 => self.fail(
                ErrorBody::new(
                    ErrorCode::EngineFailed,
                    "the node stopped in the middle of the answer",
                )
                .with_hint("nothing was charged; send the request again"),
            ),
            JobUpdate::Queued | JobUpdate::Leased { .. } => {}
            JobUpdate::Delta { text } => self.push_text(&text),
            JobUpdate::Failed(error) => self.fail(error),
            JobUpdate::Finished { output, .. } => {
                let JobOutput::Text(text) = output;
                // What was not streamed, for example after the node's link broke.
                if let Some(rest) = text.text.get(self.sent..).filter(|rest| !rest.is_empty()) {
                    self.push_text(rest);
                }
                self.push_delta(&json!({}), &json!(finish(text.finish_reason)));
                if self.include_usage {
                    let last = self.answer.chunk(&json!([]), Some(usage(text.usage)));
                    self.pending.push_back(last.to_string());
                }
                self.pending.push_back("[DONE]".into());
                self.done = true;
                if let Some(guard) = self.guard.take() {
                    guard.disarm();
                }
            }
        }
    }

    fn push_text(&mut self, text: &str) {
        self.sent += text.len();
        self.push_delta(&json!({ "content": text }), &Value::Null);
    }

    fn push_delta(&mut self, delta: &Value, finish_reason: &Value) {
        let choices = json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
        }]);
        // Clients that ask for usage expect the field in every chunk.
        let usage = self.include_usage.then_some(Value::Null);
        self.pending.push_back(self.answer.chunk(&choices, usage).to_string());
    }

    /// Ends the stream with an error; the guard withdraws what is left of the job.
    fn fail(&mut self, error: ErrorBody) {
        self.pending.push_back(ApiError::openai(error).openai_json().to_string());
        self.done = true;
        self.guard = None;
    }
}
