//! A small coordinator edge: it opens sessions honestly and answers every `HandBack` with `Cancel`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use neurino_protocol::node::{
    CoordinatorMessage, Exchange, ExchangeReply, Hello, NodeMessage, PROTOCOL_VERSION,
    SessionOpened,
};
use neurino_protocol::{ErrorBody, ErrorCode};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const NETWORK: &str = "test-net";
pub(crate) const COORDINATOR: &str = "0x00000000000000000000000000000000000000aa";
const NONCE: &str = "nonce-1";
const TOKEN: &str = "token-1";

/// How the server behaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manners {
    /// No WebSocket route, as behind a proxy that does not know upgrades.
    pub(crate) polls_only: bool,
    /// Refuses every hello.
    pub(crate) refuses: bool,
    /// Sends nonsense and an oversize frame after the welcome.
    pub(crate) rude: Option<usize>,
    /// Sends so many frames that are no messages after the welcome.
    pub(crate) nonsense: usize,
}

/// What the server saw.
pub(crate) struct Seen {
    manners: Manners,
    pub(crate) received: watch::Sender<Vec<NodeMessage>>,
    pub(crate) closed: watch::Sender<bool>,
    pub(crate) polls: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    pub(crate) for_polls: mpsc::Sender<CoordinatorMessage>,
    polled: tokio::sync::Mutex<mpsc::Receiver<CoordinatorMessage>>,
    /// Received in one exchange, largest count.
    pub(crate) batch_max: Mutex<usize>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _running: DropGuard,
}

impl Server {
    pub(crate) async fn start(manners: Manners) -> Self {
        let (for_polls, polled) = mpsc::channel(1024);
        let seen = Arc::new(Seen {
            manners,
            received: watch::Sender::new(Vec::new()),
            closed: watch::Sender::new(false),
            polls: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            for_polls,
            polled: tokio::sync::Mutex::new(polled),
            batch_max: Mutex::new(0),
        });
        let mut router = Router::new()
            .route("/v1/node/challenge", post(challenge))
            .route("/v1/node/session", post(session))
            .route("/v1/node/exchange", post(exchange));
        if !manners.polls_only {
            router = router.route("/v1/node/link", get(link));
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = CancellationToken::new();
        let serving = axum::serve(listener, router.with_state(seen.clone()))
            .with_graceful_shutdown(running.clone().cancelled_owned());
        tokio::spawn(async move { serving.await.unwrap() });
        Self { address, seen, _running: running.drop_guard() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn the_challenge() -> CoordinatorMessage {
    CoordinatorMessage::Challenge {
        version: PROTOCOL_VERSION,
        network: NETWORK.into(),
        coordinator: COORDINATOR.into(),
        nonce: NONCE.into(),
    }
}

/// Checks a hello as a real coordinator does.
fn admit(manners: Manners, hello: &Hello) -> CoordinatorMessage {
    let message = hello.message(NETWORK);
    neurino_wallet::verify(&message, &hello.device_signature, &hello.device).unwrap();
    neurino_wallet::verify(&message, &hello.signature, hello.node.as_str()).unwrap();
    assert_eq!((hello.version, hello.nonce.as_str()), (PROTOCOL_VERSION, NONCE));
    if manners.refuses {
        CoordinatorMessage::Bye(ErrorBody::new(ErrorCode::Unauthorized, "not today"))
    } else {
        CoordinatorMessage::Welcome { coordinator: COORDINATOR.into(), uploads: false, token: None }
    }
}

fn answer_to(message: &NodeMessage) -> Option<CoordinatorMessage> {
    match message {
        NodeMessage::HandBack { lease, .. } => {
            Some(CoordinatorMessage::Cancel { lease: *lease, code: ErrorCode::Cancelled })
        }
        _ => None,
    }
}

async fn link(State(seen): State<Arc<Seen>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| converse(seen, socket))
}

async fn converse(seen: Arc<Seen>, mut socket: WebSocket) {
    let text = |m: &CoordinatorMessage| Message::text(serde_json::to_string(m).unwrap());
    socket.send(text(&the_challenge())).await.unwrap();
    // A ping may come first.
    let hello = loop {
        match socket.recv().await {
            Some(Ok(Message::Text(hello))) => break hello,
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("no hello but {other:?}"),
        }
    };
    let NodeMessage::Hello(hello) = serde_json::from_str(&hello).unwrap() else {
        panic!("not a hello")
    };
    socket.send(text(&admit(seen.manners, &hello))).await.unwrap();
    if let Some(size_bytes) = seen.manners.rude {
        socket.send(Message::text("{\"type\":\"tomorrow's message\"}")).await.unwrap();
        socket.send(Message::text("not JSON")).await.unwrap();
        // The client hangs up in the middle of it.
        let _ = socket.send(Message::text("x".repeat(size_bytes))).await;
    }
    for _ in 0..seen.manners.nonsense {
        socket.send(Message::text("{\"type\":7}")).await.unwrap();
    }
    while let Some(Ok(frame)) = socket.recv().await {
        let Message::Text(frame) = frame else { continue };
        let message: NodeMessage = serde_json::from_str(&frame).unwrap();
        let answer = answer_to(&message);
        seen.received.send_modify(|all| all.push(message));
        if let Some(answer) = answer {
            let _ = socket.send(text(&answer)).await;
        }
    }
    seen.closed.send_replace(true);
}

async fn challenge(State(seen): State<Arc<Seen>>) -> Json<CoordinatorMessage> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    Json(the_challenge())
}

async fn session(
    State(seen): State<Arc<Seen>>,
    Json(hello): Json<Hello>,
) -> Result<Json<SessionOpened>, (StatusCode, Json<ErrorBody>)> {
    match admit(seen.manners, &hello) {
        CoordinatorMessage::Bye(error) => Err((StatusCode::UNAUTHORIZED, Json(error))),
        welcome => Ok(Json(SessionOpened { token: TOKEN.into(), welcome })),
    }
}

async fn exchange(
    State(seen): State<Arc<Seen>>,
    headers: HeaderMap,
    Json(exchange): Json<Exchange>,
) -> Json<Value> {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    for message in &exchange.messages {
        if let Some(answer) = answer_to(message) {
            seen.for_polls.send(answer).await.unwrap();
        }
    }
    {
        let mut batch_max = seen.batch_max.lock().unwrap();
        *batch_max = exchange.messages.len().max(*batch_max);
    }
    seen.received.send_modify(|all| all.extend(exchange.messages));
    let mut messages = Vec::new();
    if exchange.wait_ms > 0 {
        seen.polls.fetch_add(1, Ordering::Relaxed);
        let wait = Duration::from_millis(exchange.wait_ms);
        let mut polled = seen.polled.lock().await;
        if let Ok(Some(first)) = tokio::time::timeout(wait, polled.recv()).await {
            messages.push(first);
        }
        while let Ok(message) = polled.try_recv() {
            messages.push(message);
        }
    }
    let mut reply = serde_json::to_value(ExchangeReply { messages }).unwrap();
    // A newer coordinator may say what this program does not know, before what it does.
    if let Some(messages) = reply["messages"].as_array_mut().filter(|all| !all.is_empty()) {
        messages.insert(0, serde_json::json!({ "type": "tomorrow's message" }));
    }
    Json(reply)
}
