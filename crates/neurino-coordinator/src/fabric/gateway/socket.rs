//! Nodes' WebSockets. A gateway makes the challenge and sees it answered; it introduces the node to
//! whoever routes, by the hello that the node has signed, again whenever that changes. The socket stays.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use neurino_protocol::node::{CoordinatorMessage, Hello, NodeMessage, PROTOCOL_VERSION};
use neurino_protocol::{ErrorBody, ErrorCode};

use super::super::wire::{UpSay, pieces};
use super::{Circuit, Heard, Inner};
use crate::depth::is_too_deep;
use crate::edge::{ApiError, Peer, SEND_WAIT, fits, malformed, prepared};
use crate::introduction::check_signatures;
use crate::session::{address_of, check_version, void_challenge};

/// How long a node may take to answer the challenge.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a node's socket is held while nobody routes.
const ROUTER_WAIT: Duration = Duration::from_mins(2);

/// `GET /v1/node/link`: the WebSocket.
pub(super) async fn link(
    State(gateway): State<Arc<Inner>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = prepared(&headers, upgrade)?;
    let from = gateway.caller_of(peer.as_ref().map(|Extension(peer)| peer), &headers);
    let new = gateway.newcomers.enter(from, gateway.limits.new_sessions_per_min);
    new.map_err(ApiError::plain)?;
    let Ok(room) = Arc::clone(&gateway.links).try_acquire_owned() else {
        let full =
            ErrorBody::new(ErrorCode::Overloaded, "the gateway has no room for another node");
        return Err(ApiError::plain(full.with_hint("try again in a minute")));
    };
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let tasks = gateway.tasks.clone();
        let held = async {
            let stop = gateway.stop.clone();
            let bye = tokio::select! {
                () = stop.cancelled() => Some(crate::error::shutting_down()),
                bye = hold(&gateway, from, &mut socket) => bye,
            };
            if let Some(error) = bye {
                tell(&mut socket, &CoordinatorMessage::Bye(error)).await;
            }
            // The other side may be gone already.
            let _ = tokio::time::timeout(SEND_WAIT, socket.send(Message::Close(None))).await;
            drop(room);
        };
        tasks.track_future(held).await;
    }))
}

/// Holds a node's socket until it ends; returns why, if the node is to be told.
async fn hold(
    gateway: &Arc<Inner>,
    from: Option<IpAddr>,
    socket: &mut WebSocket,
) -> Option<ErrorBody> {
    let hello = match tokio::time::timeout(HELLO_WAIT, greet(gateway, socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(bye)) => return bye,
        Err(_) => {
            let message = "the challenge was not answered within ten seconds";
            return Some(ErrorBody::new(ErrorCode::Unauthorized, message));
        }
    };
    let mut node = Node { hello, from, welcomed: false, ready: None, part: Vec::new() };
    loop {
        let Some(live) = gateway.session(ROUTER_WAIT).await else {
            let error = ErrorBody::new(ErrorCode::Unreachable, "no coordinator answers right now");
            return Some(error.with_hint("try again in a minute"));
        };
        let mut circuit = gateway.open(live);
        match node.carry(&mut circuit, socket).await {
            Ended::Lost => circuit.leave().await,
            Ended::Told => {
                circuit.over = true;
                return None;
            }
            Ended::Gone(bye) => return bye,
        }
    }
}

/// Sends the challenge, and returns the hello that answers it.
async fn greet(gateway: &Inner, socket: &mut WebSocket) -> Result<Box<Hello>, Option<ErrorBody>> {
    let nonce = hex::encode(rand::random::<[u8; 32]>());
    let (version, network) = (PROTOCOL_VERSION, gateway.network.clone());
    // The key is the router's.
    let coordinator = String::new();
    let challenge =
        CoordinatorMessage::Challenge { version, network, coordinator, nonce: nonce.clone() };
    if !tell(socket, &challenge).await {
        return Err(None);
    }
    let (_, message) = read(socket).await?;
    let NodeMessage::Hello(hello) = message else {
        let message = "the first message must be a hello that answers the challenge";
        return Err(Some(ErrorBody::new(ErrorCode::InvalidRequest, message)));
    };
    check_version(&hello)?;
    let address = address_of(&hello.node)?;
    if hello.nonce != nonce {
        return Err(Some(void_challenge()));
    }
    // Whether it was meant for here, and its token, the router knows.
    check_signatures(&gateway.network, &hello, address)?;
    Ok(Box::new(hello))
}

