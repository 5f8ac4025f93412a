//! Where nodes connect: a WebSocket, or where that is blocked, long polls.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use axum::response::Response;
use axum::{Extension, Json};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use neurino_protocol::node::{
    CoordinatorMessage, Exchange, ExchangeReply, Hello, MESSAGE_BYTES_MAX, NodeMessage,
    SUBMIT_BYTES_MAX, SessionOpened, UPLOAD_BYTES_PER_SEC,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Edge;
use super::http::{
    ApiError, bearer, declared_bytes, parse_json, read_json, read_within, too_large,
};
use super::newcomers::{Peer, address_of};
use crate::coordinator::Coordinator;
use crate::depth::is_too_deep;
use crate::link;
use crate::session::{NodeSession, Outbox};

/// Longest wait of one exchange.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// Most messages of one exchange, either way.
const EXCHANGE_MAX: usize = 256;
/// Reply bytes after which the rest waits for the next exchange.
const REPLY_BYTES: usize = MESSAGE_BYTES_MAX;
/// Room beyond the largest message: for what surrounds it in an exchange, and so that one that is too
/// large is refused in words and not by the link's end.
const BEYOND_BYTES: usize = 1 << 20;
/// What is read at once from a link. Every idle node holds a buffer of it; the usual one is 128 KiB. A
/// heartbeat has a hundred bytes, and whole pictures are rare.
const READ_BUFFER_BYTES: usize = 1 << 10;
/// How long a node may take to receive one message.
pub(crate) const SEND_WAIT: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Counts a session that somebody opens from outside; returns from where, where that can be known.
    fn admit_from(
        &self,
        peer: Option<Extension<Peer>>,
        headers: &HeaderMap,
    ) -> Result<Option<IpAddr>, ErrorBody> {
        let trusted = self.config.client_address_header.as_deref();
        let from = address_of(peer.map(|Extension(peer)| peer), headers, trusted);
        self.newcomers.enter(from, self.config.limits.new_sessions_per_min)?;
        Ok(from)
    }
}

/// Nodes are programs. A browser names the page that asks, and no page may work as a node: it would
/// get to read prompts.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        let message = "web pages cannot connect as nodes";
        return Err(ApiError::plain(ErrorBody::new(ErrorCode::Unauthorized, message)));
    }
    Ok(())
}

/// `GET /v1/node/link`: the WebSocket.
pub(crate) async fn link(
    State(coordinator): State<Edge>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let prepared = prepared(&headers, upgrade)?;
    let from = coordinator.admit_from(peer, &headers).map_err(ApiError::plain)?;
    Ok(prepared.on_upgrade(move |socket| {
        let tasks = coordinator.tasks.clone();
        tasks.track_future(websocket(coordinator, from, socket))
    }))
}

/// A node's WebSocket, with the sizes that suit it.
pub(crate) fn prepared(
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, ApiError> {
    refuse_browsers(headers)?;
    let upgrade = upgrade.map_err(|_| {
        let error =
            ErrorBody::new(ErrorCode::InvalidRequest, "this path takes WebSocket upgrades only");
        ApiError::plain(error.with_hint("a proxy that blocks them? use POST /v1/node/challenge"))
    })?;
    let bytes_max = SUBMIT_BYTES_MAX + BEYOND_BYTES;
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_BYTES);
    Ok(upgrade.max_message_size(bytes_max).max_frame_size(bytes_max))
}

async fn websocket(coordinator: Arc<Coordinator>, from: Option<IpAddr>, socket: WebSocket) {
    let (sink, stream) = socket.split();
    let (to_link, from_node) = mpsc::channel(link::CHANNEL);
    let (to_node, from_link) = mpsc::channel(link::CHANNEL);
    let closed = CancellationToken::new();
    let complain = to_node.downgrade();
    tokio::join!(
        receive(stream, to_link, complain, &closed),
        link::serve(coordinator, from, from_node, to_node),
        send(sink, from_link, &closed),
    );
}

