//! Requests of clients, answered by whoever routes. What makes a job goes through the work queue and
//! carries an idempotency key, so that it is asked again whenever an answer may be lost, and is still
//! one job. A stream goes on where it stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap as NatsHeaders;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use neurino_protocol::node::UPLOAD_BYTES_PER_SEC;
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::super::hub::BODY_BYTES_MAX;
use super::super::wire::{Ask, Submit, UpSay, pack, pieces};
use super::resume::{Events, Progress};
use super::{Circuit, Heard, Inner, Live};
use crate::coordinator::now_ms;
use crate::edge::{ApiError, declared_bytes, for_path, read_growing, read_within};
use crate::fabric::Resume;
use crate::seal::SEAL;

/// How long a request waits for somebody who routes: longer than a takeover takes.
const ROUTER_WAIT: Duration = Duration::from_secs(30);
/// The same for whoever asks after the state of the server.
const HEALTH_WAIT: Duration = Duration::from_secs(2);
/// How long one attempt to queue a request waits for NATS.
const QUEUE_WAIT: Duration = Duration::from_secs(3);
/// Wait before a refused attempt is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// How long a broken stream tries to go on.
const RESUME_WAIT: Duration = Duration::from_mins(2);
/// How often the client of a stream that waits is shown that it is not forgotten.
const COMFORT: Duration = Duration::from_secs(5);
/// Largest answer that is not a stream, in bytes: several pictures.
pub(super) const ANSWER_BYTES_MAX: usize = 128 << 20;
/// How often an answer that was cut off is asked for again.
const CUTS_MAX: u32 = 5;
/// Events that may wait for a slow client; the rest waits with the router.
const EVENTS: usize = 16;
/// The header that makes a request one job, however often it is sent.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How often a request may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It makes a job, once.
    Job,
    /// It only reads.
    Read,
    /// It changes something, and nobody knows what a second one would do.
    Once,
}

impl Kind {
    fn of(method: &Method, path: &str) -> Self {
        let makes_jobs = ["/v1/chat/completions", "/v1/images/generations", "/v1/jobs"];
        match *method {
            Method::POST if makes_jobs.contains(&path) => Self::Job,
            Method::GET | Method::HEAD => Self::Read,
            _ => Self::Once,
        }
    }
}

/// Everything but a node's WebSocket.
pub(super) async fn relay(State(gateway): State<Arc<Inner>>, request: Request) -> Response {
    let uri = request.uri().clone();
    match relayed(gateway, request).await {
        Ok(response) => response,
        Err(error) => for_path(&uri, error).into_response(),
    }
}

async fn relayed(gateway: Arc<Inner>, request: Request) -> Result<Response, ErrorBody> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let kind = Kind::of(&method, uri.path());
    let mut headers = passed_on(request.headers());
    // A key that is none, or two of them, are for the router to refuse.
    let own_key = kind == Kind::Job && !request.headers().contains_key(IDEMPOTENCY_KEY);
    if own_key {
        let key = format!("gateway-{}", hex::encode(rand::random::<[u8; 16]>()));
        headers.push((IDEMPOTENCY_KEY.as_str().to_owned(), key));
    }
    let from = gateway.caller_of(request.extensions().get(), request.headers());
    let (body, _room) = body_of(&gateway, request, &method, &uri).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let ask = Ask {
        method: method.to_string(),
        path,
        headers,
        from,
        own_key,
        resume: None,
        again: false,
    };
    let wait = if uri.path() == "/healthz" { HEALTH_WAIT } else { ROUTER_WAIT };
    let asking = Asking { gateway, kind, ask, body, wait, sent: AtomicBool::new(false) };
    let mut cuts = 0;
    loop {
        let answer = asking.begin(None).await?;
        if answer.is_stream() {
            return Ok(asking.streamed(answer));
        }
        match answer.whole().await {
            Ok(response) => return Ok(response),
            Err(Unheard::TooLarge) => return Err(too_large()),
            Err(Unheard::Cut) if kind == Kind::Once || cuts == CUTS_MAX => return Err(cut()),
            Err(Unheard::Cut) => {}
        }
        cuts += 1;
        tokio::time::sleep(RETRY).await;
    }
}

/// Headers that are about the request, not about the connection it came by.
fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let own = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    let about = headers.iter().filter(|(name, _)| {
        !own.contains(name) && !name.as_str().starts_with("proxy-") && *name != "keep-alive"
    });
    about
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect()
}

