//! Requests that came through a gateway, answered by the same routes as those that come by HTTP.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, HeaderName};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures::StreamExt as _;
use neurino_core::JobId;
use neurino_protocol::ErrorBody;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::hub::{Hub, Peer};
use super::wire::{Ask, DownSay, PIECE_BYTES};
use crate::edge::{for_path, with_request_id};

tokio::task_local! {
    static ADMITTED: Arc<Admissions>;
}

/// The jobs that came of one request.
pub(super) struct Admissions {
    jobs: Mutex<Vec<JobId>>,
    /// Cancelled once the first is in the books.
    pub(super) first: CancellationToken,
    /// Whether the request was put before.
    again: bool,
    /// Whether its idempotency key is the gateway's.
    own_key: bool,
}

impl Admissions {
    pub(super) fn of(ask: &Ask) -> Arc<Self> {
        let Ask { again, own_key, .. } = *ask;
        let first = CancellationToken::new();
        Arc::new(Self { jobs: Mutex::default(), first, again, own_key })
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Notes that a job is in the books, for the request that the present task answers, if it came through
/// a gateway.
pub(crate) fn admitted(job: JobId) {
    // Most jobs came another way.
    let _ = ADMITTED.try_with(|admissions| {
        admissions.jobs.lock().unwrap_or_else(PoisonError::into_inner).push(job);
        admissions.first.cancel();
    });
}

/// Whether the request that the present task answers was put before, by a gateway that lost its session
/// and not by its client.
pub(crate) fn is_put_again() -> bool {
    ADMITTED.try_with(|admissions| admissions.again).unwrap_or(false)
}

/// Whether the request that the present task answers carries a key of its gateway's: its client has none,
/// and cannot come back.
pub(crate) fn is_own_key() -> bool {
    ADMITTED.try_with(|admissions| admissions.own_key).unwrap_or(false)
}

/// A request to be answered.
pub(super) struct Answering {
    pub(super) peer: Arc<Peer>,
    pub(super) circuit: u64,
    pub(super) ask: Ask,
    pub(super) body: Bytes,
    pub(super) admissions: Arc<Admissions>,
    /// Cancelled when nobody waits any more.
    pub(super) end: CancellationToken,
}

impl Answering {
    /// Runs the request. `decided` is called once its jobs are in the books, or once it is answered
    /// without any; not if this coordinator routes no longer, so that its successor is asked again.
    pub(super) async fn run(self, hub: &Arc<Hub>, decided: impl AsyncFnOnce()) {
        let Self { peer, circuit, ask, body, admissions, end } = self;
        let first = admissions.first.clone();
        let answer = ADMITTED.scope(admissions, respond(hub, ask, body));
        tokio::pin!(answer);
        let response = tokio::select! {
            () = end.cancelled() => return,
            () = first.cancelled() => {
                decided().await;
                tokio::select! {
                    () = end.cancelled() => return,
                    response = &mut answer => response,
                }
            }
            response = &mut answer => {
                if !hub.routes() {
                    return;
                }
                decided().await;
                response
            }
        };
        // Whoever takes over answers instead of the goodbye.
        if hub.routes() {
            deliver(&peer, circuit, response, &end).await;
        }
    }
}

/// Has the coordinator's own routes answer.
async fn respond(hub: &Hub, ask: Ask, body: Bytes) -> Response<Body> {
    let mut request = Request::builder().method(ask.method.as_str()).uri(ask.path.as_str());
    for (name, value) in &ask.headers {
        let named = HeaderName::try_from(name.as_str()).ok();
        if let Some((name, value)) = named.zip(HeaderValue::try_from(value.as_str()).ok()) {
            request = request.header(name, value);
        }
    }
    if !body.is_empty() {
        request = request.header(CONTENT_LENGTH, body.len());
    }
    if let Some(from) = ask.from {
        request = request.extension(crate::edge::Peer(from));
    }
    if let Some(resume) = ask.resume {
        request = request.extension(resume);
    }
    let Ok(request) = request.body(Body::from(body)) else {
        let mut refused = Response::new(Body::empty());
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return refused;
    };
    match hub.routes.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Answers a request with an error, in the shape that its path has.
pub(super) async fn refuse(peer: &Peer, circuit: u64, path: &str, error: ErrorBody) {
    let uri = path.parse().unwrap_or_default();
    let response = with_request_id(for_path(&uri, error).into_response()).await;
    deliver(peer, circuit, response, &peer.end).await;
}

/// Sends an answer piece by piece, as it grows.
async fn deliver(peer: &Peer, circuit: u64, response: Response<Body>, end: &CancellationToken) {
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    let head = DownSay::Head { status: parts.status.as_u16(), headers: headers.collect() };
    if peer.say(circuit, head, &[]).await.is_err() {
        return;
    }
    let mut body = body.into_data_stream();
    let broken = loop {
        let chunk = tokio::select! {
            () = end.cancelled() => return,
            chunk = body.next() => chunk,
        };
        let Some(Ok(chunk)) = chunk else {
            break chunk.is_some();
        };
        for piece in chunk.chunks(PIECE_BYTES) {
            if peer.say(circuit, DownSay::Body, piece).await.is_err() {
                return;
            }
        }
    };
    // Nobody is told of a session that has ended.
    let _ = peer.say(circuit, DownSay::End { broken }, &[]).await;
}