/// Reads frames until the socket or the link ends, or one cannot be read.
async fn receive(
    mut stream: SplitStream<WebSocket>,
    to_link: mpsc::Sender<Box<NodeMessage>>,
    complain: mpsc::WeakSender<Box<CoordinatorMessage>>,
    closed: &CancellationToken,
) {
    loop {
        let frame = tokio::select! {
            () = closed.cancelled() => return,
            frame = stream.next() => frame,
        };
        let text = match frame {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => {
                return bye(&complain, malformed("messages are text frames of JSON"));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
        };
        let bytes = text.len();
        let read = (!is_too_deep(text.as_bytes())).then(|| serde_json::from_str(&text));
        let Some(Ok(message)) = read else {
            return bye(&complain, malformed("a message is not JSON of the node protocol"));
        };
        drop(text);
        if let Err(error) = fits(bytes, &message) {
            return bye(&complain, error);
        }
        // A large message waits until nothing else does, so that a link holds few of them.
        let room = if bytes > MESSAGE_BYTES_MAX { link::CHANNEL } else { 1 };
        match to_link.reserve_many(room).await.map(|mut room| room.next()) {
            Ok(Some(place)) => place.send(Box::new(message)),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Whether a message is as small as its kind must be.
pub(crate) fn fits(bytes: usize, message: &NodeMessage) -> Result<(), ErrorBody> {
    let bytes_max = match message {
        NodeMessage::Submit(_) => SUBMIT_BYTES_MAX,
        _ => MESSAGE_BYTES_MAX,
    };
    if bytes > bytes_max { Err(too_large(bytes_max)) } else { Ok(()) }
}

pub(crate) fn malformed(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, message)
}

fn bye(complain: &mpsc::WeakSender<Box<CoordinatorMessage>>, error: ErrorBody) {
    if let Some(to_node) = complain.upgrade() {
        // A node that does not read its messages does not read this one either.
        let _ = to_node.try_send(Box::new(CoordinatorMessage::Bye(error)));
    }
}

/// Writes frames until the link or the socket ends.
async fn send(
    mut sink: SplitSink<WebSocket, Message>,
    mut from_link: mpsc::Receiver<Box<CoordinatorMessage>>,
    closed: &CancellationToken,
) {
    while let Some(message) = from_link.recv().await {
        let json = serde_json::to_string(&message).expect("the protocol's messages serialise");
        let sent = tokio::time::timeout(SEND_WAIT, sink.send(Message::text(json))).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    // The other side may be gone already.
    let _ = tokio::time::timeout(SEND_WAIT, sink.close()).await;
    closed.cancel();
}

/// Sessions that are open by long poll, by their token.
#[derive(Default)]
pub(crate) struct Polls(Mutex<HashMap<String, Arc<Poll>>>);

/// One of them.
struct Poll {
    session: NodeSession,
    outbox: tokio::sync::Mutex<Outbox>,
    /// Keeps the messages of two exchanges in order.
    handling: tokio::sync::Mutex<()>,
}

impl Polls {
    fn get(&self, token: &str) -> Option<Arc<Poll>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    fn insert(&self, token: String, poll: Arc<Poll>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token, poll);
    }

    fn remove(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

/// `POST /v1/node/challenge`: what to sign.
pub(crate) async fn challenge(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
) -> Result<Json<CoordinatorMessage>, ApiError> {
    refuse_browsers(&headers)?;
    coordinator.challenge().map(Json).map_err(ApiError::plain)
}

/// `POST /v1/node/session`: a signed hello opens a session.
pub(crate) async fn session(
    State(coordinator): State<Edge>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<SessionOpened>, ApiError> {
    refuse_browsers(&headers)?;
    let from = coordinator.admit_from(peer, &headers).map_err(ApiError::plain)?;
    let coordinator = &coordinator;
    let hello: Hello = read_json(coordinator, request, ApiError::plain).await?;
    let (session, outbox) = coordinator.open_session(&hello).map_err(ApiError::plain)?;
    session.came_from(from);
    let token = hex::encode(rand::random::<[u8; 32]>());
    let end = session.end.clone();
    let poll = Poll { session, outbox: outbox.into(), handling: tokio::sync::Mutex::default() };
    coordinator.polls.insert(token.clone(), Arc::new(poll));
    let (polls, ended) = (Arc::downgrade(&coordinator.polls), token.clone());
    coordinator.tasks.spawn(async move {
        end.cancelled().await;
        if let Some(polls) = Weak::upgrade(&polls) {
            polls.remove(&ended);
        }
    });
    Ok(Json(SessionOpened { token, welcome: coordinator.welcome(&hello) }))
}

/// `POST /v1/node/exchange`: hands messages in and waits for others.
pub(crate) async fn exchange(
    State(coordinator): State<Edge>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<ExchangeReply>, ApiError> {
    refuse_browsers(&headers)?;
    let poll =
        bearer(&headers).and_then(|token| coordinator.polls.get(token)).ok_or_else(|| {
            let error = ErrorBody::new(ErrorCode::Unauthorized, "the session is over or never was");
            ApiError::plain(error.with_hint("open another one with POST /v1/node/challenge"))
        })?;
    let _alive = poll.session.polling();
    let exchange = read_exchange(&coordinator, request).await.map_err(ApiError::plain)?;
    if exchange.messages.len() > EXCHANGE_MAX {
        let message = format!("an exchange takes at most {EXCHANGE_MAX} messages");
        return Err(ApiError::plain(ErrorBody::new(ErrorCode::InvalidRequest, message)));
    }
    let until = Instant::now() + Duration::from_millis(exchange.wait_ms).min(WAIT_MAX);
    {
        let _order = poll.handling.lock().await;
        for message in exchange.messages {
            poll.session.handle(message).await;
        }
    }
    Ok(Json(ExchangeReply { messages: poll.wait(until).await }))
}

/// Reads what a session hands in. A picture takes its time on a slow line.
async fn read_exchange(coordinator: &Coordinator, request: Request) -> Result<Exchange, ErrorBody> {
    let sending =
        declared_bytes(&request).unwrap_or(0).min(SUBMIT_BYTES_MAX) / UPLOAD_BYTES_PER_SEC;
    let wait = Duration::from_millis(coordinator.config.limits.request_read_ms)
        + Duration::from_secs(sending as u64);
    let body = read_within(request, SUBMIT_BYTES_MAX + BEYOND_BYTES, wait).await?;
    let exchange: Exchange = parse_json(&body)?;
    let submits = exchange.messages.iter().any(|m| matches!(m, NodeMessage::Submit(_)));
    if body.len() > MESSAGE_BYTES_MAX && !submits {
        return Err(too_large(MESSAGE_BYTES_MAX));
    }
    Ok(exchange)
}

impl Poll {
    /// Messages for the node; waits for the first one.
    async fn wait(&self, until: Instant) -> Vec<CoordinatorMessage> {
        let mut messages = Vec::new();
        // Another exchange waits already: it will carry them.
        let Ok(mut outbox) = tokio::time::timeout_at(until, self.outbox.lock()).await else {
            return messages;
        };
        let mut bytes = 0;
        let mut first = outbox.try_recv().ok();
        if first.is_none() {
            first = tokio::select! {
                () = self.session.end.cancelled() => outbox.try_recv().ok(),
                first = tokio::time::timeout_at(until, outbox.recv()) => first.ok().flatten(),
            };
        }
        while let Some(message) = first.take() {
            bytes += serde_json::to_vec(&message).map_or(0, |json| json.len());
            messages.push(*message);
            if bytes < REPLY_BYTES && messages.len() < EXCHANGE_MAX {
                first = outbox.try_recv().ok();
            }
        }
        messages
    }
}