/// Reads a body, and keeps the room that a large one takes.
async fn body_of(
    gateway: &Inner,
    request: Request,
    method: &Method,
    uri: &Uri,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ErrorBody> {
    let wait = Duration::from_millis(gateway.limits.request_read_ms);
    let usual = gateway.limits.body_bytes_max;
    // What nodes hand in may hold a picture.
    let may_be_large = uri.path() == "/v1/node/exchange" || *method == Method::PUT;
    if !may_be_large {
        return Ok((read_within(request, usual, wait).await?.into(), None));
    }
    let declared = declared_bytes(&request).unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX);
    let sending = Duration::from_secs((declared / UPLOAD_BYTES_PER_SEC) as u64);
    let mut room = None;
    // As it arrives: a length that is only claimed keeps nobody out.
    let may_have = |bytes: usize| grow(&gateway.large, &mut room, bytes >> 20);
    let body = read_growing(request, declared.max(usual), wait + sending, may_have).await?;
    Ok((body.into(), room))
}

/// Has a request keep the room of so many mebibytes.
fn grow(
    all: &Arc<Semaphore>,
    room: &mut Option<OwnedSemaphorePermit>,
    mebibytes: usize,
) -> Result<(), ErrorBody> {
    let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let Some(missing) = u32::try_from(mebibytes.saturating_sub(held)).ok().filter(|n| *n > 0)
    else {
        return Ok(());
    };
    let more = Arc::clone(all).try_acquire_many_owned(missing).map_err(|_| {
        ErrorBody::new(ErrorCode::Overloaded, "too many large requests arrive at once")
            .with_hint("try again in a few seconds")
    })?;
    match room {
        Some(held) => held.merge(more),
        None => *room = Some(more),
    }
    Ok(())
}

fn nobody() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "no coordinator answers right now")
        .with_hint("try again in a few seconds, under the same idempotency key if there is one")
}

fn cut() -> ErrorBody {
    ErrorBody::new(ErrorCode::Unreachable, "the way to the coordinator was cut in between")
        .with_hint("ask how it stands before you repeat it")
}

fn too_large() -> ErrorBody {
    let words = format!("the answer is larger than {} MiB", ANSWER_BYTES_MAX >> 20);
    ErrorBody::new(ErrorCode::TooLarge, words).with_hint("ask for less at once")
}

/// Why an answer did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unheard {
    Cut,
    TooLarge,
}

/// A request, for as long as it is not answered.
struct Asking {
    gateway: Arc<Inner>,
    kind: Kind,
    ask: Ask,
    body: Bytes,
    wait: Duration,
    /// Whether it was sent before.
    sent: AtomicBool,
}

/// The beginning of an answer.
struct Answer {
    circuit: Circuit,
    status: StatusCode,
    headers: HeaderMap,
}

/// What kept a request from being sent.
enum Unsent {
    Lost,
    Refused(ErrorBody),
}

