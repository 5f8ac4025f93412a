//! Answers as they grow: plain text in pieces, ended by `[DONE]`.
//!
//! The body carries no signature. What makes it the miner's is the job's id, which nobody else was
//! told, and only a miner whose key has signed a result before is asked to stream at all.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use neurino_core::{
    FinishReason, JobOutput, JobSpec, LeaseId, NodeId, Receipt, TextChoice, TextDelta, TextJob,
    TextOutput,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use super::super::Edge;
use super::wire;
use super::{invalid, refusal, submit};
use crate::original::{Held, miner_id};
use crate::store::AttemptEnd;

/// Ends a stream; text behind it counts for nothing.
const DONE: &str = "[DONE]";
/// Longest pause within a stream.
const IDLE: Duration = Duration::from_secs(15);
/// Wait before an answer is settled again.
const SETTLE_RETRY: Duration = Duration::from_millis(500);
/// Most bytes behind the end that are read, so that a miner that says it twice hears the answer.
const BEHIND_MAX: usize = 4 << 10;

/// `POST /miner_submit_stream`.
pub(super) async fn submit_stream(State(coordinator): State<Edge>, request: Request) -> Response {
    match take(&coordinator, request).await {
        Ok(receipt) => Json(submit::accepted(&receipt)).into_response(),
        Err(error) => refusal(error),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, ErrorBody> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| invalid(format!("the header `{name}` is missing")))
}

async fn take(coordinator: &Edge, request: Request) -> Result<Receipt, ErrorBody> {
    let node = miner_id(header(request.headers(), "miner_id")?)?;
    let lease = wire::lease_of(header(request.headers(), "job_id")?)?;
    let (spec, held) = coordinator.held(&node, lease).await?;
    let JobSpec::Text(job) = &*spec else {
        return Err(invalid("this job's result is a picture; it is not streamed"));
    };
    // Taken: a second stream of the same job is refused.
    if !coordinator.begin_stream(lease) {
        let message = "the job was not asked for as a stream, or its stream has begun already";
        return Err(ErrorBody::new(ErrorCode::StaleLease, message));
    }
    let mut text = Growing::new(job, coordinator.config.limits.output_bytes_max);
    let read = tokio::time::timeout_at(held.deadline, read(coordinator, lease, request, &mut text));
    let read = match read.await {
        Ok(read) => read,
        Err(_) => {
            Err(ErrorBody::new(ErrorCode::DeadlinePassed, "the stream outlived its deadline"))
        }
    };
    if let Err(error) = read {
        // The rest will never come.
        coordinator.release(lease, AttemptEnd::Failed, broken(&error)).await;
        return Err(error);
    }
    let choices = vec![TextChoice::new(text.done(), FinishReason::Stop)];
    let usage = wire::usage(&choices, job);
    let output = JobOutput::Text(TextOutput { choices, usage, precision: None });
    let this = Arc::clone(coordinator);
    // To the end, whether or not the miner still listens: nobody can stream it again.
    coordinator.to_the_end(async move { settled(&this, &node, lease, held, output).await }).await
}

/// Settles the whole answer. While the books cannot be written it is tried again, up to its deadline: it
/// is here, and its payer has read it.
async fn settled(
    coordinator: &Edge,
    node: &NodeId,
    lease: LeaseId,
    held: Held,
    output: JobOutput,
) -> Result<Receipt, ErrorBody> {
    loop {
        match submit::settle(coordinator, node, lease, held, output.clone()).await {
            Err(error)
                if error.code.passes()
                    && Instant::now() < held.deadline
                    && !coordinator.stop.is_cancelled() =>
            {
                tokio::time::sleep(SETTLE_RETRY).await;
            }
            settled => return settled,
        }
    }
}

/// The error as the payer may see it: a miner's fault is not theirs.
fn broken(error: &ErrorBody) -> ErrorBody {
    ErrorBody::new(ErrorCode::EngineFailed, format!("the answer broke off: {}", error.message))
}