/// The next message of a node; an error without words when it is gone.
async fn read(socket: &mut WebSocket) -> Result<(Utf8Bytes, NodeMessage), Option<ErrorBody>> {
    loop {
        let text = match socket.recv().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(malformed("messages are text frames of JSON")));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(None),
        };
        let read = (!is_too_deep(text.as_bytes())).then(|| serde_json::from_str(&text));
        let Some(Ok(message)) = read else {
            return Err(Some(malformed("a message is not JSON of the node protocol")));
        };
        fits(text.len(), &message)?;
        return Ok((text, message));
    }
}

/// Writes a message to a node; `false` if it does not take it.
async fn tell(socket: &mut WebSocket, message: &CoordinatorMessage) -> bool {
    let json = serde_json::to_string(message).expect("the protocol's messages serialise");
    send(socket, json.into()).await
}

async fn send(socket: &mut WebSocket, json: Utf8Bytes) -> bool {
    let sent = tokio::time::timeout(SEND_WAIT, socket.send(Message::Text(json))).await;
    matches!(sent, Ok(Ok(())))
}

/// Why a circuit of a node ended.
enum Ended {
    /// The session with the router did; the node is introduced again in the next one.
    Lost,
    /// The router ended it, and the node knows.
    Told,
    /// The node did, or has to be told why it must go.
    Gone(Option<ErrorBody>),
}

/// What of a node outlives a session with the router.
struct Node {
    hello: Box<Hello>,
    from: Option<IpAddr>,
    /// Whether the router's welcome has reached it.
    welcomed: bool,
    /// What it said last that it can take.
    ready: Option<Utf8Bytes>,
    /// The beginning of a message to it.
    part: Vec<u8>,
}

impl Node {
    async fn carry(&mut self, circuit: &mut Circuit, socket: &mut WebSocket) -> Ended {
        self.part.clear();
        let say = UpSay::Link { hello: self.hello.clone(), again: self.welcomed, from: self.from };
        if circuit.say(say, &[]).await.is_err() {
            return Ended::Lost;
        }
        if let Some(ready) = self.ready.clone()
            && pass(circuit, &ready).await.is_err()
        {
            return Ended::Lost;
        }
        loop {
            tokio::select! {
                // What the router says goes first: a node that is told to go says nothing more.
                biased;
                heard = circuit.hear() => match heard {
                    None => return Ended::Lost,
                    Some(heard) => {
                        if let Some(ended) = self.hear(socket, heard).await {
                            return ended;
                        }
                    }
                },
                said = read(socket) => {
                    let (text, message) = match said {
                        Ok(said) => said,
                        Err(bye) => return Ended::Gone(bye),
                    };
                    match message {
                        NodeMessage::Ready(_) => self.ready = Some(text.clone()),
                        NodeMessage::Goodbye => self.ready = None,
                        _ => {}
                    }
                    if pass(circuit, &text).await.is_err() {
                        // What was lost, the node repeats if it matters: results, and what it works on.
                        return Ended::Lost;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, socket: &mut WebSocket, heard: Heard) -> Option<Ended> {
        let (bytes, more) = match heard {
            Heard::Text { bytes, more } => (bytes, more),
            Heard::End { .. } => return Some(Ended::Told),
            Heard::Head { .. } | Heard::Body(_) => return None,
        };
        self.part.extend_from_slice(&bytes);
        if more {
            return None;
        }
        let message = Utf8Bytes::try_from(std::mem::take(&mut self.part)).ok()?;
        // The first message of a router is its welcome, or goodbye.
        self.welcomed = true;
        (!send(socket, message).await).then_some(Ended::Gone(None))
    }
}

/// Passes a node's message on.
async fn pass(circuit: &Circuit, text: &str) -> Result<(), super::Lost> {
    for (piece, more) in pieces(text.as_bytes()) {
        circuit.say(UpSay::Text { more }, piece).await?;
    }
    Ok(())
}
