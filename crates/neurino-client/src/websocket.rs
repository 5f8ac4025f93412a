//! The link as a WebSocket: one text frame a message.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use neurino_protocol::node::{
    CoordinatorMessage, HEARTBEAT_SECS, IDLE_HEARTBEAT_SECS, MESSAGE_BYTES_MAX, NodeMessage,
    UPLOAD_BYTES_PER_SEC,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::{self, Message, protocol::WebSocketConfig};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use crate::handshake::Link;
use crate::tls::believed;

/// Messages that may wait in each direction.
pub(crate) const LINK_MESSAGES: usize = 64;
/// How often the other side is asked for a sign of life: together with a heartbeat if there is one, so that
/// both of them wake it once.
const PING: Duration = Duration::from_secs(IDLE_HEARTBEAT_SECS);
/// How much earlier than that a heartbeat takes it along.
const PING_EARLY: Duration = Duration::from_secs(1);
/// Silence after which the link is taken for dead: two signs of life were missed.
const SILENCE: Duration = Duration::from_secs(2 * IDLE_HEARTBEAT_SECS + HEARTBEAT_SECS);
/// How long the other side may take to answer a close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where the WebSocket is.
#[derive(Debug)]
pub(crate) struct WebSocket {
    url: String,
}

impl WebSocket {
    /// `base` is a checked `http` or `https` URL without a slash at its end.
    pub(crate) fn new(base: &str) -> Self {
        // `http` becomes `ws` and `https` becomes `wss`.
        let url = format!("{}/v1/node/link", base.replacen("http", "ws", 1));
        Self { url }
    }

    /// Connects and upgrades. The link's task ends soon after the returned link, or the session
    /// made of it, is dropped: it sends what it holds and closes.
    pub(crate) async fn open(&self) -> Result<Link, tungstenite::Error> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = Connector::Rustls(believed());
        let connecting =
            connect_async_tls_with_config(self.url.as_str(), Some(config), true, Some(connector));
        let (socket, _response) = connecting.await?;
        let (outbox, from_node) = mpsc::channel(LINK_MESSAGES);
        let (to_node, messages) = mpsc::channel(LINK_MESSAGES);
        tokio::spawn(carry(socket, from_node, to_node));
        Ok(Link { outbox, messages })
    }
}

/// Messages of a session that could not be read. A newer coordinator may say what this program does not
/// know, and a hostile one anything: the log tells of the first.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    told: AtomicBool,
}

impl Unread {
    pub(crate) fn note(&self, error: &serde_json::Error) {
        let kind = error.classify();
        if self.told.swap(true, Ordering::Relaxed) {
            tracing::trace!(?kind, "another message of the coordinator cannot be read");
        } else {
            tracing::warn!(?kind, "a message of the coordinator cannot be read");
        }
    }
}

/// Carries messages both ways until either side closes.
async fn carry(
    socket: Socket,
    from_node: mpsc::Receiver<NodeMessage>,
    to_node: mpsc::Sender<CoordinatorMessage>,
) {
    let (sink, stream) = socket.split();
    let uploading = AtomicUsize::new(0);
    let reading = read(stream, to_node, &uploading);
    tokio::pin!(reading);
    tokio::select! {
        () = &mut reading => {}
        // Nothing more to send. What the other side still says, such as the last receipt, counts.
        () = write(sink, from_node, &uploading) => {
            let _ = tokio::time::timeout(CLOSE_LIMIT, reading).await;
        }
    }
}

/// `uploading` holds the bytes of the message that is being sent.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut from_node: mpsc::Receiver<NodeMessage>,
    uploading: &AtomicUsize,
) {
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Instant::now();
    loop {
        let (frame, asks) = tokio::select! {
            message = from_node.recv() => match message {
                Some(message) => {
                    let beats = matches!(message, NodeMessage::Heartbeat { .. });
                    let json =
                        serde_json::to_string(&message).expect("node messages always serialise");
                    (Message::text(json), beats && asked.elapsed() + PING_EARLY >= PING)
                }
                None => (Message::Close(None), false),
            },
            _ = ping.tick() => {
                asked = Instant::now();
                (ping_frame(), false)
            }
        };
        let last = frame.is_close();
        uploading.store(frame.len(), Ordering::Relaxed);
        let sent = if asks {
            asked = Instant::now();
            ping.reset();
            match sink.feed(frame).await {
                Ok(()) => sink.send(ping_frame()).await,
                failed => failed,
            }
        } else {
            sink.send(frame).await
        };
        uploading.store(0, Ordering::Relaxed);
        if let Err(error) = sent {
            tracing::debug!(%error, "the websocket takes no more messages");
            return;
        }
        if last {
            return;
        }
    }
}

fn ping_frame() -> Message {
    Message::Ping(tungstenite::Bytes::new())
}

/// How long the other side may be silent. It is not asked for a sign of life while a large message is
/// on its way.
fn silence(uploading: &AtomicUsize) -> Duration {
    let seconds = uploading.load(Ordering::Relaxed) / UPLOAD_BYTES_PER_SEC;
    SILENCE + Duration::from_secs(seconds as u64)
}

async fn read(
    mut stream: SplitStream<Socket>,
    to_node: mpsc::Sender<CoordinatorMessage>,
    uploading: &AtomicUsize,
) {
    let mut heard = Instant::now();
    let unread = Unread::default();
    loop {
        let frame = match tokio::time::timeout(SILENCE, stream.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return tracing::debug!(%error, "the websocket broke"),
            Ok(None) => return,
            Err(_) if heard.elapsed() < silence(uploading) => continue,
            Err(_) => return tracing::debug!("the coordinator fell silent"),
        };
        heard = Instant::now();
        match frame {
            Message::Text(text) => match serde_json::from_str(&text) {
                // Nobody listens when the session is being closed; reading goes on for the close.
                Ok(message) => drop(to_node.send(message).await),
                Err(error) => unread.note(&error),
            },
            Message::Close(_) => return,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}