/// Reads to the end mark and passes the text on.
async fn read(
    coordinator: &Edge,
    lease: LeaseId,
    request: Request,
    text: &mut Growing,
) -> Result<(), ErrorBody> {
    let mut pieces = request.into_body().into_data_stream();
    let mut behind = 0;
    loop {
        let piece = match tokio::time::timeout(IDLE, pieces.next()).await {
            Ok(Some(Ok(piece))) => piece,
            // However a stream ends behind its mark, it is whole.
            _ if text.ended => return Ok(()),
            Ok(_) => return Err(invalid("the stream broke off before [DONE]")),
            Err(_) => {
                let message = format!("nothing came for {} seconds", IDLE.as_secs());
                return Err(ErrorBody::new(ErrorCode::DeadlinePassed, message));
            }
        };
        if text.ended {
            behind += piece.len();
            if behind > BEHIND_MAX {
                return Ok(());
            }
            continue;
        }
        let news = text.push(&piece)?;
        if !news.is_empty() && !coordinator.grow(lease, TextDelta::text(news)) {
            return Err(ErrorBody::new(ErrorCode::StaleLease, "the job is over"));
        }
    }
}

/// The answer so far: bytes to text, cut at the end mark or at the first stop string.
struct Growing {
    stops: Vec<String>,
    /// Longest end mark or stop string, in bytes.
    mark_max: usize,
    bytes_max: usize,
    /// All text of whole characters.
    text: String,
    /// Bytes of it that were passed on.
    told: usize,
    /// The beginning of a character.
    rest: Vec<u8>,
    ended: bool,
    /// Set at a stop string; what follows up to the end mark is dropped.
    cut: Option<usize>,
}

impl Growing {
    fn new(job: &TextJob, bytes_max: usize) -> Self {
        let marks = job.stop.iter().map(String::len);
        Self {
            mark_max: marks.chain([DONE.len()]).max().unwrap_or(0),
            stops: job.stop.clone(),
            bytes_max,
            text: String::new(),
            told: 0,
            rest: Vec::new(),
            ended: false,
            cut: None,
        }
    }

    /// Takes a piece and returns what can be passed on: nothing that could be part of a mark, or the
    /// blank that miners add behind the last word.
    fn push(&mut self, piece: &[u8]) -> Result<String, ErrorBody> {
        self.rest.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(invalid("the stream is not UTF-8 text")),
        };
        let searched = self.text.len().saturating_sub(self.mark_max);
        let rest = self.rest.split_off(whole);
        let read = std::mem::replace(&mut self.rest, rest);
        self.text.push_str(&String::from_utf8_lossy(&read));
        let from = (0..=searched).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        if let Some(at) = self.text[from..].find(DONE) {
            self.text.truncate(from + at);
            self.ended = true;
        }
        if self.cut.is_none() {
            let stop = self.stops.iter().filter_map(|stop| self.text[from..].find(stop.as_str()));
            self.cut = stop.min().map(|at| from + at);
        }
        let cut = self.cut.unwrap_or(self.text.len());
        if cut > self.bytes_max || self.text.len() > 2 * self.bytes_max {
            return Err(ErrorBody::new(ErrorCode::TooLarge, "the answer outgrew its limit"));
        }
        let sure = if self.ended { self.end() } else { self.sure(cut) };
        let news = self.text.get(self.told..sure).unwrap_or_default().to_owned();
        self.told = self.told.max(sure);
        Ok(news)
    }

    /// Bytes that cannot be part of a mark any more.
    fn sure(&self, cut: usize) -> usize {
        let open = cut.saturating_sub(self.mark_max);
        let text = &self.text[..cut];
        let marks = || self.stops.iter().map(String::as_str).chain([DONE]);
        let begins = |at: &usize| {
            text.is_char_boundary(*at) && {
                // A blank before the mark goes with it.
                let tail = text[*at..].strip_prefix(' ').unwrap_or(&text[*at..]);
                marks().any(|mark| mark.starts_with(tail))
            }
        };
        (open..cut).find(begins).unwrap_or(cut)
    }

    /// Where the answer ends: without one blank at its end, unless that was passed on.
    fn end(&self) -> usize {
        let text = &self.text[..self.cut.unwrap_or(self.text.len())];
        text.strip_suffix(' ').unwrap_or(text).len().max(self.told)
    }

    /// The whole answer.
    fn done(&self) -> &str {
        &self.text[..self.end()]
    }
}

#[cfg(test)]
mod tests {
    use neurino_core::{ChatMessage, ModelId, Role};
    use tower::ServiceExt as _;

    use super::*;

    fn job(stops: &[&str]) -> TextJob {
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        let mut job = TextJob::new(ModelId::new("m").expect("valid"), messages, 16);
        job.stop = stops.iter().map(|s| (*s).to_owned()).collect();
        job
    }