impl Asking {
    /// Asks until an answer begins.
    async fn begin(&self, resume: Option<&Resume>) -> Result<Answer, ErrorBody> {
        loop {
            let live = self.gateway.session(self.wait).await.ok_or_else(nobody)?;
            let mut circuit = self.gateway.open(live);
            match self.send(&circuit, live, resume).await {
                Ok(()) => self.sent.store(true, Ordering::Relaxed),
                Err(Unsent::Refused(error)) => return Err(error),
                Err(Unsent::Lost) => {
                    circuit.leave().await;
                    continue;
                }
            }
            match circuit.hear().await {
                Some(Heard::Head { status, headers }) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                    return Ok(Answer { circuit, status, headers: read_headers(headers) });
                }
                _ if self.kind == Kind::Once => return Err(cut()),
                _ => circuit.leave().await,
            }
        }
    }

    async fn send(
        &self,
        circuit: &Circuit,
        live: Live,
        resume: Option<&Resume>,
    ) -> Result<(), Unsent> {
        let again = self.sent.load(Ordering::Relaxed);
        let ask = Ask { resume: resume.cloned(), again, ..self.ask.clone() };
        if self.kind == Kind::Job {
            return self.queue(circuit, live, ask).await;
        }
        let mut ask = Some(Box::new(ask));
        for (piece, more) in pieces(&self.body) {
            let say = match ask.take() {
                Some(ask) => UpSay::Ask { ask, more },
                None => UpSay::Body { more },
            };
            circuit.say(say, piece).await.map_err(|_| Unsent::Lost)?;
        }
        Ok(())
    }

    /// Puts it into the work queue. Repeats are told apart by their name.
    async fn queue(&self, circuit: &Circuit, live: Live, ask: Ask) -> Result<(), Unsent> {
        let gateway = &self.gateway;
        let submit = Submit {
            gateway: gateway.id.clone(),
            session: live.session,
            circuit: circuit.id,
            at_ms: now_ms(),
            ask,
        };
        let name = format!("{}-{}-{}", gateway.id, live.session, circuit.id);
        let payload =
            Bytes::from(gateway.key.seal(&gateway.subjects.submit, &pack(&submit, &self.body)));
        let most = gateway.client.server_info().max_payload;
        // The name and what JetStream says of it travel along.
        if most > 0 && payload.len() + 1024 > most {
            let room = most.saturating_sub(SEAL + 8 * 1024);
            let message =
                format!("the request is larger than the {room} bytes that NATS takes here");
            let error = ErrorBody::new(ErrorCode::TooLarge, message);
            let hint =
                "shorten it; whoever runs this network can raise `max_payload` of NATS to 2MB";
            return Err(Unsent::Refused(error.with_hint(hint)));
        }
        let until = Instant::now() + ROUTER_WAIT;
        while Instant::now() < until {
            if *gateway.live.borrow() != Some(live) {
                return Err(Unsent::Lost);
            }
            let mut headers = NatsHeaders::new();
            headers.insert("Nats-Msg-Id", name.as_str());
            let subject = gateway.subjects.submit.clone();
            let queued = async {
                let ack =
                    gateway.queue.publish_with_headers(subject, headers, payload.clone()).await?;
                ack.await
            };
            match tokio::time::timeout(QUEUE_WAIT, queued).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => tracing::debug!(%error, "a request was not queued yet"),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
        let error = ErrorBody::new(ErrorCode::Unreachable, "the work queue takes no requests");
        Err(Unsent::Refused(error.with_hint("try again in a few seconds")))
    }

    /// Passes a stream on, from a task of its own that ends when the client goes.
    fn streamed(self, answer: Answer) -> Response {
        let (tell, events) = mpsc::channel::<Bytes>(EVENTS);
        let headers = answer.headers.clone();
        let status = answer.status;
        let tasks = self.gateway.tasks.clone();
        tasks.spawn(async move {
            let gone = tell.clone();
            tokio::select! {
                () = gone.closed() => {}
                () = self.pass_stream(answer, &tell) => {}
            }
        });
        let stream = futures::stream::unfold(events, |mut events| async move {
            events.recv().await.map(|event| (Ok::<_, Infallible>(event), events))
        });
        let mut response = Response::new(Body::from_stream(stream));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    async fn pass_stream(&self, mut answer: Answer, tell: &mpsc::Sender<Bytes>) {
        let mut progress = Progress::default();
        let mut resumed = false;
        loop {
            let mut events = Events::default();
            while let Some(heard) = answer.circuit.hear().await {
                let bytes = match heard {
                    Heard::Body(bytes) => bytes,
                    Heard::End { broken } => {
                        answer.circuit.over = true;
                        progress.done |= !broken;
                        break;
                    }
                    Heard::Text { .. } | Heard::Head { .. } => continue,
                };
                let Some(whole) = events.push(&bytes) else { return };
                for event in whole {
                    // A preview that was seen before tells nothing.
                    let needed = progress.note(&event);
                    if (needed || !resumed) && tell.send(event.into()).await.is_err() {
                        return;
                    }
                }
            }
            if progress.done {
                return;
            }
            resumed = true;
            let resume = progress.resume();
            match comforted(self.go_on(&resume), tell).await {
                Ok(next) => answer = next,
                Err(error) => {
                    let json = ApiError::openai(error).openai_json();
                    // A client that is gone needs no words.
                    let _ = tell.send(format!("data: {json}\n\n").into()).await;
                    return;
                }
            }
        }
    }

    /// The rest of a stream.
    async fn go_on(&self, resume: &Resume) -> Result<Answer, ErrorBody> {
        let until = Instant::now() + RESUME_WAIT;
        loop {
            let answer = match self.begin(Some(resume)).await {
                Ok(answer) => answer,
                Err(error) => {
                    let hopeless = error.code == ErrorCode::TooLarge;
                    let over = Instant::now() >= until || self.gateway.stop.is_cancelled();
                    if hopeless || over {
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if answer.status == StatusCode::OK && answer.is_stream() {
                return Ok(answer);
            }
            let waits = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            let again = waits.contains(&answer.status) && Instant::now() < until;
            if again {
                drop(answer.whole().await);
                tokio::time::sleep(RETRY).await;
                continue;
            }
            return Err(answer.error().await);
        }
    }
}

/// Waits, and shows the client every few seconds that it is not forgotten.
async fn comforted<T>(work: impl Future<Output = T>, tell: &mpsc::Sender<Bytes>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(COMFORT) => {
                // If the client is gone, that is noticed elsewhere.
                let _ = tell.try_send(Bytes::from_static(b": the answer is on its way\n\n"));
            }
        }
    }
}

impl Answer {
    fn is_stream(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The answer once it is whole.
    async fn whole(mut self) -> Result<Response, Unheard> {
        let body = self.collect().await?;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = std::mem::take(&mut self.headers);
        Ok(response)
    }

    async fn collect(&mut self) -> Result<Vec<u8>, Unheard> {
        let mut body = Vec::new();
        loop {
            match self.circuit.hear().await.ok_or(Unheard::Cut)? {
                Heard::Body(bytes) if body.len() + bytes.len() <= ANSWER_BYTES_MAX => {
                    body.extend_from_slice(&bytes);
                }
                Heard::End { broken: false } => {
                    self.circuit.over = true;
                    return Ok(body);
                }
                Heard::Body(_) => {
                    self.circuit.leave().await;
                    return Err(Unheard::TooLarge);
                }
                Heard::End { .. } => {
                    self.circuit.leave().await;
                    return Err(Unheard::Cut);
                }
                Heard::Text { .. } | Heard::Head { .. } => {}
            }
        }
    }

    /// What an answer that is none says.
    async fn error(mut self) -> ErrorBody {
        let body = self.collect().await.unwrap_or_default();
        let said = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let message = said["error"]["message"].as_str();
        let message = message.unwrap_or("the answer broke off and cannot be continued");
        let code = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => ErrorCode::Unreachable,
            status if status.is_client_error() => ErrorCode::Cancelled,
            _ => ErrorCode::EngineFailed,
        };
        ErrorBody::new(code, message)
    }
}

fn read_headers(headers: Vec<(String, String)>) -> HeaderMap {
    let mut read = HeaderMap::new();
    for (name, value) in headers {
        let named = HeaderName::try_from(name).ok();
        if let Some((name, value)) = named.zip(HeaderValue::try_from(value).ok())
            // The body is framed anew.
            && ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name)
        {
            read.append(name, value);
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_is_asked_twice() {
        let check = |method: Method, path: &str, kind: Kind| {
            assert_eq!(Kind::of(&method, path), kind, "{method} {path}");
        };
        check(Method::POST, "/v1/chat/completions", Kind::Job);
        check(Method::POST, "/v1/images/generations", Kind::Job);
        check(Method::POST, "/v1/jobs", Kind::Job);
        check(Method::POST, "/v1/node/exchange", Kind::Once);
        check(Method::POST, "/v1/jobs/", Kind::Once);
        check(Method::PUT, "/v1/chat/completions", Kind::Once);
        check(Method::GET, "/v1/models", Kind::Read);
        check(Method::HEAD, "/healthz", Kind::Read);
    }

    #[test]
    fn headers_of_the_connection_stay_here() {
        let mut headers = HeaderMap::new();
        for name in ["connection", "upgrade", "transfer-encoding", "proxy-authorization", "te"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        headers.insert("authorization", HeaderValue::from_static("Bearer k"));
        headers.insert("host", HeaderValue::from_static("api.example"));
        let mut passed = passed_on(&headers);
        passed.sort();
        let expect = [("authorization", "Bearer k"), ("host", "api.example")];
        assert_eq!(passed, expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let read = read_headers(vec![
            ("content-length".into(), "3".into()),
            ("bad name".into(), "x".into()),
            ("x-a".into(), "bad\nvalue".into()),
            ("retry-after".into(), "5".into()),
        ]);
        assert_eq!((read.len(), read.get("retry-after").is_some()), (1, true));
    }
}