    /// Cuts a body at every place and says what was passed on and what came out.
    fn check(body: &str, expect: &str) {
        let job = job(&["[End]", "<|im_end|>"]);
        for size in 1..=body.len() {
            let mut text = Growing::new(&job, 1000);
            let mut told = String::new();
            for piece in body.as_bytes().chunks(size) {
                if !text.ended {
                    told.push_str(&text.push(piece).expect("taken"));
                }
            }
            assert!(text.ended, "{body} in pieces of {size}");
            assert_eq!(text.done(), expect, "{body} in pieces of {size}");
            assert_eq!(told, expect, "{body} in pieces of {size}");
        }
    }

    #[test]
    fn a_stream_ends_at_its_mark_or_at_a_stop_string_however_it_is_cut() {
        check("Hello there my friend [DONE]", "Hello there my friend");
        check("Hello there[DONE][DONE]", "Hello there");
        check("Grüße, 世界! [DONE]", "Grüße, 世界!");
        check("Hello [End] and more [DONE]", "Hello");
        check("a [E b [DO c <|im_ [DONE]", "a [E b [DO c <|im_");
        check("x<|im_end|>y[DONE]", "x");
        check("two  blanks  [DONE]", "two  blanks ");
        check("[DONE]", "");
    }

    async fn post(
        coordinator: &Edge,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (u16, serde_json::Value) {
        let mut request = axum::http::Request::builder().method("POST").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::from(body)).expect("a request");
        let response = coordinator.router().oneshot(request).await.into_response();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_streamed_answer_is_paid_once_the_books_are_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = Arc::new(neurino_wallet::IdentityKey::generate(&mut rand::rng()));
        let practice = crate::CoordinatorConfig::practice(folder.path().join("books.sqlite"), own);
        let config = crate::CoordinatorConfig { original: true, ..practice };
        let opened = crate::Coordinator::open_without_timers(config).await;
        let coordinator = opened.expect("the books open");
        let model = "smollm2-135m-instruct";
        let messages = vec![ChatMessage::new(Role::User, "hi")];
        let asked = TextJob::new(ModelId::new(model).expect("valid"), messages, 16);
        let payer = neurino_ledger::PayerId::local();
        let id = coordinator.submit_job(payer, None, JobSpec::Text(asked)).await;
        let id = id.expect("it is accepted");
        let miner = format!("0x{}-rig", "ab".repeat(20));
        let poll = serde_json::json!({ "miner_id": miner, "model_id": model, "min_deadline": 1 });
        let mut job = serde_json::Value::Null;
        while job.is_null() {
            job = post(&coordinator, "/miner_request", &[], poll.to_string()).await.1;
        }
        let lease = job["job_id"].as_str().expect("an id").to_owned();
        // As if its key had signed before.
        coordinator.expect_stream(wire::lease_of(&lease).expect("an id"));
        coordinator.store.fail_at_random(rand::SeedableRng::seed_from_u64(1), 1_000);
        let mend = async {
            tokio::time::sleep(2 * SETTLE_RETRY).await;
            coordinator.store.fail_no_more();
        };
        let headers = [("job_id", lease.as_str()), ("miner_id", miner.as_str())];
        let streamed =
            post(&coordinator, "/miner_submit_stream", &headers, "Hello there [DONE]".into());
        let ((status, paid), ()) = tokio::join!(streamed, mend);
        assert_eq!((status, paid["status"].as_str()), (200, Some("accepted")), "{paid}");
        let stored = coordinator.store.job(id).await.expect("reads").expect("it is there");
        assert!(stored.receipt.is_some());
        coordinator.shutdown().await;
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_ones_are_refused() {
        let mut text = Growing::new(&job(&[]), 10);
        assert_eq!(text.push(b"ok \xff").map_err(|e| e.code), Err(ErrorCode::InvalidRequest));
        let mut text = Growing::new(&job(&[]), 10);
        assert!(text.push(b"0123456789").is_ok());
        assert_eq!(text.push(b"x").map_err(|e| e.code), Err(ErrorCode::TooLarge));
        let mut text = Growing::new(&job(&["END"]), 10);
        assert!(text.push(b"END").is_ok());
        assert_eq!(text.push(&[b'x'; 20]).map_err(|e| e.code), Err(ErrorCode::TooLarge));
    }
}
